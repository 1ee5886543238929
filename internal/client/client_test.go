package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/client"
)

func TestWhatUsersCallARegistry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		plain bool
		want  string
	}{
		{"registry.example.com", false, "https://registry.example.com"},
		{"registry.example.com:5000", true, "http://registry.example.com:5000"},
		{"https://registry.example.com/", true, "https://registry.example.com"},
		{"http://registry.example.com", true, "http://registry.example.com"},
		{"127.0.0.1:5000", false, "http://127.0.0.1:5000"},
		{"localhost:5000", false, "http://localhost:5000"},
		{"http://[::1]:5000", false, "http://[::1]:5000"},
		{"[::ffff:127.0.0.1]:5000", false, "http://[::ffff:127.0.0.1]:5000"},
		{"https://127.0.0.1:5000", false, "https://127.0.0.1:5000"},
		{"http://registry.example.com", false, ""}, // the password would go in the clear
		{"http://localhost.example.com", false, ""},
		{"ftp://registry.example.com", false, ""},
		{"https://user:secret@registry.example.com", false, ""},
		{"registry.example.com/team", false, ""},
		{"https://registry.example.com?x", false, ""},
		{"", false, ""},
		{"a b", false, ""},
	} {
		u, err := client.ParseRegistry(tt.in, tt.plain)
		if tt.want == "" {
			if err == nil {
				t.Errorf("ParseRegistry(%q, %t) = %s, want an error", tt.in, tt.plain, u)
			}
			continue
		}
		if err != nil || u.String() != tt.want {
			t.Errorf("ParseRegistry(%q, %t) = %v, %v, want %s", tt.in, tt.plain, u, err, tt.want)
		}
	}
}

// newClient returns a client of a server of the test's.
func newClient(t *testing.T, h http.HandlerFunc, who client.Credential, renewed func(context.Context, client.Credential) error) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return client.New(client.Options{Registry: u, Credential: who, Renewed: renewed})
}

func TestErrorsAreTheServers(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "RID")
		switch r.URL.Path {
		case "/api/v1/denied":
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"not\u001b[31m you","detail":{"a":1}}]}`)
		case "/api/v1/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = fmt.Fprint(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"later"}]}`)
		case "/api/v1/moved":
			http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusTemporaryRedirect)
		case "/api/v1/page":
			_, _ = fmt.Fprint(w, "<html>")
		default:
			http.Error(w, "<html>", http.StatusBadGateway)
		}
	}, client.Credential{}, nil)

	err := c.Do(t.Context(), http.MethodGet, "/denied", nil, nil, nil)
	got, ok := errors.AsType[*client.Error](err)
	want := &client.Error{Status: 403, Code: tarport.Denied, Message: "not[31m you", Detail: json.RawMessage(`{"a":1}`), RequestID: "RID"}
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("a refusal = %v (-want +got):\n%s", err, diff)
	}
	if code := tarport.ErrorCode(err); code != tarport.Denied {
		t.Errorf("ErrorCode(%v) = %s, want DENIED", err, code)
	}
	err = c.Do(t.Context(), http.MethodGet, "/busy", nil, nil, nil)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Wait != 7*time.Second {
		t.Errorf("a server that is busy = %#v, want 7 s to wait", err)
	}
	var out map[string]any
	for path, want := range map[string]string{
		"/moved": "sends us to https://elsewhere.example.com/", "/other": "502 Bad Gateway", "/page": "is it another registry?",
	} {
		if err := c.Do(t.Context(), http.MethodGet, path, nil, nil, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Do(%s) = %v, want %q in it", path, err, want)
		}
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	host := strings.TrimPrefix(secure.URL, "https://")
	plain := client.New(client.Options{Registry: &url.URL{Scheme: "http", Host: host}})
	if err := plain.Do(t.Context(), http.MethodGet, "/x", nil, nil, nil); err == nil || !strings.Contains(err.Error(), "name it as https://"+host) {
		t.Errorf("http to a server with TLS = %v", err)
	}
	nobody := client.New(client.Options{Registry: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	if err := nobody.Do(t.Context(), http.MethodGet, "/x", nil, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "http://127.0.0.1:1 cannot be reached: ") {
		t.Errorf("Do where nobody listens = %v", err)
	}
}

func TestListGoesThroughThePages(t *testing.T) {
	t.Parallel()
	var asked []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		switch r.URL.Query().Get("last") {
		case "":
			w.Header().Set("Link", `</api/v1/users?last=b%2Bb&n=2&q=x>; rel="next"`)
			_, _ = fmt.Fprint(w, `{"items":["a","b+b"]}`)
		case "b+b":
			_, _ = fmt.Fprint(w, `{"items":["c"]}`)
		}
	}, client.Credential{}, nil)
	var got []string
	for item, err := range client.List[string](t.Context(), c, "/users", url.Values{"q": {"x"}, "n": {"2"}}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, item)
	}
	if diff := cmp.Diff([]string{"a", "b+b", "c"}, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/api/v1/users?n=2&q=x", "/api/v1/users?last=b%2Bb&n=2&q=x"}, asked); diff != "" {
		t.Errorf("what was asked for (-want +got):\n%s", diff)
	}
}

func TestIdentityTokenBecomesABearerOnce(t *testing.T) {
	t.Parallel()
	tokens := 0
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/auth/token" {
			tokens++
			want := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"tpr_1"}, "client_id": {"docker"}, "scope": {"registry:api:*"}}
			_ = r.ParseForm()
			if diff := cmp.Diff(want, r.PostForm); diff != "" {
				t.Errorf("the form (-want +got):\n%s", diff)
			}
			_, _ = fmt.Fprint(w, `{"access_token":"jwt","expires_in":300,"refresh_token":"tpr_2"}`)
			return
		}
		if got := r.Header.Get("Authorization"); got != "Bearer jwt" {
			t.Errorf("Authorization = %q, want the bearer token", got)
		}
		_, _ = fmt.Fprint(w, `{}`)
	}, client.Credential{Identity: "tpr_1"}, func(_ context.Context, c client.Credential) error {
		if c.Identity != "tpr_2" {
			t.Errorf("renewed as %q, want tpr_2", c.Identity.Reveal())
		}
		return nil
	})
	for range 3 {
		if err := c.Do(t.Context(), http.MethodGet, "/user", nil, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if tokens != 1 {
		t.Errorf("asked for %d tokens, want 1", tokens)
	}
}

func TestLoginKeepsThePasswordOnlyWhereItMust(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]client.Credential{
		`{"access_token":"jwt","refresh_token":"tpr_1"}`: {User: "alice", Identity: "tpr_1"},
		`{"access_token":"jwt"}`:                         {User: "alice", Password: "secret"},
	} {
		c := newClient(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, answer) }, client.Credential{}, nil)
		if got, err := c.Login(t.Context(), "alice", "secret"); err != nil || got != want {
			t.Errorf("Login with the answer %s = %#v, %v", answer, got, err)
		}
	}
}

const host = "registry.example.com:5000"

func TestLoginsInDockersFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "docker")
	l := client.NewLogins(client.LoginsOptions{Dir: dir})
	if c, err := l.Get(t.Context(), host); err != nil || !c.Empty() {
		t.Errorf("Get without a file = %v, %v, want nothing", c, err)
	}
	if found, err := l.Erase(t.Context(), host); err != nil || found {
		t.Errorf("Erase without a file = %t, %v, want nothing", found, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	real, file := filepath.Join(dir, "real.json"), filepath.Join(dir, "config.json")
	before := `{"auths":{"https://other.example.com/v1/":{"auth":"dTpwOnE=","email":"x"}},"HttpHeaders":{"a":"<b>"},"later":[1]}`
	if err := os.WriteFile(real, []byte(before), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.json", file); err != nil {
		t.Fatal(err)
	}
	if c, err := l.Get(t.Context(), "other.example.com"); err != nil || c.User != "u" || c.Password != "p:q" {
		t.Errorf("Get of a login under a URL = %#v, %v, want u and p:q", c, err)
	}
	for _, who := range []client.Credential{{User: "alice", Identity: "tpr_1"}, {User: "team+ci", Password: "tpb_1:2"}} {
		if place, err := l.Put(t.Context(), host, who); err != nil || place != file {
			t.Fatalf("Put = %s, %v", place, err)
		}
		if got, err := l.Get(t.Context(), host); err != nil || got != who {
			t.Errorf("Get = %#v, %v, want what was put", got, err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	_ = json.Unmarshal(b, &got)
	_ = json.Unmarshal([]byte(before), &want)
	want["auths"].(map[string]any)[host] = map[string]any{"auth": "dGVhbStjaTp0cGJfMToy"}
	if diff := cmp.Diff(want, got); diff != "" || !strings.Contains(string(b), "<b>") {
		t.Errorf("the file (-want +got):\n%s\n%s", diff, b)
	}
	if fi, err := os.Lstat(file); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(real); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("the mode = %v, %v, want 0640", fi.Mode(), err)
	}
	if found, err := l.Erase(t.Context(), host); err != nil || !found {
		t.Errorf("Erase = %t, %v, want that there was one", found, err)
	}
	if c, err := l.Get(t.Context(), host); err != nil || !c.Empty() {
		t.Errorf("Get after Erase = %#v, %v, want nothing", c, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".config-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNewFileIsPrivate(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no helper of the platform's
	dir := filepath.Join(t.TempDir(), "docker")
	l := client.NewLogins(client.LoginsOptions{Dir: dir})
	if _, err := l.Put(t.Context(), host, client.Credential{User: "u", Identity: "t"}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "config.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the mode = %v, %v, want 0600", fi.Mode(), err)
	}
}

func TestLoginsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{`, `[]`, `{"auths":[]}`, `{"auths":{"` + host + `":{"auth":"!"}}}`, `{"auths":{"` + host + `":{"auth":"eA=="}}}`,
		`{"credsStore":"../../bin/sh"}`, `{"credsStore":"there-is-none"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := client.NewLogins(client.LoginsOptions{Dir: dir})
		if c, err := l.Get(t.Context(), host); err == nil {
			t.Errorf("Get from %s = %#v, want an error", text, c)
		}
	}
}

func TestLoginsOfTheEnvironmentGoFirst(t *testing.T) {
	t.Parallel()
	l := client.NewLogins(client.LoginsOptions{Dir: t.TempDir(), Memory: `{"auths":{"` + host + `":{"auth":"dTpw"}}}`})
	if c, err := l.Get(t.Context(), host); err != nil || c.User != "u" || c.Password != "p" {
		t.Errorf("Get = %#v, %v, want u and p", c, err)
	}
	if c, err := l.Get(t.Context(), "other"); err != nil || !c.Empty() {
		t.Errorf("Get of another = %#v, %v, want nothing", c, err)
	}
}

// helperScript keeps one login in a file beside it, as a credential helper.
const helperScript = `#!/bin/sh
f="$(dirname "$0")/kept"
case $1 in
store) cat > "$f" ;;
get) read -r host || true; if [ -f "$f" ]; then cat "$f"; else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) rm -f "$f" ;;
esac
`

func TestLoginsInACredentialHelper(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the helper is a shell script")
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(helperScript), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, config := range []string{`{"credsStore":"test"}`, `{"credsStore":"other","credHelpers":{"` + host + `":"test"}}`} {
		dir := t.TempDir()
		file := filepath.Join(dir, "config.json")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		l := client.NewLogins(client.LoginsOptions{Dir: dir, Environ: os.Environ()})
		if c, err := l.Get(t.Context(), host); err != nil || !c.Empty() {
			t.Errorf("Get = %#v, %v, want nothing", c, err)
		}
		for who, want := range map[client.Credential]client.Credential{
			{User: "alice", Identity: "tpr_1"}: {Identity: "tpr_1"},
			{User: "bob", Password: "secret"}:  {User: "bob", Password: "secret"},
		} {
			if place, err := l.Put(t.Context(), host, who); err != nil || place != "docker-credential-test" {
				t.Fatalf("Put = %s, %v", place, err)
			}
			if got, err := l.Get(t.Context(), host); err != nil || got != want {
				t.Errorf("Get = %#v, %v, want %#v", got, err, want)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(b), "secret") || !strings.Contains(string(b), host+`": {}`) {
			t.Errorf("the file = %s, %v, want an entry without a secret", b, err)
		}
		if found, err := l.Erase(t.Context(), host); err != nil || !found {
			t.Errorf("Erase = %t, %v, want that there was one", found, err)
		}
		if found, err := l.Erase(t.Context(), host); err != nil || found {
			t.Errorf("Erase again = %t, %v, want that there was none", found, err)
		}
	}
}
