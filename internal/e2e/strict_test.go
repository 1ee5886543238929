package e2e

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// strict is go-containerregistry in process: it verifies digests and sizes of
// all that it reads.
func strict(t testing.TB) []remote.Option {
	t.Helper()
	return []remote.Option{
		remote.WithAuth(&authn.Basic{Username: "admin", Password: adminPassword}),
		remote.WithContext(t.Context()),
	}
}

func (s *server) ref(t testing.TB, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(s.addr+"/"+ref, name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func randomImage(t testing.TB, layerSize, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(layerSize, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t testing.TB, of interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	d, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// statusOf is the HTTP status of an error of the client, 0 if it has none.
func statusOf(err error) int {
	if terr, ok := errors.AsType[*transport.Error](err); ok {
		return terr.StatusCode
	}
	return 0
}

func TestStrictClientReadsBackImages(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, tc := range []struct {
		name  string
		image v1.Image
	}{
		{"one layer", randomImage(t, 1<<10, 1)},
		{"many layers", randomImage(t, 4<<10, 40)},
		{"a layer of several megabytes", randomImage(t, 9<<20+17, 1)},
		{"no layer", empty.Image},
		{"OCI media types", mutate.MediaType(mutate.ConfigMediaType(randomImage(t, 1<<10, 2), types.OCIConfigJSON), types.OCIManifestSchema1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ref := s.ref(t, "strict/image:"+digest(t, tc.image).Hex[:12])
			if err := remote.Write(ref, tc.image, strict(t)...); err != nil {
				t.Fatalf("write: %v", err)
			}
			got, err := remote.Image(ref, strict(t)...)
			if err != nil {
				t.Fatalf("read: %v", err)
			}
			if err := validate.Image(got); err != nil {
				t.Errorf("what was read is not valid: %v", err)
			}
			if want := digest(t, tc.image); digest(t, got) != want {
				t.Errorf("digest = %s, want %s", digest(t, got), want)
			}
		})
	}
}

func TestStrictClientReadsBackAnIndexOfIndexes(t *testing.T) {
	t.Parallel()
	s := serve(t)
	inner, err := random.Index(2<<10, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	other := randomImage(t, 1<<10, 1)
	config, err := other.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "riscv64"
	other, err = mutate.ConfigFile(other, config)
	if err != nil {
		t.Fatal(err)
	}
	outer := mutate.AppendManifests(inner,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "riscv64"}}},
		mutate.IndexAddendum{Add: inner},
	)
	ref := s.ref(t, "strict/index:1.0")
	if err := remote.WriteIndex(ref, outer, strict(t)...); err != nil {
		t.Fatalf("write: %v", err)
	}
	got, err := remote.Index(ref, strict(t)...)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if err := validate.Index(got); err != nil {
		t.Errorf("what was read is not valid: %v", err)
	}
	riscv, err := remote.Image(ref, append(strict(t), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "riscv64"}))...)
	if err != nil {
		t.Fatalf("read one platform: %v", err)
	}
	if err := validate.Image(riscv); err != nil {
		t.Errorf("the image of one platform is not valid: %v", err)
	}
}

func TestStrictClientFindsReferrers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	subject := randomImage(t, 1<<10, 1)
	ref := s.ref(t, "strict/subject:1.0")
	if err := remote.Write(ref, subject, strict(t)...); err != nil {
		t.Fatalf("write subject: %v", err)
	}
	described, err := partial.Descriptor(subject)
	if err != nil {
		t.Fatal(err)
	}
	want := map[v1.Hash]string{}
	for _, kind := range []types.MediaType{"application/vnd.example.sbom", "application/vnd.example.signature"} {
		artifact := mutate.ConfigMediaType(mutate.MediaType(randomImage(t, 1<<10, 1), types.OCIManifestSchema1), kind)
		referrer, ok := mutate.Subject(artifact, *described).(v1.Image)
		if !ok {
			t.Fatal("mutate.Subject returns no image")
		}
		if err := remote.Write(s.ref(t, "strict/subject@"+digest(t, referrer).String()), referrer, strict(t)...); err != nil {
			t.Fatalf("write referrer: %v", err)
		}
		want[digest(t, referrer)] = string(kind)
	}
	list := func(opts ...remote.Option) map[v1.Hash]string {
		t.Helper()
		index, err := remote.Referrers(ref.Context().Digest(digest(t, subject).String()), append(strict(t), opts...)...)
		if err != nil {
			t.Fatalf("list referrers: %v", err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatalf("read referrers: %v", err)
		}
		got := map[v1.Hash]string{}
		for _, d := range manifest.Manifests {
			got[d.Digest] = d.ArtifactType
		}
		return got
	}
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
	for d, kind := range want {
		if diff := cmp.Diff(map[v1.Hash]string{d: kind}, list(remote.WithFilter("artifactType", kind))); diff != "" {
			t.Errorf("referrers of type %s (-want +got):\n%s", kind, diff)
		}
	}
	// Without the API the client would have made a tag sha256-…
	tags, err := remote.List(ref.Context(), strict(t)...)
	if err != nil {
		t.Fatalf("list tags: %v", err)
	}
	if diff := cmp.Diff([]string{"1.0"}, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

func TestStrictClientPagesAndDeletes(t *testing.T) {
	t.Parallel()
	s := serve(t)
	img := randomImage(t, 1<<10, 1)
	var want []string
	repo := s.ref(t, "strict/tags:a").Context()
	for _, tag := range []string{"1.0", "1.1", "2.0-alpine", "latest", "v3"} {
		if err := remote.Write(repo.Tag(tag), img, strict(t)...); err != nil {
			t.Fatalf("write %s: %v", tag, err)
		}
		want = append(want, tag)
	}
	got, err := remote.List(repo, append(strict(t), remote.WithPageSize(2))...)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags in pages of two (-want +got):\n%s", diff)
	}
	if err := remote.Delete(repo.Tag("1.1"), strict(t)...); err != nil {
		t.Fatalf("delete tag: %v", err)
	}
	if _, err := remote.Head(repo.Tag("1.1"), strict(t)...); statusOf(err) != http.StatusNotFound {
		t.Errorf("HEAD of the deleted tag: %v, want 404", err)
	}
	if _, err := remote.Head(repo.Tag("1.0"), strict(t)...); err != nil {
		t.Errorf("HEAD of another tag of the same image: %v", err)
	}
	if err := remote.Delete(repo.Digest(digest(t, img).String()), strict(t)...); err != nil {
		t.Fatalf("delete manifest: %v", err)
	}
	for _, tag := range want {
		if _, err := remote.Head(repo.Tag(tag), strict(t)...); statusOf(err) != http.StatusNotFound {
			t.Errorf("HEAD of %s after the deletion of its manifest: %v, want 404", tag, err)
		}
	}
}

func TestStrictClientIsRefusedWithoutPassword(t *testing.T) {
	t.Parallel()
	s := serve(t)
	ref := s.ref(t, "strict/private:1.0")
	img := randomImage(t, 1<<10, 1)
	if err := remote.Write(ref, img, strict(t)...); err != nil {
		t.Fatalf("write: %v", err)
	}
	for who, auth := range map[string]authn.Authenticator{
		"nobody":          authn.Anonymous,
		"wrong password":  &authn.Basic{Username: "admin", Password: "battery"},
		"unknown user":    &authn.Basic{Username: "root", Password: adminPassword},
		"a made-up token": &authn.Bearer{Token: "eyJhbGciOiJub25lIn0.e30."},
	} {
		opts := []remote.Option{remote.WithContext(t.Context()), remote.WithAuth(auth)}
		if _, err := remote.Get(ref, opts...); statusOf(err) != http.StatusUnauthorized {
			t.Errorf("GET by %s: %v, want 401", who, err)
		}
		if err := remote.Write(s.ref(t, "strict/other:1.0"), img, opts...); statusOf(err) != http.StatusUnauthorized {
			t.Errorf("push by %s: %v, want 401", who, err)
		}
		if _, err := remote.Catalog(t.Context(), ref.Context().Registry, opts...); statusOf(err) != http.StatusUnauthorized {
			t.Errorf("catalog by %s: %v, want 401", who, err)
		}
	}
	if _, err := remote.Head(s.ref(t, "strict/other:1.0"), strict(t)...); statusOf(err) != http.StatusNotFound {
		t.Errorf("HEAD of what nobody was allowed to push: %v, want 404", err)
	}
}
