// Package docker asks the Docker Engine of this machine for what tarport commit
// needs of it: a container, its image, its file system. It speaks the Engine API
// over the socket that the docker command would use (DOCKER_HOST, a context, or
// the default), without an SDK.
package docker

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Options of New.
type Options struct {
	Getenv func(name string) string // of the user's environment; required
	Config string                   // docker's directory, ~/.docker; required
}

// Engine is one Docker Engine. It is safe for concurrent use.
type Engine struct {
	host string // as the user would write it
	base string
	http *http.Client
}

// New returns the engine that the docker command would use. It is not asked
// yet.
func New(o Options) (*Engine, error) {
	e, err := endpointOf(o)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(e.host)
	if err != nil {
		return nil, fmt.Errorf("the Docker host %q is no URL: %w", e.host, err)
	}
	t := &http.Transport{DisableCompression: true, ReadBufferSize: 256 << 10}
	out := &Engine{host: e.host, http: &http.Client{Transport: t}}
	switch u.Scheme {
	case "unix":
		path := u.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		out.base = "http://docker"
	case "tcp", "http", "https":
		scheme := "http"
		if e.tls != nil || u.Scheme == "https" {
			scheme, t.TLSClientConfig = "https", e.tls
		}
		t.DialContext = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
		out.base = scheme + "://" + u.Host + strings.TrimRight(u.Path, "/")
	default:
		return nil, fmt.Errorf("the Docker host %s cannot be spoken to: only unix:// and tcp:// can; name one by DOCKER_HOST", e.host)
	}
	return out, nil
}

// endpoint is where an engine is.
type endpoint struct {
	host string
	tls  *tls.Config
}

// endpointOf goes by docker's own order: DOCKER_HOST, DOCKER_CONTEXT, the
// context that its configuration names, the default.
func endpointOf(o Options) (endpoint, error) {
	if host := o.Getenv("DOCKER_HOST"); host != "" {
		e := endpoint{host: host}
		if o.Getenv("DOCKER_TLS_VERIFY") == "" && o.Getenv("DOCKER_TLS") == "" {
			return e, nil
		}
		dir := o.Getenv("DOCKER_CERT_PATH")
		if dir == "" {
			dir = o.Config
		}
		var err error
		e.tls, err = readTLS(dir, o.Getenv("DOCKER_TLS_VERIFY") == "")
		return e, err
	}
	name := o.Getenv("DOCKER_CONTEXT")
	if name == "" {
		var config struct{ CurrentContext string }
		b, err := os.ReadFile(filepath.Join(o.Config, "config.json"))
		if err == nil && json.Unmarshal(b, &config) == nil {
			name = config.CurrentContext
		}
	}
	if name == "" || name == "default" {
		return endpoint{host: defaultHost}, nil
	}
	return contextNamed(o.Config, name)
}

const defaultHost = "unix:///var/run/docker.sock"

// contextNamed reads a context where docker keeps it (docker 29,
// cli/context/store): in directories that are called by the digest of its name.
func contextNamed(config, name string) (endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	b, err := os.ReadFile(filepath.Join(config, "contexts", "meta", id, "meta.json"))
	if err != nil {
		return endpoint{}, fmt.Errorf("docker's context %q cannot be read: %w", name, err)
	}
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return endpoint{}, fmt.Errorf("docker's context %q cannot be read: %w", name, err)
	}
	found := meta.Endpoints["docker"]
	if found.Host == "" {
		return endpoint{}, fmt.Errorf("docker's context %q names no engine", name)
	}
	e := endpoint{host: found.Host}
	if dir := filepath.Join(config, "contexts", "tls", id, "docker"); exists(dir) {
		e.tls, err = readTLS(dir, found.SkipTLSVerify)
	}
	return e, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readTLS reads what docker keeps of certificates in a directory.
func readTLS(dir string, skipVerify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify} //nolint:gosec // as the user's docker is told
	if ca, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err == nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s has no certificate", filepath.Join(dir, "ca.pem"))
		}
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if !exists(cert) && !exists(key) {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read docker's certificate: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// Error is what the engine says is wrong.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return "docker: " + e.Message }

// open sends a request; the caller closes the answer's body.
func (e *Engine) open(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, e.unreachable(err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 || resp.StatusCode == http.StatusNotModified {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var said struct{ Message string }
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came of it is shown
	if json.Unmarshal(b, &said) != nil || said.Message == "" {
		said.Message = resp.Status
	}
	return nil, &Error{resp.StatusCode, said.Message}
}

func (e *Engine) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	hint := ""
	if errors.Is(err, os.ErrPermission) && runtime.GOOS == "linux" {
		hint = "; may this user use docker? It has to be in the group docker, or root"
	}
	return fmt.Errorf("the Docker Engine at %s cannot be reached%s: %w", e.host, hint, err)
}

const maxAnswer = 16 << 20

func (e *Engine) get(ctx context.Context, path string, v any) error {
	body, err := e.open(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(v); err != nil {
		return fmt.Errorf("read the answer of the Docker Engine: %w", err)
	}
	return nil
}

// Container is what is asked of one.
type Container struct {
	ID    string `json:"Id"`
	Name  string // with a leading slash
	Image string // its ID
	State struct{ Running, Paused bool }
	// Config is the container's own: the image's, and what docker run was told.
	Config Config
}

// Config is the part of a container's or an image's configuration that becomes
// an image's.
type Config struct {
	Image        string // of a container: the name that it was run by
	User         string
	Env          []string
	Cmd          []string
	Entrypoint   []string
	WorkingDir   string
	ExposedPorts map[string]struct{}
	Volumes      map[string]struct{}
	Labels       map[string]string
	StopSignal   string
	Healthcheck  *Healthcheck
}

// Healthcheck is how a container is found to be well; times are nanoseconds.
type Healthcheck struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// Image is what is asked of one.
type Image struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Os           string
	Architecture string
	Variant      string
	Config       Config
	RootFS       struct{ Layers []string } // diffIDs
}

// Container returns a container by name or ID.
func (e *Engine) Container(ctx context.Context, name string) (c Container, err error) {
	err = e.get(ctx, "/containers/"+url.PathEscape(name)+"/json", &c)
	return c, err
}

// Image returns an image by name or ID.
func (e *Engine) Image(ctx context.Context, name string) (im Image, err error) {
	err = e.get(ctx, "/images/"+escapeName(name)+"/json", &im)
	return im, err
}

// escapeName keeps the slashes of a name, as the engine's router wants it.
func escapeName(name string) string {
	return strings.ReplaceAll(url.PathEscape(name), "%2F", "/")
}

// Pause stops the processes of a container; the engine does nothing to one that
// is paused already.
func (e *Engine) Pause(ctx context.Context, id string) error { return e.post(ctx, id, "pause") }

// Unpause lets them go on.
func (e *Engine) Unpause(ctx context.Context, id string) error { return e.post(ctx, id, "unpause") }

func (e *Engine) post(ctx context.Context, id, action string) error {
	body, err := e.open(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/"+action)
	if err != nil {
		return err
	}
	return body.Close()
}

// Export is a container's file system as a tar. The caller closes it.
func (e *Engine) Export(ctx context.Context, id string) (io.ReadCloser, error) {
	return e.open(ctx, http.MethodGet, "/containers/"+url.PathEscape(id)+"/export")
}

// Save is an image as docker save writes it. The caller closes it.
func (e *Engine) Save(ctx context.Context, name string) (io.ReadCloser, error) {
	return e.open(ctx, http.MethodGet, "/images/"+escapeName(name)+"/get")
}
