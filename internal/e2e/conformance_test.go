package e2e

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tarport/tarport/internal/pgtest"
)

// suite is the version of the OCI distribution-spec conformance suite. It is a
// program of a module of its own, which go.mod cannot hold.
const suite = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"

// conformance is the built suite; the module and build caches keep it.
var conformance = sync.OnceValues(func() (string, error) {
	dir, err := process.tempDir()
	if err != nil {
		return "", err
	}
	install := exec.CommandContext(context.Background(), "go", "install", suite)
	install.Dir = dir // outside of our module
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install %s: %w\n%s", suite, err, out)
	}
	return filepath.Join(dir, "conformance"), nil
})

// junit is the part of the suite's report that counts.
type junit struct {
	Suites []struct {
		Cases []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
			Output string `xml:"system-out"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestConformance runs the OCI suite of version 1.1: as it is by default, and
// with the optional parts of the spec that this registry has as well.
func TestConformance(t *testing.T) {
	t.Parallel()
	tarport(t) // skips before a database is made
	for _, tc := range []struct {
		name       string
		server     []string // environment of the server
		suite      []string // environment of the suite
		minPassed  int
		maxSkipped int // cases that the spec leaves to the registry
	}{
		{
			name:      "defaults",
			minPassed: 693, maxSkipped: 2,
		},
		{
			name:      "defaults on PostgreSQL",
			server:    []string{"TARPORT_DATABASE_DSN=" + pgtest.DSN(t)},
			minPassed: 693, maxSkipped: 2,
		},
		{
			name:   "tag parameters, sparse manifests and upload cancel",
			server: []string{"TARPORT_MANIFESTS_SPARSE=true"},
			suite: []string{
				"OCI_API_MANIFESTS_TAG_PARAM=true", "OCI_DATA_SPARSE=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true",
			},
			minPassed: 830, maxSkipped: 0,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tc.server...)
			counts := runSuite(t, s, tc.suite)
			t.Logf("%d passed, %d failed, %d skipped", counts["passed"], counts["failure"]+counts["error"], counts["skipped"])
			if counts["passed"] < tc.minPassed {
				t.Errorf("passed cases = %d, want at least %d", counts["passed"], tc.minPassed)
			}
			if counts["skipped"] > tc.maxSkipped {
				t.Errorf("skipped cases = %d, want at most %d", counts["skipped"], tc.maxSkipped)
			}
		})
	}
}

// runSuite runs the suite against the server, fails the test for each case that
// failed, and counts the cases by status.
func runSuite(t *testing.T, s *server, env []string) map[string]int {
	t.Helper()
	program, err := conformance()
	if err != nil {
		lacking(t, err.Error())
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "OCI_VERSION=1.1", "OCI_TLS=disabled", "OCI_REGISTRY=" + s.addr,
		"OCI_USERNAME=admin", "OCI_PASSWORD=" + adminPassword, "OCI_RESULTS_DIR=" + dir,
	}, env...)
	out, runErr := cmd.CombinedOutput()
	b, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil {
		t.Fatalf("the suite wrote no report: %v, %v\n%s", err, runErr, out)
	}
	var report junit
	if err := xml.Unmarshal(b, &report); err != nil {
		t.Fatalf("read report: %v", err)
	}
	counts := map[string]int{}
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			counts[c.Status]++
			switch c.Status {
			case "passed":
			case "skipped":
				t.Logf("skipped: %s: %s", c.Name, strings.TrimSpace(c.Output))
			default:
				t.Errorf("%s: %s: %s", c.Status, c.Name, strings.TrimSpace(c.Output))
			}
		}
	}
	if runErr != nil && !t.Failed() {
		t.Errorf("the suite ended with %v, though no case failed\n%s", runErr, out)
	}
	return counts
}
