package namespaces_test

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/extensions/uploads"
	"github.com/tarport/tarport/storage"
)

// schema is the part of a JSON schema that is compared with Go's types.
type schema struct {
	Required   []string
	Properties map[string]any
}

// document is the part of the OpenAPI file that is compared; cmd/tarport
// compares the routes.
type document struct {
	Components map[string]map[string]any
}

// readOpenAPI reads the file as a stranger gets it.
func readOpenAPI(t *testing.T) (d document, text string) {
	t.Helper()
	r := mux.NewRouter()
	namespaces.OpenAPIRoute(r)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/openapi.yaml", nil))
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "application/yaml" {
		t.Fatalf("GET /api/openapi.yaml = %d %s, want 200 application/yaml", w.Code, got)
	}
	if err := yaml.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d, w.Body.String()
}

// TestOpenAPIDescribesTheTypes compares the names of the members of what goes
// over the wire, and of what always comes.
func TestOpenAPIDescribesTheTypes(t *testing.T) {
	t.Parallel()
	d, _ := readOpenAPI(t)
	for name, v := range map[string]any{
		"Me": namespaces.Me{}, "MyToken": namespaces.MyToken{}, "Token": namespaces.Token{}, "NewToken": namespaces.NewToken{},
		"User": namespaces.User{}, "NewUser": namespaces.NewUser{}, "UserPatch": namespaces.UserPatch{},
		"Namespace": namespaces.Namespace{}, "NewNamespace": namespaces.NewNamespace{}, "NamespacePatch": namespaces.NamespacePatch{},
		"Member": namespaces.Member{}, "Robot": namespaces.Robot{}, "NewRobot": namespaces.NewRobot{}, "RobotPatch": namespaces.RobotPatch{},
		"Rule": namespaces.Rule{}, "NewRule": namespaces.NewRule{}, "Repository": namespaces.Repository{}, "RepositoryPatch": namespaces.RepositoryPatch{},
		"Event": namespaces.Event{}, "Recounted": namespaces.Recounted{}, "Bytes": namespaces.Bytes{},
		"Loaded": archive.Result{}, "Manifest": archive.Manifest{}, "Layer": archive.Layer{},
		"Tag": tags.Tag{}, "Platform": tags.Platform{}, "Base": tags.Base{}, "Healthcheck": storage.Healthcheck{},
		"Matrix": tags.Matrix{}, "Cell": tags.Cell{}, "CellPlatform": tags.CellPlatform{}, "Recommend": tags.Recommend{}, "Pick": tags.Pick{},
		"Upload": uploads.Upload{}, "Layers": archive.Layers{},
	} {
		s := schemaOf(t, d, name)
		all, always := members(reflect.TypeOf(v))
		var described []string
		for p := range s.Properties {
			described = append(described, p)
		}
		slices.Sort(described)
		if diff := cmp.Diff(all, described); diff != "" {
			t.Errorf("%s: the type (-) and openapi.yaml (+) have other members:\n%s", name, diff)
		}
		if strings.HasPrefix(name, "New") || strings.HasSuffix(name, "Patch") {
			continue // what comes in need not be whole
		}
		slices.Sort(s.Required)
		if diff := cmp.Diff(always, s.Required); diff != "" {
			t.Errorf("%s: what the type always has (-) and what openapi.yaml requires (+) differ:\n%s", name, diff)
		}
	}
}

func schemaOf(t *testing.T, d document, name string) (s schema) {
	t.Helper()
	b, err := yaml.Marshal(d.Components["schemas"][name])
	if err == nil {
		err = yaml.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	return s
}

// members are the JSON names of a struct's fields, and of those that are never
// left out.
func members(typ reflect.Type) (all, always []string) {
	for f := range typ.Fields() {
		if f.Anonymous {
			inner := f.Type
			pointer := inner.Kind() == reflect.Pointer
			if pointer {
				inner = inner.Elem()
			}
			a, b := members(inner)
			all = append(all, a...)
			if !pointer {
				always = append(always, b...)
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, name)
		if options != "omitempty" {
			always = append(always, name)
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}

var reference = regexp.MustCompile(`\$ref: "#/components/(\w+)/(\w+)"`)

func TestOpenAPIReferencesLeadSomewhere(t *testing.T) {
	t.Parallel()
	d, text := readOpenAPI(t)
	used := map[string]bool{}
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		used[m[1]+"/"+m[2]] = true
		if _, ok := d.Components[m[1]][m[2]]; !ok {
			t.Errorf("%s leads nowhere", m[0])
		}
	}
	for kind, items := range d.Components {
		for name := range items {
			if kind != "securitySchemes" && !used[kind+"/"+name] {
				t.Errorf("components/%s/%s is not used", kind, name)
			}
		}
	}
	if n := strings.Count(text, "$ref"); n != len(reference.FindAllString(text, -1)) {
		t.Errorf("openapi.yaml has %d references, of which the test reads %d", n, len(reference.FindAllString(text, -1)))
	}
}
