package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// Member is a person who belongs to a namespace.
type Member struct {
	Name    string
	Role    tarport.Role
	AddedAt time.Time
}

// Rights are the facts about a namespace by which it is decided what a user may
// do in it.
type Rights struct {
	Exists bool
	Public bool
	Role   tarport.Role // "" for who is no member
}

// The events of members.
const (
	EventMemberSet    = "member.set"
	EventMemberRemove = "member.remove"
)

const (
	selectRights = `SELECT n.visibility = 'public', COALESCE(m.role, '') FROM namespaces n
		LEFT JOIN members m ON m.namespace_id = n.id AND m.user_id = $1 WHERE n.name = $2`
	selectWrites = `SELECT 1 FROM members m JOIN namespaces n ON n.id = m.namespace_id
		WHERE m.user_id = $1 AND m.role <> 'reader' AND ($2 = '' OR n.name = $2) LIMIT 1`
	upsertMember = `INSERT INTO members (namespace_id, user_id, role, added_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (namespace_id, user_id) DO UPDATE SET role = excluded.role`
	deleteMember  = `DELETE FROM members WHERE namespace_id = $1 AND user_id = $2`
	selectMember  = `SELECT role FROM members WHERE namespace_id = $1 AND user_id = $2`
	countOwners   = `SELECT COUNT(*) FROM members m JOIN users u ON u.id = m.user_id WHERE m.namespace_id = $1 AND m.role = 'owner' AND u.namespace_id IS NULL`
	selectMembers = `SELECT u.name, m.role, m.added_at FROM members m JOIN namespaces n ON n.id = m.namespace_id
		JOIN users u ON u.id = m.user_id AND u.namespace_id IS NULL
		WHERE n.name = $1 AND u.name > $2 ORDER BY u.name LIMIT $3`
)

// Rights reads what a user (0 for a stranger) is in a namespace.
func (db *DB) Rights(ctx context.Context, user int64, namespace string) (Rights, error) {
	var r Rights
	var err error
	if r.Exists, err = db.view().row(ctx, selectRights, []any{user, namespace}, &r.Public, &r.Role); err != nil {
		return r, fmt.Errorf("read rights: %w", err)
	}
	return r, nil
}

// Writes tells whether a user may push to a namespace as a member of it: to the
// one of the name, or to any where that is "".
func (db *DB) Writes(ctx context.Context, user int64, namespace string) (bool, error) {
	var one int
	found, err := db.view().row(ctx, selectWrites, []any{user, namespace}, &one)
	if err != nil {
		return false, fmt.Errorf("read rights: %w", err)
	}
	return found, nil
}

// Members lists at most n persons of a namespace, after last.
func (db *DB) Members(ctx context.Context, namespace string, n int, last string) ([]Member, error) {
	list, err := all(ctx, db.view(), func(m *Member, scan func(...any) error) error {
		return scan(&m.Name, &m.Role, stamp{&m.AddedAt})
	}, selectMembers, namespace, last, n)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	return list, nil
}

// SetMember makes a person a member, or gives it another role; added tells
// which. NOT_FOUND where there is no such person or namespace, CONFLICT where
// the namespace would have no owner left.
func (db *DB) SetMember(ctx context.Context, namespace, user string, role tarport.Role) (added bool, err error) {
	err = db.changeRights(ctx, "set member", func(ctx context.Context, tx *Tx) error {
		ns, id, old, err := tx.member(ctx, namespace, user)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, upsertMember, ns, id, role, tx.now); err != nil {
			return err
		}
		added = old == ""
		e := Event{Action: EventMemberSet, Namespace: namespace, Target: user, Detail: map[string]any{"role": role, "before": old}}
		return errOr(tx.event(ctx, e), tx.ownerLeft(ctx, ns, old, role))
	})
	return added, err
}

// RemoveMember ends a membership. NOT_FOUND where there is none, CONFLICT where
// the namespace would have no owner left.
func (db *DB) RemoveMember(ctx context.Context, namespace, user string) error {
	return db.changeRights(ctx, "remove member", func(ctx context.Context, tx *Tx) error {
		ns, id, old, err := tx.member(ctx, namespace, user)
		if err != nil {
			return err
		}
		if old == "" {
			return tarport.Errorf(tarport.NotFound, "%s is no member of the namespace %s", user, namespace)
		}
		if _, err := tx.exec(ctx, deleteMember, ns, id); err != nil {
			return err
		}
		e := Event{Action: EventMemberRemove, Namespace: namespace, Target: user, Detail: map[string]any{"before": old}}
		return errOr(tx.event(ctx, e), tx.ownerLeft(ctx, ns, old, ""))
	})
}

// member locks a namespace and finds a person, and the role that it has there.
func (tx *Tx) member(ctx context.Context, namespace, user string) (ns, id int64, role tarport.Role, err error) {
	if ns, err = tx.lockedNamespace(ctx, namespace); err != nil {
		return 0, 0, "", err
	}
	var u User
	found, err := tx.row(ctx, selectPerson, []any{user}, u.dest()...)
	if err != nil || !found {
		return 0, 0, "", errOr(err, tarport.Errorf(tarport.NotFound, "there is no user %s", user))
	}
	_, err = tx.row(ctx, selectMember, []any{ns, u.ID}, &role)
	return ns, u.ID, role, err
}

// ownerLeft is an error where a change of a role took the last owner away.
func (tx *Tx) ownerLeft(ctx context.Context, ns int64, before, after tarport.Role) error {
	if before != tarport.Owner || after == tarport.Owner {
		return nil
	}
	var n int
	if _, err := tx.row(ctx, countOwners, []any{ns}, &n); err != nil {
		return err
	}
	if n == 0 {
		return tarport.Errorf(tarport.Conflict, "this is the last owner of the namespace: make another one first")
	}
	return nil
}
