package storage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// TreeLayer is a layer that Tree reads.
type TreeLayer struct {
	Blob   digest.Digest
	DiffID digest.Digest // that it is said to have; "" for whatever it has
}

// indexAtOnce is how many layers are read side by side for one tree: somebody
// waits for it.
const indexAtOnce = 4

// Tree is the file system that layers make, the lowest first, from their
// indexes; those that are not there are made, which reads the layer. It goes by
// the blobs: what the config of an image claims of them is only compared. It does
// not ask who may read them. CONFLICT where a layer is none, has another diffID
// than it is said to have, or where there is too much in them.
func (s *Store) Tree(ctx context.Context, layers []TreeLayer) (*layer.Tree, error) {
	diffIDs, err := s.indexAll(ctx, layers)
	if err != nil {
		return nil, err
	}
	for again := range len(layers) + 1 { // each of them can be damaged
		var broken int
		t := layer.NewTree()
		for i := range layers {
			if err = s.addToTree(ctx, t, diffIDs[i]); err != nil {
				err, broken = inLayer(err, i, layers[i].Blob), i
				break
			}
		}
		if err == nil {
			return t, nil
		}
		if again == len(layers) || !errors.Is(err, layer.ErrIndex) {
			break
		}
		// Half a tree is worth nothing: another one, with a new index.
		if _, err := s.IndexLayer(ctx, layers[broken].Blob, nil); err != nil {
			return nil, inLayer(err, broken, layers[broken].Blob)
		}
	}
	return nil, err
}

// inLayer says of an error in which layer it is.
func inLayer(err error, i int, blob digest.Digest) error {
	e, ok := errors.AsType[*tarport.Error](err)
	if !ok || e.Code == tarport.Internal {
		return fmt.Errorf("layer %d, %s: %w", i+1, blob, err)
	}
	c := *e
	if c.Message = fmt.Sprintf("layer %d, %s: %s", i+1, blob, e.Message); c.Code == tarport.ManifestInvalid {
		c.Code = tarport.Conflict // it was pushed, and is no layer
	}
	return &c
}

// indexAll sees to it that there is an index of each layer, and returns their
// diffIDs.
func (s *Store) indexAll(ctx context.Context, layers []TreeLayer) ([]digest.Digest, error) {
	diffIDs := make([]digest.Digest, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(indexAtOnce)
	for i, l := range layers {
		g.Go(func() (err error) {
			if diffIDs[i], err = s.indexed(ctx, l); err != nil {
				return inLayer(err, i, l.Blob)
			}
			return nil
		})
	}
	return diffIDs, g.Wait()
}

func (s *Store) indexed(ctx context.Context, l TreeLayer) (digest.Digest, error) {
	known, ok, err := s.KnownDiffID(ctx, l.Blob)
	if err != nil {
		return "", err
	}
	diffID := known.DiffID
	if ok {
		r, err := s.OpenIndex(ctx, diffID)
		if ok = err == nil; ok {
			err = r.Close()
		}
		if err != nil && tarport.ErrorCode(err) != tarport.NotFound {
			return "", err
		}
	}
	if !ok {
		if diffID, err = s.IndexLayer(ctx, l.Blob, nil); err != nil {
			return "", err
		}
	}
	if l.DiffID != "" && l.DiffID != diffID {
		return "", tarport.Errorf(tarport.Conflict, "it has the diffID %s, the config says %s: no client can pull this image", diffID, l.DiffID)
	}
	return diffID, nil
}

func (s *Store) addToTree(ctx context.Context, t *layer.Tree, diffID digest.Digest) error {
	in, err := s.OpenIndex(ctx, diffID)
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
