package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/tarport/tarport"
)

// HandlerFunc is a handler that returns what went wrong instead of writing it.
// Once it has begun to write its answer it returns nil, or an error that ends
// the connection.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Handle makes an http.Handler of h.
func Handle(h HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			WriteError(w, r, err)
		}
	})
}

// ErrorShape makes status and body of the answer to an error.
type ErrorShape func(e *tarport.Error) (status int, body any)

// specShape is the shape of the distribution spec, and of all of our own API.
func specShape(e *tarport.Error) (int, any) {
	return e.Code.Status(), errorBody{Errors: []errorItem{{Code: e.Code, Message: e.Message, Detail: e.Detail}}}
}

type errorBody struct {
	Errors []errorItem `json:"errors"`
}

type errorItem struct {
	Code    tarport.Code `json:"code"`
	Message string       `json:"message"`
	Detail  any          `json:"detail,omitempty"`
}

// statusClientClosed is nginx's status for a client that went away; it stands
// only in the log.
const statusClientClosed = 499

// WriteError answers with err, in the shape of the distribution spec unless
// SetErrorShape has set another. Of an error that is no *tarport.Error the
// client sees only that there was one; the text goes to the log. Where the
// answer has begun the connection is ended, so that nobody takes half an answer
// for a whole one.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	rec := recorderOf(w)
	if rec != nil && rec.status != 0 {
		logError(r, rec.status, err)
		panic(http.ErrAbortHandler)
	}
	e := Failed(w, r, err)
	shape := specShape
	if rec != nil && rec.errorShape != nil {
		shape = rec.errorShape
	}
	status, body := shape(e)
	h := w.Header()
	for _, k := range []string{"Content-Length", "Content-Encoding", "Etag", "Cache-Control", "Docker-Content-Digest", "Content-Range"} {
		h.Del(k)
	}
	if rec != nil && rec.errorHeaders != nil {
		rec.errorHeaders(w, r, err)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "5")
		}
	}
	b, merr := json.Marshal(body)
	if merr != nil { // a detail that does not encode; the rest does
		_, body = shape(e.WithDetail(nil))
		b, _ = json.Marshal(body)
	}
	b = append(b, '\n') // so that the prompt of who asks with curl stands in a line of its own
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b)
	}
}

// public is the part of err that the client may see.
func public(r *http.Request, err error) *tarport.Error {
	if e, ok := errors.AsType[*tarport.Error](err); ok && e.Code != tarport.Internal {
		return e
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tarport.Errorf(tarport.TooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || clientGone(r, err) {
		return tarport.Errorf(tarport.Invalid, "the body ended before it was complete")
	}
	return tarport.Errorf(tarport.Internal, "internal error; the server's log has it under request id %s", RequestID(r.Context()))
}

func clientGone(r *http.Request, err error) bool {
	return errors.Is(err, context.Canceled) && r.Context().Err() != nil
}

func logError(r *http.Request, status int, err error) {
	if clientGone(r, err) {
		return
	}
	loggerFrom(r.Context()).LogAttrs(r.Context(), slog.LevelError, "request failed",
		slog.String("request_id", RequestID(r.Context())), slog.String("method", r.Method),
		slog.String("path", r.URL.Path), slog.Int("status", status), slog.Any("err", err))
}
