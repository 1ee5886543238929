package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// client speaks plain HTTP to the server as the administrator, by the token
// flow, and hides nothing.
type client struct {
	server *server
	http   *http.Client

	mu     sync.Mutex
	tokens map[string]string // scope -> Authorization
}

func (s *server) client(t testing.TB) *client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{
		server: s, tokens: map[string]string{},
		// Redirects are the registry's business to avoid, so none is followed.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request with a token of the scope; headers are pairs.
func (c *client) do(t testing.TB, method, path, scope string, body []byte, headers ...string) response {
	t.Helper()
	r, err := c.send(t.Context(), method, path, scope, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// must is do for a request that has to be answered with the status.
func (c *client) must(t testing.TB, status int, method, path, scope string, body []byte, headers ...string) response {
	t.Helper()
	r := c.do(t, method, path, scope, body, headers...)
	if r.status != status {
		t.Fatalf("%s %s = %d, want %d\n%s", method, path, r.status, status, r.body)
	}
	return r
}

// send is do without a test to fail.
func (c *client) send(ctx context.Context, method, path, scope string, body []byte, headers ...string) (response, error) {
	authorization, err := c.authorization(ctx, scope)
	if err != nil {
		return response{}, fmt.Errorf("get token for %s: %w", scope, err)
	}
	return c.raw(ctx, method, path, body, append([]string{"Authorization", authorization}, headers...)...)
}

// raw makes a request with the given headers only. path may be a whole URL.
func (c *client) raw(ctx context.Context, method, path string, body []byte, headers ...string) (response, error) {
	target, err := url.Parse(c.server.url("/"))
	if err != nil {
		return response{}, err
	}
	if target, err = target.Parse(path); err != nil {
		return response{}, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return response{status: resp.StatusCode, header: resp.Header, body: b}, err
}

var challengeParam = regexp.MustCompile(`(\w+)="([^"]*)"`)

// challengeParams are the parameters of a 401's challenge.
func challengeParams(r response) map[string]string {
	params := map[string]string{}
	for _, m := range challengeParam.FindAllStringSubmatch(r.header.Get("Www-Authenticate"), -1) {
		params[m[1]] = m[2]
	}
	return params
}

// authorization returns the Authorization header for the scope, from the token
// service that the registry's own challenge names.
func (c *client) authorization(ctx context.Context, scope string) (string, error) {
	if scope == "" {
		return "", nil
	}
	c.mu.Lock()
	known := c.tokens[scope]
	c.mu.Unlock()
	if known != "" {
		return known, nil
	}
	challenge, err := c.raw(ctx, http.MethodGet, "/v2/", nil)
	if err != nil {
		return "", err
	}
	params := challengeParams(challenge)
	basic := basicAuth("admin", adminPassword)
	query := url.Values{"service": {params["service"]}, "scope": strings.Fields(scope)}
	r, err := c.raw(ctx, http.MethodGet, params["realm"]+"?"+query.Encode(), nil, "Authorization", basic)
	if err != nil {
		return "", err
	}
	var token struct{ Token string }
	if err := json.Unmarshal(r.body, &token); err != nil || r.status != http.StatusOK {
		return "", fmt.Errorf("token service answered %d %s (challenge %v)", r.status, r.body, challenge.header)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[scope] = "Bearer " + token.Token
	return c.tokens[scope], nil
}

// basicAuth is the header of user and password.
func basicAuth(user, password string) string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	return req.Header.Get("Authorization")
}

// digestOf is the sha256 digest of b.
func digestOf(b []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
}
