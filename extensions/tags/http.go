package tags

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// Handler is the package's part of the HTTP API.
type Handler struct{ s *Service }

// NewHandler returns the routes of a Service.
func NewHandler(s *Service) *Handler { return &Handler{s} }

// Routes adds the routes to r, which is the router of /api/v1. Who asks is in
// the request's context (tarport.WithPrincipal).
func (h *Handler) Routes(r *mux.Router) {
	for _, rt := range []struct {
		method, path string
		serve        httpapi.HandlerFunc
	}{
		{http.MethodGet, "/repositories/{name:.+}/-/tags", h.list},
		{http.MethodGet, "/repositories/{name:.+}/-/variants", h.variants},
		{http.MethodGet, "/repositories/{name:.+}/-/tags/{tag}", h.getTag},
		{http.MethodPut, "/repositories/{name:.+}/-/tags/{tag}", h.putTag},
		{http.MethodDelete, "/repositories/{name:.+}/-/tags/{tag}", h.deleteTag},
		{http.MethodGet, "/repositories/{name:.+}/-/tags/{tag}/history", h.history},
		{http.MethodGet, "/search", h.search},
	} {
		r.Path(rt.path).Methods(rt.method).Handler(h.handle(rt.serve))
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
