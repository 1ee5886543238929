package namespaces

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// Handler is the package's part of the HTTP API.
type Handler struct{ s *Service }

// NewHandler returns the routes of a Service.
func NewHandler(s *Service) *Handler { return &Handler{s} }

type route struct {
	method, path string
	serve        httpapi.HandlerFunc
}

// Routes adds the routes to r, which is the router of /api/v1. Who asks is in
// the request's context (tarport.WithPrincipal).
func (h *Handler) Routes(r *mux.Router) {
	for _, list := range [][]route{
		h.accountRoutes(), h.userRoutes(), h.namespaceRoutes(), h.memberRoutes(), h.robotRoutes(),
		h.immutableRoutes(), h.auditRoutes(), h.quotaRoutes(),
	} {
		for _, rt := range list {
			r.Path(rt.path).Methods(rt.method).Handler(h.handle(rt.serve))
		}
	}
	for _, rt := range h.repositoryRoutes() {
		r.Path(rt.path).Methods(rt.method).MatcherFunc(wholeRepository).Handler(h.handle(rt.serve))
	}
}

// handle sets the challenge of a 401: the token that came was not made for
// this route.
func (h *Handler) handle(serve httpapi.HandlerFunc) http.Handler {
	return httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
		err := serve(w, r)
		if err != nil {
			h.s.auth.SetHeaders(w, r, err, tarport.Grant{Actions: []tarport.Action{tarport.API}})
		}
		return err
	})
}

// list answers with a page, of which one item more than n may be there; key is
// where the next one begins.
func list[T any](w http.ResponseWriter, r *http.Request, items []T, n int, key func(T) string) error {
	if len(items) > n {
		items = items[:n]
		httpapi.SetNext(w, r, n, key(items[n-1]))
	}
	return httpapi.WriteJSON(w, http.StatusOK, map[string][]T{"items": items})
}

// convert makes what the API shows of what the database has; never nil.
func convert[A, B any](items []A, to func(A) B) []B {
	out := make([]B, len(items))
	for i, v := range items {
		out[i] = to(v)
	}
	return out
}

// noContent answers to what is done and has nothing to show.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// page is httpapi.Page, for a list whose last is a name.
func page(r *http.Request) (n int, last string, err error) {
	n, last, err = httpapi.Page(r)
	if err == nil && (len(last) > tarport.MaxNameLength || strings.ContainsFunc(last, unprintable)) {
		err = tarport.Errorf(tarport.PaginationInvalid, "last is no name")
	}
	return n, last, err
}

func unprintable(c rune) bool { return c < 0x20 || c == 0x7f || c == '\uFFFD' }

// stamp is a time as the API shows it; nil for the zero time.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

const maxExpiry = 10 * 366 * 24 * time.Hour

// expiry reads an expires_in; the zero time for none.
func expiry(in string, now time.Time) (time.Time, error) {
	if in == "" || in == never {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(in)
	if err != nil || d < time.Second || d > maxExpiry {
		return time.Time{}, tarport.Errorf(tarport.Invalid, "expires_in %q is not a time of at most ten years: write it as 720h, or %s", in, never)
	}
	return now.Add(d).Truncate(time.Second), nil
}

// never is the expires_in of what does not expire.
const never = "never"

// checkText is for what people write and others read.
func checkText(what, text string, limit int, lines bool) error {
	bad := func(c rune) bool { return unprintable(c) && (!lines || c != '\n' && c != '\t' && c != '\r') }
	if len(text) > limit || strings.ContainsFunc(text, bad) {
		return tarport.Errorf(tarport.Invalid, "the %s may have at most %d bytes of UTF-8, without control characters", what, limit)
	}
	return nil
}

func location(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Location", "/api/v1"+fmt.Sprintf(format, args...))
}
