package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestExportWritesAFileSystem(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	d.do("", "load -q -n team "+noise(t, 4*mib))
	want := d.server.do(t, http.MethodGet, "/api/v1/archives/export?image=team/app:1", nil).body
	if len(want) < 4*mib {
		t.Fatalf("the export has %d bytes", len(want))
	}
	file := filepath.Join(t.TempDir(), "rootfs.tar")
	line := newCutter(t, d.server.addr)
	command := "export --registry=" + line.addr + " -o " + file + " team/app:1"
	d.do("", command)
	checkSaved(t, file, want)
	if stdout := d.do("", "export -q team/app:1"); stdout != want {
		t.Errorf("export to standard output: %d bytes, want %d", len(stdout), len(want))
	}
	// What it writes is what import takes.
	if got := names(d.outcome("", "import "+file+" team/flat:1")); !slices.Equal(got, []string{"team/flat:1"}) {
		t.Errorf("import of what was exported = %v", got)
	}

	// It cannot be gone on with: it begins again, or leaves nothing.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	line.down.cuts = []int64{mib, 2 * mib}
	d.do("", command)
	checkSaved(t, file, want)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	line.down.cuts = []int64{3 * mib}
	said := d.interrupted(&line.down, command, file+".part", mib)
	if list, err := os.ReadDir(filepath.Dir(file)); !strings.Contains(said, "nothing is left of it") || err != nil || len(list) != 0 {
		t.Errorf("an export that is interrupted leaves %v, %v\n%s", list, err, said)
	}
	line.down.cuts = []int64{2 * mib}
	if code, _, stderr := d.run("", "export --registry="+line.addr+" team/app:1"); code != exitFailure || stderr == "" {
		t.Errorf("an export to standard output that breaks = %d, %q", code, stderr)
	}

	d.fail(exitFailure, "", "export -o "+file+" team/none:1", "team/none")
	for _, line := range []string{"export", "export a/b c/d"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}
