package metadata

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tarport/tarport"
)

const (
	selectRepository = `SELECT id FROM repositories WHERE name = $1`
	insertRepository = `INSERT INTO repositories (namespace_id, name, created_at, changed_at)
		VALUES ($1, $2, $3, $3) ON CONFLICT (name) DO NOTHING`
	// One row where the account is in use, else none.
	selectPushTarget = `SELECT COALESCE(r.id, 0), COALESCE(n.id, 0), CASE WHEN u.admin THEN 'owner' ELSE COALESCE(m.role, '') END
		FROM users u LEFT JOIN namespaces n ON n.name = $2 LEFT JOIN repositories r ON r.name = $3
		LEFT JOIN members m ON m.namespace_id = n.id AND m.user_id = u.id
		WHERE u.id = $1 AND u.disabled_at IS NULL AND (u.expires_at IS NULL OR u.expires_at > $4)`
	touchRepository = `UPDATE repositories SET changed_at = $2 WHERE id = $1`

	selectRepositories = `SELECT COALESCE(string_agg(name, '","' ORDER BY name), ''), COUNT(*), COALESCE(MAX(name), '') FROM (
		SELECT r.name FROM repositories r
		WHERE r.name > $1 AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id)
		ORDER BY r.name LIMIT $2) page`
)

const (
	// mayRead keeps the repositories r that a viewer may read: its id, whether it
	// is an administrator, and its token's namespace are $3, $4 and $5.
	mayRead = ` AND ($4 OR r.namespace_id IN (SELECT id FROM namespaces WHERE visibility = 'public'
			UNION SELECT namespace_id FROM members WHERE user_id = $3))
		AND ($5 = '' OR r.namespace_id = (SELECT id FROM namespaces WHERE name = $5))`
	hasManifest = ` AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id)`

	selectReadable = `SELECT COALESCE(string_agg(name, '","' ORDER BY name), ''), COUNT(*), COALESCE(MAX(name), '') FROM (
		SELECT r.name FROM repositories r WHERE r.name > $1` + mayRead + hasManifest + ` ORDER BY r.name LIMIT $2) page`

	repositoryColumns = `SELECT r.name, r.description, r.created_at, r.changed_at,
		(SELECT COUNT(*) FROM tags t WHERE t.repository_id = r.id), (SELECT COUNT(*) FROM manifests m WHERE m.repository_id = r.id)
		FROM repositories r `
	selectRepositoryList = repositoryColumns + `WHERE r.name > $1` + mayRead + hasManifest + `
		AND ($6 = '' OR r.namespace_id = (SELECT id FROM namespaces WHERE name = $6))
		AND ($7 = '' OR r.name LIKE $7 ESCAPE '!') ORDER BY r.name LIMIT $2`
	selectRepositoryRow = repositoryColumns + `WHERE r.name = $1`
	selectReadme        = `SELECT readme FROM repositories WHERE name = $1`
	updateRepository    = `UPDATE repositories SET description = COALESCE($2, description), readme = COALESCE($3, readme) WHERE name = $1`

	renewLinked = `UPDATE blobs SET leased_until = $2 WHERE state = 'live' AND leased_until < $2
		AND digest IN (SELECT digest FROM blob_links WHERE repository_id = $1)`
	deleteTags      = `DELETE FROM tags WHERE repository_id = $1`
	deleteManifests = `DELETE FROM manifests WHERE repository_id = $1`
	dropRepository  = `DELETE FROM repositories WHERE id = $1`
)

// Repository is a repository, as the API shows it.
type Repository struct {
	Name        string
	Description string
	Readme      string // Markdown; only where one repository is read
	CreatedAt   time.Time
	ChangedAt   time.Time
	Tags        int64
	Manifests   int64
}

func (r *Repository) scan(scan func(...any) error) error {
	return scan(&r.Name, &r.Description, stamp{&r.CreatedAt}, stamp{&r.ChangedAt}, &r.Tags, &r.Manifests)
}

// ReadableRepositories is Repositories with only what the viewer may read.
func (db *DB) ReadableRepositories(ctx context.Context, v Viewer, n int, last string) (Page, error) {
	var p Page
	tx := db.view()
	if err := p.read(n, func(limit int) error {
		_, err := tx.row(ctx, selectReadable, []any{last, limit, v.UserID, v.All, v.Namespace}, &p.Joined, &p.Count, &p.Last)
		return err
	}); err != nil {
		return p, fmt.Errorf("list repositories: %w", err)
	}
	return p, nil
}

// ListRepositories lists at most n repositories that hold a manifest and that
// the viewer may read: of one namespace, or of all for "", and with q in their
// name.
func (db *DB) ListRepositories(ctx context.Context, v Viewer, namespace, q string, n int, last string) ([]Repository, error) {
	pattern := ""
	if q != "" {
		pattern = "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(q) + "%"
	}
	list, err := all(ctx, db.view(), (*Repository).scan, selectRepositoryList, last, n, v.UserID, v.All, v.Namespace, namespace, pattern)
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	return list, nil
}

// Repository reads a repository; NAME_UNKNOWN where there is none.
func (db *DB) Repository(ctx context.Context, name string) (Repository, error) {
	tx := db.view()
	list, err := all(ctx, tx, (*Repository).scan, selectRepositoryRow, name)
	if err == nil && len(list) == 0 {
		return Repository{}, errNoRepository(name)
	}
	if err == nil {
		_, err = tx.row(ctx, selectReadme, []any{name}, &list[0].Readme)
	}
	if err != nil {
		return Repository{}, fmt.Errorf("read repository: %w", err)
	}
	return list[0], nil
}

func errNoRepository(name string) error {
	return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", name)
}

// RepositoryPatch is what UpdateRepository changes: nil stays as it is.
type RepositoryPatch struct {
	Description, Readme *string
}

// UpdateRepository describes a repository; NAME_UNKNOWN where there is none.
func (db *DB) UpdateRepository(ctx context.Context, name string, p RepositoryPatch) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, updateRepository, name, p.Description, p.Readme)
		if err == nil && n == 0 {
			return errNoRepository(name)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventRepositoryUpdate, Namespace: tarport.Namespace(name), Repository: name, Target: name})
	})
	if err != nil {
		return fmt.Errorf("describe repository: %w", err)
	}
	return nil
}

// DeleteRepository deletes a repository with all that is in it; its blobs get a
// new lease. NAME_UNKNOWN where there is none.
func (db *DB) DeleteRepository(ctx context.Context, name string, lease time.Time) error {
	err := db.changeRepository(ctx, name, func(ctx context.Context, tx *Tx, repo int64) error {
		if err := tx.event(ctx, Event{Action: EventRepositoryDelete, Namespace: tarport.Namespace(name), Repository: name, Target: name}); err != nil {
			return err
		}
		return tx.deleteRepository(ctx, repo, lease)
	})
	if err != nil {
		return fmt.Errorf("delete repository: %w", err)
	}
	return nil
}

// deleteRepository is the one place where a repository goes.
func (tx *Tx) deleteRepository(ctx context.Context, repo int64, lease time.Time) error {
	if _, err := tx.exec(ctx, renewLinked, repo, lease.UnixMicro()); err != nil {
		return err
	}
	if err := tx.checkRemovable(ctx, repo); err != nil {
		return err
	}
	if _, err := tx.unlink(ctx, unlinkRepository, repo); err != nil {
		return err
	}
	for _, query := range []string{deleteTags, deleteManifests, dropRepository} {
		if _, err := tx.exec(ctx, query, repo); err != nil {
			return err
		}
	}
	return nil
}

// Page is a page of names, ready for JSON.
type Page struct {
	Joined string // the names with `","` between them; they hold nothing that JSON would escape
	Count  int
	Last   string // the last name, "" where there is none
	More   bool   // names follow after Last
}

// Names returns the page as a list.
func (p Page) Names() []string {
	if p.Count == 0 {
		return nil
	}
	return strings.Split(p.Joined, `","`)
}

// Repositories lists at most n names of repositories that hold a manifest, in
// byte order, after last.
func (db *DB) Repositories(ctx context.Context, n int, last string) (Page, error) {
	p, err := db.view().page(ctx, n, selectRepositories, last)
	if err != nil {
		return p, fmt.Errorf("list repositories: %w", err)
	}
	return p, nil
}

// page runs a query whose columns are those of Page and whose last parameter
// is the limit. One more than asked for is read, to know whether more follow.
func (tx *Tx) page(ctx context.Context, n int, query string, args ...any) (Page, error) {
	var p Page
	return p, p.read(n, func(limit int) error {
		_, err := tx.row(ctx, query, append(append([]any{}, args...), limit), &p.Joined, &p.Count, &p.Last)
		return err
	})
}

// read fills p with one more than n names, and cuts that off where it is there.
func (p *Page) read(n int, read func(limit int) error) error {
	if err := read(n + 1); err != nil || p.Count <= n {
		return err
	}
	// Names have no quote in them.
	cut := len(p.Joined) - len(p.Last)
	if p.Count > 1 {
		cut -= len(`","`)
	}
	p.Joined, p.Count, p.More = p.Joined[:max(cut, 0)], p.Count-1, true
	p.Last = p.Joined[strings.LastIndexByte(p.Joined, '"')+1:]
	return nil
}

// repository returns the id of a repository; found is false where there is none.
func (tx *Tx) repository(ctx context.Context, name string) (id int64, found bool, err error) {
	found, err = tx.row(ctx, selectRepository, []any{name}, &id)
	return id, found, err
}

// makeRepository returns the id of a repository that is pushed to, which it
// makes with its namespace where they are not there. Whether who asks (the
// principal of ctx) may do so is looked at again here: since it was authorised
// somebody else may have made the namespace, or a slow body may have outlived
// the right. Without a principal it is the registry itself that asks.
func (tx *Tx) makeRepository(ctx context.Context, name string) (int64, error) {
	ns := tarport.Namespace(name)
	id, nsID, err := tx.pushTarget(ctx, ns, name)
	if err != nil || id != 0 {
		return id, err
	}
	if nsID == 0 {
		if nsID, err = tx.createPushed(ctx, ns); err != nil {
			return 0, err
		}
	}
	if _, err := tx.exec(ctx, insertRepository, nsID, name, tx.now); err != nil {
		return 0, err
	}
	id, found, err := tx.repository(ctx, name)
	if err == nil && !found {
		err = fmt.Errorf("repository %s is gone while it was made", name)
	}
	return id, err
}

// pushTarget returns the ids of a repository and its namespace, 0 for what is
// not there; DENIED where they are there and not for who asks.
func (tx *Tx) pushTarget(ctx context.Context, ns, name string) (id, nsID int64, err error) {
	p := tarport.PrincipalFrom(ctx)
	if p.Anonymous() {
		if id, _, err = tx.repository(ctx, name); err != nil || id != 0 {
			return id, 0, err
		}
		_, err = tx.row(ctx, selectNamespaceID, []any{ns}, &nsID)
		return 0, nsID, err
	}
	var role tarport.Role
	found, err := tx.row(ctx, selectPushTarget, []any{p.UserID, ns, name, tx.now}, &id, &nsID, &role)
	if err == nil && (!found || nsID != 0 && !role.AtLeast(tarport.Writer)) {
		err = ErrMayNotPush(ns)
	}
	return id, nsID, err
}

// ErrMayNotPush is the answer to who may not push into a namespace, the same
// whether it is there or not.
func ErrMayNotPush(ns string) *tarport.Error {
	return tarport.Errorf(tarport.Denied, "you may not push into the namespace %s: ask one of its owners to make you a writer, "+
		"or an administrator to create it where it does not exist", ns)
}
