package metadata

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarport/tarport/internal/version"
)

const (
	selectUnreadTags = `SELECT repository_id, name FROM tags WHERE version_key = '' ORDER BY repository_id, name LIMIT $1`
	setTagName       = `UPDATE tags SET version = $3, version_key = $4, variants = $5, variant_words = $6 WHERE repository_id = $1 AND name = $2`
)

// nameColumns are the columns that hold what a tag's name says: version,
// version_key, variants, variant_words.
func nameColumns(tag string) []any {
	t := version.Parse(tag)
	words := ""
	if list := t.Words(); len(list) > 0 {
		words = " " + strings.Join(list, " ") + " "
	}
	return []any{t.Version, t.Key, strings.Join(t.Variants, " "), words}
}

// readTagNames reads the names of tags that an older version has made. It is
// quick, a second for 50,000, and a list in the wrong order would be wrong, so
// it is done before anything is served.
func (db *DB) readTagNames(ctx context.Context) error {
	const batch = 1000
	type tag struct {
		repository int64
		name       string
	}
	for {
		list, err := all(ctx, db.view(), func(t *tag, scan func(...any) error) error { return scan(&t.repository, &t.name) }, selectUnreadTags, batch)
		if err == nil && len(list) > 0 {
			err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
				for _, t := range list {
					if _, err := tx.exec(ctx, setTagName, append([]any{t.repository, t.name}, nameColumns(t.name)...)...); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("read the names of tags: %w", err)
		}
		if len(list) < batch {
			return nil
		}
	}
}
