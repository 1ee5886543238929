package layer

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// PrefixStep is by how many bytes each of a layer's Prefixes is longer than the
// one before.
const PrefixStep = 1 << 20

// prefixLen is how much is kept of the sha256 of each prefix.
const prefixLen = 16

// Prefixes tell of a layer how it begins: the sha256 of its first PrefixStep
// plain bytes, of its first 2*PrefixStep and so on, as long as there are so many,
// 16 bytes of each. So another layer is seen to differ while it passes. That two
// do not differ their diffIDs alone can tell.
type Prefixes []byte

// Len is how many there are.
func (p Prefixes) Len() int { return len(p) / prefixLen }

// First is the first one, by which layers are looked up; nil where there is none.
func (p Prefixes) First() Prefixes { return p.Cut(1) }

// Cut is the first n, or all where there are fewer.
func (p Prefixes) Cut(n int) Prefixes {
	if n >= p.Len() {
		return p
	}
	return p[:n*prefixLen]
}

// Begins tells whether other begins as p does.
func (p Prefixes) Begins(other Prefixes) bool { return bytes.HasPrefix(other, p) }

// Hasher is a writer that computes a layer's diffID from its plain bytes, and its
// Prefixes.
type Hasher struct {
	hash     hash.Hash
	n        int64
	prefixes Prefixes
}

// NewHasher returns one that has seen nothing.
func NewHasher() *Hasher { return &Hasher{hash: sha256.New()} }

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(int64(len(p)), PrefixStep-h.n%PrefixStep)
		_, _ = h.hash.Write(p[:k])
		h.n, p = h.n+k, p[k:]
		if h.n%PrefixStep == 0 {
			var sum [sha256.Size]byte
			h.prefixes = append(h.prefixes, h.hash.Sum(sum[:0])[:prefixLen]...)
		}
	}
	return n, nil
}

// Sum is the sha256 of what was written: of a whole layer its diffID.
func (h *Hasher) Sum() []byte { return h.hash.Sum(nil) }

// Size is how many bytes were written.
func (h *Hasher) Size() int64 { return h.n }

// Prefixes are those of what was written. They are the Hasher's: more are added
// by Write.
func (h *Hasher) Prefixes() Prefixes { return h.prefixes }
