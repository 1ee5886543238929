package metadata

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tarport/tarport"
)

// PullCount is how often a tag, or a manifest, was pulled since it was counted
// last.
type PullCount struct {
	Repository string
	Reference  tarport.Reference
	Pulls      int64     // all of them
	Robots     int64     // those that robots made
	Last       time.Time // the last of them
}

const (
	countTagPulls = `UPDATE tags SET pulls = pulls + $3, robot_pulls = robot_pulls + $4, pulled_at = CASE WHEN pulled_at > $5 THEN pulled_at ELSE $5 END
		WHERE repository_id = (SELECT id FROM repositories WHERE name = $1) AND name = $2`
	countManifestPulls = `UPDATE manifests SET pulls = pulls + $3, robot_pulls = robot_pulls + $4, pulled_at = CASE WHEN pulled_at > $5 THEN pulled_at ELSE $5 END
		WHERE repository_id = (SELECT id FROM repositories WHERE name = $1) AND digest = $2`
	selectTagPulls = `SELECT t.pulls, t.robot_pulls, t.pulled_at FROM tags t JOIN repositories r ON r.id = t.repository_id
		WHERE r.name = $1 AND t.name = $2`
	selectManifestPulls = `SELECT m.pulls, m.robot_pulls, m.pulled_at FROM manifests m JOIN repositories r ON r.id = m.repository_id
		WHERE r.name = $1 AND m.digest = $2`
)

// CountPulls adds what was counted. What is not there any more is passed over.
// A power loss may undo it.
func (db *DB) CountPulls(ctx context.Context, counts []PullCount) error {
	// In one order, so that two replicas do not wait for each other's rows.
	ordered := slices.Clone(counts)
	slices.SortFunc(ordered, func(a, b PullCount) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Reference.Tag, b.Reference.Tag),
			cmp.Compare(a.Reference.Digest, b.Reference.Digest))
	})
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		for _, c := range ordered {
			query, name := countTagPulls, c.Reference.Tag
			if c.Reference.Digest != "" {
				query, name = countManifestPulls, c.Reference.Digest.String()
			}
			if _, err := tx.exec(ctx, query, c.Repository, name, c.Pulls, c.Robots, c.Last.UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count pulls: %w", err)
	}
	return nil
}

// Pulls tells how often a tag or a manifest was pulled: zero where it is not
// there.
func (db *DB) Pulls(ctx context.Context, repository string, ref tarport.Reference) (PullCount, error) {
	c := PullCount{Repository: repository, Reference: ref}
	query, name := selectTagPulls, ref.Tag
	if ref.Digest != "" {
		query, name = selectManifestPulls, ref.Digest.String()
	}
	if _, err := db.view().row(ctx, query, []any{repository, name}, &c.Pulls, &c.Robots, stamp{&c.Last}); err != nil {
		return c, fmt.Errorf("look up pulls: %w", err)
	}
	return c, nil
}
