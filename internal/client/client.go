// Package client asks a Tarport server, over its HTTP API, what the command
// line wants of it: it knows URLs, credentials, errors and pages, and no
// commands. It also keeps logins where docker keeps them (Logins), so that a
// login by either is one of both.
//
//	command ── Client.Do, List ──> /api/v1
//	               ├── /auth/token, for a login that docker has, too
//	           Open ──> archives, in and out, as streams
//	           Uploads: tus, which goes on where it stopped
//	           Logins ──> ~/.docker/config.json, docker-credential-*
//
// It does not try again: Temporary tells its caller when that makes sense.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tarport/tarport"
)

const (
	apiPath   = "/api/v1"
	maxAnswer = 64 << 20
)

// Options of New.
type Options struct {
	// Registry is the server's URL, as ParseRegistry returns it; required.
	Registry *url.URL
	// Credential is who asks; the zero value is a stranger.
	Credential Credential
	// Renewed is told of the identity token that takes over from the
	// credential's, which is used up then. May be nil.
	Renewed func(ctx context.Context, c Credential) error
}

// Client asks one server. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	http    *http.Client
	streams *http.Client // for bodies that take as long as they take
	renewed func(context.Context, Credential) error

	mu    sync.Mutex // held while a bearer token is fetched: there is to be one
	who   Credential
	token tarport.Secret // a bearer token, until its end
	until time.Time
}

// New returns a Client. It does not ask the server yet.
func New(o Options) *Client {
	stay := func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the password is for the server that was named
	}
	return &Client{
		base: o.Registry, who: o.Credential, renewed: o.Renewed,
		http:    &http.Client{Timeout: 10 * time.Minute, CheckRedirect: stay}, // a recount can take its time
		streams: &http.Client{Transport: streamTransport(), CheckRedirect: stay},
	}
}

// Host is the server's, with its port where one was named.
func (c *Client) Host() string { return c.base.Host }

// ParseRegistry reads what a user calls the registry: a URL, or docker's
// host[:port]. Without a scheme it is https, but http on this very machine or
// where plain is set. A password does not go over plain http to another
// machine unless plain is set.
func ParseRegistry(s string, plain bool) (*url.URL, error) {
	text := s
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no registry: write it as https://registry.example.com or 127.0.0.1:5000", s)
	}
	local := loopback(u.Hostname())
	switch {
	case text != s && (plain || local):
		u.Scheme = "http"
	case u.Scheme == "http" && !plain && !local:
		return nil, fmt.Errorf("%s would get your password in the clear: use https, or --plain-http if you mean it", s)
	}
	u.Path = ""
	return u, nil
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Do sends a request to the API and decodes the answer. Path is below /api/v1
// and escaped; in is sent as JSON unless it is nil, out is not read where it is
// nil. What the server says is wrong is an *Error.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	_, err := c.do(ctx, method, apiPath+path, query, in, out)
	return err
}

// Page reads one page of what the API has at path, and returns the query of the
// next one; nil after the last.
func (c *Client) Page(ctx context.Context, path string, query url.Values, out any) (url.Values, error) {
	h, err := c.do(ctx, http.MethodGet, apiPath+path, query, nil, out)
	if err != nil {
		return nil, err
	}
	return nextPage(h.Get("Link")), nil
}

// List lists all that the API has at path, page after page; it ends after an
// error.
func List[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		if !q.Has("n") {
			q.Set("n", "1000")
		}
		for {
			var page struct {
				Items []T `json:"items"`
			}
			next, err := c.Page(ctx, path, q, &page)
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if q = next; q == nil {
				return
			}
		}
	}
}

// nextPage is the query of the page that a Link header names; nil for none.
func nextPage(link string) url.Values {
	target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(params, `rel="next"`) {
		return nil
	}
	u, err := url.Parse(target)
	if err != nil || u.RawQuery == "" {
		return nil
	}
	return u.Query()
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) (http.Header, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, body)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = query.Encode()
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := c.authorize(ctx, req); err != nil {
		return nil, err
	}
	return c.send(req, out)
}

func (c *Client) send(req *http.Request, out any) (http.Header, error) {
	req.Header.Set("User-Agent", "tarport/"+tarport.Version)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base.Host, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, c.answerError(resp, body)
	}
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			return nil, fmt.Errorf("%s answers what Tarport would not: is it another registry? (%w)", c.base.Host, err)
		}
	}
	return resp.Header, nil
}

// unreachable says in short why there is no answer.
func (c *Client) unreachable(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("%s speaks no TLS: use --plain-http if you mean it", c.base.Host)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return &connectionError{fmt.Errorf("%s cannot be reached: %w", c.base, err)}
	}
	return &connectionError{fmt.Errorf("ask %s: %w", c.base, err)}
}
