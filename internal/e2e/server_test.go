package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// adminPassword is the administrator's in all tests; it needs quoting in a URL.
const adminPassword = "correct horse/battery+staple"

// server is one tarport with a data directory of its own.
type server struct {
	bin  string
	dir  string         // working directory; ./data is in it
	args []string       // after serve
	env  []string       // beside the address
	addr string         // 127.0.0.1:PORT, another one after each start
	ca   *x509.CertPool // where it serves TLS: who signed its certificate

	cmd  *exec.Cmd // nil while it does not run
	done chan error
}

// serve starts a server with nothing configured but its address, the
// administrator's password and env, and stops it at the end of the test.
func serve(t testing.TB, env ...string) *server {
	t.Helper()
	return serveTLS(t, nil, env...)
}

// serveTLS is serve for a server whose environment names a certificate that one
// of ca has signed; nil is plain HTTP.
func serveTLS(t testing.TB, ca *x509.CertPool, env ...string) *server {
	t.Helper()
	s := &server{bin: tarport(t), dir: t.TempDir(), env: append([]string{"TARPORT_ADMIN_PASSWORD=" + adminPassword}, env...), ca: ca}
	s.start(t)
	t.Cleanup(func() {
		if s.cmd != nil {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		}
		if err := s.checkLog(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server's log ends in\n%s", s.logTail())
		}
	})
	return s
}

// start is launch for a test.
func (s *server) start(t testing.TB) {
	t.Helper()
	// The process ends by stop or kill; t's context would end it too early.
	if err := s.launch(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// launch starts the server and waits until it is ready.
func (s *server) launch(ctx context.Context) error {
	var err error
	if s.addr, err = freeAddress(ctx); err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, s.bin, append([]string{"serve"}, s.args...)...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		"REGISTRY_HTTP_ADDR=" + s.addr,
		"TARPORT_METRICS_ADDR=", // its default port is one for all
	}, s.env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := startTied(s.cmd, syscall.SIGKILL); err != nil {
		return fmt.Errorf("start tarport: %w", err)
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(s.cmd, s.done)
	return s.awaitReady(ctx)
}

func (s *server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		if status, err := s.get(ctx, "/readyz"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case err := <-s.done:
			s.cmd = nil
			return fmt.Errorf("tarport ended before it was ready: %w\n%s", err, s.logTail())
		case <-limit:
			s.kill()
			return fmt.Errorf("tarport is not ready after 30 s\n%s", s.logTail())
		case <-tick.C:
		}
	}
}

// stop ends the server as an operator does, and expects it to end well.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("signal tarport: %w", err)
	}
	select {
	case err := <-s.done:
		s.cmd = nil
		if err != nil {
			return fmt.Errorf("tarport ended badly after SIGTERM: %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		s.kill()
		return errors.New("tarport does not end within 30 s of SIGTERM")
	}
}

// kill is kill -9.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // fails where the process has ended
	_ = s.reap()             // "signal: killed"
}

// reap waits for a server that was sent a signal.
func (s *server) reap() error {
	err := <-s.done
	s.cmd = nil
	return err
}

func (s *server) url(path string) string {
	if s.ca != nil {
		return "https://" + s.addr + path
	}
	return "http://" + s.addr + path
}

// logFile holds all that the server printed.
func (s *server) logFile() string { return filepath.Join(s.dir, "server.log") }

// errorsAreLogged is for servers that are to fail: their log may tell of it.
const errorsAreLogged = "E2E_ERRORS=are logged"

// checkLog looks for what must never be in the log.
func (s *server) checkLog() error {
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		return err
	}
	for _, bad := range []string{"panic:", "panicked", "goroutine ", "DATA RACE", "level=ERROR", adminPassword} {
		if bad == "level=ERROR" && slices.Contains(s.env, errorsAreLogged) {
			continue
		}
		if at := strings.Index(string(log), bad); at >= 0 {
			return fmt.Errorf("the server's log has %q: %s", bad, log[at:min(at+3000, len(log))])
		}
	}
	return nil
}

// logTail is the end of the server's log.
func (s *server) logTail() string {
	const most = 6 << 10
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

// blobFile is where the bytes of a blob lie; distribution's own layout.
func (s *server) blobFile(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(s.dir, "data", "docker", "registry", "v2", "blobs", algorithm, hex[:2], hex, "data")
}

// dataFiles lists the files in the data directory that hold content, with their
// sizes: all but the database and the keys.
func (s *server) dataFiles(t testing.TB) map[string]int64 {
	t.Helper()
	files := map[string]int64{}
	root := filepath.Join(s.dir, "data")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || filepath.Dir(path) == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files[rel] = info.Size()
		return err
	})
	if err != nil {
		t.Fatalf("list data directory: %v", err)
	}
	return files
}

// freeAddress finds a port that is free, below the range that the kernel gives
// to outgoing connections and to listeners on port 0: nobody takes it between
// this look and the server's start.
func freeAddress(ctx context.Context) (string, error) {
	const lowest, span = 15000, 15000
	for range 200 {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(span))
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		return addr, l.Close()
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// get is a GET of which only the status matters.
func (s *server) get(ctx context.Context, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(path), http.NoBody)
	if err != nil {
		return 0, err
	}
	client := http.DefaultClient
	if s.ca != nil {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca, MinVersion: tls.VersionTLS12}}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
