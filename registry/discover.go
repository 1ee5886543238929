package registry

import (
	"net/http"

	"github.com/tarport/tarport/internal/httpapi"
)

// extension is an entry of the list of extensions: distribution spec,
// extensions/_oci.md.
type extension struct {
	Name        string   `json:"name"`
	URL         string   `json:"url"`
	Description string   `json:"description"`
	Endpoints   []string `json:"endpoints"`
}

// discover lists what the registry has beside the distribution API.
func (g *Registry) discover(w http.ResponseWriter, _ *request) error {
	return httpapi.WriteJSON(w, http.StatusOK, map[string][]extension{"extensions": {
		{
			Name: "_oci", URL: "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
			Description: "the list of extensions", Endpoints: []string{"/v2/_oci/ext/discover"},
		},
		{
			Name: "_tarport", URL: "https://github.com/tarport/tarport",
			Description: "images as tarballs, in and out; all of it is described at /api/openapi.yaml",
			Endpoints:   []string{"/api/v1/archives/load", "/api/v1/archives/import", "/api/v1/archives/commit", "/api/v1/archives/save", "/api/v1/archives/export", "/api/v1/uploads"},
		},
		{
			Name: "_docker", URL: "https://docs.docker.com/reference/api/engine/",
			Description: "Docker's Engine API on a namespace, as far as it is about images: docker -H tcp://HOST/engine/NAMESPACE",
			Endpoints:   []string{"/engine/{namespace}/_ping"},
		},
	}})
}
