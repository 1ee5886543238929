// Package registry is the OCI distribution API, /v2/: our own routes in front
// of distribution's App.
//
//	request ── parse (canonical path, exact method) ── who (Auth) ── may they (tarport.Access)
//	   │
//	   ├── GET, HEAD of manifests and blobs, lists, referrers ──> storage.Store, from SQL and from the file itself
//	   ├── PUT, DELETE of manifests, mounts, single POST ───────> storage.Store, one transaction
//	   └── upload sessions: POST, PATCH, PUT, GET, DELETE ──────> App ──> storage.Store.Namespace (the registry middleware)
//
// The App keeps what clients have relied on since 2015: the upload protocol
// with its signed state. What it cannot do (sha512, referrers, tags with a
// manifest in one transaction) or does slowly stands in front. Whatever it
// answers as an error is replaced by the one error writer.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/handlers"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
)

// Auth says who asks, and tells a client that was refused what it lacks.
type Auth interface {
	tarport.Access
	// Authenticate returns the stranger for a request without a credential,
	// and an error for one whose credential is not good.
	Authenticate(r *http.Request) (tarport.Principal, error)
	// AuthenticateLate is Authenticate for a bearer token that was good until
	// validUntil, a short time ago.
	AuthenticateLate(r *http.Request) (p tarport.Principal, validUntil time.Time, err error)
	// SetHeaders sets the challenge that belongs to the answer to err.
	SetHeaders(w http.ResponseWriter, r *http.Request, err error, needs ...tarport.Grant)
}

// Options of New. All are required but Log.
type Options struct {
	Store *storage.Store
	Auth  Auth
	// Secret signs the states of uploads; all replicas have the same.
	Secret tarport.Secret
	Log    *slog.Logger // slog.Default where nil
}

// Registry serves /v2/.
type Registry struct {
	store *storage.Store
	auth  Auth
	log   *slog.Logger
	inner *handlers.App
}

// New makes the registry's handler. Close ends what the App runs.
func New(ctx context.Context, o Options) (*Registry, error) {
	if o.Store == nil || o.Auth == nil || o.Secret == "" {
		return nil, errors.New("registry: store, auth and secret are required")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	inner, err := newApp(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Registry{store: o.Store, auth: o.Auth, log: o.Log, inner: inner}, nil
}

// Close ends what the App runs. Requests must have ended before.
func (g *Registry) Close() error { return g.inner.Shutdown() }

// maxURL is the longest request URI in bytes: an upload state is about 300.
const maxURL = 8 << 10

var apiVersion = []string{"registry/2.0"}

// ServeHTTP implements http.Handler for paths under /v2/.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	if err := g.serve(w, r); err != nil {
		httpapi.WriteError(w, r, err)
	}
}

func (g *Registry) serve(w http.ResponseWriter, r *http.Request) error {
	if len(r.RequestURI) > maxURL {
		return tarport.Errorf(tarport.Invalid, "the URL is longer than %d bytes", maxURL)
	}
	rq, parseErr := parse(r)
	if rq == nil {
		return parseErr
	}
	m, ok := rq.route.methods[r.Method]
	if !ok {
		w.Header().Set("Allow", rq.route.allow())
		return tarport.Errorf(tarport.Unsupported, "%s is not possible here", r.Method)
	}
	needs := m.needs(rq.repository)
	p, err := g.auth.Authenticate(r)
	if rq.route == routeUpload && parseErr == nil && tarport.ErrorCode(err) == tarport.Unauthorized {
		p, err = g.late(rq, err)
	}
	if err == nil {
		httpapi.SetUser(r.Context(), p.Name)
		rq.principal = p
		err = g.authorize(r.Context(), rq, m.action)
	}
	if err != nil {
		g.auth.SetHeaders(w, r, err, needs...)
		return err
	}
	if parseErr != nil { // a stranger learns nothing of names
		return parseErr
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead { // what changes something says who did it
		rq.Request = r.WithContext(rq.withPrincipal())
	}
	return m.serve(g, w, rq)
}

// authorize is asked once for each request, on the parsed route and before any
// content is touched.
func (g *Registry) authorize(ctx context.Context, rq *request, a tarport.Action) error {
	if a != "" {
		return g.auth.Authorize(ctx, rq.principal, a, rq.repository)
	}
	if rq.principal.Anonymous() {
		return tarport.Errorf(tarport.Unauthorized, "authentication required: log in first")
	}
	return nil
}

// late lets a token that is over finish the upload session that it began: a
// client gets a token for a push, and the push of a large layer can last longer
// than it. The session must be the principal's own and from when the token was
// good. What the principal may do is asked after this as ever.
func (g *Registry) late(rq *request, refused error) (tarport.Principal, error) {
	p, validUntil, err := g.auth.AuthenticateLate(rq.Request)
	if err != nil || p.Anonymous() || !isUploadID(rq.last) {
		return tarport.Principal{}, refused
	}
	u, err := g.store.UploadStatus(tarport.WithPrincipal(rq.Context(), p), rq.repository, rq.last)
	if err != nil || !u.StartedAt().Before(validUntil) {
		return tarport.Principal{}, refused
	}
	return p, nil
}

// isUploadID tells whether s is of the form of rand.Text.
func isUploadID(s string) bool {
	return len(s) == 26 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// needs is what a token for the method must grant, in the words of the token
// protocol: who pushes pulls too.
func (m method) needs(repository string) []tarport.Grant {
	switch m.action {
	case "":
		return nil
	case tarport.Push:
		return []tarport.Grant{{Repository: repository, Actions: []tarport.Action{tarport.Pull, tarport.Push}}}
	default:
		return []tarport.Grant{{Repository: repository, Actions: []tarport.Action{m.action}}}
	}
}

func (g *Registry) base(w http.ResponseWriter, _ *request) error {
	return httpapi.WriteJSON(w, http.StatusOK, struct{}{})
}

// withPrincipal is the request's context, which says who asks.
func (rq *request) withPrincipal() context.Context {
	return tarport.WithPrincipal(rq.Context(), rq.principal)
}
