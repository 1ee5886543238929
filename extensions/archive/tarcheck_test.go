package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
)

// check runs the checker over b in chunks of n bytes.
func check(b []byte, n int) error {
	c := newTarCheck()
	defer c.abandon()
	for len(b) > 0 {
		k := min(n, len(b))
		_, _ = c.Write(b[:k])
		b = b[k:]
	}
	return c.close()
}

// isGoodTar is what archive/tar says when it reads everything, bodies too.
func isGoodTar(b []byte) bool {
	r := bytes.NewReader(b)
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || h.Typeflag == tar.TypeGNUSparse || !bytes.ContainsRune([]byte("0123456g"), rune(h.Typeflag)) {
			return false
		}
	}
	rest, err := io.ReadAll(r)
	return err == nil && len(bytes.TrimLeft(rest, "\x00")) == 0
}

func TestTarCheckDoesNotDependOnChunks(t *testing.T) {
	t.Parallel()
	whole := pack(text("a", noise(1700)), entry{name: "d/", typ: tar.TypeDir}, text("b", ""), text("long/"+noise(300), "x"),
		entry{name: "p", body: []byte(noise(513)), pax: map[string]string{"VENDOR.x": noise(2000)}})
	for _, cut := range []int{len(whole), len(whole) - 512, len(whole) - 1024, len(whole) - 1025, 5000, 600, 512, 511, 1, 0} {
		b := whole[:cut]
		for _, n := range []int{1, 7, 511, 512, 513, 4096, 1 << 20} {
			if err := check(b, n); (err == nil) != isGoodTar(b) {
				t.Errorf("first %d of %d bytes in chunks of %d: %v, archive/tar says %v", cut, len(whole), n, err, isGoodTar(b))
			}
		}
	}
}

func TestTarCheckCanBeAbandoned(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 100, 512, 3000} {
		c := newTarCheck()
		_, _ = c.Write(pack(text("a", noise(5000)))[:n])
		c.abandon()
		_, _ = c.Write([]byte("nobody reads this")) // and does not block
	}
}

// FuzzTarCheck compares the checker, which skips bodies, with archive/tar,
// which reads them.
func FuzzTarCheck(f *testing.F) {
	f.Add(pack(text("a", "x"), symlink("b", "a")), 100)
	f.Add(pack(entry{name: "p", pax: map[string]string{"VENDOR.x": "y"}}), 512)
	f.Add(make([]byte, 1024), 1)
	f.Add([]byte(noise(600)), 7)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = max(1, min(n, 1<<16))
		if err := check(b, n); (err == nil) != isGoodTar(b) {
			t.Errorf("check = %v, archive/tar says %v", err, isGoodTar(b))
		}
	})
}

func BenchmarkTarCheck(b *testing.B) {
	layer := bytes.Repeat(pack(text("a", noise(10_000)), text("b", noise(300)))[:12_288], 4000)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if err := check(layer, bufferSize); err != nil {
			b.Fatal(err)
		}
	}
}
