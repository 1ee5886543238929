package archive

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// fakeStore keeps blobs in memory, fails where it is told to, and knows what
// was left open.
type fakeStore struct {
	Images   // none
	Unpacked // none

	fail  func(op string) error // may be nil
	known map[digest.Digest][]metadata.Layer

	mu      sync.Mutex
	batches int // open
	staged  map[*fakeBlob]bool
	blobs   map[digest.Digest][]byte // committed
	puts    []storage.ManifestPut
}

func newFakeService(tb testing.TB, st *fakeStore, change ...func(*Options)) *Service {
	tb.Helper()
	st.staged, st.blobs = map[*fakeBlob]bool{}, map[digest.Digest][]byte{}
	o := Options{Store: st, Access: access(allowAll), Log: slog.New(slog.DiscardHandler)}
	for _, fn := range change {
		fn(&o)
	}
	s, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func (st *fakeStore) failing(op string) error {
	if st.fail == nil {
		return nil
	}
	return st.fail(op)
}

// checkClean fails the test where something is left of a load.
func (st *fakeStore) checkClean(tb testing.TB) {
	tb.Helper()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.batches != 0 || len(st.staged) != 0 {
		tb.Errorf("%d batches and %d staged blobs are left open", st.batches, len(st.staged))
	}
}

func (st *fakeStore) NewBatch(context.Context) (Batch, error) {
	if err := st.failing("batch"); err != nil {
		return nil, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.batches++
	return &fakeBatch{st: st}, nil
}

func (st *fakeStore) KnownLayers(_ context.Context, d digest.Digest) ([]metadata.Layer, error) {
	return st.known[d], st.failing("known")
}

func (st *fakeStore) SimilarLayers(context.Context, layer.Prefixes, int64, string) ([]storage.SimilarLayer, error) {
	return nil, st.failing("similar")
}

func (st *fakeStore) ForgetPrefixes(context.Context, digest.Digest) error {
	return st.failing("forget")
}

func (st *fakeStore) CheckRoom(context.Context, string, int64) error { return st.failing("room") }

type fakeBatch struct {
	st     *fakeStore
	mine   []*fakeBlob
	closed bool
}

var errFakeClosed = errors.New("fake: the batch is closed")

func (b *fakeBatch) Create(context.Context) (StagedBlob, error) {
	if err := b.st.failing("create"); err != nil {
		return nil, err
	}
	b.st.mu.Lock()
	defer b.st.mu.Unlock()
	if b.closed {
		return nil, errFakeClosed
	}
	w := &fakeBlob{b: b}
	b.st.staged[w] = true
	b.mine = append(b.mine, w)
	return w, nil
}

func (b *fakeBatch) Commit(_ context.Context, puts []storage.ManifestPut) (storage.CommitResult, error) {
	if err := b.st.failing("commit"); err != nil {
		return storage.CommitResult{}, err
	}
	b.st.mu.Lock()
	defer b.st.mu.Unlock()
	res := storage.CommitResult{Existed: map[digest.Digest]bool{}}
	for _, p := range puts {
		for _, l := range p.Blobs {
			d := l.Descriptor.Digest
			for _, w := range b.mine {
				if w.done && digest.FromBytes(w.Bytes()) == d {
					if _, ok := b.st.blobs[d]; !ok {
						res.Existed[d] = false
					}
					b.st.blobs[d] = w.Bytes()
				}
			}
			if _, ok := res.Existed[d]; !ok {
				res.Existed[d] = true
			}
		}
	}
	b.st.puts = append(b.st.puts, puts...)
	return res, nil
}

func (b *fakeBatch) Close() error {
	b.st.mu.Lock()
	defer b.st.mu.Unlock()
	if !b.closed {
		b.st.batches--
	}
	b.closed = true
	for _, w := range b.mine {
		delete(b.st.staged, w)
	}
	return b.st.failing("close")
}

type fakeBlob struct {
	bytes.Buffer
	b    *fakeBatch
	done bool
}

func (w *fakeBlob) Write(p []byte) (int, error) {
	w.b.st.mu.Lock()
	defer w.b.st.mu.Unlock()
	if w.b.closed {
		return 0, errFakeClosed
	}
	if err := w.b.st.failing("write"); err != nil {
		return 0, err
	}
	return w.Buffer.Write(p)
}

func (w *fakeBlob) Finish() (ocispec.Descriptor, error) {
	if err := w.b.st.failing("finish"); err != nil {
		return ocispec.Descriptor{}, err
	}
	w.b.st.mu.Lock()
	defer w.b.st.mu.Unlock()
	if w.b.closed {
		return ocispec.Descriptor{}, errFakeClosed
	}
	w.done = true
	return ocispec.Descriptor{Digest: digest.FromBytes(w.Bytes()), Size: int64(w.Len())}, nil
}

func (w *fakeBlob) Prefixes() layer.Prefixes {
	h := layer.NewHasher()
	_, _ = h.Write(w.Bytes())
	return h.Prefixes()
}

func (w *fakeBlob) Discard() {
	w.b.st.mu.Lock()
	defer w.b.st.mu.Unlock()
	w.done = false
	delete(w.b.st.staged, w)
}
