package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// RefreshToken is what a client keeps to get access tokens with.
type RefreshToken struct {
	Hash    []byte
	User    User // as it was read at the login: with another epoch the token is void from the start
	Service string
	Family  string // what the login began; a token that takes over is of the same
	Once    bool   // used once, and a successor handed out
	TokenID int64  // the personal access token that it was got with; 0 for a password
}

const (
	pruneRefresh  = `DELETE FROM refresh_tokens WHERE expires_at <= $1`
	insertRefresh = `
		INSERT INTO refresh_tokens (hash, user_id, epoch, service, family, once, token_id, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	selectRefresh = `
		SELECT ` + userColumns + `, r.family, r.once, r.used_at IS NOT NULL, COALESCE(r.token_id, 0), r.expires_at FROM refresh_tokens r
		JOIN users ON users.id = r.user_id AND users.token_epoch = r.epoch
		LEFT JOIN access_tokens t ON t.id = r.token_id
		WHERE r.hash = $1 AND r.service = $2 AND r.expires_at > $3 AND (t.expires_at IS NULL OR t.expires_at > $3)`
	useRefresh    = `UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL`
	revokeRefresh = `DELETE FROM refresh_tokens WHERE family = $1 AND user_id = $2`
)

// AddRefreshToken stores a refresh token that begins its family, for as long as
// the family lives.
func (db *DB) AddRefreshToken(ctx context.Context, t RefreshToken, life time.Duration) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.exec(ctx, pruneRefresh, tx.now); err != nil {
			return err
		}
		return tx.addRefresh(ctx, t, tx.now+life.Microseconds())
	})
	if err != nil {
		return fmt.Errorf("store refresh token: %w", err)
	}
	return nil
}

func (tx *Tx) addRefresh(ctx context.Context, t RefreshToken, expires int64) error {
	var token any
	if t.TokenID != 0 {
		token = t.TokenID
	}
	_, err := tx.exec(ctx, insertRefresh, t.Hash, t.User.ID, t.User.TokenEpoch, t.Service, t.Family, t.Once, token, tx.now, expires)
	return err
}

// UseRefreshToken returns the token for the service that has the hash. One that
// is used once is used by it, and its successor, by the hash next, takes over
// for the rest of the family's life. One that was used before ends its family:
// somebody else has it too. The error is NOT_FOUND where none lives.
func (db *DB) UseRefreshToken(ctx context.Context, hash []byte, service string, next []byte) (t RefreshToken, err error) {
	t, used, _, err := db.view().refreshToken(ctx, hash, service)
	if err != nil || !t.Once && !used {
		return t, err
	}
	reused := false
	err = db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		var expires time.Time
		var err error
		if t, _, expires, err = tx.refreshToken(ctx, hash, service); err != nil {
			return err
		}
		n, err := tx.exec(ctx, useRefresh, hash, tx.now)
		if err != nil {
			return err
		}
		if reused = n == 0; reused {
			_, err = tx.exec(ctx, revokeRefresh, t.Family, t.User.ID)
			return err // the revocation stays
		}
		heir := t
		heir.Hash = next
		return tx.addRefresh(ctx, heir, expires.UnixMicro())
	})
	if err == nil && reused {
		err = errNoRefresh
	}
	return t, err
}

var errNoRefresh = tarport.Errorf(tarport.NotFound, "there is no such refresh token")

func (tx *Tx) refreshToken(ctx context.Context, hash []byte, service string) (t RefreshToken, used bool, expires time.Time, err error) {
	t = RefreshToken{Hash: hash, Service: service}
	found, err := tx.row(ctx, selectRefresh, []any{hash, service, tx.now},
		append(t.User.dest(), &t.Family, &t.Once, &used, &t.TokenID, stamp{&expires})...)
	switch {
	case err != nil:
		return t, false, expires, fmt.Errorf("read refresh token: %w", err)
	case !found:
		return t, false, expires, errNoRefresh
	}
	return t, used, expires, nil
}
