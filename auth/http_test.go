package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// site is a world on HTTP, with one route that needs push on team/app.
type site struct {
	*world
	t   *testing.T
	url string
	log *bytes.Buffer // complete once the server is closed
	end func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{world: newWorld(t), t: t, log: &bytes.Buffer{}}
	r := mux.NewRouter()
	s.Routes(r)
	needs := tarport.Grant{Repository: "team/app", Actions: []tarport.Action{tarport.Push}}
	r.Path("/protected").Handler(httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
		p, err := s.Authenticate(r)
		if err == nil {
			err = s.Authorize(r.Context(), p, tarport.Push, "team/app")
		}
		if err != nil {
			s.SetHeaders(w, r, err, needs)
			return err
		}
		return httpapi.WriteJSON(w, http.StatusOK, p.Name)
	}))
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := httptest.NewServer(httpapi.Middleware(httpapi.Options{Log: log, AccessLog: true})(r))
	t.Cleanup(srv.Close)
	s.url, s.end = srv.URL, srv.Close
	return s
}

type answer struct {
	status int
	header http.Header
	body   string
	token  tokenResponse
	code   tarport.Code
}

func (s *site) do(method, path string, body io.Reader, header http.Header) answer {
	s.t.Helper()
	u := path
	if strings.HasPrefix(path, "/") {
		u = s.url + path
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, u, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
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
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(b)}
	_ = json.Unmarshal(b, &a.token)
	var e struct{ Errors []struct{ Code tarport.Code } }
	if json.Unmarshal(b, &e) == nil && len(e.Errors) == 1 {
		a.code = e.Errors[0].Code
	}
	return a
}

func (s *site) get(path string, authorization ...string) answer {
	s.t.Helper()
	h := http.Header{}
	if len(authorization) > 0 {
		h["Authorization"] = authorization
	}
	return s.do(http.MethodGet, path, nil, h)
}

func (s *site) post(form url.Values) answer {
	s.t.Helper()
	return s.do(http.MethodPost, tokenPath, strings.NewReader(form.Encode()),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
}

func (s *site) want(what string, a answer, status int, code tarport.Code) {
	s.t.Helper()
	if a.status != status || a.code != code {
		s.t.Errorf("%s = %d %s, want %d %s", what, a.status, a.body, status, code)
	}
}

// access is the access list of a token, checked with the published keys only.
func (s *site) access(text string) []access {
	s.t.Helper()
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		s.t.Fatalf("token = %q, want three parts", text)
	}
	decode := func(part string, v any) []byte {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err == nil && v != nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			s.t.Fatalf("decode %q: %v", part, err)
		}
		return b
	}
	var header struct{ Alg, Kid, Typ string }
	decode(parts[0], &header)
	var set struct{ Keys []jwk }
	if err := json.Unmarshal([]byte(s.get(jwksPath).body), &set); err != nil || len(set.Keys) != 1 {
		s.t.Fatalf("key set = %+v, %v, want one key", set, err)
	}
	key := set.Keys[0]
	if header.Kid != key.KID || header.Alg != "EdDSA" || header.Typ != "at+jwt" {
		s.t.Errorf("token header = %+v, want the key %s", header, key.KID)
	}
	if !ed25519.Verify(decode(key.X, nil), []byte(parts[0]+"."+parts[1]), decode(parts[2], nil)) {
		s.t.Error("the published key does not verify the token")
	}
	var c struct {
		Iss, Aud, Sub, Jti string
		Exp, Nbf, Iat      int64
		Access             []access
	}
	decode(parts[1], &c)
	now := s.clock.now().Unix()
	if c.Iss != "tarport" || c.Aud != "tarport" || c.Jti == "" || c.Iat != now || c.Nbf != now || c.Exp != now+300 {
		s.t.Errorf("claims = %+v", c)
	}
	return c.Access
}

func TestTokenByGet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := basicAuth("admin", testPassword)
	a := s.get("/auth/token?service=tarport&scope=repository:team/app:push,pull&scope=repository:team/base:pull+repository:Bad:pull&account=admin&client_id=docker", admin)
	s.want("GET", a, http.StatusOK, "")
	want := tokenResponse{
		Token: a.token.AccessToken, AccessToken: a.token.Token, ExpiresIn: 300, IssuedAt: s.clock.now(),
		Scope: "repository:team/app:pull,push repository:team/base:pull",
	}
	if diff := cmp.Diff(a.token, want); diff != "" {
		t.Errorf("answer: -got +want\n%s", diff)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
	if diff := cmp.Diff(s.access(a.token.Token), []access{
		{"repository", "team/app", []string{"pull", "push"}}, {"repository", "team/base", []string{"pull"}},
	}); diff != "" {
		t.Errorf("access: -got +want\n%s", diff)
	}

	a = s.get("/auth/token?service=tarport&scope=repository:team/app:pull")
	s.want("GET as a stranger", a, http.StatusOK, "")
	if got := s.access(a.token.Token); got == nil || len(got) != 0 || a.token.Scope != "" {
		t.Errorf("access of a stranger = %v, want [] and no null", got)
	}
	s.want("GET without any parameter", s.get("/auth/token", admin), http.StatusOK, "")
	s.want("GET with the catalog", s.get("/auth/token?scope=registry:catalog:*", admin), http.StatusOK, "")
	if a := s.get("/auth/token?offline_token=true"); a.status != http.StatusOK || a.token.RefreshToken != "" {
		t.Errorf("GET of a refresh token as a stranger = %d %s, want 200 without one", a.status, a.body)
	}
}

func TestTokenByPost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	form := url.Values{
		"grant_type": {"password"}, "username": {"admin"}, "password": {testPassword.Reveal()},
		"service": {"tarport"}, "client_id": {"docker"}, "scope": {"repository:team/app:pull repository:team/base:pull"},
	}
	a := s.post(form)
	s.want("POST", a, http.StatusOK, "")
	if got := s.access(a.token.AccessToken); len(got) != 2 || a.token.RefreshToken != "" {
		t.Errorf("access = %v, refresh token %q, want two and none", got, a.token.RefreshToken)
	}
	form.Set("access_type", "offline")
	refresh := s.post(form).token.RefreshToken
	if !regexp.MustCompile(`^tpr_[A-Za-z0-9_-]{43}$`).MatchString(refresh) {
		t.Fatalf("refresh token = %q", refresh)
	}
	form = url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "service": {"tarport"}, "access_type": {"offline"},
		"scope": {"repository:team/app:push"},
	}
	for range 3 { // docker uses it again and again
		a := s.post(form)
		s.want("POST with the refresh token", a, http.StatusOK, "")
		if diff := cmp.Diff(s.access(a.token.Token), []access{{"repository", "team/app", []string{"push"}}}); diff != "" {
			t.Errorf("access: -got +want\n%s", diff)
		}
		if a.token.RefreshToken != "" {
			t.Error("a refresh token made another, and so lives for ever")
		}
	}
	s.disable(t, "admin")
	s.want("POST of a disabled user", s.post(form), http.StatusUnauthorized, tarport.Unauthorized)
	s.exec(t, `UPDATE users SET disabled_at = NULL`)
	s.clock.advance(refreshLife - time.Second)
	s.want("POST with the refresh token in its last second", s.post(form), http.StatusOK, "")
	s.clock.advance(time.Second)
	s.want("POST with the refresh token after its life", s.post(form), http.StatusUnauthorized, tarport.Unauthorized)
}

// As docker login and docker push do it.
func TestFlowOfDocker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.get("/protected")
	s.want("request without a token", a, http.StatusUnauthorized, tarport.Unauthorized)
	m := regexp.MustCompile(`^Bearer realm="([^"]*)",service="([^"]*)",scope="([^"]*)"$`).FindStringSubmatch(a.header.Get("WWW-Authenticate"))
	if m == nil || m[1] != s.url+tokenPath {
		t.Fatalf("WWW-Authenticate = %q, want a realm on %s", a.header.Get("WWW-Authenticate"), s.url)
	}
	login := s.get(m[1]+"?account=admin&client_id=docker&offline_token=true&service="+m[2], basicAuth("admin", testPassword))
	s.want("login", login, http.StatusOK, "")
	s.want("request with the token of the login", s.get("/protected", "Bearer "+login.token.Token), http.StatusUnauthorized, tarport.Unauthorized)
	token := s.post(url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {login.token.RefreshToken}, "service": {m[2]}, "scope": {m[3]}, "client_id": {"docker"},
	}).token.Token
	a = s.get("/protected", "Bearer "+token)
	s.want("request with a token for it", a, http.StatusOK, "")
	if a.body != "\"admin\"\n" {
		t.Errorf("body = %q, want admin", a.body)
	}
	s.want("request with the password", s.get("/protected", basicAuth("admin", testPassword)), http.StatusOK, "")
	wrong := s.get(m[1], basicAuth("admin", "wrong"))
	s.want("wrong password", wrong, http.StatusUnauthorized, tarport.Unauthorized)
	if !strings.Contains(wrong.body, "the user name or the password is wrong") {
		t.Errorf("wrong password = %s, want words for the user", wrong.body)
	}
	if got := wrong.header.Get("WWW-Authenticate"); got != `Basic realm="tarport"` {
		t.Errorf("WWW-Authenticate = %q", got)
	}
}

func TestBadTokenRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := basicAuth("admin", testPassword)
	scopes := strings.Repeat("&scope=repository:a:pull", maxScopes)
	for _, c := range []struct {
		name, query string
		status      int
		code        tarport.Code
	}{
		{"as many scopes as may be", "?" + scopes[1:], 200, ""},
		{"too many scopes", "?scope=repository:b:pull" + scopes, 400, tarport.Invalid},
		{"a long query", "?scope=" + strings.Repeat("a", maxQuery), 400, tarport.Invalid},
		{"broken escape", "?scope=%zz", 400, tarport.Invalid},
		{"semicolon", "?scope=a;service=b", 400, tarport.Invalid},
		{"another service", "?service=evil", 400, tarport.Invalid},
		{"two services", "?service=tarport&service=evil", 400, tarport.Invalid},
		{"an empty service", "?service=", 200, ""},
		{"scopes that are none", "?scope=%00&scope=:&scope=%FF&scope=repository:..:pull", 200, ""},
	} {
		s.want("GET with "+c.name, s.get(tokenPath+c.query, admin), c.status, c.code)
	}
	for _, header := range []string{"", "Basic", "Basic !", "Bearer x", "Digest x", basicAuth("", ""), basicAuth("admin", "")} {
		s.want(fmt.Sprintf("GET with %q", header), s.get(tokenPath, header), 401, tarport.Unauthorized)
	}
	s.want("GET with two headers", s.get(tokenPath, admin, admin), 401, tarport.Unauthorized)

	password := url.Values{"grant_type": {"password"}, "username": {"admin"}, "password": {testPassword.Reveal()}}
	change := func(key string, values ...string) url.Values {
		form := url.Values{}
		for k, v := range password {
			form[k] = v
		}
		form[key] = values
		return form
	}
	for _, c := range []struct {
		name   string
		form   url.Values
		status int
		code   tarport.Code
	}{
		{"nothing", nil, 400, tarport.Invalid},
		{"unknown grant type", change("grant_type", "client_credentials"), 400, tarport.Invalid},
		{"two passwords", change("password", testPassword.Reveal(), "x"), 400, tarport.Invalid},
		{"two names", change("username", "admin", "x"), 400, tarport.Invalid},
		{"another service", change("service", "evil"), 400, tarport.Invalid},
		{"no password", change("password"), 401, tarport.Unauthorized},
		{"wrong password", change("password", "wrong"), 401, tarport.Unauthorized},
		{"no refresh token", change("grant_type", "refresh_token"), 401, tarport.Unauthorized},
		{"a refresh token that is none", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"tpr_" + strings.Repeat("A", 43)}}, 401, tarport.Unauthorized},
		{"an access token to refresh", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.token(t)}}, 401, tarport.Unauthorized},
		{"too many scopes", change("scope", strings.Repeat("repository:a:pull ", maxScopes+1)), 400, tarport.Invalid},
		{"a large body", change("scope", strings.Repeat("a", maxForm)), 413, tarport.TooLarge},
	} {
		s.want("POST with "+c.name, s.post(c.form), c.status, c.code)
	}
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	a := s.do(http.MethodPost, tokenPath+"?"+password.Encode(), nil, form)
	s.want("POST with the password in the query", a, 400, tarport.Invalid)
	a = s.do(http.MethodPost, tokenPath, strings.NewReader("grant_type=%zz"), form)
	s.want("POST with a broken form", a, 400, tarport.Invalid)
	a = s.do(http.MethodPost, tokenPath+"?scope=%zz", strings.NewReader(password.Encode()), form)
	s.want("POST with a broken query", a, 400, tarport.Invalid)
	a = s.do(http.MethodPost, tokenPath, strings.NewReader(`{"grant_type":"password"}`), http.Header{"Content-Type": {"application/json"}})
	s.want("POST with JSON", a, 400, tarport.Invalid)
}

func TestOtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := http.Header{"Authorization": {basicAuth("admin", testPassword)}}
	for _, m := range []string{"HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECTED", "get"} {
		a := s.do(m, tokenPath, nil, admin)
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, POST" || a.token.Token != "" {
			t.Errorf("%s %s = %d, Allow %q, %s, want 405", m, tokenPath, a.status, a.header.Get("Allow"), a.body)
		}
	}
	for _, m := range []string{"POST", "PUT", "DELETE"} {
		if a := s.do(m, jwksPath, nil, nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s = %d, want 405", m, jwksPath, a.status)
		}
	}
	if a := s.do("HEAD", jwksPath, nil, nil); a.status != http.StatusOK || a.body != "" {
		t.Errorf("HEAD %s = %d %q, want 200 and no body", jwksPath, a.status, a.body)
	}
}

func TestGuessingOverHTTPIsToldToWait(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range loginLimits.PerAccount {
		// Every way in counts.
		wrong := tarport.Secret(fmt.Sprint(i))
		switch i % 3 {
		case 0:
			s.want("GET", s.get(tokenPath, basicAuth("admin", wrong)), 401, tarport.Unauthorized)
		case 1:
			s.want("POST", s.post(url.Values{"grant_type": {"password"}, "username": {"admin"}, "password": {wrong.Reveal()}}), 401, tarport.Unauthorized)
		case 2:
			s.want("route", s.get("/protected", basicAuth("admin", wrong)), 401, tarport.Unauthorized)
		}
	}
	for _, path := range []string{tokenPath, "/protected"} {
		a := s.get(path, basicAuth("admin", testPassword))
		s.want(path, a, http.StatusTooManyRequests, tarport.TooManyRequests)
		if got := a.header.Get("Retry-After"); got != "300" {
			t.Errorf("%s: Retry-After = %q, want 300", path, got)
		}
	}
	s.want("token that was issued before", s.get("/protected", "Bearer "+s.token(t, "repository:team/app:push")), 200, "")
}

// Secrets are in answers to those who own them and nowhere else.
func TestSecretsStayOutOfLogsErrorsAndTheDatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const canary = "canary-3f9a"
	login := s.get("/auth/token?offline_token=true&scope=repository:team/app:push", basicAuth("admin", testPassword))
	secrets := []string{canary, testPassword.Reveal(), login.token.Token, login.token.RefreshToken, testSecret.Reveal()}
	var bodies strings.Builder
	for _, a := range []answer{
		s.get("/protected", "Bearer "+login.token.Token),
		s.get("/protected?token="+canary, "Bearer "+canary),
		s.get("/auth/token?service="+canary+"&refresh_token="+login.token.RefreshToken, basicAuth("admin", canary)),
		s.get("/auth/token", basicAuth(canary, canary)),
		s.post(url.Values{"grant_type": {"password"}, "username": {canary}, "password": {canary}}),
		s.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"tpr_" + canary}}),
	} {
		bodies.WriteString(a.body)
		fmt.Fprint(&bodies, a.header)
	}
	s.exec(t, `ALTER TABLE refresh_tokens RENAME TO lost`)
	a := s.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login.token.RefreshToken}})
	s.want("POST with a broken database", a, http.StatusInternalServerError, tarport.Internal)
	bodies.WriteString(a.body)
	s.exec(t, `ALTER TABLE lost RENAME TO refresh_tokens`)
	s.end()
	for where, text := range map[string]string{"log": s.log.String(), "answers": bodies.String(), "database": s.dump(t)} {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s hold the secret %q:\n%s", where, secret, text)
			}
		}
	}
	if !strings.Contains(s.log.String(), "refresh_tokens") {
		t.Errorf("the log does not say what is wrong with the database:\n%s", s.log)
	}
}
