package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/tarport/tarport"
)

// Options of Middleware.
type Options struct {
	Log       *slog.Logger                                     // required
	AccessLog bool                                             // one Info line a request
	Observe   func(method string, status int, d time.Duration) // may be nil
}

// Middleware gives each request an id, says in its context (tarport.Call) where
// it came from, writes its line in the log, and
// answers 500 where a handler panics.
func Middleware(o Options) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rq := &request{id: rand.Text(), log: o.Log}
			rec := &recorder{ResponseWriter: w, request: rq}
			call := tarport.Call{RequestID: rq.id}
			if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil { // a Unix socket has none
				call.Address = a.Addr()
			}
			r = r.WithContext(tarport.WithCall(context.WithValue(r.Context(), requestKey{}, rq), call))
			w.Header()["X-Request-Id"] = []string{rq.id}
			began := time.Now()
			defer func() {
				finish(o, rec, r, time.Since(began))
			}()
			defer recoverPanic(rec, r)
			next.ServeHTTP(rec, r)
		})
	}
}

func recoverPanic(rec *recorder, r *http.Request) {
	p := recover()
	switch {
	case p == nil:
	case p == http.ErrAbortHandler: //nolint:errorlint // a panic value, not an error chain
		panic(p)
	default:
		rec.log.LogAttrs(r.Context(), slog.LevelError, "handler panicked", slog.String("request_id", rec.id),
			slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		WriteError(rec, r, errors.New("handler panicked"))
	}
}

func finish(o Options, rec *recorder, r *http.Request, d time.Duration) {
	status := rec.status
	if status == 0 {
		status = http.StatusOK
	}
	if o.Observe != nil {
		o.Observe(r.Method, status, d)
	}
	if !o.AccessLog {
		return
	}
	if rec.logStatus != 0 {
		status = rec.logStatus
	}
	// The query is left out: it can hold tokens and upload states.
	attrs := []slog.Attr{
		slog.String("request_id", rec.id), slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.Int64("bytes", rec.bytes), slog.Duration("took", d),
		slog.String("remote", r.RemoteAddr), slog.String("user", rec.user),
	}
	if rec.code != "" {
		attrs = append(attrs, slog.String("code", string(rec.code)))
	}
	o.Log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

type requestKey struct{}

// request is what a request carries in its context.
type request struct {
	id   string
	user string
	log  *slog.Logger

	errorHeaders func(http.ResponseWriter, *http.Request, error)
	errorShape   ErrorShape
}

// RequestID is the id of the request, as in its answer's X-Request-Id.
func RequestID(ctx context.Context) string {
	if rq, ok := ctx.Value(requestKey{}).(*request); ok {
		return rq.id
	}
	return ""
}

// SetUser tells the log who asks.
func SetUser(ctx context.Context, name string) {
	if rq, ok := ctx.Value(requestKey{}).(*request); ok {
		rq.user = name
	}
}

// SetErrorHeaders lets fn set the headers that belong to an error's answer,
// such as the challenge of a 401, before WriteError writes it.
func SetErrorHeaders(ctx context.Context, fn func(http.ResponseWriter, *http.Request, error)) {
	if rq, ok := ctx.Value(requestKey{}).(*request); ok {
		rq.errorHeaders = fn
	}
}

// SetErrorShape gives the answer to an error another shape than the
// distribution spec's, for an API that is not ours to design.
func SetErrorShape(ctx context.Context, shape ErrorShape) {
	if rq, ok := ctx.Value(requestKey{}).(*request); ok {
		rq.errorShape = shape
	}
}

func loggerFrom(ctx context.Context) *slog.Logger {
	if rq, ok := ctx.Value(requestKey{}).(*request); ok {
		return rq.log
	}
	return slog.Default()
}

// recorder is the ResponseWriter that the handlers see. It keeps the way open
// for sendfile (ReadFrom) and for http.ResponseController (Unwrap).
type recorder struct {
	http.ResponseWriter
	*request
	status    int
	logStatus int // where the log says another
	code      tarport.Code
	bytes     int64
}

func recorderOf(w http.ResponseWriter) *recorder {
	for {
		if rec, ok := w.(*recorder); ok {
			return rec
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Flush sends what was written so far, for answers that stream.
func (r *recorder) Flush() {
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}
