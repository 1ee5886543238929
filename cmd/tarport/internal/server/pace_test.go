package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// pipeListener is a listener of in-memory connections, for tests in a bubble
// of synctest, where time passes when everybody waits.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// talk writes to the server on a connection of its own, and returns where its
// answers are read. The connection ends with the test.
func (l *pipeListener) talk(t *testing.T, write func(net.Conn)) *bufio.Reader {
	t.Helper()
	c := l.dial()
	var wg sync.WaitGroup
	wg.Go(func() { write(c) })
	t.Cleanup(func() {
		_ = c.Close()
		wg.Wait()
	})
	return bufio.NewReader(c)
}

// pass lets time pass, in a bubble of synctest.
func pass(d time.Duration) { <-time.After(d) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startPiped serves h, below the middlewares of the real thing, and ends the
// server with the test.
func startPiped(t *testing.T, h http.Handler) *pipeListener {
	t.Helper()
	l := newPipeListener()
	s := New(t.Context(), Options{
		Handler:  httpapi.Middleware(httpapi.Options{Log: quiet()})(DefaultPace().Bodies(h)),
		Listener: l, Log: quiet(), Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: time.Second,
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	return l
}

// readAll is a handler that reads its body and answers with its length.
func readAll(w http.ResponseWriter, r *http.Request) error {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	_, err = fmt.Fprint(w, n)
	return err
}

func TestSlowBodyIsCutWith408(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.Handler{
		"our own handler": httpapi.Handle(readAll),
		// As distribution's does: it makes a 500 of every error.
		"a handler that knows better": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := readAll(w, r); err != nil {
				http.Error(w, "some text", http.StatusInternalServerError)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := startPiped(t, h)
				began := time.Now()
				answers := l.talk(t, func(c net.Conn) {
					_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
					for err == nil { // a byte a second
						_, err = c.Write([]byte{'x'})
						pass(time.Second)
					}
				})
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatalf("ReadResponse() = %v", err)
				}
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode != http.StatusRequestTimeout || !resp.Close || !strings.Contains(string(body), `"TIMEOUT"`) || strings.Contains(string(body), "some text") {
					t.Errorf("got %d, close %v, %s, %v; want 408, closed, with code TIMEOUT", resp.StatusCode, resp.Close, body, err)
				}
				if got := time.Since(began); got < 29*time.Second || got > 31*time.Second {
					t.Errorf("cut after %v, want 30s", got)
				}
			})
		})
	}
}

func TestSteadyBodyIsNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const seconds, rate = 600, 2048
		l := startPiped(t, httpapi.Handle(readAll))
		answers := l.talk(t, func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", seconds*rate)
			for range seconds {
				pass(time.Second)
				_, _ = c.Write(make([]byte, rate))
			}
		})
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("ReadResponse() = %v", err)
		}
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != strconv.Itoa(seconds*rate) {
			t.Errorf("got %d %s, %v, want 200 %d", resp.StatusCode, body, err, seconds*rate)
		}
	})
}

func TestSlowHandlerIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := startPiped(t, httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
			for buf := make([]byte, 10); ; {
				pass(time.Minute)
				if _, err := io.ReadFull(r.Body, buf); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					return err
				}
			}
			pass(time.Hour) // the deadline of the last read must be gone
			if err := r.Context().Err(); err != nil {
				return err
			}
			return readAll(w, r)
		}))
		answers := l.talk(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n"+strings.Repeat("x", 30))
		})
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("ReadResponse() = %v", err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Errorf("got %d, want 200", resp.StatusCode)
		}
	})
}

// net/http reads on in a body that nobody read, so that the client sees the
// answer; not forever.
func TestUnreadBodyDoesNotHoldTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := startPiped(t, httpapi.Handle(func(http.ResponseWriter, *http.Request) error {
			return tarport.Errorf(tarport.Unauthorized, "who are you?")
		}))
		began := time.Now()
		r := l.talk(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		})
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("ReadResponse() = %v", err)
		}
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d, want 401", resp.StatusCode)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("Copy() = %v, want the end of the connection", err)
		}
		if got := time.Since(began); got > 31*time.Second {
			t.Errorf("the connection ended after %v, want 30s at most", got)
		}
	})
}

func TestHeadersAreCutAfterTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := startPiped(t, httpapi.Handle(readAll))
		began := time.Now()
		r := l.talk(t, func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHo") })
		_, _ = io.Copy(io.Discard, r)
		if got := time.Since(began); got > 11*time.Second {
			t.Errorf("cut after %v, want 10s", got)
		}
	})
}

func TestStalledWriteIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close() }()
		c := newPacedConn(server, time.Minute)
		began := time.Now()
		go func() { _, _ = io.ReadFull(client, make([]byte, 10)) }()
		n, err := c.Write(make([]byte, 100))
		if n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write() = %d, %v, want 10 and a deadline", n, err)
		}
		if got := time.Since(began); got < time.Minute || got > 75*time.Second+time.Second {
			t.Errorf("cut after %v, want 60 s to 75 s", got)
		}
	})
}

func TestSlowWriteThatMovesIsNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close() }()
		c := newPacedConn(server, time.Minute)
		want := []byte("a byte every fifty seconds")
		var got bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range want {
				pass(50 * time.Second)
				_, _ = io.CopyN(&got, client, 1)
			}
		}()
		if n, err := c.Write(want); n != len(want) || err != nil {
			t.Errorf("Write() = %d, %v, want %d", n, err, len(want))
		}
		<-done
		if got.String() != string(want) {
			t.Errorf("got %q, want %q", got.String(), want)
		}
	})
}

func TestDeadlineThatWasAskedForHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close() }()
		c := newPacedConn(server, time.Minute)
		for _, d := range []time.Duration{5 * time.Second, 20 * time.Second} {
			began := time.Now()
			if err := c.SetDeadline(began.Add(d)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != d {
				t.Errorf("Write() = %v after %v, want a deadline after %v", err, time.Since(began), d)
			}
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, client) }()
		if n, err := c.Write(make([]byte, 100)); n != 100 || err != nil {
			t.Errorf("Write() without a deadline = %d, %v", n, err)
		}
	})
}

// On HTTP/2 the connection moves while one stream stands still.
func TestStalledStreamIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		failed := make(chan error, 1)
		s := New(t.Context(), Options{
			Handler: DefaultPace().Bodies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/small" {
					return
				}
				_, err := io.Copy(w, io.LimitReader(rand.NewChaCha8([32]byte{}), 64<<20))
				failed <- err
			})),
			Listener: l, H2C: true, Log: quiet(), Health: NewHealth(quiet(), noHealth, okCheck), Metrics: NewMetrics(), Drain: time.Second,
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }}
		ask := func(path string) *http.Response {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := (&http.Client{Transport: tr}).Do(req)
			if err != nil {
				t.Fatalf("GET %s: %v", path, err)
			}
			t.Cleanup(func() { _ = resp.Body.Close() })
			return resp
		}
		ask("/large") // and does not read it
		began := time.Now()
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 61*time.Second {
			t.Errorf("the write ended with %v after %v, want a deadline after 60 s", err, time.Since(began))
		}
		if resp := ask("/small"); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("another stream of the connection answers %d, HTTP/%d", resp.StatusCode, resp.ProtoMajor)
		}
		tr.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
}

// tcpPair is a pair of connected TCP connections with small buffers.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l := localListener(t)
	defer func() { _ = l.Close() }()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client, server = c.(*net.TCPConn), s.(*net.TCPConn)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	if err := errors.Join(client.SetReadBuffer(128<<10), server.SetWriteBuffer(128<<10)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func randomFile(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, data
}

// noSendfile is a file that the kernel does not send, so that net copies it.
type noSendfile struct{ *os.File }

func (noSendfile) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// The looks at a slow transfer come every few milliseconds here, and none of
// them may lose or repeat a byte.
func TestFileToSlowReaderArrivesWhole(t *testing.T) {
	t.Parallel()
	f, data := randomFile(t, 4<<20)
	for name, src := range map[string]io.Reader{
		"sendfile":         f,
		"sendfile, ranged": nil,
		"copied by net":    nil,
		"copied by us":     nil,
	} {
		from, want := 0, data
		switch name {
		case "sendfile, ranged":
			from, want = 1000, data[1000:1<<20]
			src = io.LimitReader(f, int64(len(want)))
		case "copied by net":
			src = io.LimitReader(noSendfile{f}, int64(len(want)))
		case "copied by us":
			src = bytes.NewReader(data)
		}
		if _, err := f.Seek(int64(from), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		client, server := tcpPair(t)
		c := &pacedConn{Conn: server, stall: time.Minute, look: 8 * time.Millisecond}
		got := make(chan []byte, 1)
		go func() {
			var b bytes.Buffer
			for r := (slowReader{client}); ; {
				if _, err := io.CopyN(&b, r, 64<<10); err != nil {
					break
				}
			}
			got <- b.Bytes()
		}()
		n, err := c.ReadFrom(src)
		if n != int64(len(want)) || err != nil {
			t.Errorf("%s: ReadFrom() = %d, %v, want %d", name, n, err, len(want))
		}
		_ = c.CloseWrite()
		if b := <-got; !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes arrived, want %d, and the same ones", name, len(b), len(want))
		}
		_ = client.Close()
	}
}

// slowReader takes a little at a time, and makes its peer wait.
type slowReader struct{ *net.TCPConn }

func (r slowReader) Read(p []byte) (int, error) {
	<-time.After(time.Millisecond)
	return r.TCPConn.Read(p[:min(len(p), 32<<10)])
}

func TestFileToStalledReaderIsCut(t *testing.T) {
	t.Parallel()
	f, _ := randomFile(t, 8<<20)
	_, server := tcpPair(t)
	c := newPacedConn(server, 40*time.Millisecond)
	if n, err := c.ReadFrom(f); !errors.Is(err, os.ErrDeadlineExceeded) || n >= 8<<20 {
		t.Errorf("ReadFrom() = %d, %v, want a deadline before the end", n, err)
	}
}

func BenchmarkPacedWrite(b *testing.B) {
	client, server := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, client) }()
	defer func() { _ = client.Close() }()
	c := newPacedConn(server, time.Minute)
	now := time.Now()
	for b.Loop() {
		_ = c.arm(now)
	}
}
