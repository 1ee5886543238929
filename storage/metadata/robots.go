package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// Robot is an account of a namespace, for machines.
type Robot struct {
	Login     string // ns+name
	Role      tarport.Role
	Disabled  bool
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
}

// The events of robots.
const (
	EventRobotCreate = "robot.create"
	EventRobotUpdate = "robot.update"
	EventRobotDelete = "robot.delete"
)

const (
	insertRobot = `INSERT INTO users (name, password_hash, admin, created_at, namespace_id, expires_at)
		VALUES ($1, $2, FALSE, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING id`
	robotColumns = `u.name, m.role, u.disabled_at IS NOT NULL, u.created_at, u.expires_at FROM users u
		JOIN namespaces n ON n.id = u.namespace_id JOIN members m ON m.namespace_id = n.id AND m.user_id = u.id
		WHERE n.name = $1`
	selectRobots  = `SELECT ` + robotColumns + ` AND u.name > $2 ORDER BY u.name LIMIT $3`
	selectRobot   = `SELECT ` + robotColumns + ` AND u.name = $2`
	selectRobotID = `SELECT u.id FROM users u JOIN namespaces n ON n.id = u.namespace_id WHERE n.name = $1 AND u.name = $2`
	// The epoch goes up where the robot is disabled, or gets another secret.
	updateRobot = `UPDATE users SET
		disabled_at = CASE WHEN $2 THEN COALESCE(disabled_at, $3) ELSE NULL END,
		expires_at = $4, password_hash = COALESCE($5, password_hash), token_epoch = token_epoch + $6
		WHERE id = $1`
)

func (r *Robot) scan(scan func(...any) error) error {
	return scan(&r.Login, &r.Role, &r.Disabled, stamp{&r.CreatedAt}, stamp{&r.ExpiresAt})
}

// CreateRobot makes a robot of a namespace, whose secret has the hash.
// CONFLICT where the login is taken, NOT_FOUND where there is no namespace.
func (db *DB) CreateRobot(ctx context.Context, namespace string, r Robot, hash string) error {
	return db.changeRights(ctx, "create robot", func(ctx context.Context, tx *Tx) error {
		ns, err := tx.lockedNamespace(ctx, namespace)
		if err != nil {
			return err
		}
		var id int64
		found, err := tx.row(ctx, insertRobot, []any{r.Login, hash, tx.now, ns, orNull(r.ExpiresAt)}, &id)
		if err != nil || !found {
			return errOr(err, tarport.Errorf(tarport.Conflict, "there is a robot %s already", r.Login))
		}
		if _, err = tx.exec(ctx, upsertMember, ns, id, r.Role, tx.now); err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventRobotCreate, Namespace: namespace, Target: r.Login, Detail: map[string]any{"role": r.Role}})
	})
}

// Robots lists at most n robots of a namespace, after the login last.
func (db *DB) Robots(ctx context.Context, namespace string, n int, last string) ([]Robot, error) {
	list, err := all(ctx, db.view(), (*Robot).scan, selectRobots, namespace, last, n)
	if err != nil {
		return nil, fmt.Errorf("list robots: %w", err)
	}
	return list, nil
}

// RobotPatch is what UpdateRobot changes: nil and "" stay as they are.
type RobotPatch struct {
	Role      *tarport.Role
	Disabled  *bool
	ExpiresAt *time.Time // the zero time: never
	Hash      string     // of another secret
}

// UpdateRobot changes a robot of the namespace and returns it. What was handed
// out to it is void where it is disabled or gets another secret. NOT_FOUND
// where the namespace has no such robot.
func (db *DB) UpdateRobot(ctx context.Context, namespace, login string, p RobotPatch) (r Robot, err error) {
	err = db.changeRights(ctx, "update robot", func(ctx context.Context, tx *Tx) error {
		ns, id, old, err := tx.lockedRobot(ctx, namespace, login)
		if err != nil {
			return err
		}
		if r = old; p.Disabled != nil {
			r.Disabled = *p.Disabled
		}
		if p.ExpiresAt != nil {
			r.ExpiresAt = *p.ExpiresAt
		}
		if p.Role != nil {
			r.Role = *p.Role
		}
		var hash any
		epochs := 0
		if p.Hash != "" {
			hash = p.Hash
		}
		if p.Hash != "" || r.Disabled && !old.Disabled {
			epochs = 1
			if _, err := tx.exec(ctx, revokeLogins, id); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, updateRobot, id, r.Disabled, tx.now, orNull(r.ExpiresAt), hash, epochs); err != nil {
			return err
		}
		if _, err = tx.exec(ctx, upsertMember, ns, id, r.Role, tx.now); err != nil {
			return err
		}
		return tx.event(ctx, Event{
			Action: EventRobotUpdate, Namespace: namespace, Target: login,
			Detail: map[string]any{"role": r.Role, "disabled": r.Disabled, "secret": p.Hash != ""},
		})
	})
	return r, err
}

// DeleteRobot deletes a robot of the namespace; NOT_FOUND where it has none.
func (db *DB) DeleteRobot(ctx context.Context, namespace, login string) error {
	return db.changeRights(ctx, "delete robot", func(ctx context.Context, tx *Tx) error {
		_, id, _, err := tx.lockedRobot(ctx, namespace, login)
		if err == nil {
			_, err = tx.exec(ctx, deleteUser, id)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventRobotDelete, Namespace: namespace, Target: login})
	})
}

// lockedRobot finds a robot in its namespace, and nowhere else.
func (tx *Tx) lockedRobot(ctx context.Context, namespace, login string) (ns, id int64, r Robot, err error) {
	if ns, err = tx.lockedNamespace(ctx, namespace); err != nil {
		return 0, 0, r, err
	}
	found, err := tx.row(ctx, selectRobotID, []any{namespace, login}, &id)
	if err != nil || !found {
		return 0, 0, r, errOr(err, tarport.Errorf(tarport.NotFound, "there is no robot %s", login))
	}
	list, err := all(ctx, tx, (*Robot).scan, selectRobot, namespace, login)
	if err == nil && len(list) == 1 {
		r = list[0]
	}
	return ns, id, r, err
}
