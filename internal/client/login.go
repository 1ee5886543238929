package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tarport/tarport"
)

// Credential is how somebody logs in: by a name and a password (or access
// token, or robot's secret), or by an identity token, which is what docker
// keeps of a login instead of the password.
type Credential struct {
	User     string
	Password tarport.Secret
	Identity tarport.Secret
}

// Empty tells whether there is nothing to log in with.
func (c Credential) Empty() bool { return c.Password == "" && c.Identity == "" }

const (
	// dockerID is docker's name as a client of the token service. What is got
	// under it can be used again and again, as docker does: the server says why
	// (auth/refresh.go).
	dockerID = "docker"
	apiScope = "registry:api:*"
)

type tokenAnswer struct {
	Token        tarport.Secret `json:"access_token"`
	ExpiresIn    int            `json:"expires_in"`
	RefreshToken tarport.Secret `json:"refresh_token"`
}

// Login checks a password with the server, and returns what is to be kept of
// it: an identity token, or the password where the server has none to give.
func (c *Client) Login(ctx context.Context, user string, password tarport.Secret) (Credential, error) {
	answer, err := c.askToken(ctx, apiScope, url.Values{
		"grant_type": {"password"}, "username": {user}, "password": {password.Reveal()}, "access_type": {"offline"},
	})
	if err != nil {
		return Credential{}, err
	}
	if answer.RefreshToken == "" {
		return Credential{User: user, Password: password}, nil
	}
	return Credential{User: user, Identity: answer.RefreshToken}, nil
}

func (c *Client) askToken(ctx context.Context, scope string, form url.Values) (answer tokenAnswer, err error) {
	form.Set("client_id", dockerID)
	form.Set("scope", scope)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/auth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err = c.send(req, &answer)
	return answer, err
}

// authorize gives the request its credential.
func (c *Client) authorize(ctx context.Context, req *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.who.Password != "":
		req.SetBasicAuth(c.who.User, c.who.Password.Reveal())
		return nil
	case c.who.Identity == "":
		return nil
	}
	if time.Now().After(c.until) {
		if err := c.renew(ctx); err != nil {
			return err
		}
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	return nil
}

// renew gets a bearer token for the identity token.
func (c *Client) renew(ctx context.Context) error {
	answer, err := c.askToken(ctx, apiScope, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {c.who.Identity.Reveal()}})
	if e, ok := errors.AsType[*Error](err); ok && e.Code == tarport.Unauthorized {
		return fmt.Errorf("the login to %s has ended, log in again: tarport login %s", c.base.Host, c.base.Host)
	}
	if err != nil {
		return err
	}
	const early = 30 * time.Second
	c.token, c.until = answer.Token, time.Now().Add(time.Duration(answer.ExpiresIn)*time.Second-early)
	if answer.RefreshToken == "" || answer.RefreshToken == c.who.Identity {
		return nil
	}
	c.who.Identity = answer.RefreshToken
	if c.renewed == nil {
		return nil
	}
	return c.renewed(ctx, c.who)
}
