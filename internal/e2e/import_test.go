package e2e

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDockerPullsWhatDockerExportWrote imports the root file system of a
// container as the documentation says, through a pipe, and compares the image
// with the one that docker import makes of the same with the same options.
func TestDockerPullsWhatDockerExportWrote(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	d.importImage(t, word+":1", map[string]string{"bin/busybox": busybox(t), "greeting": word})
	container := d.must(t, "run", "--detach", "--network=none", word+":1", "/bin/busybox", "sh", "-c",
		"busybox mkdir /srv; echo "+word+" > /srv/word; busybox ln /srv/word /srv/link; busybox ln -s word /srv/symlink; busybox chmod 4711 /srv/word")
	t.Cleanup(func() { d.remove(container) })
	d.must(t, "wait", container)
	changes := []string{
		`CMD ["/bin/busybox", "cat", "/srv/link"]`, "ENV A=1 B=$A/x", "EXPOSE 80/tcp 53/udp", "LABEL a=b c=\"d e\"", "USER 0:0",
		"VOLUME /data", "WORKDIR /srv/../srv", "ONBUILD RUN x", "HEALTHCHECK --interval=5s --retries=2 CMD /bin/busybox true",
	}
	query := url.Values{"repo": {"team/" + word}, "tag": {"2"}, "message": {"exported <at> night"}, "changes": changes}
	target := s.url("/api/v1/archives/import?" + query.Encode())
	answer := mustRun(t, d.env(), program(t, "sh"), "-c", `"$1" export "$2" | curl --silent --show-error --fail-with-body --user "$3" --upload-file - "$4"`,
		"sh", d.cli, container, "admin:"+adminPassword, target)
	var made loaded
	if err := json.Unmarshal([]byte(answer), &made); err != nil || len(made.Images) != 1 {
		t.Fatalf("answer of import: %v\n%s", err, answer)
	}

	rootFS := filepath.Join(t.TempDir(), "rootfs.tar")
	d.must(t, "export", "--output", rootFS, container)
	local := "local/" + word + ":2"
	args := []string{"import", "--message", "exported <at> night"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	d.must(t, append(args, rootFS, local)...)
	t.Cleanup(func() { d.forget(local) })
	want := d.inspected(t, local)
	d.forgetAll(t, local)

	remote := s.addr + "/team/" + word + ":2"
	d.mustLogin(t, s)
	d.must(t, "pull", remote)
	t.Cleanup(func() { d.forget(remote) })
	got := d.inspected(t, remote)
	want["Config"].(map[string]any)["WorkingDir"] = "/srv" // docker 20.10 does not clean it, later engines do
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docker inspect (-docker import +archives/import):\n%s", diff)
	}
	if id := d.imageID(t, remote); id != made.Images[0].ImageID {
		t.Errorf("image ID after docker pull = %s, want %s as in the answer", id, made.Images[0].ImageID)
	}
	if out := d.must(t, "run", "--rm", "--network=none", remote); out != word {
		t.Errorf("docker run prints %q, want %q", out, word)
	}
	if out := d.must(t, "run", "--rm", "--network=none", remote, "/bin/busybox", "stat", "-c", "%a %h", "/srv/word"); out != "4711 2" {
		t.Errorf("/srv/word has %q, want 4711 and two links", out)
	}
}

// inspected is what docker says of an image that docker import decides on.
func (d *docker) inspected(t testing.TB, image string) map[string]any {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(d.must(t, "image", "inspect", image)), &list); err != nil || len(list) != 1 {
		t.Fatalf("docker image inspect %s: %v", image, err)
	}
	out := map[string]any{}
	for _, k := range []string{"Architecture", "Os", "Variant", "Author", "Comment", "Config", "RootFS"} {
		out[k] = list[0][k]
	}
	return withoutEmpty(out).(map[string]any)
}

// withoutEmpty leaves out what is null, "" or has nothing in it: engines write
// it or not.
func withoutEmpty(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for k, v := range m {
		switch v := withoutEmpty(v).(type) {
		case nil:
			delete(m, k)
		case string:
			if v == "" {
				delete(m, k)
			}
		case bool:
			if !v {
				delete(m, k)
			}
		case []any:
			if len(v) == 0 {
				delete(m, k)
			}
		case map[string]any:
			if len(v) == 0 && !strings.Contains(k, "/") {
				delete(m, k) // and not a port, or a volume
			}
		}
	}
	return m
}

// TestImportOfAnImageArchive: each door says which is the right one.
func TestImportOfAnImageArchive(t *testing.T) {
	t.Parallel()
	s := serve(t)
	archive := archiveOf(t, map[string]string{"app:1": "x"})
	before := s.dataFiles(t)
	out, err := run(t, nil, program(t, "curl"), "--silent", "--fail-with-body", "--user", "admin:"+adminPassword,
		"--upload-file", archive, s.url("/api/v1/archives/import?repo=team/app"))
	if err == nil || !strings.Contains(out, "use archives/load") {
		t.Errorf("import of what docker save wrote = %v, %s; want it refused", err, out)
	}
	if diff := cmp.Diff(before, s.dataFiles(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}
