package metadata

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

const (
	selectTags = `SELECT COALESCE(string_agg(name, '","' ORDER BY name), ''), COUNT(*), COALESCE(MAX(name), '') FROM (
		SELECT t.name FROM tags t WHERE t.repository_id = $1 AND t.name > $2 ORDER BY t.name LIMIT $3) page`
	selectTag    = `SELECT digest FROM tags WHERE repository_id = $1 AND name = $2`
	selectTagsOf = `SELECT name FROM tags WHERE repository_id = $1 AND digest = $2 ORDER BY name`
	upsertTag    = `INSERT INTO tags (repository_id, name, digest, created_at, updated_at, pushed_by, pushed_via, size,
		version, version_key, variants, variant_words) SELECT $1, $2, m.digest, $4, $4, $5, $6, m.size, $7, $8, $9, $10 FROM manifests m WHERE m.repository_id = $1 AND m.digest = $3
		ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, updated_at = excluded.updated_at,
		pushed_by = excluded.pushed_by, pushed_via = excluded.pushed_via, size = excluded.size`
	deleteTag     = `DELETE FROM tags WHERE repository_id = $1 AND name = $2`
	insertHistory = `INSERT INTO tag_history (repository_id, name, digest, previous, changed_at, changed_by, changed_via)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
)

// Tags lists at most n tags in byte order, after last. NAME_UNKNOWN where
// there is no such repository.
func (db *DB) Tags(ctx context.Context, repository string, n int, last string) (Page, error) {
	tx := db.view()
	repo, found, err := tx.repository(ctx, repository)
	if err != nil {
		return Page{}, fmt.Errorf("list tags: %w", err)
	}
	if !found {
		return Page{}, tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", repository)
	}
	p, err := tx.page(ctx, n, selectTags, repo, last)
	if err != nil {
		return p, fmt.Errorf("list tags: %w", err)
	}
	return p, nil
}

// TagsOf lists the tags that point to a manifest.
func (db *DB) TagsOf(ctx context.Context, repository string, dgst digest.Digest) ([]string, error) {
	tx := db.view()
	repo, _, err := tx.repository(ctx, repository)
	if err != nil {
		return nil, err
	}
	return all(ctx, tx, scanOne[string], selectTagsOf, repo, dgst.String())
}

// Tag lets a tag point to a manifest of the repository.
func (db *DB) Tag(ctx context.Context, repository, tag string, dgst digest.Digest, by, via string) error {
	return db.changeRepository(ctx, repository, func(ctx context.Context, tx *Tx, repo int64) error {
		var d, mediaType string
		var payload []byte
		found, err := tx.row(ctx, selectManifest, []any{repository, dgst.String()}, &d, &mediaType, &payload)
		if err != nil {
			return err
		}
		if !found {
			return tarport.Errorf(tarport.ManifestUnknown, "the repository has no manifest %s", dgst)
		}
		moved, err := tx.tag(ctx, repo, tag, dgst, by, via)
		if err != nil || !moved {
			return err
		}
		return tx.tagEvent(ctx, EventTagSet, repository, tag, by, map[string]any{"digest": dgst, "via": via})
	})
}

// DeleteTag takes a tag away; its manifest stays. MANIFEST_UNKNOWN where there
// is no such tag.
func (db *DB) DeleteTag(ctx context.Context, repository, tag, by string) error {
	return db.changeRepository(ctx, repository, func(ctx context.Context, tx *Tx, repo int64) error {
		if err := tx.untag(ctx, repo, tag, by); err != nil {
			return err
		}
		return tx.tagEvent(ctx, EventTagDelete, repository, tag, by, nil)
	})
}

func (tx *Tx) tagEvent(ctx context.Context, action, repository, tag, by string, detail map[string]any) error {
	e := Event{Action: action, Namespace: tarport.Namespace(repository), Repository: repository, Target: tag, Detail: detail}
	if tarport.PrincipalFrom(ctx).Name == "" {
		e.Actor = by
	}
	return tx.event(ctx, e)
}

// tag is the one place where a tag is set. The caller has touched the
// repository's row, so nobody else changes its tags meanwhile. moved is false
// where it pointed there already: that is possible for an immutable tag too.
func (tx *Tx) tag(ctx context.Context, repo int64, tag string, dgst digest.Digest, by, via string) (moved bool, err error) {
	var previous any
	var old string
	found, err := tx.row(ctx, selectTag, []any{repo, tag}, &old)
	if err != nil {
		return false, err
	}
	moved = old != dgst.String()
	if found {
		previous = old
		if moved {
			if err := tx.checkMutable(ctx, repo, tag); err != nil {
				return false, err
			}
		}
	}
	n, err := tx.exec(ctx, upsertTag, append([]any{repo, tag, dgst.String(), tx.now, by, via}, nameColumns(tag)...)...)
	if err == nil && n == 0 {
		err = tarport.Errorf(tarport.ManifestUnknown, "the repository has no manifest %s", dgst)
	}
	if err != nil || !moved {
		return false, err
	}
	_, err = tx.exec(ctx, insertHistory, repo, tag, dgst.String(), previous, tx.now, by, via)
	return true, err
}

// untag is the one place where a tag is taken away.
func (tx *Tx) untag(ctx context.Context, repo int64, tag, by string) error {
	var old string
	found, err := tx.row(ctx, selectTag, []any{repo, tag}, &old)
	if err != nil {
		return err
	}
	if !found {
		return tarport.Errorf(tarport.ManifestUnknown, "the repository has no tag %s", tag)
	}
	if err := tx.checkMutable(ctx, repo, tag); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, deleteTag, repo, tag); err != nil {
		return err
	}
	_, err = tx.exec(ctx, insertHistory, repo, tag, nil, old, tx.now, by, "delete")
	return err
}
