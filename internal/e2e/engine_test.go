package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dockerCLIs are all docker commands of this machine: versions differ in what
// they send.
func dockerCLIs(t *testing.T) (list []string) {
	t.Helper()
	var infos []os.FileInfo
	for _, dir := range append([]string{"/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, "docker")
		info, err := os.Stat(path)
		if err != nil || slices.ContainsFunc(infos, func(o os.FileInfo) bool { return os.SameFile(o, info) }) {
			continue
		}
		infos, list = append(infos, info), append(list, path)
	}
	if list == nil {
		lacking(t, "docker")
	}
	return list
}

// engine is a docker command whose daemon is a namespace, set up as the README
// says.
func (s *server) engine(t *testing.T, cli, ns, user, password string) *docker {
	t.Helper()
	d := &docker{cli: cli, host: "tcp://" + s.addr + "/engine/" + ns, config: t.TempDir()}
	config := fmt.Sprintf(`{"HttpHeaders":{"Authorization":"Basic %s"}}`, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	if user == "" {
		config = "{}"
	}
	if err := os.WriteFile(filepath.Join(d.config, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// feed runs docker with something on its standard input.
func (d *docker) feed(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.cli, args...)
	cmd.Env = append(os.Environ(), d.env()...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// lines of an output, in order.
func sortedLines(out string) []string {
	list := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(list)
	return list
}

func wantLines(t *testing.T, what, got string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, sortedLines(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestStockDockerOnANamespace does with the docker command all that a namespace
// can do as a daemon, next to a real daemon.
func TestStockDockerOnANamespace(t *testing.T) {
	t.Parallel()
	local := newDocker(t)
	word := unique()
	app, worker := word+"/app:1", word+"/worker:2"
	appID, workerID := local.appImage(t, app), local.appImage(t, worker)
	archive := local.save(t, app, worker)
	// One after the other: they load what they saved into the same daemon.
	for _, cli := range dockerCLIs(t) {
		t.Run(cli, func(t *testing.T) {
			s := serve(t)
			d := s.engine(t, cli, "team", "admin", adminPassword)
			e := &engineStory{t: t, d: d, local: local, s: s, app: app, worker: worker, appID: appID, workerID: workerID}
			e.load(archive)
			e.list()
			e.look()
			e.tag()
			e.save()
			e.importing()
			e.remove()
			e.server()
		})
	}
}

type engineStory struct {
	t               *testing.T
	d, local        *docker
	s               *server
	app, worker     string
	appID, workerID string
}

func (e *engineStory) load(archive string) {
	t := e.t
	t.Helper()
	want := []string{"Loaded image: " + e.app, "Loaded image: " + e.worker}
	wantLines(t, "load -i", e.d.must(t, "load", "-i", archive), want...)
	wantLines(t, "load -q -i", e.d.must(t, "load", "-q", "-i", archive), want...)
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "load of standard input", e.d.feed(t, data, "load"), want...)
}

func (e *engineStory) list() {
	t := e.t
	t.Helper()
	const format = "{{.Repository}}:{{.Tag}} {{.ID}}"
	short := func(id string) string { return strings.TrimPrefix(id, "sha256:")[:12] }
	appLine, workerLine := e.app+" "+short(e.appID), e.worker+" "+short(e.workerID)
	for _, args := range [][]string{
		{"images"},
		{"images", "-a"},
		{"image", "ls"},
		{"images", "--filter", "reference=*/*:*"},
		{"images", "--filter", "label=team=platform"},
		{"images", "--filter", "dangling=false"},
	} {
		wantLines(t, strings.Join(args, " "), e.d.must(t, append(args, "--format", format)...), appLine, workerLine)
	}
	repository, _, _ := strings.Cut(e.app, ":")
	for _, args := range [][]string{
		{"images", repository},
		{"images", e.app},
		{"images", "team/" + e.app},
		{"images", "--filter", "reference=*/app"},
		{"images", "--filter", "before=" + e.worker},
		{"images", "--filter", "label=team", "--filter", "reference=*/a??:1"},
	} {
		wantLines(t, strings.Join(args, " "), e.d.must(t, append(args, "--format", format)...), appLine)
	}
	wantLines(t, "images -q --no-trunc", e.d.must(t, "images", "-q", "--no-trunc"), e.appID, e.workerID)
	if got := e.d.must(t, "images", "-q", "--filter", "dangling=true"); got != "" {
		t.Errorf("images that dangle: %q, want none", got)
	}
	e.d.mustFail(t, "invalid filter 'color'", "images", "--filter", "color=blue")
	table := e.d.must(t, "images")
	if !strings.Contains(table, short(e.appID)) {
		t.Errorf("the table of docker images lacks %s:\n%s", short(e.appID), table)
	}
	// The digest is the one that the registry serves the image under.
	digest := e.d.must(t, "images", "--digests", "--format", "{{.Digest}}", e.app)
	e.s.client(t).must(t, http.StatusOK, http.MethodGet, "/v2/team/"+repository+"/manifests/"+digest, "repository:team/"+repository+":pull", nil)
}

// look compares inspect and history with what the local daemon says of the same
// image.
func (e *engineStory) look() {
	t := e.t
	t.Helper()
	const facts = "{{.Id}} {{.Os}}/{{.Architecture}} {{json .RootFS}} {{json .Config.Env}} {{json .Config.Cmd}} {{json .Config.Labels}} {{.Created}} {{.Author}} {{.Comment}}"
	want := e.local.must(t, "image", "inspect", "--format", facts, e.app)
	for _, args := range [][]string{{"inspect"}, {"image", "inspect"}, {"inspect", "--type", "image"}} {
		if got := e.d.must(t, append(args, "--format", facts, e.app)...); got != want {
			t.Errorf("%s = %s, want %s", strings.Join(args, " "), got, want)
		}
	}
	hex := strings.TrimPrefix(e.appID, "sha256:")
	for _, ref := range []string{hex[:12], hex, e.appID, "team/" + e.app, e.s.addr + "/team/" + e.app} {
		if got := e.d.must(t, "inspect", "--format", "{{.Id}} {{.RepoTags}}", ref); got != e.appID+" ["+e.app+"]" {
			t.Errorf("inspect %s = %s, want %s [%s]", ref, got, e.appID, e.app)
		}
	}
	var raw []map[string]any
	if err := json.Unmarshal([]byte(e.d.must(t, "inspect", e.app)), &raw); err != nil || len(raw) != 1 || raw[0]["Id"] != e.appID {
		t.Errorf("inspect without a format = %v (%v)", raw, err)
	}
	const format = "{{.CreatedBy}}|{{.Comment}}|{{.CreatedAt}}"
	want = e.local.must(t, "history", "--no-trunc", "--format", format, e.app)
	if got := e.d.must(t, "history", "--no-trunc", "--format", format, e.app); got != want {
		t.Errorf("history:\n%s\nwant\n%s", got, want)
	}
	if got := strings.Fields(e.d.must(t, "history", "-q", "--no-trunc", e.app)); got[0] != e.appID {
		t.Errorf("history -q begins with %s, want %s", got[0], e.appID)
	}
}

func (e *engineStory) tag() {
	t := e.t
	t.Helper()
	e.d.must(t, "tag", e.app, "app:stable")
	e.d.must(t, "tag", strings.TrimPrefix(e.appID, "sha256:")[:12], e.s.addr+"/team/app:2")
	repository, _, _ := strings.Cut(e.app, ":")
	e.d.must(t, "tag", "app:2", repository) // latest
	wantLines(t, "names after docker tag", e.d.must(t, "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=*app"), "app:stable", "app:2")
	for _, ref := range []string{"team/app:stable", "team/app:2", "team/" + repository + ":latest"} {
		image := e.s.addr + "/" + ref
		if out, err := e.local.login(t, e.s.addr, adminPassword); err != nil {
			t.Fatalf("docker login: %v\n%s", err, out)
		}
		e.local.must(t, "pull", image)
		t.Cleanup(func() { e.local.forget(image) })
		if got := e.local.imageID(t, image); got != e.appID {
			t.Errorf("docker pull of the tag %s = %s, want %s", ref, got, e.appID)
		}
	}
	e.d.mustFail(t, "No such image: absent:1", "tag", "absent:1", "app:3")
	e.d.mustFail(t, "invalid", "tag", e.app, "App:3")
}

func (e *engineStory) save() {
	t := e.t
	t.Helper()
	dir := t.TempDir()
	two, one := filepath.Join(dir, "two.tar"), filepath.Join(dir, "id.tar")
	e.d.must(t, "save", "-o", two, "app:stable", e.worker)
	wantLines(t, "docker load of what was saved", e.local.must(t, "load", "-i", two), "Loaded image: app:stable", "Loaded image: "+e.worker)
	t.Cleanup(func() { e.local.forget("app:stable") })
	for image, want := range map[string]string{"app:stable": e.appID, e.worker: e.workerID} {
		if got := e.local.imageID(t, image); got != want {
			t.Errorf("%s, saved and loaded, is %s, want %s", image, got, want)
		}
	}
	wantLines(t, "load of what was saved", e.d.must(t, "load", "-i", two), "Loaded image: app:stable", "Loaded image: "+e.worker)
	e.d.must(t, "save", "-o", one, strings.TrimPrefix(e.workerID, "sha256:")[:12])
	if out := e.local.must(t, "load", "-i", one); out != "Loaded image ID: "+e.workerID {
		t.Errorf("docker load of what was saved by ID says %q, want %s", out, e.workerID)
	}
	e.d.mustFail(t, "No such image: absent:1", "save", "-o", filepath.Join(dir, "none.tar"), e.app, "absent:1")
	all := filepath.Join(dir, "all.tar")
	e.d.must(t, "save", "-o", all, "app") // all tags of it
	t.Cleanup(func() { e.local.forget("app:2") })
	wantLines(t, "docker load of all tags", e.local.must(t, "load", "-i", all), "Loaded image: app:stable", "Loaded image: app:2")
}

func (e *engineStory) importing() {
	t := e.t
	t.Helper()
	rootfs := tarball(t, map[string]string{"etc/issue": unique()})
	args := []string{"import", "-c", "ENV A=b", "-c", "CMD [\"/bin/sh\"]", "-m", "from scratch", "-", "flat:1"}
	id := e.d.feed(t, rootfs, args...)
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(id) {
		t.Errorf("docker import prints %q, want an ID", id)
	}
	file := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(file, rootfs, 0o600); err != nil {
		t.Fatal(err)
	}
	e.d.must(t, "import", file, "flat:file")
	got := e.d.must(t, "inspect", "--format", "{{.Id}} {{json .Config.Env}} {{json .Config.Cmd}} {{.Comment}}", "flat:1")
	if want := id + ` ["A=b"] ["/bin/sh"] from scratch`; got != want {
		t.Errorf("the imported image is %s, want %s", got, want)
	}
	e.d.mustFail(t, "an image needs a name here", "import", file)
	e.d.mustFail(t, "nothing is downloaded here", "import", "http://127.0.0.1:1/rootfs.tar", "flat:2")
	e.d.must(t, "rmi", "flat:1", "flat:file")
}

func (e *engineStory) remove() {
	t := e.t
	t.Helper()
	repository, _, _ := strings.Cut(e.app, ":")
	if out := e.d.must(t, "rmi", "app:stable"); out != "Untagged: app:stable" {
		t.Errorf("rmi says %q", out)
	}
	e.d.mustFail(t, "No such image: app:stable", "rmi", "app:stable")
	hex := strings.TrimPrefix(e.appID, "sha256:")[:12]
	e.d.mustFail(t, "conflict: unable to delete "+hex+" (must be forced)", "rmi", hex)
	wantLines(t, "rmi -f of an ID", e.d.must(t, "rmi", "-f", hex), "Untagged: app:2", "Untagged: "+e.app, "Untagged: "+repository+":latest")
	wantLines(t, "rmi of an ID with one name", e.d.must(t, "rmi", e.workerID), "Untagged: "+e.worker)
	e.d.mustFail(t, "no such object", "inspect", hex)
	if out := e.d.must(t, "images", "-q"); out != "" {
		t.Errorf("images after all were removed: %q", out)
	}
	e.d.must(t, "rmi", "-f", "absent:1") // the client takes it for done
}

// server asks for what belongs to no image, and for what there is not.
func (e *engineStory) server() {
	t := e.t
	t.Helper()
	version := e.d.must(t, "version")
	for _, want := range []string{"Server: Tarport, the namespace team", "minimum version 1.24"} {
		if !strings.Contains(version, want) {
			t.Errorf("docker version lacks %q:\n%s", want, version)
		}
	}
	if out := e.d.must(t, "info"); !strings.Contains(out, "Operating System: Tarport") {
		t.Errorf("docker info says\n%s", out)
	}
	const notAnEngine = "this is a registry namespace, not a Docker engine: "
	for want, args := range map[string][]string{
		"containers are not supported": {"ps"},
		"containers are":               {"create", "app:1"},
		"networks are not supported":   {"network", "ls"},
		"volumes are not supported":    {"volume", "ls"},
		"pulling into it, ":            {"pull", "busybox"},
		"pushing from it, ":            {"push", "app:1"},
		"pruning, ":                    {"image", "prune", "-f"},
		"events are not supported":     {"events"},
		"Swarm is not supported":       {"node", "ls"},
	} {
		e.d.mustFail(t, notAnEngine+want, args...)
	}
	for want, args := range map[string][]string{
		"No such image: absent":           {"image", "inspect", "absent"},
		"no such object: absent":          {"inspect", "absent"},
		"No such image: absent:1":         {"history", "absent:1"},
		"there is nothing in the archive": {"load", "-i", os.DevNull},
	} {
		e.d.mustFail(t, want, args...)
	}
}
