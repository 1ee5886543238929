package storage

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/layer"
)

// TestHowLayersBeginIsLearnedWhereTheyPass commits one and has the scanner's
// IndexLayer read another form of it.
func TestHowLayersBeginIsLearnedWhereTheyPass(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		tarball := append(plainLayer(t, "etc/passwd"), make([]byte, 2*layer.PrefixStep)...)
		diffID := digest.FromBytes(tarball)
		h := layer.NewHasher()
		_, _ = h.Write(tarball)
		wantSimilar := func(compression string, want ...SimilarLayer) {
			t.Helper()
			got, err := s.SimilarLayers(t.Context(), h.Prefixes().First(), int64(len(tarball)), compression)
			check(t, "SimilarLayers", err)
			if diff := cmp.Diff(append([]SimilarLayer{}, want...), got); diff != "" {
				t.Errorf("SimilarLayers of %s (-want +got):\n%s", compression, diff)
			}
		}

		b := s.batch(t)
		w, desc := stageBlob(t, b, tarball)
		if !bytes.Equal(w.Prefixes(), h.Prefixes()) {
			t.Errorf("Prefixes of a staged blob = %x, want %x", w.Prefixes(), h.Prefixes())
		}
		put := stageImage(t, b, "team/app", "1", "another")
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: desc, DiffID: diffID, Compression: "none", PlainSize: desc.Size, Prefixes: w.Prefixes()})
		wantSimilar("none")
		_, err := b.Commit(t.Context(), []ManifestPut{put})
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		wantSimilar("none", SimilarLayer{desc.Digest, diffID, h.Prefixes()})

		packed := s.push(t, "a/b", zst(t, tarball))
		wantSimilar("zstd")
		_, err = s.IndexLayer(t.Context(), packed, nil)
		check(t, "IndexLayer", err)
		wantSimilar("zstd", SimilarLayer{packed, diffID, h.Prefixes()})

		s.overwrite(t, blobPath(packed), []byte("damaged"))
		wantSimilar("zstd")
		check(t, "ForgetPrefixes", s.ForgetPrefixes(t.Context(), desc.Digest))
		wantSimilar("none")
	})
}
