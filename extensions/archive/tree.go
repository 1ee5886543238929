package archive

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// tree is the file system of an image. The principal may read the layers,
// callers have asked. What is wrong with the layers is CONFLICT.
func (s *Service) tree(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) (*layer.Tree, error) {
	list := make([]storage.TreeLayer, len(layers))
	for i := range layers {
		list[i] = storage.TreeLayer{Blob: layers[i].Digest, DiffID: diffIDs[i]}
	}
	return s.o.Store.Tree(ctx, list)
}
