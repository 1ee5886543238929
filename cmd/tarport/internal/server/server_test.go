package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/internal/httpapi"
)

var (
	noHealth = configuration.Health{}
	okCheck  = Check{Name: "storage", Func: func(context.Context) error { return nil }}
)

func localListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return resp.StatusCode, string(b)
}

func TestDrainWaitsForRequestsAndSaysSoFirst(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	main, metrics := localListener(t), localListener(t)
	s := New(t.Context(), Options{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-release
			_, _ = fmt.Fprint(w, "done, ", r.Context().Err())
		}),
		Listener: main, MetricsListener: metrics, MetricsPath: "/metrics",
		Log: quiet(), Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: time.Minute,
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	if code, body := get(t, http.DefaultClient, "http://"+main.Addr().String()+"/readyz"); code != 200 {
		t.Errorf("/readyz = %d %s, want 200", code, body)
	}
	type answer struct {
		code int
		body string
	}
	answered := make(chan answer, 1)
	go func() {
		code, body := get(t, &http.Client{Transport: &http.Transport{}}, "http://"+main.Addr().String()+"/")
		answered <- answer{code, body}
	}()
	<-begun
	stop()
	// The metrics stay until the end, and say that it is near.
	for ready := 200; ready != http.StatusServiceUnavailable; {
		ready, _ = get(t, http.DefaultClient, "http://"+metrics.Addr().String()+"/readyz")
	}
	if _, body := get(t, http.DefaultClient, "http://"+metrics.Addr().String()+"/metrics"); !strings.Contains(body, "tarport_http_requests_under_way 1") {
		t.Errorf("/metrics does not tell of the request under way:\n%s", body)
	}
	close(release)
	if got := <-answered; got.code != 200 || got.body != "done, <nil>" {
		t.Errorf("the request under way was answered %v, want 200 done", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", main.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the server still takes connections")
	}
}

func TestDrainCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan struct{})
		var ended atomic.Bool
		l := newPipeListener()
		s := New(t.Context(), Options{
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(begun)
				<-r.Context().Done()
				ended.Store(true)
			}),
			Listener: l, Log: quiet(), Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: 30 * time.Second,
		})
		ctx, stop := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.Run(ctx) }()
		c := l.dial()
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		<-begun
		began := time.Now()
		stop()
		err := <-result
		if err == nil || !strings.Contains(err.Error(), "1 requests did not end within 30s") {
			t.Errorf("Run() = %v, want it to say what was cut", err)
		}
		if got := time.Since(began); got < 30*time.Second || got > 36*time.Second {
			t.Errorf("Run() ended after %v, want 30s", got)
		}
		if !ended.Load() {
			t.Error("Run() ended before the handler did")
		}
	})
}

func TestRunTellsOfAListenerThatFails(t *testing.T) {
	t.Parallel()
	l := localListener(t)
	_ = l.Close()
	s := New(t.Context(), Options{
		Handler: http.NotFoundHandler(), Listener: l, MetricsListener: localListener(t),
		Log: quiet(), Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: time.Second,
	})
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "serve http on") {
		t.Errorf("Run() = %v, want the listener's error", err)
	}
}

func TestOperationsAreServedWhereTheyBelong(t *testing.T) {
	t.Parallel()
	build := func(own bool, path string) *Server {
		o := Options{
			Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
			Listener: newPipeListener(), Log: quiet(), MetricsPath: path,
			Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Headers: http.Header{"X-A": {"b"}},
		}
		if own {
			o.MetricsListener = newPipeListener()
		}
		return New(t.Context(), o)
	}
	tests := []struct {
		name   string
		h      http.HandlerFunc
		method string
		path   string
		want   int
	}{
		{"own listener", build(true, "/metrics").serveMain, "GET", "/metrics", 418},
		{"own listener", build(true, "/metrics").serveMetrics, "GET", "/metrics", 200},
		{"own listener", build(true, "/metrics").serveMetrics, "GET", "/healthz", 200},
		{"own listener", build(true, "/metrics").serveMetrics, "GET", "/v2/", 404},
		{"own listener", build(true, "/metrics").serveMetrics, "GET", "/debug/pprof/", 404},
		{"main listener", build(false, "/metrics").serveMain, "GET", "/metrics", 200},
		{"main listener", build(false, "/metrics").serveMain, "POST", "/metrics", 405},
		{"other path", build(false, "/prom").serveMain, "GET", "/prom", 200},
		{"off", build(false, "").serveMain, "GET", "/metrics", 418},
		{"any", build(true, "/metrics").serveMain, "GET", "/healthz", 200},
		{"any", build(true, "/metrics").serveMain, "HEAD", "/readyz", 200},
		{"any", build(true, "/metrics").serveMain, "DELETE", "/readyz", 405},
		{"any", build(true, "/metrics").serveMain, "GET", "/v2/", 418},
		{"any", build(true, "/metrics").serveMain, "GET", "/debug/pprof/", 418},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		tt.h(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s: %s %s = %d, want %d", tt.name, tt.method, tt.path, w.Code, tt.want)
		}
		if tt.want == http.StatusTeapot && w.Header().Get("X-A") != "b" {
			t.Errorf("%s: %s %s lacks the configured header", tt.name, tt.method, tt.path)
		}
	}
}

func TestReadyzNamesWhatFailsAndForgetsSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		var calls atomic.Int64
		down := filepath.Join(t.TempDir(), "down")
		h := NewHealth(quiet(), configuration.Health{FileCheckers: []configuration.FileChecker{{File: down, Interval: time.Second}}}, okCheck,
			Check{"database", func(context.Context) error {
				calls.Add(1)
				if broken.Load() {
					return errors.New("dial tcp 10.0.0.7: no route")
				}
				return nil
			}})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go h.poll(ctx)
		ask := func() (int, healthBody) {
			w := httptest.NewRecorder()
			h.ready(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
			var b healthBody
			if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil {
				t.Fatalf("/readyz answers %s: %v", w.Body, err)
			}
			return w.Code, b
		}
		for range 100 {
			if code, b := ask(); code != 200 || b.Status != "ready" {
				t.Fatalf("/readyz = %d %+v, want 200 ready", code, b)
			}
		}
		if got := calls.Load(); got != 1 {
			t.Errorf("100 requests ran the check %d times, want once", got)
		}
		broken.Store(true)
		pass(checkMemory)
		code, b := ask()
		if diff := cmp.Diff(healthBody{"not ready", []string{"database"}}, b); code != 503 || diff != "" {
			t.Errorf("/readyz = %d, (-want +got):\n%s", code, diff)
		}
		broken.Store(false)
		if err := os.WriteFile(down, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		code, b = ask()
		if diff := cmp.Diff(healthBody{"not ready", []string{"file " + down}}, b); code != 503 || diff != "" {
			t.Errorf("/readyz = %d, (-want +got):\n%s", code, diff)
		}
		h.Drain()
		if code, b = ask(); code != 503 || b.Status != "stopping" {
			t.Errorf("/readyz = %d %+v, want 503 stopping", code, b)
		}
	})
}

// The whole stack speaks HTTP/2 with a client over TLS, and not where it is
// switched off.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	for _, disabled := range []bool{false, true} {
		files := newCertFiles(t)
		files.write(t, "localhost")
		conf := files.config(t, func(c *configuration.HTTP) { c.HTTP2.Disabled = disabled })
		tlsConf, err := TLS(conf, quiet())
		if err != nil {
			t.Fatal(err)
		}
		l := localListener(t)
		s := New(t.Context(), Options{
			Handler:  DefaultPace().Bodies(httpapi.Handle(readAll)),
			Listener: l, TLS: tlsConf, HTTP1: disabled, Log: quiet(),
			Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: time.Second,
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: files.pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+l.Addr().String()+"/", strings.NewReader(strings.Repeat("x", 3<<20)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		want := 2
		if disabled {
			want = 1
		}
		if resp.ProtoMajor != want || string(body) != strconv.Itoa(3<<20) {
			t.Errorf("disabled=%v: HTTP/%d answered %s, want HTTP/%d and %d", disabled, resp.ProtoMajor, body, want, 3<<20)
		}
		tr.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}
}

func TestNetHTTPsLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := slog.NewLogLogger(errorLog{slog.NewTextHandler(&out, nil)}, slog.LevelWarn)
	_ = l.Output(1, "http: TLS handshake error from 192.0.2.1:1: EOF")
	if out.Len() > 0 {
		t.Errorf("a handshake is logged: %s", out.String())
	}
	_ = l.Output(1, "http: Accept error: too many open files; retrying in 5ms")
	if !strings.Contains(out.String(), `level=WARN msg=net/http err="http: Accept error`) {
		t.Errorf("the log has no accept error: %s", out.String())
	}
}

func TestMetricsCountByMethodAndClass(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.Observe("GET", 200, time.Millisecond)
	m.Observe("GET", 206, time.Millisecond)
	m.Observe("PUT", 413, time.Second)
	m.Observe("BREW", 999, time.Second)
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`tarport_http_request_duration_seconds_count{code="2xx",method="GET"} 2`,
		`tarport_http_request_duration_seconds_count{code="4xx",method="PUT"} 1`,
		`tarport_http_request_duration_seconds_count{code="5xx",method="other"} 1`,
		`tarport_build_info{`, "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if w.Code != http.StatusOK {
		t.Errorf("/metrics = %d", w.Code)
	}
}

func BenchmarkObserve(b *testing.B) {
	m := NewMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.Observe("GET", 200, 300*time.Microsecond)
	}
}
