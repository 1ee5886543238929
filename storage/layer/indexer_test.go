package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func check(b []byte, n int) error { return feedIn(NewIndexer(nil, nil), b, n) }

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

// variety is a tar with everything in it that a layer can have.
func variety() []byte {
	record := func(k, v string) func(*tar.Header) {
		return func(h *tar.Header) { h.PAXRecords = map[string]string{k: v} }
	}
	return pack(
		item{Header: tar.Header{Name: "pax", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}},
		dir("./"), dir("./etc/"), file("./etc/passwd", noise(1700)), file("etc/empty", ""), file("/etc/one", "1"),
		file("etc/.wh.gone", ""), dir("srv/"), file("srv/.wh..wh..opq", ""), file("srv/.wh..wh.plnk", ""),
		link(tar.TypeLink, "etc/passwd-", "./etc/passwd"), link(tar.TypeSymlink, "etc/mtab", "../proc/./mounts"),
		item{Header: tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}},
		item{Header: tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 8, Gid: 6}},
		item{Header: tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo, Mode: 0o600, Uid: 3_000_000, Gid: 2_147_483_647}},
		file("usr/bin/sudo", noise(513)).with(func(h *tar.Header) { h.Mode = 0o104755 }),
		file("usr/bin/ping", noise(4096)).with(record(CapabilityRecord, "\x01\x00\x00\x02\x00\x20\x00\x00")),
		file("usr/vendor", "x").with(record("VENDOR.x", noise(2000))),
		file("usr/old", "1960").with(func(h *tar.Header) { h.ModTime = h.ModTime.AddDate(-63, 0, 0).Add(1) }),
		file("usr/"+noise(300), "long"), file("usr/n\xe4me", "Latin-1").with(func(h *tar.Header) { h.Format = tar.FormatGNU }), file("usr/bin/../bin//x", "y"),
		file("etc/passwd", "again"),
	)
}

func TestAnIndexHasWhatTheTarHasInChunksOfAnySize(t *testing.T) {
	t.Parallel()
	plain := variety()
	want := entriesOf(t, plain)
	if len(want) != 22 {
		t.Fatalf("%d entries in the tar", len(want))
	}
	for _, n := range []int{1, 7, 511, 512, 513, 4096, 1 << 20} {
		var out bytes.Buffer
		ix := NewIndexer(&out, nil)
		if err := errors.Join(feedIn(ix, plain, n), ix.Err()); err != nil {
			t.Fatalf("chunks of %d: %v", n, err)
		}
		got, err := readIndex(out.Bytes())
		if err != nil {
			t.Fatalf("chunks of %d: %v", n, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("chunks of %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestTheIndexIsOfTheBytesAndNotOfTheirChunks(t *testing.T) {
	t.Parallel()
	plain := variety()
	want := indexOf(t, plain)
	var out bytes.Buffer
	if err := feedIn(NewIndexer(&out, nil), plain, 100); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Error("the same layer in other chunks has another index")
	}
}

// TestASparseFileIsKnownToBeOne: what GNU tar writes with --sparse --format=posix
// can be unpacked by Docker, so a base image may have it.
func TestASparseFileIsKnownToBeOne(t *testing.T) {
	t.Parallel()
	dirName := t.TempDir()
	if err := os.WriteFile(filepath.Join(dirName, "hole"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dirName, "hole"), 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dirName, "next"), []byte("behind it"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, err := exec.CommandContext(t.Context(), "tar", "-C", dirName, "--sparse", "--format=posix", "-cf", "-", "hole", "next").Output()
	if err != nil {
		t.Skipf("no GNU tar here: %v", err)
	}
	got, err := readIndex(indexOf(t, plain))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !got[0].Sparse || got[0].Size != 5<<20 || got[0].SHA256 != [32]byte{} {
		t.Errorf("entries = %+v, want a sparse one of 5 MiB first", got)
	}
	if got[1].Sparse || got[1].Size != 9 || string(plain[got[1].Offset:][:9]) != "behind it" {
		t.Errorf("the entry behind it = %+v", got[1])
	}
}

// tape is a Collector that keeps what it asked for.
type tape struct {
	want  func(h *tar.Header) bool
	names []string
	got   map[string]*bytes.Buffer
	most  int // bytes of a file after which it refuses; 0 for all
}

func (c *tape) Entry(h *tar.Header) io.Writer {
	c.names = append(c.names, h.Name)
	if !c.want(h) {
		return nil
	}
	b := &bytes.Buffer{}
	c.got[h.Name] = b
	return writer(func(p []byte) (int, error) {
		if c.most > 0 && b.Len()+len(p) > c.most {
			return 0, io.ErrShortWrite
		}
		return b.Write(p)
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestACollectorGetsWhatItAsksFor(t *testing.T) {
	t.Parallel()
	plain := variety()
	for _, out := range []io.Writer{nil, io.Discard} {
		for _, n := range []int{100, 1 << 20} {
			c := &tape{want: func(h *tar.Header) bool { return strings.HasPrefix(h.Name, "usr/bin") || h.Name == "./etc/" }, got: map[string]*bytes.Buffer{}}
			if err := feedIn(NewIndexer(out, c), plain, n); err != nil {
				t.Fatal(err)
			}
			if got, want := len(c.names), len(entriesOf(t, plain)); got != want {
				t.Errorf("it saw %d entries, want %d", got, want)
			}
			for name, want := range map[string]string{"usr/bin/sudo": noise(513), "usr/bin/ping": noise(4096), "usr/bin/../bin//x": "y", "./etc/": ""} {
				if got := c.got[name]; got == nil || got.String() != want {
					t.Errorf("chunks of %d: content of %s = %v, want %q", n, name, got, want)
				}
			}
		}
	}
}

func TestACollectorsErrorIsNoFaultOfTheLayer(t *testing.T) {
	t.Parallel()
	c := &tape{want: func(*tar.Header) bool { return true }, got: map[string]*bytes.Buffer{}, most: 600}
	var out bytes.Buffer
	ix := NewIndexer(&out, c)
	if err := errors.Join(feedIn(ix, variety(), 512), ix.Err()); err != nil {
		t.Fatal(err)
	}
	if got, want := c.got["usr/bin/ping"].Len(), 512; got != want {
		t.Errorf("a writer that fails got %d bytes, want the first %d", got, want)
	}
	got, err := readIndex(out.Bytes())
	if diff := cmp.Diff(entriesOf(t, variety()), got); diff != "" || err != nil {
		t.Errorf("the index (%v) (-want +got):\n%s", err, diff)
	}
}

func TestAWriterThatFailsEndsTheIndexAndNotTheCheck(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	ix := NewIndexer(writer(func([]byte) (int, error) { return 0, full }), nil)
	if err := feedIn(ix, variety(), 100); err != nil {
		t.Errorf("Close = %v of a good layer", err)
	}
	if err := ix.Err(); !errors.Is(err, full) {
		t.Errorf("Err = %v, want the writer's", err)
	}
	ix = NewIndexer(writer(func([]byte) (int, error) { return 0, full }), nil)
	if err := feedIn(ix, variety()[:2000], 100); err == nil {
		t.Error("Close of a broken layer gave no error")
	}
}

func TestTheIndexOfABrokenLayerHasNoEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	plain := variety()
	cut := entriesOf(t, plain)[2].Offset + 1000 // in the middle of etc/passwd
	if err := feedIn(NewIndexer(&out, nil), plain[:cut], 100); err == nil {
		t.Fatal("a layer that is cut off is taken")
	}
	if _, err := readIndex(out.Bytes()); !errors.Is(err, ErrIndex) {
		t.Errorf("its index: error = %v, want ErrIndex", err)
	}
}

func TestTheCheckDoesNotDependOnChunks(t *testing.T) {
	t.Parallel()
	whole := pack(file("a", noise(1700)), dir("d/"), file("b", ""), file("long/"+noise(300), "x"),
		file("p", noise(513)).with(func(h *tar.Header) { h.PAXRecords = map[string]string{"VENDOR.x": noise(2000)} }))
	for _, cut := range []int{len(whole), len(whole) - 512, len(whole) - 1024, len(whole) - 1025, 5000, 600, 512, 511, 1, 0} {
		b := whole[:cut]
		for _, n := range []int{1, 7, 511, 512, 513, 4096, 1 << 20} {
			for _, w := range []io.Writer{nil, io.Discard} {
				if err := feedIn(NewIndexer(w, nil), b, n); (err == nil) != isGoodTar(b) {
					t.Errorf("first %d of %d bytes in chunks of %d: %v, archive/tar says %v", cut, len(whole), n, err, isGoodTar(b))
				}
			}
		}
	}
}

func TestAnIndexerCanBeAbandoned(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 100, 512, 3000} {
		ix := NewIndexer(io.Discard, nil)
		_, _ = ix.Write(pack(file("a", noise(5000)))[:n])
		ix.Abandon()
		_, _ = ix.Write([]byte("nobody reads this")) // and does not block
	}
}

// FuzzIndexer compares the Indexer, which skips bodies, with archive/tar, which
// reads them.
func FuzzIndexer(f *testing.F) {
	f.Add(pack(file("a", "x"), link(tar.TypeSymlink, "b", "a")), 100)
	f.Add(variety(), 512)
	f.Add(make([]byte, 1024), 1)
	f.Add([]byte(noise(600)), 7)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = max(1, min(n, 1<<16))
		good := isGoodTar(b)
		if err := check(b, n); (err == nil) != good {
			t.Errorf("check = %v, archive/tar says %v", err, good)
		}
		var out bytes.Buffer
		ix := NewIndexer(&out, nil)
		if err := feedIn(ix, b, n); (err == nil) != good || ix.Err() != nil {
			t.Fatalf("Close = %v, Err = %v, archive/tar says %v", err, ix.Err(), good)
		}
		got, err := readIndex(out.Bytes())
		if !good {
			if err == nil {
				t.Error("a broken tar has an index")
			}
			return
		}
		if diff := cmp.Diff(entriesOf(t, b), got); diff != "" || err != nil {
			t.Errorf("the index (%v) (-want +got):\n%s", err, diff)
		}
	})
}

func BenchmarkIndexer(b *testing.B) {
	two := pack(file("a", noise(10_000)), file("b", noise(300)))
	small := bytes.Repeat(two[:len(two)-2*BlockSize], 4000)
	large := pack(file("lib/libx.so", strings.Repeat(noise(1<<20), 48)))
	for name, plain := range map[string][]byte{"small files": small, "a large file": large} {
		for _, index := range []bool{false, true} {
			b.Run(name+map[bool]string{false: ", check only", true: ", with index"}[index], func(b *testing.B) {
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				for b.Loop() {
					var w io.Writer
					if index {
						w = io.Discard
					}
					if err := feedIn(NewIndexer(w, nil), plain, 256<<10); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
