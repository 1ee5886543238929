package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeContext keeps a context as docker 29 does.
func writeContext(t *testing.T, config, name, host string) {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	dir := filepath.Join(config, "contexts", "meta", hex.EncodeToString(sum[:]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	meta := fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host)
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhichEngineIsAsked(t *testing.T) {
	t.Parallel()
	config := t.TempDir()
	writeContext(t, config, "remote", "tcp://10.0.0.1:2375")
	writeContext(t, config, "far", "ssh://user@host")
	chosen := t.TempDir()
	writeContext(t, chosen, "rootless", "unix:///run/user/1000/docker.sock")
	if err := os.WriteFile(filepath.Join(chosen, "config.json"), []byte(`{"currentContext":"rootless"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, config string
		env          map[string]string
		want         string // the host, or what is wrong
	}{
		{"nothing is said", config, nil, defaultHost},
		{"DOCKER_HOST", chosen, map[string]string{"DOCKER_HOST": "unix:///x.sock", "DOCKER_CONTEXT": "remote"}, "unix:///x.sock"},
		{"DOCKER_CONTEXT", config, map[string]string{"DOCKER_CONTEXT": "remote"}, "tcp://10.0.0.1:2375"},
		{"docker context use", chosen, nil, "unix:///run/user/1000/docker.sock"},
		{"the context default", chosen, map[string]string{"DOCKER_CONTEXT": "default"}, defaultHost},
		{"a context that is not there", config, map[string]string{"DOCKER_CONTEXT": "none"}, `docker's context "none" cannot be read`},
		{"ssh", config, map[string]string{"DOCKER_CONTEXT": "far"}, "only unix:// and tcp:// can"},
		{"a named pipe", config, map[string]string{"DOCKER_HOST": "npipe:////./pipe/docker"}, "only unix:// and tcp:// can"},
		{"certificates that are not there", config, map[string]string{"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1"}, "tcp://h:2376"},
	} {
		e, err := New(Options{Getenv: func(name string) string { return tt.env[name] }, Config: tt.config})
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			continue
		}
		if e.host != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, e.host, tt.want)
		}
	}
}

// engine is an engine on a socket of the test's.
func engine(t *testing.T, h http.HandlerFunc) *Engine {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "tarport") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: 1e10}}
	srv.Start()
	t.Cleanup(srv.Close)
	e, err := New(Options{Getenv: func(name string) string {
		return map[string]string{"DOCKER_HOST": "unix://" + l.Addr().String()}[name]
	}, Config: dir})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTheEngineIsAskedOverItsSocket(t *testing.T) {
	t.Parallel()
	var asked []string
	e := engine(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		switch r.URL.Path {
		case "/containers/web/json":
			_, _ = io.WriteString(w, `{"Id":"c1","Name":"/web","Image":"sha256:i1","State":{"Running":true},"Config":{"Image":"a/b:1","Env":["A=1"],"Volumes":null}}`)
		case "/images/a/b:1/json":
			_, _ = io.WriteString(w, `{"Id":"sha256:i1","RepoTags":["a/b:1"],"RootFS":{"Type":"layers","Layers":["sha256:l1"]},"Config":{"Cmd":["x"]}}`)
		case "/containers/c1/pause", "/containers/c1/unpause":
			w.WriteHeader(http.StatusNoContent)
		case "/containers/c1/export":
			_, _ = io.WriteString(w, "a tar")
		case "/containers/gone/export":
			_, _ = io.WriteString(w, "half a")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"No such container: none"}`)
		}
	})
	c, err := e.Container(t.Context(), "web")
	want := Container{ID: "c1", Name: "/web", Image: "sha256:i1", Config: Config{Image: "a/b:1", Env: []string{"A=1"}}}
	want.State.Running = true
	if diff := cmp.Diff(want, c); err != nil || diff != "" {
		t.Errorf("Container = %v (-want +got):\n%s", err, diff)
	}
	im, err := e.Image(t.Context(), "a/b:1")
	if err != nil || im.ID != "sha256:i1" || im.RootFS.Layers[0] != "sha256:l1" || im.Config.Cmd[0] != "x" {
		t.Errorf("Image = %+v, %v", im, err)
	}
	if err := errors.Join(e.Pause(t.Context(), "c1"), e.Unpause(t.Context(), "c1")); err != nil {
		t.Error(err)
	}
	r, err := e.Export(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "a tar" || r.Close() != nil {
		t.Errorf("Export = %q, %v", b, err)
	}
	if r, err = e.Export(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err == nil || r.Close() != nil {
		t.Errorf("an export that breaks = %q, %v, want an error", b, err)
	}
	_, err = e.Container(t.Context(), "none")
	if said, ok := errors.AsType[*Error](err); !ok || said.Status != http.StatusNotFound || err.Error() != "docker: No such container: none" {
		t.Errorf("a container that is not there: %v", err)
	}
	wantAsked := "GET /containers/web/json|GET /images/a/b:1/json|POST /containers/c1/pause|POST /containers/c1/unpause|" +
		"GET /containers/c1/export|GET /containers/gone/export|GET /containers/none/json"
	if got := strings.Join(asked, "|"); got != wantAsked {
		t.Errorf("asked: %s, want %s", got, wantAsked)
	}
	nobody, err := New(Options{Getenv: func(string) string { return "" }, Config: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	nobody.http.Transport.(*http.Transport).DialContext = nil
	nobody.base = "http://127.0.0.1:1"
	if _, err := nobody.Image(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "the Docker Engine at "+defaultHost+" cannot be reached") {
		t.Errorf("no engine: %v", err)
	}
}

func TestWhatNoInstructionCanSayIsLost(t *testing.T) {
	t.Parallel()
	image := Config{Env: []string{"GONE=1"}, User: "app"}
	container := Config{
		Env: []string{"LINES=a\nb", "A B=1"}, Labels: map[string]string{"l": "a\nb"},
		Healthcheck: &Healthcheck{Test: []string{"CMD-SHELL", "a\nb"}},
	}
	changes, lost := Changes(image, container)
	if len(changes) != 0 || len(lost) != 6 {
		t.Errorf("Changes = %q, lost %q, want nothing and six", changes, lost)
	}
	if changes, lost := Changes(container, container); len(changes)+len(lost) != 0 {
		t.Errorf("Changes of the same = %q, %q", changes, lost)
	}
}
