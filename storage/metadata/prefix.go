package metadata

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Plain is what is known of the plain bytes of a layer beside their digest.
type Plain struct {
	Size int64
	// First is the first of the layer's Prefixes, by which it is looked up. Of a
	// layer that is too short to have one both are empty, and nothing is recorded.
	First, Prefixes []byte
}

const (
	insertPrefixes = `INSERT INTO layer_prefixes (digest, size, first, prefixes)
		SELECT b.digest, $2, $3, $4 FROM blobs b WHERE b.digest = $1 AND b.state = 'live' ON CONFLICT (digest) DO NOTHING`
	deletePrefixes = `DELETE FROM layer_prefixes WHERE digest = $1`
	selectSimilar  = `SELECT d.diff_id, d.digest, b.size, p.prefixes FROM layer_prefixes p
		JOIN diff_ids d ON d.digest = p.digest AND d.compression = $3
		JOIN blobs b ON b.digest = p.digest AND b.state = 'live'
		WHERE p.first = $1 AND p.size = $2 ORDER BY b.created_at DESC, b.digest LIMIT $4`
)

func (tx *Tx) putPrefixes(ctx context.Context, l *Layer) error {
	if len(l.Plain.First) == 0 {
		return nil
	}
	_, err := tx.exec(ctx, insertPrefixes, l.Digest.String(), l.Plain.Size, l.Plain.First, l.Plain.Prefixes)
	return err
}

// SimilarLayers returns at most n stored forms, of that compression, of layers
// whose plain bytes are as many and begin alike, with their Plain; the newest
// first.
func (db *DB) SimilarLayers(ctx context.Context, first []byte, size int64, compression string, n int) ([]Layer, error) {
	list, err := all(ctx, db.view(), func(l *Layer, scan func(...any) error) error {
		l.Compression, l.Plain = compression, Plain{Size: size, First: first}
		return scan(&l.DiffID, &l.Digest, &l.Size, &l.Plain.Prefixes)
	}, selectSimilar, first, size, compression, n)
	if err != nil {
		return nil, fmt.Errorf("look up layers of %d bytes: %w", size, err)
	}
	return list, nil
}

// ForgetPrefixes makes that a blob is not among SimilarLayers any more, until
// its plain bytes are seen again.
func (db *DB) ForgetPrefixes(ctx context.Context, dgst digest.Digest) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, deletePrefixes, dgst.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("forget how layer %s begins: %w", dgst, err)
	}
	return nil
}
