package metadata

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// States of a layer: whether its contents were looked into.
const (
	LayerPending = "pending"
	LayerReady   = "ready"
	LayerFailed  = "failed"
)

// LayerClaim is a pending layer that one worker has until it finishes it, or
// its time is over.
type LayerClaim struct {
	Digest   digest.Digest
	DiffID   digest.Digest // "" where nobody has seen the plain bytes
	Known    bool          // its facts are: it is its index that is to be made
	Attempts int           // with this one
	Reason   string        // why the last attempt failed
	Holder   string
}

// LayerFacts is what is known of a layer of an image.
type LayerFacts struct {
	Digest digest.Digest
	DiffID digest.Digest // as the registry found it; "" where it has not looked
	State  string
	Reason string // where it failed
	Facts  string // JSON; "" where they are not known
}

// ImageKey names an image.
type ImageKey struct {
	Repository int64
	Digest     digest.Digest
}

// ImageScan is what the layers of an image tell.
type ImageScan struct {
	Image  ImageKey
	State  string // ScanReady or ScanFailed
	Reason string // where it failed
	Base   Base
	// Names of packages, in lower case, with a space on either side of each; ""
	// where there are none.
	PackageNames string
	// Chain is the chain ID of all its layers, by the diffIDs that they have; ""
	// where those are not all known.
	Chain digest.Digest
}

const (
	pendingLayer = `SELECT 1 FROM layers WHERE state = 'pending' AND held_until <= $1 LIMIT 1`
	// Where two replicas choose the same row, one of them waits for the other
	// and then changes none.
	claimLayer = `UPDATE layers SET holder = $1, held_until = $2, attempts = attempts + 1, changed_at = $3
		WHERE state = 'pending' AND held_until <= $3 AND digest =
			(SELECT digest FROM layers WHERE state = 'pending' AND held_until <= $3 ORDER BY held_until, changed_at LIMIT 1)
		RETURNING digest, attempts, reason, facts <> '', COALESCE((SELECT MIN(d.diff_id) FROM diff_ids d WHERE d.digest = layers.digest), '')`
	holdLayer   = `UPDATE layers SET held_until = $3 WHERE digest = $1 AND holder = $2 AND state = 'pending'`
	finishLayer = `UPDATE layers SET state = 'ready', diff_id = $3, facts = $4, reason = '', holder = '', held_until = 0, changed_at = $5
		WHERE digest = $1 AND holder = $2 AND state = 'pending'`
	failLayer = `UPDATE layers SET state = 'failed', reason = $3, holder = '', held_until = 0, changed_at = $4
		WHERE digest = $1 AND holder = $2 AND state = 'pending'`
	retryLayer = `UPDATE layers SET reason = $3, holder = '', held_until = $4, changed_at = $5
		WHERE digest = $1 AND holder = $2 AND state = 'pending'`
	releaseLayer = `UPDATE layers SET attempts = attempts - 1, holder = '', held_until = 0, changed_at = $3
		WHERE digest = $1 AND holder = $2 AND state = 'pending'`
	releaseLayers = `UPDATE layers SET holder = '', held_until = 0 WHERE state = 'pending' AND holder <> ''`
	reviveLayers  = `UPDATE layers SET state = 'pending', attempts = 0, changed_at = $1 WHERE state = 'failed' AND attempts = $2`
	reviseLayers  = `UPDATE layers SET state = 'pending', attempts = 0, changed_at = $1 WHERE state = 'ready' AND substr(facts, 1, $2) <> $3`
	// Layers of images that nobody recorded: there should be none.
	missingLayers = `INSERT INTO layers (digest, changed_at)
		SELECT b.digest, $1 FROM blobs b WHERE b.digest IN (SELECT r.digest FROM images i
			JOIN manifest_references r ON r.repository_id = i.repository_id AND r.manifest = i.digest AND r.kind = 'layer' WHERE i.scan = 'pending')
		AND NOT EXISTS (SELECT 1 FROM layers l WHERE l.digest = b.digest) ORDER BY b.digest ON CONFLICT (digest) DO NOTHING`
	selectFacts = `SELECT facts FROM layers WHERE diff_id = $1 AND substr(facts, 1, $2) = $3 LIMIT 1`
	// Where a worker is at it, what it finds counts in the end.
	insertFacts = `INSERT INTO layers (digest, diff_id, facts, held_until, changed_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (digest) DO UPDATE SET diff_id = excluded.diff_id, facts = excluded.facts WHERE layers.facts = ''`

	noneIsPending = ` NOT EXISTS (SELECT 1 FROM manifest_references o JOIN layers l ON l.digest = o.digest AND l.state = 'pending' AND l.facts = ''
			WHERE o.repository_id = i.repository_id AND o.manifest = i.digest AND o.kind = 'layer')
		AND (i.repository_id, i.digest) > ($1, $2)`
	selectImagesOf = `SELECT DISTINCT i.repository_id, i.digest FROM manifest_references r
		JOIN images i ON i.repository_id = r.repository_id AND i.digest = r.manifest AND i.scan <> 'none'
		WHERE r.digest = $4 AND r.kind = 'layer' AND` + noneIsPending + ` ORDER BY i.repository_id, i.digest LIMIT $3`
	selectImagesToScan = `SELECT i.repository_id, i.digest FROM images i WHERE i.scan = 'pending' AND` + noneIsPending +
		` ORDER BY i.repository_id, i.digest LIMIT $3`
	selectImageLayers = `SELECT l.digest, COALESCE(l.diff_id, ''), l.state, l.reason, l.facts FROM manifest_references r JOIN layers l ON l.digest = r.digest
		WHERE r.repository_id = $1 AND r.manifest = $2 AND r.kind = 'layer' ORDER BY r.position`
	selectImageKey = `SELECT i.repository_id FROM repositories r JOIN images i ON i.repository_id = r.id AND i.digest = $2 WHERE r.name = $1`

	saveScan = `UPDATE images SET scan = $3, scan_reason = $4, base_id = $5, base_version = $6, base_name = $7, libc = $8, package_manager = $9,
		packages = $10, slim = $11 WHERE repository_id = $1 AND digest = $2 AND scan <> 'none'`
	savePackages = `INSERT INTO image_packages (repository_id, digest, names) VALUES ($1, $2, $3)
		ON CONFLICT (repository_id, digest) DO UPDATE SET names = excluded.names`
	dropPackages = `DELETE FROM image_packages WHERE repository_id = $1 AND digest = $2`
)

// ClaimLayer gives a pending layer to holder until then, of those whose time
// has come the one that waits longest. found is false where there is none.
func (db *DB) ClaimLayer(ctx context.Context, holder string, until time.Time) (c LayerClaim, found bool, err error) {
	const tries = 8 // against replicas that choose the same
	for range tries {
		var one int
		view := db.view()
		pending, err := view.row(ctx, pendingLayer, []any{view.now}, &one)
		if err != nil || !pending {
			return c, false, err
		}
		err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
			c = LayerClaim{Holder: holder}
			found, err = tx.row(ctx, claimLayer, []any{holder, until.UnixMicro(), tx.now}, &c.Digest, &c.Attempts, &c.Reason, &c.Known, &c.DiffID)
			return err
		})
		if err != nil {
			return c, false, fmt.Errorf("claim a layer: %w", err)
		}
		if found {
			return c, true, nil
		}
	}
	return c, false, nil
}

// HoldLayer prolongs a claim; false where it is the holder's no more.
func (db *DB) HoldLayer(ctx context.Context, c LayerClaim, until time.Time) (held bool, err error) {
	return db.claimed(ctx, holdLayer, c, until.UnixMicro())
}

// FinishLayer records what is in a layer: facts is JSON. False where the claim
// is the holder's no more. It is not durable, as nothing of claims is: what a
// power failure undoes is done again.
func (db *DB) FinishLayer(ctx context.Context, c LayerClaim, diffID digest.Digest, facts string) (held bool, err error) {
	return db.claimed(ctx, finishLayer, c, diffID.String(), facts, db.now().UnixMicro())
}

// FailLayer records that a layer cannot be looked into, and why, in words for
// users. False where the claim is the holder's no more.
func (db *DB) FailLayer(ctx context.Context, c LayerClaim, reason string) (held bool, err error) {
	return db.claimed(ctx, failLayer, c, reason, db.now().UnixMicro())
}

// RetryLayer gives a claim back: not before then it is tried again.
func (db *DB) RetryLayer(ctx context.Context, c LayerClaim, reason string, then time.Time) error {
	_, err := db.claimed(ctx, retryLayer, c, reason, then.UnixMicro(), db.now().UnixMicro())
	return err
}

// ReleaseLayer gives a claim back as if it had not been made.
func (db *DB) ReleaseLayer(ctx context.Context, c LayerClaim) error {
	_, err := db.claimed(ctx, releaseLayer, c, db.now().UnixMicro())
	return err
}

func (db *DB) claimed(ctx context.Context, query string, c LayerClaim, args ...any) (held bool, err error) {
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, query, append([]any{c.Digest.String(), c.Holder}, args...)...)
		held = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("record layer %s: %w", c.Digest, err)
	}
	return held, nil
}

// ResumeLayers is called before layers are claimed. It lets go of what this
// process held before it was ended, where no other can hold any; gives layers
// whose last attempt of the given number failed another chance; and has those
// looked into again whose facts do not begin with prefix: they are of another
// version.
func (db *DB) ResumeLayers(ctx context.Context, attempts int, prefix string) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		if db.Exclusive() {
			if _, err := tx.exec(ctx, releaseLayers); err != nil {
				return err
			}
		}
		for _, q := range []struct {
			query string
			args  []any
		}{{reviveLayers, []any{tx.now, attempts}}, {reviseLayers, []any{tx.now, len(prefix), prefix}}, {missingLayers, []any{tx.now}}} {
			if _, err := tx.exec(ctx, q.query, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("resume the layers that are pending: %w", err)
	}
	return nil
}

// FactsOfDiffID returns the facts of a layer of this diffID, where they begin
// with prefix.
func (db *DB) FactsOfDiffID(ctx context.Context, diffID digest.Digest, prefix string) (facts string, found bool, err error) {
	found, err = db.view().row(ctx, selectFacts, []any{diffID.String(), len(prefix), prefix}, &facts)
	if err != nil {
		return "", false, fmt.Errorf("look up the facts of layer %s: %w", diffID, err)
	}
	return facts, found, nil
}

// indexLater is when the index is made of a layer whose facts came with it, if
// nobody needs it before.
const indexLater = 5 * time.Minute

// putFacts records what is in layers that were looked into as they came.
func (tx *Tx) putFacts(ctx context.Context, layers []Layer) error {
	known := slices.DeleteFunc(slices.Clone(layers), func(l Layer) bool { return l.Facts == "" })
	// In one order, so that two transactions do not wait for each other's rows.
	slices.SortFunc(known, func(a, b Layer) int { return cmp.Compare(a.Digest, b.Digest) })
	later := tx.now + indexLater.Microseconds()
	for _, l := range known {
		if _, err := tx.exec(ctx, insertFacts, l.Digest.String(), l.DiffID.String(), l.Facts, later, tx.now); err != nil {
			return fmt.Errorf("record what is in layer %s: %w", l.Digest, err)
		}
	}
	return nil
}

// ImagesToScan lists at most n images after last, in the order of their keys,
// whose scan is pending and none of whose layers is.
func (db *DB) ImagesToScan(ctx context.Context, n int, last ImageKey) ([]ImageKey, error) {
	return db.imageKeys(ctx, selectImagesToScan, last.Repository, last.Digest.String(), n)
}

// ImagesOfLayer lists at most n images after last, in the order of their keys,
// that have a layer and none that is pending.
func (db *DB) ImagesOfLayer(ctx context.Context, layer digest.Digest, n int, last ImageKey) ([]ImageKey, error) {
	return db.imageKeys(ctx, selectImagesOf, last.Repository, last.Digest.String(), n, layer.String())
}

func (db *DB) imageKeys(ctx context.Context, query string, args ...any) ([]ImageKey, error) {
	list, err := all(ctx, db.view(), func(k *ImageKey, scan func(...any) error) error {
		return scan(&k.Repository, &k.Digest)
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list images to scan: %w", err)
	}
	return list, nil
}

// ImageKeyOf returns the key of an image of a repository.
func (db *DB) ImageKeyOf(ctx context.Context, repository string, dgst digest.Digest) (k ImageKey, found bool, err error) {
	k.Digest = dgst
	found, err = db.view().row(ctx, selectImageKey, []any{repository, dgst.String()}, &k.Repository)
	if err != nil {
		return k, false, fmt.Errorf("look up image %s: %w", dgst, err)
	}
	return k, found, nil
}

// EachImageLayer calls fn for each layer of an image, the lowest first.
func (db *DB) EachImageLayer(ctx context.Context, image ImageKey, fn func(LayerFacts) error) error {
	err := db.view().query(ctx, func(scan func(...any) error) error {
		var l LayerFacts
		if err := scan(&l.Digest, &l.DiffID, &l.State, &l.Reason, &l.Facts); err != nil {
			return err
		}
		return fn(l)
	}, selectImageLayers, image.Repository, image.Digest.String())
	if err != nil {
		return fmt.Errorf("read the layers of image %s: %w", image.Digest, err)
	}
	return nil
}

// SaveScans records what the layers of images tell. Images that are gone, or of
// which layers are not here, are passed over.
func (db *DB) SaveScans(ctx context.Context, scans []ImageScan) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		for i := range scans {
			if err := tx.saveScan(ctx, &scans[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record what images are built on: %w", err)
	}
	return nil
}

func (tx *Tx) saveScan(ctx context.Context, s *ImageScan) error {
	b, dgst := &s.Base, s.Image.Digest.String()
	n, err := tx.exec(ctx, saveScan, s.Image.Repository, dgst, s.State, s.Reason,
		b.ID, b.Version, b.Name, b.Libc, b.PackageManager, b.Packages, b.Slim)
	switch {
	case err != nil || n == 0:
		return err
	case s.Chain != "":
		if _, err := tx.exec(ctx, verifyChains, s.Image.Repository, dgst, s.Chain.String()); err != nil {
			return err
		}
	}
	if s.PackageNames == "" {
		_, err = tx.exec(ctx, dropPackages, s.Image.Repository, dgst)
	} else {
		_, err = tx.exec(ctx, savePackages, s.Image.Repository, dgst, s.PackageNames)
	}
	return err
}
