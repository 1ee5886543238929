package storage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

func TestAnImageOfAnotherRepositoryIsTaggedWithAllThatItReaches(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		one, two := s.pushImage(t, "a/b", "base", "one"), s.pushImage(t, "a/b", "base", "two")
		s.mustPut(t, one.put("a/b"))
		s.mustPut(t, two.put("a/b"))
		payload := indexOf(one.descriptor(), two.descriptor(), imageOf("absent").descriptor(), one.descriptor())
		index := s.mustPut(t, ManifestPut{Repository: "a/b", MediaType: ocispec.MediaTypeImageIndex, Payload: payload, Via: ViaPush})

		check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", index, "a/c", "both", "ann", ViaTag))
		got, err := s.Manifest(t.Context(), "a/c", byTag("both"))
		check(t, "Manifest", err)
		if got.Digest != index || string(got.Payload) != string(payload) {
			t.Errorf("the copy is %s %s, want %s", got.Digest, got.Payload, index)
		}
		for _, img := range []*testImage{one, two} {
			if code := s.code(t, "a/c", byDigest(img.digest())); code != "" {
				t.Errorf("an entry of the index: code %q", code)
			}
			for _, desc := range append(img.layers, img.config) {
				if _, err := s.Blob(t.Context(), "a/c", desc.Digest); err != nil {
					t.Errorf("a blob of an entry: %v", err)
				}
			}
		}
		tags, err := s.TagsOf(t.Context(), "a/c", one.digest())
		check(t, "TagsOf", err)
		if diff := cmp.Diff([]string{}, tags); diff != "" {
			t.Errorf("tags of an entry (-want +got):\n%s", diff)
		}

		// Again, and another over it.
		check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", index, "a/c", "both", "ann", ViaTag))
		check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", two.digest(), "a/c", "both", "ann", ViaTag))
		if got, err := s.Manifest(t.Context(), "a/c", byTag("both")); err != nil || got.Digest != two.digest() {
			t.Errorf("the tag was moved to %v (%v), want %s", got, err, two.digest())
		}
	})
}

func TestACopyKeepsItsDigest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		subject := imageOf("other").descriptor()
		img.subject = &subject
		d := digest.SHA512.FromBytes(img.payload())
		_, err := s.PutManifest(t.Context(), img.put("a/b"), d)
		check(t, "PutManifest", err)
		check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", d, "a/c", "latest", "ann", ViaTag))
		if got, err := s.Manifest(t.Context(), "a/c", byTag("latest")); err != nil || got.Digest != d {
			t.Errorf("the copy is %v (%v), want %s", got, err, d)
		}
		want, _, err := s.Referrers(t.Context(), "a/b", subject.Digest, "", 10, "")
		check(t, "Referrers", err)
		got, _, err := s.Referrers(t.Context(), "a/c", subject.Digest, "", 10, "")
		check(t, "Referrers", err)
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 1 {
			t.Errorf("referrers of the copy (-want +got):\n%s", diff)
		}
	})
}

func TestWhatCannotBeCopied(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		d := s.mustPut(t, img.put("a/b", "latest"))
		for _, c := range []struct {
			from, tag string
			digest    digest.Digest
			want      tarport.Code
		}{
			{"a/b", "x", digest.FromString("x"), tarport.ManifestUnknown},
			{"a/x", "x", d, tarport.ManifestUnknown},
			{"a/b", "-", d, tarport.TagInvalid},
		} {
			wantCode(t, c.from+" "+c.tag, s.CopyImage(t.Context(), c.from, c.digest, "a/c", c.tag, "ann", ViaTag), c.want)
		}
		if _, err := s.Tags(t.Context(), "a/c", 10, ""); tarport.ErrorCode(err) != tarport.NameUnknown {
			t.Errorf("a repository was made of nothing: %v", err)
		}
	})
}

func TestTheLayersOfABuildCacheAreCopied(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	s.push(t, "a/b", []byte("a layer of a cache"))
	layer := describeBytes(ocispec.MediaTypeImageLayerGzip, []byte("a layer of a cache"))
	index := s.mustPut(t, ManifestPut{Repository: "a/b", MediaType: ocispec.MediaTypeImageIndex, Payload: indexOf(layer), Via: ViaPush})
	check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", index, "a/c", "cache", "ann", ViaTag))
	if _, err := s.Blob(t.Context(), "a/c", layer.Digest); err != nil {
		t.Errorf("the layer: %v", err)
	}
}

// TestACopyLinksNothingThatTheSourceDoesNot is about a sparse image that names
// somebody else's blob.
func TestACopyLinksNothingThatTheSourceDoesNot(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	s.push(t, "secret/app", []byte("secret"))
	img := s.pushImage(t, "a/b", "mine")
	img.layers = append(img.layers, describeBytes(ocispec.MediaTypeImageLayerGzip, []byte("secret")))
	p := img.put("a/b", "1.0")
	p.AllowMissing = true
	s.mustPut(t, p)
	check(t, "CopyImage", s.CopyImage(t.Context(), "a/b", img.digest(), "a/c", "1.0", "ann", ViaTag))
	if _, err := s.Blob(t.Context(), "a/c", img.layers[0].Digest); err != nil {
		t.Errorf("the image's own layer: %v", err)
	}
	_, err := s.Blob(t.Context(), "a/c", img.layers[1].Digest)
	wantCode(t, "another's blob", err, tarport.BlobUnknown)
}

// TestTheManifestsOfACopyAreBounded: they are in memory until all are there.
func TestTheManifestsOfACopyAreBounded(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	d := s.mustPut(t, s.pushImage(t, "a/b", "layer").put("a/b"))
	c := &copying{s: s.Store, from: "a/b", to: ManifestPut{Repository: "a/c"}, seen: map[digest.Digest]bool{}, bytes: maxCopiedBytes}
	wantCode(t, "one manifest more", c.add(t.Context(), d), tarport.TooLarge)
}
