package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// dockerd is the one Docker Engine of the test process. It needs no network:
// images are made here, never pulled from elsewhere.
var dockerd = sync.OnceValues(func() (*engine, error) {
	dir, err := process.tempDir()
	if err != nil {
		return nil, err
	}
	for _, driver := range []string{"overlay2", "vfs"} {
		var e *engine
		if e, err = startEngine(filepath.Join(dir, driver), driver); err == nil {
			process.atEnd(e.stop)
			return e, nil
		}
	}
	return nil, err
})

type engine struct {
	host string // unix://…
	log  string
	cmd  *exec.Cmd
	done chan error
}

func startEngine(dir, storageDriver string) (*engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	e := &engine{host: "unix://" + filepath.Join(dir, "sock"), log: log.Name(), done: make(chan error, 1)}
	// 127.0.0.0/8 counts as an insecure registry by default.
	e.cmd = exec.CommandContext(context.Background(), "dockerd", "-H", e.host,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--storage-driver", storageDriver, "--iptables=false", "--bridge=none", "--config-file", filepath.Join(dir, "none.json"))
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := startTied(e.cmd, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	go func() { e.done <- e.cmd.Wait() }()
	return e, e.awaitReady()
}

func (e *engine) awaitReady() error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for {
		if exec.CommandContext(context.Background(), dockerCLI(), "-H", e.host, "version").Run() == nil {
			return nil
		}
		select {
		case err := <-e.done:
			e.done <- err
			return fmt.Errorf("dockerd ended: %w\n%s", err, e.logText())
		case <-limit:
			return fmt.Errorf("dockerd is not ready after 60 s\n%s", e.logText())
		case <-tick.C:
		}
	}
}

func (e *engine) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	var err error
	select {
	case err = <-e.done:
	case <-time.After(30 * time.Second):
		_ = e.cmd.Process.Kill()
		err = fmt.Errorf("dockerd does not end on SIGTERM: %w", <-e.done)
	}
	return errors.Join(err, unmountBelow(filepath.Dir(e.log)))
}

// unmountBelow undoes what dockerd leaves mounted, such as the network namespace
// of containers.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir+"/") {
			if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", at, err)
			}
		}
	}
	return nil
}

func (e *engine) logText() string {
	b, err := os.ReadFile(e.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// dockerCLI is the docker that belongs to Debian's dockerd; another may stand
// earlier in PATH.
func dockerCLI() string {
	for _, path := range []string{"/usr/bin/docker", "docker"} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return "docker"
}

// docker is the docker command of one test: the shared engine, and a
// configuration (so: logins) of its own.
type docker struct {
	cli    string
	host   string
	config string
}

func newDocker(t testing.TB) *docker {
	t.Helper()
	tarport(t) // skips where end-to-end tests are left out
	if os.Getuid() != 0 {
		t.Skip("dockerd needs root")
	}
	program(t, "dockerd")
	program(t, dockerCLI())
	e, err := dockerd()
	if err != nil {
		t.Fatal(err)
	}
	return &docker{cli: dockerCLI(), host: e.host, config: t.TempDir()}
}

func (d *docker) env() []string {
	return []string{
		"DOCKER_CONFIG=" + d.config, "DOCKER_HOST=" + d.host, "DOCKER_BUILDKIT=0",
		"DOCKER_CLI_EXPERIMENTAL=enabled", "DOCKER_CONTEXT=",
	}
}

// run runs docker and returns all that it printed.
func (d *docker) run(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return run(t, d.env(), d.cli, args...)
}

// must is run for what has to succeed.
func (d *docker) must(t testing.TB, args ...string) string {
	t.Helper()
	return mustRun(t, d.env(), d.cli, args...)
}

// mustFail expects docker to fail with a message that has the words.
func (d *docker) mustFail(t testing.TB, words string, args ...string) {
	t.Helper()
	out, err := d.run(t, args...)
	if err == nil {
		t.Fatalf("docker %s succeeded, want it to fail with %q\n%s", strings.Join(args, " "), words, out)
	}
	if !strings.Contains(strings.ToLower(out), strings.ToLower(words)) {
		t.Errorf("docker %s says %q, want it to say %q", strings.Join(args, " "), out, words)
	}
}

// login logs in with the password on standard input, as scripts should.
func (d *docker) login(t testing.TB, registry, password string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.cli, "login", "-u", "admin", "--password-stdin", registry)
	cmd.Env = append(os.Environ(), d.env()...)
	cmd.Stdin = strings.NewReader(password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustLogin logs the administrator in at the server.
func (d *docker) mustLogin(t testing.TB, s *server) {
	t.Helper()
	if out, err := d.login(t, s.addr, adminPassword); err != nil {
		t.Fatalf("docker login: %v\n%s", err, out)
	}
}

// imageID is the full ID of a local image.
func (d *docker) imageID(t testing.TB, image string) string {
	t.Helper()
	return d.must(t, "image", "inspect", "--format", "{{.Id}}", image)
}

// importImage makes a single-layer image of the files and returns its ID.
func (d *docker) importImage(t testing.TB, name string, files map[string]string, changes ...string) string {
	t.Helper()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.CommandContext(t.Context(), d.cli, append(args, "-", name)...)
	cmd.Env = append(os.Environ(), d.env()...)
	cmd.Stdin = bytes.NewReader(tarball(t, files))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v\n%s", err, out)
	}
	t.Cleanup(func() { d.forget(name) })
	return d.imageID(t, name)
}

// build builds an image from a Dockerfile and files with the classic builder,
// and returns its ID.
func (d *docker) build(t testing.TB, name, dockerfile string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must(t, "build", "--quiet", "--tag", name, dir)
	t.Cleanup(func() { d.forget(name) })
	return d.imageID(t, name)
}

// forget removes a local image if it is there.
func (d *docker) forget(image string) { d.afterwards("rmi", "--force", image) }

// remove removes a container with its volumes.
func (d *docker) remove(container string) { d.afterwards("rm", "--force", "--volumes", container) }

// afterwards runs docker when the test's context has ended already.
func (d *docker) afterwards(args ...string) {
	cmd := exec.CommandContext(context.Background(), d.cli, args...)
	cmd.Env = append(os.Environ(), d.env()...)
	_ = cmd.Run()
}

// forgetAll removes all names of images, and the images.
func (d *docker) forgetAll(t testing.TB, images ...string) {
	t.Helper()
	d.must(t, append([]string{"rmi", "--force"}, images...)...)
	for _, image := range images {
		if out, err := d.run(t, "image", "inspect", image); err == nil {
			t.Fatalf("%s is still there after docker rmi: %s", image, out)
		}
	}
}

// busybox is the statically linked program that gives test images real content.
func busybox(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(program(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tarball packs files, in the order of their names.
func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	b, err := packTar(files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packTar is tarball without a test to fail.
func packTar(files map[string]string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		content := files[path]
		h := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
