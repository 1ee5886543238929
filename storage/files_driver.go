package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
)

// driverFiles keeps bytes on one of distribution's storage drivers, such as
// S3. Their Commit makes a file durable.
type driverFiles struct {
	driver storagedriver.StorageDriver
}

// notExist translates the drivers' error for a missing path.
func notExist(err error) error {
	if _, ok := errors.AsType[storagedriver.PathNotFoundError](err); ok {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (f *driverFiles) stage(ctx context.Context, id string, size int64) (stagedFile, error) {
	w, err := f.driver.Writer(ctx, stagedPath(id), size > 0)
	if err != nil {
		return nil, notExist(err)
	}
	if w.Size() != size {
		return nil, errors.Join(fs.ErrNotExist, w.Close())
	}
	return &driverStaged{FileWriter: w}, nil
}

func (f *driverFiles) openStaged(ctx context.Context, id string) (io.ReadSeekCloser, error) {
	r, _, err := f.reader(ctx, stagedPath(id))
	return r, err
}

func (f *driverFiles) dropStaged(ctx context.Context, id string) error {
	err := notExist(f.driver.Delete(ctx, stagedPath(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *driverFiles) keepStaged(context.Context) error { return nil }

func (f *driverFiles) walkStaged(ctx context.Context, fn func(string, time.Time) error) error {
	return f.walk(ctx, stagedDir, func(fi storagedriver.FileInfo) error { return fn(path.Base(fi.Path()), fi.ModTime()) })
}

// walk calls fn for all that lies in a folder. What is gone, also the folder
// itself, is passed over.
func (f *driverFiles) walk(ctx context.Context, dir string, fn func(storagedriver.FileInfo) error) error {
	list, err := f.driver.List(ctx, dir)
	if err = notExist(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, p := range list {
		fi, err := f.driver.Stat(ctx, p)
		if err = notExist(err); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := fn(fi); err != nil {
			return err
		}
	}
	return nil
}

func (f *driverFiles) placeIndex(ctx context.Context, id string, diffID digest.Digest) error {
	return notExist(f.driver.Move(ctx, stagedPath(id), indexPath(diffID)))
}

func (f *driverFiles) openIndex(ctx context.Context, diffID digest.Digest) (io.ReadCloser, error) {
	r, err := f.driver.Reader(ctx, indexPath(diffID), 0)
	return r, notExist(err)
}

func (f *driverFiles) removeIndex(ctx context.Context, diffID digest.Digest) error {
	err := notExist(f.driver.Delete(ctx, indexPath(diffID)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *driverFiles) walkIndexes(ctx context.Context, fn func(digest.Digest, time.Time) error) error {
	var look func(fi storagedriver.FileInfo) error
	look = func(fi storagedriver.FileInfo) error {
		if fi.IsDir() {
			return f.walk(ctx, fi.Path(), look)
		}
		if diffID, ok := indexDigest(fi.Path()); ok {
			return fn(diffID, fi.ModTime())
		}
		return nil
	}
	return f.walk(ctx, indexDir, look)
}

func (f *driverFiles) place(ctx context.Context, id string, dgst digest.Digest) error {
	return notExist(f.driver.Move(ctx, stagedPath(id), blobPath(dgst)))
}

func (f *driverFiles) open(ctx context.Context, dgst digest.Digest) (io.ReadSeekCloser, int64, error) {
	return f.reader(ctx, blobPath(dgst))
}

func (f *driverFiles) reader(ctx context.Context, path string) (io.ReadSeekCloser, int64, error) {
	fi, err := f.driver.Stat(ctx, path)
	if err != nil {
		return nil, 0, notExist(err)
	}
	return &driverReader{ctx: ctx, driver: f.driver, path: path, size: fi.Size()}, fi.Size(), nil
}

func (f *driverFiles) size(ctx context.Context, dgst digest.Digest) (int64, error) {
	fi, err := f.driver.Stat(ctx, blobPath(dgst))
	if err != nil {
		return 0, notExist(err)
	}
	return fi.Size(), nil
}

func (f *driverFiles) remove(ctx context.Context, dgst digest.Digest) error {
	err := notExist(f.driver.Delete(ctx, path.Dir(blobPath(dgst))))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *driverFiles) inPlace() bool { return false }

func (f *driverFiles) check(ctx context.Context) error {
	_, err := f.driver.List(ctx, "/")
	if errors.Is(notExist(err), fs.ErrNotExist) { // nothing was pushed yet
		return nil
	}
	return err
}

type driverStaged struct {
	storagedriver.FileWriter
	committed bool
}

func (s *driverStaged) sync(ctx context.Context) error {
	s.committed = true
	return s.Commit(ctx)
}

// cancel ends what S3 would else keep, out of sight, as an unfinished upload.
// Close then has nothing to write any more, and says so.
func (s *driverStaged) cancel(ctx context.Context) {
	_ = s.Cancel(ctx)
	_ = s.Close()
}

// driverReader reads a file from where it was sought to; the driver is asked
// only when something is read.
type driverReader struct {
	ctx      context.Context //nolint:containedctx // the request's: the reader lives no longer
	driver   storagedriver.StorageDriver
	path     string
	size, at int64
	r        io.ReadCloser
}

func (r *driverReader) Read(p []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.r == nil {
		var err error
		if r.r, err = r.driver.Reader(r.ctx, r.path, r.at); err != nil {
			return 0, notExist(err)
		}
	}
	n, err := r.r.Read(p)
	r.at += int64(n)
	return n, err
}

func (r *driverReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	if offset != r.at {
		if err := r.Close(); err != nil {
			return 0, err
		}
		r.at = offset
	}
	return offset, nil
}

func (r *driverReader) Close() error {
	if r.r == nil {
		return nil
	}
	err := r.r.Close()
	r.r = nil
	return err
}
