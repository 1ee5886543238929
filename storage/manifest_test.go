package storage

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

func byTag(tag string) tarport.Reference         { return tarport.Reference{Tag: tag} }
func byDigest(d digest.Digest) tarport.Reference { return tarport.Reference{Digest: d} }

func (s *testStore) code(tb testing.TB, repository string, ref tarport.Reference) tarport.Code {
	tb.Helper()
	_, err := s.Manifest(tb.Context(), repository, ref)
	return tarport.ErrorCode(err)
}

// mustPut puts an image whose blobs are there.
func (s *testStore) mustPut(tb testing.TB, put ManifestPut) digest.Digest {
	tb.Helper()
	m, err := s.PutManifest(tb.Context(), put, "")
	check(tb, "PutManifest", err)
	return m.Digest
}

func TestAManifestIsServedAsItCameByTagAndByDigest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		put := img.put("a/b", "one", "two")
		put.Payload = append([]byte("\n "), put.Payload...) // not as anybody would encode it
		d := digest.FromBytes(put.Payload)
		m, err := s.PutManifest(t.Context(), put, d)
		check(t, "PutManifest", err)
		if m.Digest != d {
			t.Errorf("digest = %s, want %s", m.Digest, d)
		}
		for range 2 { // the second time from the cache
			for _, ref := range []tarport.Reference{byTag("one"), byTag("two"), byDigest(d)} {
				got, err := s.Manifest(t.Context(), "a/b", ref)
				check(t, "Manifest", err)
				if got.Digest != d || got.MediaType != ocispec.MediaTypeImageManifest || string(got.Payload) != string(put.Payload) {
					t.Errorf("Manifest(%s) = %s %s %q", ref, got.Digest, got.MediaType, got.Payload)
				}
			}
		}
		for _, c := range []struct {
			repository string
			ref        tarport.Reference
		}{{"a/b", byTag("three")}, {"a/b", byDigest(digest.FromString("x"))}, {"a/c", byTag("one")}, {"a/c", byDigest(d)}} {
			if got := s.code(t, c.repository, c.ref); got != tarport.ManifestUnknown {
				t.Errorf("Manifest(%s, %s): code %q, want MANIFEST_UNKNOWN", c.repository, c.ref, got)
			}
		}
	})
}

func TestAManifestHasTheDigestThatItsClientNames(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		subject := img.descriptor()
		img.subject = &subject
		put := img.put("a/b", "latest")
		for _, wrong := range []digest.Digest{digest.FromString("other"), digest.SHA512.FromString("other")} {
			_, err := s.PutManifest(t.Context(), put, wrong)
			wantCode(t, "PutManifest", err, tarport.DigestInvalid)
		}
		if got := s.code(t, "a/b", byTag("latest")); got != tarport.ManifestUnknown {
			t.Errorf("a manifest of another digest is there: code %q", got)
		}
		d := digest.SHA512.FromBytes(put.Payload)
		m, err := s.PutManifest(t.Context(), put, d)
		check(t, "PutManifest by sha512", err)
		if m.Digest != d {
			t.Errorf("digest = %s, want %s", m.Digest, d)
		}
		for _, ref := range []tarport.Reference{byTag("latest"), byDigest(d)} {
			got, err := s.Manifest(t.Context(), "a/b", ref)
			check(t, "Manifest", err)
			if got.Digest != d {
				t.Errorf("Manifest(%s) has the digest %s, want %s", ref, got.Digest, d)
			}
		}
		list, _, err := s.Referrers(t.Context(), "a/b", subject.Digest, "", 10, "")
		check(t, "Referrers", err)
		var own ocispec.Descriptor
		check(t, "decode", json.Unmarshal([]byte(list[0]), &own))
		want := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(put.Payload)), ArtifactType: ocispec.MediaTypeImageConfig}
		if diff := cmp.Diff(want, own); diff != "" {
			t.Errorf("descriptor (-want +got):\n%s", diff)
		}
	})
}

func TestAManifestNeedsItsBlobsInItsOwnRepositoryAndOfTheirTrueSize(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		put := func(repository string, img *testImage) error {
			_, err := s.PutManifest(t.Context(), img.put(repository, "latest"), "")
			return err
		}
		wantCode(t, "in another repository", put("c/d", img), tarport.ManifestBlobUnknown)
		img.layers[0].Size++
		wantCode(t, "with a wrong size", put("a/b", img), tarport.ManifestInvalid)
		img.layers[0].Size--
		img.layers = append(img.layers, describeBytes("x/y", []byte("missing")))
		wantCode(t, "with a missing layer", put("a/b", img), tarport.ManifestBlobUnknown)
		sparse := img.put("a/b", "sparse")
		sparse.AllowMissing = true
		s.mustPut(t, sparse)
		img.layers = img.layers[:1]
		check(t, "PutManifest", put("a/b", img))
		for _, tag := range []string{"-x", "", "a/b", strings.Repeat("x", 129)} {
			_, err := s.PutManifest(t.Context(), img.put("a/b", "good", tag), "")
			wantCode(t, fmt.Sprintf("with the tag %q", tag), err, tarport.TagInvalid)
		}
		if got := s.code(t, "a/b", byTag("good")); got != tarport.ManifestUnknown {
			t.Errorf("a tag beside a bad one was set: code %q", got)
		}
	})
}

func TestAnIndexTakesEntriesThatAreNotHere(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		s.mustPut(t, img.put("a/b"))
		cached := s.push(t, "a/b", []byte("cache layer"))
		put := func(payload []byte) error {
			_, err := s.PutManifest(t.Context(), ManifestPut{Repository: "a/b", MediaType: ocispec.MediaTypeImageIndex, Payload: payload, Tags: []string{"index"}}, "")
			return err
		}
		check(t, "an index", put(indexOf(img.descriptor(), describeBytes("x/y", []byte("nowhere")),
			ocispec.Descriptor{MediaType: "x/y", Digest: cached, Size: int64(len("cache layer"))})))
		wrong := img.descriptor()
		wrong.Size++
		wantCode(t, "an index with a wrong size", put(indexOf(wrong)), tarport.ManifestInvalid)
		wantCode(t, "DeleteBlob of an entry", s.DeleteBlob(t.Context(), "a/b", cached), tarport.Conflict)
		check(t, "DeleteManifest of an entry", s.DeleteManifest(t.Context(), "a/b", img.digest(), "alice"))
		if got := s.code(t, "a/b", byTag("index")); got != "" {
			t.Errorf("the index after an entry went: code %q", got)
		}
	})
}

func TestTagsComeGoAndMove(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		wantTags := func(want ...string) {
			t.Helper()
			p, err := s.Tags(t.Context(), "a/b", 10, "")
			check(t, "Tags", err)
			if diff := cmp.Diff(want, p.Names()); diff != "" {
				t.Errorf("Tags (-want +got):\n%s", diff)
			}
		}
		_, err := s.Tags(t.Context(), "a/b", 10, "")
		wantCode(t, "Tags of no repository", err, tarport.NameUnknown)
		one, two := s.pushImage(t, "a/b", "one"), s.pushImage(t, "a/b", "two")
		wantTags()
		s.mustPut(t, one.put("a/b", "x", "y"))
		wantTags("x", "y")
		s.mustPut(t, two.put("a/b", "x"))
		wantTags("x", "y")
		check(t, "Tag", s.Tag(t.Context(), "a/b", "z", one.digest(), "bob", ViaTag))
		wantTags("x", "y", "z")
		of, err := s.TagsOf(t.Context(), "a/b", one.digest())
		check(t, "TagsOf", err)
		if diff := cmp.Diff([]string{"y", "z"}, of); diff != "" {
			t.Errorf("TagsOf (-want +got):\n%s", diff)
		}
		wantCode(t, "a bad tag", s.Tag(t.Context(), "a/b", "-z", one.digest(), "bob", ViaTag), tarport.TagInvalid)
		wantCode(t, "a tag of nothing", s.Tag(t.Context(), "a/b", "z", digest.FromString("x"), "bob", ViaTag), tarport.ManifestUnknown)
		check(t, "DeleteTag", s.DeleteTag(t.Context(), "a/b", "y", "bob"))
		wantCode(t, "DeleteTag again", s.DeleteTag(t.Context(), "a/b", "y", "bob"), tarport.ManifestUnknown)
		wantTags("x", "z")
		check(t, "DeleteManifest", s.DeleteManifest(t.Context(), "a/b", one.digest(), "bob"))
		wantTags("x")
		if got := s.code(t, "a/b", byTag("z")); got != tarport.ManifestUnknown {
			t.Errorf("a tag of a deleted manifest: code %q", got)
		}
		wantCode(t, "DeleteManifest again", s.DeleteManifest(t.Context(), "a/b", one.digest(), "bob"), tarport.ManifestUnknown)
		if got := s.code(t, "a/b", byTag("x")); got != "" {
			t.Errorf("another manifest's tag: code %q", got)
		}
	})
}

func TestRepositoriesAreListedWhileTheyHoldAManifest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		want := func(want ...string) {
			t.Helper()
			p, err := s.Repositories(t.Context(), 10, "")
			check(t, "Repositories", err)
			if diff := cmp.Diff(want, p.Names()); diff != "" {
				t.Errorf("Repositories (-want +got):\n%s", diff)
			}
		}
		want()
		img := s.pushImage(t, "b/b", "layer")
		want()
		s.mustPut(t, img.put("b/b", "latest"))
		want("b/b")
		s.pushImage(t, "a/b", "layer")
		s.mustPut(t, img.put("a/b", "latest"))
		want("a/b", "b/b")
		check(t, "DeleteManifest", s.DeleteManifest(t.Context(), "b/b", img.digest(), "bob"))
		want("a/b")
		check(t, "DeleteRepository", s.DeleteRepository(t.Context(), "a/b"))
		want()
		wantCode(t, "DeleteRepository again", s.DeleteRepository(t.Context(), "a/b"), tarport.NameUnknown)
		s.wantNoBlob(t, "a/b", img.config.Digest)
	})
}

func TestReferrersAreThoseOfTheSubjectWhetherItIsHereOrNot(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		list := func(artifactType string) (digests []digest.Digest) {
			t.Helper()
			descs, _, err := s.Referrers(t.Context(), "a/b", digest.FromString("subject"), artifactType, 10, "")
			check(t, "Referrers", err)
			for _, text := range descs {
				var d ocispec.Descriptor
				check(t, "decode", json.Unmarshal([]byte(text), &d))
				digests = append(digests, d.Digest)
			}
			return digests
		}
		if got := list(""); len(got) != 0 {
			t.Errorf("referrers before any: %v", got)
		}
		subject := describeBytes("x/y", []byte("subject"))
		for _, artifactType := range []string{"x/sbom", "x/signature"} {
			img := s.pushImage(t, "a/b", artifactType)
			img.artifact, img.subject, img.notes = artifactType, &subject, map[string]string{"of": artifactType}
			d := s.mustPut(t, img.put("a/b"))
			if diff := cmp.Diff([]digest.Digest{d}, list(artifactType)); diff != "" {
				t.Errorf("referrers of %s (-want +got):\n%s", artifactType, diff)
			}
		}
		all := list("")
		if len(all) != 2 || all[0] >= all[1] {
			t.Errorf("referrers = %v, want two in the order of their digests", all)
		}
		check(t, "DeleteManifest", s.DeleteManifest(t.Context(), "a/b", all[0], "bob"))
		if diff := cmp.Diff(all[1:], list("")); diff != "" {
			t.Errorf("referrers after one went (-want +got):\n%s", diff)
		}
	})
}
