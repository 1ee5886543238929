package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// blocks is the size of a layer that takes several of gzip's blocks.
const blocks = 2300 << 10

// sample is an archive with something of everything: a plain layer of size
// bytes, small ones, gzip and xz layers, both forms, and a blob of no use.
func sample(tb testing.TB, size int) []byte {
	tb.Helper()
	l := newLayout()
	l.root(l.index(l.image("amd64", layerOf("x")), l.image("arm64", layerOf("y"))), "a/multi:1")
	l.blobs["blobs/sha256/"+sum([]byte("unused")).Encoded()] = []byte("unused")
	d := docker("a/b:1", pack(text("big", strings.Repeat("0123456789abcdef", size/16))), layerOf("small"), readPlain(tb))
	d.files[d.layer(2)] = readFile(tb, "testdata/layers", "layer.tar.xz")
	d.add("a/c:1", layerOf("z"))
	return pack(append(l.entries(l.indexJSON()), append(d.entries(), text(manifestName, string(toJSON(d.items))))...)...)
}

// TestACutArchiveIsRefused cuts archives at many places. Without its last
// blocks of zeros an archive is whole, as it is for docker; half a block is not.
func TestACutArchiveIsRefused(t *testing.T) {
	t.Parallel()
	st := &fakeStore{}
	s := newFakeService(t, st)
	d := docker("a/b:1", layerOf("x"), layerOf("y"))
	plain := d.pack()
	content := len(plain) - 1024 // and before it, padding of manifest.json
	whole := content - (512-len(toJSON(d.items))%512)%512
	l := newLayout()
	oci := l.root(l.image("amd64", layerOf("x")), "a/b:1").pack()
	for _, c := range []struct {
		name string
		body []byte
		from int // cut here or later it is complete
	}{
		{"plain", plain, whole},
		{"gzip", gz(plain), 1 << 30},
		{"zstd", zst(plain), 1 << 30},
		{"oci", oci, len(oci) - 1024 - (512-len(l.indexJSON())%512)%512},
		{"oci-gzip", gz(oci), 1 << 30},
	} {
		for n := range len(c.body) {
			if c.name != "gzip" && n%37 != 0 && n%512 > 1 {
				continue // every offset of one form, and many of the others
			}
			_, err := s.Load(t.Context(), bytes.NewReader(c.body[:n]), request())
			if n >= c.from && (n%512 == 0 || n < len(c.body)-1024) {
				if err != nil {
					t.Errorf("%s cut at %d of %d: Load = %v, want it to be taken", c.name, n, len(c.body), err)
				}
				continue
			}
			if code := tarport.ErrorCode(err); code != tarport.ArchiveInvalid {
				t.Errorf("%s cut at %d of %d: Load = %v, want ARCHIVE_INVALID", c.name, n, len(c.body), err)
			}
		}
		st.checkClean(t)
	}
}

// TestAnUploadThatBreaksOffLeavesNothing lets the body fail at many places, in
// a bubble that notices a goroutine that stays.
func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	t.Parallel()
	body := sample(t, blocks)
	broken := errors.New("connection reset")
	for _, form := range []struct {
		name string
		body []byte
	}{{"plain", body}, {"gzip", gz(body)}, {"zstd", zst(body)}} {
		for i := range 20 {
			n := len(form.body) * i / 20
			synctest.Test(t, func(t *testing.T) {
				st := &fakeStore{}
				s := newFakeService(t, st)
				r := io.MultiReader(bytes.NewReader(form.body[:n]), iotest.ErrReader(broken))
				_, err := s.Load(t.Context(), r, request())
				if e, ok := errors.AsType[*tarport.Error](err); !ok || e.Code != tarport.Invalid || !errors.Is(err, broken) {
					t.Errorf("%s broken at %d: Load = %v, want INVALID because of %v", form.name, n, err, broken)
				}
				st.checkClean(t)
			})
		}
	}
}

// TestACallerThatGivesUpLeavesNothing ends the context at many places.
func TestACallerThatGivesUpLeavesNothing(t *testing.T) {
	t.Parallel()
	body := sample(t, blocks)
	for i := range 20 {
		n := int64(len(body) * i / 20)
		synctest.Test(t, func(t *testing.T) {
			st := &fakeStore{}
			s := newFakeService(t, st)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			read := int64(0)
			r := bytes.NewReader(body)
			_, err := s.Load(ctx, readerFunc(func(p []byte) (int, error) {
				if read >= n {
					cancel()
				}
				m, err := r.Read(p)
				read += int64(m)
				return m, err
			}), request())
			if !errors.Is(err, context.Canceled) {
				t.Errorf("given up at %d: Load = %v, want context.Canceled", n, err)
			}
			st.checkClean(t)
		})
	}
}

// TestAStoreThatFailsLeavesNothing lets every call of the store fail once.
func TestAStoreThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	body := sample(t, 16<<10)
	full := errors.New("no space left on device")
	for _, compression := range []string{gzipped, zstded, uncompressed, ""} {
		failures := 0
		for n := 1; ; n++ {
			calls := 0
			var failed string
			synctest.Test(t, func(t *testing.T) {
				st := &fakeStore{}
				s := newFakeService(t, st, func(o *Options) { o.Repack = false; o.Compression = compression })
				mu := make(chan struct{}, 1) // finishing is done by other goroutines
				st.fail = func(op string) error {
					mu <- struct{}{}
					defer func() { <-mu }()
					if calls++; calls != n {
						return nil
					}
					failed = op
					return full
				}
				_, err := s.Load(t.Context(), bytes.NewReader(body), request())
				if failed == "" {
					if err != nil {
						t.Errorf("Load without a failure = %v", err)
					}
				} else if !errors.Is(err, full) || tarport.ErrorCode(err) != tarport.Internal {
					t.Errorf("Load where call %d (%s) fails = %v, want an internal error because of %v", n, failed, err, full)
				}
				if failed != "" && failed != "close" && len(st.puts) != 0 {
					t.Errorf("call %d (%s) failed, but manifests were put", n, failed)
				}
				st.checkClean(t)
			})
			if failed == "" {
				break
			}
			failures++
		}
		if failures < 20 {
			t.Errorf("compression=%s: %d calls of the store were seen, want more", compression, failures)
		}
	}
}

// TestAFullDiskEndsTheCompression fails a write that is made while more is being compressed
// behind it.
func TestAFullDiskEndsTheCompression(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	for _, compression := range []string{gzipped, zstded, uncompressed} {
		for n := range 4 {
			synctest.Test(t, func(t *testing.T) {
				st := &fakeStore{}
				s := newFakeService(t, st)
				var writes atomic.Int32
				st.fail = func(op string) error {
					if op == "write" && writes.Add(1) > int32(n) {
						return full
					}
					return nil
				}
				body := docker("a/b:1", pack(text("big", strings.Repeat("0123456789abcdef", blocks/16)))).pack()
				_, err := s.Load(t.Context(), bytes.NewReader(body), request(func(q *LoadRequest) { q.Compression = compression }))
				if !errors.Is(err, full) {
					t.Errorf("Load to %s = %v, want %v", compression, err, full)
				}
				st.checkClean(t)
			})
		}
	}
}

// TestSlowAndOddReaders sends an archive in every way that readers may.
func TestSlowAndOddReaders(t *testing.T) {
	t.Parallel()
	body := docker("a/b:1", layerOf("x"), pack(text("y", noise(3000)))).pack()
	want, err := newFakeService(t, &fakeStore{}).Load(t.Context(), bytes.NewReader(body), request())
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"one byte": iotest.OneByteReader(bytes.NewReader(body)), "halves": iotest.HalfReader(bytes.NewReader(body)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(body)),
	} {
		got, err := newFakeService(t, &fakeStore{}).Load(t.Context(), r, request())
		if err != nil {
			t.Errorf("%s: Load = %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestAnyOrder sends the files of an archive in many orders.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	d := docker("a/b:1", layerOf("x"), layerOf("y"))
	p := d.layer(1)
	d.files["l.tar"] = d.files[p]
	delete(d.files, p)
	d.extra = []entry{symlink(p, "../l.tar"), text("repositories", `{}`)}
	entries := append(d.entries(), text(manifestName, string(toJSON(d.items))))
	var want *Result
	n := 0
	permute(entries, func(es []entry) {
		n++
		st := &fakeStore{}
		got, err := newFakeService(t, st).Load(t.Context(), bytes.NewReader(pack(es...)), request())
		if err != nil {
			t.Fatalf("Load of order %d: %v", n, err)
		}
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("order %d (-first +this):\n%s", n, diff)
		}
	})
	if n != 720 {
		t.Errorf("%d orders, want 720", n)
	}
}

// permute calls fn with every order of list (Heap's algorithm).
func permute(list []entry, fn func([]entry)) {
	var run func(int)
	run = func(k int) {
		if k == 1 {
			fn(list)
			return
		}
		for i := range k {
			run(k - 1)
			if k%2 == 0 {
				list[i], list[k-1] = list[k-1], list[i]
			} else {
				list[0], list[k-1] = list[k-1], list[0]
			}
		}
	}
	run(len(list))
}

// TestConcurrentLoads loads one archive and different ones at the same time.
func TestConcurrentLoads(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			body := docker(fmt.Sprintf("a/b:%d", i%4), layerOf("shared"), pack(text("own", noise(1000+i%4)))).pack()
			im := imageNamed(t, reg.mustLoad(t, body), fmt.Sprintf("team/a/b:%d", i%4))
			reg.pull(t, "team/a/b", tagRef(fmt.Sprint(i%4)), im.Manifest)
		})
	}
}
