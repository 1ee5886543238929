package storage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// Tree is the file system that layers make, the lowest first, from their
// indexes; those that are not there are made, which reads the layer. It goes by
// the blobs: what a config claims of them does not count. It does not ask who may
// read them. CONFLICT where one is no layer, or there is too much in them.
func (s *Store) Tree(ctx context.Context, blobs []digest.Digest) (*layer.Tree, error) {
	t := layer.NewTree()
	for i, blob := range blobs {
		err := s.addToTree(ctx, t, blob)
		if errors.Is(err, layer.ErrIndex) {
			// The tree is worth nothing now: another one, with a new index.
			if _, err := s.IndexLayer(ctx, blob, nil); err != nil {
				return nil, inLayer(err, i, blob)
			}
			return s.Tree(ctx, blobs)
		}
		if err != nil {
			return nil, inLayer(err, i, blob)
		}
	}
	return t, nil
}

func inLayer(err error, i int, blob digest.Digest) error {
	if e, ok := errors.AsType[*tarport.Error](err); ok && e.Code != tarport.Internal {
		return tarport.Errorf(tarport.Conflict, "layer %d, %s: %s", i+1, blob, e.Message).Because(err)
	}
	return fmt.Errorf("layer %d, %s: %w", i+1, blob, err)
}

func (s *Store) addToTree(ctx context.Context, t *layer.Tree, blob digest.Digest) error {
	in, err := s.openIndexOf(ctx, blob)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var broken error
	r, err := layer.NewReader(in)
	if err != nil {
		return err
	}
	err = t.Add(func() (layer.Entry, error) {
		e, err := r.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			broken = err
		}
		return e, err
	})
	if err == nil || broken != nil {
		return err
	}
	return tarport.Errorf(tarport.Conflict, "%s", err).Because(err) // it is about the layer
}

// openIndexOf opens the index of a blob, which is made where it is not there.
func (s *Store) openIndexOf(ctx context.Context, blob digest.Digest) (io.ReadCloser, error) {
	known, ok, err := s.KnownDiffID(ctx, blob)
	if err != nil {
		return nil, err
	}
	if ok {
		if r, err := s.OpenIndex(ctx, known.DiffID); tarport.ErrorCode(err) != tarport.NotFound {
			return r, err
		}
	}
	diffID, err := s.IndexLayer(ctx, blob, nil)
	if err != nil {
		return nil, err
	}
	return s.OpenIndex(ctx, diffID)
}

// OpenLayerAt is OpenLayer from an offset in the plain bytes on. Of a layer that
// is stored plain what stands before it is not read; what is compressed has to be
// unpacked up to there.
func (s *Store) OpenLayerAt(ctx context.Context, blob digest.Digest, offset int64) (io.ReadCloser, error) {
	l, err := s.OpenLayer(ctx, blob)
	if err != nil {
		return nil, err
	}
	if err := l.skip(offset); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
