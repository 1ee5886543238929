package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// What secrets that are not chosen by people begin with, so that scanners for
// leaked ones find them. Each has secretBytes random bytes, so it is found by
// its SHA-256 and cannot be guessed.
const (
	tokenPrefix   = "tpt_" // personal access tokens
	refreshPrefix = "tpr_"
	robotPrefix   = "tpb_"
	secretBytes   = 32
)

func newSecret(prefix string) (secret tarport.Secret, hash []byte) {
	text := prefix + base64.RawURLEncoding.EncodeToString(randomBytes(secretBytes))
	sum := sha256.Sum256([]byte(text))
	return tarport.Secret(text), sum[:]
}

// identity is who asks, and by which personal access token; the token has no id
// where another secret was shown. The zero value is the stranger.
type identity struct {
	user  metadata.User
	token metadata.AccessToken
}

// principal is who it is, with the restrictions of the token.
func (i identity) principal() tarport.Principal {
	return tarport.Principal{
		UserID: i.user.ID, Name: i.user.Name, Admin: i.user.Admin, Robot: i.user.Robot(),
		TokenID: i.token.ID, TokenName: i.token.Name, ReadOnly: i.token.ReadOnly, Namespace: i.token.Namespace,
	}
}

// bySecret logs in by a personal access token, or by the secret of a robot;
// found is false where the password is neither, and then a password of the
// account may be. Nothing is slow or counted here.
func (s *Service) bySecret(ctx context.Context, name string, password tarport.Secret) (id identity, found bool, err error) {
	sum := sha256.Sum256([]byte(password))
	switch {
	case strings.HasPrefix(password.Reveal(), tokenPrefix) && isUserName(name):
		if id.token, err = s.db.AccessTokenByHash(ctx, name, sum[:]); err != nil {
			return identity{}, false, unlessNotFound(err)
		}
		id.user, err = s.db.UserByID(ctx, id.token.UserID)
	case strings.HasPrefix(password.Reveal(), robotPrefix) && isRobotName(name):
		id.user, err = s.db.UserByName(ctx, name)
		if err == nil && subtle.ConstantTimeCompare([]byte(id.user.PasswordHash), []byte(robotHash(sum[:]))) != 1 {
			return identity{}, false, nil
		}
	default:
		return identity{}, false, nil
	}
	if err != nil || !id.user.Live(s.now()) {
		return identity{}, false, unlessNotFound(err)
	}
	s.uses.note(id.token.ID, s.now())
	return id, true, nil
}

func unlessNotFound(err error) error {
	if tarport.ErrorCode(err) == tarport.NotFound {
		return nil
	}
	return err
}

// NewAccessToken makes the secret of a personal access token, and its hash,
// which is what is stored.
func (s *Service) NewAccessToken() (secret tarport.Secret, hash []byte) {
	return newSecret(tokenPrefix)
}

// NewRobotSecret makes the secret of a robot, and what is stored of it.
func (s *Service) NewRobotSecret() (secret tarport.Secret, hash string) {
	secret, sum := newSecret(robotPrefix)
	return secret, robotHash(sum)
}

func robotHash(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }

// uses are when tokens were used last, until they are written down.
type uses struct {
	mu sync.Mutex
	at map[int64]time.Time
}

func (u *uses) note(token int64, now time.Time) {
	if token == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[int64]time.Time{}
	}
	u.at[token] = now
}

func (u *uses) take() map[int64]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.at
	u.at = nil
	return at
}

// noteUses writes down when tokens were used last.
func (s *Service) noteUses(ctx context.Context) error {
	at := s.uses.take()
	if len(at) == 0 {
		return nil
	}
	return s.db.TouchAccessTokens(ctx, at)
}
