package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

// fixtureFile is an archive that a real tool made.
func fixtureFile(name string) string {
	return filepath.Join("..", "..", "extensions", "archive", "testdata", filepath.FromSlash(name))
}

// newTransferDesk is a desk at a new server, of its administrator.
func newTransferDesk(t *testing.T) *desk {
	t.Helper()
	return newDesk(t, start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password), "TARPORT_PASSWORD="+password)
}

// outcome runs a command that prints what came of archives.
func (d *desk) outcome(stdin, line string) (out transfer.Outcome) {
	d.t.Helper()
	text := d.do(stdin, line+" --format=json")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		d.t.Fatalf("tarport %s: %v\n%s", line, err, text)
	}
	return out
}

// names are the names of what was loaded.
func names(out transfer.Outcome) []string {
	list := []string{}
	for _, im := range out.Images {
		list = append(list, im.Name)
	}
	slices.Sort(list)
	return list
}

func TestLoadTakesFilesAndStandardInput(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	docker, oci, packed := fixtureFile("docker20/names-with-registry.tar"), fixtureFile("skopeo/oci-archive-fullname.tar"), fixtureFile("outer/save.tar.zst")
	for _, tt := range []struct {
		stdin, line string
		want        []string
	}{
		{"", "load -n a " + docker, []string{"a/deep/path/of/names/hello:V1_x.y-Z"}},
		{"", "load -n b " + docker + " " + oci, []string{"b/deep/path/of/names/hello:V1_x.y-Z", "b/team-a/hello:1.0"}},
		{"", "load --namespace=c --repo=x/y --tag=2 " + docker, []string{"c/x/y:2"}},
		{"", "load --repo=d/y:3 " + packed, []string{"d/y:3"}},
		{"", "load -n e --rename=hello:1.0=other:2 --rename=registry.example.com:5000/team-a/hello=x " + oci, nil},
		{"", "load -n e --rename=registry.example.com:5000/team-a/hello=x " + oci, []string{"e/x:1.0"}},
		{"", "load -n f --whole --resume=never --compression=zstd " + docker, []string{"f/deep/path/of/names/hello:V1_x.y-Z"}},
		{string(readAll(t, packed)), "load -n g -", []string{"g/deep/path/of/names/hello:V1_x.y-Z"}},
	} {
		if tt.want == nil {
			d.fail(exitFailure, tt.stdin, tt.line, "the archive has no image")
			continue
		}
		out := d.outcome(tt.stdin, tt.line)
		if diff := cmp.Diff(tt.want, names(out)); diff != "" {
			t.Errorf("tarport %s (-want +got):\n%s", tt.line, diff)
		}
		if out.BytesSent == 0 || out.BytesRead == 0 {
			t.Errorf("tarport %s: %d bytes sent, %d read", tt.line, out.BytesSent, out.BytesRead)
		}
		for _, im := range out.Images {
			repository, tag := splitTag(im.Name)
			if a := d.server.do(t, http.MethodGet, "/v2/"+repository+"/manifests/"+tag, nil); a.status != http.StatusOK || a.header.Get("Docker-Content-Digest") != im.Digest.String() {
				t.Errorf("%s: %d, %s, want %s", im.Name, a.status, a.header.Get("Docker-Content-Digest"), im.Digest)
			}
		}
	}
}

func readAll(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadPrintsATable(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	line := "load -n a " + fixtureFile("docker20/names-with-registry.tar")
	code, stdout, stderr := d.run("", line)
	want := "NAME                                 PLATFORM     DIGEST               SIZE   LAYERS\n" +
		"a/deep/path/of/names/hello:V1_x.y-Z  linux/amd64  sha256:"
	if code != exitOK || !strings.HasPrefix(stdout, want) || !strings.HasSuffix(stdout, "  1 (1 new)\n") || !strings.Contains(stderr, "19.5 KiB sent") {
		t.Errorf("tarport %s = %d, stdout\n%s\nstderr\n%s\nwant\n%s", line, code, stdout, stderr, want)
	}
	code, stdout, stderr = d.run("", line+" --quiet")
	if code != exitOK || stdout != "a/deep/path/of/names/hello:V1_x.y-Z\n" || stderr != "" {
		t.Errorf("tarport %s --quiet = %d, %q, %q, want the name alone", line, code, stdout, stderr)
	}
	code, stdout, stderr = d.run("", "load -n a "+fixtureFile("oci/multiarch-skopeo-all.tar")+" --repo multi")
	if code != exitOK || !strings.Contains(stdout, "linux/amd64,linux/arm64") {
		t.Errorf("load of several platforms = %d, stdout\n%s\nstderr\n%s", code, stdout, stderr)
	}
	code, stdout, stderr = d.run("", "load -n a "+fixtureFile("docker29/save-platform-arm64.tar")+" --quiet")
	if code != exitOK || stdout == "" || stderr != "" {
		t.Errorf("load of one platform = %d, stdout\n%s\nstderr\n%s", code, stdout, stderr)
	}
}

func TestOneBadFileOfSeveral(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	dir := t.TempDir()
	bad, empty := filepath.Join(dir, "bad.tar"), filepath.Join(dir, "empty.tar")
	if err := os.WriteFile(bad, bytes.Repeat([]byte("not a tar "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := fixtureFile("docker20/names-with-registry.tar")
	code, stdout, stderr := d.run("", "load -n a -q "+bad+" "+good+" "+empty)
	if code != exitFailure || stdout != "a/deep/path/of/names/hello:V1_x.y-Z\n" ||
		!strings.Contains(stderr, bad+": this is not a tar archive") || !strings.Contains(stderr, empty+" is empty") || !strings.Contains(stderr, "2 of 3 files were not loaded") {
		t.Errorf("load = %d, stdout %q, stderr\n%s", code, stdout, stderr)
	}
	d.fail(exitFailure, "", "load -n a "+filepath.Join(dir, "none.tar"), "none.tar: no such file")
	d.fail(exitFailure, "", "load -n a "+dir, "is a directory")
	d.fail(exitFailure, "", "load -n a "+fixtureFile("hand/docker-1.7-v1-legacy.tar"), "Docker before 1.10")
	for _, line := range []string{
		"load", "load -n a --repo=x a.tar b.tar", "load --repo=x --rename=a=b a.tar", "load - -", "load --resume=perhaps a.tar", "load --compression=lzw a.tar", "load --format=xml a.tar",
	} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

func TestTheNamespaceIsFound(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	d.fail(exitUsage, "", "load "+fixtureFile("docker20/names-with-registry.tar"), "say into which namespace the images go: --namespace NAME")

	// Names of this registry say it themselves.
	own := filepath.Join(t.TempDir(), "own.tar")
	if err := os.WriteFile(own, []byte(archiveNamed(t, d.server.addr+"/shop/app:1", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := names(d.outcome("", "load "+own)); !slices.Equal(got, []string{"shop/app:1"}) {
		t.Errorf("load of a name of this registry = %v, want shop/app:1", got)
	}

	// The only one that there is to push to.
	plain := fixtureFile("docker20/names-with-registry.tar")
	if got := names(d.outcome("", "load "+plain)); !slices.Equal(got, []string{"shop/deep/path/of/names/hello:V1_x.y-Z"}) {
		t.Errorf("load with one namespace = %v, want it in shop", got)
	}
	d.do("", "ns create web")
	d.fail(exitUsage, "", "load "+plain, "you may push to shop, web")

	// A robot has one, and so has a token.
	robot, token := d.secret("robot create web ci --role=writer"), d.secret("token create t --namespace=shop")
	ci := newDesk(t, d.server, "TARPORT_USER=web+ci", "TARPORT_PASSWORD="+robot)
	if got := names(ci.outcome("", "load "+plain)); !slices.Equal(got, []string{"web/deep/path/of/names/hello:V1_x.y-Z"}) {
		t.Errorf("load by a robot = %v, want it in web", got)
	}
	laptop := newDesk(t, d.server, "TARPORT_USER=admin", "TARPORT_PASSWORD="+token)
	if got := names(laptop.outcome("", "load "+plain)); !slices.Equal(got, []string{"shop/deep/path/of/names/hello:V1_x.y-Z"}) {
		t.Errorf("load by a token = %v, want it in shop", got)
	}
	ci.fail(exitFailure, "", "load -n shop "+plain, "shop")
}

func TestNamesWithARegistry(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"team/app:1":                {"", "team/app:1"},
		"127.0.0.1:5000/team/app:1": {"127.0.0.1:5000", "team/app:1"},
		"registry.example.com/a/b":  {"registry.example.com", "a/b"},
		"localhost/a/b":             {"localhost", "a/b"},
		"app:1":                     {"", "app:1"},
	} {
		if host, rest := splitHost(in); host != want[0] || rest != want[1] {
			t.Errorf("splitHost(%q) = %q, %q, want %q", in, host, rest, want)
		}
	}
	for in, want := range map[string][2]string{
		"a/b:1": {"a/b", "1"}, "a/b": {"a/b", ""}, "h:5000/a/b": {"h:5000/a/b", ""}, "h:5000/a/b:x": {"h:5000/a/b", "x"},
	} {
		if repository, tag := splitTag(in); repository != want[0] || tag != want[1] {
			t.Errorf("splitTag(%q) = %q, %q, want %q", in, repository, tag, want)
		}
	}
}

// TestWhatTheRegistryHasIsNotSent loads every archive that tools made twice: of
// the second one no layer is sent, and the images are the same.
func TestWhatTheRegistryHasIsNotSent(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	files, err := filepath.Glob(fixtureFile("*/*.tar*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		line := "load -n a --format=json " + file
		code, first, stderr := d.run("", line)
		if strings.Contains(stderr, "repo=NAME") {
			line += " --repo=some/name"
			code, first, _ = d.run("", line)
		}
		if code != exitOK { // those that are none, or broken on purpose: extensions/archive looks at them
			continue
		}
		seen++
		var one, two transfer.Outcome
		if err := errors.Join(json.Unmarshal([]byte(first), &one), json.Unmarshal([]byte(d.do("", line)), &two)); err != nil {
			t.Fatal(err)
		}
		for i, im := range one.Images {
			for j := range im.Layers {
				im.Layers[j].Status = "exists"
			}
			for _, m := range im.Manifests {
				for j := range m.Layers {
					m.Layers[j].Status = "exists"
				}
			}
			if diff := cmp.Diff(im, two.Images[i]); diff != "" {
				t.Errorf("%s: image %d of the second load (-want +got):\n%s", file, i+1, diff)
			}
		}
		f, err := transfer.OpenFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Look(t.Context(), progress.New(progress.Options{Out: io.Discard}))
		_ = f.Close()
		if f.Archive == nil || len(f.Archive.Layers) == 0 { // xz and bzip2; artifacts
			continue
		}
		most := f.Archive.Size
		for _, l := range f.Archive.Layers {
			most -= l.Size
		}
		if two.BytesSent > most && two.BytesSent >= f.Size() {
			t.Errorf("%s: %d bytes were sent again, want %d at most of %d", file, two.BytesSent, most, f.Size())
		}
	}
	if seen < 60 {
		t.Errorf("%d archives were loaded, want nearly all of %d\n%s", seen, len(files), d.script)
	}
}

func TestOnlyTheNewLayerIsSent(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	base, own := tarOf(t, "base", bytes.Repeat([]byte("base"), mib)), tarOf(t, "own", []byte("own"))
	image := func(name string, layers ...string) string {
		diffIDs, names, files := []digest.Digest{}, []string{}, []any{}
		for i, l := range layers {
			diffIDs, names = append(diffIDs, digest.FromString(l)), append(names, fmt.Sprintf("%d.tar", i))
			files = append(files, names[i], []byte(l))
		}
		config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": names}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, []byte(tarOf(t, append(files, "config.json", config, "manifest.json", manifest)...)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	old, young := image("base:1", base), image("app:1", base, own)
	d.do("", "load -q -n team "+old)
	if out := d.outcome("", "load -n team "+young); out.BytesSent > 20_000 || out.Images[0].Layers[0].Status != "exists" || out.Images[0].Layers[1].Status != "stored" {
		t.Errorf("%d bytes were sent, layers %+v", out.BytesSent, out.Images[0].Layers)
	}
	if !strings.Contains(d.script.String(), "the registry has 1 of 2 layers, sending ") {
		t.Errorf("nothing is said of it:\n%s", d.script)
	}
	// Also in parts, with a compression, and not where all of it is wanted.
	if out := d.outcome("", "load -n parts --resume "+young); out.BytesSent > 20_000 {
		t.Errorf("in parts: %d bytes were sent", out.BytesSent)
	}
	if out := d.outcome("", "load -n packed --compression=zstd "+young); out.BytesSent > 20_000 {
		t.Errorf("with another compression: %d bytes were sent", out.BytesSent)
	}
	if out := d.outcome("", "load -n whole --whole "+young); out.BytesSent < 4*mib {
		t.Errorf("with --whole: %d bytes were sent", out.BytesSent)
	}
	// Somebody who may not pull the base sends it.
	d.do("", "ns create theirs")
	robot := d.secret("robot create theirs ci --role=writer")
	ci := newDesk(t, d.server, "TARPORT_USER=theirs+ci", "TARPORT_PASSWORD="+robot)
	if out := ci.outcome("", "load "+young); out.BytesSent < 4*mib {
		t.Errorf("by a stranger to the base: %d bytes were sent", out.BytesSent)
	}
}

// TestNothingIsSentThatHasNoRoom: who asks first is told before the bytes move.
func TestNothingIsSentThatHasNoRoom(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	plain, packed := fixtureFile("docker20/names-with-registry.tar"), fixtureFile("skopeo/oci-archive-fullname.tar")
	d.do("", "load -n team "+plain)
	d.do("", "ns set team --quota=1B")
	rootFS := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(rootFS, []byte(tarOf(t, "file", []byte("new"))), 0o600); err != nil {
		t.Fatal(err)
	}
	began := func() string { // how many requests there were that begin an upload, or send an archive
		series, _ := metricsOf(t, d.server)
		return series[`tarport_archives_total{kind="load",outcome="refused"}`] + series[`tarport_archives_total{kind="import",outcome="refused"}`] +
			" " + series[`tarport_http_request_duration_seconds_count{code="2xx",method="PATCH"}`]
	}
	before := began()
	for _, line := range []string{"load -n team --resume=always " + packed, "load -n team --resume=never " + packed, "import --resume=always " + rootFS + " team/new:1"} {
		d.fail(exitFailure, "", line, "the namespace team")
	}
	// What is compressed takes as much as it has; what is not may shrink.
	d.do("", "ns create small --quota=100B")
	d.fail(exitFailure, "", "load -n small --resume=always "+packed, "the namespace small")
	if after := began(); after != before {
		t.Errorf("refused archives and parts = %s, want %s as before: they were sent", after, before)
	}
	d.do("", "load -n team --resume=always "+plain) // it is there, so it takes no room
}
