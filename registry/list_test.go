package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// follow walks a list by its Link headers, and returns its items, how many
// each page had, and the links.
func (s *server) follow(path, key string, header ...string) (items []string, sizes []int, links []string) {
	s.Helper()
	for path != "" {
		a := s.want(s.do("GET", path, nil, header...), 200, "")
		var body map[string]json.RawMessage
		var page []string
		if err := json.Unmarshal(a.body, &body); err != nil {
			s.Fatalf("GET %s: %s: %v", path, a.body, err)
		}
		if err := json.Unmarshal(body[key], &page); err != nil || page == nil {
			s.Fatalf("GET %s: %s: %v", path, a.body, err)
		}
		items, sizes = append(items, page...), append(sizes, len(page))
		link := a.Header.Get("Link")
		if path = ""; link != "" {
			var ok bool
			if path, ok = strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`); !ok || !strings.HasPrefix(path, "/v2/") {
				s.Fatalf("Link = %q", link)
			}
			links = append(links, link)
		}
	}
	return items, sizes, links
}

// empty puts many manifests without blobs into the store in one transaction.
func (s *server) empty(puts ...storage.ManifestPut) {
	s.Helper()
	b, err := s.store.NewBatch(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	if _, err := b.Commit(s.Context(), puts); err != nil {
		s.Fatal(err)
	}
	if err := b.Close(); err != nil {
		s.Fatal(err)
	}
}

// emptyIndex is an index of nothing.
func emptyIndex(repository, note string, subject *ocispec.Descriptor, tags ...string) storage.ManifestPut {
	b, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		ArtifactType: "x/" + note[:1], Manifests: []ocispec.Descriptor{}, Subject: subject, Annotations: map[string]string{"note": note},
	})
	if err != nil {
		panic(err)
	}
	return storage.ManifestPut{Repository: repository, MediaType: ocispec.MediaTypeImageIndex, Payload: b, Tags: tags}
}

func TestNumbersOfPages(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		want := make([]string, 1002)
		for i := range want {
			want[i] = fmt.Sprintf("v%04d", i)
		}
		s.empty(emptyIndex("a/b", "x", nil, want...))
		for n, sizes := range map[string][]int{
			"": {1002}, "?n=1001": {1000, 2}, "?n=1000": {1000, 2}, "?n=5000": {1000, 2}, "?n=501": {501, 501}, "?n=999": {999, 3}, "?n=0": {0},
		} {
			items, got, _ := s.follow("/v2/a/b/tags/list"+n, "tags")
			if diff := cmp.Diff(sizes, got); diff != "" {
				t.Errorf("pages of %q (-want +got):\n%s", n, diff)
			}
			if n != "?n=0" && !slices.Equal(items, want) {
				t.Errorf("the walk of %q has %d tags, not the %d there are", n, len(items), len(want))
			}
		}
		for _, n := range []string{"-1", "x", "1x", "", "1.5", "0x10", "99999999999999999999", "%31", "1%00"} {
			a := s.do("GET", "/v2/a/b/tags/list?n="+n, nil)
			if n == "%31" { // an escaped 1
				s.want(a, 200, "")
				continue
			}
			s.want(a, 400, tarport.PaginationInvalid)
			s.want(s.do("GET", "/v2/_catalog?n="+n, nil), 400, tarport.PaginationInvalid)
		}
	})
}

func TestALongListThatWasNotAskedToPageDoesSoInTheEnd(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	want := make([]string, wholeList+1500)
	for i := range want {
		want[i] = fmt.Sprintf("v%05d", i)
	}
	s.empty(emptyIndex("a/b", "x", nil, want...))
	items, sizes, _ := s.follow("/v2/a/b/tags/list", "tags")
	if !slices.Equal(items, want) {
		t.Errorf("the walk has %d tags, want %d", len(items), len(want))
	}
	if diff := cmp.Diff([]int{wholeList, 1000, 500}, sizes); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// hostile is what strangers put into parameters: NUL, what is no UTF-8, a
// surrogate, a line, too much.
var hostile = []string{"%00", "a%00b", "%ff", "%ed%a0%80", "%0d%0aX:y", "%F0%9F%98%80", strings.Repeat("%00", 200), strings.Repeat("x", 4000)}

func TestHostileParametersAreTheClientsFault(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		d, _ := s.image("a/b", "1.0", 1, nil, nil)
		for _, h := range hostile {
			for _, path := range []string{
				"/v2/a/b/tags/list?last=" + h, "/v2/_catalog?last=" + h, "/v2/_catalog?n=1&last=" + h,
				"/v2/a/b/referrers/" + d.String() + "?artifactType=" + h, "/v2/a/b/referrers/" + d.String() + "?last=" + h,
				"/v2/a/b/manifests/" + h, "/v2/a/b/blobs/" + h, "/v2/a/b/referrers/" + h, "/v2/a/b/blobs/uploads/" + h, "/v2/" + h + "/tags/list",
			} {
				a := s.do("GET", path, nil)
				if a.StatusCode/100 != 4 {
					t.Errorf("GET %.80s: %d %s, want 4xx", path, a.StatusCode, a.body)
					continue
				}
				s.code(a)
			}
			for _, c := range [][2]string{
				{"POST", "/v2/a/b/blobs/uploads/?mount=" + h},
				{"POST", "/v2/a/b/blobs/uploads/?digest=" + h},
				{"PATCH", "/v2/a/b/blobs/uploads/" + h},
				{"PUT", "/v2/a/b/blobs/uploads/x?digest=" + d.String() + "&_state=" + h},
				{"PUT", "/v2/a/b/manifests/1.0?tag=" + h},
				{"PUT", "/v2/a/b/manifests/" + h},
				{"DELETE", "/v2/a/b/manifests/" + h},
				{"DELETE", "/v2/a/b/blobs/" + h},
			} {
				if a := s.do(c[0], c[1], strings.NewReader("{}"), "Content-Type", ocispec.MediaTypeImageManifest, "Content-Range", "0-1"); a.StatusCode/100 != 4 {
					t.Errorf("%s %.80s: %d %s, want 4xx", c[0], c[1], a.StatusCode, a.body)
				} else {
					s.code(a)
				}
			}
			// Quotes do no harm.
			for _, path := range []string{"/v2/a/b/tags/list?last=", "/v2/_catalog?last=", "/v2/a/b/referrers/" + d.String() + "?artifactType="} {
				s.want(s.do("GET", path+"%27%3B--%22%5D%7D", nil), 200, "")
			}
			// A source that is no name is one that the client may not read.
			s.want(s.do("POST", "/v2/a/b/blobs/uploads/?mount="+d.String()+"&from="+h, nil), 202, "")
		}
	})
}

func TestHostileManifestsAreTheClientsFault(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		for _, top := range []string{
			`"artifactType":"a\u0000b",`, `"mediaType":"\u0000",`, `"subject":{"mediaType":"\u0000","digest":"` + digest.FromString("x").String() + `","size":1},`,
			`"subject":{"digest":"\u0000","size":1},`, `"annotations":"\u0000",`,
		} {
			a := s.do("PUT", "/v2/a/b/manifests/1", strings.NewReader(`{"schemaVersion":2,`+top+`"manifests":[]}`), "Content-Type", ocispec.MediaTypeImageIndex)
			s.want(a, 400, tarport.ManifestInvalid)
		}
		// What is not looked at is kept as it came.
		for _, top := range []string{`"annotations":{"a":"\u0000","\u0000":"\ud800"},`, `"x":"\u0000",`, "\"annotations\":{\"a\":\"\xff\"},"} {
			subject := digest.FromString(top)
			b := []byte(`{"schemaVersion":2,"subject":{"digest":"` + subject.String() + `","size":1},` + top + `"manifests":[]}`)
			s.want(s.do("PUT", "/v2/a/b/manifests/1", bytes.NewReader(b), "Content-Type", ocispec.MediaTypeImageIndex), 201, "")
			if a := s.want(s.do("GET", "/v2/a/b/manifests/1", nil), 200, ""); !bytes.Equal(a.body, b) {
				t.Errorf("the manifest is %q, want %q", a.body, b)
			}
			a := s.want(s.do("GET", "/v2/a/b/referrers/"+subject.String(), nil), 200, "")
			var ix ocispec.Index
			if err := json.Unmarshal(a.body, &ix); err != nil || len(ix.Manifests) != 1 || ix.Manifests[0].Digest != digest.FromBytes(b) {
				t.Errorf("referrers = %s, %v", a.body, err)
			}
		}
	})
}

func TestReferrersPageByLink(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		subject := &ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromString("subject"), Size: 7}
		var puts []storage.ManifestPut
		byType := map[string]int{}
		for i := range referrersPage + 200 {
			note := []string{"sbom", "vex"}[i%2] + fmt.Sprint(i)
			byType["x/"+note[:1]]++
			puts = append(puts, emptyIndex("a/b", note, subject))
		}
		s.empty(puts...)
		path := "/v2/a/b/referrers/" + subject.Digest.String()
		for artifactType, want := range map[string]int{"": len(puts), "x/s": byType["x/s"], "x/v": byType["x/v"], "x/n": 0, "x/S": 0} {
			seen := map[digest.Digest]bool{}
			pages := 0
			for next := path + "?artifactType=" + url.QueryEscape(artifactType); next != ""; pages++ {
				a := s.want(s.do("GET", next, nil), 200, "")
				var ix ocispec.Index
				if err := json.Unmarshal(a.body, &ix); err != nil || ix.SchemaVersion != 2 || ix.Manifests == nil {
					t.Fatalf("%s, %v", a.body, err)
				}
				for _, m := range ix.Manifests {
					if seen[m.Digest] || artifactType != "" && m.ArtifactType != artifactType {
						t.Errorf("of type %q: %s is seen again or of type %q", artifactType, m.Digest, m.ArtifactType)
					}
					seen[m.Digest] = true
				}
				if got := a.Header.Get("OCI-Filters-Applied"); (got == "artifactType") != (artifactType != "") {
					t.Errorf("of type %q: OCI-Filters-Applied = %q", artifactType, got)
				}
				next, _ = strings.CutSuffix(strings.TrimPrefix(a.Header.Get("Link"), "<"), `>; rel="next"`)
			}
			if len(seen) != want || pages != max(1, (want+referrersPage-1)/referrersPage) {
				t.Errorf("of type %q: %d referrers on %d pages, want %d", artifactType, len(seen), pages, want)
			}
		}
		s.want(s.do("GET", "/v2/a/b/referrers/latest", nil), 400, tarport.DigestInvalid)
	})
}

func TestDiscoveryListsTheExtensions(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	a := s.want(s.do(http.MethodGet, "/v2/_oci/ext/discover", nil), 200, "")
	var body struct {
		Extensions []struct {
			Name, URL, Description string
			Endpoints              []string
		}
	}
	if err := json.Unmarshal(a.body, &body); err != nil || len(body.Extensions) < 2 {
		t.Fatalf("%s, %v", a.body, err)
	}
	for _, e := range body.Extensions {
		if !strings.HasPrefix(e.Name, "_") || e.URL == "" || e.Description == "" || len(e.Endpoints) == 0 {
			t.Errorf("extension %+v", e)
		}
	}
}
