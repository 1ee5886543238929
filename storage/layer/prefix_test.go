package layer

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func TestPrefixesAreOfTheBytesAndNotOfTheirChunks(t *testing.T) {
	t.Parallel()
	body := make([]byte, 3*PrefixStep+17)
	for i := range body {
		body[i] = byte(i * i >> 8)
	}
	var want Prefixes
	for n := PrefixStep; n <= len(body); n += PrefixStep {
		s := sha256.Sum256(body[:n])
		want = append(want, s[:prefixLen]...)
	}
	for _, chunk := range []int{1000, PrefixStep - 1, PrefixStep, PrefixStep + 1, len(body)} {
		h := NewHasher()
		for rest := body; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
			if n, err := h.Write(rest[:min(chunk, len(rest))]); err != nil || n != min(chunk, len(rest)) {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		if got := h.Prefixes(); !bytes.Equal(got, want) || got.Len() != 3 {
			t.Errorf("Prefixes in chunks of %d = %x, want %x", chunk, got, want)
		}
		if whole := sha256.Sum256(body); !bytes.Equal(h.Sum(), whole[:]) || h.Size() != int64(len(body)) {
			t.Errorf("in chunks of %d: %x of %d bytes, want %x of %d", chunk, h.Sum(), h.Size(), whole, len(body))
		}
	}
}

func TestWhatBeginsAlike(t *testing.T) {
	t.Parallel()
	h := NewHasher()
	_, _ = h.Write(make([]byte, PrefixStep-1))
	if p := h.Prefixes(); p.Len() != 0 || len(p.First()) != 0 {
		t.Errorf("a short layer has %d prefixes, the first %x", p.Len(), p.First())
	}
	_, _ = h.Write(make([]byte, PrefixStep+1))
	p := h.Prefixes()
	if p.Len() != 2 || p.First().Len() != 1 || p.Cut(5).Len() != 2 {
		t.Fatalf("%d prefixes, first has %d, 5 of them are %d", p.Len(), p.First().Len(), p.Cut(5).Len())
	}
	if !p.First().Begins(p) || !p.Begins(p) || p.Begins(p.First()) {
		t.Error("a layer's first prefix must begin it, and it not its first prefix")
	}
}
