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
	// NamespaceID is not 0 for a robot: the namespace that it belongs to.
	NamespaceID int64
	ExpiresAt   time.Time // zero: never
}

// Robot tells whether the account is a namespace's, and not a person's.
func (u User) Robot() bool { return u.NamespaceID != 0 }

// Live tells whether the account may be used.
func (u User) Live(now time.Time) bool {
	return u.ID != 0 && !u.Disabled && (u.ExpiresAt.IsZero() || now.Before(u.ExpiresAt))
}

const userColumns = `users.id, users.name, users.password_hash, users.admin, users.disabled_at IS NOT NULL, users.token_epoch,
	COALESCE(users.namespace_id, 0), users.expires_at`

func (u *User) dest() []any {
	return []any{&u.ID, &u.Name, &u.PasswordHash, &u.Admin, &u.Disabled, &u.TokenEpoch, &u.NamespaceID, stamp{&u.ExpiresAt}}
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
		return User{}, errNoUser
	}
	return u, nil
}

// CreateUser makes a person's account with the name, password hash and rights
// of u and returns it, and a namespace of its name where each user gets one;
// the error is CONFLICT where the name is taken.
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
		if err == nil {
			err = tx.event(ctx, Event{Action: EventUserCreate, Target: made.Name, Detail: map[string]any{"admin": made.Admin}})
		}
		if err != nil || !db.policy.Personal {
			return err
		}
		own := tarport.WithPrincipal(ctx, tarport.Principal{UserID: made.ID, Name: made.Name})
		_, err = tx.createNamespace(own, NewNamespace{Name: made.Name, Visibility: Private})
		if tarport.ErrorCode(err) == tarport.Conflict {
			return nil // there already, with members and content: not to be given away
		}
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	return made, nil
}

// SQLite takes no table name in RETURNING.
const userReturning = `id, name, password_hash, admin, disabled_at IS NOT NULL, token_epoch, COALESCE(namespace_id, 0), expires_at`

// SetPassword gives a user another password. Whatever was handed out for the
// old one is void with it, as it is of another epoch. The error is NOT_FOUND where there is no such user.
func (db *DB) SetPassword(ctx context.Context, id int64, hash string) error {
	return db.changeRights(ctx, "set password", func(ctx context.Context, tx *Tx) error {
		return tx.setPassword(ctx, id, hash)
	})
}

func (tx *Tx) setPassword(ctx context.Context, id int64, hash string) error {
	const set = `UPDATE users SET password_hash = $1, token_epoch = token_epoch + 1 WHERE id = $2`
	n, err := tx.exec(ctx, set, hash, id)
	if err == nil && n == 0 {
		return errNoUser
	}
	if err == nil {
		_, err = tx.exec(ctx, revokeLogins, id)
	}
	if err != nil {
		return err
	}
	var name string
	if _, err := tx.row(ctx, selectUserName, []any{id}, &name); err != nil {
		return err
	}
	return tx.event(ctx, Event{Action: EventUserPassword, Target: name})
}

var errNoUser = tarport.Errorf(tarport.NotFound, "there is no such user")

// The events of accounts.
const (
	EventUserCreate   = "user.create"
	EventUserUpdate   = "user.update"
	EventUserPassword = "user.password"
	EventUserDelete   = "user.delete"
)

const (
	selectUserName = `SELECT name FROM users WHERE id = $1`
	revokeLogins   = `DELETE FROM refresh_tokens WHERE user_id = $1`
	lockAdmins     = `UPDATE users SET admin = admin WHERE admin`
	countAdmins    = `SELECT COUNT(*) FROM users WHERE admin AND disabled_at IS NULL`
	updateUser     = `UPDATE users SET admin = $2, disabled_at = $3, token_epoch = $4 WHERE id = $1`
	deleteUser     = `DELETE FROM users WHERE id = $1`
	selectPerson   = `SELECT ` + userColumns + ` FROM users WHERE name = $1 AND namespace_id IS NULL`

	accountColumns = `u.name, u.admin, u.disabled_at IS NOT NULL, u.created_at FROM users u WHERE u.namespace_id IS NULL`
	selectAccount  = `SELECT ` + accountColumns + ` AND u.name = $1`
	selectAccounts = `SELECT ` + accountColumns + ` AND u.name > $1 ORDER BY u.name LIMIT $2`
)

// Account is a person's account, as administrators see it.
type Account struct {
	Name      string
	Admin     bool
	Disabled  bool
	CreatedAt time.Time
}

func (a *Account) scan(scan func(...any) error) error {
	return scan(&a.Name, &a.Admin, &a.Disabled, stamp{&a.CreatedAt})
}

// Account reads a person's account; NOT_FOUND where there is none.
func (db *DB) Account(ctx context.Context, name string) (Account, error) {
	list, err := all(ctx, db.view(), (*Account).scan, selectAccount, name)
	if err != nil {
		return Account{}, fmt.Errorf("read account: %w", err)
	}
	if len(list) == 0 {
		return Account{}, errNoUser
	}
	return list[0], nil
}

// Accounts lists at most n persons' accounts, after last.
func (db *DB) Accounts(ctx context.Context, n int, last string) ([]Account, error) {
	list, err := all(ctx, db.view(), (*Account).scan, selectAccounts, last, n)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}

// AccountPatch is what UpdateAccount changes: nil and "" stay as they are.
type AccountPatch struct {
	Admin, Disabled *bool
	PasswordHash    string
}

// UpdateAccount changes a person's account. Who is disabled is logged out
// everywhere. CONFLICT where no administrator would be left.
func (db *DB) UpdateAccount(ctx context.Context, name string, p AccountPatch) error {
	return db.changeRights(ctx, "update account", func(ctx context.Context, tx *Tx) error {
		u, err := tx.lockedPerson(ctx, name)
		if err != nil {
			return err
		}
		disabled := u.Disabled
		if p.Admin != nil {
			u.Admin = *p.Admin
		}
		if p.Disabled != nil {
			u.Disabled = *p.Disabled
		}
		var disabledAt any
		if u.Disabled {
			disabledAt = tx.now
		}
		if u.Disabled && !disabled {
			u.TokenEpoch++
			if _, err := tx.exec(ctx, revokeLogins, u.ID); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, updateUser, u.ID, u.Admin, disabledAt, u.TokenEpoch); err != nil {
			return err
		}
		if p.PasswordHash != "" {
			if err := tx.setPassword(ctx, u.ID, p.PasswordHash); err != nil {
				return err
			}
		}
		if p.Admin != nil || p.Disabled != nil {
			e := Event{Action: EventUserUpdate, Target: u.Name, Detail: map[string]any{"admin": u.Admin, "disabled": u.Disabled}}
			if err := tx.event(ctx, e); err != nil {
				return err
			}
		}
		return tx.adminLeft(ctx)
	})
}

// DeleteAccount deletes a person's account with its tokens and memberships.
// What it has done stays, under its name. CONFLICT where no administrator would
// be left.
func (db *DB) DeleteAccount(ctx context.Context, name string) error {
	return db.changeRights(ctx, "delete account", func(ctx context.Context, tx *Tx) error {
		u, err := tx.lockedPerson(ctx, name)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, deleteUser, u.ID); err != nil {
			return err
		}
		if err := tx.event(ctx, Event{Action: EventUserDelete, Target: u.Name}); err != nil {
			return err
		}
		return tx.adminLeft(ctx)
	})
}

// lockedPerson reads a person's account. The administrators' rows are locked
// first: of two that take each other's rights away at once one comes second.
func (tx *Tx) lockedPerson(ctx context.Context, name string) (u User, err error) {
	if _, err := tx.exec(ctx, lockAdmins); err != nil {
		return u, err
	}
	found, err := tx.row(ctx, selectPerson, []any{name}, u.dest()...)
	if err == nil && !found {
		err = errNoUser
	}
	return u, err
}

func (tx *Tx) adminLeft(ctx context.Context) error {
	var n int
	if _, err := tx.row(ctx, countAdmins, nil, &n); err != nil {
		return err
	}
	if n == 0 {
		return tarport.Errorf(tarport.Conflict, "this is the last administrator: make another one first")
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
