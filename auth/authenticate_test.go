package auth

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarport/tarport"
)

func basicAuth(name string, password tarport.Secret) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password.Reveal()))
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, "colon", "a:b:c")
	good := "Bearer " + w.token(t)
	for _, c := range []struct {
		name    string
		headers []string
		user    string
		want    tarport.Code
	}{
		{"nothing", nil, "", ""},
		{"password", []string{basicAuth("admin", testPassword)}, "admin", ""},
		{"password, scheme in other letters", []string{strings.Replace(basicAuth("admin", testPassword), "Basic", "bASIC", 1)}, "admin", ""},
		{"password with colons", []string{basicAuth("colon", "a:b:c")}, "colon", ""},
		{"token", []string{good}, "admin", ""},
		{"token, scheme in other letters", []string{strings.Replace(good, "Bearer", "BEARER", 1)}, "admin", ""},
		{"wrong password", []string{basicAuth("admin", "wrong")}, "", tarport.Unauthorized},
		{"name in other letters", []string{basicAuth("ADMIN", testPassword)}, "", tarport.Unauthorized},
		{"name with a space", []string{basicAuth("admin ", testPassword)}, "", tarport.Unauthorized},
		{"token as password", []string{basicAuth("admin", tarport.Secret(strings.TrimPrefix(good, "Bearer ")))}, "", tarport.Unauthorized},
		{"empty header", []string{""}, "", tarport.Unauthorized},
		{"Basic and nothing", []string{"Basic"}, "", tarport.Unauthorized},
		{"Basic and no base64", []string{"Basic !"}, "", tarport.Unauthorized},
		{"Basic without a colon", []string{"Basic YWRtaW4="}, "", tarport.Unauthorized},
		{"Bearer and nothing", []string{"Bearer"}, "", tarport.Unauthorized},
		{"Bearer and a space", []string{"Bearer "}, "", tarport.Unauthorized},
		{"unknown scheme", []string{"Digest x"}, "", tarport.Unauthorized},
		{"two headers", []string{good, good}, "", tarport.Unauthorized},
		{"two headers, one bad", []string{basicAuth("admin", "wrong"), good}, "", tarport.Unauthorized},
	} {
		p, err := w.Authenticate(from(t.Context(), c.headers...))
		wantCode(t, c.name, err, c.want)
		if p.Name != c.user || (p.UserID == 0) != (c.user == "") {
			t.Errorf("%s: principal = %+v, want %q", c.name, p, c.user)
		}
	}
}

func TestPasswordHasNoScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Authenticate(from(t.Context(), basicAuth("admin", testPassword)))
	if err != nil || p.Scope != nil || !p.Admin {
		t.Errorf("Authenticate = %+v, %v, want the administrator without a scope", p, err)
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	needs := tarport.Grant{Repository: "team/app", Actions: []tarport.Action{tarport.Pull, tarport.Push}}
	other := tarport.Grant{Repository: "team/base", Actions: []tarport.Action{tarport.Pull}}
	const base = `Bearer realm="http://registry.test:5000/auth/token",service="tarport"`
	for _, c := range []struct {
		name    string
		headers []string
		needs   []tarport.Grant
		want    string
	}{
		{"nothing", nil, nil, base},
		{"a repository", nil, []tarport.Grant{needs}, base + `,scope="repository:team/app:pull,push"`},
		{"a mount", nil, []tarport.Grant{needs, other}, base + `,scope="repository:team/app:pull,push repository:team/base:pull"`},
		{"the catalog", nil, []tarport.Grant{{Actions: []tarport.Action{Catalog}}}, base + `,scope="registry:catalog:*"`},
		{"wrong password", []string{basicAuth("admin", "wrong")}, nil, base},
		{"token for something else", []string{"Bearer " + w.token(t)}, []tarport.Grant{needs}, base + `,scope="repository:team/app:pull,push",error="insufficient_scope"`},
		{"no token", []string{"Bearer x"}, []tarport.Grant{needs}, base + `,scope="repository:team/app:pull,push",error="invalid_token"`},
	} {
		if got := w.Challenge(from(t.Context(), c.headers...), c.needs...); got != c.want {
			t.Errorf("%s: Challenge = %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRealmIsOnTheRegistrysOwnHost(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := openDB(t, filepath.Join(t.TempDir(), "meta.db"), c)
	proxied := func(*http.Request) Origin {
		return Origin{Scheme: "https", Host: "proxied.example.com", Address: netip.MustParseAddr("203.0.113.9")}
	}
	for _, v := range []struct {
		name      string
		publicURL string
		origin    func(*http.Request) Origin
		request   func(*http.Request)
		want      string
	}{
		{"as asked for", "", nil, func(*http.Request) {}, "http://registry.test:5000"},
		{"over TLS", "", nil, func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, "https://registry.test:5000"},
		{"a stranger's headers", "", nil, func(r *http.Request) {
			r.Header.Set("X-Forwarded-Host", "evil.example.com")
			r.Header.Set("X-Forwarded-Proto", "https")
			r.Header.Set("Forwarded", "host=evil.example.com;proto=https")
		}, "http://registry.test:5000"},
		{"as the front believes", "", proxied, func(*http.Request) {}, "https://proxied.example.com"},
		{"public URL", "https://reg.example.com/", proxied, func(r *http.Request) { r.Host = "evil.example.com" }, "https://reg.example.com"},
		{"a host with a quote", "", nil, func(r *http.Request) { r.Host = `a",realm="http://evil` }, `http://a\",realm=\"http://evil`},
	} {
		s, err := New(t.Context(), Options{DB: db, Secret: testSecret, Now: c.now, PublicURL: v.publicURL, Origin: v.origin})
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		r := from(t.Context())
		v.request(r)
		want := `Bearer realm="` + v.want + `/auth/token",service="tarport"`
		if got := s.Challenge(r); got != want {
			t.Errorf("%s: Challenge = %s, want %s", v.name, got, want)
		}
	}
}

func TestHeadersOfRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := from(t.Context())
	for _, c := range []struct {
		err                error
		authenticate, wait string
	}{
		{tarport.Errorf(tarport.Unauthorized, "x"), w.Challenge(r), ""},
		{tooMany("x", 1500*time.Millisecond), "", "2"},
		{tooMany("x", 0), "", ""},
		{tarport.Errorf(tarport.TooManyRequests, "x"), "", ""},
		{tarport.Errorf(tarport.Denied, "x"), "", ""},
	} {
		rec := httptest.NewRecorder()
		w.SetHeaders(rec, r, c.err)
		if got := rec.Header().Get("WWW-Authenticate"); got != c.authenticate {
			t.Errorf("%v: WWW-Authenticate = %q, want %q", c.err, got, c.authenticate)
		}
		if got := rec.Header().Get("Retry-After"); got != c.wait {
			t.Errorf("%v: Retry-After = %q, want %q", c.err, got, c.wait)
		}
	}
}

// Every request of a push or pull comes through here.
func BenchmarkAuthenticateBearer(b *testing.B) {
	w := newWorld(b)
	r := from(b.Context(), "Bearer "+w.token(b, "repository:team/app:pull,push"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthenticateBearerParallel(b *testing.B) {
	w := newWorld(b)
	token := "Bearer " + w.token(b, "repository:team/app:pull,push")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := from(b.Context(), token)
		for pb.Next() {
			if _, err := w.Authenticate(r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAuthenticateBasic(b *testing.B) {
	w := newWorld(b)
	r := from(b.Context(), basicAuth("admin", testPassword))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	token := w.token(b, "repository:team/app:pull,push")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
