package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// metricsOf reads /metrics, a value for each series.
func metricsOf(t *testing.T, p *process) (series map[string]string, names []string) {
	t.Helper()
	got := (&process{addr: p.metrics}).do(t, http.MethodGet, "/metrics", nil)
	if got.status != http.StatusOK {
		t.Fatalf("GET /metrics = %d %s", got.status, got.body)
	}
	series = map[string]string{}
	for line := range strings.Lines(got.body) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			series[line[:at]] = line[at+1:]
		}
	}
	return series, names
}

var documentedMetric = regexp.MustCompile("(?m)^\\| `([a-z_]+)`")

func TestEveryMetricIsDocumented(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	p.do(t, http.MethodGet, "/v2/", nil) // no request, no series of requests
	// What is added up in the background comes when it was.
	var names []string
	for !slices.Contains(names, "tarport_storage_blobs") {
		_, names = metricsOf(t, p)
	}
	var got []string
	for _, name := range names {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			got = append(got, name)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range documentedMetric.FindAllSubmatch(text, -1) {
		want = append(want, string(m[1]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-docs/metrics.md +/metrics):\n%s", diff)
	}
}

func TestMetricsTellWhatBecameOfArchives(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	d.do("", "load -n team "+fixtureFile("docker20/names-with-registry.tar"))
	d.do("", "save -o "+filepath.Join(t.TempDir(), "x.tar")+" team/deep/path/of/names/hello:V1_x.y-Z")
	archive := []byte("this is no archive")
	if got := d.server.do(t, http.MethodPut, "/api/v1/archives/load?namespace=team", strings.NewReader(string(archive))); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a load of text = %d %s", got.status, got.body)
	}
	stranger := newDesk(t, d.server)
	stranger.fail(exitFailure, "wrong", "login -u admin --password-stdin", "is wrong")

	series := map[string]string{}
	for series[`tarport_archives_total{kind="save",outcome="ok"}`] != "1" { // it is counted when the last byte was sent
		series, _ = metricsOf(t, d.server)
	}
	for name, want := range map[string]string{
		`tarport_archives_total{kind="load",outcome="ok"}`:      "1",
		`tarport_archives_total{kind="load",outcome="refused"}`: "1",
		`tarport_archives_total{kind="load",outcome="failed"}`:  "0",
		`tarport_archives_total{kind="export",outcome="gone"}`:  "0",
		`tarport_archive_duration_seconds_count{kind="load"}`:   "1",
		`tarport_archive_layers_total{action="compressed"}`:     "1",
		`tarport_archives_under_way{kind="load"}`:               "0",
		`tarport_archive_places`:                                "16",
		`tarport_archive_places_taken`:                          "0",
		`tarport_archives_waiting`:                              "0",
		`tarport_logins_refused_total{reason="wrong"}`:          "1",
		`tarport_logins_refused_total{reason="limited"}`:        "0",
	} {
		if got := series[name]; got != want {
			t.Errorf("%s = %q, want %s", name, got, want)
		}
	}
	for _, name := range []string{`tarport_archive_received_bytes_total{kind="load"}`, `tarport_archive_stored_bytes_total{kind="load"}`, `tarport_archive_sent_bytes_total{kind="save"}`} {
		if got := series[name]; got == "" || got == "0" {
			t.Errorf("%s = %q, want some bytes", name, got)
		}
	}
	for name := range series {
		if strings.HasPrefix(name, "registry_") {
			t.Errorf("there is %s, of what is not done here", name)
		}
	}
}
