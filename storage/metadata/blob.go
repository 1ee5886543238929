package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// Blob is a blob whose bytes are in place.
type Blob struct {
	Digest digest.Digest
	Size   int64
	// LeasedUntil is when the collector may take the blob, if nothing
	// references it then.
	LeasedUntil time.Time
}

// Layer is a stored form of a layer.
type Layer struct {
	DiffID      digest.Digest
	Digest      digest.Digest
	Size        int64
	Compression string // none, gzip, zstd

	// Facts are what is in it, as JSON, where PutManifests is told of a layer
	// that was looked into; "" elsewhere.
	Facts string
	// Plain is given to PutManifests and RememberLayer, and by SimilarLayers.
	Plain Plain
}

const (
	selectLinkedBlob = `SELECT b.size, b.leased_until FROM repositories r
		JOIN blob_links l ON l.repository_id = r.id AND l.digest = $2
		JOIN blobs b ON b.digest = l.digest AND b.state = 'live' WHERE r.name = $1`
	selectBlob  = `SELECT size, leased_until FROM blobs WHERE digest = $1 AND state = 'live'`
	selectBlobs = `SELECT digest FROM blobs WHERE digest > $1 AND state = 'live' ORDER BY digest LIMIT $2`
	upsertBlob  = `INSERT INTO blobs (digest, size, leased_until, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (digest) DO UPDATE SET leased_until = excluded.leased_until WHERE blobs.state = 'live' AND blobs.size = excluded.size`
	renewLease = `UPDATE blobs SET leased_until = $2 WHERE digest = $1 AND state = 'live' AND leased_until < $2`
	touchBlob  = `UPDATE blobs SET leased_until = $2 WHERE digest = $1 AND state = 'live'`
	// Gives a row where there is a counted link now and was none before.
	insertLink = `INSERT INTO blob_links (repository_id, digest, linked_at, namespace_id)
		VALUES ($1, $2, $3, COALESCE((SELECT namespace_id FROM repositories WHERE id = $1), 0))
		ON CONFLICT (repository_id, digest) DO UPDATE SET counted = TRUE WHERE NOT blob_links.counted RETURNING namespace_id`
	deleteLink = `DELETE FROM blob_links WHERE repository_id = $1 AND digest = $2
		RETURNING namespace_id, counted, digest, (SELECT size FROM blobs b WHERE b.digest = blob_links.digest)`
	unlinkRepository = `DELETE FROM blob_links WHERE repository_id = $1
		RETURNING namespace_id, counted, digest, (SELECT size FROM blobs b WHERE b.digest = blob_links.digest)`
	selectSources = `SELECT r.name FROM blob_links l JOIN blobs b ON b.digest = l.digest AND b.state = 'live'
		JOIN repositories r ON r.id = l.repository_id JOIN namespaces n ON n.id = r.namespace_id
		WHERE l.digest = $1 ORDER BY CASE WHEN n.name = $2 THEN 0 ELSE 1 END, r.name LIMIT $3`
	referencedIn = `SELECT r.manifest FROM manifest_references r WHERE r.repository_id = $1 AND r.digest = $2 LIMIT 1`

	insertDiffID   = `INSERT INTO diff_ids (diff_id, digest, compression) VALUES ($1, $2, $3) ON CONFLICT (diff_id, digest) DO NOTHING`
	rememberDiffID = `INSERT INTO diff_ids (diff_id, digest, compression)
		SELECT $1, b.digest, $3 FROM blobs b WHERE b.digest = $2 AND b.state = 'live' ON CONFLICT (diff_id, digest) DO NOTHING`
	knowsDiffID   = `SELECT 1 FROM diff_ids WHERE diff_id = $1 LIMIT 1`
	selectDiffID  = `SELECT diff_id, compression FROM diff_ids WHERE digest = $1 LIMIT 1`
	selectDiffIDs = `SELECT d.digest, b.size, d.compression FROM diff_ids d
		JOIN blobs b ON b.digest = d.digest AND b.state = 'live' WHERE d.diff_id = $1 ORDER BY d.digest`

	markGoing = `UPDATE blobs SET state = 'going' WHERE digest = $1 AND (state = 'going' OR leased_until <= $2
		AND NOT EXISTS (SELECT 1 FROM manifest_references r WHERE r.digest = blobs.digest))`
	markUnused = `UPDATE blobs SET state = 'going' WHERE digest = $1 AND state = 'live' AND leased_until = $2
		AND NOT EXISTS (SELECT 1 FROM manifest_references r WHERE r.digest = blobs.digest)
		AND NOT EXISTS (SELECT 1 FROM blob_links l WHERE l.digest = blobs.digest)`
	unlinkEverywhere = `DELETE FROM blob_links WHERE digest = $1
		RETURNING namespace_id, counted, digest, (SELECT size FROM blobs b WHERE b.digest = blob_links.digest)`
	deleteBlob = `DELETE FROM blobs WHERE digest = $1 AND state = 'going'`
)

// ErrGoing is returned where a blob's row is marked by the collector: to the
// caller the blob is absent, and its bytes cannot be put into place yet.
var ErrGoing = errors.New("the collector is taking this blob away")

// LinkedBlob returns a blob that the repository links; else the error is
// BLOB_UNKNOWN.
func (db *DB) LinkedBlob(ctx context.Context, repository string, dgst digest.Digest) (Blob, error) {
	return db.blob(ctx, selectLinkedBlob, dgst, repository, dgst.String())
}

// Blob returns a blob whoever links it; else the error is BLOB_UNKNOWN. It is
// not for answers to clients.
func (db *DB) Blob(ctx context.Context, dgst digest.Digest) (Blob, error) {
	return db.blob(ctx, selectBlob, dgst, dgst.String())
}

func (db *DB) blob(ctx context.Context, query string, dgst digest.Digest, args ...any) (Blob, error) {
	var size, lease int64
	found, err := db.view().row(ctx, query, args, &size, &lease)
	switch {
	case err != nil:
		return Blob{}, fmt.Errorf("look up blob %s: %w", dgst, err)
	case !found:
		return Blob{}, tarport.Errorf(tarport.BlobUnknown, "the blob %s is not in this repository", dgst)
	}
	return Blob{Digest: dgst, Size: size, LeasedUntil: time.UnixMicro(lease)}, nil
}

// Blobs lists at most n digests of blobs after last, in byte order.
func (db *DB) Blobs(ctx context.Context, n int, last digest.Digest) ([]digest.Digest, error) {
	return all(ctx, db.view(), scanOne[digest.Digest], selectBlobs, last.String(), n)
}

// RenewLease moves a blob's lease on to until; a lease that is longer stays.
func (db *DB) RenewLease(ctx context.Context, dgst digest.Digest, until time.Time) error {
	return db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, renewLease, dgst.String(), until.UnixMicro())
		return err
	})
}

// BlobPut is a blob whose bytes are durably in place, under WithBlobLock.
type BlobPut struct {
	Digest     digest.Digest
	Size       int64
	Repository string    // where it gets linked; "" for a blob of a batch, which its manifest's transaction links
	Upload     string    // the session that is finished by this, held by Holder; "" where there is none
	Holder     string    //
	Lease      time.Time //
}

// PutBlob records a blob, links it, and ends its upload session. ErrGoing
// where the collector was first; BLOB_UPLOAD_UNKNOWN where the session is not
// the caller's any more.
func (db *DB) PutBlob(ctx context.Context, p BlobPut) error {
	d := durable
	if p.Repository == "" {
		d = relaxed // nobody is told before the batch's own commit, which comes later in the same log
	}
	err := db.update(ctx, d, func(ctx context.Context, tx *Tx) error {
		if p.Upload != "" {
			if err := tx.dropUpload(ctx, p.Upload, p.Holder); err != nil {
				return err
			}
		}
		n, err := tx.exec(ctx, upsertBlob, p.Digest.String(), p.Size, p.Lease.UnixMicro(), tx.now)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrGoing
		}
		if p.Repository == "" {
			return nil
		}
		id, err := tx.makeRepository(ctx, p.Repository)
		if err != nil {
			return err
		}
		return tx.linkBlob(ctx, id, p.Digest, p.Size)
	})
	if err != nil {
		return fmt.Errorf("record blob %s: %w", p.Digest, err)
	}
	db.holds.release(p.Upload, p.Holder)
	return nil
}

// MountBlob links a blob of the repository from in the repository to, with a
// new lease. BLOB_UNKNOWN where from does not link it.
func (db *DB) MountBlob(ctx context.Context, from, to string, dgst digest.Digest, lease time.Time) (Blob, error) {
	b := Blob{Digest: dgst, LeasedUntil: lease}
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		var old int64
		found, err := tx.row(ctx, selectLinkedBlob, []any{from, dgst.String()}, &b.Size, &old)
		if err == nil && found {
			// The collector may have marked it since the reading, or have taken it
			// away: the update tells.
			var n int64
			n, err = tx.exec(ctx, touchBlob, dgst.String(), lease.UnixMicro())
			found = n > 0
		}
		if err != nil {
			return err
		}
		if !found {
			return tarport.Errorf(tarport.BlobUnknown, "the blob %s is not in this repository", dgst)
		}
		id, err := tx.makeRepository(ctx, to)
		if err != nil {
			return err
		}
		if err := tx.linkBlob(ctx, id, dgst, b.Size); err != nil {
			return err
		}
		return tx.event(ctx, Event{
			Action: EventBlobMount, Namespace: tarport.Namespace(to), Repository: to, Target: dgst.String(),
			Detail: map[string]any{"from": from},
		})
	})
	if err != nil {
		return Blob{}, fmt.Errorf("mount blob %s: %w", dgst, err)
	}
	return b, nil
}

// BlobSources lists at most n repositories that link a blob, those of the
// namespace first.
func (db *DB) BlobSources(ctx context.Context, dgst digest.Digest, namespace string, n int) ([]string, error) {
	return all(ctx, db.view(), scanOne[string], selectSources, dgst.String(), namespace, n)
}

// UnlinkBlob takes a blob out of a repository. CONFLICT where a manifest there
// needs it, BLOB_UNKNOWN where it is not linked.
func (db *DB) UnlinkBlob(ctx context.Context, repository string, dgst digest.Digest) error {
	return db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		unknown := tarport.Errorf(tarport.BlobUnknown, "the blob %s is not in this repository", dgst)
		id, found, err := tx.repository(ctx, repository)
		if err != nil {
			return err
		}
		if !found {
			return unknown
		}
		if _, err := tx.exec(ctx, touchRepository, id, tx.now); err != nil {
			return err
		}
		var manifest string
		used, err := tx.row(ctx, referencedIn, []any{id, dgst.String()}, &manifest)
		if err != nil {
			return err
		}
		if used {
			return tarport.Errorf(tarport.Conflict, "the blob %s is needed by the manifest %s: delete that first", dgst, manifest)
		}
		n, err := tx.unlink(ctx, deleteLink, id, dgst.String())
		if err == nil && n == 0 {
			return unknown
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventBlobDelete, Namespace: tarport.Namespace(repository), Repository: repository, Target: dgst.String()})
	})
}

// linkBlob is the one place where a repository gets a blob.
func (tx *Tx) linkBlob(ctx context.Context, repo int64, dgst digest.Digest, size int64) error {
	var ns int64
	made, err := tx.row(ctx, insertLink, []any{repo, dgst.String(), tx.now}, &ns)
	if made {
		tx.noteLink(ns, dgst.String(), size, 1)
	}
	return err
}

// unlink runs a query that takes links away, and returns how many.
func (tx *Tx) unlink(ctx context.Context, query string, args ...any) (n int, err error) {
	err = tx.query(ctx, func(scan func(...any) error) error {
		var ns, size int64
		var dgst string
		var counted bool
		if err := scan(&ns, &counted, &dgst, &size); err != nil {
			return err
		}
		n++
		if counted {
			tx.noteLink(ns, dgst, size, -1)
		}
		return nil
	}, query, args...)
	return n, err
}

// KnownLayers returns what is stored of the layer with this diffID. Only what
// the registry itself has decompressed and hashed is known.
func (db *DB) KnownLayers(ctx context.Context, diffID digest.Digest) ([]Layer, error) {
	list, err := all(ctx, db.view(), func(l *Layer, scan func(...any) error) error {
		l.DiffID = diffID
		return scan(&l.Digest, &l.Size, &l.Compression)
	}, selectDiffIDs, diffID.String())
	if err != nil {
		return nil, fmt.Errorf("look up layer %s: %w", diffID, err)
	}
	return list, nil
}

// RememberLayer records that a stored blob, which the caller has decompressed
// and hashed, is the layer of that diffID; l.Size is not looked at. A blob that
// is gone is passed over.
func (db *DB) RememberLayer(ctx context.Context, l Layer) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.exec(ctx, rememberDiffID, l.DiffID.String(), l.Digest.String(), l.Compression); err != nil {
			return err
		}
		return tx.putPrefixes(ctx, &l)
	})
	if err != nil {
		return fmt.Errorf("remember layer %s: %w", l.DiffID, err)
	}
	return nil
}

// KnowsLayer tells whether anything is stored of the layer with this diffID.
func (db *DB) KnowsLayer(ctx context.Context, diffID digest.Digest) (bool, error) {
	var one int
	known, err := db.view().row(ctx, knowsDiffID, []any{diffID.String()}, &one)
	if err != nil {
		return false, fmt.Errorf("look up layer %s: %w", diffID, err)
	}
	return known, nil
}

// KnownDiffID returns the layer that a blob is, its size left out; false where
// the registry has not decompressed and hashed it.
func (db *DB) KnownDiffID(ctx context.Context, dgst digest.Digest) (l Layer, known bool, err error) {
	l.Digest = dgst
	if known, err = db.view().row(ctx, selectDiffID, []any{dgst.String()}, &l.DiffID, &l.Compression); err != nil {
		err = fmt.Errorf("look up the diffID of %s: %w", dgst, err)
	}
	return l, known, err
}

// MarkGoing marks a blob whose lease ended before now and that nothing
// references, and takes its links away; false where it may not go. What is
// marked stays so until DropGoing, also over a restart. Call it, the removal
// of the bytes, and DropGoing under one WithBlobLock.
func (db *DB) MarkGoing(ctx context.Context, dgst digest.Digest, now time.Time) (going bool, err error) {
	err = db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, markGoing, dgst.String(), now.UnixMicro())
		if going = n > 0; err != nil || !going {
			return err
		}
		_, err = tx.unlink(ctx, unlinkEverywhere, dgst.String())
		return err
	})
	return going, err
}

// MarkUnused marks a blob that PutBlob recorded with this lease and that nobody
// has seen since: no link, no reference, no other lease. See MarkGoing.
func (db *DB) MarkUnused(ctx context.Context, dgst digest.Digest, lease time.Time) (going bool, err error) {
	err = db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, markUnused, dgst.String(), lease.UnixMicro())
		going = n > 0
		return err
	})
	return going, err
}

// DropGoing forgets a blob that MarkGoing marked and whose bytes are gone.
func (db *DB) DropGoing(ctx context.Context, dgst digest.Digest) error {
	return db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, deleteBlob, dgst.String())
		return err
	})
}
