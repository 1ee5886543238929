package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

// runOutcome is outcome for a command line that has spaces in its words.
func (d *desk) runOutcome(stdin []byte, args ...string) (out transfer.Outcome) {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{in: bytes.NewReader(stdin), out: &stdout, err: &stderr, environ: d.environ}
	if code := run(d.t.Context(), a, append(args, "--format=json")); code != exitOK {
		d.t.Fatalf("tarport %q = %d\n%s", args, code, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		d.t.Fatalf("tarport %q: %v\n%s", args, err, stdout.String())
	}
	return out
}

// imageConfig is the config of an image at the server.
func (d *desk) imageConfig(out transfer.Outcome) string {
	d.t.Helper()
	if len(out.Images) != 1 {
		d.t.Fatalf("%d images, want one: %+v", len(out.Images), out)
	}
	repository, _ := splitTag(out.Images[0].Name)
	a := d.server.do(d.t, http.MethodGet, "/v2/"+repository+"/blobs/"+out.Images[0].ImageID, nil)
	if a.status != http.StatusOK {
		d.t.Fatalf("config of %s: %d", out.Images[0].Name, a.status)
	}
	return a.body
}

func TestImportMakesAnImage(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	file := fixtureFile("outer/export.tar.zst")
	changes := []string{"-m", "as it ran", "--author=Ann <ann@example.com>", "-c", `CMD ["/bin/sh", "-l"]`, "-c", `ENV A="b c"`, "--platform=linux/arm64"}
	wants := []string{`"architecture":"arm64"`, `"Cmd":["/bin/sh","-l"]`, `"Env":["A=b c"]`, `"author":"Ann \u003cann@example.com\u003e"`, `"comment":"as it ran"`}
	for name, out := range map[string]transfer.Outcome{
		"a file":         d.runOutcome(nil, append([]string{"import", file, "team/web:1"}, changes...)...),
		"standard input": d.runOutcome(readAll(t, file), append([]string{"import", "-", d.server.addr + "/team/web:2"}, changes...)...),
		"parts":          d.runOutcome(nil, append([]string{"import", "--resume", "--part-size=20KiB", file, "team/web:3"}, changes...)...),
	} {
		config := strings.ReplaceAll(strings.ReplaceAll(d.imageConfig(out), "<", `\u003c`), ">", `\u003e`)
		for _, want := range wants {
			if !strings.Contains(config, want) {
				t.Errorf("import of %s: the config has no %s:\n%s", name, want, config)
			}
		}
	}
	if got := names(d.runOutcome(nil, "import", file, "team/web")); !slices.Equal(got, []string{"team/web:latest"}) {
		t.Errorf("import without a tag = %v, want team/web:latest", got)
	}
	code, stdout, stderr := d.run("", "import "+file+" team/web:4")
	if code != exitOK || !strings.HasPrefix(stdout, "NAME        PLATFORM") || !strings.Contains(stdout, "team/web:4  linux/") {
		t.Errorf("import = %d, stdout\n%s\nstderr\n%s", code, stdout, stderr)
	}

	d.fail(exitFailure, "", "import "+fixtureFile("docker20/names-with-registry.tar")+" team/web:5", "load")
	d.fail(exitFailure, "", "import -c BREW "+file+" team/web:5", "BREW")
	d.fail(exitFailure, "", "import "+filepath.Join(t.TempDir(), "none")+" team/web:5", "no such file")
	for _, line := range []string{"import", "import a.tar", "import a.tar web:1", "import a.tar team/web@sha256:abc", "import --part-size=much a.tar team/web", "import a.tar registry.example.com/team/web"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
	if kept, left := d.kept(), d.uploads(); len(kept) != 0 || strings.TrimSpace(left) != `{"items":[]}` {
		t.Errorf("left behind: %v, %s", kept, left)
	}
}
