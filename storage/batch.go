package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// Batch is blobs and manifests that become visible together, or not at all: an
// archive that is being read. Its blobs are staged as they come and cost
// nothing but their file until Commit.
type Batch struct {
	s      *Store
	room   ration
	mu     sync.Mutex
	staged map[*StagedBlob]struct{}
	// indexes are those that are finished.
	indexes []stagedIndex
	closed  bool
}

// StagedBlob is a blob of a batch that is being written, by one goroutine.
type StagedBlob struct {
	b    *Batch
	id   string
	file stagedFile
	hash *layer.Hasher
	size int64
	over int64              // of size: what came without room in the namespace
	held int64              // of the batch's room
	desc ocispec.Descriptor // once finished
}

// ManifestPut is a manifest with its tags, and the blobs that come with it.
type ManifestPut struct {
	Repository, MediaType string
	Payload               []byte
	Tags                  []string
	By, Via               string
	Blobs                 []BlobLink
	AllowMissing          bool // take it where config or layers are not here
}

// BlobLink is a blob that a manifest names: one of the batch, or one that
// KnownLayers told of and whose plain bytes the caller has seen whole.
type BlobLink struct {
	Descriptor  ocispec.Descriptor
	DiffID      digest.Digest // of a layer that was decompressed and hashed; else ""
	Compression string        // none, gzip, zstd; with DiffID only
	// Facts are what is in the layer, a scan.Layer as JSON; with DiffID only. ""
	// where it was not looked into: that is done later.
	Facts string
	// PlainSize and Prefixes are those of the layer's plain bytes; with DiffID
	// only. Where there are no Prefixes they are found out later.
	PlainSize int64
	Prefixes  layer.Prefixes
}

// CommitResult tells how a batch went in.
type CommitResult struct {
	// Existed are the blobs whose bytes the registry had before.
	Existed map[digest.Digest]bool
}

// NewBatch begins a batch.
func (s *Store) NewBatch(context.Context) (*Batch, error) {
	if err := s.disk.fits(0); err != nil {
		return nil, err
	}
	return &Batch{s: s, room: ration{s: s, id: rand.Text()}, staged: map[*StagedBlob]struct{}{}}, nil
}

// Charge names the namespace that all of the batch goes to, before its first
// blob is begun: what does not fit into its quota is then refused as it comes,
// and not at the commit only. How large an archive is says too little for less:
// it is packed or unpacked on the way, and layers that the namespace has cost
// nothing.
func (b *Batch) Charge(namespace string) { b.room.namespace = namespace }

// Create begins a blob. Several can be written at once.
func (b *Batch) Create(ctx context.Context) (*StagedBlob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errBatchClosed
	}
	w := &StagedBlob{b: b, id: rand.Text(), hash: layer.NewHasher()}
	var err error
	if w.file, err = b.s.files.stage(ctx, w.id, 0); err != nil {
		return nil, storageFull(fmt.Errorf("stage a blob: %w", err))
	}
	b.staged[w] = struct{}{}
	return w, nil
}

var errBatchClosed = errors.New("the batch is closed")

// Write adds to the blob. DENIED where the namespace has no room for it.
func (w *StagedBlob) Write(p []byte) (int, error) {
	over, err := w.b.room.take(context.Background(), w.size, int64(len(p)))
	w.over += over
	w.held += int64(len(p)) - over
	if err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	_, _ = w.hash.Write(p[:n])
	w.size += int64(n)
	return n, storageFull(err)
}

// Finish ends the writing; the blob belongs to the batch from now on.
func (w *StagedBlob) Finish() (ocispec.Descriptor, error) {
	err := w.file.sync(context.Background())
	if err = errors.Join(err, w.file.Close()); err != nil {
		return w.desc, storageFull(fmt.Errorf("make a blob durable: %w", err))
	}
	w.desc = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.NewDigestFromBytes(digest.SHA256, w.hash.Sum()), Size: w.size}
	w.held, err = w.b.room.finish(context.Background(), w.desc.Digest, w.size, w.over)
	return w.desc, err
}

// Prefixes are those of the blob's bytes, where it is a plain layer. Call it
// after Finish.
func (w *StagedBlob) Prefixes() layer.Prefixes { return w.hash.Prefixes() }

// Discard drops the blob, finished or not.
func (w *StagedBlob) Discard() {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if _, ok := w.b.staged[w]; ok {
		_ = w.drop() // a file that stays is swept later
		delete(w.b.staged, w)
		w.b.room.give(w.held)
	}
}

func (w *StagedBlob) drop() error {
	if w.desc.Digest == "" {
		w.file.cancel(context.Background())
	}
	return w.b.s.files.dropStaged(context.Background(), w.id)
}

// Close drops what was not committed.
func (b *Batch) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for w := range b.staged {
		errs = append(errs, w.drop())
	}
	clear(b.staged)
	errs = append(errs, b.dropIndexes())
	return errors.Join(append(errs, b.room.release(context.Background()))...)
}

// Commit puts the blobs that the manifests name into place and then makes all
// manifests and tags visible in one transaction. On an error nothing is
// visible, and of the blobs only those stay that were there before.
func (b *Batch) Commit(ctx context.Context, puts []ManifestPut) (CommitResult, error) {
	rows := make([]metadata.ManifestPut, len(puts))
	for i := range puts {
		var err error
		if rows[i], err = b.s.manifestRow(&puts[i]); err != nil {
			return CommitResult{}, err
		}
	}
	placed, existed, err := b.place(ctx, puts)
	if err == nil {
		err = b.s.readImages(ctx, puts, rows)
	}
	if err == nil {
		err = b.s.db.PutBatch(context.WithoutCancel(ctx), b.room.id, rows)
	}
	if err != nil {
		return CommitResult{}, errors.Join(err, b.s.discard(ctx, placed))
	}
	b.room.spent()
	b.placeIndexes(ctx, puts)
	for _, p := range puts {
		b.s.changedRepository(p.Repository)
	}
	b.s.settle(context.WithoutCancel(ctx), rows)
	b.s.signalPushed()
	return CommitResult{Existed: existed}, nil
}

// place makes blobs of the staged files that the manifests name. placed are
// those that were not there before.
func (b *Batch) place(ctx context.Context, puts []ManifestPut) (placed []metadata.BlobPut, existed map[digest.Digest]bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nil, errBatchClosed
	}
	byDigest := map[digest.Digest]*StagedBlob{}
	for w := range b.staged {
		byDigest[w.desc.Digest] = w
	}
	existed = map[digest.Digest]bool{}
	for _, p := range puts {
		for _, l := range p.Blobs {
			d := l.Descriptor.Digest
			if _, done := existed[d]; done {
				continue
			}
			if err := ctx.Err(); err != nil {
				return placed, nil, err
			}
			w := byDigest[d]
			if w == nil {
				existed[d] = true // known before
				continue
			}
			row := metadata.BlobPut{Digest: d, Size: w.size, Lease: b.s.lease()}
			existed[d], err = b.s.placeBlob(ctx, w.id, row)
			if !existed[d] {
				placed = append(placed, row)
			}
			if err != nil {
				return placed, nil, err
			}
			delete(b.staged, w)
		}
	}
	return placed, existed, nil
}

// discard takes away blobs that were placed for nothing.
func (s *Store) discard(ctx context.Context, placed []metadata.BlobPut) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, p := range placed {
		errs = append(errs, s.db.WithBlobLock(ctx, p.Digest, func(ctx context.Context) error {
			going, err := s.db.MarkUnused(ctx, p.Digest, p.Lease)
			if err != nil || !going {
				return err
			}
			if err := s.files.remove(ctx, p.Digest); err != nil {
				return err
			}
			return s.db.DropGoing(ctx, p.Digest)
		}))
	}
	return errors.Join(errs...)
}

func (s *Store) manifestRow(p *ManifestPut) (metadata.ManifestPut, error) {
	m, err := ParseManifest(p.MediaType, p.Payload)
	if err != nil {
		return metadata.ManifestPut{}, err
	}
	for _, t := range p.Tags {
		if err := tarport.CheckTag(t); err != nil {
			return metadata.ManifestPut{}, err
		}
	}
	row := metadata.ManifestPut{
		Repository: p.Repository, Manifest: m, Tags: p.Tags, By: p.By, Via: p.Via,
		AllowMissing: p.AllowMissing || s.o.AllowMissing, Lease: s.lease(), RenewBefore: s.renewBefore(),
	}
	for _, l := range p.Blobs {
		row.Links = append(row.Links, l.Descriptor.Digest)
		if l.DiffID != "" {
			row.Layers = append(row.Layers, metadata.Layer{
				DiffID: l.DiffID, Digest: l.Descriptor.Digest,
				Size: l.Descriptor.Size, Compression: l.Compression, Facts: l.Facts, Plain: plainOf(l.PlainSize, l.Prefixes),
			})
		}
	}
	return row, nil
}
