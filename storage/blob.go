package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Blob tells of a blob that the repository links; BLOB_UNKNOWN where it has
// none. A positive answer renews the lease: the blob stays for the grace
// period at least, so a client may build on it.
//
// A blob whose file is gone or has another size is absent: the client then
// sends it again, which heals it.
func (s *Store) Blob(ctx context.Context, repository string, dgst digest.Digest) (metadata.Blob, error) {
	b, err := s.linkedBlob(ctx, repository, dgst)
	if err != nil {
		return b, err
	}
	n, err := s.files.size(ctx, dgst)
	if err := s.intact(ctx, b, n, err); err != nil {
		return metadata.Blob{}, err
	}
	return b, nil
}

// OpenBlob opens a blob that the repository links, for reading from wherever
// it is sought to. It is an *os.File where the bytes lie on a file system.
func (s *Store) OpenBlob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadSeekCloser, metadata.Blob, error) {
	b, err := s.linkedBlob(ctx, repository, dgst)
	if err != nil {
		return nil, b, err
	}
	r, n, err := s.files.open(ctx, dgst)
	if err := s.intact(ctx, b, n, err); err != nil {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
		return nil, b, err
	}
	return r, b, nil
}

// intact compares what the storage has with what the metadata say.
func (s *Store) intact(ctx context.Context, b metadata.Blob, n int64, err error) error {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look up the bytes of blob %s: %w", b.Digest, err)
	}
	if err == nil && n == b.Size {
		return nil
	}
	s.o.Log.LogAttrs(ctx, slog.LevelError, "blob is damaged on the storage; pushing it again heals it",
		slog.String("digest", b.Digest.String()), slog.Int64("size", b.Size), slog.Int64("found", n), slog.Any("err", err))
	return tarport.Errorf(tarport.BlobUnknown, "the blob %s is damaged in the registry's storage: push it again", b.Digest)
}

func (s *Store) linkedBlob(ctx context.Context, repository string, dgst digest.Digest) (metadata.Blob, error) {
	key := cacheKey{cacheBlob, repository, string(dgst)}
	read := func() (metadata.Blob, error) {
		b, err := s.db.LinkedBlob(ctx, repository, dgst)
		if err != nil {
			return b, err
		}
		return s.renewed(ctx, b)
	}
	size := func(metadata.Blob) int { return len(key.name) }
	b, err := cached(s.cache, key, read, size)
	if err == nil && b.LeasedUntil.Before(s.renewBefore()) { // an old entry
		s.cache.forget(key)
		return cached(s.cache, key, read, size)
	}
	return b, err
}

// renewed gives a blob a new lease where half of the old one is over.
func (s *Store) renewed(ctx context.Context, b metadata.Blob) (metadata.Blob, error) {
	if !b.LeasedUntil.Before(s.renewBefore()) {
		return b, nil
	}
	until := s.lease()
	if err := s.db.RenewLease(ctx, b.Digest, until); err != nil {
		return b, err
	}
	b.LeasedUntil = until
	return b, nil
}

func (s *Store) lease() time.Time       { return s.o.Now().Add(2 * s.o.Grace) }
func (s *Store) renewBefore() time.Time { return s.o.Now().Add(s.o.Grace) }

// MountBlob links a blob of the repository from in the repository to.
// BLOB_UNKNOWN where from has none, also where its file is damaged; DENIED where
// the namespace has no room for it.
func (s *Store) MountBlob(ctx context.Context, from, to string, dgst digest.Digest) (metadata.Blob, error) {
	if err := s.disk.fits(0); err != nil {
		return metadata.Blob{}, err
	}
	if _, err := s.Blob(ctx, from, dgst); err != nil {
		return metadata.Blob{}, err
	}
	b, err := s.db.MountBlob(ctx, from, to, dgst, s.lease())
	if err == nil {
		s.cache.changed(to)
	}
	return b, err
}

// BlobSources lists at most n repositories that link a blob, those of the
// namespace first. The caller asks of
// each whether the client may know.
func (s *Store) BlobSources(ctx context.Context, dgst digest.Digest, namespace string, n int) ([]string, error) {
	return s.db.BlobSources(ctx, dgst, namespace, n)
}

// LayerForms returns the stored forms of the layer with this diffID. It does not
// look whether their bytes are whole, nor keep them.
func (s *Store) LayerForms(ctx context.Context, diffID digest.Digest) ([]metadata.Layer, error) {
	return s.db.KnownLayers(ctx, diffID)
}

// KnownDiffID returns the layer that a blob is, its size left out; false where
// the registry has not decompressed and hashed it.
func (s *Store) KnownDiffID(ctx context.Context, dgst digest.Digest) (metadata.Layer, bool, error) {
	return s.db.KnownDiffID(ctx, dgst)
}

// DeleteBlob takes a blob out of a repository; its bytes go when nobody needs
// them. CONFLICT where a manifest of the repository names it.
func (s *Store) DeleteBlob(ctx context.Context, repository string, dgst digest.Digest) error {
	defer s.cache.changed(repository)
	return s.db.UnlinkBlob(ctx, repository, dgst)
}

// KnownLayers returns the stored forms of the layer with this diffID whose
// bytes are whole. They stay for the grace period at least.
func (s *Store) KnownLayers(ctx context.Context, diffID digest.Digest) ([]metadata.Layer, error) {
	list, err := s.db.KnownLayers(ctx, diffID)
	if err != nil {
		return nil, err
	}
	return s.wholeLayers(ctx, list)
}

// wholeLayers are those of a list whose bytes are whole; they are kept.
func (s *Store) wholeLayers(ctx context.Context, list []metadata.Layer) ([]metadata.Layer, error) {
	whole := list[:0]
	for _, l := range list {
		n, err := s.files.size(ctx, l.Digest)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && n != l.Size:
			continue
		case err != nil:
			return nil, fmt.Errorf("look up the bytes of blob %s: %w", l.Digest, err)
		}
		if err := s.db.RenewLease(ctx, l.Digest, s.lease()); err != nil {
			return nil, err
		}
		whole = append(whole, l)
	}
	return whole, nil
}

// placeBlob makes the synced file of an upload the bytes of a blob, and
// records it. It replaces what lies there: these bytes were just verified,
// those can be damaged.
func (s *Store) placeBlob(ctx context.Context, id string, p metadata.BlobPut) (existed bool, err error) {
	// From here on it is finished whether the client waits or not.
	ctx = context.WithoutCancel(ctx)
	err = s.db.WithBlobLock(ctx, p.Digest, func(ctx context.Context) error {
		old, err := s.db.Blob(ctx, p.Digest)
		if existed = err == nil && old.Size == p.Size; err != nil && tarport.ErrorCode(err) != tarport.BlobUnknown {
			return err
		}
		if err := s.files.place(ctx, id, p.Digest); err != nil {
			return storageFull(fmt.Errorf("put blob %s into place: %w", p.Digest, err))
		}
		err = s.db.PutBlob(ctx, p)
		if errors.Is(err, metadata.ErrGoing) {
			// The collector died between the mark and the row. We hold its
			// lock, and the bytes are ours now.
			if err := s.db.DropGoing(ctx, p.Digest); err != nil {
				return err
			}
			err = s.db.PutBlob(ctx, p)
		}
		return err
	})
	return existed, err
}
