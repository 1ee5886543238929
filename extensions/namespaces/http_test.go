package namespaces_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/auth"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/registry"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

const (
	secret   = tarport.Secret("0123456789abcdef0123456789abcdef")
	password = "correct horse battery staple"
)

// site is the API with the registry and the token service beside it, as serve
// puts them together.
type site struct {
	t    *testing.T
	url  string
	auth *auth.Service
	late *atomic.Int64 // how far the clock of the tokens is ahead
}

// eachSite runs a test on SQLite and on PostgreSQL.
func eachSite(t *testing.T, policy metadata.NamespacePolicy, test func(t *testing.T, s *site)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(t, newSite(t, dsn, policy))
	})
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newSite(t *testing.T, dsn string, policy metadata.NamespacePolicy) *site {
	t.Helper()
	db := metadatatest.Open(t, metadata.Options{DSN: dsn, Namespaces: policy})
	content := must[*storage.Store](t)(storage.New(storage.Options{DB: db, Root: t.TempDir()}))
	late := &atomic.Int64{}
	who := must[*auth.Service](t)(auth.New(t.Context(), auth.Options{DB: db, Secret: secret, Now: func() time.Time {
		return time.Now().Add(time.Duration(late.Load()))
	}}))
	must[tarport.Secret](t)(who.EnsureAdmin(t.Context(), password))
	reg := must[*registry.Registry](t)(registry.New(t.Context(), registry.Options{Store: content, Auth: who, Secret: secret}))
	t.Cleanup(func() { _ = reg.Close() })
	s := must[*namespaces.Service](t)(namespaces.New(namespaces.Options{DB: db, Auth: who, Content: content}))

	r := mux.NewRouter().SkipClean(true)
	who.Routes(r)
	api := r.PathPrefix("/api/v1").Subrouter()
	api.Use(func(next http.Handler) http.Handler {
		return httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
			p, err := who.Authenticate(r)
			if err == nil && p.Anonymous() {
				err = tarport.Errorf(tarport.Unauthorized, "authentication required: log in first")
			}
			if err == nil {
				next.ServeHTTP(w, r.WithContext(tarport.WithPrincipal(r.Context(), p)))
			}
			return err
		})
	})
	namespaces.NewHandler(s).Routes(api)
	r.PathPrefix("/v2").Handler(reg)
	srv := httptest.NewServer(httpapi.Middleware(httpapi.Options{Log: slog.New(slog.DiscardHandler)})(r))
	t.Cleanup(srv.Close)
	return &site{t: t, url: srv.URL, auth: who, late: late}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// field is a member of a JSON answer.
func (a answer) field(name string) string {
	var m map[string]any
	_ = json.Unmarshal([]byte(a.body), &m)
	return fmt.Sprint(m[name])
}

// names is a member of the items of a list.
func (a answer) names(t *testing.T, field string) []string {
	t.Helper()
	var l struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(a.body), &l); err != nil || l.Items == nil {
		t.Fatalf("%s is no list", a.body)
	}
	out := []string{}
	for _, i := range l.Items {
		out = append(out, fmt.Sprint(i[field]))
	}
	return out
}

// as is a credential: "user:password", "Bearer …", or "" for a stranger.
func (s *site) do(as, method, path, body string, header ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if user, pass, ok := strings.Cut(as, ":"); ok {
		r.SetBasicAuth(user, pass)
	} else if as != "" {
		r.Header.Set("Authorization", as)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// want is do, and the status that is expected.
func (s *site) want(status int, as, method, path, body string) answer {
	s.t.Helper()
	a := s.do(as, method, path, body)
	if a.status != status {
		user, _, _ := strings.Cut(as, ":")
		s.t.Errorf("%s %s %s as %q = %d %s, want %d", method, path, body, user, a.status, a.body, status)
	}
	return a
}

const (
	admin = "admin:" + password
	ann   = "ann:ann's password"
	bob   = "bob:bob's password"
	eve   = "eve:eve's password"
)

// people makes ann, bob and eve.
func (s *site) people() {
	s.t.Helper()
	for _, as := range []string{ann, bob, eve} {
		name, pass, _ := strings.Cut(as, ":")
		s.want(201, admin, "POST", "/api/v1/users", fmt.Sprintf(`{"name":%q,"password":%q}`, name, pass))
	}
}

// push pushes an empty blob and a manifest; the status is of the last answer.
func (s *site) push(as, repository, tag string) answer {
	s.t.Helper()
	config := "{}"
	d := digest.FromString(config)
	a := s.do(as, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), config)
	if a.status != http.StatusCreated {
		return a
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, d, len(config))
	return s.do(as, "PUT", "/v2/"+repository+"/manifests/"+tag, m, "Content-Type", "application/vnd.oci.image.manifest.v1+json")
}

func (s *site) wantPush(status int, as, repository string) answer {
	s.t.Helper()
	a := s.push(as, repository, "latest")
	if a.status != status {
		s.t.Errorf("push to %s as %.5s = %d %s, want %d", repository, as, a.status, a.body, status)
	}
	return a
}

func TestATeamOfThree(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.want(201, ann, "POST", "/api/v1/namespaces", `{"name":"team","description":"Ours"}`)
		s.want(409, bob, "POST", "/api/v1/namespaces", `{"name":"team"}`)
		s.want(201, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"writer"}`)
		s.want(200, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"writer"}`)
		s.want(400, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"king"}`)
		s.want(403, bob, "PUT", "/api/v1/namespaces/team/members/eve", `{"role":"owner"}`)
		s.wantPush(201, bob, "team/app")
		s.wantPush(403, eve, "team/app")
		s.want(404, eve, "GET", "/v2/team/app/manifests/latest", "")
		s.want(403, bob, "DELETE", "/v2/team/app/manifests/latest", "")
		s.want(202, ann, "DELETE", "/v2/team/app/manifests/latest", "")
		s.wantPush(201, bob, "team/app")

		members := s.want(200, bob, "GET", "/api/v1/namespaces/team/members", "")
		if diff := cmp.Diff(members.names(t, "role"), []string{"owner", "writer"}); diff != "" {
			t.Errorf("roles: -got +want\n%s", diff)
		}
		ns := s.want(200, bob, "GET", "/api/v1/namespaces/team", "")
		if ns.field("role") != "writer" || ns.field("quota_bytes") != "-1" || ns.field("members") != "2" || ns.field("repositories") != "1" {
			t.Errorf("namespace = %s", ns.body)
		}
		s.want(403, bob, "PATCH", "/api/v1/repositories/team/app", `{"readme":"# App"}`)
		s.want(200, ann, "PATCH", "/api/v1/repositories/team/app", `{"readme":"# App","description":"An app"}`)
		repo := s.want(200, bob, "GET", "/api/v1/repositories/team/app", "")
		if repo.field("readme") != "# App" || repo.field("tags") != "1" {
			t.Errorf("repository = %s", repo.body)
		}

		// A removed member has nothing any more, at once.
		s.want(204, ann, "DELETE", "/api/v1/namespaces/team/members/bob", "")
		s.want(404, bob, "GET", "/v2/team/app/manifests/latest", "")
		s.wantPush(403, bob, "team/app")

		// What is public is everybody's to read, and to nobody to change.
		s.want(401, "", "GET", "/v2/team/app/manifests/latest", "")
		s.want(200, ann, "PATCH", "/api/v1/namespaces/team", `{"visibility":"public"}`)
		s.want(200, "", "GET", "/v2/team/app/manifests/latest", "")
		s.want(200, eve, "GET", "/v2/team/app/manifests/latest", "")
		s.want(401, "", "GET", "/v2/", "")
		s.wantPush(401, "", "team/app")
		token := s.want(200, "", "GET", "/auth/token?scope=repository:team/app:pull,push", "").field("token")
		s.want(200, "Bearer "+token, "GET", "/v2/team/app/manifests/latest", "")
		if ns := s.want(200, eve, "GET", "/api/v1/namespaces/team", ""); strings.Contains(ns.body, "quota") {
			t.Errorf("who is no member sees %s", ns.body)
		}
		s.want(403, eve, "GET", "/api/v1/namespaces/team/members", "")

		s.want(409, ann, "DELETE", "/api/v1/namespaces/team", "")
		s.want(204, ann, "DELETE", "/api/v1/namespaces/team?force=true", "")
		s.want(401, "", "GET", "/v2/team/app/manifests/latest", "")
		s.want(404, ann, "GET", "/v2/team/app/manifests/latest", "")
	})
}

func TestRepositoriesAreDeletedWhole(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		for _, r := range []string{"hello", "team/a/b/c"} {
			s.wantPush(201, ann, r)
			s.want(200, ann, "GET", "/v2/"+r+"/manifests/latest", "")
			s.want(404, eve, "DELETE", "/api/v1/repositories/"+r, "")
			s.want(204, ann, "DELETE", "/api/v1/repositories/"+r, "")
			s.want(404, ann, "DELETE", "/api/v1/repositories/"+r, "")
			s.want(404, ann, "GET", "/v2/"+r+"/manifests/latest", "")
			s.wantPush(201, ann, r)
		}
		s.want(400, ann, "GET", "/api/v1/repositories/Not/A/Name", "")
		s.want(404, ann, "GET", "/api/v1/repositories/hello/-/tags", "") // another package's
	})
}

func TestListsHoldWhatTheCallerMayRead(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		for _, r := range []string{"a/one", "a/two", "b/three"} {
			s.wantPush(201, ann, r)
		}
		s.wantPush(201, bob, "c/four")
		s.want(200, ann, "PATCH", "/api/v1/namespaces/b", `{"visibility":"public"}`)
		check := func(as, path string, want ...string) answer {
			t.Helper()
			a := s.want(200, as, "GET", path, "")
			if diff := cmp.Diff(a.names(t, "name"), append([]string{}, want...)); diff != "" {
				t.Errorf("GET %s as %.5s: -got +want\n%s", path, as, diff)
			}
			return a
		}
		check(ann, "/api/v1/repositories", "a/one", "a/two", "b/three")
		check(bob, "/api/v1/repositories", "b/three", "c/four")
		check(eve, "/api/v1/repositories?q=three", "b/three")
		check(eve, "/api/v1/repositories?q=one")
		check(admin, "/api/v1/repositories", "a/one", "a/two", "b/three", "c/four")
		check(ann, "/api/v1/namespaces", "a", "b")
		check(eve, "/api/v1/namespaces", "b")
		check(eve, "/api/v1/namespaces/b/repositories", "b/three")
		s.want(404, eve, "GET", "/api/v1/namespaces/a/repositories", "")
		first := check(ann, "/api/v1/repositories?n=2", "a/one", "a/two")
		next, _, _ := strings.Cut(strings.TrimPrefix(first.header.Get("Link"), "<"), ">")
		if last := check(ann, next, "b/three"); last.header.Get("Link") != "" {
			t.Errorf("the last page has the link %s", last.header.Get("Link"))
		}
		if got, want := s.want(200, bob, "GET", "/v2/_catalog", "").body, `{"repositories":["b/three","c/four"]}`+"\n"; got != want {
			t.Errorf("catalog = %s, want %s", got, want)
		}
		s.want(400, ann, "GET", "/api/v1/repositories?n=0", "")
		s.want(400, ann, "GET", "/api/v1/repositories?last=%00", "")
		s.want(400, ann, "GET", "/api/v1/repositories?q=%ff", "")
	})
}

func TestTokensKeepTheirRestrictionsWhateverTheyAreExchangedFor(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.wantPush(201, ann, "team/app")
		s.wantPush(201, ann, "other/app")
		made := s.want(201, ann, "POST", "/api/v1/user/tokens", `{"name":"ci","read_only":true,"namespace":"team","expires_in":"720h"}`)
		pat := made.field("secret")
		if !strings.HasPrefix(pat, "tpt_") || len(pat) != 4+43 {
			t.Errorf("secret = %q", pat)
		}
		if body := s.want(200, ann, "GET", "/api/v1/user/tokens", "").body; strings.Contains(body, pat) {
			t.Error("the list of tokens tells the secret")
		}
		const scope = "repository:team/app:pull,push repository:other/app:pull registry:api:*"
		bearers := map[string]string{"the token itself": "ann:" + pat}
		get := s.want(200, "ann:"+pat, "GET", "/auth/token?offline_token=true&client_id=docker&scope="+strings.ReplaceAll(scope, " ", "&scope="), "")
		bearers["a bearer by GET"] = "Bearer " + get.field("token")
		form := "&scope=" + strings.ReplaceAll(scope, " ", "+")
		post := s.do("", "POST", "/auth/token", "grant_type=password&username=ann&password="+pat+"&access_type=offline"+form, "Content-Type", "application/x-www-form-urlencoded")
		bearers["a bearer by POST"] = "Bearer " + post.field("access_token")
		refreshed := s.do("", "POST", "/auth/token", "grant_type=refresh_token&refresh_token="+get.field("refresh_token")+form, "Content-Type", "application/x-www-form-urlencoded")
		bearers["a bearer by docker's refresh"] = "Bearer " + refreshed.field("access_token")
		rotated := s.do("", "POST", "/auth/token", "grant_type=refresh_token&refresh_token="+post.field("refresh_token")+form, "Content-Type", "application/x-www-form-urlencoded")
		bearers["a bearer by refresh"] = "Bearer " + rotated.field("access_token")
		if refreshed.field("refresh_token") != "<nil>" || !strings.HasPrefix(rotated.field("refresh_token"), "tpr_") {
			t.Errorf("refresh tokens: docker's %s, others' %s", refreshed.body, rotated.body)
		}
		for name, as := range bearers {
			t.Log(name)
			s.want(200, as, "GET", "/v2/team/app/manifests/latest", "")
			s.want(404, as, "GET", "/v2/other/app/manifests/latest", "")
			s.wantPush(403, as, "team/app")
			s.wantPush(403, as, "new/app")
			s.want(404, as, "GET", "/api/v1/namespaces/other", "")
			s.want(200, as, "GET", "/api/v1/namespaces/team", "")
			s.want(403, as, "PATCH", "/api/v1/namespaces/team", `{"visibility":"public"}`)
			s.want(403, as, "POST", "/api/v1/user/tokens", `{"name":"heir"}`)
			s.want(403, as, "PUT", "/api/v1/user/password", `{"old_password":"ann's password","password":"another one"}`)
			if me := s.want(200, as, "GET", "/api/v1/user", ""); !strings.Contains(me.body, `"read_only":true`) {
				t.Errorf("me = %s", me.body)
			}
		}
		s.want(404, bob, "DELETE", "/api/v1/user/tokens/"+made.field("id"), "")
		s.want(204, ann, "DELETE", "/api/v1/user/tokens/"+made.field("id"), "")
		for name, as := range bearers {
			t.Log(name + ", revoked")
			s.want(401, as, "GET", "/v2/team/app/manifests/latest", "")
			s.want(401, as, "GET", "/api/v1/user", "")
		}
		a := s.do("", "POST", "/auth/token", "grant_type=refresh_token&refresh_token="+get.field("refresh_token"), "Content-Type", "application/x-www-form-urlencoded")
		if a.status != 401 {
			t.Errorf("refresh after the revocation = %d %s, want 401", a.status, a.body)
		}
	})
}

func TestABearerTokenForRepositoriesIsNotForTheAPI(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.wantPush(201, ann, "team/app")
		token := "Bearer " + s.want(200, ann, "GET", "/auth/token?scope=repository:team/app:pull,push,delete", "").field("token")
		a := s.want(401, token, "DELETE", "/api/v1/repositories/team/app", "")
		if h := a.header.Get("WWW-Authenticate"); !strings.Contains(h, `scope="registry:api:*"`) || !strings.Contains(h, "insufficient_scope") {
			t.Errorf("challenge = %s", h)
		}
		s.want(401, token, "PUT", "/api/v1/namespaces/team/members/eve", `{"role":"owner"}`)
		s.want(200, token, "GET", "/api/v1/repositories/team/app", "")
		token = "Bearer " + s.want(200, ann, "GET", "/auth/token?scope=registry:api:*", "").field("token")
		s.want(204, token, "DELETE", "/api/v1/repositories/team/app", "")
	})
}

func TestRobotsWorkInTheirNamespaceOnly(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.wantPush(201, ann, "team/app")
		s.wantPush(201, ann, "other/app")
		s.want(400, ann, "POST", "/api/v1/namespaces/team/robots", `{"name":"ci","role":"owner"}`)
		s.want(400, ann, "POST", "/api/v1/namespaces/team/robots", `{"name":"C$I","role":"writer"}`)
		s.want(404, eve, "POST", "/api/v1/namespaces/team/robots", `{"name":"ci","role":"writer"}`)
		made := s.want(201, ann, "POST", "/api/v1/namespaces/team/robots", `{"name":"ci","role":"writer","expires_in":"24h"}`)
		if made.field("login") != "team+ci" {
			t.Errorf("robot = %s", made.body)
		}
		robot := "team+ci:" + made.field("secret")
		s.wantPush(201, robot, "team/app")
		s.wantPush(403, robot, "other/app")
		s.wantPush(403, robot, "new/app")
		s.want(403, robot, "DELETE", "/v2/team/app/manifests/latest", "")
		s.want(403, robot, "POST", "/api/v1/user/tokens", `{"name":"heir"}`)
		s.want(403, robot, "POST", "/api/v1/namespaces", `{"name":"own"}`)
		token := "Bearer " + s.want(200, robot, "GET", "/auth/token?scope=repository:team/app:pull,push", "").field("token")
		s.want(200, token, "GET", "/v2/team/app/manifests/latest", "")

		// Of another namespace there is no such robot.
		s.want(404, ann, "PATCH", "/api/v1/namespaces/other/robots/ci", `{"disabled":true}`)
		s.want(404, ann, "PATCH", "/api/v1/namespaces/other/robots/team+ci", `{"disabled":true}`)
		s.want(404, ann, "DELETE", "/api/v1/namespaces/other/robots/team+ci", "")
		s.want(404, ann, "PUT", "/api/v1/namespaces/other/members/team+ci", `{"role":"owner"}`)

		rotated := s.want(200, ann, "PATCH", "/api/v1/namespaces/team/robots/ci", `{"rotate":true}`)
		s.want(401, robot, "GET", "/v2/team/app/manifests/latest", "")
		s.want(401, token, "GET", "/v2/team/app/manifests/latest", "")
		robot = "team+ci:" + rotated.field("secret")
		s.want(200, robot, "GET", "/v2/team/app/manifests/latest", "")
		s.want(200, ann, "PATCH", "/api/v1/namespaces/team/robots/team+ci", `{"disabled":true}`)
		s.want(401, robot, "GET", "/v2/team/app/manifests/latest", "")
		s.want(200, ann, "PATCH", "/api/v1/namespaces/team/robots/ci", `{"disabled":false,"role":"reader","expires_in":"never"}`)
		s.wantPush(403, robot, "team/app")
		if got := s.want(200, ann, "GET", "/api/v1/namespaces/team/robots", "").names(t, "expires_at"); !cmp.Equal(got, []string{"<nil>"}) {
			t.Errorf("expiry of the robots = %v", got)
		}
		s.want(204, ann, "DELETE", "/api/v1/namespaces/team/robots/ci", "")
		s.want(401, robot, "GET", "/v2/team/app/manifests/latest", "")
	})
}

func TestAccountsAreTheAdministratorsAndTheirOwners(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.want(409, admin, "POST", "/api/v1/users", `{"name":"ann","password":"long enough"}`)
		s.want(400, admin, "POST", "/api/v1/users", `{"name":"short","password":"short"}`)
		s.want(400, admin, "POST", "/api/v1/users", `{"name":"Not+A Name","password":"long enough"}`)
		for _, path := range []string{"/api/v1/users", "/api/v1/users/bob"} {
			s.want(403, ann, "GET", path, "")
			s.want(401, "", "GET", path, "")
		}
		s.want(403, ann, "PATCH", "/api/v1/users/ann", `{"admin":true}`)
		s.want(403, ann, "DELETE", "/api/v1/users/bob", "")
		if got := s.want(200, admin, "GET", "/api/v1/users", "").names(t, "name"); !cmp.Equal(got, []string{"admin", "ann", "bob", "eve"}) {
			t.Errorf("users = %v", got)
		}
		s.want(403, ann, "PUT", "/api/v1/user/password", `{"old_password":"wrong","password":"ann's new password"}`)
		token := "Bearer " + s.want(200, ann, "GET", "/auth/token?scope=registry:api:*", "").field("token")
		s.want(200, token, "GET", "/api/v1/user", "")
		s.want(204, ann, "PUT", "/api/v1/user/password", `{"old_password":"ann's password","password":"ann's new password"}`)
		s.want(401, ann, "GET", "/api/v1/user", "")
		s.want(401, token, "GET", "/api/v1/user", "")
		s.want(200, "ann:ann's new password", "GET", "/api/v1/user", "")

		s.wantPush(201, bob, "team/app")
		token = "Bearer " + s.want(200, bob, "GET", "/auth/token?scope=repository:team/app:pull", "").field("token")
		pat := "bob:" + s.want(201, bob, "POST", "/api/v1/user/tokens", `{"name":"x"}`).field("secret")
		s.want(200, admin, "PATCH", "/api/v1/users/bob", `{"disabled":true}`)
		for _, as := range []string{bob, token, pat} {
			s.want(401, as, "GET", "/v2/team/app/manifests/latest", "")
		}
		s.want(200, admin, "PATCH", "/api/v1/users/bob", `{"disabled":false}`)
		s.want(401, token, "GET", "/v2/team/app/manifests/latest", "") // logged out everywhere
		s.want(200, pat, "GET", "/v2/team/app/manifests/latest", "")
		s.want(204, admin, "DELETE", "/api/v1/users/bob", "")
		s.want(404, admin, "GET", "/api/v1/users/bob", "")
		s.want(201, admin, "POST", "/api/v1/users", `{"name":"bob","password":"bob's password"}`)
		for _, as := range []string{token, pat} {
			s.want(401, as, "GET", "/v2/team/app/manifests/latest", "")
		}
		s.want(404, bob, "GET", "/v2/team/app/manifests/latest", "") // another bob
		s.want(409, admin, "DELETE", "/api/v1/users/admin", "")
	})
}
