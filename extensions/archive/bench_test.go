package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// nullStore takes everything, keeps nothing and knows what it is told.
type nullStore struct {
	Images   // none
	Unpacked // none
	known    []metadata.Layer
	similar  []storage.SimilarLayer
}

func (s nullStore) NewBatch(context.Context) (Batch, error) { return nullBatch{}, nil }

func (s nullStore) CheckRoom(context.Context, string, int64) error { return nil }

func (s nullStore) KnownLayers(context.Context, digest.Digest) ([]metadata.Layer, error) {
	return s.known, nil
}

func (s nullStore) SimilarLayers(context.Context, layer.Prefixes, int64, string) ([]storage.SimilarLayer, error) {
	return s.similar, nil
}

func (nullStore) ForgetPrefixes(context.Context, digest.Digest) error { return nil }

type nullBatch struct{}

func (nullBatch) Create(context.Context) (StagedBlob, error) {
	return &nullBlob{h: sha256.New()}, nil
}

func (nullBatch) Commit(context.Context, []storage.ManifestPut) (storage.CommitResult, error) {
	return storage.CommitResult{}, nil
}

func (nullBatch) Close() error { return nil }

type nullBlob struct {
	h hash.Hash
	n int64
}

func (b *nullBlob) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	return b.h.Write(p)
}

func (b *nullBlob) Finish() (ocispec.Descriptor, error) {
	return ocispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, b.h), Size: b.n}, nil
}

func (b *nullBlob) Prefixes() layer.Prefixes { return nil }

func (b *nullBlob) Discard() {}

// pattern is 16 MiB of what layers are made of: a program.
var pattern = sync.OnceValue(func() []byte {
	name, err := os.Executable()
	if err != nil {
		panic(err)
	}
	f, err := os.Open(name)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	b := make([]byte, 16<<20)
	if _, err := io.ReadFull(f, b); err != nil {
		panic(err)
	}
	return b
})

// bigLayer is a layer with one file of n bytes, which are units of one kind.
func bigLayer(n int64, unit []byte) io.Reader {
	head := pack(text("big", ""))[:512]
	copy(head[124:136], fmt.Sprintf("%011o\x00", n))
	checksum(head)
	parts := []io.Reader{bytes.NewReader(head)}
	for range n / int64(len(unit)) {
		parts = append(parts, bytes.NewReader(unit))
	}
	return io.MultiReader(append(parts, bytes.NewReader(make([]byte, 1024)))...)
}

// bigArchive is an image with such a layer, which never lies in memory.
func bigArchive(n int64, unit []byte) io.Reader {
	id := diffIDOf(hashed(bigLayer(n, unit)))
	return bigArchiveOf(id, id.Encoded()+".tar", n, unit)
}

func hashed(r io.Reader) *layer.Hasher {
	h := layer.NewHasher()
	_, _ = io.Copy(h, r) // neither fails
	return h
}

// bigArchiveOf is one with a layer of this diffID and name.
func bigArchiveOf(id digest.Digest, name string, n int64, unit []byte) io.Reader {
	cfg := toJSON(map[string]any{"os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{id.String()}}})
	head := pack(text(name, ""))[:512]
	copy(head[124:136], fmt.Sprintf("%011o\x00", n+1536))
	checksum(head)
	manifest := `[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["` + name + `"]}]`
	return io.MultiReader(bytes.NewReader(head), bigLayer(n, unit), bytes.NewReader(pack(reg("c.json", cfg), text(manifestName, manifest))))
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

func benchmarkLoad(b *testing.B, s *Service, body func() io.Reader, n int64, compression string) {
	b.Helper()
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		r := body()
		b.StartTimer()
		if _, err := s.Load(b.Context(), r, request(func(q *LoadRequest) { q.Compression = compression })); err != nil {
			b.Fatal(err)
		}
	}
}

const benchSize = 128 << 20

// BenchmarkLoad is the reading alone: nothing is written. MB/s are those of
// the uncompressed layers.
func BenchmarkLoad(b *testing.B) {
	var archive bytes.Buffer
	if _, err := io.Copy(&archive, bigArchive(benchSize, pattern())); err != nil {
		b.Fatal(err)
	}
	plain := func() io.Reader { return bytes.NewReader(archive.Bytes()) }
	for _, c := range []string{gzipped, zstded, uncompressed} {
		b.Run("plain-to-"+c, func(b *testing.B) {
			benchmarkLoad(b, newNull(b, nullStore{}), plain, benchSize, c)
		})
	}
	for _, c := range []struct {
		name string
		of   func([]byte) []byte
	}{{"gzip", gz}, {"zstd", zst}} {
		packed := c.of(archive.Bytes())
		b.Run("outer-"+c.name, func(b *testing.B) {
			benchmarkLoad(b, newNull(b, nullStore{}), func() io.Reader { return bytes.NewReader(packed) }, benchSize, "")
		})
	}
	b.Run("known", func(b *testing.B) {
		benchmarkLoad(b, newNull(b, nullStore{known: []metadata.Layer{{Compression: gzipped}}}), plain, benchSize, gzipped)
	})
	var tarball bytes.Buffer
	if _, err := io.Copy(&tarball, bigLayer(benchSize, pattern())); err != nil {
		b.Fatal(err)
	}
	d := docker("a/b:1", tarball.Bytes())
	d.files[d.layer(0)] = gz(tarball.Bytes())
	stored := d.pack()
	b.Run("gzip-kept", func(b *testing.B) {
		benchmarkLoad(b, newNull(b, nullStore{}), func() io.Reader { return bytes.NewReader(stored) }, benchSize, "")
	})
}

// BenchmarkLoadAgain is the same file once more, as docker 20.10 writes it: its
// names do not tell that the layer is known. hashing is the least that takes: the
// tar is read, and its layer hashed.
func BenchmarkLoadAgain(b *testing.B) {
	h := hashed(bigLayer(benchSize, pattern()))
	id := diffIDOf(h)
	var archive bytes.Buffer
	if _, err := io.Copy(&archive, bigArchiveOf(id, digest.FromString("an ID").Encoded()+"/layer.tar", benchSize, pattern())); err != nil {
		b.Fatal(err)
	}
	known := metadata.Layer{DiffID: id, Digest: id, Compression: gzipped}
	st := knowing{nullStore{similar: []storage.SimilarLayer{{Digest: id, DiffID: id, Prefixes: h.Prefixes()}}}, known}
	b.Run("again", func(b *testing.B) {
		benchmarkLoad(b, newNull(b, st), func() io.Reader { return bytes.NewReader(archive.Bytes()) }, benchSize, gzipped)
	})
	b.Run("hashing", func(b *testing.B) {
		b.SetBytes(benchSize)
		buf := make([]byte, bufferSize)
		for b.Loop() {
			tr, sum := tar.NewReader(bytes.NewReader(archive.Bytes())), sha256.New()
			for _, err := tr.Next(); err == nil; _, err = tr.Next() {
				if _, err := io.CopyBuffer(sum, struct{ io.Reader }{tr}, buf); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// knowing is a nullStore that knows one layer, and no other.
type knowing struct {
	nullStore
	layer metadata.Layer
}

func (s knowing) KnownLayers(_ context.Context, diffID digest.Digest) ([]metadata.Layer, error) {
	if diffID != s.layer.DiffID {
		return nil, nil
	}
	return []metadata.Layer{s.layer}, nil
}

func newNull(b *testing.B, st Store) *Service {
	b.Helper()
	s, err := New(Options{Store: st, Access: access(allowAll)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkLoadToDisk is the whole way, with what an fsync costs here.
func BenchmarkLoadToDisk(b *testing.B) {
	reg := newRegistry(b)
	n := 0
	b.SetBytes(benchSize)
	for b.Loop() {
		b.StopTimer()
		n++
		copy(pattern(), fmt.Sprint("another layer ", n)) // so that it is not known
		r := bigArchive(benchSize, pattern())
		b.StartTimer()
		if _, err := reg.Load(b.Context(), r, request()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoadSmall is an image of a few kilobytes: what a load costs at least.
func BenchmarkLoadSmall(b *testing.B) {
	body := docker("a/b:1", layerOf("x"), layerOf("y")).pack()
	benchmarkLoad(b, newNull(b, nullStore{}), func() io.Reader { return bytes.NewReader(body) }, int64(len(body)), "")
}

// BenchmarkSave is a download over a connection, and BenchmarkExport what goes
// into one.
func BenchmarkSave(b *testing.B) {
	for _, compression := range []string{uncompressed, gzipped} {
		b.Run(compression, func(b *testing.B) {
			reg := newRegistry(b, func(o *Options) { o.Compression = compression })
			if _, err := reg.Load(b.Context(), bigArchive(benchSize, pattern()), request()); err != nil {
				b.Fatal(err)
			}
			images := saveURL(serve(b, reg.Service), "team/a/b:1")
			b.ReportAllocs()
			for b.Loop() {
				resp, err := http.Get(images)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				if err = errors.Join(err, resp.Body.Close()); err != nil || n != resp.ContentLength {
					b.Fatalf("%d bytes of %d: %v", n, resp.ContentLength, err)
				}
				b.SetBytes(n)
			}
		})
	}
}

func BenchmarkExport(b *testing.B) {
	reg := newRegistry(b)
	if _, err := reg.Load(b.Context(), bigArchive(benchSize, pattern()), request()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := reg.Export(b.Context(), io.Discard, ExportRequest{Image: "team/a/b:1"}); err != nil {
			b.Fatal(err)
		}
	}
}
