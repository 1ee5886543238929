package auth

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

const (
	testSecret   = tarport.Secret("0123456789abcdef0123456789abcdef")
	testPassword = tarport.Secret("correct horse battery staple")
)

// clock is a time that only moves when it is told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// hashes replaces argon2id by something cheap and counts.
type hashes struct {
	mu              sync.Mutex
	n, running, max int
	pause           chan struct{} // where not nil, each hash takes one from it
}

func (h *hashes) derive(password, salt []byte) []byte {
	h.mu.Lock()
	h.n++
	h.running++
	h.max = max(h.max, h.running)
	pause := h.pause
	h.mu.Unlock()
	if pause != nil {
		<-pause
	}
	sum := sha256.Sum256(append(append([]byte{}, salt...), password...))
	h.mu.Lock()
	h.running--
	h.mu.Unlock()
	return sum[:]
}

// since returns how many hashes fn costs.
func (h *hashes) since(fn func()) int {
	h.mu.Lock()
	before := h.n
	h.mu.Unlock()
	fn()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n - before
}

func openDB(t testing.TB, path string, c *clock) *metadata.DB {
	t.Helper()
	return metadatatest.Open(t, metadata.Options{DSN: path, Now: c.now})
}

// world is a service on a database of its own, with an administrator.
type world struct {
	*Service
	path  string // of the database
	db    *metadata.DB
	clock *clock
	hash  *hashes
}

func newWorld(t testing.TB) *world {
	t.Helper()
	c := newClock()
	w := &world{clock: c, path: filepath.Join(t.TempDir(), "meta.db")}
	w.db = openDB(t, w.path, c)
	w.Service, w.hash = newService(t, w.db, c)
	if _, err := w.EnsureAdmin(t.Context(), testPassword); err != nil {
		t.Fatalf("EnsureAdmin: %v", err)
	}
	return w
}

// newService is another replica on the database.
func newService(t testing.TB, db *metadata.DB, c *clock) (*Service, *hashes) {
	t.Helper()
	s, err := New(t.Context(), Options{DB: db, Secret: testSecret, Now: c.now})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	h := &hashes{}
	s.passwords.derive = h.derive
	return s, h
}

// exec changes the database behind the registry's back, as another version of it
// may.
func (w *world) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path+"?_pragma=busy_timeout(10000)")
	if err == nil {
		_, err = db.ExecContext(t.Context(), query, args...)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// dump is what the database file holds, as text and as it lies there.
func (w *world) dump(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(w.path + suffix)
		if err != nil {
			t.Fatalf("read the database: %v", err)
		}
		all.Write(b)
	}
	return all.String()
}

func (w *world) disable(t testing.TB, name string) {
	t.Helper()
	w.exec(t, `UPDATE users SET disabled_at = 1 WHERE name = $1`, name)
}

// admin is the administrator's row.
func (w *world) admin(t testing.TB) metadata.User {
	t.Helper()
	u, err := w.db.UserByName(t.Context(), adminName)
	if err != nil {
		t.Fatalf("read the administrator: %v", err)
	}
	return u
}

// user makes another user, who is no administrator.
func (w *world) user(t testing.TB, name string, password tarport.Secret) metadata.User {
	t.Helper()
	u, err := w.db.CreateUser(t.Context(), metadata.User{Name: name, PasswordHash: w.passwords.hash(password)})
	if err != nil {
		t.Fatalf("create user %s: %v", name, err)
	}
	return u
}

// token issues an access token for the administrator.
func (w *world) token(t testing.TB, scopes ...string) string {
	t.Helper()
	grants, err := parseScopes(scopes)
	if err != nil {
		t.Fatalf("parseScopes(%q): %v", scopes, err)
	}
	text, _, err := w.issue(t.Context(), identity{user: w.admin(t)}, grants)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return text
}

// from is a request of somebody with the Authorization headers.
func from(ctx context.Context, authorization ...string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://registry.test:5000/v2/", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	return r
}

var home = netip.MustParseAddr("192.0.2.1")

func wantCode(t *testing.T, what string, err error, want tarport.Code) {
	t.Helper()
	if got := tarport.ErrorCode(err); got != want {
		t.Errorf("%s = %q (%v), want %q", what, got, err, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := Options{DB: w.db, Secret: testSecret, PublicURL: "https://registry.example.com:5000/"}
	if _, err := New(t.Context(), good); err != nil {
		t.Fatalf("New(%+v) = %v, want nil", good, err)
	}
	for name, spoil := range map[string]func(*Options){
		"no database":            func(o *Options) { o.DB = nil },
		"no secret":              func(o *Options) { o.Secret = "" },
		"short secret":           func(o *Options) { o.Secret = "short" },
		"quote in service":       func(o *Options) { o.Service = `a"b` },
		"public URL with path":   func(o *Options) { o.PublicURL = "https://example.com/registry" },
		"public URL with user":   func(o *Options) { o.PublicURL = "https://me@example.com" },
		"public URL with query":  func(o *Options) { o.PublicURL = "https://example.com?a" },
		"public URL of a file":   func(o *Options) { o.PublicURL = "file:///etc" },
		"public URL, no scheme":  func(o *Options) { o.PublicURL = "example.com" },
		"public URL, no host":    func(o *Options) { o.PublicURL = "https:///" },
		"public URL, broken":     func(o *Options) { o.PublicURL = "https://[::1" },
		"public URL, a fragment": func(o *Options) { o.PublicURL = "https://example.com#a" },
	} {
		o := good
		spoil(&o)
		if _, err := New(t.Context(), o); err == nil {
			t.Errorf("New with %s = nil, want an error", name)
		} else if strings.Contains(err.Error(), testSecret.Reveal()) {
			t.Errorf("New with %s = %v, which tells the secret", name, err)
		}
	}
}

func TestLRUForgetsWhatWasNotUsedForTheLongestTime(t *testing.T) {
	t.Parallel()
	c := newLRU[int, string](2)
	c.put(1, "one")
	c.put(2, "two")
	c.get(1)
	c.put(3, "three")
	if _, ok := c.get(2); ok {
		t.Error("get(2) found it, want it forgotten")
	}
	if v, ok := c.get(1); !ok || v != "one" {
		t.Errorf("get(1) = %q, %v, want one", v, ok)
	}
	c.put(1, "uno")
	c.remove(3)
	c.remove(4)
	c.put(5, "five")
	if v, _ := c.get(1); v != "uno" {
		t.Errorf("get(1) = %q, want uno", v)
	}
	if len(c.items) != 2 || c.order.Len() != 2 {
		t.Errorf("%d items, %d in order, want 2", len(c.items), c.order.Len())
	}
}
