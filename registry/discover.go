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
		{Name: "_oci", URL: "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
			Description: "the list of extensions", Endpoints: []string{"/v2/_oci/ext/discover"}},
		{Name: "_tarport", URL: "https://github.com/tarport/tarport",
			Description: "tarballs of images, uploaded as they are", Endpoints: []string{"/api/v1/archives/load"}},
	}})
}
