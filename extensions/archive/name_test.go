package archive

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

func TestNamesArePlacedUnderTheNamespace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, ns, want string }{
		{"acme/web:1.4.0", "team", "team/acme/web:1.4.0"},
		{"ubuntu:22.04", "team", "team/ubuntu:22.04"},
		{"docker.io/library/ubuntu:22.04", "team", "team/ubuntu:22.04"},
		{"library/ubuntu:22.04", "team", "team/ubuntu:22.04"},
		{"index.docker.io/acme/web:1", "team", "team/acme/web:1"},
		{"team/web:1", "team", "team/web:1"},
		{"registry.example.com/team/web:1", "team", "team/web:1"},
		{"registry.example.com:5000/a/b/c:V1_x.y-Z", "team", "team/a/b/c:V1_x.y-Z"},
		{"localhost/acme/duplayer:1", "team", "team/acme/duplayer:1"},
		{"localhost:5000/x:1", "team", "team/x:1"},
		{"127.0.0.1:5077/team-a/multi:1", "team", "team/team-a/multi:1"},
		{"[::1]:5000/x:1", "team", "team/x:1"},
		{"harbor.example.com/library/nginx:1", "team", "team/nginx:1"},
		{"team:1", "team", "team/team:1"},
		{"teams/web:1", "team", "team/teams/web:1"},
		{"library/x:1", "library", "library/x:1"},
		{"orders_svc/x:1", "team", "team/orders_svc/x:1"},
		{"a/b:1@sha256:" + strings.Repeat("a", 64), "team", "team/a/b:1"},
	} {
		n, err := parseName(c.in)
		if err != nil {
			t.Errorf("parseName(%q): %v", c.in, err)
			continue
		}
		if got := (target{tarport.Place(c.ns, n.path), n.tag}).String(); got != c.want {
			t.Errorf("%q in %s = %s, want %s", c.in, c.ns, got, c.want)
		}
	}
}

// TestNamesOfARequest loads one archive, or an archive of several images, with
// what a request can say about names.
func TestNamesOfARequest(t *testing.T) {
	t.Parallel()
	x, y, z := layerOf("x"), layerOf("y"), layerOf("z")
	one := func(tag string) []byte { return docker(tag, x).pack() }
	aliases := docker("a/b:1", x)
	aliases.items[0]["RepoTags"] = []string{"a/b:1", "reg.example.com/a/b:latest", "a/c:1"}
	tagged := newLayout()
	k, k2 := tagged.image("amd64", x), tagged.image("amd64", x, y)
	k.Annotations = map[string]string{ocispec.AnnotationRefName: "k"}
	k2.Annotations = map[string]string{ocispec.AnnotationRefName: "k2"}
	tagged.roots = []ocispec.Descriptor{k, k2}
	byDigest := newLayout()
	root := byDigest.image("amd64", x)
	byDigest.root(root, "reg.example.com/a/b@"+root.Digest.String())
	dangling := newLayout()
	droot := dangling.image("amd64", x)
	dangling.root(droot, "moby-dangling@"+droot.Digest.String())
	fullRef := newLayout()
	froot := fullRef.image("amd64", x)
	froot.Annotations = map[string]string{ocispec.AnnotationRefName: "registry.example.com/a/b"}
	fullRef.roots = []ocispec.Descriptor{froot}
	id := sum(configOf("amd64", x)).String()
	for _, c := range []struct {
		name string
		body []byte
		q    LoadRequest
		want []string
	}{
		{"its own", one("a/b:1"), LoadRequest{}, []string{"team/a/b:1"}},
		{"its own, several", aliases.pack(), LoadRequest{}, []string{"team/a/b:1", "team/a/b:latest", "team/a/c:1"}},
		{"untagged with repo", one(""), LoadRequest{Repository: "app"}, []string{"team/app:latest"}},
		{"untagged with repo and tag", one(""), LoadRequest{Repository: "app", Tag: "2"}, []string{"team/app:2"}},
		{"untagged with repo:tag", one(""), LoadRequest{Repository: "app:2"}, []string{"team/app:2"}},
		{"untagged with a full repo", one(""), LoadRequest{Repository: "team/app", Tag: "2"}, []string{"team/app:2"}},
		{"untagged with a repo elsewhere", one(""), LoadRequest{Repository: "reg.example.com/x/app", Tag: "2"}, []string{"team/x/app:2"}},
		{"single with repo", one("a/b:1"), LoadRequest{Repository: "app"}, []string{"team/app:1"}},
		{"single with tag", one("a/b:1"), LoadRequest{Tag: "2"}, []string{"team/a/b:2"}},
		{"single with both", one("a/b:1"), LoadRequest{Repository: "app", Tag: "2"}, []string{"team/app:2"}},
		{"several names with repo", aliases.pack(), LoadRequest{Repository: "app"}, []string{"team/app:1", "team/app:latest"}},
		{"several names with tag", aliases.pack(), LoadRequest{Tag: "9"}, []string{"team/a/b:9", "team/a/c:9"}},
		{"empty and none", func() []byte {
			d := docker("", x)
			d.items[0]["RepoTags"] = []string{"", "<none>:<none>"}
			return d.pack()
		}(), LoadRequest{Repository: "app"}, []string{"team/app:latest"}},
		{"one of two untagged", docker("", x).add("a/b:1", y).pack(), LoadRequest{Repository: "app", Tag: "2"}, []string{"team/app:2", "team/a/b:1"}},
		{"tags only", tagged.pack(), LoadRequest{Repository: "app"}, []string{"team/app:k", "team/app:k2"}},
		{"tags only, renamed", tagged.pack(), LoadRequest{Rename: []string{"k=x/k1:v1", "k2=y"}}, []string{"team/x/k1:v1", "team/y:k2"}},
		{"by digest", byDigest.pack(), LoadRequest{}, []string{"team/a/b@" + root.Digest.String()}},
		{"dangling", dangling.pack(), LoadRequest{Repository: "app"}, []string{"team/app:latest"}},
		{"ref.name without tag", fullRef.pack(), LoadRequest{}, []string{"team/a/b:latest"}},
		{"rename a name", docker("a/b:1", x).add("a/c:1", y).pack(), LoadRequest{Rename: []string{"a/b:1=new:2"}}, []string{"team/new:2", "team/a/c:1"}},
		{"rename keeps the tag", one("a/b:1"), LoadRequest{Rename: []string{"a/b:1=new"}}, []string{"team/new:1"}},
		{"rename a repository", docker("a/b:1", x).add("a/b:2", y).add("a/c:3", z).pack(), LoadRequest{Rename: []string{"a/b=new"}}, []string{"team/new:1", "team/new:2", "team/a/c:3"}},
		{"rename another spelling", one("docker.io/library/b:1"), LoadRequest{Rename: []string{"b:1=new:1"}}, []string{"team/new:1"}},
		{"rename without the host", one("reg.example.com:5000/a/b:1"), LoadRequest{Rename: []string{"a/b:1=new:1"}}, []string{"team/new:1"}},
		{"rename by image ID", docker("", x).add("", y).pack(), LoadRequest{Rename: []string{id + "=new:1", sum(configOf("amd64", y)).Encoded()[:12] + "=other"}}, []string{"team/new:1", "team/other:latest"}},
		{"rename to resolve a clash", docker("b:1", x).add("reg.example.com/b:1", y).pack(), LoadRequest{Rename: []string{"reg.example.com/b:1=c:1"}}, []string{"team/b:1", "team/c:1"}},
		{"swap", docker("a:1", x).add("b:1", y).pack(), LoadRequest{Rename: []string{"a:1=b:1", "b:1=a:1"}}, []string{"team/b:1", "team/a:1"}},
		{"one image twice", docker("a/b:1", x).add("a/b:2", x).pack(), LoadRequest{}, []string{"team/a/b:1", "team/a/b:2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			st := &fakeStore{}
			c.q.Namespace = "team"
			res, err := newFakeService(t, st).Load(t.Context(), strings.NewReader(string(c.body)), c.q)
			if err != nil {
				t.Fatalf("Load: %v", err)
			}
			var got []string
			for _, im := range res.Images {
				got = append(got, im.Name)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReferrersGoWithTheirSubject(t *testing.T) {
	t.Parallel()
	l := newLayout()
	image := l.image("amd64", layerOf("x"))
	empty := l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	refer := func(to ocispec.Descriptor, kind string) ocispec.Descriptor {
		return l.document(ocispec.MediaTypeImageManifest, map[string]any{
			"artifactType": kind, "config": empty, "layers": []ocispec.Descriptor{empty},
			"subject": ocispec.Descriptor{MediaType: to.MediaType, Digest: to.Digest, Size: to.Size},
		})
	}
	sbom := refer(image, "application/spdx+json")
	signature := refer(sbom, "application/vnd.example.signature") // of the SBOM, and listed before it
	l.root(signature, "").root(sbom, "").root(image, "a/b:1").root(image, "a/c:1")
	reg := newRegistry(t)
	res := reg.mustLoad(t, l.pack())
	if len(res.Images) != 6 {
		t.Errorf("%d images, want each of three in two repositories", len(res.Images))
	}
	for _, repository := range []string{"team/a/b", "team/a/c"} {
		for _, d := range []ocispec.Descriptor{image, sbom} {
			if list, _, err := reg.store.Referrers(t.Context(), repository, d.Digest, "", 10, ""); err != nil || len(list) != 1 {
				t.Errorf("Referrers(%s, %s) = %v, %v, want one", repository, d.Digest, list, err)
			}
		}
	}
	// Without its subject it is an image like others, which needs a name.
	alone := newLayout()
	alone.blobs = map[string][]byte{}
	for _, d := range []ocispec.Descriptor{sbom, empty} {
		p := "blobs/sha256/" + d.Digest.Encoded()
		alone.blobs[p] = l.blobs[p]
	}
	if _, err := reg.load(t, alone.root(sbom, "").pack()); tarport.ErrorCode(err) != tarport.Invalid {
		t.Errorf("Load of an SBOM without its image = %v, want INVALID", err)
	}
}
