package metadata

import (
	"context"
	"database/sql/driver"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/opencontainers/go-digest"
)

// WithBlobLock runs fn while nobody else runs one for the same digest, on any
// replica. It is held where a blob's bytes are put into place or taken away
// together with its row, and for nothing long: no transfer happens under it.
// Locks are not nested.
func (db *DB) WithBlobLock(ctx context.Context, dgst digest.Digest, fn func(context.Context) error) error {
	if db.dialect == dialectSQLite { // one process
		unlock := db.locks.lock(dgst.String())
		defer unlock()
		return fn(ctx)
	}
	conn, err := db.locking.Conn(ctx)
	if err != nil {
		return fmt.Errorf("lock blob %s: %w", dgst, classify(err))
	}
	defer func() { _ = conn.Close() }()
	h := fnv.New64a()
	_, _ = h.Write([]byte("blob:" + dgst.String()))
	key := int64(h.Sum64()) //nolint:gosec // any 64 bits will do
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		return fmt.Errorf("lock blob %s: %w", dgst, classify(err))
	}
	defer func() {
		// The context may have ended; the lock must go all the same, or else
		// the connection that holds it.
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", key); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	return fn(ctx)
}

// keyLocks are mutexes by name that take no memory while nobody holds them.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

func (l *keyLocks) lock(key string) (unlock func()) {
	l.mu.Lock()
	k := l.held[key]
	if k == nil {
		if l.held == nil {
			l.held = map[string]*keyLock{}
		}
		k = &keyLock{}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	k.Lock()
	return func() {
		k.Unlock()
		l.mu.Lock()
		if k.users--; k.users == 0 {
			delete(l.held, key)
		}
		l.mu.Unlock()
	}
}

// holds are the upload sessions that requests of this process hold, where no
// other process can hold any: they cost no transaction, and end with the process.
type holds struct {
	mu sync.Mutex
	by map[string]string // holder by session
}

// take gives a session to holder; false where another has it.
func (h *holds) take(id, holder string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by[id] != "" {
		return false
	}
	if h.by == nil {
		h.by = map[string]string{}
	}
	h.by[id] = holder
	return true
}

// release lets go of a session that holder has.
func (h *holds) release(id, holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by[id] == holder {
		delete(h.by, id)
	}
}
