package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

var pathPattern = regexp.MustCompile(`\{(\w+):[^{}]*\}`)

// TestOpenAPIHasTheRoutesOfTheServer, no more and no less, and strangers can
// read it.
func TestOpenAPIHasTheRoutesOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := config.Load("", []string{"TARPORT_DATA=" + dir, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStores(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r, err := s.newRoutes(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r.others.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/openapi.yaml", nil))
	var file struct {
		Servers []struct{ URL string }
		Paths   map[string]map[string]any
	}
	if err := yaml.Unmarshal(w.Body.Bytes(), &file); err != nil || w.Code != http.StatusOK || len(file.Servers) != 1 {
		t.Fatalf("GET /api/openapi.yaml = %d, %v\n%.200s", w.Code, err, w.Body)
	}
	var described []string
	for path, item := range file.Paths {
		for key := range item {
			if key != "parameters" {
				described = append(described, file.Servers[0].URL+path+" "+strings.ToUpper(key))
			}
		}
	}
	routes := apiRoutes(t, r.others)
	slices.Sort(routes)
	slices.Sort(described)
	if diff := cmp.Diff(routes, described); diff != "" {
		t.Errorf("the router (-) and openapi.yaml (+) differ:\n%s", diff)
	}
}

// apiRoutes are the paths and methods of a router below /api/v1.
func apiRoutes(t *testing.T, r *mux.Router) (routes []string) {
	t.Helper()
	err := r.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil || route.GetHandler() == nil || !strings.HasPrefix(path, "/api/v1/") {
			return err
		}
		methods, err := route.GetMethods()
		for _, m := range methods {
			routes = append(routes, pathPattern.ReplaceAllString(path, "{$1}")+" "+m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return routes
}
