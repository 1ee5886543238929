package storage

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// What bounds the bytes that come in:
//
//	the disk       below Options.MinFree nothing is taken any more, while there is room left for the
//	               database to work and for deletes
//	the namespace  its quota: what is known to be too much is refused before it comes, the rest as it
//	               comes, a step at a time; the transaction that makes it visible decides
//
// Up to freeStep bytes of each request come without asking the database; they
// are counted when the session is saved or the blob recorded. So a small blob
// costs no transaction more than it did.
const (
	freeStep    = 1 << 20
	reserveStep = 8 << 20
)

// disk tells what room the file systems have, and asks them once a second at
// most.
type disk struct {
	paths   []string
	minFree int64
	now     func() time.Time
	free    func(path string) (int64, bool, error) // freeBytes, but for tests

	mu   sync.Mutex
	at   time.Time
	room int64 // above minFree
	err  error
}

const diskAge = time.Second

// fits returns INSUFFICIENT_STORAGE where so many bytes more would leave less
// free than there has to be.
func (d *disk) fits(n int64) error {
	if !d.bounded() {
		return nil
	}
	room, err := d.look()
	if err != nil {
		return err
	}
	if room < n || room < 0 {
		return tarport.Errorf(tarport.InsufficientStorage, "the registry's disk is nearly full: nothing can be pushed until an administrator makes room, or something is deleted")
	}
	return nil
}

// CheckRoom refuses n bytes that are known not to fit, before they come: DENIED
// where the namespace's quota has no room for them, INSUFFICIENT_STORAGE where
// the disk has none. That it returns nil promises nothing.
func (s *Store) CheckRoom(ctx context.Context, namespace string, n int64) error {
	if err := s.disk.fits(n); err != nil {
		return err
	}
	return s.db.CheckQuota(ctx, namespace, n)
}

// Room tells how many bytes more there is room for on the disks before nothing
// is taken any more; false where there is no such floor, or no disk of ours.
func (s *Store) Room() (n int64, bounded bool) {
	if !s.disk.bounded() {
		return 0, false
	}
	room, err := s.disk.look()
	return max(room, 0), err == nil && room != math.MaxInt64
}

func (d *disk) bounded() bool { return d.minFree > 0 && len(d.paths) > 0 }

// look is measure, once in diskAge.
func (d *disk) look() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); d.at.IsZero() || now.Sub(d.at) >= diskAge || now.Before(d.at) {
		d.room, d.err = d.measure() // statfs reads no disk: it does not hold the lock for long
		d.at = now
	}
	return d.room, d.err
}

func (d *disk) measure() (int64, error) {
	room := int64(math.MaxInt64)
	for _, p := range d.paths {
		n, ok, err := d.free(p)
		if err != nil {
			return 0, fmt.Errorf("look how full the disk is: %w", err)
		}
		if ok {
			room = min(room, n-d.minFree)
		}
	}
	return room, nil
}

// Body is what a request says of the bytes that it brings, before they come.
type Body struct {
	Length int64         // -1: unknown
	Digest digest.Digest // of the whole blob; "" where it is not known yet
	Last   bool          // the blob is recorded in the same request
}

type bodyKey struct{}

// WithBody returns a context that tells the uploads that are begun or resumed
// in it what is coming.
func WithBody(ctx context.Context, b Body) context.Context {
	return context.WithValue(ctx, bodyKey{}, b)
}

func bodyFrom(ctx context.Context) Body {
	if b, ok := ctx.Value(bodyKey{}).(Body); ok {
		return b
	}
	return Body{Length: -1}
}

// expect is called before bytes come: it refuses what is known not to fit, and
// takes the room for what is large.
func (u *Upload) expect(ctx context.Context) error {
	n := max(u.body.Length, 0)
	if u.body.Length == 0 {
		return nil
	}
	if err := u.s.disk.fits(n); err != nil {
		return err
	}
	unsaved := u.size + n - u.row.Size // a chunk before this one may wait to be counted
	err := u.s.db.CheckQuota(ctx, tarport.Namespace(u.row.Repository), max(unsaved, 1))
	if err != nil {
		return u.orFree(ctx, err)
	}
	u.allowed = freeStep
	if n > freeStep {
		return u.reserve(ctx, n, n)
	}
	return nil
}

// reserve takes room for bytes that come.
func (u *Upload) reserve(ctx context.Context, need, want int64) error {
	if err := u.s.disk.fits(need); err != nil {
		return err
	}
	got, err := u.s.db.ReserveUpload(ctx, u.row.ID, u.holder, u.row.Repository, need, want)
	if err != nil {
		return u.orFree(ctx, err)
	}
	u.allowed += got
	u.reserved += got
	return nil
}

// orFree lets in what a quota refuses where it is a blob that the namespace has:
// that costs nothing. A session that was refused is not kept, nor are its bytes.
func (u *Upload) orFree(ctx context.Context, err error) error {
	if tarport.ErrorCode(err) != tarport.Denied {
		return err
	}
	if u.body.Digest != "" {
		has, herr := u.s.db.NamespaceHas(ctx, tarport.Namespace(u.row.Repository), u.body.Digest)
		if herr != nil {
			return herr
		}
		if has {
			u.allowed = math.MaxInt64
			return nil
		}
	}
	u.broken = true
	return err
}

// take asks for room for the next n bytes.
func (u *Upload) take(ctx context.Context, n int64) error {
	if u.allowed < n {
		if err := u.reserve(ctx, n-u.allowed, reserveStep); err != nil {
			return err
		}
	}
	u.allowed -= n
	return nil
}

// metered reads only what there is room for.
type metered struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way
	u   *Upload
	r   io.Reader
}

func (m *metered) Read(p []byte) (int, error) {
	if m.u.allowed <= 0 {
		if err := m.u.reserve(m.ctx, min(int64(len(p)), reserveStep), reserveStep); err != nil {
			return 0, err
		}
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.u.allowed)])
	m.u.allowed -= int64(n)
	return n, err
}

// checkpoint counts the bytes that came without being asked for, before the
// client is told that they are here. Where the blob is recorded in the same
// request, that counts them.
func (u *Upload) checkpoint(ctx context.Context) error {
	if u.body.Last || u.size-u.row.Size <= u.reserved {
		return nil
	}
	state, err := hashState(u.hash)
	if err != nil {
		return err
	}
	if err := u.s.db.CheckpointUpload(ctx, u.row.ID, u.holder, u.progress(state)); err != nil {
		u.broken = true // the session has fewer bytes than its file, and is not kept
		return err
	}
	u.row.Size, u.reserved = u.size, 0
	return nil
}

// ration is the room of one batch in the namespace that it is for. Its
// blobs are written by several goroutines.
type ration struct {
	s         *Store
	id        string
	namespace string // "" where nobody said: then only the commit counts
	held      atomic.Int64
	reserved  atomic.Int64
}

// take asks for room for n bytes more of a blob that has size bytes. Where the
// namespace is full they may still come as long as the blob can be one that it
// has; over is how many came so.
func (q *ration) take(ctx context.Context, size, n int64) (over int64, err error) {
	if err := q.s.disk.fits(n); err != nil {
		return 0, err
	}
	if q.namespace == "" {
		return 0, nil
	}
	need := q.held.Add(n) - freeStep - q.reserved.Load()
	if need <= 0 {
		return 0, nil
	}
	err = q.reserve(ctx, need, reserveStep)
	if tarport.ErrorCode(err) == tarport.Denied {
		has, herr := q.s.db.NamespaceHasLarge(ctx, q.namespace, size+n)
		if herr == nil && has {
			q.held.Add(-n)
			return n, nil
		}
		if herr != nil {
			err = herr
		}
	}
	return 0, err
}

func (q *ration) reserve(ctx context.Context, need, want int64) error {
	got, err := q.s.db.ReserveBatch(ctx, q.id, q.namespace, need, want, q.s.expiry())
	if err == nil {
		q.reserved.Add(got)
	}
	return err
}

// finish is told of a blob that is complete: of size bytes, over of them
// without room. One that the namespace has needs none. It returns how many
// bytes the blob holds.
func (q *ration) finish(ctx context.Context, dgst digest.Digest, size, over int64) (held int64, err error) {
	if q.namespace == "" {
		return 0, nil
	}
	has, err := q.s.db.NamespaceHas(ctx, q.namespace, dgst)
	if err != nil || has {
		q.held.Add(over - size)
		return 0, err
	}
	if over > 0 {
		if err := q.reserve(ctx, over, over); err != nil {
			q.held.Add(over - size)
			return 0, err
		}
		q.held.Add(over)
	}
	return size, nil
}

// give returns the room of a blob that is dropped.
func (q *ration) give(held int64) { q.held.Add(-held) }

// spent is called when a commit has turned all that was reserved into links.
func (q *ration) spent() {
	q.held.Store(0)
	q.reserved.Store(0)
}

// release ends the ration.
func (q *ration) release(ctx context.Context) error {
	if q.reserved.Swap(0) == 0 {
		return nil
	}
	return q.s.db.ReleaseBatch(ctx, q.id)
}
