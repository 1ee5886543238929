package storage

import (
	"context"
	"io"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// files is where bytes lie: blobs under their digest, and what is not a blob
// yet under the id of its upload. There are two: one on a file system, which
// adds what makes a rename durable and gives away *os.File for sendfile, and
// one on any of distribution's storage drivers.
//
// A missing file is fs.ErrNotExist in both.
type files interface {
	// stage opens the file of an upload for writing after its first size
	// bytes; what lies behind them is cut off. fs.ErrNotExist where the file
	// has fewer.
	stage(ctx context.Context, id string, size int64) (stagedFile, error)
	// openStaged reads the file of an upload from its beginning.
	openStaged(ctx context.Context, id string) (io.ReadSeekCloser, error)
	dropStaged(ctx context.Context, id string) error
	// keepStaged makes the name of a synced file durable, which place does
	// without it.
	keepStaged(ctx context.Context) error
	// walkStaged calls fn for each upload's file.
	walkStaged(ctx context.Context, fn func(id string, modified time.Time) error) error

	// place makes the file of an upload, which sync has made durable, the
	// bytes of a blob, durably, in place of what was there.
	place(ctx context.Context, id string, dgst digest.Digest) error
	open(ctx context.Context, dgst digest.Digest) (io.ReadSeekCloser, int64, error)
	size(ctx context.Context, dgst digest.Digest) (int64, error)
	remove(ctx context.Context, dgst digest.Digest) error

	// placeIndex makes the file of an upload, which sync has made durable, the
	// index of a layer, in place of what was there. It may be lost in a power
	// failure.
	placeIndex(ctx context.Context, id string, diffID digest.Digest) error
	openIndex(ctx context.Context, diffID digest.Digest) (io.ReadCloser, error)
	removeIndex(ctx context.Context, diffID digest.Digest) error
	// walkIndexes calls fn for each index.
	walkIndexes(ctx context.Context, fn func(diffID digest.Digest, modified time.Time) error) error

	// inPlace tells that staged files are written where they lie: one that is
	// durable can be gone on with, and what was not synced can be lost although
	// it was there. Else they are there as a whole when they are durable, and
	// stay as they are.
	inPlace() bool
	// check tells whether the place is there.
	check(ctx context.Context) error
}

// stagedFile is an open file of an upload.
type stagedFile interface {
	io.Writer
	// sync makes all that was written durable; nothing is written after it.
	sync(ctx context.Context) error
	// Close lets go of the file and keeps it.
	Close() error
	// cancel is Close for a file that is then dropped, or gone on with from
	// where it was when it was opened.
	cancel(ctx context.Context)
}

// blobPath is distribution's own, so that the data directory of a registry:2
// or :3 can be taken over where it lies.
func blobPath(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return blobsDir + "/" + dgst.Algorithm().String() + "/" + hex[:2] + "/" + hex + "/data"
}

const blobsDir = "/docker/registry/v2/blobs"

// indexPath is where the index of a layer lies.
func indexPath(diffID digest.Digest) string {
	hex := diffID.Encoded()
	return indexDir + "/" + diffID.Algorithm().String() + "/" + hex[:2] + "/" + hex
}

// indexDigest is the diffID whose index lies there; false where it is none's.
func indexDigest(p string) (digest.Digest, bool) {
	rest, _ := strings.CutPrefix(p, indexDir+"/")
	parts := strings.Split(rest, "/")
	d := digest.Digest(parts[0] + ":" + path.Base(p))
	return d, len(parts) == 3 && d.Validate() == nil
}

const indexDir = "/tarport/layers"

const stagedDir = "/tarport/uploads"

func stagedPath(id string) string { return path.Join(stagedDir, id) }

var (
	_ files = (*localFiles)(nil)
	_ files = (*driverFiles)(nil)
)
