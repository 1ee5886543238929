package registry

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/tarport/tarport"
)

func parsePath(path string) (*request, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, errNoRoute
	}
	r.URL = u
	return parse(r)
}

func TestPathsHaveOneRoute(t *testing.T) {
	t.Parallel()
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, tc := range []struct{ path, route, repository, last string }{
		{"/v2", "base", "", ""},
		{"/v2/", "base", "", ""},
		{"/v2/_catalog", "catalog", "", ""},
		{"/v2/_oci/ext/discover", "discover", "", ""},
		{"/v2/a/tags/list", "tags", "a", "list"},
		{"/v2/a/b/c/tags/list", "tags", "a/b/c", "list"},
		{"/v2/a/manifests/latest", "manifest", "a", "latest"},
		{"/v2/a/manifests/" + d, "manifest", "a", d},
		{"/v2/a/blobs/" + d, "blob", "a", d},
		{"/v2/a/blobs/uploads", "uploads", "a", ""},
		{"/v2/a/blobs/uploads/", "uploads", "a", ""},
		{"/v2/a/blobs/uploads/ID", "upload", "a", "ID"},
		{"/v2/a/referrers/" + d, "referrers", "a", d},
		// Repositories may be called like routes.
		{"/v2/x/blobs/manifests/1", "manifest", "x/blobs", "1"},
		{"/v2/x/manifests/manifests/1", "manifest", "x/manifests", "1"},
		{"/v2/x/tags/tags/list", "tags", "x/tags", "list"},
		{"/v2/x/blobs/blobs/uploads/", "uploads", "x/blobs", ""},
		{"/v2/x/blobs/uploads/blobs/uploads/ID", "upload", "x/blobs/uploads", "ID"},
		{"/v2/x/blobs/uploads/tags/list", "tags", "x/blobs/uploads", "list"},
		{"/v2/tags/tags/list", "tags", "tags", "list"},
		{"/v2/blobs/blobs/uploads/", "uploads", "blobs", ""},
	} {
		rq, err := parsePath(tc.path)
		if err != nil || nameOf(rq.route) != tc.route || rq.repository != tc.repository || rq.last != tc.last {
			t.Errorf("parse(%s) = %+v, %v, want %s of %q with %q", tc.path, rq, err, tc.route, tc.repository, tc.last)
		}
	}
}

func TestPathsThatAreNotCanonicalHaveNone(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/", "/v1/", "/v2x", "/v2/a", "/v2/a/b", "/v2/a/tags", "/v2/a/tags/list/", "/v2/a/tags/other",
		"/v2//a/manifests/1", "/v2/a//manifests/1", "/v2/a/manifests//1",
		"/v2/a%2fb/manifests/1", "/v2/a%20b/tags/list", "/v2/%C3%A9/tags/list", "/v2/a/manifests/%31", "/v2/%61/manifests/1%2f", "/V2/",
		"/v2/a/uploads/ID", "/v2/uploads/ID", "/v2/_catalog/", "/v2/_catalog/x",
	} {
		if rq, err := parsePath(path); rq != nil && err == nil {
			t.Errorf("parse(%s) = %s of %q with %q, want no route", path, nameOf(rq.route), rq.repository, rq.last)
		}
	}
	for _, path := range []string{
		"/v2/A/tags/list", "/v2/a/../b/tags/list", "/v2/a/./tags/list", "/v2/-a/tags/list",
		"/v2/" + strings.Repeat("a", 256) + "/tags/list",
	} {
		u := &url.URL{Path: path}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = u
		if _, err := parse(r); tarport.ErrorCode(err) != tarport.NameInvalid {
			t.Errorf("parse(%q): %v, want NAME_INVALID", path, err)
		}
	}
}

// Slow models of the routes, the most special first.
var models = []struct {
	name string
	re   *regexp.Regexp
}{
	{"base", regexp.MustCompile(`^/v2/?$`)},
	{"catalog", regexp.MustCompile(`^/v2/_catalog$`)},
	{"discover", regexp.MustCompile(`^/v2/_oci/ext/discover$`)},
	{"manifest", regexp.MustCompile(`^/v2/(.+)/manifests/([^/]*)$`)},
	{"uploads", regexp.MustCompile(`^/v2/(.+)/blobs/uploads/?()$`)},
	{"blob", regexp.MustCompile(`^/v2/(.+)/blobs/([^/]*)$`)},
	{"upload", regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]+)$`)},
	{"tags", regexp.MustCompile(`^/v2/(.+)/tags/(list)$`)},
	{"referrers", regexp.MustCompile(`^/v2/(.+)/referrers/([^/]*)$`)},
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"/v2/", "/v2/a/blobs/uploads/x", "/v2/x/blobs/uploads/manifests/1", "/v2/a/tags/list", "/v2/a//b/tags/list"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: path}
		rq, err := parse(r)
		if strings.Contains(path, "//") || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("%\"<>[\\]^`{|}?#!'()*", c) }) {
			if err == nil {
				t.Errorf("parse(%q) has the route %s", path, nameOf(rq.route))
			}
			return
		}
		for _, m := range models {
			if match := m.re.FindStringSubmatch(path); match != nil {
				if len(match) > 1 && tarport.CheckRepository(match[1]) != nil {
					if err == nil {
						t.Errorf("parse(%q) took the name %q", path, match[1])
					}
					return
				}
				if err != nil || nameOf(rq.route) != m.name || len(match) > 1 && (rq.repository != match[1] || rq.last != match[2]) {
					t.Errorf("parse(%q) = %+v, %v, want %s %q", path, rq, err, m.name, match)
				}
				return
			}
		}
		if err == nil {
			t.Errorf("parse(%q) has the route %s, the model none", path, nameOf(rq.route))
		}
	})
}

func TestEveryMethodOfARouteOfContentAsksForAnAction(t *testing.T) {
	t.Parallel()
	want := map[string]tarport.Action{
		http.MethodGet: tarport.Pull, http.MethodHead: tarport.Pull, http.MethodDelete: tarport.Delete,
		http.MethodPut: tarport.Push, http.MethodPost: tarport.Push, http.MethodPatch: tarport.Push,
	}
	for _, r := range []*route{routeTags, routeReferrers, routeManifest, routeBlob} {
		for name, m := range r.methods {
			if m.action != want[name] {
				t.Errorf("%s %s asks for %q, want %q", name, nameOf(r), m.action, want[name])
			}
		}
	}
	for _, r := range []*route{routeUploads, routeUpload} {
		for name, m := range r.methods {
			if m.action != tarport.Push {
				t.Errorf("%s %s asks for %q, want push", name, nameOf(r), m.action)
			}
		}
	}
}

// nameOf is what the tests call a route.
func nameOf(r *route) string {
	return map[*route]string{
		routeBase: "base", routeCatalog: "catalog", routeDiscover: "discover", routeTags: "tags", routeReferrers: "referrers",
		routeManifest: "manifest", routeBlob: "blob", routeUploads: "uploads", routeUpload: "upload",
	}[r]
}
