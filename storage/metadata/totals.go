package metadata

import (
	"context"
	"fmt"
	"time"
)

// Backlog is what is under way or waits, of all users.
type Backlog struct {
	Blobs, BlobBytes       int64 // upload sessions of blobs, and what of them has come
	Archives, ArchiveBytes int64 // those of archives
	Pending, Failed        int64 // layers that wait to be looked into, and that could not be
	// Since when the layer waits that waits longest, or was tried last; zero
	// where none does.
	Since time.Time
}

const (
	sumUploads = `SELECT COUNT(*), COALESCE(CAST(SUM(size) AS BIGINT), 0),
		COALESCE(CAST(SUM(CASE WHEN repository = '' THEN 1 ELSE 0 END) AS BIGINT), 0),
		COALESCE(CAST(SUM(CASE WHEN repository = '' THEN size ELSE 0 END) AS BIGINT), 0)
		FROM uploads WHERE expires_at > $1`
	countLayers = `SELECT (SELECT COUNT(*) FROM layers WHERE state = 'pending'), (SELECT COUNT(*) FROM layers WHERE state = 'failed'),
		COALESCE((SELECT MIN(changed_at) FROM layers WHERE state = 'pending'), 0)`
	sumBlobs = `SELECT COUNT(*), COALESCE(CAST(SUM(size) AS BIGINT), 0) FROM blobs`
)

// Backlog reads what is under way. It costs little.
func (db *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	view := db.view()
	if _, err = view.row(ctx, sumUploads, []any{view.now}, &b.Blobs, &b.BlobBytes, &b.Archives, &b.ArchiveBytes); err == nil {
		_, err = view.row(ctx, countLayers, nil, &b.Pending, &b.Failed, stamp{&b.Since})
	}
	if err != nil {
		return b, fmt.Errorf("add up what is under way: %w", err)
	}
	b.Blobs, b.BlobBytes = b.Blobs-b.Archives, b.BlobBytes-b.ArchiveBytes
	return b, nil
}

// BlobTotals tells how many blobs there are, each once, and their bytes. It
// reads all their rows.
func (db *DB) BlobTotals(ctx context.Context) (n, bytes int64, err error) {
	if _, err = db.view().row(ctx, sumBlobs, nil, &n, &bytes); err != nil {
		return 0, 0, fmt.Errorf("add up blobs: %w", err)
	}
	return n, bytes, nil
}
