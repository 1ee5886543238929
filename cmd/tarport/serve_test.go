package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// process is `tarport serve` in this process.
type process struct {
	addr, metrics string
	output        *output
	stop          context.CancelFunc
	code          chan int
}

// output is what a command prints. It watches for the line that says where the
// server listens.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	serving chan [2]string
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var line struct{ Msg, Addr, Metrics string }
	if json.Unmarshal(p, &line) == nil && line.Msg == "serving" {
		o.serving <- [2]string{line.Addr, line.Metrics}
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

const password = "correct horse battery staple"

// start starts a server on free ports with its data in dir. The variables come
// last.
func start(t *testing.T, dir, yaml string, environ ...string) *process {
	t.Helper()
	p := launch(t, dir, yaml, environ...)
	select {
	case a := <-p.output.serving:
		p.addr, p.metrics = a[0], a[1]
	case code := <-p.code:
		t.Fatalf("serve ended with %d:\n%s", code, p.output)
	}
	return p
}

func launch(t *testing.T, dir, yaml string, environ ...string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yml")
	yaml = "version: 0.1\nlog:\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: " + dir + "\n" + yaml
	if !strings.Contains(yaml, "\nhttp:") {
		yaml += "http:\n  addr: 127.0.0.1:0\n"
	}
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{output: &output{serving: make(chan [2]string, 1)}, code: make(chan int, 1)}
	ctx, stop := context.WithCancel(t.Context())
	p.stop = stop
	a := &app{out: p.output, err: p.output, environ: append([]string{"TARPORT_METRICS_ADDR=127.0.0.1:0"}, environ...)}
	go func() { p.code <- run(ctx, a, []string{"serve", file}) }()
	t.Cleanup(func() {
		stop()
		<-p.code
	})
	return p
}

// end stops the server and returns its exit code.
func (p *process) end() int {
	p.stop()
	code := <-p.code
	p.code <- code // for the cleanup
	return code
}

// answer is an answer that was read to its end.
type answer struct {
	status int
	proto  int
	header http.Header
	body   string
}

// do sends a request as the administrator.
func (p *process) do(t *testing.T, method, path string, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	a, err := send(http.DefaultClient, req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func send(c *http.Client, req *http.Request) (answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.ProtoMajor, resp.Header, string(b)}, err
}

// ask sends a request without a credential.
func ask(t *testing.T, c *http.Client, method, url string, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	a, err := send(c, req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

func listenLocally(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

var boxedPassword = regexp.MustCompile(`user +admin +\|\n\| +password +([A-Z2-7]{26}) +\|`)

func TestFirstStartShowsThePasswordOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir, "")
	m := boxedPassword.FindStringSubmatch(p.output.String())
	if m == nil {
		t.Fatalf("the first start shows no password:\n%s", p.output)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", m[1])
	if a, err := send(http.DefaultClient, req); err != nil || a.status != http.StatusOK {
		t.Errorf("GET /v2/ with the password that was shown = %d, %v, want 200", a.status, err)
	}
	if code := p.end(); code != exitOK || !strings.Contains(p.output.String(), `"stopped"`) {
		t.Errorf("serve ended with %d, want 0:\n%s", code, p.output)
	}
	if again := start(t, dir, ""); boxedPassword.MatchString(again.output.String()) {
		t.Error("the second start shows a password, too")
	}
}

func TestPasswordFromTheEnvironmentIsNotShown(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	if got := p.do(t, http.MethodGet, "/v2/", nil); got.status != http.StatusOK {
		t.Errorf("GET /v2/ = %d %s, want 200", got.status, got.body)
	}
	p.end()
	if s := p.output.String(); boxedPassword.MatchString(s) || strings.Contains(s, password) {
		t.Errorf("the password is in what was printed:\n%s", s)
	}
}

func TestOneProcessOwnsADataDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir, "")
	second := launch(t, dir, "")
	if code := second.end(); code != exitFailure || !strings.Contains(second.output.String(), "the data directory "+dir+" is in use by another tarport") {
		t.Errorf("a second server on the directory ended with %d:\n%s", code, second.output)
	}
}

func TestTwoServersInOneProcess(t *testing.T) {
	t.Parallel()
	a := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	b := start(t, t.TempDir(), "tarport: {public_url: 'https://registry.example.com'}\n", "TARPORT_ADMIN_PASSWORD="+password, "TARPORT_METRICS_ADDR=main")
	layer := "what was pushed to a"
	upload := "/v2/team/app/blobs/uploads/?digest=" + digest.FromString(layer).String()
	if got := a.do(t, http.MethodPost, upload, strings.NewReader(layer)); got.status != http.StatusCreated {
		t.Fatalf("POST %s = %d %s, want 201", upload, got.status, got.body)
	}
	blob := "/v2/team/app/blobs/" + digest.FromString(layer).String()
	if got := a.do(t, http.MethodGet, blob, nil); got.status != http.StatusOK || got.body != layer {
		t.Errorf("GET %s from a = %d %s, want what was pushed", blob, got.status, got.body)
	}
	if got := b.do(t, http.MethodGet, blob, nil); got.status != http.StatusNotFound {
		t.Errorf("GET %s from b = %d %s, want 404", blob, got.status, got.body)
	}
	for p, realm := range map[*process]string{a: "http://" + a.addr + "/auth/token", b: "https://registry.example.com/auth/token"} {
		got := ask(t, http.DefaultClient, http.MethodGet, "http://"+p.addr+"/v2/", nil).header.Get("WWW-Authenticate")
		if !strings.Contains(got, `realm="`+realm+`"`) {
			t.Errorf("challenge = %s, want the realm %s", got, realm)
		}
	}
	if got := b.do(t, http.MethodGet, "/metrics", nil); !strings.Contains(got.body, "tarport_http_request_duration_seconds") {
		t.Error("the metrics are not on the main listener")
	}
	if got := a.do(t, http.MethodGet, "/metrics", nil); got.status != http.StatusNotFound {
		t.Errorf("GET /metrics on the main listener = %d, want 404", got.status)
	}
}

func TestUploadUnderWayIsDrained(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	layer := strings.Repeat("x", 1<<20)
	r, w := io.Pipe()
	type result struct {
		answer
		err error
	}
	ended := make(chan result, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/v2/team/app/blobs/uploads/?digest="+digest.FromString(layer).String(), r)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	go func() {
		a, err := send(&http.Client{Transport: &http.Transport{}}, req)
		ended <- result{a, err}
	}()
	if _, err := io.WriteString(w, layer[:1<<19]); err != nil {
		t.Fatal(err)
	}
	operations := &process{addr: p.metrics}
	for body := ""; !strings.Contains(body, "tarport_http_requests_under_way 1"); {
		body = operations.do(t, http.MethodGet, "/metrics", nil).body
	}
	p.stop()
	for { // until it takes no more connections
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.addr)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	if _, err := io.WriteString(w, layer[1<<19:]); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if got := <-ended; got.err != nil || got.status != http.StatusCreated {
		t.Errorf("the upload ended with %d, %v, want 201", got.status, got.err)
	}
	if code := p.end(); code != exitOK {
		t.Errorf("serve ended with %d:\n%s", code, p.output)
	}
}

func TestWhatHasNoRoute(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	for _, tt := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, "NOT_FOUND"},
		{"GET", "/v20/", 404, "NOT_FOUND"},
		{"GET", "/v2/x", 404, "NOT_FOUND"},
		{"GET", "/api/v1/nothing", 404, "NOT_FOUND"},
		{"GET", "/api/v1/archives/load", 405, "UNSUPPORTED"},
		{"GET", "/api/v1/archives/import", 405, "UNSUPPORTED"},
		{"GET", "/debug/pprof/", 404, "NOT_FOUND"},
		{"GET", "/debug/vars", 404, "NOT_FOUND"},
		{"GET", "//auth//token", 404, "NOT_FOUND"},
	} {
		got := p.do(t, tt.method, tt.path, nil)
		if got.status != tt.status || !strings.Contains(got.body, `"code":"`+tt.code+`"`) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, got.status, got.body, tt.status, tt.code)
		}
	}
	got := ask(t, http.DefaultClient, http.MethodPost, "http://"+p.addr+"/api/v1/archives/load?namespace=x", strings.NewReader("x"))
	if got.status != http.StatusUnauthorized || len(got.header["Www-Authenticate"]) != 2 {
		t.Errorf("a stranger's load = %d %v, want 401 and two ways to log in", got.status, got.header["Www-Authenticate"])
	}
}

func TestServeTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	busy := listenLocally(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	short := t.TempDir()
	if err := os.WriteFile(filepath.Join(short, "secret"), []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, dir, yaml, variable, want string }{
		{"address in use", t.TempDir(), "http:\n  addr: " + busy.Addr().String() + "\n", "", "http.addr: "},
		{"metrics address in use", t.TempDir(), "", "TARPORT_METRICS_ADDR=" + busy.Addr().String(), "tarport.metrics.addr: "},
		{"data is a file", file, "", "", "make the data directory: "},
		{"no certificate", t.TempDir(), "http:\n  addr: 127.0.0.1:0\n  tls: {certificate: /none, key: /none}\n", "", "http.tls: "},
		{"secret is gone", short, "", "", "holds no secret"},
		{"no database", t.TempDir(), "", "TARPORT_DATABASE_DSN=postgres://127.0.0.1:1/none?connect_timeout=1", "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			if tt.variable != "" {
				environ = append(environ, tt.variable)
			}
			p := launch(t, tt.dir, tt.yaml, environ...)
			code := <-p.code
			p.code <- code
			if s := p.output.String(); code != exitFailure || !strings.Contains(s, "tarport: ") || !strings.Contains(s, tt.want) {
				t.Errorf("serve ended with %d, want 1 and %q:\n%s", code, tt.want, s)
			}
			if strings.Contains(p.output.String(), "shown only once") {
				t.Errorf("a start that failed has made the administrator:\n%s", p.output.String())
			}
		})
	}
}

func TestSecretIsMadeOnce(t *testing.T) {
	t.Parallel()
	d := &dataDir{path: t.TempDir()}
	var wg sync.WaitGroup
	secrets := make([]string, 8)
	for i := range secrets {
		wg.Go(func() {
			s, err := d.secret("")
			if err != nil {
				t.Errorf("secret() = %v", err)
			}
			secrets[i] = s.Reveal()
		})
	}
	wg.Wait()
	for _, s := range secrets {
		if s != secrets[0] || len(s) < 32 {
			t.Fatalf("secret() = %q, want the same of them all", secrets)
		}
	}
	fi, err := os.Stat(secretFile(d.path))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file has the mode %v, %v, want 0600", fi.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.path, ".secret-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if s, err := d.secret("configured"); s.Reveal() != "configured" || err != nil {
		t.Errorf("secret(configured) = %q, %v", s.Reveal(), err)
	}
}

func TestHealthcheckAsksTheConfiguredServer(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "")
	for _, tt := range []struct {
		name    string
		args    []string
		environ []string
		yaml    string
		want    int
	}{
		{"by URL", []string{"--url", "http://" + p.addr + "/healthz"}, nil, "", exitOK},
		{"not found", []string{"--url", "http://" + p.addr + "/nothing"}, nil, "", exitFailure},
		{"nobody there", []string{"--url", "http://127.0.0.1:1/healthz"}, nil, "", exitFailure},
		{"no URL", []string{"--url", ":"}, nil, "", exitUsage},
		{"by address", nil, nil, "http:\n  addr: " + p.addr + "\n", exitOK},
		{"all interfaces", nil, nil, "http:\n  addr: " + strings.Replace(p.addr, "127.0.0.1", "0.0.0.0", 1) + "\n", exitOK},
		{"metrics for client certificates", nil, nil, "http: {addr: '127.0.0.1:1', tls: {certificate: x, key: y, clientcas: [z]}}\ntarport: {metrics: {addr: '" + p.metrics + "'}}\n", exitOK},
		{"no way in", nil, []string{"TARPORT_METRICS_ADDR="}, "http: {addr: '127.0.0.1:1', tls: {certificate: x, key: y, clientcas: [z]}}\n", exitFailure},
		{"bad configuration", nil, nil, "bogus: 1\n", exitFailure},
	} {
		args := append([]string{"healthcheck"}, tt.args...)
		if tt.yaml != "" {
			file := filepath.Join(t.TempDir(), "config.yml")
			if err := os.WriteFile(file, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, file)
		}
		o := &output{}
		if got := run(t.Context(), &app{out: o, err: o, environ: tt.environ}, args); got != tt.want {
			t.Errorf("%s: healthcheck ended with %d, want %d:\n%s", tt.name, got, tt.want, o)
		}
	}
}

func TestHealthcheckOverUnixSocketAndTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	yaml := "http:\n  net: unix\n  addr: " + socket + "\n"
	start(t, filepath.Join(dir, "a"), yaml)
	o := &output{}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t.Context(), &app{out: o, err: o, environ: []string{"TARPORT_CONFIG=" + file}}, []string{"healthcheck"}); got != exitOK {
		t.Errorf("healthcheck over a socket ended with %d:\n%s", got, o)
	}

	cert, key := writeCertificate(t, dir)
	b := start(t, filepath.Join(dir, "b"), fmt.Sprintf("http:\n  addr: 127.0.0.1:0\n  tls: {certificate: %s, key: %s}\n", cert, key))
	yaml = fmt.Sprintf("http:\n  addr: %s\n  tls: {certificate: %s, key: %s}\n", b.addr, cert, key)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t.Context(), &app{out: o, err: o}, []string{"healthcheck", file}); got != exitOK {
		t.Errorf("healthcheck over TLS ended with %d:\n%s", got, o)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	got := ask(t, client, http.MethodGet, "https://"+b.addr+"/v2/", nil)
	if realm := got.header.Get("WWW-Authenticate"); got.proto != 2 || !strings.Contains(realm, `realm="https://`+b.addr) {
		t.Errorf("GET /v2/ over TLS = HTTP/%d, %s; want HTTP/2 and a realm with https", got.proto, realm)
	}
}

func TestHealthcheckTimesOut(t *testing.T) {
	t.Parallel()
	l := listenLocally(t) // takes connections and says nothing
	o := &output{}
	began := time.Now()
	if got := run(t.Context(), &app{out: o, err: o}, []string{"healthcheck", "--timeout", "50ms", "--url", "http://" + l.Addr().String()}); got != exitFailure {
		t.Errorf("healthcheck of a silent server ended with %d", got)
	}
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("healthcheck took %v", d)
	}
}
