package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestContainerImage builds the last stage of the Dockerfile around the binary
// under test (the first one needs the network) and runs it: as nobody, with an
// anonymous volume, until Docker calls it healthy.
func TestContainerImage(t *testing.T) {
	t.Parallel()
	d := newDocker(t)
	tag := "tarport-test:" + unique()
	d.must(t, "build", "--quiet", "--tag", tag, imageContext(t))
	t.Cleanup(func() { d.forget(tag) })

	addr, err := freeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := d.must(t, "run", "--detach", "--network=host", "--health-interval=1s",
		"--env", "REGISTRY_HTTP_ADDR="+addr, "--env", "TARPORT_METRICS_ADDR=", "--env", "TARPORT_ADMIN_PASSWORD="+adminPassword, tag)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := d.run(t, "logs", id)
			t.Log(out)
		}
		d.remove(id)
	})
	d.awaitHealthy(t, id)

	s := &server{addr: addr}
	command := crane(t, s)
	if out, err := command("auth", "login", "REG", "-u", "admin", "-p", adminPassword); err != nil {
		t.Fatalf("crane auth login: %v\n%s", err, out)
	}
	if out, err := command("push", archiveOf(t, map[string]string{"app:1": "in a container"}), "REG/team/app:1.0"); err != nil {
		t.Fatalf("crane push: %v\n%s", err, out)
	}
	if out, err := command("validate", "--remote", "REG/team/app:1.0"); err != nil {
		t.Errorf("crane validate: %v\n%s", err, out)
	}

	d.must(t, "stop", "--time=30", id)
	for format, want := range map[string]string{
		"{{.State.ExitCode}}":                                    "0",
		"{{.Config.User}}":                                       "65532:65532",
		"{{(index .Mounts 0).Destination}}":                      "/data",
		"{{range $p, $x := .Config.ExposedPorts}}{{$p}} {{end}}": "5000/tcp 5001/tcp",
	} {
		if got := d.must(t, "inspect", "--format", format, id); got != want {
			t.Errorf("docker inspect --format %s = %q, want %q", format, got, want)
		}
	}
}

// imageContext is a build context with the last stage of our Dockerfile and what
// its first stage would have made.
func imageContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, last, ok := strings.Cut(string(dockerfile), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the Dockerfile has no stage FROM scratch")
	}
	// The builder of Docker 20.10 has no --chmod.
	last = "FROM scratch\n" + strings.NewReplacer("--from=build ", "", "--chmod=1777 ", "").Replace(last)
	for _, sub := range []string{"out/data", "out/tmp", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := os.ReadFile(tarport(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"Dockerfile": last, "LICENSE": "license", "etc/ssl/certs/ca-certificates.crt": "none", "out/tarport": string(binary),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// awaitHealthy waits until Docker's health check of the container succeeds.
func (d *docker) awaitHealthy(t *testing.T, id string) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for {
		status := d.must(t, "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", id)
		if status == "running healthy" {
			return
		}
		select {
		case <-limit:
			t.Fatalf("the container is %s after 60 s", status)
		case <-tick.C:
		}
		if !strings.HasPrefix(status, "running") {
			t.Fatalf("the container is %s", status)
		}
	}
}
