package storage

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
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

// TestALayerThatIsNotReadToItsEndIsNotSimilar: what was dropped of another could
// not be read from it.
func TestALayerThatIsNotReadToItsEndIsNotSimilar(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	blob := bytes.Repeat([]byte("0123456789abcdef"), 400_000)
	const size = int64(6_400_000)
	first := layer.Prefixes("0123456789abcdef")
	for plain, want := range map[int64]int{
		size: 1, layerRatioFrom: 1, layerRatio * size: 1, layerRatio*size + layerRatio: 0, layerMax: 0, layerMax + 1: 0,
	} {
		blob[0]++ // another one each time
		d := s.push(t, "a/b", blob)
		l := metadata.Layer{DiffID: digest.FromBytes(blob), Digest: d, Compression: "gzip", Plain: plainOf(plain, first)}
		check(t, "RememberLayer", s.db.RememberLayer(t.Context(), l))
		got, err := s.SimilarLayers(t.Context(), first, plain, "gzip")
		if check(t, "SimilarLayers", err); len(got) != want {
			t.Errorf("%d similar layers of %d plain bytes in a blob of %d, want %d", len(got), plain, size, want)
		}
	}
	for _, c := range []struct {
		plain, blob int64
		over        bool
	}{
		{layerMax, layerMax, false}, {layerMax + 1, layerMax + 1, true}, {layerRatioFrom, 1, false}, {layerRatioFrom + layerRatio, 1, true},
	} {
		if err := tooMuch(c.plain, c.blob); (err != nil) != c.over {
			t.Errorf("tooMuch(%d, %d) = %v, want an error: %t", c.plain, c.blob, err, c.over)
		}
	}
}
