package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// ManifestDetail is what is recorded of a manifest beside its payload.
type ManifestDetail struct {
	Kind         string // image, index or artifact; "" where it was not looked at yet
	ArtifactType string
	Subject      digest.Digest // "" where it has none
	Size         int64         // of its layers; of an index, of its images that are here
	UniqueSize   int64         // of the blobs that no other manifest of the namespace needs

	PushedAt time.Time
	PushedBy string
	Via      string

	Pulls, RobotPulls int64
	PulledAt          time.Time // zero: never
}

// RelatedImage is an image that another one stands on, or that stands on it.
type RelatedImage struct {
	Repository string
	Digest     digest.Digest
	Tag        string // one of its tags, the first of the newest; "" where it has none
	Depth      int    // how many layers the two share
}

const (
	selectDetail = `SELECT COALESCE(m.kind, ''), m.artifact_type, COALESCE(m.subject, ''), m.size, m.created_at, m.pushed_by, m.pushed_via,
		m.pulls, m.robot_pulls, m.pulled_at
		FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.name = $1`
	selectUniqueSize = `WITH RECURSIVE mine (repository_id, namespace_id, digest) AS (
			SELECT m.repository_id, r.namespace_id, m.digest FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.name = $1
			UNION SELECT c.repository_id, mine.namespace_id, c.digest FROM mine
				JOIN manifest_references x ON x.repository_id = mine.repository_id AND x.manifest = mine.digest AND x.kind = 'manifest'
				JOIN manifests c ON c.repository_id = x.repository_id AND c.digest = x.digest)
		SELECT COALESCE(CAST(SUM(b.size) AS BIGINT), 0) FROM (
			SELECT DISTINCT x.digest, mine.namespace_id FROM mine
			JOIN manifest_references x ON x.repository_id = mine.repository_id AND x.manifest = mine.digest AND x.kind IN ('config', 'layer')) used
		JOIN blobs b ON b.digest = used.digest
		WHERE NOT EXISTS (SELECT 1 FROM manifest_references o JOIN repositories p ON p.id = o.repository_id AND p.namespace_id = used.namespace_id
			WHERE o.digest = used.digest AND NOT EXISTS (SELECT 1 FROM mine WHERE mine.repository_id = o.repository_id AND mine.digest = o.manifest))`

	// What a viewer may read of the images that c selects, where their layers are
	// what their configs say. The tag is one that points to the image itself.
	relatedColumns = `SELECT r.name, c.digest, c.depth,
		COALESCE((SELECT t.name FROM tags t WHERE t.repository_id = c.repository_id AND t.digest = c.digest ORDER BY t.updated_at DESC, t.name LIMIT 1), '')
		FROM image_chains c JOIN repositories r ON r.id = c.repository_id `
	// Those whose top is one of the chains below this image's: the deepest first,
	// with a tag before those without, and of its own repository last.
	selectBases = relatedColumns + `WHERE c.top AND c.verified AND c.chain_id IN (
			SELECT own.chain_id FROM repositories ro JOIN image_chains own ON own.repository_id = ro.id AND own.digest = $2 AND NOT own.top AND own.verified WHERE ro.name = $1)` +
		mayRead + ` ORDER BY c.depth DESC, CASE WHEN EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = c.repository_id AND t.digest = c.digest) THEN 0 ELSE 1 END,
		CASE WHEN r.name = $1 THEN 1 ELSE 0 END, r.name, c.digest LIMIT $6`
	selectBuiltOn = relatedColumns + `WHERE NOT c.top AND c.verified AND c.chain_id = (
			SELECT own.chain_id FROM repositories ro JOIN image_chains own ON own.repository_id = ro.id AND own.digest = $2 AND own.top AND own.verified WHERE ro.name = $1)` +
		mayRead + ` ORDER BY r.name, c.digest LIMIT $6`

	insertChain = `INSERT INTO image_chains (repository_id, digest, depth, chain_id, top) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (repository_id, digest, depth) DO NOTHING`
	// Each chain ID is over all below it, so the top's is enough.
	verifyChains = `UPDATE image_chains SET verified = TRUE WHERE repository_id = $1 AND digest = $2 AND EXISTS (
			SELECT 1 FROM image_chains t WHERE t.repository_id = $1 AND t.digest = $2 AND t.top AND t.chain_id = $3)`
	settleAgain = `UPDATE images SET scan = 'pending' WHERE repository_id = $1 AND digest = $2 AND scan = 'ready'`
)

// ManifestDetail returns what is recorded of a manifest; MANIFEST_UNKNOWN where
// the repository has none of the digest.
func (db *DB) ManifestDetail(ctx context.Context, repository string, dgst digest.Digest) (ManifestDetail, error) {
	var d ManifestDetail
	tx := db.view()
	found, err := tx.row(ctx, selectDetail, []any{repository, dgst.String()}, &d.Kind, &d.ArtifactType, &d.Subject, &d.Size,
		stamp{&d.PushedAt}, &d.PushedBy, &d.Via, &d.Pulls, &d.RobotPulls, stamp{&d.PulledAt})
	if err == nil && !found {
		return d, tarport.Errorf(tarport.ManifestUnknown, "the repository has no manifest %s", dgst)
	}
	if err == nil {
		_, err = tx.row(ctx, selectUniqueSize, []any{repository, dgst.String()}, &d.UniqueSize)
	}
	if err != nil {
		return d, fmt.Errorf("look up manifest %s: %w", dgst, err)
	}
	return d, nil
}

// BaseImages returns at most n images that the viewer may read, all of whose
// layers are the lower ones of an image, and not all of them: the one with most
// layers first. An image whose layers were not looked into, or are others than
// its config says, has none and is none.
func (db *DB) BaseImages(ctx context.Context, v Viewer, repository string, dgst digest.Digest, n int) ([]RelatedImage, error) {
	return db.related(ctx, selectBases, v, repository, dgst, n)
}

// ImagesOn returns at most n images that the viewer may read whose lower layers
// are all those of an image; the same images count as for BaseImages.
func (db *DB) ImagesOn(ctx context.Context, v Viewer, repository string, dgst digest.Digest, n int) ([]RelatedImage, error) {
	return db.related(ctx, selectBuiltOn, v, repository, dgst, n)
}

func (db *DB) related(ctx context.Context, query string, v Viewer, repository string, dgst digest.Digest, n int) ([]RelatedImage, error) {
	list, err := all(ctx, db.view(), func(i *RelatedImage, scan func(...any) error) error {
		return scan(&i.Repository, &i.Digest, &i.Depth, &i.Tag)
	}, query, repository, dgst.String(), v.UserID, v.All, v.Namespace, n)
	if err != nil {
		return nil, fmt.Errorf("look up what %s is related to: %w", dgst, err)
	}
	return list, nil
}

// putChains records the chain IDs that the config of an image makes. They count
// when the image is settled, which is then done once more where it was.
func (tx *Tx) putChains(ctx context.Context, repo int64, dgst digest.Digest, chains []digest.Digest) error {
	var isNew int64
	for i, c := range chains {
		n, err := tx.exec(ctx, insertChain, repo, dgst.String(), i+1, c.String(), i == len(chains)-1)
		if err != nil {
			return fmt.Errorf("record what the image stands on: %w", err)
		}
		isNew += n
	}
	if isNew == 0 {
		return nil
	}
	if _, err := tx.exec(ctx, settleAgain, repo, dgst.String()); err != nil {
		return fmt.Errorf("settle the image again: %w", err)
	}
	return nil
}
