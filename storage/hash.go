package storage

import (
	"crypto/sha256"
	"encoding"
	"fmt"
	"hash"
)

// newHash returns a sha256 that goes on from a state that hashState gave; from
// the beginning for nil.
func newHash(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if state == nil {
		return h, nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("restore the state of a hash: %w", err)
	}
	return h, nil
}

func hashState(h hash.Hash) ([]byte, error) {
	return h.(encoding.BinaryMarshaler).MarshalBinary()
}
