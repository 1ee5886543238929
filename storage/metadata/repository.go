package metadata

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarport/tarport"
)

const (
	selectRepository = `SELECT id FROM repositories WHERE name = $1`
	insertNamespace  = `INSERT INTO namespaces (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
	insertRepository = `INSERT INTO repositories (namespace_id, name, created_at, changed_at)
		SELECT id, $2, $3, $3 FROM namespaces WHERE name = $1 ON CONFLICT (name) DO NOTHING`
	touchRepository = `UPDATE repositories SET changed_at = $2 WHERE id = $1`

	selectRepositories = `SELECT COALESCE(string_agg(name, '","' ORDER BY name), ''), COUNT(*), COALESCE(MAX(name), '') FROM (
		SELECT r.name FROM repositories r
		WHERE r.name > $1 AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = r.id)
		ORDER BY r.name LIMIT $2) page`
)

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
	read := func(limit int) error {
		_, err := tx.row(ctx, query, append(append([]any{}, args...), limit), &p.Joined, &p.Count, &p.Last)
		return err
	}
	if err := read(n + 1); err != nil || p.Count <= n {
		return p, err
	}
	// Cut off the one too many: names have no quote in them.
	cut := len(p.Joined) - len(p.Last)
	if p.Count > 1 {
		cut -= len(`","`)
	}
	p.Joined, p.Count, p.More = p.Joined[:max(cut, 0)], p.Count-1, true
	p.Last = p.Joined
	for i := len(p.Joined) - 1; i >= 0; i-- {
		if p.Joined[i] == '"' {
			p.Last = p.Joined[i+1:]
			break
		}
	}
	return p, nil
}

// repository returns the id of a repository; found is false where there is none.
func (tx *Tx) repository(ctx context.Context, name string) (id int64, found bool, err error) {
	found, err = tx.row(ctx, selectRepository, []any{name}, &id)
	return id, found, err
}

// makeRepository returns the id of a repository, which it makes with its
// namespace where they are not there.
func (tx *Tx) makeRepository(ctx context.Context, name string) (int64, error) {
	id, found, err := tx.repository(ctx, name)
	if err != nil || found {
		return id, err
	}
	ns := tarport.Namespace(name)
	if _, err := tx.exec(ctx, insertNamespace, ns, tx.now); err != nil {
		return 0, err
	}
	if _, err := tx.exec(ctx, insertRepository, ns, name, tx.now); err != nil {
		return 0, err
	}
	id, found, err = tx.repository(ctx, name)
	if err == nil && !found {
		err = fmt.Errorf("repository %s is gone while it was made", name)
	}
	return id, err
}
