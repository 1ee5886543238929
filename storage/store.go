// Package storage is where content lives: what is known of it in SQL
// (storage/metadata), its bytes on one of distribution's storage drivers. It
// implements distribution's Namespace, Repository, ManifestService, TagService
// and BlobStore, and what goes beyond them.
//
//	registry, extensions/* ──> Store ──┬──> metadata.DB   what there is; one transaction a change
//	distribution's App ──> Namespace ──┘──> files         bytes by digest
//
// The order of writes is: bytes durable, then the transaction, then the
// answer; the order of deletes: the transaction, then the bytes. So a crash
// leaves rubbish, which is found and taken away, and never a hole.
//
// It does not decide who may do what: its callers have asked tarport.Access.
package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"github.com/tarport/tarport/storage/metadata"
)

// Options of New.
type Options struct {
	DB *metadata.DB // required

	// Root is the root directory of a file system; else Driver says where the
	// bytes lie. One of the two is required.
	Root   string
	Driver storagedriver.StorageDriver

	// Grace is how long a blob that nothing references stays after the last
	// positive answer about it; 24 h where 0. It must be longer than the
	// longest push. Leases are renewed when half of them is over, so Grace is
	// what a client gets at least, and twice that at most.
	Grace time.Duration
	// UploadExpiry is how long an upload session lives after its last
	// request; 24 h where 0.
	UploadExpiry time.Duration
	// MaxUploads is how many sessions a user may have open, and how many of
	// archives; 100 where 0.
	MaxUploads int
	// MaxUploadBytes is how much a user may have in sessions of archives, and
	// MaxArchive how much in one; no limit where 0.
	MaxUploadBytes, MaxArchive int64
	// AllowMissing takes image manifests whose config or layers are not here
	// (sparse images). Entries of an index may be missing in any case.
	AllowMissing bool
	// MinFree is how many bytes the disks of Root and DataDir keep free: below
	// that nothing more is taken. 0 is no floor. DataDir is where the database
	// lies; "" where it is not on a disk of ours.
	MinFree int64
	DataDir string
	// EventAge is how long the audit keeps its events; a year where 0.
	EventAge time.Duration

	Log *slog.Logger     // slog.Default where nil
	Now func() time.Time // time.Now where nil
}

// Store is the content of a registry. It may be used by many goroutines.
type Store struct {
	db    *metadata.DB
	files files
	cache *cache
	pulls *pulls
	disk  *disk
	o     Options
	began time.Time

	pushed    chan struct{} // see Pushed
	leftovers []string      // staged files from before this process, where they are nobody else's
	rechecked sync.Map      // the ids of upload sessions that Upload.recheck has read
}

// New returns a Store over an open database. It keeps the database; closing it
// is the caller's.
func New(o Options) (*Store, error) {
	if o.DB == nil || (o.Root == "") == (o.Driver == nil) {
		return nil, errors.New("storage: a database and either a root directory or a driver are required")
	}
	o.Grace = orDefault(o.Grace, 24*time.Hour)
	o.UploadExpiry = orDefault(o.UploadExpiry, 24*time.Hour)
	o.MaxUploads = orDefault(o.MaxUploads, 100)
	o.EventAge = orDefault(o.EventAge, 365*24*time.Hour)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{db: o.DB, o: o, began: o.Now(), pulls: newPulls(), pushed: make(chan struct{}, 1)}
	if o.Root != "" {
		local, err := newLocalFiles(o.Root)
		if err != nil {
			return nil, err
		}
		s.files = local
	} else {
		s.files = &driverFiles{o.Driver}
	}
	if s.db.Exclusive() {
		s.cache = newCache()
		s.findLeftovers(context.Background())
	}
	s.disk = &disk{minFree: o.MinFree, now: o.Now, free: freeBytes}
	for _, p := range []string{o.Root, o.DataDir} {
		if p != "" {
			s.disk.paths = append(s.disk.paths, p)
		}
	}
	return s, nil
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Check tells whether database and storage answer.
func (s *Store) Check(ctx context.Context) error {
	if err := s.db.Ping(ctx); err != nil {
		return err
	}
	if err := s.files.check(ctx); err != nil {
		return fmt.Errorf("look at the storage: %w", err)
	}
	return nil
}

// Run takes away what expired, and writes down what was pulled, now and then,
// until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.runPulls(ctx) })
	s.sweepLeftovers(ctx)
	s.sweepLogged(ctx, s.o.UploadExpiry)
	s.pruneLogged(ctx)
	s.describeLogged(ctx)
	t := time.NewTicker(min(s.o.UploadExpiry/4, 10*time.Minute))
	defer t.Stop()
	var indexesSwept time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.sweepLogged(ctx, s.o.UploadExpiry)
			s.pruneLogged(ctx)
			if now := s.o.Now(); now.Sub(indexesSwept) >= 24*time.Hour {
				s.sweepIndexesLogged(ctx)
				indexesSwept = now
			}
			s.describeLogged(ctx)
		}
	}
}

// describeLogged reads the manifests that an older version has put, and those
// whose config came late.
func (s *Store) describeLogged(ctx context.Context) {
	if err := s.describeOld(ctx); err != nil && ctx.Err() == nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "facts of older images were not recorded", slog.Any("err", err))
	}
}

// pruneLogged forgets the events that are old enough.
func (s *Store) pruneLogged(ctx context.Context) {
	const batch = 1000
	for ctx.Err() == nil {
		n, err := s.db.PruneEvents(ctx, s.o.Now().Add(-s.o.EventAge), batch)
		if err != nil && ctx.Err() == nil {
			s.o.Log.LogAttrs(ctx, slog.LevelError, "old events were not removed", slog.Any("err", err))
		}
		if err != nil || n < batch {
			return
		}
	}
}

// findLeftovers notes the staged files that are there before anybody uses the
// store. What it does not see goes when it is old.
func (s *Store) findLeftovers(ctx context.Context) {
	err := s.files.walkStaged(ctx, func(id string, _ time.Time) error {
		s.leftovers = append(s.leftovers, id)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.o.Log.LogAttrs(ctx, slog.LevelWarn, "what was left of archives was not looked for", slog.Any("err", err))
	}
}

// sweepLeftovers takes away what the process before this one has left of
// archives that it was reading: files that no session knows, and what was
// reserved for them.
func (s *Store) sweepLeftovers(ctx context.Context) {
	if !s.db.Exclusive() { // it may be another one's
		return
	}
	err := s.db.ReleaseBatches(ctx, s.began.Add(s.o.UploadExpiry))
	for _, id := range s.leftovers {
		if err != nil || ctx.Err() != nil {
			break
		}
		var known bool
		if known, err = s.db.HasUpload(ctx, id); err == nil && !known {
			err = s.files.dropStaged(ctx, id)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "what was left of archives was not removed", slog.Any("err", err))
	}
	s.leftovers = nil
}

func (s *Store) sweepLogged(ctx context.Context, age time.Duration) {
	n, err := s.Sweep(ctx, age)
	if err != nil && ctx.Err() == nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "sweep of expired uploads failed", slog.Any("err", err))
	}
	if n > 0 {
		s.o.Log.LogAttrs(ctx, slog.LevelInfo, "expired uploads removed", slog.Int("count", n))
	}
}

// Sweep removes the upload sessions whose time is over, and files of uploads
// that no session knows and that nobody has written to for age: what a crash
// left of archives that were being read. It returns how many it removed.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (removed int, err error) {
	const batch = 100
	for last := ""; ; {
		ids, err := s.db.ExpiredUploads(ctx, batch, last)
		if err != nil {
			return removed, err
		}
		for _, id := range ids {
			gone, err := s.sweepUpload(ctx, id)
			if err != nil {
				return removed, err
			}
			if gone {
				removed++
			}
		}
		if len(ids) < batch {
			break
		}
		last = ids[batch-1]
	}
	if err := s.db.ReleaseBatches(ctx, s.o.Now()); err != nil {
		return removed, err
	}
	before := s.o.Now().Add(-age)
	err = s.files.walkStaged(ctx, func(id string, modified time.Time) error {
		if modified.After(before) {
			return nil
		}
		if known, err := s.db.HasUpload(ctx, id); err != nil || known {
			return err
		}
		removed++
		return s.files.dropStaged(ctx, id)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return removed, err
}

func (s *Store) sweepUpload(ctx context.Context, id string) (gone bool, err error) {
	holder := rand.Text()
	taken, err := s.db.TakeExpiredUpload(ctx, id, holder, s.heldUntil())
	if err != nil || !taken {
		return false, err
	}
	if err := s.dropParts(ctx, id); err != nil {
		return false, err
	}
	if err := s.files.dropStaged(ctx, id); err != nil {
		return false, fmt.Errorf("remove expired upload: %w", err)
	}
	return true, s.db.DeleteUpload(ctx, id, holder)
}
