package namespaces

import (
	_ "embed"
	"net/http"
	"strconv"

	"github.com/gorilla/mux"
)

// openAPI describes every route of /api/v1, also those of other packages. A
// test compares it with the router.
//
//go:embed openapi.yaml
var openAPI []byte

// OpenAPIRoute adds the description of the API to r, which is the router of
// the whole server: who has no login can read it too.
func OpenAPIRoute(r *mux.Router) {
	r.Path("/api/openapi.yaml").Methods(http.MethodGet, http.MethodHead).HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Header().Set("Content-Length", strconv.Itoa(len(openAPI)))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(openAPI) // a client that went away is no error
	})
}
