package tarport_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tarport/tarport"

// allowed is what a package may import beside the standard library.
type allowed struct {
	own     []string // our packages
	modules []string // other people's modules
}

// policy has a row for each package; docs/architecture.md says why. Imports go
// one way, packages of one rank do not import each other, SQL drivers stay in
// storage/metadata, and distribution in storage, registry and cmd.
var policy = map[string]allowed{
	// the vocabulary
	"": {modules: []string{reference, godigest}},

	"internal/version": {},
	"internal/deflate": {},

	"storage/metadata": {
		own:     []string{"", "internal/version"},
		modules: []string{"github.com/jackc/pgx/v5", "modernc.org/sqlite", "github.com/pressly/goose/v3", godigest, xsys},
	},
	"storage/layer":      {modules: []string{compress, "github.com/mikelolasagasti/xz"}},
	"storage/layer/scan": {},
	"internal/httpapi":   {own: []string{""}},
	"internal/client":    {own: []string{""}},
	"internal/places":    {own: []string{""}},
	"internal/tarball":   {modules: []string{godigest, imagespec, compress}},

	"storage": {own: []string{"", "storage/metadata", "storage/layer", "storage/layer/scan"}, modules: []string{distribution, reference, godigest, imagespec, xsync, xsys}},
	"auth":    {own: []string{"", "storage/metadata", "internal/httpapi"}, modules: []string{"github.com/golang-jwt/jwt/v5", mux, xcrypto, xsync}},

	"registry": {
		own:     []string{"", "storage", "storage/metadata", "internal/httpapi"},
		modules: []string{distribution, reference, godigest, imagespec, mux, xsync},
	},
	"extensions/archive": {
		own: []string{"", "storage", "storage/metadata", "storage/layer", "storage/layer/scan", "internal/httpapi", "internal/places", "internal/deflate"},
		modules: []string{
			reference, godigest, imagespec, mux, xsync,
			compress, "github.com/mikelolasagasti/xz",
			"github.com/moby/buildkit", "github.com/moby/docker-image-spec", "github.com/containerd/platforms",
		},
	},
	"extensions/tags": {
		own:     []string{"", "storage", "storage/metadata", "internal/httpapi", "internal/places", "internal/version"},
		modules: []string{godigest, mux},
	},
	"extensions/uploads": {own: []string{"", "storage", "storage/metadata", "internal/httpapi"}, modules: []string{mux}},
	"extensions/engine": {
		own:     []string{"", "storage", "storage/metadata", "internal/httpapi"},
		modules: []string{reference, godigest, imagespec, mux},
	},

	"extensions/images": {
		own:     []string{"", "storage", "storage/metadata", "storage/layer", "storage/layer/scan", "internal/httpapi", "internal/places"},
		modules: []string{godigest, imagespec, mux},
	},

	"extensions/namespaces": {
		own:     []string{"", "storage/metadata", "internal/httpapi"},
		modules: []string{mux},
	},

	"extensions/scanner": {
		own:     []string{"", "storage", "storage/metadata", "storage/layer/scan"},
		modules: []string{godigest, xsync},
	},

	"cmd/tarport/internal/config": {own: []string{""}, modules: []string{distribution, yaml}},
	"cmd/tarport/internal/server": {
		own:     []string{"", "internal/httpapi", "cmd/tarport/internal/config"},
		modules: []string{distribution, prometheus, xcrypto, xsync},
	},
	"cmd/tarport/internal/docker":   {},
	"cmd/tarport/internal/progress": {modules: []string{"github.com/vbauerster/mpb/v8", "golang.org/x/term"}},
	"cmd/tarport/internal/table":    {modules: []string{"github.com/mattn/go-runewidth"}},
	"cmd/tarport/internal/transfer": {
		own:     []string{"", "internal/client", "internal/tarball", "extensions/archive", "cmd/tarport/internal/progress"},
		modules: []string{godigest},
	},
	"cmd/tarport": {
		own: []string{
			"", "storage", "storage/metadata", "auth", "registry",
			"extensions/archive", "extensions/engine",
			"extensions/images", "extensions/namespaces",
			"extensions/scanner", "extensions/tags", "extensions/uploads",
			"internal/httpapi", "internal/client",
			"cmd/tarport/internal/config", "cmd/tarport/internal/docker", "cmd/tarport/internal/progress", "cmd/tarport/internal/server", "cmd/tarport/internal/table", "cmd/tarport/internal/transfer",
		},
		modules: []string{distribution, godigest, "github.com/spf13/cobra", "github.com/sirupsen/logrus", mux, prometheus, xsync, "golang.org/x/term"},
	},

	// helpers of tests
	"internal/pgtest": {modules: []string{"github.com/jackc/pgx/v5"}},
	"internal/e2e":    {},

	"storage/metadata/metadatatest": {own: []string{"storage/metadata", "internal/pgtest"}},
}

// The modules that several rows name.
const (
	distribution = "github.com/distribution/distribution/v3"
	reference    = "github.com/distribution/reference"
	godigest     = "github.com/opencontainers/go-digest"
	imagespec    = "github.com/opencontainers/image-spec"
	mux          = "github.com/gorilla/mux"
	compress     = "github.com/klauspost/compress"
	yaml         = "github.com/goccy/go-yaml"
	prometheus   = "github.com/prometheus/client_golang"
	xcrypto      = "golang.org/x/crypto"
	xsync        = "golang.org/x/sync"
	xsys         = "golang.org/x/sys"
)

// onlyInTests are the packages that nothing but a test imports.
var onlyInTests = []string{"internal/pgtest", "internal/e2e", "storage/metadata/metadatatest"}

// testModules are what the tests of every package may import too.
var testModules = []string{
	"github.com/google/go-cmp", "github.com/google/go-containerregistry", "github.com/rogpeppe/go-internal", "github.com/Masterminds/semver/v3",
	"github.com/sirupsen/logrus", // what distribution logs with
	compress, godigest, imagespec, mux, xsync, xsys, yaml,
}

// goPackage is what the files of one directory import, on any platform.
type goPackage struct {
	imports     []string
	testImports []string
}

// ownName is a path without the module: "storage" for …/tarport/storage.
func ownName(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

func TestImportsFollowThePolicy(t *testing.T) {
	t.Parallel()
	packages := listPackages(t)
	for name, p := range packages {
		row, ok := policy[name]
		if !ok {
			t.Errorf("package %q has no row in the policy", name)
			continue
		}
		for _, path := range p.imports {
			if !row.allows(path) {
				t.Errorf("%q imports %s, which its row does not allow", name, path)
			}
			if isOwn(path) && slices.Contains(onlyInTests, ownName(path)) && !slices.Contains(onlyInTests, name) {
				t.Errorf("%q imports %s, which only tests may", name, path)
			}
		}
		row.modules = slices.Concat(row.modules, testModules)
		for _, path := range p.testImports {
			if !isOwn(path) && !row.allows(path) {
				t.Errorf("the tests of %q import %s, which neither its row nor the tests' list allows", name, path)
			}
		}
	}
	for name := range policy {
		if packages[name] == nil {
			t.Errorf("the policy has a row for %q, which is no package", name)
		}
	}
}

// TestPolicyGoesOneWay keeps a cycle or a shortcut out of the table itself.
func TestPolicyGoesOneWay(t *testing.T) {
	t.Parallel()
	ranks := map[string]int{
		"": 0, "internal/version": 0, "internal/deflate": 0,
		"storage/metadata": 1, "storage/layer": 1, "storage/layer/scan": 1, "internal/httpapi": 1, "internal/places": 1, "internal/client": 1, "internal/tarball": 1,
		"storage": 2, "auth": 2,
		"registry":           3,
		"extensions/archive": 3, "extensions/engine": 3,
		"extensions/images": 3, "extensions/namespaces": 3,
		"extensions/scanner": 3, "extensions/tags": 3, "extensions/uploads": 3,
		"cmd/tarport/internal/config": 4, "cmd/tarport/internal/docker": 4, "cmd/tarport/internal/progress": 4, "cmd/tarport/internal/server": 5, "cmd/tarport/internal/table": 4, "cmd/tarport/internal/transfer": 5, "cmd/tarport": 6,
		"internal/pgtest": 0, "internal/e2e": 0, "storage/metadata/metadatatest": 2,
	}
	for _, name := range slices.Sorted(maps.Keys(policy)) {
		rank, ok := ranks[name]
		if !ok {
			t.Errorf("%q has no rank", name)
		}
		for _, own := range policy[name].own {
			if lower, ok := ranks[own]; !ok || lower >= rank {
				t.Errorf("the policy lets %q (rank %d) import %q (rank %d), which is not below it", name, rank, own, lower)
			}
		}
	}
}

// allows tells whether the row allows the import.
func (a allowed) allows(path string) bool {
	if isOwn(path) {
		return slices.Contains(a.own, ownName(path))
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(a.modules, func(m string) bool {
		return path == m || strings.HasPrefix(path, m+"/")
	})
}

func isOwn(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// listPackages reads the import declarations of all files: in this process, so
// that Go's test cache knows what the result depends on, and without regard to
// build constraints, so that no platform has imports of its own.
func listPackages(t *testing.T) map[string]*goPackage {
	t.Helper()
	packages := map[string]*goPackage{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (name == "testdata" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Dir(path))
		if name == "." {
			name = ""
		}
		p := packages[name]
		if p == nil {
			p = &goPackage{}
			packages[name] = p
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, "_test.go") {
				p.testImports = append(p.testImports, imported)
			} else {
				p.imports = append(p.imports, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read imports: %v", err)
	}
	return packages
}
