package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// NamespacePolicy says who may create namespaces, beside administrators, who
// always may. The zero value: every user, also by a push.
type NamespacePolicy struct {
	NoAutoCreate bool // a push creates none
	AdminsOnly   bool // users create none, but for their own where they get one
	Personal     bool // each user gets one of its own name, which nobody else gets
}

// MayCreate tells whether p may create the namespace, if it is not there.
func (n NamespacePolicy) MayCreate(p tarport.Principal, ns string) bool {
	switch {
	case p.Anonymous(), p.Robot, p.ReadOnly, p.Namespace != "" && p.Namespace != ns:
		return false
	case p.Admin, n.Personal && p.Name == ns:
		return true
	}
	return !n.AdminsOnly
}

// MayPushNew tells whether a push by p may create the namespace.
func (n NamespacePolicy) MayPushNew(p tarport.Principal, ns string) bool {
	return !n.NoAutoCreate && n.MayCreate(p, ns)
}

// NamespacePolicy is the policy that the database was opened with.
func (db *DB) NamespacePolicy() NamespacePolicy { return db.policy }

// Visibilities of a namespace.
const (
	Private = "private"
	Public  = "public" // anybody may pull
)

// Namespace is a unit of membership, visibility and quota.
type Namespace struct {
	ID          int64
	Name        string
	Visibility  string
	Description string
	CreatedBy   string
	CreatedAt   time.Time
	Role        tarport.Role // of who asked for it; "" for none

	Repositories int64 // that hold a manifest
	Members      int64 // persons
	Usage        Usage
}

// The events of namespaces and repositories.
const (
	EventNamespaceCreate  = "namespace.create"
	EventNamespaceUpdate  = "namespace.update"
	EventNamespaceDelete  = "namespace.delete"
	EventRepositoryUpdate = "repository.update"
	EventRepositoryDelete = "repository.delete"
)

const (
	selectNamespaceID = `SELECT id FROM namespaces WHERE name = $1`
	insertNamespace   = `INSERT INTO namespaces (name, visibility, description, created_by, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name) DO NOTHING RETURNING id`
	selectUserTaken = `SELECT id FROM users WHERE name = $1 AND id <> $2`

	namespaceColumns = `n.id, n.name, n.visibility, n.description, n.created_by, n.created_at, COALESCE(m.role, ''),
		(SELECT COUNT(*) FROM repositories r WHERE r.namespace_id = n.id AND EXISTS (SELECT 1 FROM manifests x WHERE x.repository_id = r.id)),
		(SELECT COUNT(*) FROM members p JOIN users u ON u.id = p.user_id WHERE p.namespace_id = n.id AND u.namespace_id IS NULL),
		n.quota_bytes, n.used_bytes, n.reserved_bytes
		FROM namespaces n LEFT JOIN members m ON m.namespace_id = n.id AND m.user_id = $1`
	selectNamespace  = `SELECT ` + namespaceColumns + ` WHERE n.name = $2`
	selectNamespaces = `SELECT ` + namespaceColumns + `
		WHERE n.name > $2 AND ($3 OR m.role IS NOT NULL OR n.visibility = 'public') AND ($4 = '' OR n.name = $4)
		ORDER BY n.name LIMIT $5`
	updateNamespace = `UPDATE namespaces SET visibility = COALESCE($2, visibility), description = COALESCE($3, description) WHERE name = $1`
	lockNamespace   = `UPDATE namespaces SET created_at = created_at WHERE name = $1`
	deleteNamespace = `DELETE FROM namespaces WHERE id = $1`

	// What n.id holds, for who is about to delete it.
	selectContents = `SELECT r.id, r.name, (SELECT COUNT(*) FROM manifests x WHERE x.repository_id = r.id) FROM repositories r
		WHERE r.namespace_id = $1 ORDER BY r.name`
)

func (n *Namespace) scan(scan func(...any) error) error {
	return scan(&n.ID, &n.Name, &n.Visibility, &n.Description, &n.CreatedBy, stamp{&n.CreatedAt}, &n.Role,
		&n.Repositories, &n.Members, &n.Usage.Quota, &n.Usage.Used, &n.Usage.Reserved)
}

// Viewer is for whom something is listed.
type Viewer struct {
	UserID    int64
	All       bool   // an administrator
	Namespace string // the only one that its token is for; "" for all
}

// ViewerOf is the viewer that a principal is.
func ViewerOf(p tarport.Principal) Viewer {
	return Viewer{UserID: p.UserID, All: p.Admin, Namespace: p.Namespace}
}

// NewNamespace is what CreateNamespace makes.
type NewNamespace struct {
	Name        string
	Visibility  string
	Description string
	Quota       *int64 // nil: no limit
}

// CreateNamespace makes a namespace whose owner is the principal of ctx.
// CONFLICT where the name is taken. Whether it may is the caller's to ask.
func (db *DB) CreateNamespace(ctx context.Context, n NewNamespace) error {
	return db.changeRights(ctx, "create namespace", func(ctx context.Context, tx *Tx) error {
		if _, err := tx.createNamespace(ctx, n); err != nil || n.Quota == nil {
			return err
		}
		return tx.setQuota(ctx, n.Name, *n.Quota)
	})
}

// createNamespace is the one place where a namespace is made.
func (tx *Tx) createNamespace(ctx context.Context, n NewNamespace) (id int64, err error) {
	p := tarport.PrincipalFrom(ctx)
	taken := tarport.Errorf(tarport.Conflict, "the name %s is taken", n.Name)
	if tx.db.policy.Personal {
		var other int64
		if found, err := tx.row(ctx, selectUserTaken, []any{n.Name, p.UserID}, &other); err != nil || found && !p.Admin {
			return 0, errOr(err, taken)
		}
	}
	found, err := tx.row(ctx, insertNamespace, []any{n.Name, n.Visibility, n.Description, p.Name, tx.now}, &id)
	if err != nil || !found {
		return 0, errOr(err, taken)
	}
	if err := tx.event(ctx, Event{
		Action: EventNamespaceCreate, Namespace: n.Name, Target: n.Name,
		Detail: map[string]any{"visibility": n.Visibility},
	}); err != nil || p.UserID == 0 {
		return id, err
	}
	_, err = tx.exec(ctx, upsertMember, id, p.UserID, tarport.Owner, tx.now)
	return id, err
}

// errOr is err, or where it is nil the other.
func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// createPushed makes the namespace of a first push.
func (tx *Tx) createPushed(ctx context.Context, ns string) (id int64, err error) {
	p := tarport.PrincipalFrom(ctx)
	if !p.Anonymous() && !tx.db.policy.MayPushNew(p, ns) {
		return 0, ErrMayNotPush(ns)
	}
	id, err = tx.createNamespace(ctx, NewNamespace{Name: ns, Visibility: Private})
	if tarport.ErrorCode(err) != tarport.Conflict {
		return id, err
	}
	if p.Anonymous() { // two of the registry's own at once
		_, err = tx.row(ctx, selectNamespaceID, []any{ns}, &id)
		return id, err
	}
	// Somebody was first: is the caller one of its members?
	_, id, err = tx.pushTarget(ctx, ns, ns)
	if err == nil && id == 0 {
		err = ErrMayNotPush(ns) // another user's own name
	}
	return id, err
}

// Namespace reads a namespace with its usage; NOT_FOUND where there is none.
func (db *DB) Namespace(ctx context.Context, v Viewer, name string) (Namespace, error) {
	list, err := all(ctx, db.view(), (*Namespace).scan, selectNamespace, v.UserID, name)
	if err != nil {
		return Namespace{}, fmt.Errorf("read namespace: %w", err)
	}
	if len(list) == 0 {
		return Namespace{}, ErrNoNamespace(name)
	}
	return list[0], nil
}

// ErrNoNamespace is the answer to who asks for a namespace that is not there,
// or may not know that it is.
func ErrNoNamespace(name string) *tarport.Error {
	return tarport.Errorf(tarport.NotFound, "there is no namespace %s", name)
}

// Namespaces lists at most n namespaces that the viewer may see, after last.
func (db *DB) Namespaces(ctx context.Context, v Viewer, n int, last string) ([]Namespace, error) {
	list, err := all(ctx, db.view(), (*Namespace).scan, selectNamespaces, v.UserID, last, v.All, v.Namespace, n)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	return list, nil
}

// NamespacePatch is what UpdateNamespace changes: nil stays as it is.
type NamespacePatch struct {
	Visibility, Description *string
	Quota                   *int64
}

// UpdateNamespace changes a namespace; NOT_FOUND where there is none.
func (db *DB) UpdateNamespace(ctx context.Context, name string, p NamespacePatch) error {
	return db.changeRights(ctx, "update namespace", func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, updateNamespace, name, p.Visibility, p.Description)
		if err == nil && n == 0 {
			err = ErrNoNamespace(name)
		}
		if err != nil {
			return err
		}
		if p.Quota != nil {
			if err := tx.setQuota(ctx, name, *p.Quota); err != nil {
				return err
			}
		}
		if p.Visibility == nil && p.Description == nil {
			return nil
		}
		detail := map[string]any{}
		if p.Visibility != nil {
			detail["visibility"] = *p.Visibility
		}
		return tx.event(ctx, Event{Action: EventNamespaceUpdate, Namespace: name, Target: name, Detail: detail})
	})
}

// Contents is what a namespace holds.
type Contents struct {
	Repositories []string
	Manifests    int64
}

// DeleteNamespace deletes a namespace with its members and robots. One that
// holds manifests is a CONFLICT, which says what it holds, unless force. The
// blobs that it had get a new lease. The names of its repositories are returned.
func (db *DB) DeleteNamespace(ctx context.Context, name string, force bool, lease time.Time) (gone Contents, err error) {
	err = db.changeRights(ctx, "delete namespace", func(ctx context.Context, tx *Tx) error {
		gone = Contents{}
		id, err := tx.lockedNamespace(ctx, name)
		if err != nil {
			return err
		}
		ids, c, err := tx.contents(ctx, id)
		if err != nil {
			return err
		}
		if gone = c; c.Manifests > 0 && !force {
			return tarport.Errorf(tarport.Conflict, "the namespace %s is not empty: it holds %d images in %d repositories, which force would delete",
				name, c.Manifests, len(c.Repositories)).WithDetail(map[string]any{"manifests": c.Manifests, "repositories": c.Repositories})
		}
		e := Event{
			Action: EventNamespaceDelete, Namespace: name, Target: name,
			Detail: map[string]any{"manifests": c.Manifests, "repositories": len(c.Repositories)},
		}
		if err := tx.event(ctx, e); err != nil {
			return err
		}
		for _, repo := range ids {
			if err := tx.deleteRepository(ctx, repo, lease); err != nil {
				return err
			}
		}
		_, err = tx.exec(ctx, deleteNamespace, id)
		return err
	})
	return gone, err
}

// lockedNamespace returns the id of a namespace that nobody else changes until
// the transaction ends; NOT_FOUND where there is none.
func (tx *Tx) lockedNamespace(ctx context.Context, name string) (id int64, err error) {
	if _, err := tx.exec(ctx, lockNamespace, name); err != nil {
		return 0, err
	}
	found, err := tx.row(ctx, selectNamespaceID, []any{name}, &id)
	if err == nil && !found {
		err = ErrNoNamespace(name)
	}
	return id, err
}

func (tx *Tx) contents(ctx context.Context, namespace int64) (ids []int64, c Contents, err error) {
	c.Repositories = []string{}
	err = tx.query(ctx, func(scan func(...any) error) error {
		var id, manifests int64
		var name string
		if err := scan(&id, &name, &manifests); err != nil {
			return err
		}
		ids = append(ids, id)
		c.Manifests += manifests
		c.Repositories = append(c.Repositories, name)
		return nil
	}, selectContents, namespace)
	return ids, c, err
}
