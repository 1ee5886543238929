package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

const (
	refreshPrefix = "tpr_" // so that scanners for leaked secrets find them
	refreshBytes  = 32
	refreshLife   = 90 * 24 * time.Hour
)

// issueRefresh makes a refresh token for the user. docker keeps it instead of
// the password ("identity token") and uses it again and again.
func (s *Service) issueRefresh(ctx context.Context, u metadata.User) (string, error) {
	text := refreshPrefix + base64.RawURLEncoding.EncodeToString(randomBytes(refreshBytes))
	hash := sha256.Sum256([]byte(text))
	if err := s.db.AddRefreshToken(ctx, hash[:], u, s.service, refreshLife); err != nil {
		return "", err
	}
	return text, nil
}

// refresh returns whose the refresh token is. It has 256 random bits: it is
// found by its hash and cannot be guessed, so nothing is slow or counted here.
func (s *Service) refresh(ctx context.Context, token tarport.Secret) (metadata.User, error) {
	bad := tarport.Errorf(tarport.Unauthorized, "the refresh token is not valid (any more), log in again")
	if !strings.HasPrefix(token.Reveal(), refreshPrefix) {
		return metadata.User{}, bad
	}
	hash := sha256.Sum256([]byte(token))
	u, err := s.db.RefreshTokenUser(ctx, hash[:], s.service)
	switch {
	case tarport.ErrorCode(err) == tarport.NotFound:
		return metadata.User{}, bad.Because(err)
	case err != nil:
		return metadata.User{}, err
	case u.Disabled:
		return metadata.User{}, bad
	}
	return u, nil
}
