package metadata

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOnlyOneHolderOfABlobsLockAtATimeOnEveryHandle(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		handles := []*testDB{db}
		if db.dialect == dialectPostgres {
			handles = append(handles, openAt(t, db.dsn, db.clock))
		}
		var holders atomic.Int32
		done := 0 // guarded by the lock alone: the race detector watches
		const goroutines = 40
		errs := make([]error, goroutines) // more than there are connections for locks
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				errs[i] = handles[i%len(handles)].WithBlobLock(t.Context(), digestOf("x"), func(ctx context.Context) error {
					if n := holders.Add(1); n != 1 {
						t.Errorf("%d holders at once", n)
					}
					defer holders.Add(-1)
					done++
					// The work inside has connections of its own.
					return handles[i%len(handles)].PutBlob(ctx, BlobPut{Digest: digestOf("x"), Size: 1, Repository: "a/b", Lease: db.clock.now()})
				})
			})
		}
		wg.Wait()
		check(t, "WithBlobLock", errors.Join(errs...))
		if done != goroutines {
			t.Errorf("ran %d times, want %d", done, goroutines)
		}
		if len(db.locks.held) != 0 {
			t.Errorf("%d locks are kept after use", len(db.locks.held))
		}
	})
}

func TestTheLocksOfTwoBlobsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		err := db.WithBlobLock(t.Context(), digestOf("x"), func(ctx context.Context) error {
			other := make(chan error, 1)
			go func() {
				other <- db.WithBlobLock(ctx, digestOf("y"), func(context.Context) error { return nil })
			}()
			return <-other
		})
		check(t, "WithBlobLock", err)
	})
}

func TestALockIsFreeAfterAnErrorAPanicAndAnEndedContext(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		mine := errors.New("mine")
		d := digestOf("x")
		if err := db.WithBlobLock(t.Context(), d, func(context.Context) error { return mine }); !errors.Is(err, mine) {
			t.Errorf("error = %v, want mine", err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.WithBlobLock(t.Context(), d, func(context.Context) error { panic("mine") })
		}()
		ctx, cancel := context.WithCancel(t.Context())
		err := db.WithBlobLock(ctx, d, func(context.Context) error { cancel(); return nil })
		check(t, "WithBlobLock", err)
		check(t, "WithBlobLock after all that", db.WithBlobLock(t.Context(), d, func(context.Context) error { return nil }))
	})
}

func TestWhoWaitsForALockOfAnotherReplicaCanGiveUp(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	other := openAt(t, db.dsn, db.clock)
	err := db.WithBlobLock(t.Context(), digestOf("x"), func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		errs := make(chan error, 1)
		go func() {
			errs <- other.WithBlobLock(ctx, digestOf("x"), func(context.Context) error {
				t.Error("ran while another held the lock")
				return nil
			})
		}()
		db.waitForLockWait(t)
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want context.Canceled", err)
		}
		return nil
	})
	check(t, "WithBlobLock", err)
	check(t, "WithBlobLock afterwards", other.WithBlobLock(t.Context(), digestOf("x"), func(context.Context) error { return nil }))
}

func TestTheLockOfAReplicaThatDiesIsFree(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	dying := openAt(t, db.dsn, db.clock)
	err := dying.WithBlobLock(t.Context(), digestOf("x"), func(ctx context.Context) error {
		// All of its connections end, as with its process.
		_, err := db.write.ExecContext(ctx, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		check(t, "terminate", err)
		return db.WithBlobLock(ctx, digestOf("x"), func(context.Context) error { return nil })
	})
	check(t, "WithBlobLock", err)
	check(t, "WithBlobLock on the one whose connection was lost",
		dying.WithBlobLock(t.Context(), digestOf("x"), func(context.Context) error { return nil }))
}

func TestATransactionWhoseConnectionIsLostIsUnavailableAndTheNextOneWorks(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	other := openAt(t, db.dsn, db.clock)
	put := BlobPut{Digest: digestOf("x"), Size: 1, Repository: "a/b", Lease: db.clock.in(time.Hour)}
	err := db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
		var pid int64
		if _, err := tx.row(ctx, `SELECT pg_backend_pid()`, nil, &pid); err != nil {
			return err
		}
		other.count(t, `SELECT CASE WHEN pg_terminate_backend($1) THEN 1 ELSE 0 END`, pid)
		waitFor(t, "the backend to go", func() bool {
			return other.count(t, `SELECT COUNT(*) FROM pg_stat_activity WHERE pid = $1`, pid) == 0
		})
		_, err := tx.exec(ctx, upsertBlob, put.Digest.String(), 1, put.Lease.UnixMicro(), tx.now)
		return err
	})
	wantCode(t, "update", err, "UNAVAILABLE")
	check(t, "PutBlob afterwards", db.PutBlob(t.Context(), put))
}
