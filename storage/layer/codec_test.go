package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestADamagedIndexIsNoticed(t *testing.T) {
	t.Parallel()
	index := indexOf(t, variety())
	for n := range len(index) {
		if _, err := readIndex(index[:n]); !errors.Is(err, ErrIndex) {
			t.Errorf("the first %d of %d bytes: error = %v, want ErrIndex", n, len(index), err)
		}
		broken := bytes.Clone(index)
		broken[n] ^= 0x10
		if _, err := readIndex(broken); err != nil && !errors.Is(err, ErrIndex) {
			t.Errorf("byte %d changed: error = %v, want ErrIndex", n, err)
		}
	}
	for _, more := range []string{"x", string(index)} {
		if _, err := readIndex(append(bytes.Clone(index), more...)); !errors.Is(err, ErrIndex) {
			t.Errorf("%d bytes more: error = %v, want ErrIndex", len(more), err)
		}
	}
}

// TestAnIndexThatLies: what zstd's checksum cannot notice.
func TestAnIndexThatLies(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]string{
		"another version":      strings.Replace(indexMagic, "1", "2", 1) + "\x00\x00",
		"one entry too few":    indexMagic + "\x00\x01",
		"no end":               indexMagic,
		"more after the end":   indexMagic + "\x00\x00\x00",
		"an unknown type":      indexMagic + "9\x03\x00\x01a\x00\x00\x00\x01",
		"unknown flags":        indexMagic + "5\x83\x00\x01a\x00\x00\x00\x01",
		"a prefix of nothing":  indexMagic + "5\x03\x05\x01a\x00\x00\x00\x01",
		"a name without end":   indexMagic + "5\x03\x00\xff\xff\x7fa\x00\x00\x00\x01",
		"a name over a bound":  indexMagic + "5\x03\x00\xff\xff\xff\xff\xff\xff\x7fa",
		"a mode of more bits":  indexMagic + "5\x02\x00\x01a\x80\x40\x00\x00\x00\x01",
		"a number of 11 bytes": indexMagic + "5\x03\x00\x01a" + strings.Repeat("\xff", 11),
	} {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readIndex(w.EncodeAll([]byte(plain), nil)); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %+v, error %v, want ErrIndex", name, got, err)
		}
	}
}

func TestAnEmptyLayerHasAnIndex(t *testing.T) {
	t.Parallel()
	for _, plain := range [][]byte{{}, make([]byte, 1024)} {
		if list, err := readIndex(indexOf(t, plain)); err != nil || len(list) != 0 {
			t.Errorf("%d zeros: %v, %v", len(plain), list, err)
		}
	}
}

func TestAReaderStaysAtItsEnd(t *testing.T) {
	t.Parallel()
	r, err := NewReader(bytes.NewReader(indexOf(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("Next = %v, want io.EOF", err)
		}
	}
}

// FuzzReader reads anything: it ends, in a bounded memory.
func FuzzReader(f *testing.F) {
	f.Add([]byte(indexMagic + "\x00\x00"))
	f.Add([]byte(indexMagic + "5\x03\x00\x01a\x00\x00\x00\x01"))
	w, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		list, err := readIndex(w.EncodeAll(plain, nil))
		if err != nil && !errors.Is(err, ErrIndex) {
			t.Errorf("error = %v, want ErrIndex", err)
		}
		if len(list) > len(plain) {
			t.Errorf("%d entries of %d bytes", len(list), len(plain))
		}
	})
}

// BenchmarkReader reads the index of 100,000 files.
func BenchmarkReader(b *testing.B) {
	var items []item
	for i := range 100_000 {
		items = append(items, file("usr/share/doc/package-"+noise(5+i%7)+"/file", fmt.Sprint(i)))
	}
	index := indexOf(b, pack(items...))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readIndex(index); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(index))/float64(len(items)), "bytes/entry")
}
