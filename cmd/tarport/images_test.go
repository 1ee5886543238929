package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/extensions/tags"
)

// imageSpec is an image to load.
type imageSpec struct {
	tags   []string
	arch   string
	layers []string
	config map[string]any // beside os, architecture and rootfs
}

// imageArchive is a file with images, as docker save writes it.
func imageArchive(t *testing.T, images ...imageSpec) string {
	t.Helper()
	files, manifest := []any{}, []map[string]any{}
	for i, im := range images {
		diffIDs, names := []digest.Digest{}, []string{}
		for j, l := range im.layers {
			diffIDs, names = append(diffIDs, digest.FromString(l)), append(names, fmt.Sprintf("%d/%d.tar", i, j))
			files = append(files, names[j], []byte(l))
		}
		config := map[string]any{"os": "linux", "architecture": im.arch, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}
		for k, v := range im.config {
			config[k] = v
		}
		b, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.json", i)
		files = append(files, name, b)
		manifest = append(manifest, map[string]any{"Config": name, "RepoTags": im.tags, "Layers": names})
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := os.WriteFile(file, []byte(tarOf(t, append(files, "manifest.json", b)...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The files by which one knows a base.
const (
	alpineRelease = "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\n"
	debianRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n"
)

// newImageDesk is a desk at a server with a repository to choose from.
func newImageDesk(t *testing.T) *desk {
	t.Helper()
	d := newTransferDesk(t)
	alpine := tarOf(t, "etc/os-release", []byte(alpineRelease), "lib/ld-musl-x86_64.so.1", []byte("\x7fELF"), "lib/apk/db/installed", []byte("P:musl\nV:1.2.4\n\n"))
	debian := tarOf(t, "etc/os-release", []byte(debianRelease), "lib64/ld-linux-x86-64.so.2", []byte("\x7fELF"),
		"var/lib/dpkg/status", []byte("Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\n"), "usr/share/doc/x", bytes.Repeat([]byte("doc "), 20000))
	jdk := func(version string) string {
		return tarOf(t, "opt/java/release", []byte("JAVA_VERSION="+version+"\n"), "docker-entrypoint.sh", []byte("#!/bin/sh\n# "+version+"\nexec \"$@\"\n"))
	}
	config := func(version, base string) map[string]any {
		return map[string]any{
			"created": "2026-01-31T12:00:00Z", "author": "Ada <ada@example.com>",
			"config": map[string]any{
				"Env": []string{"PATH=/usr/bin:/bin", "JAVA_VERSION=" + version}, "Entrypoint": []string{"/docker-entrypoint.sh"}, "Cmd": []string{"jshell", "-v"},
				"ExposedPorts": map[string]any{"8080/tcp": struct{}{}}, "Volumes": map[string]any{"/data": struct{}{}}, "User": "app", "WorkingDir": "/srv",
				"Labels": map[string]string{"maintainer": "ada", "note": "two\nlines \x1b[31m"}, "StopSignal": "SIGINT",
				"Healthcheck": map[string]any{"Test": []string{"CMD-SHELL", "true"}, "Interval": 30_000_000_000, "Retries": 3},
			},
			"history": []map[string]any{
				{"created": "2026-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:" + strings.Repeat("ab", 32) + " in / ", "comment": base},
				{"created": "2026-01-31T12:00:00Z", "created_by": "ENV JAVA_VERSION=" + version, "empty_layer": true},
				{"created": "2026-01-31T12:00:00Z", "created_by": "RUN /bin/sh -c install-jdk \x1b]0;mine\x07 # buildkit", "comment": "buildkit.dockerfile.v0"},
			},
		}
	}
	note := config("17.0.10", "")
	note["comment"] = "fix the clock\nand \x1b[2J\u009b31mthe zone"
	file := imageArchive(t,
		imageSpec{[]string{"openjdk:17.0.2-alpine"}, "arm64", []string{alpine, jdk("17.0.2")}, config("17.0.2", "")},
		imageSpec{[]string{"openjdk:17.0.2"}, "amd64", []string{debian, jdk("17.0.2")}, config("17.0.2", "")},
		imageSpec{[]string{"openjdk:17.0.10-alpine", "openjdk:17-alpine"}, "amd64", []string{alpine, jdk("17.0.10")}, config("17.0.10", "")},
		imageSpec{[]string{"openjdk:17.0.10", "openjdk:17", "openjdk:latest"}, "amd64", []string{debian, jdk("17.0.10")}, note},
		imageSpec{[]string{"openjdk:nightly"}, "amd64", []string{debian, jdk("22-ea")}, config("22-ea", "")},
		imageSpec{[]string{"bases/debian:12"}, "amd64", []string{debian}, map[string]any{"config": map[string]any{"Env": []string{"PATH=/usr/bin:/bin"}}}},
	)
	d.do("", "load -q -n team --compression=none "+file)
	d.script.Reset()
	return d
}

func TestTagsAndVariantsAreTables(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	for _, line := range []string{
		"ls", "ls team -q open", "tags team/openjdk", "tags team/openjdk --variant=alpine --platform=linux/arm64", "tags team/openjdk --base debian --version ^17 --sort size -n 2",
		"tags team/openjdk -q *.10* --all", "tags team/openjdk -q none", "variants team/openjdk", "variants team/openjdk -n 1", "variants team/openjdk --all --platform linux/arm64",
		"search openjdk alpine", "search base:debian:12 package:libc6 tag:1", "search -n 1 env:JAVA_VERSION", "search nothing-of-this",
	} {
		d.do("", line)
	}
	golden(t, "images.golden", d.script.String())

	var list []tags.Tag
	if err := json.Unmarshal([]byte(d.do("", "tags "+d.server.addr+"/team/openjdk --format=json -q latest")), &list); err != nil || len(list) != 1 {
		t.Fatalf("tags as JSON: %d of them, %v", len(list), err)
	}
	if got := list[0].Platforms[0]; got.Base == nil || got.Base.ID != "debian" || !strings.HasPrefix(got.Message, "fix the clock\nand ") {
		t.Errorf("the tag latest is %+v", got)
	}
	var m tags.Matrix
	if err := json.Unmarshal([]byte(d.do("", "variants team/openjdk --format=json")), &m); err != nil || len(m.Versions) != 2 {
		t.Errorf("variants as JSON: %v, %v", m.Versions, err)
	}
	var repositories []namespaces.Repository
	if err := json.Unmarshal([]byte(d.do("", "ls --format=json")), &repositories); err != nil || len(repositories) != 2 {
		t.Errorf("ls as JSON: %v, %v", repositories, err)
	}
	var found []tags.Found
	if err := json.Unmarshal([]byte(d.do("", "search --format=json label:maintainer=ada tag:latest")), &found); err != nil || len(found) != 1 || found[0].Repository != "team/openjdk" {
		t.Errorf("search as JSON: %+v, %v", found, err)
	}
	if text := d.script.String(); strings.ContainsFunc(text, escaped) {
		t.Errorf("control characters are printed:\n%q", text)
	}
	d.fail(exitFailure, "", "tags team/none", "team/none")
	d.fail(exitFailure, "", "tags team/openjdk --sort color", "use name, version, pushed, pulled or size")
	d.fail(exitFailure, "", "ls none", "none")
	for _, line := range []string{"tags", "tags a b", "tags UPPER/case", "tags team/openjdk -n 0", "variants", "tags team/openjdk --format=xml", "ls a/b", "tags registry.example.com/team/openjdk", "search", "search -n 0 x"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

// completions are what the shell is offered for the last word.
func (d *desk) completions(line string) []string {
	d.t.Helper()
	words := slices.Collect(strings.SplitSeq(line, " "))
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, environ: d.environ}
	if code := run(d.t.Context(), a, append([]string{"__complete"}, words...)); code != exitOK {
		d.t.Errorf("the completion of %q ends with %d: %s", line, code, errs.String())
	}
	list := []string{}
	for l := range strings.Lines(out.String()) {
		if !strings.HasPrefix(l, ":") {
			list = append(list, strings.TrimSuffix(l, "\n"))
		}
	}
	return list
}

func TestNamesAreCompleted(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	for line, want := range map[string][]string{
		"tags ":                           {"team/bases/debian", "team/openjdk"},
		"tags team/o":                     {"team/openjdk"},
		"tags openjdk":                    {},
		"variants te":                     {"team/bases/debian", "team/openjdk"},
		"tags team/openjdk ":              {},
		"ls te":                           {"team"},
		"save team/":                      {"team/bases/debian", "team/openjdk"},
		"save team/b":                     {"team/bases/debian:12"},
		"save team/openjdk:17.0.2":        {"team/openjdk:17.0.2", "team/openjdk:17.0.2-alpine"},
		"save team/b team/openjdk:l":      {"team/openjdk:latest"},
		"export team/openjdk:n":           {"team/openjdk:nightly"},
		"save team/none:1":                {},
		"save team/openjdk:*":             {},
		"save registry.example.com/team/": {},
		"export " + d.server.addr + "/team/openjdk:n": {d.server.addr + "/team/openjdk:nightly"},
	} {
		if got := d.completions(line); !slices.Equal(got, want) {
			t.Errorf("tarport %s<Tab> = %q, want %q", line, got, want)
		}
	}
	stranger := newDesk(t, d.server)
	if got := stranger.completions("tags "); len(got) != 0 {
		t.Errorf("without a login = %q, want nothing", got)
	}
}
