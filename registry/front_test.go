package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	v2 "github.com/distribution/distribution/v3/registry/api/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// TestTheRightIsAskedForOnceAndBeforeAnythingIsTouched has every route ask for
// its own action on its own repository; what is refused is answered alike for
// what is there and for what is not.
func TestTheRightIsAskedForOnceAndBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	s := newServer(t, fakeAuth{may: func(p tarport.Principal, a tarport.Action, repository string) error {
		if p.Admin {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, string(a)+" "+repository)
		return tarport.Errorf(tarport.NameUnknown, "the repository is not known")
	}})
	d, m := s.image("a/b", "1.0", 1, nil, nil)
	at := s.patched("a/b", []byte("x"))
	state := mustQuery(t, at, "_state")
	id := at[strings.LastIndexByte(at, '/')+1 : strings.IndexByte(at, '?')]
	for _, c := range []struct{ method, path, action string }{
		{"GET", "tags/list", "pull"},
		{"GET", "tags/list?n=x", "pull"},
		{"GET", "manifests/1.0", "pull"},
		{"HEAD", "manifests/1.0", "pull"},
		{"GET", "manifests/" + d.String(), "pull"},
		{"GET", "manifests/-bad", "pull"},
		{"PUT", "manifests/2.0", "push"},
		{"DELETE", "manifests/1.0", "delete"},
		{"DELETE", "manifests/" + d.String(), "delete"},
		{"GET", "blobs/" + d.String(), "pull"},
		{"HEAD", "blobs/" + d.String(), "pull"},
		{"GET", "blobs/bad", "pull"},
		{"DELETE", "blobs/" + d.String(), "delete"},
		{"GET", "referrers/" + d.String(), "pull"},
		{"GET", "referrers/bad", "pull"},
		{"POST", "blobs/uploads/", "push"},
		{"POST", "blobs/uploads/?digest=" + d.String(), "push"},
		{"POST", "blobs/uploads/?digest=bad", "push"},
		{"POST", "blobs/uploads/?from=a/b&mount=" + d.String(), "push"},
		{"GET", "blobs/uploads/" + id + "?_state=" + state, "push"},
		{"PATCH", "blobs/uploads/" + id + "?_state=" + state, "push"},
		{"PUT", "blobs/uploads/" + id + "?_state=" + state + "&digest=" + d.String(), "push"},
		{"DELETE", "blobs/uploads/" + id + "?_state=" + state, "push"},
	} {
		var bodies [2]string
		for i, repository := range []string{"a/b", "a/none"} {
			asked = nil
			a := s.want(s.do(c.method, "/v2/"+repository+"/"+c.path, bytes.NewReader(m), "X-User", "ada", "Content-Type", ocispec.MediaTypeImageManifest), 404, tarport.NameUnknown)
			if diff := cmp.Diff([]string{c.action + " " + repository}, asked); diff != "" {
				t.Errorf("%s %s: asked (-want +got):\n%s", c.method, c.path, diff)
			}
			a.Header.Del("X-Request-Id")
			a.Header.Del("Date")
			bodies[i] = fmt.Sprint(a.StatusCode, a.Header, string(a.body))
		}
		if bodies[0] != bodies[1] {
			t.Errorf("%s %s: what is there and what is not differ:\n%s\n%s", c.method, c.path, bodies[0], bodies[1])
		}
	}
	s.status(at, "0-0")
	s.want(s.do("GET", "/v2/a/b/manifests/1.0", nil), 200, "")
	s.want(s.do("GET", "/v2/a/b/manifests/2.0", nil), 404, tarport.ManifestUnknown)
}

func TestAReaderCannotChangeAnything(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{may: func(p tarport.Principal, a tarport.Action, _ string) error {
		if !p.Admin && a != tarport.Pull {
			return tarport.Errorf(tarport.Denied, "you may not do that")
		}
		return nil
	}})
	d, m := s.image("a/b", "1.0", 1, nil, nil)
	s.want(s.do("GET", "/v2/a/b/manifests/1.0", nil, "X-User", "ada"), 200, "")
	for _, c := range [][2]string{
		{"PUT", "manifests/1.0"},
		{"DELETE", "manifests/1.0"},
		{"DELETE", "manifests/" + d.String()},
		{"DELETE", "blobs/" + d.String()},
		{"POST", "blobs/uploads/"},
		{"PATCH", "blobs/uploads/x"},
		{"PUT", "blobs/uploads/x"},
		{"DELETE", "blobs/uploads/x"},
	} {
		s.want(s.do(c[0], "/v2/a/b/"+c[1], bytes.NewReader(m), "X-User", "ada"), 403, tarport.Denied)
	}
}

// TestWhatIsOurOwnFaultIsNotToldInWords lets the database and the storage fail.
func TestWhatIsOurOwnFaultIsNotToldInWords(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(t *testing.T, s *server){
		"the database is closed": func(t *testing.T, s *server) {
			t.Helper()
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"the folder of uploads is a file": func(t *testing.T, s *server) {
			t.Helper()
			if err := os.RemoveAll(s.root + "/tarport"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.root+"/tarport", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, fakeAuth{})
			d, m := s.image("a/b", "1.0", 1, nil, nil)
			at := s.patched("a/b", []byte("x"))
			fail(t, s)
			failed := 0
			for _, c := range [][2]string{
				{"GET", "/v2/a/b/manifests/other"},
				{"PUT", "/v2/a/b/manifests/1.0"},
				{"DELETE", "/v2/a/b/manifests/1.0"},
				{"GET", "/v2/a/b/tags/list?n=7"},
				{"GET", "/v2/_catalog?n=7"},
				{"GET", "/v2/a/b/blobs/" + digest.FromString("x").String()},
				{"HEAD", "/v2/a/b/blobs/" + digest.FromString("x").String()},
				{"DELETE", "/v2/a/b/blobs/" + d.String()},
				{"GET", "/v2/a/b/referrers/" + digest.FromString("x").String()},
				{"POST", "/v2/a/b/blobs/uploads/"},
				{"POST", "/v2/a/b/blobs/uploads/?digest=" + d.String()},
				{"GET", at},
				{"PATCH", at},
				{"PUT", finishing(at, d)},
				{"DELETE", at},
			} {
				a := s.do(c[0], c[1], bytes.NewReader(m), "Content-Type", ocispec.MediaTypeImageManifest)
				if a.StatusCode < 500 {
					continue
				}
				failed++
				if c[0] == "HEAD" {
					continue
				}
				if got := s.code(a); got != tarport.Internal {
					t.Errorf("%s %.60s: %s, want UNKNOWN", c[0], c[1], got)
				}
				for _, internal := range []string{s.root, "sql", "closed", "upload of", ".go", "directory"} {
					if strings.Contains(string(a.body), internal) {
						t.Errorf("%s %.60s: %s has %q in it", c[0], c[1], a.body, internal)
					}
				}
				if !strings.Contains(string(a.body), a.Header.Get("X-Request-Id")) {
					t.Errorf("%s %.60s: %s does not name the request id", c[0], c[1], a.body)
				}
			}
			if failed < 2 {
				t.Errorf("%d requests failed, want more", failed)
			}
		})
	}
}

func TestErrorsOfHEADHaveNoBodyAndTheSameStatus(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for _, path := range []string{"/v2/a/b/manifests/1", "/v2/a/b/manifests/-x", "/v2/a/b/blobs/" + digest.FromString("x").String(), "/v2/a/b/blobs/x", "/v2/a/b/blobs/uploads/x", "/v2/a/b/tags/list", "/v2/A/blobs/x"} {
		get, head := s.do("GET", path, nil), s.do("HEAD", path, nil)
		if get.StatusCode != head.StatusCode && path != "/v2/a/b/tags/list" || len(head.body) != 0 {
			t.Errorf("%s: GET %d, HEAD %d with the body %q", path, get.StatusCode, head.StatusCode, head.body)
		}
	}
}

func TestTheBaseSaysThatThereIsARegistry(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for _, path := range []string{"/v2/", "/v2"} {
		a := s.want(s.do("GET", path, nil), 200, "")
		if got := a.Header.Values("Docker-Distribution-Api-Version"); len(got) != 1 || got[0] != "registry/2.0" || strings.TrimSpace(string(a.body)) != "{}" {
			t.Errorf("GET %s: %q %q", path, got, a.body)
		}
	}
	for _, c := range [][2]string{{"POST", "/v2/a/b/blobs/uploads/"}, {"GET", "/v2/a/b/blobs/uploads/x"}} { // through the App
		a := s.do(c[0], c[1], nil)
		if got := a.Header.Values("Docker-Distribution-Api-Version"); len(got) != 1 {
			t.Errorf("%s %s: Docker-Distribution-Api-Version = %q", c[0], c[1], got)
		}
	}
}

func TestAURLIsAtMostEightKiB(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	path := "/v2/?x=" + strings.Repeat("a", maxURL-len("/v2/?x="))
	s.want(s.do("GET", path, nil), 200, "")
	s.want(s.do("GET", path+"a", nil), 400, tarport.Invalid)
}

func TestAManifestIsAtMostFourMiBWhetherItsLengthIsToldOrNot(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	whole := func(n int) []byte {
		b := []byte(`{"schemaVersion":2,"manifests":[],"annotations":{"x":""}}`)
		return bytes.Replace(b, []byte(`""`), []byte(`"`+strings.Repeat("x", n-len(b))+`"`), 1)
	}
	for _, c := range []struct{ n, status int }{{4 << 20, 201}, {4<<20 + 1, 413}} {
		for name, send := range map[string]func(b []byte) answer{
			"told": func(b []byte) answer {
				return s.do("PUT", "/v2/a/b/manifests/1", bytes.NewReader(b), "Content-Type", ocispec.MediaTypeImageIndex)
			},
			"not told": func(b []byte) answer {
				return s.do("PUT", "/v2/a/b/manifests/1", chunked(b), "Content-Type", ocispec.MediaTypeImageIndex)
			},
		} {
			if a := send(whole(c.n)); a.StatusCode != c.status {
				t.Errorf("%d bytes, %s: %d %.200s, want %d", c.n, name, a.StatusCode, a.body, c.status)
			}
		}
	}
}

// FuzzUploadPaths has what the front authorises be what the App then serves.
func FuzzUploadPaths(f *testing.F) {
	for _, p := range []string{"a/blobs/uploads/x", "x/blobs/uploads/blobs/uploads/x", "x/blobs/uploads/uploads", "a/b/blobs/uploads/x.y=", "a/blobs/uploads/uploads/x", "a//blobs/uploads/x", "a/../b/blobs/uploads/x"} {
		f.Add(p)
	}
	app := v2.Router()
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "/", nil)
		r.URL = &url.URL{Path: "/v2/" + path}
		rq, err := parse(r)
		if err != nil || rq.route != routeUpload {
			return
		}
		var match mux.RouteMatch
		if !app.Match(r, &match) || match.Route == nil || match.Route.GetName() == "" {
			return // the App has no such route and answers 404
		}
		if match.Route.GetName() != v2.RouteNameBlobUploadChunk || match.Vars["name"] != rq.repository || match.Vars["uuid"] != rq.last {
			t.Errorf("%q is the upload %q of %q, and to the App %s %v", path, rq.last, rq.repository, match.Route.GetName(), match.Vars)
		}
	})
}

// TestAPullIsCountedAndAHeadIsNot is about what clients really ask: docker and
// crane GET the tag, containerd asks HEAD of the tag and GET of the digest.
func TestAPullIsCountedAndAHeadIsNot(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	d, _ := s.image("a/b", "1.0", 1, nil, nil)
	at := "/v2/a/b/manifests/"
	etag := `"` + d.String() + `"`
	for _, c := range []struct {
		method, path string
		header       []string
		tag, dgst    int64
	}{
		{"HEAD", at + "1.0", nil, 0, 0},
		{"GET", at + "1.0", nil, 1, 1},
		{"GET", at + d.String(), nil, 1, 2}, // the HEAD is spent
		{"GET", at + "1.0", []string{"If-None-Match", etag}, 1, 2},
		{"HEAD", at + "1.0", nil, 1, 2},
		{"GET", at + d.String(), nil, 2, 3},
		{"HEAD", at + d.String(), nil, 2, 3},
		{"GET", at + "2.0", nil, 2, 3},
	} {
		s.do(c.method, c.path, nil, c.header...)
		if err := s.store.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		for ref, want := range map[tarport.Reference]int64{{Tag: "1.0"}: c.tag, {Digest: d}: c.dgst} {
			got, err := s.db.Pulls(t.Context(), "a/b", ref)
			if err != nil {
				t.Fatalf("Pulls: %v", err)
			}
			if got.Pulls != want {
				t.Errorf("after %s %s %v: %s has %d pulls, want %d", c.method, c.path, c.header, ref, got.Pulls, want)
			}
		}
	}
}
