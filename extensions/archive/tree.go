package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// tree is the file system of an image, from the indexes of its layers; those
// that are not there yet are made. The principal may read the layers, callers
// have asked. What is wrong with the layers is CONFLICT.
func (s *Service) tree(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) (*layer.Tree, error) {
	t := layer.NewTree()
	for i := range layers {
		what := fmt.Sprintf("layer %d, %s", i+1, layers[i].Digest)
		if err := s.checkLayer(ctx, layers[i].Digest, diffIDs[i]); err != nil {
			return nil, within(err, "%s", what)
		}
		err := s.addLayer(ctx, t, diffIDs[i])
		if errors.Is(err, layer.ErrIndex) {
			// The tree is worth nothing now. It is made again with a new index.
			if _, err := s.o.Store.IndexLayer(ctx, layers[i].Digest, nil); err != nil {
				return nil, within(err, "%s", what)
			}
			return s.tree(ctx, layers, diffIDs)
		}
		if err != nil {
			return nil, within(err, "%s", what)
		}
	}
	return t, nil
}

// checkLayer sees to it that there is an index of the blob under the diffID. An
// index tells all names in a layer, and a diffID is what the config of an image
// claims: it counts only where the registry knows it of this very blob.
func (s *Service) checkLayer(ctx context.Context, blob, diffID digest.Digest) error {
	known, err := s.o.Store.KnownLayers(ctx, diffID)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(known, func(l metadata.Layer) bool { return l.Digest == blob }) {
		r, err := s.o.Store.OpenIndex(ctx, diffID)
		if err == nil {
			return r.Close()
		}
		if tarport.ErrorCode(err) != tarport.NotFound {
			return err
		}
	}
	got, err := s.o.Store.IndexLayer(ctx, blob, nil)
	if err == nil && got != diffID {
		err = tarport.Errorf(tarport.Conflict, "it has the diffID %s, the config says %s: no client can pull this image", got, diffID)
	}
	return err
}

func (s *Service) addLayer(ctx context.Context, t *layer.Tree, diffID digest.Digest) error {
	in, err := s.o.Store.OpenIndex(ctx, diffID)
	if err != nil {
		return err
	}
	defer in.Close()
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
