package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newSaveDesk is a desk at a server that has team/app:1, of 4 MiB.
func newSaveDesk(t *testing.T) (d *desk, want string) {
	t.Helper()
	d = newTransferDesk(t)
	d.do("", "load -q -n team "+noise(t, 4*mib))
	a := d.server.do(t, http.MethodGet, "/api/v1/archives/save?image=team/app:1", nil)
	if a.status != http.StatusOK || len(a.body) < 4*mib {
		t.Fatalf("GET of the archive: %d, %d bytes", a.status, len(a.body))
	}
	return d, a.body
}

// check compares a file with what it is to hold, and looks for what is beside
// it.
func checkSaved(t *testing.T, file, want string) {
	t.Helper()
	if got := readAll(t, file); string(got) != want {
		t.Errorf("%s has %d bytes, other than the %d of the registry", file, len(got), len(want))
	}
	list, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(list) != 1 {
		t.Errorf("beside %s: %v, %v", file, list, err)
	}
}

func TestSaveWritesWholeFiles(t *testing.T) {
	t.Parallel()
	d, want := newSaveDesk(t)
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(file, []byte("an old one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout := d.do("", "save -o "+file+" team/app:1"); stdout != "" {
		t.Errorf("save -o prints %q", stdout)
	}
	checkSaved(t, file, want)
	if stdout := d.do("", "save -q "+d.server.addr+"/team/app:1"); stdout != want {
		t.Errorf("save to standard output: %d bytes, want %d", len(stdout), len(want))
	}
	d.do("", "save -o "+os.DevNull+" team/app:1")

	// What it writes is what load takes.
	if got := names(d.outcome("", "load -n copy --rename=team/app=app "+file)); !slices.Equal(got, []string{"copy/app:1"}) {
		t.Errorf("load of what was saved = %v", got)
	}
	oci := filepath.Join(t.TempDir(), "oci.tar")
	d.do("", "save --archive-format=oci -o "+oci+" team/app:1")
	if b := readAll(t, oci); strings.Contains(string(b), "manifest.json") || !strings.Contains(string(b), "index.json") {
		t.Error("an OCI archive has a manifest.json, or no index.json")
	}

	none := filepath.Join(t.TempDir(), "none.tar")
	d.fail(exitFailure, "", "save -o "+none+" team/app:1 team/none:2", "team/none")
	d.fail(exitFailure, "", "save -o "+none+" --platform=linux/s390x team/app:1", "s390x")
	if list, err := os.ReadDir(filepath.Dir(none)); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	d.fail(exitFailure, "", "save -o "+t.TempDir()+" team/app:1", "is a directory")
	for _, line := range []string{"save", "save --archive-format=zip team/app:1", "save registry.example.com/team/app:1"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

func TestSaveIsNothingForATerminal(t *testing.T) {
	t.Parallel()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal can be had here: %v", err)
	}
	defer func() { _ = terminal.Close() }()
	if !isTerminal(terminal) {
		t.Skip("/dev/ptmx is no terminal here")
	}
	var words output
	a := &app{out: terminal, err: &words, environ: []string{"HOME=" + t.TempDir(), "TARPORT_PASSWORD=x"}}
	if code := run(t.Context(), a, []string{"save", "team/app:1"}); code != exitUsage || !strings.Contains(words.String(), "use -o FILE") {
		t.Errorf("save to a terminal = %d, %q", code, words.String())
	}
	a = &app{in: terminal, out: &words, err: &words, environ: a.environ}
	if code := run(t.Context(), a, []string{"load", "-n", "a", "-"}); code != exitUsage || !strings.Contains(words.String(), "standard input is a terminal") {
		t.Errorf("load from a terminal = %d, %q", code, words.String())
	}
}

func TestASaveGoesOn(t *testing.T) {
	t.Parallel()
	d, want := newSaveDesk(t)
	file := filepath.Join(t.TempDir(), "app.tar")
	line := newCutter(t, d.server.addr)

	// In one run.
	line.down.cuts = []int64{mib, mib, 1000, mib}
	d.do("", "save --registry="+line.addr+" -o "+file+" team/app:1")
	checkSaved(t, file, want)
	if got := line.down.count(); got > int64(len(want))+100_000 {
		t.Errorf("%d bytes came for an archive of %d", got, len(want))
	}
	line.down.cuts = []int64{mib, mib}
	if stdout := d.do("", "save -q --registry="+line.addr+" team/app:1"); stdout != want {
		t.Errorf("save to standard output over a line that breaks: %d bytes, want %d", len(stdout), len(want))
	}

	// In two.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	line.down.cuts = []int64{3 * mib}
	command := "save --registry=" + line.addr + " -o " + file + " team/app:1"
	if said := d.interrupted(&line.down, command, file+".part", 2*mib); !strings.Contains(said, "the same command goes on from there: interrupted") {
		t.Errorf("the interrupted save says\n%s", said)
	}
	if fi, err := os.Stat(file + ".part"); err != nil || fi.Size() < 2*mib {
		t.Fatalf("what has come: %v, %v", fi, err)
	}
	before := line.down.count()
	d.do("", command)
	checkSaved(t, file, want)
	if got := line.down.count() - before; got > 2*mib+100_000 || !strings.Contains(d.script.String(), "going on where it stopped") {
		t.Errorf("%d bytes came in the second run, want half of 4 MiB at most\n%s", got, d.script)
	}

	// Another image has the name when it goes on.
	line.down.cuts = []int64{3 * mib}
	d.interrupted(&line.down, command, file+".part", 2*mib)
	other := filepath.Join(t.TempDir(), "other.tar")
	if err := os.WriteFile(other, []byte(dockerArchive(t, 2*mib)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.do("", "load -q -n team "+other)
	d.do("", command)
	checkSaved(t, file, d.server.do(t, http.MethodGet, "/api/v1/archives/save?image=team/app:1", nil).body)
	if kept := d.kept(); len(kept) != 0 || !strings.Contains(d.script.String(), "is of another image") {
		t.Errorf("left behind: %v\n%s", kept, d.script)
	}
}
