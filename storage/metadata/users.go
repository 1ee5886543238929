package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// User is an account.
type User struct {
	ID           int64
	Name         string
	PasswordHash string
	Admin        bool
	Disabled     bool
	TokenEpoch   int64 // access and refresh tokens of another epoch are void
}

const userColumns = `users.id, users.name, users.password_hash, users.admin, users.disabled_at IS NOT NULL, users.token_epoch`

func (u *User) dest() []any {
	return []any{&u.ID, &u.Name, &u.PasswordHash, &u.Admin, &u.Disabled, &u.TokenEpoch}
}

// UserByID reads an account; the error is NOT_FOUND where there is none.
func (db *DB) UserByID(ctx context.Context, id int64) (User, error) {
	const query = `SELECT ` + userColumns + ` FROM users WHERE id = $1`
	return db.user(ctx, query, id)
}

// UserByName reads an account; the error is NOT_FOUND where there is none.
func (db *DB) UserByName(ctx context.Context, name string) (User, error) {
	const query = `SELECT ` + userColumns + ` FROM users WHERE name = $1`
	return db.user(ctx, query, name)
}

func (db *DB) user(ctx context.Context, query string, key any) (User, error) {
	var u User
	found, err := db.view().row(ctx, query, []any{key}, u.dest()...)
	if err != nil {
		return User{}, fmt.Errorf("read user: %w", err)
	}
	if !found {
		return User{}, tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	return u, nil
}

// CreateUser makes an account with the name, password hash and rights of u and
// returns it; the error is CONFLICT where the name is taken.
func (db *DB) CreateUser(ctx context.Context, u User) (User, error) {
	const query = `
		INSERT INTO users (name, password_hash, admin, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO NOTHING
		RETURNING ` + userReturning
	var made User
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		found, err := tx.row(ctx, query, []any{u.Name, u.PasswordHash, u.Admin, tx.now}, made.dest()...)
		if err == nil && !found {
			err = tarport.Errorf(tarport.Conflict, "there is a user of this name already")
		}
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	return made, nil
}

// SQLite takes no table name in RETURNING.
const userReturning = `id, name, password_hash, admin, disabled_at IS NOT NULL, token_epoch`

// SetPassword gives a user another password. Whatever was handed out for the
// old one is void with it, as it is of another epoch. The error is NOT_FOUND where there is no such user.
func (db *DB) SetPassword(ctx context.Context, id int64, hash string) error {
	const (
		set    = `UPDATE users SET password_hash = $1, token_epoch = token_epoch + 1 WHERE id = $2`
		revoke = `DELETE FROM refresh_tokens WHERE user_id = $1`
	)
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, set, hash, id)
		if err == nil && n == 0 {
			return tarport.Errorf(tarport.NotFound, "there is no such user")
		}
		if err == nil {
			_, err = tx.exec(ctx, revoke, id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return nil
}

// LoginLimits bound the failed logins of a window of time.
type LoginLimits struct {
	Window     time.Duration
	PerAccount int // from one address for one account
	PerAddress int // from one address
}

// LoginWait tells how long the address must wait before it may try to log in
// to the account; 0 where it may now.
func (db *DB) LoginWait(ctx context.Context, account, address string, limits LoginLimits) (time.Duration, error) {
	wait, err := db.view().loginWait(ctx, account, address, limits)
	if err != nil {
		return 0, fmt.Errorf("read failed logins: %w", err)
	}
	return wait, nil
}

// loginWait counts from the newest failure back: where the limit is reached,
// the oldest of those that reach it must leave the window first.
func (tx *Tx) loginWait(ctx context.Context, account, address string, limits LoginLimits) (time.Duration, error) {
	const query = `
		SELECT account, failed_at FROM login_failures
		WHERE address = $1 AND failed_at > $2
		ORDER BY failed_at DESC LIMIT $3`
	var ofAddress, ofAccount int
	var until int64
	err := tx.query(ctx, func(scan func(...any) error) error {
		var a string
		var at int64
		if err := scan(&a, &at); err != nil {
			return err
		}
		ofAddress++
		if a == account {
			ofAccount++
		}
		if ofAddress == limits.PerAddress || a == account && ofAccount == limits.PerAccount {
			until = max(until, at+limits.Window.Microseconds())
		}
		return nil
	}, query, address, tx.now-limits.Window.Microseconds(), limits.PerAddress)
	if err != nil || until == 0 {
		return 0, err
	}
	return time.Duration(until-tx.now) * time.Microsecond, nil
}

// BeginLogin notes a try before its password is looked at, as a failure: a try
// that is cut off counts, and tries at the same time cannot all pass as the
// first. Where the limits are reached it notes nothing and returns the time to
// wait. A power loss may forget it.
func (db *DB) BeginLogin(ctx context.Context, account, address string, limits LoginLimits) (id int64, wait time.Duration, err error) {
	const (
		prune  = `DELETE FROM login_failures WHERE failed_at <= $1`
		insert = `INSERT INTO login_failures (account, address, failed_at) VALUES ($1, $2, $3) RETURNING id`
	)
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		var err error
		id = 0
		if wait, err = tx.loginWait(ctx, account, address, limits); err != nil || wait > 0 {
			return err
		}
		if _, err = tx.exec(ctx, prune, tx.now-limits.Window.Microseconds()); err != nil {
			return err
		}
		_, err = tx.row(ctx, insert, []any{account, address, tx.now}, &id)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("note login: %w", err)
	}
	return id, wait, nil
}

// EndLogin takes back what BeginLogin noted: the password was right.
func (db *DB) EndLogin(ctx context.Context, id int64) error {
	const query = `DELETE FROM login_failures WHERE id = $1`
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, query, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("note successful login: %w", err)
	}
	return nil
}
