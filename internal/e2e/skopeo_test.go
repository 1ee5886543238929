package e2e

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// skopeo is the skopeo command of one test, with logins of its own.
type skopeo struct {
	program  string
	authfile string
}

func newSkopeo(t testing.TB) *skopeo {
	t.Helper()
	tarport(t)
	return &skopeo{program: program(t, "skopeo"), authfile: filepath.Join(t.TempDir(), "auth.json")}
}

func (k *skopeo) run(t testing.TB, command string, args ...string) (string, error) {
	t.Helper()
	return run(t, nil, k.program, append([]string{"--insecure-policy", command, "--authfile", k.authfile}, args...)...)
}

func (k *skopeo) must(t testing.TB, command string, args ...string) string {
	t.Helper()
	out, err := k.run(t, command, args...)
	if err != nil {
		t.Fatalf("skopeo %s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (k *skopeo) mustLogin(t testing.TB, s *server) {
	t.Helper()
	mustRun(t, nil, k.program, "login", "--authfile", k.authfile, "--tls-verify=false", "-u", "admin", "-p", adminPassword, s.addr)
}

func TestSkopeoLogin(t *testing.T) {
	t.Parallel()
	k, s := newSkopeo(t), serve(t)
	out, err := run(t, nil, k.program, "login", "--authfile", k.authfile, "--tls-verify=false", "-u", "admin", "-p", "battery", s.addr)
	if err == nil {
		t.Fatalf("skopeo login with a wrong password succeeded:\n%s", out)
	}
	if !strings.Contains(out, "invalid username/password") {
		t.Errorf("skopeo login with a wrong password says %q, want it to say invalid username/password", out)
	}
	if out, err := k.run(t, "list-tags", "--tls-verify=false", "docker://"+s.addr+"/team/app"); err == nil {
		t.Errorf("skopeo list-tags without login succeeded:\n%s", out)
	}
	k.mustLogin(t, s)
}

func TestSkopeoCopiesListsInspectsAndDeletes(t *testing.T) {
	t.Parallel()
	k, s := newSkopeo(t), serve(t)
	k.mustLogin(t, s)
	archive := archiveOf(t, map[string]string{"app:1": unique()})
	image := "docker://" + s.addr + "/team/app"
	k.must(t, "copy", "--dest-tls-verify=false", "docker-archive:"+archive, image+":1.0")
	k.must(t, "copy", "--dest-tls-verify=false", "--format", "oci", "docker-archive:"+archive, image+":1.0-oci")

	var inspected struct {
		Digest   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal([]byte(k.must(t, "inspect", "--tls-verify=false", image+":1.0")), &inspected); err != nil {
		t.Fatalf("skopeo inspect: %v", err)
	}
	if diff := cmp.Diff([]string{"1.0", "1.0-oci"}, inspected.RepoTags); diff != "" {
		t.Errorf("tags of skopeo inspect (-want +got):\n%s", diff)
	}
	if len(inspected.Layers) != 1 {
		t.Errorf("layers of skopeo inspect = %v, want one", inspected.Layers)
	}

	// Down into a directory, and up again under another name: the same bytes.
	dir := "dir:" + filepath.Join(t.TempDir(), "image")
	k.must(t, "copy", "--src-tls-verify=false", image+":1.0", dir)
	k.must(t, "copy", "--dest-tls-verify=false", dir, image+"-copy:1.0")
	k.must(t, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", image+":1.0", image+":again")
	for _, ref := range []string{image + "-copy:1.0", image + ":again"} {
		var copied struct{ Digest string }
		if err := json.Unmarshal([]byte(k.must(t, "inspect", "--tls-verify=false", ref)), &copied); err != nil {
			t.Fatalf("skopeo inspect: %v", err)
		}
		if copied.Digest != inspected.Digest {
			t.Errorf("digest of %s = %s, want %s", ref, copied.Digest, inspected.Digest)
		}
	}

	k.must(t, "delete", "--tls-verify=false", image+":1.0-oci")
	var listed struct{ Tags []string }
	if err := json.Unmarshal([]byte(k.must(t, "list-tags", "--tls-verify=false", image)), &listed); err != nil {
		t.Fatalf("skopeo list-tags: %v", err)
	}
	if diff := cmp.Diff([]string{"1.0", "again"}, listed.Tags); diff != "" {
		t.Errorf("tags after skopeo delete (-want +got):\n%s", diff)
	}
	r := s.client(t).do(t, http.MethodGet, "/v2/team/app/manifests/1.0-oci", "repository:team/app:pull", nil)
	if r.status != http.StatusNotFound {
		t.Errorf("GET of the deleted manifest = %d, want 404", r.status)
	}
}

// TestSkopeoArchiveIsLoaded uploads what skopeo's docker-archive: writes and
// expects the image with the ID of its config.
func TestSkopeoArchiveIsLoaded(t *testing.T) {
	t.Parallel()
	k, s := newSkopeo(t), serve(t)
	k.mustLogin(t, s)
	source := archiveOf(t, map[string]string{"app:1": unique()})
	target := filepath.Join(t.TempDir(), "skopeo.tar")
	k.must(t, "copy", "docker-archive:"+source, "docker-archive:"+target+":acme/tool:2.0")
	images := mustLoad(t, s, target, "namespace=team").Images
	if len(images) != 1 || images[0].Name != "team/acme/tool:2.0" {
		t.Fatalf("loaded images = %v, want team/acme/tool:2.0", images)
	}
	raw := k.must(t, "inspect", "--raw", "--tls-verify=false", "docker://"+s.addr+"/team/acme/tool:2.0")
	var manifest struct{ Config struct{ Digest string } }
	if err := json.Unmarshal([]byte(raw), &manifest); err != nil {
		t.Fatalf("manifest: %v\n%s", err, raw)
	}
	if manifest.Config.Digest != images[0].ImageID {
		t.Errorf("config of the loaded image = %s, want its image ID %s", manifest.Config.Digest, images[0].ImageID)
	}
	back := filepath.Join(t.TempDir(), "back.tar")
	k.must(t, "copy", "--src-tls-verify=false", "docker://"+s.addr+"/team/acme/tool:2.0", "docker-archive:"+back)
}
