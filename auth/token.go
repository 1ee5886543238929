package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

const (
	accessLife = 5 * time.Minute
	// accessTyp tells access tokens (RFC 9068) from whatever else may be
	// signed with the same keys.
	accessTyp = "at+jwt"
	// clockLeeway is how far replicas' clocks may be apart. It helps a token
	// that was issued in the future, and none that is over.
	clockLeeway    = time.Minute
	maxTokenLength = 8 << 10
)

// claims of an access token, as docker's token specification has them, and the
// epoch of its owner. The embedded type only makes it jwt.Claims; its fields
// take more forms than we issue.
type claims struct {
	jwt.RegisteredClaims `json:"-"`

	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"` // the user's id; empty for the stranger
	Audience  string   `json:"aud"`
	ExpiresAt int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
	Epoch     int64    `json:"epoch"`
	TokenID   int64    `json:"pat,omitempty"` // the personal access token that it was got with: its restrictions hold
	Access    []access `json:"access"`
}

// UnmarshalJSON refuses what two readers could read in two ways.
func (c *claims) UnmarshalJSON(b []byte) error {
	if err := uniqueKeys(b); err != nil {
		return err
	}
	type plain claims
	return json.Unmarshal(b, (*plain)(c))
}

// uniqueKeys returns an error where b is not an object, or has a key twice: of
// those encoding/json takes the last, whatever their case.
func uniqueKeys(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key := strings.ToLower(fmt.Sprint(t))
		if seen[key] {
			return fmt.Errorf("key %q more than once", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

// issue makes an access token for the user (the stranger has no id) that may
// be used for the grants.
func (s *Service) issue(ctx context.Context, id identity, grants []tarport.Grant) (text string, issuedAt time.Time, err error) {
	now := s.now().UTC().Truncate(time.Second)
	c := &claims{
		Issuer: s.issuer, Audience: s.service, Epoch: id.user.TokenEpoch, TokenID: id.token.ID, ID: rand.Text(), Access: accessOf(grants),
		IssuedAt: now.Unix(), NotBefore: now.Unix(), ExpiresAt: now.Add(accessLife).Unix(),
	}
	if id.user.ID != 0 {
		c.Subject = strconv.FormatInt(id.user.ID, 10)
	}
	text, err = s.keys.sign(ctx, c)
	if err == nil && len(text) > maxTokenLength {
		err = tarport.Errorf(tarport.Invalid, "the token for these scopes is larger than %d bytes, ask for fewer at once", maxTokenLength)
	}
	if err != nil {
		return "", time.Time{}, err
	}
	return text, now, nil
}

type tokenHash [sha256.Size]byte

// token is an access token that was verified.
type token struct {
	userID  int64
	epoch   int64
	tokenID int64
	expires time.Time
	scope   []tarport.Grant
}

// bearer returns who an access token is of, where it is not over for longer
// than the grace, and when its life ends. The signature is verified once; the
// state of its owner and of what it was got with is read again when it is used.
func (s *Service) bearer(ctx context.Context, text string, grace time.Duration) (tarport.Principal, time.Time, error) {
	none := tarport.Principal{}
	if len(text) > maxTokenLength {
		return none, time.Time{}, badToken(errors.New("too long"))
	}
	var buf [1 << 10]byte // on the stack, and enough for what is usual
	hash := tokenHash(sha256.Sum256(append(buf[:0], text...)))
	t, ok := s.tokens.get(hash)
	if !ok {
		var err error
		if t, err = s.verify(ctx, text); err != nil {
			return none, time.Time{}, err
		}
		s.tokens.put(hash, t)
	}
	if !s.now().Before(t.expires.Add(grace)) {
		return none, time.Time{}, badToken(errors.New("expired"))
	}
	id, err := s.owner(ctx, t)
	if err != nil {
		return none, time.Time{}, err
	}
	p := id.principal()
	p.Scope = t.scope
	return p, t.expires, nil
}

// owner is whose a verified token is, as things are now.
func (s *Service) owner(ctx context.Context, t *token) (id identity, err error) {
	if t.userID == 0 {
		return identity{}, nil
	}
	if id.user, err = s.user(ctx, t.userID); err != nil {
		return identity{}, err
	}
	if !id.user.Live(s.now()) || id.user.TokenEpoch != t.epoch {
		return identity{}, badToken(errors.New("revoked"))
	}
	if t.tokenID == 0 {
		return id, nil
	}
	if id.token, err = s.accessToken(ctx, t.tokenID); err != nil {
		return identity{}, err
	}
	if id.token.UserID != t.userID || over(id.token, s.now()) {
		return identity{}, badToken(errors.New("got with a personal access token that is revoked or over"))
	}
	s.uses.note(id.token.ID, s.now())
	return id, nil
}

func over(t metadata.AccessToken, now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

// verify is the one recipe by which a token is believed: it is of the alphabet
// of a JWT, its header is, byte for byte, that of a key of ours, so algorithm
// and type are too; the signature is right; the claims are of the types that we
// issue, from us, for us, begun, and not over for longer than uploadGrace.
func (s *Service) verify(ctx context.Context, text string) (*token, error) {
	if strings.ContainsFunc(text, notInToken) {
		return nil, badToken(errors.New("not of the form of a token"))
	}
	header, _, _ := strings.Cut(text, ".")
	key, err := s.keys.verifying(ctx, header)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, badToken(errors.New("not signed by a key of ours"))
	}
	var c claims
	if _, err := s.parser.ParseWithClaims(text, &c, func(*jwt.Token) (any, error) { return key.public, nil }); err != nil {
		return nil, badToken(err)
	}
	now := s.now()
	latest := now.Add(clockLeeway).Unix()
	switch {
	case c.Issuer != s.issuer:
		return nil, badToken(errors.New("of another issuer"))
	case c.Audience != s.service:
		return nil, badToken(errors.New("for another service"))
	case c.ExpiresAt <= now.Add(-uploadGrace).Unix(): // also where there is none
		return nil, badToken(errors.New("expired"))
	case c.NotBefore > latest, c.IssuedAt > latest:
		return nil, badToken(errors.New("not valid yet"))
	}
	t := &token{epoch: c.Epoch, tokenID: c.TokenID, expires: time.Unix(c.ExpiresAt, 0), scope: grantsOf(c.Access)}
	if c.Subject != "" {
		t.userID, err = strconv.ParseInt(c.Subject, 10, 64)
		if err != nil || t.userID <= 0 || strconv.FormatInt(t.userID, 10) != c.Subject {
			return nil, badToken(errors.New("of no user"))
		}
	}
	return t, nil
}

// notInToken also keeps out line breaks, which encoding/base64 skips.
func notInToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

func badToken(cause error) error {
	return tarport.Errorf(tarport.Unauthorized, "the access token is not valid (any more)").Because(cause)
}
