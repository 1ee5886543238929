package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	cranecmd "github.com/google/go-containerregistry/cmd/crane/cmd"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts crane into PATH, as this very binary under another name: the
// real program's code in the version of go.mod, without a download. Afterwards
// it removes what lives longer than one test.
func TestMain(m *testing.M) {
	testscript.Main(closing{m}, map[string]func(){
		"crane": func() {
			if err := cranecmd.Root.Execute(); err != nil {
				os.Exit(1)
			}
		},
	})
}

// closing ends the shared dockerd and removes the built binary after the tests.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	code := c.m.Run()
	if err := process.close(); err != nil {
		fmt.Fprintf(os.Stderr, "clear up: %v\n", err)
		return max(code, 1)
	}
	return code
}

// process holds what all tests of the process share.
var process shared

type shared struct {
	mu      sync.Mutex
	closers []func() error
}

// atEnd has f called after the last test; what came last goes first.
func (s *shared) atEnd(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// tempDir is a directory that goes after the last test.
func (s *shared) tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "tarport-e2e-")
	if err != nil {
		return "", err
	}
	s.atEnd(func() error { return os.RemoveAll(dir) })
	return dir, nil
}

// binary is the tarport under test.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("TARPORT_E2E_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := process.tempDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tarport")
	args := []string{"build", "-buildvcs=false", "-o", path}
	if os.Getenv("GOCOVERDIR") != "" {
		args = append(args, "-cover", "-coverpkg=github.com/tarport/tarport/...")
	}
	build := exec.CommandContext(context.Background(), "go", append(args, "github.com/tarport/tarport/cmd/tarport")...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/tarport: %w\n%s", err, out)
	}
	return path, nil
})

// tarport returns the path of the binary under test.
func tarport(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("end-to-end tests are left out with -short")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// lacking skips the test, or fails it in CI, where everything must be there.
func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is needed in CI; .ci/install installs it", what)
	}
	t.Skipf("needs %s", what)
}

// program finds a program, in the given places first and then in PATH.
func program(t testing.TB, name string, places ...string) string {
	t.Helper()
	for _, candidate := range append(places, name) {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	lacking(t, name)
	return ""
}

// run runs a program and returns its standard output and error together.
func run(t testing.TB, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustRun is run for a program that must succeed.
func mustRun(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	out, err := run(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// spawner starts processes that must not outlive this one. The kernel sends
// Pdeathsig when the *thread* that started the child ends, so all are started
// from one thread that lives as long as the process.
var spawner = sync.OnceValue(func() chan<- spawn {
	requests := make(chan spawn)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	return requests
})

type spawn struct {
	cmd  *exec.Cmd
	done chan error
}

// startTied starts cmd so that the kernel sends it the signal when the test
// process ends, in whatever way.
func startTied(cmd *exec.Cmd, signal syscall.Signal) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: signal, Setpgid: true}
	r := spawn{cmd: cmd, done: make(chan error)}
	spawner() <- r
	return <-r.done
}
