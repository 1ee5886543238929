package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// localFiles keeps bytes on a file system, laid out as distribution's driver
// "filesystem" does. distribution's own does not sync the folder after a blob
// is renamed into it, so that a power failure can take an acknowledged blob.
type localFiles struct {
	root string
}

// newLocalFiles makes the folders that blobs lie in, so that to put a blob into
// place makes one folder and never two.
func newLocalFiles(root string) (*localFiles, error) {
	f := &localFiles{root: root}
	dirs := []string{stagedDir}
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for i := range 256 {
			dirs = append(dirs, fmt.Sprintf("%s/%s/%02x", blobsDir, a, i))
		}
	}
	for _, dir := range dirs {
		if err := makeDirs(f.path(dir)); err != nil {
			return nil, fmt.Errorf("make the storage folders: %w", err)
		}
	}
	// Whoever made them may not have come this far.
	for _, dir := range []string{blobsDir + "/sha256", blobsDir + "/sha512", path.Dir(stagedDir)} {
		for ; ; dir = path.Dir(dir) {
			if err := syncDir(f.path(dir)); err != nil {
				return nil, fmt.Errorf("sync the storage folders: %w", err)
			}
			if dir == "/" {
				break
			}
		}
	}
	return f, nil
}

// path joins what is clean already: names come from digests and ids that were
// checked.
func (f *localFiles) path(p string) string { return f.root + p }

func (f *localFiles) stage(_ context.Context, id string, size int64) (stagedFile, error) {
	flags := os.O_WRONLY
	if size == 0 {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(f.path(stagedPath(id)), flags, 0o600)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		err = positioned(file, size)
	} else {
		err = file.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &localStaged{File: file, begun: size, at: size}, nil
}

func positioned(file *os.File, size int64) error {
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < size { // a power failure took what was never promised
		return fs.ErrNotExist
	}
	if fi.Size() > size {
		if err := file.Truncate(size); err != nil {
			return err
		}
	}
	_, err = file.Seek(size, io.SeekStart)
	return err
}

func (f *localFiles) openStaged(_ context.Context, id string) (io.ReadSeekCloser, error) {
	return os.Open(f.path(stagedPath(id)))
}

func (f *localFiles) dropStaged(_ context.Context, id string) error {
	if err := os.Remove(f.path(stagedPath(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *localFiles) keepStaged(context.Context) error { return syncDir(f.path(stagedDir)) }

func (f *localFiles) walkStaged(ctx context.Context, fn func(string, time.Time) error) error {
	entries, err := os.ReadDir(f.path(stagedDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := fn(e.Name(), fi.ModTime()); err != nil {
			return err
		}
	}
	return nil
}

func (f *localFiles) place(_ context.Context, id string, dgst digest.Digest) error {
	to := f.path(blobPath(dgst))
	dir := filepath.Dir(to)
	above := filepath.Dir(dir)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirs(above); err == nil {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Rename(f.path(stagedPath(id)), to); err != nil {
		return err
	}
	// Both at once, so that the disk takes them together; the one above too
	// where the folder was there: who made it may not have synced it yet.
	var g errgroup.Group
	g.Go(func() error { return syncDir(above) })
	g.Go(func() error { return syncDir(dir) })
	return g.Wait()
}

func (f *localFiles) open(_ context.Context, dgst digest.Digest) (io.ReadSeekCloser, int64, error) {
	file, err := os.Open(f.path(blobPath(dgst)))
	if err != nil {
		return nil, 0, err
	}
	fi, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, fi.Size(), nil
}

func (f *localFiles) size(_ context.Context, dgst digest.Digest) (int64, error) {
	fi, err := os.Stat(f.path(blobPath(dgst)))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *localFiles) remove(_ context.Context, dgst digest.Digest) error {
	dir := filepath.Dir(f.path(blobPath(dgst)))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *localFiles) placeIndex(_ context.Context, id string, diffID digest.Digest) error {
	to := f.path(indexPath(diffID))
	if err := makeDirs(filepath.Dir(to)); err != nil {
		return err
	}
	return os.Rename(f.path(stagedPath(id)), to)
}

func (f *localFiles) openIndex(_ context.Context, diffID digest.Digest) (io.ReadCloser, error) {
	return os.Open(f.path(indexPath(diffID)))
}

func (f *localFiles) removeIndex(_ context.Context, diffID digest.Digest) error {
	if err := os.Remove(f.path(indexPath(diffID))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f *localFiles) walkIndexes(ctx context.Context, fn func(digest.Digest, time.Time) error) error {
	return filepath.WalkDir(f.path(indexDir), func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // no index was made yet, or somebody was faster
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		diffID, ok := indexDigest(filepath.ToSlash(p[len(f.root):]))
		if !ok || !e.Type().IsRegular() {
			return nil
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(diffID, fi.ModTime())
	})
}

func (f *localFiles) inPlace() bool { return true }

func (f *localFiles) check(context.Context) error {
	_, err := os.Stat(f.path(stagedDir))
	return err
}

// makeDirs makes a folder and those above it; the caller syncs them.
func makeDirs(dir string) error {
	if err := os.Mkdir(dir, 0o755); err == nil {
		return nil
	} else if errors.Is(err, fs.ErrExist) {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	return makeDirs(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeback is how many bytes are gathered before the kernel is told to begin
// writing them: the disk then works while the client still sends, and the sync
// at the end has little left to wait for.
const writeback = 8 << 20

type localStaged struct {
	*os.File
	begun, at int64 // writing back has begun up to begun; the file ends at at
	temporary bool  // see cut
}

func (s *localStaged) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	s.at += int64(n)
	if s.at-s.begun >= writeback && !s.temporary {
		beginWriteback(s.File, s.begun, s.at-s.begun)
		s.begun = s.at
	}
	return n, err
}

// ReadFrom would make io.Copy go round Write.
func (s *localStaged) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}

// cut makes the file end there. A file that is cut is a temporary one, which the
// disk need not have.
func (s *localStaged) cut(size int64) error {
	if err := s.Truncate(size); err != nil {
		return err
	}
	_, err := s.Seek(size, io.SeekStart)
	s.at, s.temporary = size, true
	return err
}

func (s *localStaged) sync(context.Context) error { return s.Sync() }

func (s *localStaged) cancel(context.Context) { _ = s.Close() }
