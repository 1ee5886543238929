package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// token is what the token service answers.
type token struct {
	Token        string
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int    `json:"expires_in"`
}

// oauth2 asks the token service by POST, as the OAuth2 flow of the Docker
// distribution spec does.
func (c *client) oauth2(t *testing.T, form url.Values) (token, response) {
	t.Helper()
	r, err := c.raw(t.Context(), http.MethodPost, "/auth/token", []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	if err != nil {
		t.Fatal(err)
	}
	var tok token
	if r.status == http.StatusOK {
		if err := json.Unmarshal(r.body, &tok); err != nil {
			t.Fatalf("answer of the token service: %v\n%s", err, r.body)
		}
	}
	return tok, r
}

// status is the status of a GET with the token.
func (c *client) status(t *testing.T, path, accessToken string) int {
	t.Helper()
	r, err := c.raw(t.Context(), http.MethodGet, path, nil, "Authorization", "Bearer "+accessToken)
	if err != nil {
		t.Fatal(err)
	}
	return r.status
}

func TestTokenService(t *testing.T) {
	t.Parallel()
	s := serve(t)
	mustLoad(t, s, archiveOf(t, map[string]string{"app:1": "one", "other:1": "two"}), "namespace=team")
	c := s.client(t)
	const app, other = "/v2/team/app/manifests/1", "/v2/team/other/manifests/1"

	// The challenge names the token service on the registry's own host and port.
	challenge, err := c.raw(t.Context(), http.MethodGet, app, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, want := challenge.header.Get("Www-Authenticate"), `realm="http://`+s.addr+`/auth/token"`
	if challenge.status != http.StatusUnauthorized || !strings.Contains(got, want) {
		t.Errorf("challenge = %d %s, want 401 with %s", challenge.status, got, want)
	}

	service := challengeParams(challenge)["service"]
	form := url.Values{
		"grant_type": {"password"}, "username": {"admin"}, "password": {adminPassword}, "client_id": {"e2e"},
		"service": {service}, "scope": {"repository:team/app:pull"}, "access_type": {"offline"},
	}
	first, r := c.oauth2(t, form)
	if first.AccessToken == "" || first.RefreshToken == "" || first.ExpiresIn < 60 {
		t.Fatalf("grant by password = %d %s, want an access token that lives for a minute, and a refresh token", r.status, r.body)
	}
	if got := c.status(t, app, first.AccessToken); got != http.StatusOK {
		t.Errorf("GET with the token = %d, want 200", got)
	}
	// A token opens what it was asked for and nothing else.
	if got := c.status(t, other, first.AccessToken); got != http.StatusUnauthorized {
		t.Errorf("GET in another repository = %d, want 401", got)
	}
	// A refresh token is no access token, and gives one.
	if got := c.status(t, app, first.RefreshToken); got != http.StatusUnauthorized {
		t.Errorf("GET with the refresh token itself = %d, want 401", got)
	}
	second, r := c.oauth2(t, url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {first.RefreshToken}, "client_id": {"e2e"},
		"service": {service}, "scope": {"repository:team/other:pull"},
	})
	if got := c.status(t, other, second.AccessToken); got != http.StatusOK {
		t.Errorf("GET with a refreshed token = %d, want 200 (the token service said %d %s)", got, r.status, r.body)
	}

	for name, change := range map[string]url.Values{
		"wrong password":         {"password": {"battery"}},
		"unknown user":           {"username": {"root"}},
		"unknown grant":          {"grant_type": {"client_credentials"}},
		"invented refresh token": {"grant_type": {"refresh_token"}, "refresh_token": {"tpr_" + unique()}},
		"no grant":               {"grant_type": {""}},
	} {
		bad := url.Values{}
		for key, values := range form {
			bad[key] = values
		}
		for key, values := range change {
			bad[key] = values
		}
		tok, r := c.oauth2(t, bad)
		if (r.status != http.StatusUnauthorized && r.status != http.StatusBadRequest) || tok.AccessToken != "" {
			t.Errorf("grant with %s = %d %s, want 400 or 401", name, r.status, r.body)
		}
	}
}

// TestNobodyElseMayDoAnything asks for a token without a password, and uses it.
func TestNobodyElseMayDoAnything(t *testing.T) {
	t.Parallel()
	s := serve(t)
	mustLoad(t, s, archiveOf(t, map[string]string{"app:1": "one"}), "namespace=team")
	c := s.client(t)
	challenge, err := c.raw(t.Context(), http.MethodGet, "/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	service := challengeParams(challenge)["service"]
	r, err := c.raw(t.Context(), http.MethodGet, "/auth/token?service="+service+"&scope=repository:team/app:pull,push", nil)
	if err != nil {
		t.Fatal(err)
	}
	var anonymous token
	if r.status == http.StatusOK {
		if err := json.Unmarshal(r.body, &anonymous); err != nil {
			t.Fatalf("answer of the token service: %v\n%s", err, r.body)
		}
	} else if r.status != http.StatusUnauthorized {
		t.Errorf("token without a password = %d %s, want 401, or 200 with a token that opens nothing", r.status, r.body)
	}
	for _, path := range []string{"/v2/team/app/manifests/1", "/v2/team/app/tags/list", "/v2/absent/app/tags/list", "/v2/_catalog"} {
		if got := c.status(t, path, anonymous.Token); got != http.StatusUnauthorized {
			t.Errorf("GET %s by nobody = %d, want 401", path, got)
		}
	}
}
