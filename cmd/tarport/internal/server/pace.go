package server

import (
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// Pace says how slow a client may be. There is no limit on how long a request
// lasts: a large layer over a thin line takes its time, but it moves.
type Pace struct {
	// A request body must bring BodyBytes in each BodyTime that a handler
	// spends waiting for it; else the request ends with 408.
	BodyBytes int64
	BodyTime  time.Duration

	// Stall is how long a write may go on without a single byte taken; then
	// the connection is cut, a quarter of Stall later at most.
	Stall time.Duration
}

// DefaultPace is 1 KiB/s over 30 s for bodies, and 60 s for writes.
func DefaultPace() Pace {
	return Pace{BodyBytes: 30 << 10, BodyTime: 30 * time.Second, Stall: 60 * time.Second}
}

// Listener makes the connections of l cut writes that stall. It works below
// TLS, where a deadline that passed does no harm.
func (p Pace) Listener(l net.Listener) net.Listener { return pacedListener{l, p.Stall} }

type pacedListener struct {
	net.Listener
	stall time.Duration
}

func (l pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newPacedConn(c, l.stall), nil
}

// pacedConn is a connection whose writes fail once nothing was taken for a
// while. net/http uses sendfile where the connection has a ReadFrom that does.
type pacedConn struct {
	net.Conn
	stall time.Duration
	look  time.Duration // how long a write goes on before it is looked at

	mu    sync.Mutex
	asked time.Time // the write deadline that net/http or crypto/tls asked for; zero for none
	armed time.Time // the one that is set
}

func newPacedConn(c net.Conn, stall time.Duration) *pacedConn {
	return &pacedConn{Conn: c, stall: stall, look: stall / 4}
}

func (c *pacedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *pacedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.armed = t, t
	return c.Conn.SetWriteDeadline(t)
}

// arm sets the deadline of the next look. A busy connection has one that is
// good for some time.
func (c *pacedConn) arm(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := c.armed.Sub(now); c.look/2 < left && left <= c.look {
		return nil
	}
	next := now.Add(c.look)
	if !c.asked.IsZero() && c.asked.Before(next) {
		next = c.asked
	}
	c.armed = next
	return c.Conn.SetWriteDeadline(next)
}

// goOn tells whether a write that ended with err is to be taken up again:
// where it was only looked at.
func (c *pacedConn) goOn(err error, now, moved time.Time) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || now.Sub(moved) >= c.stall {
		return false
	}
	c.mu.Lock()
	over := !c.asked.IsZero() && !c.asked.After(now)
	c.mu.Unlock()
	return !over && c.arm(now) == nil
}

func (c *pacedConn) Write(p []byte) (int, error) {
	moved := time.Now()
	if err := c.arm(moved); err != nil {
		return 0, err
	}
	for done := 0; ; {
		n, err := c.Conn.Write(p[done:])
		done += n
		if err == nil {
			return done, nil
		}
		now := time.Now()
		if n > 0 {
			moved = now
		}
		if !c.goOn(err, now, moved) {
			return done, err
		}
	}
}

// regularFile is what *os.File has, and what the os package and net/http wrap
// it in on its way to here.
type regularFile interface {
	io.ReadSeeker
	syscall.Conn
}

// ReadFrom sends a file by sendfile over TCP, as *net.TCPConn does, and copies
// everything else.
func (c *pacedConn) ReadFrom(src io.Reader) (int64, error) {
	tcp, ok := c.Conn.(*net.TCPConn)
	part, limited := src.(*io.LimitedReader)
	if !limited {
		part = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	file, isFile := part.R.(regularFile)
	if !ok || !isFile {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	return c.sendFile(tcp, file, part)
}

func (c *pacedConn) sendFile(tcp *net.TCPConn, file io.Seeker, part *io.LimitedReader) (int64, error) {
	moved := time.Now()
	if err := c.arm(moved); err != nil {
		return 0, err
	}
	for done := int64(0); ; {
		before := part.N
		n, err := tcp.ReadFrom(part)
		done += n
		if err == nil {
			return done, nil
		}
		now := time.Now()
		if n > 0 {
			moved = now
		}
		if !c.goOn(err, now, moved) {
			return done, err
		}
		// Where the kernel cannot send this file, net has copied it, and may
		// have read more than it could write.
		if ahead := before - part.N - n; ahead > 0 {
			if _, err := file.Seek(-ahead, io.SeekCurrent); err != nil {
				return done, err
			}
			part.N += ahead
		}
	}
}

// CloseWrite is what net/http calls before it closes a connection, so that its
// last answer arrives.
func (c *pacedConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// Bodies ends requests whose body does not come, and HTTP/2 streams whose
// answer is not taken: there a connection moves although a stream does not.
func (p Pace) Bodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http2 := r.ProtoMajor == 2
		none := r.Body == nil || r.Body == http.NoBody
		if none && !http2 {
			next.ServeHTTP(w, r)
			return
		}
		ctl := http.NewResponseController(w)
		if http2 {
			w = &pacedStream{w, ctl, p.Stall}
			// What is in the buffers at the end has to go, too.
			defer func() { _ = ctl.SetWriteDeadline(time.Now().Add(p.Stall)) }()
		}
		if none {
			next.ServeHTTP(w, r)
			return
		}
		b := &pacedBody{ReadCloser: r.Body, ctl: ctl, pace: p, http2: http2}
		b.begin()
		defer b.end()
		r.Body = b
		next.ServeHTTP(&pacedAnswer{ResponseWriter: w, r: r, body: b}, r)
	})
}

// pacedBody is a request body that has to come. Only the time that a handler
// waits for it counts: where we are slow, the client is not.
type pacedBody struct {
	io.ReadCloser
	ctl   *http.ResponseController
	pace  Pace
	http2 bool

	waited time.Duration // of this window
	came   int64
	ended  bool
	slow   error // once it was too slow
}

// begin bounds how long net/http reads on in a body that the handler answers
// without reading it. (An HTTP/2 stream ends with its handler, and there a
// deadline that has passed once stays.)
func (b *pacedBody) begin() {
	if !b.http2 {
		_ = b.ctl.SetReadDeadline(time.Now().Add(b.pace.BodyTime))
	}
}

func (b *pacedBody) end() {
	if !b.http2 && !b.ended {
		_ = b.ctl.SetReadDeadline(time.Now().Add(b.pace.BodyTime / 6))
	}
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.slow != nil {
		return 0, b.slow
	}
	began := time.Now()
	_ = b.ctl.SetReadDeadline(began.Add(b.pace.BodyTime - b.waited))
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(began)
	b.came += int64(n)
	if b.came >= b.pace.BodyBytes {
		b.waited, b.came = 0, 0
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.slow = tarport.Errorf(tarport.Timeout, "the body came too slowly: %d bytes in %s", b.came, b.pace.BodyTime).Because(err)
		return n, b.slow
	case err != nil:
		b.ended = true
		fallthrough
	case b.http2:
		// At the end of a body net/http reads on to learn when the client goes.
		_ = b.ctl.SetReadDeadline(time.Time{})
	}
	return n, err
}

// pacedAnswer answers 408 to a body that was too slow, whatever the handler
// makes of the error.
type pacedAnswer struct {
	http.ResponseWriter
	r      *http.Request
	body   *pacedBody
	status int
	taken  bool // the answer is ours
}

func (a *pacedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *pacedAnswer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	if status >= http.StatusOK {
		a.status = status
	}
	if a.body.slow == nil || status < http.StatusBadRequest {
		a.ResponseWriter.WriteHeader(status)
		return
	}
	a.Header().Set("Connection", "close")
	if status == http.StatusRequestTimeout {
		a.ResponseWriter.WriteHeader(status)
		return
	}
	a.taken = true
	httpapi.WriteError(a.ResponseWriter, a.r, a.body.slow)
}

func (a *pacedAnswer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.taken {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

func (a *pacedAnswer) ReadFrom(src io.Reader) (int64, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.taken {
		return io.Copy(io.Discard, src)
	}
	return io.Copy(a.ResponseWriter, src)
}

// Flush is for handlers that ask for an http.Flusher.
func (a *pacedAnswer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// pacedStream is the answer on an HTTP/2 stream.
type pacedStream struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	stall time.Duration
}

func (s *pacedStream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *pacedStream) Write(p []byte) (int, error) {
	_ = s.ctl.SetWriteDeadline(time.Now().Add(s.stall))
	n, err := s.ResponseWriter.Write(p)
	_ = s.ctl.SetWriteDeadline(time.Time{})
	return n, err
}

// Flush is for handlers that ask for an http.Flusher.
func (s *pacedStream) Flush() { _ = s.FlushError() }

func (s *pacedStream) FlushError() error {
	_ = s.ctl.SetWriteDeadline(time.Now().Add(s.stall))
	err := s.ctl.Flush()
	_ = s.ctl.SetWriteDeadline(time.Time{})
	return err
}
