package tags_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/storage/metadata"
)

// search follows a search to its end.
func (s *site) search(p tarport.Principal, q string, n int) []tags.Found {
	s.t.Helper()
	list := []tags.Found{}
	for path := fmt.Sprintf("search?n=%d&q=%s", n, url.QueryEscape(q)); path != ""; {
		w := s.ask(p, http.MethodGet, path, "")
		var page struct{ Items []tags.Found }
		if w.Code != http.StatusOK {
			s.t.Fatalf("search %s = %d %s", q, w.Code, w.Body)
		}
		check(s.t, "decode", json.Unmarshal(w.Body.Bytes(), &page))
		if len(page.Items) > n {
			s.t.Errorf("search %s: a page of %d, want at most %d", q, len(page.Items), n)
		}
		list = append(list, page.Items...)
		link, _ := strings.CutPrefix(w.Header().Get("Link"), "</api/v1/")
		path = strings.TrimSuffix(link, `>; rel="next"`)
	}
	return list
}

func found(list []tags.Found) string {
	var names []string
	for _, f := range list {
		names = append(names, f.Repository+":"+f.Tag)
	}
	return strings.Join(names, " ")
}

// searched is a site with something to look for in two namespaces, ann's, and
// bob's, and one that is public.
func searched(t *testing.T, s *site) (ann, bob tarport.Principal) {
	t.Helper()
	ann, bob = s.user("ann"), s.user("bob")
	for ns, owner := range map[string]tarport.Principal{"team": ann, "hidden": bob, "open": bob} {
		v := map[bool]string{true: metadata.Public, false: metadata.Private}[ns == "open"]
		check(t, "CreateNamespace", s.db.CreateNamespace(tarport.WithPrincipal(t.Context(), owner), metadata.NewNamespace{Name: ns, Visibility: v}))
	}
	config := func(arch string, env []string, labels map[string]string) map[string]any {
		return map[string]any{"os": "linux", "architecture": arch, "config": map[string]any{"Env": env, "Labels": labels}}
	}
	java := config("amd64", []string{"PATH=/bin", "JAVA_HOME=/opt/jdk"}, map[string]string{"org.opencontainers.image.title": "My <App> & Söhne", "tier": "web"})
	one := s.push("team/app", java, 10, "1.0", "latest")
	arm := s.push("team/app", config("arm64", []string{"GO_VERSION=1"}, map[string]string{"JAVA_HOMELAND": `"env":["ENV_FAKE="]`}), 20)
	s.index("team/app", []ocispec.Descriptor{one, arm}, []string{"linux/amd64", "linux/arm64/v8"}, "both")
	s.push("team/tools/a_b", config("amd64", nil, nil), 5, "2.0-alpine")
	s.push("hidden/app", java, 10, "1.0")
	s.push("open/app", java, 10, "1.0", "2.0")
	for repository, p := range map[string]string{"team/app": " bash libc6 openjdk-17-jre ", "hidden/app": " bash secretd ", "open/app": " musl "} {
		base := map[string]metadata.Base{"open/app": {ID: "alpine", Version: "3.19.1"}, "": {ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc"}}
		b, ok := base[repository]
		if !ok {
			b = base[""]
		}
		check(t, "SaveScans", s.db.SaveScans(t.Context(), []metadata.ImageScan{{Image: s.key(repository, one.Digest), State: metadata.ScanReady, Base: b, PackageNames: p}}))
	}
	return ann, bob
}

func (s *site) key(repository string, d digest.Digest) metadata.ImageKey {
	s.t.Helper()
	k, ok, err := s.db.ImageKeyOf(s.t.Context(), repository, d)
	if check(s.t, "ImageKeyOf", err); !ok {
		s.t.Fatalf("%s has no image %s", repository, d)
	}
	return k
}

func TestASearchLooksOverWhatTheCallerMayRead(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		ann, bob := searched(t, s)
		const app, open = "team/app:1.0 team/app:both team/app:latest", "open/app:1.0 open/app:2.0"
		for q, want := range map[string]string{
			"app":                                open + " " + app,
			"name:team":                          app + " team/tools/a_b:2.0-alpine",
			"name:*/APP tag:1.*":                 "open/app:1.0 team/app:1.0",
			"name:a_b":                           "team/tools/a_b:2.0-alpine",
			"a_p":                                "",
			"tag:%":                              "",
			"alpine":                             open + " team/tools/a_b:2.0-alpine",
			"base:alpine":                        open,
			"base:alpine:3.19":                   open,
			"base:alpine:3.1":                    "",
			"base:debian:bookworm env:java_home": app,
			"bookworm":                           app,
			"env:JAVA_HOME":                      open + " " + app,
			"env:java":                           "",
			"env:go*":                            "team/app:both",
			"env:ENV_FAKE":                       "",
			"env:JAVA_HOMELAND":                  "",
			"java_homeland":                      "team/app:both",
			"label:tier":                         open + " " + app,
			"label:tier=web app team":            app,
			"label:tier=we":                      "",
			"label:t?er=w*":                      open + " " + app,
			`label:"org.opencontainers.image.title=my <app> & SÖHNE"`: open + " " + app,
			"söhne":                     open + " " + app,
			`"my <app>"`:                open + " " + app,
			"package:bash":              app,
			"package:bas":               "",
			"package:openjdk*":          app,
			"libc6":                     app,
			"package:bash package:musl": "",
			"secretd":                   "",
			"package:secretd":           "",
			"hidden":                    "",
			"nothing":                   "",
		} {
			for _, n := range []int{1, 2, 1000} {
				if got := found(s.search(ann, q, n)); got != want {
					t.Errorf("%s, in pages of %d:\n got %s\nwant %s", q, n, got, want)
				}
			}
		}
		for _, c := range []struct {
			p    tarport.Principal
			want string
		}{
			{tarport.Principal{}, open},
			{bob, "hidden/app:1.0 " + open},
			{tarport.Principal{UserID: 1 << 40, Name: "root", Admin: true}, "hidden/app:1.0 " + open + " " + app},
			{tarport.Principal{UserID: ann.UserID, Name: "ann", Namespace: "team"}, app},
			{tarport.Principal{UserID: ann.UserID, Name: "ann", Namespace: "hidden"}, ""},
			{tarport.Principal{UserID: 1 << 40, Name: "root", Admin: true, Namespace: "hidden"}, "hidden/app:1.0"},
		} {
			if got := found(s.search(c.p, "env:JAVA_HOME", 2)); got != c.want {
				t.Errorf("%s of %q sees %s, want %s", c.p.Name, c.p.Namespace, got, c.want)
			}
		}
	})
}

// TestWhatIsHiddenChangesNothing compares whole answers, with and without
// something hidden that fits.
func TestWhatIsHiddenChangesNothing(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		ann, _ := searched(t, s)
		answers := func() (list []string) {
			for _, path := range []string{"q=app&n=1", "q=app&n=1&last=hidden/app:1.0", "q=java_home&n=3", "q=package:bash", "q=hidden", "q=secretd&n=1"} {
				w := s.ask(ann, http.MethodGet, "search?"+path, "")
				list = append(list, fmt.Sprint(path, w.Code, w.Header(), w.Body))
			}
			return list
		}
		with := answers()
		check(t, "DeleteRepository", s.store.DeleteRepository(t.Context(), "hidden/app"))
		if diff := cmp.Diff(with, answers()); diff != "" {
			t.Errorf("with what is hidden (-), without it (+):\n%s", diff)
		}
		for _, a := range with {
			if strings.Contains(a, "hidden/app") && !strings.Contains(a, "last=hidden") || strings.Contains(a, `"secretd"`) {
				t.Errorf("an answer tells of what is hidden: %s", a)
			}
		}
	})
}

func TestASearchTellsWhy(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		ann, _ := searched(t, s)
		got := s.search(ann, "app java tag:bo* package:*jre base:debian label:tier", 10)
		if len(got) != 1 {
			t.Fatalf("found %s, want one", found(got))
		}
		want := tags.Found{
			Repository: "team/app", Tag: "both", Kind: "index", Size: 30, Platforms: []string{"linux/amd64", "linux/arm64"},
			Base: &tags.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc"},
			Matches: []tags.Match{
				{"name", "team/app"},
				{"label", "org.opencontainers.image.title=My <App> & Söhne"},
				{"label", `JAVA_HOMELAND="env":["ENV_FAKE="]`},
				{"env", "JAVA_HOME"},
				{"tag", "both"},
				{"package", "openjdk-17-jre"},
				{"base", "debian:12"},
				{"label", "tier=web"},
			},
		}
		if got[0].PushedAt.IsZero() || got[0].Digest == "" {
			t.Errorf("no time or digest: %+v", got[0])
		}
		want.PushedAt, want.Digest = got[0].PushedAt, got[0].Digest
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestASearchIsReadStrictly(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	for q, code := range map[string]string{
		"": "INVALID", "  ": "INVALID", `""`: "INVALID", `"a`: "INVALID", "name:": "INVALID", "label:=x": "INVALID", "foo:bar": "INVALID", "app:1.0": "INVALID",
		"base:a/b": "INVALID", "a*b*c*d*e*": "INVALID", "\x00": "INVALID", "\xff": "INVALID", strings.Repeat("a", 257): "INVALID", strings.Repeat("a ", 9): "INVALID",
	} {
		w := s.ask(tarport.Principal{}, http.MethodGet, "search?q="+url.QueryEscape(q), "")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"`+code+`"`) {
			t.Errorf("%q = %d %s, want 400 %s", q, w.Code, w.Body, code)
		}
	}
	for _, query := range []string{"n=0", "n=x", "last=x", "last=team/app:", "last=:1", "last=%00:1"} {
		w := s.ask(tarport.Principal{}, http.MethodGet, "search?q=a&"+query, "")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "PAGINATION_NUMBER_INVALID") {
			t.Errorf("%s = %d %s", query, w.Code, w.Body)
		}
	}
	if w := s.ask(tarport.Principal{}, http.MethodGet, "search?q=a", ""); w.Body.String() != `{"items":[]}`+"\n" {
		t.Errorf("nothing is %s", w.Body)
	}
}
