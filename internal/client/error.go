package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tarport/tarport"
)

// Error is what the server says is wrong. It unwraps to a *tarport.Error.
type Error struct {
	Status    int
	Code      tarport.Code // "" where the answer is not of the OCI form
	Message   string
	Detail    json.RawMessage
	RequestID string
	Wait      time.Duration // before the next try, where the server says so
}

func (e *Error) Error() string { return e.Message }

// Unwrap is the error as the server had it.
func (e *Error) Unwrap() error { return &tarport.Error{Code: e.Code, Message: e.Message} }

func (c *Client) answerError(resp *http.Response, body []byte) error {
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id")}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.Wait = time.Duration(s) * time.Second
	}
	var answer struct {
		Errors []struct {
			Code    tarport.Code    `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	switch err := json.Unmarshal(body, &answer); {
	case err == nil && len(answer.Errors) > 0:
		first := answer.Errors[0]
		e.Code, e.Message, e.Detail = first.Code, printable(first.Message), first.Detail
	case resp.Header.Get("Location") != "":
		e.Message = fmt.Sprintf("%s sends us to %s: name that as the registry if you trust it", c.base.Host, printable(resp.Header.Get("Location")))
	case c.base.Scheme == "http" && bytes.HasPrefix(body, []byte("Client sent an HTTP request to an HTTPS server")):
		e.Message = fmt.Sprintf("%s speaks TLS: name it as https://%[1]s", c.base.Host)
	default:
		e.Message = fmt.Sprintf("%s answers %q to %s %s: is it another registry?", c.base.Host, resp.Status, resp.Request.Method, resp.Request.URL.Path)
	}
	return e
}

// printable keeps a server from writing control sequences to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

// connectionError is what can be wrong with a connection: it may be better the
// next time.
type connectionError struct{ error }

func (e *connectionError) Unwrap() error { return e.error }

// Broken makes an error of a body that could not be read or written to its end
// one that is Temporary.
func Broken(err error) error { return &connectionError{err} }

// Temporary tells whether the same request can be expected to succeed later:
// the connection failed or the server is busy or down. It is false where the
// caller's context has ended.
func Temporary(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	_, ok := errors.AsType[*connectionError](err)
	return ok
}
