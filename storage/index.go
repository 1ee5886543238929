package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// The indexes of layers (see package layer) lie beside the blobs, under the
// diffID: they are a cache. A power failure may take one, layer.Reader notices
// where one is damaged, and then it is made again from the layer. They count in
// no quota, and go when the registry knows no layer of that diffID any more.

// StagedIndex is the index of a layer that is being written, by one goroutine.
// It ends with Finish or Discard.
type StagedIndex struct {
	s    *Store
	b    *Batch // nil outside of one
	id   string
	file stagedFile
	err  error
	done bool // its file is not ours any more
}

// CreateIndex begins the index of a layer of the batch. It can be read when the
// batch is committed, where a manifest of the batch names a layer of its diffID,
// and is dropped otherwise. Several can be written at once.
func (b *Batch) CreateIndex(ctx context.Context) (*StagedIndex, error) {
	x, err := b.s.NewIndex(ctx)
	if err != nil {
		return nil, err
	}
	x.b = b
	return x, nil
}

// NewIndex begins the index of a layer that the registry has.
func (s *Store) NewIndex(ctx context.Context) (*StagedIndex, error) {
	if err := s.disk.fits(0); err != nil {
		return nil, err
	}
	x := &StagedIndex{s: s, id: rand.Text()}
	var err error
	if x.file, err = s.files.stage(ctx, x.id, 0); err != nil {
		return nil, storageFull(fmt.Errorf("stage an index: %w", err))
	}
	return x, nil
}

// Write adds to the index.
func (x *StagedIndex) Write(p []byte) (int, error) {
	n, err := x.file.Write(p)
	if err != nil {
		x.err = storageFull(err)
	}
	return n, x.err
}

// Finish ends the writing: this is the index of the layer with the diffID, of
// which the caller has seen all plain bytes. On an error it is dropped.
func (x *StagedIndex) Finish(ctx context.Context, diffID digest.Digest) error {
	if err := x.finish(ctx, diffID); err != nil {
		x.Discard()
		return fmt.Errorf("store the index of layer %s: %w", diffID, err)
	}
	return nil
}

func (x *StagedIndex) finish(ctx context.Context, diffID digest.Digest) error {
	err := errors.Join(x.err, diffID.Validate())
	if err == nil {
		err = x.file.sync(ctx)
	}
	err = errors.Join(err, x.file.Close())
	x.file = nil
	switch {
	case err != nil:
	case x.b == nil:
		err = x.s.files.placeIndex(ctx, x.id, diffID)
	default:
		err = x.b.keepIndex(diffID, x.id)
	}
	x.done = err == nil
	return storageFull(err)
}

// Discard drops the index, unless it was finished.
func (x *StagedIndex) Discard() {
	if x.done {
		return
	}
	x.done = true
	if x.file != nil {
		_ = x.file.Close()
	}
	_ = x.s.files.dropStaged(context.Background(), x.id) // a file that stays is swept later
}

// keepIndex takes over the staged file of an index.
func (b *Batch) keepIndex(diffID digest.Digest, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errBatchClosed
	}
	b.indexes = append(b.indexes, stagedIndex{diffID, id})
	return nil
}

type stagedIndex struct {
	diffID digest.Digest
	id     string
}

// placeIndexes makes the indexes readable of which a manifest named the layer.
// The images are visible by now: an index that is lost is made again.
func (b *Batch) placeIndexes(ctx context.Context, puts []ManifestPut) {
	ctx = context.WithoutCancel(ctx)
	named := map[digest.Digest]bool{}
	for _, p := range puts {
		for _, l := range p.Blobs {
			named[l.DiffID] = true
		}
	}
	b.mu.Lock()
	mine := b.indexes
	b.indexes = nil
	b.mu.Unlock()
	for _, x := range mine {
		var err error
		if named[x.diffID] {
			err = b.s.files.placeIndex(ctx, x.id, x.diffID)
		} else {
			err = b.s.files.dropStaged(ctx, x.id)
		}
		if err != nil {
			b.s.o.Log.LogAttrs(ctx, slog.LevelWarn, "the index of a layer was not kept",
				slog.String("diff_id", x.diffID.String()), slog.Any("err", err))
		}
	}
}

// dropIndexes drops the indexes of a batch that was not committed.
func (b *Batch) dropIndexes() error {
	var errs []error
	for _, x := range b.indexes {
		errs = append(errs, b.s.files.dropStaged(context.Background(), x.id))
	}
	b.indexes = nil
	return errors.Join(errs...)
}

// OpenIndex opens the index of the layer with this diffID, for layer.NewReader,
// which tells whether it is whole. NOT_FOUND where there is none.
func (s *Store) OpenIndex(ctx context.Context, diffID digest.Digest) (io.ReadCloser, error) {
	r, err := s.files.openIndex(ctx, diffID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, tarport.Errorf(tarport.NotFound, "there is no index of the layer %s", diffID)
	}
	if err != nil {
		return nil, fmt.Errorf("open the index of layer %s: %w", diffID, err)
	}
	return r, nil
}

// indexAge is how old an index is before a sweep looks at it: those of a batch
// come a moment after its rows, those of IndexLayer too.
const indexAge = time.Hour

// SweepIndexes removes the indexes of layers that the registry has no more. It
// returns how many.
func (s *Store) SweepIndexes(ctx context.Context) (removed int, err error) {
	before := s.o.Now().Add(-indexAge)
	err = s.files.walkIndexes(ctx, func(diffID digest.Digest, modified time.Time) error {
		if modified.After(before) {
			return nil
		}
		if known, err := s.db.KnowsLayer(ctx, diffID); err != nil || known {
			return err
		}
		removed++
		return s.files.removeIndex(ctx, diffID)
	})
	return removed, err
}

func (s *Store) sweepIndexesLogged(ctx context.Context) {
	n, err := s.SweepIndexes(ctx)
	if err != nil && ctx.Err() == nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "sweep of the indexes of layers failed", slog.Any("err", err))
	}
	if n > 0 {
		s.o.Log.LogAttrs(ctx, slog.LevelInfo, "indexes of layers removed", slog.Int("count", n))
	}
}
