package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// AddRefreshToken stores the hash of a refresh token of the user for the
// service, for as long as it lives. It is tied to the epoch of u: if the
// password was changed since u was read, the token is void from the start.
func (db *DB) AddRefreshToken(ctx context.Context, hash []byte, u User, service string, life time.Duration) error {
	const (
		prune  = `DELETE FROM refresh_tokens WHERE expires_at <= $1`
		insert = `
			INSERT INTO refresh_tokens (hash, user_id, epoch, service, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6)`
	)
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.exec(ctx, prune, tx.now); err != nil {
			return err
		}
		_, err := tx.exec(ctx, insert, hash, u.ID, u.TokenEpoch, service, tx.now, tx.now+life.Microseconds())
		return err
	})
	if err != nil {
		return fmt.Errorf("store refresh token: %w", err)
	}
	return nil
}

// RefreshTokenUser reads the account whose refresh token for the service has
// the hash; the error is NOT_FOUND where none lives.
func (db *DB) RefreshTokenUser(ctx context.Context, hash []byte, service string) (User, error) {
	const query = `
		SELECT ` + userColumns + ` FROM refresh_tokens
		JOIN users ON users.id = refresh_tokens.user_id AND users.token_epoch = refresh_tokens.epoch
		WHERE refresh_tokens.hash = $1 AND refresh_tokens.service = $2 AND refresh_tokens.expires_at > $3`
	var u User
	tx := db.view()
	found, err := tx.row(ctx, query, []any{hash, service, tx.now}, u.dest()...)
	if err != nil {
		return User{}, fmt.Errorf("read refresh token: %w", err)
	}
	if !found {
		return User{}, tarport.Errorf(tarport.NotFound, "there is no such refresh token")
	}
	return u, nil
}
