package metadata

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tarport/tarport"
)

// ArchiveUpload is an upload session of an archive. It belongs to who began it
// and to no repository, so it is AcquireUpload's, HoldUpload's and DeleteUpload's
// of the repository "".
type ArchiveUpload struct {
	Upload
	Namespace string // the only one that the token was for by which it was begun; "" for none
	Length    int64  // what it will have; -1 while nobody said
	Metadata  string // of the client, as it came
	ExpiresAt time.Time
}

// UploadPart is a file that holds bytes of an archive: Size of them, from
// Begins on.
type UploadPart struct {
	ID           string
	Begins, Size int64
}

// UploadLimits bound the archives that one user has open at once.
type UploadLimits struct {
	Count int
	Bytes int64 // of their lengths, or of what came where the length is not known; 0: no limit
}

const (
	insertArchive = `INSERT INTO uploads (id, repository, principal, started_at, expires_at, length, metadata, namespace)
		VALUES ($1, '', $2, $3, $4, $5, $6, $7)`
	archiveColumns = `SELECT id, principal, size, started_at, expires_at, length, metadata, namespace FROM uploads WHERE repository = '' AND expires_at > $1`
	selectArchive  = archiveColumns + ` AND id = $2`
	selectArchives = archiveColumns + ` AND principal = $2 AND ($3 = '' OR namespace = $3) AND id > $4 ORDER BY id LIMIT $5`
	// Two requests of one user that take more room do it one after the other.
	lockUploads = `UPDATE users SET name = name WHERE id = $1`
	sumArchives = `SELECT COUNT(*), COALESCE(CAST(SUM(CASE WHEN length < 0 THEN size ELSE length END) AS BIGINT), 0)
		FROM uploads WHERE principal = $1 AND repository = '' AND expires_at > $2`
	setLength   = `UPDATE uploads SET length = $3 WHERE id = $1 AND holder = $2`
	growArchive = `UPDATE uploads SET size = $3, expires_at = $4 WHERE id = $1 AND holder = $2`
	upsertPart  = `INSERT INTO upload_parts (id, upload, begins, size) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET size = excluded.size`
	selectParts = `SELECT id, begins, size FROM upload_parts WHERE upload = $1 ORDER BY begins`
	lastPart    = `SELECT id, begins, size FROM upload_parts WHERE upload = $1 ORDER BY begins DESC LIMIT 1`
	countParts  = `SELECT COUNT(*) FROM upload_parts WHERE upload = $1`
)

// ErrNoArchiveUpload is the answer where there is no such session, or none of
// the caller's.
var ErrNoArchiveUpload = tarport.Errorf(tarport.NotFound, "there is no such upload: it was used, cancelled, or has expired")

func (u *ArchiveUpload) scan(scan func(...any) error) error {
	return scan(&u.ID, &u.Principal, &u.Size, stamp{&u.StartedAt}, stamp{&u.ExpiresAt}, &u.Length, &u.Metadata, &u.Namespace)
}

// CreateArchiveUpload begins a session, durably. TOOMANYREQUESTS or DENIED where
// its user has as much open as the limits allow.
func (db *DB) CreateArchiveUpload(ctx context.Context, u ArchiveUpload, l UploadLimits) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.takeRoom(ctx, u.Principal, l, max(u.Length, 0))
		if err != nil {
			return err
		}
		if n >= l.Count {
			return tarport.Errorf(tarport.TooManyRequests, "you have %d archives half sent, at most %d are allowed: finish or cancel some", n, l.Count)
		}
		_, err = tx.exec(ctx, insertArchive, u.ID, u.Principal, u.StartedAt.UnixMicro(), u.ExpiresAt.UnixMicro(), u.Length, u.Metadata, u.Namespace)
		return err
	})
	if err != nil {
		return fmt.Errorf("begin upload: %w", err)
	}
	return nil
}

// takeRoom makes sure that the user may have so many bytes more, and that nobody
// else takes them before the transaction ends. n is how many sessions are open.
func (tx *Tx) takeRoom(ctx context.Context, principal int64, l UploadLimits, more int64) (n int, err error) {
	if _, err := tx.exec(ctx, lockUploads, principal); err != nil {
		return 0, err
	}
	n, bytes, err := tx.openArchives(ctx, principal)
	if err != nil {
		return n, err
	}
	return n, l.check(bytes, more)
}

func (tx *Tx) openArchives(ctx context.Context, principal int64) (n int, bytes int64, err error) {
	_, err = tx.row(ctx, sumArchives, []any{principal, tx.now}, &n, &bytes)
	return n, bytes, err
}

func (l UploadLimits) check(used, more int64) error {
	if l.Bytes <= 0 || used <= l.Bytes-more {
		return nil
	}
	return tarport.Errorf(tarport.Denied, "your open uploads have %s, at most %s are allowed and this needs %s more: load or cancel some",
		bytesText(used), bytesText(l.Bytes), bytesText(more)).
		WithDetail(map[string]any{"used": used, "limit": l.Bytes, "needed": more})
}

// UploadRoom tells how many bytes a user may send in sessions whose length is
// not known. DENIED where that is none.
func (db *DB) UploadRoom(ctx context.Context, principal int64, l UploadLimits) (int64, error) {
	_, used, err := db.view().openArchives(ctx, principal)
	if err != nil {
		return 0, fmt.Errorf("add up open uploads: %w", err)
	}
	if l.Bytes <= 0 {
		return math.MaxInt64, nil
	}
	return l.Bytes - used, l.check(used, 1)
}

// ArchiveUpload returns a session; NOT_FOUND where there is none, or none any
// more.
func (db *DB) ArchiveUpload(ctx context.Context, id string) (ArchiveUpload, error) {
	list, err := db.archives(ctx, selectArchive, id)
	if err == nil && len(list) == 0 {
		return ArchiveUpload{}, ErrNoArchiveUpload
	}
	if err != nil {
		return ArchiveUpload{}, fmt.Errorf("look up upload: %w", err)
	}
	return list[0], nil
}

// ArchiveUploads lists at most n sessions of a user, by id, after last: all, or
// those that were begun for a namespace.
func (db *DB) ArchiveUploads(ctx context.Context, principal int64, namespace string, n int, last string) ([]ArchiveUpload, error) {
	list, err := db.archives(ctx, selectArchives, principal, namespace, last, n)
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	return list, nil
}

func (db *DB) archives(ctx context.Context, query string, args ...any) ([]ArchiveUpload, error) {
	tx := db.view()
	return all(ctx, tx, (*ArchiveUpload).scan, query, append([]any{tx.now}, args...)...)
}

// SetUploadLength says how long the archive of a session will be, durably.
// DENIED where that is more than its user may have; u is the session as its
// holder knows it.
func (db *DB) SetUploadLength(ctx context.Context, u ArchiveUpload, holder string, l UploadLimits, length int64) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.takeRoom(ctx, u.Principal, l, length-u.Size); err != nil {
			return err
		}
		return tx.changeArchive(ctx, setLength, u.ID, db.inRow(holder), length)
	})
	if err != nil {
		return fmt.Errorf("set the length of an upload: %w", err)
	}
	return nil
}

func (tx *Tx) changeArchive(ctx context.Context, query string, args ...any) error {
	n, err := tx.exec(ctx, query, args...)
	if err == nil && n == 0 {
		err = ErrNoArchiveUpload
	}
	return err
}

// AddUploadPart records a file of an archive whose bytes are durable: a new one,
// or one that has grown. The session, u as its holder knows it, has all up to its
// end then. DENIED where its length is not known and this is more than its user
// may have.
func (db *DB) AddUploadPart(ctx context.Context, u ArchiveUpload, holder string, l UploadLimits, p UploadPart, expires time.Time) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if u.Length < 0 {
			if _, err := tx.takeRoom(ctx, u.Principal, l, p.Begins+p.Size-u.Size); err != nil {
				return err
			}
		}
		if err := tx.changeArchive(ctx, growArchive, u.ID, db.inRow(holder), p.Begins+p.Size, expires.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.exec(ctx, upsertPart, p.ID, u.ID, p.Begins, p.Size)
		return err
	})
	if err != nil {
		return fmt.Errorf("record a part of an upload: %w", err)
	}
	return nil
}

// UploadParts lists the files of an archive, in order.
func (db *DB) UploadParts(ctx context.Context, id string) ([]UploadPart, error) {
	list, err := all(ctx, db.view(), func(p *UploadPart, scan func(...any) error) error {
		return scan(&p.ID, &p.Begins, &p.Size)
	}, selectParts, id)
	if err != nil {
		return nil, fmt.Errorf("list the parts of an upload: %w", err)
	}
	return list, nil
}

// LastUploadPart returns the file that an archive ends in, the zero value where
// it has none, and how many it has.
func (db *DB) LastUploadPart(ctx context.Context, id string) (p UploadPart, n int, err error) {
	tx := db.view()
	if _, err = tx.row(ctx, lastPart, []any{id}, &p.ID, &p.Begins, &p.Size); err == nil {
		_, err = tx.row(ctx, countParts, []any{id}, &n)
	}
	if err != nil {
		err = fmt.Errorf("look up the last part of an upload: %w", err)
	}
	return p, n, err
}
