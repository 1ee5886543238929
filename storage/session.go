package storage

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"github.com/tarport/tarport/storage/metadata"
)

// session is an upload session as one request has it: a row that nobody else
// writes to until it is let go of.
type session struct {
	s      *Store
	row    metadata.Upload
	holder string // "" where nobody holds it yet
	over   bool   // let go of, finished or cancelled
	stop   func() // ends the renewing of the hold; nil where there is none
}

const (
	holdFor   = 60 * time.Second
	holdEvery = 15 * time.Second
)

// heldUntil is how long a hold counts if it is not renewed: a replica may die
// and leave its holds behind.
func (s *Store) heldUntil() time.Time { return s.o.Now().Add(holdFor) }

func (s *Store) expiry() time.Time { return s.o.Now().Add(s.o.UploadExpiry) }

// acquire takes the session for this request. CONFLICT where another one has it.
func (u *session) acquire(ctx context.Context) error {
	holder := rand.Text()
	row, err := u.s.db.AcquireUpload(ctx, u.row.Repository, u.row.ID, holder, u.s.heldUntil(), u.s.expiry())
	if err != nil {
		return err
	}
	u.row, u.holder = row, holder
	if !u.s.db.Exclusive() {
		u.keep(ctx)
	}
	return nil
}

// keep renews the hold while the request lives.
func (u *session) keep(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(holdEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if err := u.s.db.HoldUpload(ctx, u.row.ID, u.holder, u.s.heldUntil()); err != nil && ctx.Err() == nil {
					u.s.o.Log.LogAttrs(ctx, slog.LevelWarn, "hold of an upload was not renewed", slog.Any("err", err))
				}
			}
		}
	})
	u.stop = func() { cancel(); wg.Wait() }
}

// still makes sure that the session is held, for long enough to end it: a
// request that lost it must not use a file that another one writes.
func (u *session) still(ctx context.Context) error {
	if u.s.db.Exclusive() { // a hold ends with its request
		return nil
	}
	return u.s.db.HoldUpload(context.WithoutCancel(ctx), u.row.ID, u.holder, u.s.heldUntil())
}

// end is called before the session is let go of.
func (u *session) end() {
	u.over = true
	if u.stop != nil {
		u.stop()
	}
}
