package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDockerPullsWhatWasCommitted changes a container in every way, commits its
// export as the documentation says, and compares the pulled image with the one
// that docker commit makes of the same container.
func TestDockerPullsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	base := s.addr + "/team/" + word + ":1"
	files := map[string]string{
		"bin/busybox": busybox(t), "etc/hosts": "the image's own", "srv/kept": "kept", "srv/same-size": "before", "srv/gone": "gone",
		"srv/dir/a": "a", "srv/dir/b": "b", "srv/to-file/x": "x", "srv/to-dir": "file", "srv/emptied/a": "a", "srv/anew/old": "old",
	}
	for i := range 20 { // or it would look like another image
		files[fmt.Sprintf("lib/%d", i)] = fmt.Sprint("unchanged ", i)
	}
	d.importImage(t, base, files, "ENV A=1", `CMD ["/bin/busybox","cat","/srv/kept"]`, "ONBUILD RUN x")
	d.mustLogin(t, s)
	d.must(t, "push", base)
	container := d.must(t, "run", "--detach", "--network=none", "--volume=/data", base, "/bin/busybox", "sh", "-c", strings.Join([]string{
		"busybox touch -r /srv/same-size /stamp", "printf AFTER! > /srv/same-size", "busybox touch -r /stamp /srv/same-size",
		"busybox rm /srv/gone /stamp", "busybox rm -r /srv/dir", "busybox rm -r /srv/to-file", "echo x > /srv/to-file",
		"busybox rm /srv/to-dir", "busybox mkdir /srv/to-dir", "echo y > /srv/to-dir/y", "busybox rm /srv/emptied/a",
		"busybox rm -r /srv/anew", "busybox mkdir /srv/anew", "echo new > /srv/anew/new",
		"busybox ln /srv/kept /srv/linked", "busybox ln -s kept /srv/symlink", "busybox mkfifo /srv/fifo",
		"busybox mkdir -p /srv/empty/deep", "busybox chmod 1777 /srv/empty", "busybox cp /bin/busybox /srv/setuid", "busybox chmod 4755 /srv/setuid",
		"busybox chown 1000:3000000 /srv/setuid", "echo v > /data/in-a-volume", "busybox touch /srv/touched '/srv/ spaces and ü'",
	}, " && "))
	t.Cleanup(func() { d.remove(container) })
	if code := d.must(t, "wait", container); code != "0" {
		t.Fatalf("the container ended with %s: %s", code, d.must(t, "logs", container))
	}

	query := url.Values{
		"repo": {"team/" + word}, "tag": {"2"}, "base": {"team/" + word + ":1"}, "message": {"every <change>"}, "author": {"Ann <ann@example.com>"},
		"changes": {"ENV B=$A/x", "EXPOSE 80", "VOLUME /data"},
	}
	target := s.url("/api/v1/archives/commit?" + query.Encode())
	answer := mustRun(t, d.env(), program(t, "sh"), "-c", `"$1" export "$2" | curl --silent --show-error --fail-with-body --user "$3" --upload-file - "$4"`,
		"sh", d.cli, container, "admin:"+adminPassword, target)
	var made struct {
		Images []struct {
			Layers []struct{ Status string }
		}
		BytesStored int64 `json:"bytes_stored"`
	}
	if err := json.Unmarshal([]byte(answer), &made); err != nil || len(made.Images) != 1 {
		t.Fatalf("answer of commit: %v\n%s", err, answer)
	}
	if l := made.Images[0].Layers; len(l) != 2 || l[0].Status != "exists" || l[1].Status != "stored" {
		t.Errorf("layers = %+v, want the base's and a new one", l)
	}

	local := "local/" + word + ":2"
	d.must(t, "commit", "--message", "every <change>", "--author", "Ann <ann@example.com>", "--change", "ENV B=$A/x", "--change", "EXPOSE 80", container, local)
	t.Cleanup(func() { d.forget(local) })
	remote := s.addr + "/team/" + word + ":2"
	d.must(t, "pull", remote)
	t.Cleanup(func() { d.forget(remote) })
	if diff := cmp.Diff(d.files(t, local), d.files(t, remote)); diff != "" {
		t.Errorf("the file system (-docker commit +archives/commit):\n%s", diff)
	}
	want, got := d.inspected(t, local), d.inspected(t, remote)
	for _, m := range []map[string]any{want, got} {
		delete(m, "RootFS")
		c := m["Config"].(map[string]any)
		for _, k := range []string{"Hostname", "Image", "Cmd"} { // of the container, and what it was told to run
			delete(c, k)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docker inspect (-docker commit +archives/commit):\n%s", diff)
	}
	if out := d.must(t, "run", "--rm", "--network=none", remote); out != "kept" {
		t.Errorf("docker run prints %q, want the base's command to print kept", out)
	}
	if top, _, _ := strings.Cut(d.must(t, "history", "--format", "{{.Comment}}", remote), "\n"); top != "every <change>" {
		t.Errorf("docker history begins with %q, want the message", top)
	}
}

// files is what docker says is in an image: the export of a container that was
// never started, without the times of directories.
func (d *docker) files(t *testing.T, image string) map[string]string {
	t.Helper()
	container := d.must(t, "create", "--network=none", image, "/none")
	defer d.remove(container)
	name := filepath.Join(t.TempDir(), "rootfs.tar")
	d.must(t, "export", "--output", name, container)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := map[string]string{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		s := fmt.Sprintf("%c %o %d:%d %d %x -> %s %d,%d", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, sum.Sum(nil)[:8], h.Linkname, h.Devmajor, h.Devminor)
		if engines := strings.HasPrefix(h.Name, "dev") || strings.HasPrefix(h.Name, "etc") || h.Name == ".dockerenv"; h.Typeflag != tar.TypeDir && !engines {
			s += h.ModTime.UTC().Format(" 2006-01-02T15:04:05")
		}
		list[h.Name] = s
	}
}

// TestCommitOverTheWrongBase is refused, and leaves nothing.
func TestCommitOverTheWrongBase(t *testing.T) {
	t.Parallel()
	s := serve(t)
	mustLoad(t, s, archiveOf(t, map[string]string{"team/base:1": "one"}), "namespace=team")
	rootFS := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(rootFS, tarball(t, map[string]string{"of/another": "image"}), 0o600); err != nil {
		t.Fatal(err)
	}
	curl := func(more string) (string, error) {
		return run(t, nil, program(t, "curl"), "--silent", "--fail-with-body", "--user", "admin:"+adminPassword,
			"--upload-file", rootFS, s.url("/api/v1/archives/commit?repo=team/app&base=team/base:1"+more))
	}
	if out, err := curl(""); err == nil || !strings.Contains(out, "force=true") {
		t.Errorf("commit over another base = %v, %s; want it refused", err, out)
	}
	if out, err := curl("&force=true"); err != nil {
		t.Errorf("commit with force=true = %v, %s", err, out)
	}
}
