package storage

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// SimilarLayer is a stored form of a layer.
type SimilarLayer struct {
	Digest, DiffID digest.Digest
	Prefixes       layer.Prefixes
}

// maxSimilar bounds what SimilarLayers returns: who has more layers that begin
// alike and are of one size pays for it in time only.
const maxSimilar = 16

// SimilarLayers returns stored forms, of that compression, of layers whose plain
// bytes are as many and begin alike: those whose bytes are whole and that
// LayerReader reads to the end, the newest first, and at most 16. They stay for
// the grace period at least. It does not ask who may read them: callers do.
func (s *Store) SimilarLayers(ctx context.Context, first layer.Prefixes, size int64, compression string) ([]SimilarLayer, error) {
	list, err := s.db.SimilarLayers(ctx, first, size, compression, maxSimilar)
	if err == nil {
		list = slices.DeleteFunc(list, func(l metadata.Layer) bool { return tooMuch(size, l.Size) != nil })
		list, err = s.wholeLayers(ctx, list)
	}
	if err != nil {
		return nil, err
	}
	similar := make([]SimilarLayer, len(list))
	for i, l := range list {
		similar[i] = SimilarLayer{l.Digest, l.DiffID, l.Plain.Prefixes}
	}
	return similar, nil
}

// ForgetPrefixes makes that a blob is not among SimilarLayers any more: its
// bytes turned out to be damaged.
func (s *Store) ForgetPrefixes(ctx context.Context, dgst digest.Digest) error {
	return s.db.ForgetPrefixes(ctx, dgst)
}

// plainOf is what the database is told of a layer whose plain bytes have passed.
func plainOf(size int64, p layer.Prefixes) metadata.Plain {
	return metadata.Plain{Size: size, First: p.First(), Prefixes: p}
}
