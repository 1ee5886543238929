package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// TagChange is a change of what a tag points to.
type TagChange struct {
	ID       int64         // the later, the higher
	Digest   digest.Digest // "" where the tag was deleted
	Previous digest.Digest // "" where it was new
	At       time.Time
	By, Via  string // via push, load, import, commit, tag or delete
	// Here tells whether the repository still has the manifest that the tag
	// pointed to after the change, or before it where that deleted the tag: the
	// tag can be set to it again.
	Here bool
}

const selectTagHistory = `SELECT h.id, COALESCE(h.digest, ''), COALESCE(h.previous, ''), h.changed_at, h.changed_by, h.changed_via, m.digest IS NOT NULL
	FROM repositories r JOIN tag_history h ON h.repository_id = r.id AND h.name = $2
	LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = COALESCE(h.digest, h.previous)
	WHERE r.name = $1 AND (h.id < $3 OR $3 = 0) ORDER BY h.id DESC LIMIT $4`

// TagHistory lists at most n changes of a tag, the newest first, before the one
// with the id before; 0 for the newest. It is there for a deleted tag too.
func (db *DB) TagHistory(ctx context.Context, repository, tag string, n int, before int64) ([]TagChange, error) {
	list, err := all(ctx, db.view(), func(c *TagChange, scan func(...any) error) error {
		return scan(&c.ID, &c.Digest, &c.Previous, stamp{&c.At}, &c.By, &c.Via, &c.Here)
	}, selectTagHistory, repository, tag, before, n)
	if err != nil {
		return nil, fmt.Errorf("list the history of the tag %s: %w", tarport.Reference{Tag: tag}, err)
	}
	return list, nil
}
