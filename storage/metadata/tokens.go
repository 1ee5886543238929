package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// AccessToken is a personal access token, without its secret.
type AccessToken struct {
	ID        int64
	UserID    int64
	Name      string
	ReadOnly  bool
	Namespace string // the only one that it is for; "" for all
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	UsedAt    time.Time // zero: never; to the minute or so
}

// The events of tokens. Their target is the token's name; they belong to no
// namespace.
const (
	EventTokenCreate = "token.create"
	EventTokenRevoke = "token.revoke"
)

const (
	tokenColumns = `t.id, t.user_id, t.name, t.read_only, t.namespace, t.created_at, t.expires_at, t.used_at FROM access_tokens t`

	insertToken = `INSERT INTO access_tokens (user_id, name, hash, read_only, namespace, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, name) DO NOTHING RETURNING id`
	countTokens     = `SELECT COUNT(*) FROM access_tokens WHERE user_id = $1`
	selectTokens    = `SELECT ` + tokenColumns + ` WHERE t.user_id = $1 AND t.id > $2 ORDER BY t.id LIMIT $3`
	selectTokenID   = `SELECT ` + tokenColumns + ` WHERE t.id = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)`
	selectTokenHash = `SELECT ` + tokenColumns + ` JOIN users ON users.id = t.user_id
		WHERE t.hash = $1 AND users.name = $2 AND (t.expires_at IS NULL OR t.expires_at > $3)`
	deleteToken = `DELETE FROM access_tokens WHERE id = $1 AND user_id = $2 RETURNING name`
	touchToken  = `UPDATE access_tokens SET used_at = $2 WHERE id = $1 AND (used_at IS NULL OR used_at < $2)`
)

func (t *AccessToken) scan(scan func(...any) error) error {
	return scan(&t.ID, &t.UserID, &t.Name, &t.ReadOnly, &t.Namespace, stamp{&t.CreatedAt}, stamp{&t.ExpiresAt}, stamp{&t.UsedAt})
}

// maxTokens is how many tokens a user may have.
const maxTokens = 200

// CreateAccessToken stores a token of t.UserID by the hash of its secret.
// CONFLICT where the user has one of the name, or too many.
func (db *DB) CreateAccessToken(ctx context.Context, t AccessToken, hash []byte) (id int64, err error) {
	err = db.changeRights(ctx, "create token", func(ctx context.Context, tx *Tx) error {
		var n int
		if _, err := tx.row(ctx, countTokens, []any{t.UserID}, &n); err != nil {
			return err
		}
		if n >= maxTokens {
			return tarport.Errorf(tarport.Conflict, "you have %d tokens, no more are possible: revoke some", n)
		}
		found, err := tx.row(ctx, insertToken, []any{t.UserID, t.Name, hash, t.ReadOnly, t.Namespace, tx.now, orNull(t.ExpiresAt)}, &id)
		if err == nil && !found {
			err = tarport.Errorf(tarport.Conflict, "you have a token of this name already")
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, Event{
			Action: EventTokenCreate, Target: t.Name,
			Detail: map[string]any{"id": id, "read_only": t.ReadOnly, "namespace": t.Namespace},
		})
	})
	return id, err
}

// AccessTokens lists at most n tokens of a user, after the id last.
func (db *DB) AccessTokens(ctx context.Context, user int64, n int, last int64) ([]AccessToken, error) {
	list, err := all(ctx, db.view(), (*AccessToken).scan, selectTokens, user, last, n)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// AccessTokenByID reads a token that is not over; NOT_FOUND where there is none.
func (db *DB) AccessTokenByID(ctx context.Context, id int64) (AccessToken, error) {
	tx := db.view()
	return oneToken(all(ctx, tx, (*AccessToken).scan, selectTokenID, id, tx.now))
}

// AccessTokenByHash finds a token that is not over, of the user of the name, by
// the hash of its secret; NOT_FOUND where there is none.
func (db *DB) AccessTokenByHash(ctx context.Context, user string, hash []byte) (AccessToken, error) {
	tx := db.view()
	return oneToken(all(ctx, tx, (*AccessToken).scan, selectTokenHash, hash, user, tx.now))
}

func oneToken(list []AccessToken, err error) (AccessToken, error) {
	if err != nil {
		return AccessToken{}, fmt.Errorf("read token: %w", err)
	}
	if len(list) == 0 {
		return AccessToken{}, errNoToken
	}
	return list[0], nil
}

var errNoToken = tarport.Errorf(tarport.NotFound, "there is no such token")

// RevokeAccessToken ends a token of the user, with what was got by it;
// NOT_FOUND where the user has none of this id.
func (db *DB) RevokeAccessToken(ctx context.Context, user, id int64) error {
	return db.changeRights(ctx, "revoke token", func(ctx context.Context, tx *Tx) error {
		var name string
		found, err := tx.row(ctx, deleteToken, []any{id, user}, &name)
		if err != nil || !found {
			return errOr(err, errNoToken)
		}
		return tx.event(ctx, Event{Action: EventTokenRevoke, Target: name, Detail: map[string]any{"id": id}})
	})
}

// TouchAccessTokens notes when tokens were used last. A power loss may forget it.
func (db *DB) TouchAccessTokens(ctx context.Context, used map[int64]time.Time) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		for id, at := range used {
			if _, err := tx.exec(ctx, touchToken, id, at.UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the use of tokens: %w", err)
	}
	return nil
}
