package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixtureArchive is an archive that another tool wrote.
func fixtureArchive(name string) string {
	return filepath.Join("..", "..", "extensions", "archive", "testdata", filepath.FromSlash(name))
}

// curlSave downloads from the archives as the README says, and returns the file.
func curlSave(t testing.TB, s *server, pathAndQuery string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "saved.tar")
	args = append(args, "--silent", "--show-error", "--fail-with-body", "--user", "admin:"+adminPassword, "--output", file, s.url("/api/v1/archives/"+pathAndQuery))
	if out, err := run(t, nil, program(t, "curl"), args...); err != nil {
		body, _ := os.ReadFile(file)
		t.Fatalf("curl %s: %v %s\n%.500s", pathAndQuery, err, out, body)
	}
	return file
}

func TestDockerLoadsWhatWasSaved(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	app, child := "team/"+word+":1.0", "team/"+word+"-child:2"
	root := string(tarball(t, map[string]string{"bin/busybox": busybox(t), "word": word}))
	ids := map[string]string{app: d.build(t, app, "FROM scratch\nADD root.tar /\n", map[string]string{"root.tar": root})}
	ids[child] = d.build(t, child, "FROM "+app+"\nADD more /more\n", map[string]string{"more": "more"})
	mustLoad(t, s, d.save(t, app, child), "namespace=team")
	load := func(t *testing.T, file string, want ...string) {
		t.Helper()
		for _, image := range want {
			d.forget(image)
		}
		out := d.must(t, "load", "--input", file)
		for _, image := range want {
			if got := d.imageID(t, image); got != ids[image] || !strings.Contains(out, "Loaded image: "+image) {
				t.Errorf("docker load of %s has the ID %s, want %s\n%s", image, got, ids[image], out)
			}
		}
	}
	load(t, curlSave(t, s, "save?image="+app), app)
	load(t, curlSave(t, s, "save?image="+child), child)
	load(t, curlSave(t, s, "save?image="+app+"&image="+child), app, child)
	if out := d.must(t, "run", "--rm", "--network=none", child, "/bin/busybox", "cat", "/more"); out != "more" {
		t.Errorf("the loaded image prints %q", out)
	}
}

func TestDockerLoadsAPlatformOfAnIndex(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	mustLoad(t, s, fixtureArchive("docker29/save-multiarch.tar"), "namespace=team&repo="+word+"&tag=1")
	for _, c := range []struct{ query, want string }{
		{"", "linux/amd64"},
		{"&platform=linux/arm64", "linux/arm64"},
	} {
		file := curlSave(t, s, "save?image=team/"+word+":1"+c.query)
		d.forget("team/" + word + ":1")
		d.must(t, "load", "--input", file)
		t.Cleanup(func() { d.forget("team/" + word + ":1") })
		if got := d.must(t, "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "team/"+word+":1"); got != c.want {
			t.Errorf("docker load of save%s is for %s, want %s", c.query, got, c.want)
		}
	}
}

// TestOldDockerLoadsZstdAsGzip: Docker 20.10 cannot unpack zstd.
func TestOldDockerLoadsZstdAsGzip(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	mustLoad(t, s, fixtureArchive("buildx/oci-zstd.tar"), "namespace=team&repo="+word+"&tag=1")
	image := "team/" + word + ":1"
	if version := d.must(t, "version", "--format", "{{.Server.Version}}"); strings.HasPrefix(version, "20.") {
		if out, err := d.run(t, "load", "--input", curlSave(t, s, "save?image="+image)); err == nil {
			t.Errorf("docker %s loads zstd layers: %s", version, out)
		}
	}
	d.must(t, "load", "--input", curlSave(t, s, "save?compression=gzip&image="+image))
	t.Cleanup(func() { d.forget(image) })
	if out := d.must(t, "image", "inspect", "--format", "{{len .RootFS.Layers}}", image); out != "2" {
		t.Errorf("the image has %s layers, want 2", out)
	}
}

func TestOtherToolsTakeWhatWasSaved(t *testing.T) {
	t.Parallel()
	k, s := newSkopeo(t), serve(t)
	word := unique()
	res := mustLoad(t, s, archiveOf(t, map[string]string{word + ":1": word}), "namespace=team")
	image := "team/" + word + ":1"
	file := curlSave(t, s, "save?image="+image)
	dir := t.TempDir()
	// By its tag, skopeo finds only OCI's own manifests in an oci-archive.
	oci := mustLoad(t, s, fixtureArchive("skopeo/oci-archive-fullname.tar"), "namespace=team&repo="+word+"-oci&tag=2").Images[0]
	ociImage := "team/" + word + "-oci:2"
	for i, c := range []struct{ source, config string }{
		{"docker-archive:" + file, res.Images[0].ImageID},
		{"docker-archive:" + file + ":" + image, res.Images[0].ImageID},
		{"oci-archive:" + file, res.Images[0].ImageID},
		{"oci-archive:" + curlSave(t, s, "save?format=oci&image="+image), res.Images[0].ImageID},
		{"oci-archive:" + curlSave(t, s, "save?image="+ociImage) + ":2", oci.ImageID},
		{"docker-archive:" + curlSave(t, s, "save?image="+image+"&image="+ociImage) + ":" + ociImage, oci.ImageID},
	} {
		to := filepath.Join(dir, strconv.Itoa(i))
		k.must(t, "copy", c.source, "dir:"+to)
		manifest, err := os.ReadFile(filepath.Join(to, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(manifest), c.config) {
			t.Errorf("skopeo copy of %s has another config than %s: %s", c.source, c.config, manifest)
		}
	}
	command := crane(t, s)
	for _, args := range [][]string{
		{"auth", "login", "REG", "-u", "admin", "-p", adminPassword},
		{"push", file, "REG/team/pushed:1"},
		{"validate", "--remote", "REG/team/pushed:1"},
		{"validate", "--tarball", file},
	} {
		if out, err := command(args...); err != nil {
			t.Errorf("crane %s: %v\n%s", args[0], err, out)
		}
	}
	config, err := command("config", "REG/team/pushed:1")
	if err != nil || "sha256:"+fmt.Sprintf("%x", sha256.Sum256([]byte(config))) != res.Images[0].ImageID {
		t.Errorf("crane push made the config %.100s (%v), want %s", config, err, res.Images[0].ImageID)
	}
}

// TestSaveGoesOnAfterARestart: curl -C - of a download that a restart of the
// server has ended, and without one.
func TestSaveGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := serve(t)
	word := unique()
	mustLoad(t, s, archiveOf(t, map[string]string{word + ":1": incompressible(3 << 20), word + ":2": incompressible(1 << 20)}), "namespace=team")
	query := "save?image=team/" + word + ":1&image=team/" + word + ":2"
	whole, err := os.ReadFile(curlSave(t, s, query))
	if err != nil {
		t.Fatal(err)
	}
	for _, have := range []int{1, 700, 4096, 1<<20 + 3, len(whole) - 1} {
		if have == 4096 {
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			s.start(t)
		}
		part := filepath.Join(t.TempDir(), "part.tar")
		if err := os.WriteFile(part, whole[:have], 0o600); err != nil {
			t.Fatal(err)
		}
		mustRun(t, nil, program(t, "curl"), "--silent", "--show-error", "--fail", "--continue-at", "-", "--user", "admin:"+adminPassword,
			"--output", part, s.url("/api/v1/archives/"+query))
		if got, err := os.ReadFile(part); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("what curl went on with after %d bytes is another file (%v)", have, err)
		}
	}
	name := mustRun(t, nil, program(t, "curl"), "--silent", "--show-error", "--remote-name", "--remote-header-name", "--output-dir", t.TempDir(),
		"--write-out", "%{filename_effective}", "--user", "admin:"+adminPassword, s.url("/api/v1/archives/"+query))
	if want := "team-" + word + "-1-and-1-more.tar"; filepath.Base(name) != want {
		t.Errorf("curl -OJ makes the file %s, want %s", name, want)
	}
}

// TestExportIsWhatDockerExports compares the file system of an image that was
// built here in several steps with that of a container of it.
func TestExportIsWhatDockerExports(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	image := "team/" + unique() + ":1"
	d.build(t, image, `FROM scratch
ADD root.tar /
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir -p /tmp /d/sub /gone/x /opaque && /bin/busybox --install -s /bin && echo 1 > /d/a && echo 2 > /d/b && ln /d/a /d/hard && echo x > /gone/x/y && echo o > /opaque/o && ln -s /nowhere /d/link && mkfifo /d/fifo && chmod 4755 /bin/busybox"]
RUN rm -r /gone && echo 3 > /d/b && ln /d/a /d/again && chown 12:34 /d/link -h && touch '/d/ü n' && touch -d '1971-01-01 00:00:00' /d/old
RUN rm -r /opaque && mkdir /opaque && echo new > /opaque/n && rm /d/a && echo 4 > /d/hard && mv /d/sub /d/moved
`, map[string]string{"root.tar": string(tarball(t, map[string]string{"bin/busybox": busybox(t)}))})
	mustLoad(t, s, d.save(t, image), "namespace=team")
	container := d.must(t, "create", image, "/bin/sh")
	t.Cleanup(func() { d.remove(container) })
	export := filepath.Join(t.TempDir(), "export.tar")
	d.must(t, "export", "--output", export, container)
	own := []string{".dockerenv", "dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys", "dev", "etc"}
	want := fileSystem(t, export, own)
	got := fileSystem(t, curlSave(t, s, "export?image="+image), nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the file system (-docker +ours):\n%s", diff)
	}
	if len(got) < 100 {
		t.Errorf("only %d files", len(got))
	}
}

// fileSystem is what a tar has, in order, without what Docker adds to a
// container and the times of directories, which that changes.
func fileSystem(t *testing.T, file string, dockersOwn []string) (list []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
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
		if slices.Contains(dockersOwn, strings.TrimSuffix(h.Name, "/")) {
			continue
		}
		when := h.ModTime.Unix()
		if h.Typeflag == tar.TypeDir {
			when = 0
		}
		list = append(list, fmt.Sprintf("%q %s %q %o %d:%d %d %d %x", h.Typeflag, h.Name, h.Linkname, h.Mode&0o7777, h.Uid, h.Gid, h.Size, when, sum.Sum(nil)[:8]))
	}
}
