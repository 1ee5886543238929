package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// ImageQuery says which images of a namespace are meant: all that have a tag, or
// those of a repository, of one tag of it, or of an ID.
type ImageQuery struct {
	Namespace  string
	Repository string // with its namespace; "" for all
	Tag        string // of the repository; "" for all
	ID         string // in place of them: sha256: and the first digits of a config's digest
}

// TaggedImage is an image that a tag leads to.
type TaggedImage struct {
	Repository, Tag string
	TaggedAt        time.Time
	Target          digest.Digest // what the tag points to: the image, or an index that names it

	Digest           digest.Digest // of the image's manifest
	ID               digest.Digest // of its config
	OS, Architecture string
	Variant          string
	Created          time.Time // zero where the config does not say
	Size             int64     // of its layers, as stored
	Config           string    // JSON (Image.Config); "" where the config was not here to be read
}

const (
	imageColumns = `SELECT x.repository, x.tag, x.tagged_at, x.target, i.digest, c.digest, i.os, i.architecture, i.variant,
		i.created_at, i.size, COALESCE(i.config, '') FROM reached x
		JOIN images i ON i.repository_id = x.repository_id AND i.digest = x.image
		JOIN manifest_references c ON c.repository_id = i.repository_id AND c.manifest = i.digest AND c.kind = 'config'
		ORDER BY x.repository, x.tag, x.position`

	// What the tags point to, and the entries of an index that are somebody's
	// platform; which of both are images, is for the join to tell.
	reachedBegin = `WITH chosen AS (SELECT r.id AS repository_id, r.name AS repository, t.name AS tag, t.updated_at AS tagged_at, t.digest AS target
		FROM repositories r JOIN tags t ON t.repository_id = r.id WHERE `
	reachedEnd = `), reached AS (SELECT o.*, o.target AS image, -1 AS position FROM chosen o
		UNION ALL SELECT o.*, e.digest, e.position FROM chosen o
			JOIN manifest_references e ON e.repository_id = o.repository_id AND e.manifest = o.target AND e.kind = 'manifest' AND e.platform <> '-') ` + imageColumns

	selectNamespaceImages  = reachedBegin + `r.namespace_id = (SELECT id FROM namespaces WHERE name = $1)` + reachedEnd
	selectRepositoryImages = reachedBegin + `r.name = $1` + reachedEnd
	selectTagImages        = reachedBegin + `r.name = $1 AND t.name = $2` + reachedEnd

	// The same from the other end: configs, their images, the indexes that name
	// those, and the tags of either.
	selectImagesByID = `WITH chosen AS (SELECT r.id AS repository_id, r.name AS repository, c.manifest AS image
			FROM manifest_references c JOIN repositories r ON r.id = c.repository_id
			WHERE c.kind = 'config' AND c.digest >= $2 AND c.digest < $3 AND r.namespace_id = (SELECT id FROM namespaces WHERE name = $1)),
		pointed AS (SELECT o.*, o.image AS target, -1 AS position FROM chosen o
			UNION ALL SELECT o.*, e.manifest, e.position FROM chosen o
				JOIN manifest_references e ON e.repository_id = o.repository_id AND e.digest = o.image AND e.kind = 'manifest' AND e.platform <> '-'),
		reached AS (SELECT p.*, t.name AS tag, t.updated_at AS tagged_at FROM pointed p
			JOIN tags t ON t.repository_id = p.repository_id AND t.digest = p.target) ` + imageColumns
)

// TaggedImages gives each image that a tag leads to, in the order of repository
// and tag, and of an index as it names them. An error of each ends it.
// NOT_FOUND where there is no such namespace.
func (db *DB) TaggedImages(ctx context.Context, q ImageQuery, each func(TaggedImage) error) error {
	query, args := selectNamespaceImages, []any{q.Namespace}
	switch {
	case q.ID != "":
		query, args = selectImagesByID, []any{q.Namespace, q.ID, q.ID + "g"} // behind all hex digits
	case q.Tag != "":
		query, args = selectTagImages, []any{q.Repository, q.Tag}
	case q.Repository != "":
		query, args = selectRepositoryImages, []any{q.Repository}
	}
	tx, none := db.view(), true
	err := tx.query(ctx, func(scan func(...any) error) error {
		none = false
		var im TaggedImage
		var created *int64 // 1970 is what reproducible builds say
		if err := scan(&im.Repository, &im.Tag, stamp{&im.TaggedAt}, &im.Target, &im.Digest, &im.ID, &im.OS, &im.Architecture, &im.Variant,
			&created, &im.Size, &im.Config); err != nil {
			return err
		}
		if created != nil {
			im.Created = time.UnixMicro(*created).UTC()
		}
		return each(im)
	}, query, args...)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	if none {
		var id int64
		if found, err := tx.row(ctx, selectNamespaceID, []any{q.Namespace}, &id); err != nil || !found {
			if err == nil {
				err = ErrNoNamespace(q.Namespace)
			}
			return fmt.Errorf("list images: %w", err)
		}
	}
	return nil
}
