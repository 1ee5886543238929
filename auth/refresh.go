package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// refreshLife is how long a login lasts, however often its tokens are renewed.
const refreshLife = 90 * 24 * time.Hour

// dockerClient is the client_id of docker login. What it is given lies in
// docker's config.json as the "identity token", from where docker itself,
// containerd, BuildKit, crane and others take it again and again; none of them
// would write a successor back. So it is not used up: it ends with its 90 days,
// with the password, the account, or the access token that it was got with.
// Whoever else asks for a refresh token gets one that is used once: with each
// use a successor comes, and one that comes twice ends the login.
const dockerClient = "docker"

// issueRefresh makes a refresh token that begins a family.
func (s *Service) issueRefresh(ctx context.Context, id identity, client string) (string, error) {
	secret, hash := newSecret(refreshPrefix)
	err := s.db.AddRefreshToken(ctx, metadata.RefreshToken{
		Hash: hash, User: id.user, Service: s.service, Family: rand.Text(), Once: client != dockerClient, TokenID: id.token.ID,
	}, refreshLife)
	return secret.Reveal(), err
}

// refresh returns whose the refresh token is, and the token that takes over;
// "" where it can be used again. It has 256 random bits: it is found by its
// hash and cannot be guessed, so nothing is slow or counted here.
func (s *Service) refresh(ctx context.Context, token tarport.Secret) (id identity, next string, err error) {
	bad := tarport.Errorf(tarport.Unauthorized, "the refresh token is not valid (any more), log in again")
	if !strings.HasPrefix(token.Reveal(), refreshPrefix) {
		return identity{}, "", bad
	}
	hash := sha256.Sum256([]byte(token))
	secret, nextHash := newSecret(refreshPrefix)
	t, err := s.db.UseRefreshToken(ctx, hash[:], s.service, nextHash)
	if err == nil && t.TokenID != 0 {
		id.token, err = s.db.AccessTokenByID(ctx, t.TokenID)
	}
	switch {
	case tarport.ErrorCode(err) == tarport.NotFound:
		return identity{}, "", bad.Because(err)
	case err != nil:
		return identity{}, "", err
	case !t.User.Live(s.now()):
		return identity{}, "", bad
	}
	id.user = t.User
	s.uses.note(id.token.ID, s.now())
	if t.Once {
		next = secret.Reveal()
	}
	return id, next, nil
}
