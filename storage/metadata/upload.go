package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// Upload is an upload session.
type Upload struct {
	ID         string
	Repository string
	Principal  int64  // the user who began it
	Size       int64  // bytes that are accounted for
	Hash       []byte // state of the sha256 after Size bytes; nil at 0
	StartedAt  time.Time
}

const (
	insertUpload  = `INSERT INTO uploads (id, repository, principal, started_at, expires_at) VALUES ($1, $2, $3, $4, $5)`
	selectUpload  = `SELECT principal, size, hash, started_at FROM uploads WHERE id = $1 AND repository = $2`
	acquireUpload = `UPDATE uploads SET holder = $3, held_until = $4, expires_at = $5
		WHERE id = $1 AND repository = $2 AND (holder = '' OR held_until <= $6)`
	holdUpload    = `UPDATE uploads SET held_until = $3 WHERE id = $1 AND holder = $2`
	releaseUpload = `UPDATE uploads SET holder = '', held_until = 0 WHERE id = $1 AND holder = $2`
	saveUpload    = `UPDATE uploads SET size = $3, hash = $4, expires_at = $5, namespace_id = $6, reserved = $7, holder = $8,
		held_until = CASE WHEN $8 = '' THEN 0 ELSE held_until END WHERE id = $1 AND holder = $2`
	deleteUpload   = `DELETE FROM uploads WHERE id = $1 AND holder = $2 RETURNING namespace_id, reserved`
	selectReserved = `SELECT u.repository, u.namespace_id, u.reserved FROM uploads u WHERE u.id = $1 AND u.holder = $2`
	// Where the namespace was made again, what was reserved in the old one went with it.
	addReserved = `UPDATE uploads SET namespace_id = $3, reserved = CASE WHEN namespace_id = $3 THEN reserved ELSE 0 END + $4
		WHERE id = $1 AND holder = $2`
	expiredUploads    = `SELECT id FROM uploads WHERE expires_at <= $1 AND (holder = '' OR held_until <= $1) AND id > $2 ORDER BY id LIMIT $3`
	existsUpload      = `SELECT id FROM uploads WHERE id = $1 UNION SELECT id FROM upload_parts WHERE id = $1`
	takeExpiredUpload = `UPDATE uploads SET holder = $2, held_until = $3
		WHERE id = $1 AND expires_at <= $4 AND (holder = '' OR held_until <= $4)`
	countUploads = `SELECT COUNT(*) FROM uploads WHERE principal = $1 AND expires_at > $2 AND repository <> ''`
)

var errUploadLost = tarport.Errorf(tarport.BlobUploadUnknown, "the upload session is not known: it was finished, cancelled, or has expired")

// CreateUpload begins a session. It is not on disk when this returns: a client
// whose session is lost by a power failure begins anew.
func (db *DB) CreateUpload(ctx context.Context, u Upload, expires time.Time) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, insertUpload, u.ID, u.Repository, u.Principal,
			u.StartedAt.UnixMicro(), expires.UnixMicro())
		return err
	})
	if err != nil {
		return fmt.Errorf("begin upload: %w", err)
	}
	return nil
}

// Upload returns a session; BLOB_UPLOAD_UNKNOWN where the repository has none
// of this id.
func (db *DB) Upload(ctx context.Context, repository, id string) (Upload, error) {
	return db.view().upload(ctx, repository, id)
}

func (tx *Tx) upload(ctx context.Context, repository, id string) (Upload, error) {
	u := Upload{ID: id, Repository: repository}
	var started int64
	found, err := tx.row(ctx, selectUpload, []any{id, repository}, &u.Principal, &u.Size, &u.Hash, &started)
	if err != nil {
		return u, fmt.Errorf("look up upload: %w", err)
	}
	if !found {
		return u, errUploadLost
	}
	u.StartedAt = time.UnixMicro(started)
	return u, nil
}

// AcquireUpload takes a session for one request: until heldUntil, or until it
// is saved, deleted or released, nobody else gets it. CONFLICT where another
// request holds it.
func (db *DB) AcquireUpload(ctx context.Context, repository, id, holder string, heldUntil, expires time.Time) (u Upload, err error) {
	if db.Exclusive() {
		if !db.holds.take(id, holder) {
			return u, errUploadHeld
		}
		if u, err = db.Upload(ctx, repository, id); err != nil {
			db.holds.release(id, holder)
		}
		return u, err
	}
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, acquireUpload, id, repository, holder, heldUntil.UnixMicro(), expires.UnixMicro(), tx.now)
		if err != nil {
			return fmt.Errorf("acquire upload: %w", err)
		}
		if u, err = tx.upload(ctx, repository, id); err != nil {
			return err
		}
		if n == 0 {
			return errUploadHeld
		}
		return nil
	})
	return u, err
}

var errUploadHeld = tarport.Errorf(tarport.Conflict, "another request is writing to this upload session")

// inRow is the holder as the row has it.
func (db *DB) inRow(holder string) string {
	if db.Exclusive() {
		return ""
	}
	return holder
}

// ReleaseUpload lets go of a session that has not come further.
func (db *DB) ReleaseUpload(ctx context.Context, id, holder string) error {
	if db.Exclusive() {
		db.holds.release(id, holder)
		return nil
	}
	return db.heldUpload(ctx, relaxed, releaseUpload, id, holder)
}

// HoldUpload prolongs the hold of a request that is still at it. Where no other
// process can take it there is nothing to prolong.
func (db *DB) HoldUpload(ctx context.Context, id, holder string, heldUntil time.Time) error {
	return db.heldUpload(ctx, relaxed, holdUpload, id, holder, heldUntil.UnixMicro())
}

// UploadProgress is how far a session has come, and until when it lives.
type UploadProgress struct {
	Size    int64
	Hash    []byte // state of the sha256 after Size bytes
	Expires time.Time
}

// SaveUpload records how far the session has come, reserves just as many bytes
// of its namespace, and lets go of it. DENIED where the namespace has not so
// many left.
func (db *DB) SaveUpload(ctx context.Context, id, holder string, p UploadProgress) error {
	defer db.holds.release(id, holder)
	return db.saveUpload(ctx, id, holder, "", p)
}

// CheckpointUpload is SaveUpload for a request that goes on to hold the session.
func (db *DB) CheckpointUpload(ctx context.Context, id, holder string, p UploadProgress) error {
	return db.saveUpload(ctx, id, holder, db.inRow(holder), p)
}

func (db *DB) saveUpload(ctx context.Context, id, holder, next string, p UploadProgress) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		var repository string
		var before, ns, had, reserved int64
		_, err := tx.row(ctx, selectReserved, []any{id, db.inRow(holder)}, &repository, &before, &had)
		if err != nil {
			return err
		}
		// The namespace may have been made since, or made again.
		found, err := tx.row(ctx, selectNamespaceID, []any{tarport.Namespace(repository)}, &ns)
		if err != nil {
			return err
		}
		if found {
			reserved = p.Size
		}
		tx.noteReserved(before, -had)
		tx.noteReserved(ns, reserved)
		n, err := tx.exec(ctx, saveUpload, id, db.inRow(holder), p.Size, p.Hash, p.Expires.UnixMicro(), ns, reserved, next)
		if err == nil && n == 0 {
			return errUploadLost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("change upload: %w", err)
	}
	return nil
}

// ReserveUpload reserves between need and want bytes more for a session that
// the holder holds, and returns how many. DENIED where its namespace has not so
// many left.
func (db *DB) ReserveUpload(ctx context.Context, id, holder, repository string, need, want int64) (got int64, err error) {
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		var ns int64
		var err error
		if ns, got, err = tx.reserve(ctx, tarport.Namespace(repository), need, want); err != nil || ns == 0 {
			return err
		}
		n, err := tx.exec(ctx, addReserved, id, db.inRow(holder), ns, got)
		if err == nil && n == 0 {
			return errUploadLost
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reserve space: %w", err)
	}
	return got, nil
}

// DeleteUpload ends a session that the holder holds, and gives back what it had
// reserved.
func (db *DB) DeleteUpload(ctx context.Context, id, holder string) error {
	defer db.holds.release(id, holder)
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error { return tx.dropUpload(ctx, id, holder) })
	if err != nil {
		return fmt.Errorf("end upload: %w", err)
	}
	return nil
}

func (tx *Tx) dropUpload(ctx context.Context, id, holder string) error {
	var ns, reserved int64
	found, err := tx.row(ctx, deleteUpload, []any{id, tx.db.inRow(holder)}, &ns, &reserved)
	if err == nil && !found {
		return errUploadLost
	}
	tx.noteReserved(ns, -reserved)
	return err
}

func (db *DB) heldUpload(ctx context.Context, d durability, query, id, holder string, args ...any) error {
	return db.update(ctx, d, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, query, append([]any{id, db.inRow(holder)}, args...)...)
		if err != nil {
			return fmt.Errorf("change upload: %w", err)
		}
		if n == 0 {
			return errUploadLost
		}
		return nil
	})
}

// ExpiredUploads returns the ids of at most n sessions whose time is over, in
// byte order, after last.
func (db *DB) ExpiredUploads(ctx context.Context, n int, last string) ([]string, error) {
	tx := db.view()
	return all(ctx, tx, scanOne[string], expiredUploads, tx.now, last, n)
}

// HasUpload tells whether there is a session of this id, in whatever repository,
// or a part of one.
func (db *DB) HasUpload(ctx context.Context, id string) (bool, error) {
	var s string
	return db.view().row(ctx, existsUpload, []any{id}, &s)
}

// CountUploads tells how many sessions a user has open that expire after that,
// but for those of archives.
func (db *DB) CountUploads(ctx context.Context, principal int64, after time.Time) (n int, err error) {
	_, err = db.view().row(ctx, countUploads, []any{principal, after.UnixMicro()}, &n)
	return n, err
}

// TakeExpiredUpload gives an expired session to holder, who deletes its bytes
// and then its row; false where somebody has gone on with it.
func (db *DB) TakeExpiredUpload(ctx context.Context, id, holder string, heldUntil time.Time) (taken bool, err error) {
	if db.Exclusive() && !db.holds.take(id, holder) {
		return false, nil
	}
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, takeExpiredUpload, id, db.inRow(holder), heldUntil.UnixMicro(), tx.now)
		taken = n > 0
		return err
	})
	if !taken {
		db.holds.release(id, holder)
	}
	return taken, err
}
