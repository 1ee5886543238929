// Package server runs the HTTP listeners: TLS with certificates that are read
// again when they change, an end to clients that do not move, health, metrics,
// and the way down.
//
// It knows no routes but its own three. What is served besides is the handler
// that it is given:
//
//	listener ── pacedConn (writes that stall) ── [TLS] ── net/http
//	         ── /healthz /readyz [/metrics]
//	         └─ Handler: httpapi.Middleware ── Pace.Bodies ── the registry
//
// On the way down it first says so on /readyz, then takes no more connections
// and waits for the requests under way, then cuts what is left.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits of every connection.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 32 << 10
)

// cutTimeout is how long handlers get to notice that their connections were
// cut.
const cutTimeout = 5 * time.Second

// Options of New.
type Options struct {
	Handler  http.Handler // required
	Listener net.Listener // required; Run closes it
	Log      *slog.Logger // required
	Health   *Health      // required
	Metrics  *Metrics     // required

	MetricsListener net.Listener // nil: the metrics have no listener of their own
	MetricsPath     string       // on which listener ever; "" for nowhere

	TLS     *tls.Config   // nil for none
	HTTP1   bool          // HTTP/1.1 only
	H2C     bool          // HTTP/2 without TLS
	Headers http.Header   // stand in every answer
	Pace    Pace          // the zero value is DefaultPace
	Drain   time.Duration // how long Run waits for requests under way
}

// Server is the listeners and what they serve.
type Server struct {
	o        Options
	main     *http.Server
	metrics  *http.Server // nil without a listener of its own
	underWay atomic.Int64
	cut      context.CancelFunc
}

// New makes a Server. It serves once Run is called.
func New(ctx context.Context, o Options) *Server {
	if o.Pace == (Pace{}) {
		o.Pace = DefaultPace()
	}
	s := &Server{o: o}
	s.o.Metrics.underWay(func() float64 { return float64(s.underWay.Load()) })
	s.main = s.httpServer(http.HandlerFunc(s.serveMain))
	s.main.TLSConfig = o.TLS
	// Requests outlive the signal that ends Run: they are drained.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	s.cut = cut
	s.main.BaseContext = func(net.Listener) context.Context { return base }
	if o.MetricsListener != nil {
		s.metrics = s.httpServer(http.HandlerFunc(s.serveMetrics))
	}
	return s
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(!s.o.HTTP1)
	p.SetUnencryptedHTTP2(s.o.H2C && !s.o.HTTP1)
	return &http.Server{
		Handler:           h,
		Protocols:         p,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(errorLog{s.o.Log.Handler()}, slog.LevelWarn),
	}
}

func (s *Server) serveMain(w http.ResponseWriter, r *http.Request) {
	if s.serveOperations(w, r, s.o.MetricsListener == nil) {
		return
	}
	s.underWay.Add(1)
	defer s.underWay.Add(-1)
	for k, v := range s.o.Headers {
		w.Header()[k] = v
	}
	s.o.Handler.ServeHTTP(w, r)
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if !s.serveOperations(w, r, true) {
		http.NotFound(w, r)
	}
}

// serveOperations answers the routes of operation; false where it is none.
func (s *Server) serveOperations(w http.ResponseWriter, r *http.Request, metrics bool) bool {
	var h http.Handler
	switch path := r.URL.Path; {
	case path == "/healthz":
		h = http.HandlerFunc(s.o.Health.live)
	case path == "/readyz":
		h = http.HandlerFunc(s.o.Health.ready)
	case metrics && s.o.MetricsPath != "" && path == s.o.MetricsPath:
		h = s.o.Metrics.handler
	default:
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return true
	}
	h.ServeHTTP(w, r)
	return true
}

// Run serves until ctx ends, and then drains. It returns nil after a drain in
// time, and an error where a listener failed or requests had to be cut.
func (s *Server) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serve(s.main, s.o.Pace.Listener(s.o.Listener), "http") })
	if s.metrics != nil {
		g.Go(func() error { return s.serve(s.metrics, s.o.MetricsListener, "metrics") })
	}
	polls, stopPolls := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPolls()
	g.Go(func() error { s.o.Health.poll(polls); return nil })
	g.Go(func() error {
		<-gctx.Done()
		defer stopPolls()
		return s.drain(context.WithoutCancel(ctx))
	})
	return g.Wait()
}

func (s *Server) serve(srv *http.Server, l net.Listener, name string) error {
	var err error
	if srv.TLSConfig != nil {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s on %s: %w", name, l.Addr(), err)
}

// drain ends the server: /readyz first, so that balancers look elsewhere; the
// metrics last, so that the way down can be seen.
func (s *Server) drain(ctx context.Context) error {
	s.o.Health.Drain()
	s.o.Log.Info("stopping", slog.Int64("requests", s.underWay.Load()), slog.Duration("timeout", s.o.Drain))
	wait, cancel := context.WithTimeout(ctx, s.o.Drain)
	defer cancel()
	err := s.main.Shutdown(wait)
	if err != nil {
		err = fmt.Errorf("%d requests did not end within %s and were cut", s.underWay.Load(), s.o.Drain)
		_ = s.main.Close()
	}
	s.cut()
	s.waitForHandlers(ctx)
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
	return err
}

// waitForHandlers waits until no handler runs, so that the stores below them
// can be closed. After a Shutdown in time there is none.
func (s *Server) waitForHandlers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cutTimeout)
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for s.underWay.Load() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			s.o.Log.Warn("handlers did not end", slog.Int64("requests", s.underWay.Load()))
			return
		}
	}
}

// errorLog takes net/http's own log. TLS handshakes that fail are for whoever
// looks for them: any port scan makes some.
type errorLog struct{ slog.Handler }

func (l errorLog) Handle(ctx context.Context, r slog.Record) error {
	level := slog.LevelWarn
	if strings.HasPrefix(r.Message, "http: TLS handshake error") {
		level = slog.LevelDebug
	}
	if !l.Enabled(ctx, level) {
		return nil
	}
	out := slog.NewRecord(r.Time, level, "net/http", r.PC)
	out.AddAttrs(slog.String("err", r.Message))
	return l.Handler.Handle(ctx, out)
}
