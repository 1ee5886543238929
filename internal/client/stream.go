package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tarport/tarport"
)

const (
	// continueWait is how long the server has to refuse a body before it is sent.
	continueWait = 3 * time.Second
	// stallTime is how long nothing of a body may move. The server's own
	// patience is a minute.
	stallTime = 2 * time.Minute
)

// streamTransport has no time limit on the whole, and HTTP/1.1 only: its one
// connection a body has no window that slows it down.
func streamTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http's own
	t.ExpectContinueTimeout = continueWait
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	// Where the default transport was used before, its clone offers h2 to the server.
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	t.DisableCompression = true // an archive is what it is
	t.WriteBufferSize, t.ReadBufferSize = 256<<10, 256<<10
	return t
}

// Request is a request whose body or answer is a stream.
type Request struct {
	Method string
	Path   string // below /api/v1, escaped
	Query  url.Values
	Header http.Header
	Body   io.Reader // nil for none; it is not closed
	Size   int64     // of the body; -1 where it is not known
}

// Open sends a request and returns its answer, whose body the caller closes.
// It may come before the body was read to its end, and the body is not read
// before the server is willing to take it. A body of which nothing moves for
// two minutes ends it. What the server says is wrong is an *Error.
func (c *Client) Open(ctx context.Context, r Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch *stallWatch
	var body io.Reader
	if r.Body != nil && r.Size != 0 {
		watch = newStallWatch(r.Body, cancel)
		body = watch
	}
	resp, err := c.open(ctx, r, body)
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = Broken(errStalled)
		}
		watch.stop()
		cancel(nil)
		return nil, err
	}
	resp.Body = &streamBody{ReadCloser: resp.Body, ctx: ctx, close: func() {
		watch.stop()
		cancel(nil)
	}}
	return resp, nil
}

func (c *Client) open(ctx context.Context, r Request, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, c.base.String()+apiPath+r.Path, body)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = r.Query.Encode()
	for k, v := range r.Header {
		req.Header[k] = v
	}
	if body != nil {
		req.ContentLength = r.Size
		req.Header.Set("Expect", "100-continue")
	}
	req.Header.Set("User-Agent", "tarport/"+tarport.Version)
	if err := c.authorize(ctx, req); err != nil {
		return nil, err
	}
	resp, err := c.streams.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, Broken(fmt.Errorf("read the answer of %s: %w", c.base.Host, err))
	}
	return nil, c.answerError(resp, b)
}

// streamBody is the body of an answer.
type streamBody struct {
	io.ReadCloser
	ctx   context.Context // of the request: it tells of a stall
	close func()
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		switch {
		case errors.Is(context.Cause(b.ctx), errStalled):
			err = Broken(errStalled)
		case b.ctx.Err() == nil:
			err = Broken(err)
		}
	}
	return n, err
}

func (b *streamBody) Close() error {
	err := b.ReadCloser.Close()
	b.close()
	return err
}

// stallWatch ends a request of whose body nothing is taken for too long. It
// waits for the taker, not for the source of the bytes: a container's export
// can take its time.
type stallWatch struct {
	r     io.Reader
	timer *time.Timer

	mu    sync.Mutex
	ended bool
}

var errStalled = fmt.Errorf("the server has taken nothing for %s", stallTime)

func newStallWatch(r io.Reader, cancel context.CancelCauseFunc) *stallWatch {
	return &stallWatch{r: r, timer: time.AfterFunc(stallTime, func() { cancel(errStalled) })}
}

func (w *stallWatch) Read(p []byte) (int, error) {
	w.timer.Stop()
	n, err := w.r.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && !w.ended {
		w.timer.Reset(stallTime)
	}
	return n, err
}

func (w *stallWatch) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}

// Lines calls each for every line of an answer of one JSON object a line, as
// the routes of archives give it on request. A line that has an error ends it,
// with an *Error.
func Lines(r io.Reader, each func(line []byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		if err := lineError(sc.Bytes()); err != nil {
			return err
		}
		if err := each(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return Broken(fmt.Errorf("read the server's progress: %w", err))
	}
	return nil
}

// lineError is the error that a line tells of; nil where it tells of none.
func lineError(line []byte) error {
	var m struct {
		Error       string
		ErrorDetail struct {
			Code    int
			Message string
		}
		Errors []struct {
			Code    tarport.Code
			Message string
		}
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return fmt.Errorf("the server's progress is not what Tarport's would be: is it another registry? (%w)", err)
	}
	if m.Error == "" && len(m.Errors) == 0 {
		return nil
	}
	e := &Error{Status: m.ErrorDetail.Code, Message: printable(m.Error)}
	if len(m.Errors) > 0 {
		e.Code, e.Message = m.Errors[0].Code, printable(m.Errors[0].Message)
	}
	return e
}
