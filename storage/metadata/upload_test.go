package metadata

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

const (
	holdTime   = time.Minute
	expiryTime = 24 * time.Hour
)

func (db *testDB) session(tb testing.TB, id string) Upload {
	tb.Helper()
	u := Upload{ID: id, Repository: "a/b", Principal: 7, StartedAt: db.clock.now()}
	check(tb, "CreateUpload", db.CreateUpload(tb.Context(), u, db.clock.in(expiryTime)))
	return u
}

func (db *testDB) acquire(tb testing.TB, id, holder string) error {
	tb.Helper()
	_, err := db.AcquireUpload(tb.Context(), "a/b", id, holder, db.clock.in(holdTime), db.clock.in(expiryTime))
	return err
}

func (db *testDB) save(tb testing.TB, id, holder string, size int64) error {
	tb.Helper()
	return db.SaveUpload(tb.Context(), id, holder, UploadProgress{Size: size, Hash: []byte{1, 0, 255}, Expires: db.clock.in(expiryTime)})
}

func TestAnUploadSessionGoesOnWhereItWasSaved(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		want := db.session(t, "one")
		got, err := db.Upload(t.Context(), "a/b", "one")
		check(t, "Upload", err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Upload (-want +got):\n%s", diff)
		}
		check(t, "AcquireUpload", db.acquire(t, "one", "me"))
		check(t, "SaveUpload", db.save(t, "one", "me", 42))
		want.Size, want.Hash = 42, []byte{1, 0, 255}
		got, err = db.AcquireUpload(t.Context(), "a/b", "one", "you", db.clock.in(holdTime), db.clock.in(expiryTime))
		check(t, "AcquireUpload again", err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("AcquireUpload (-want +got):\n%s", diff)
		}
	})
}

func TestAnUploadSessionIsKnownOnlyInItsRepository(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.session(t, "one")
		for _, c := range [][2]string{{"a/c", "one"}, {"a/b", "two"}} {
			_, err := db.Upload(t.Context(), c[0], c[1])
			wantCode(t, "Upload", err, tarport.BlobUploadUnknown)
			_, err = db.AcquireUpload(t.Context(), c[0], c[1], "me", db.clock.in(holdTime), db.clock.in(expiryTime))
			wantCode(t, "AcquireUpload", err, tarport.BlobUploadUnknown)
		}
		check(t, "AcquireUpload after all that", db.acquire(t, "one", "me"))
		has, err := db.HasUpload(t.Context(), "one")
		check(t, "HasUpload", err)
		hasNot, err := db.HasUpload(t.Context(), "two")
		check(t, "HasUpload", err)
		if !has || hasNot {
			t.Errorf("HasUpload = %v and %v, want true and false", has, hasNot)
		}
	})
}

func TestOneHolderHasASessionUntilItLetsGo(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.session(t, "one")
		check(t, "AcquireUpload", db.acquire(t, "one", "me"))
		wantCode(t, "AcquireUpload by another", db.acquire(t, "one", "you"), tarport.Conflict)
		wantCode(t, "AcquireUpload by the holder again", db.acquire(t, "one", "me"), tarport.Conflict)
		check(t, "HoldUpload", db.HoldUpload(t.Context(), "one", "me", db.clock.in(holdTime)))
		check(t, "ReleaseUpload", db.ReleaseUpload(t.Context(), "one", "me"))
		check(t, "AcquireUpload after the release", db.acquire(t, "one", "you"))
		check(t, "SaveUpload", db.save(t, "one", "you", 1))
		check(t, "AcquireUpload after the saving", db.acquire(t, "one", "me"))
		check(t, "DeleteUpload", db.DeleteUpload(t.Context(), "one", "me"))
		wantCode(t, "AcquireUpload after the deletion", db.acquire(t, "one", "you"), tarport.BlobUploadUnknown)
		wantCode(t, "DeleteUpload twice", db.DeleteUpload(t.Context(), "one", "me"), tarport.BlobUploadUnknown)
		wantCode(t, "SaveUpload after the deletion", db.save(t, "one", "me", 2), tarport.BlobUploadUnknown)
	})
}

func TestOfManyThatTakeASessionAtOnceOneGetsIt(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		handles := []*testDB{db}
		if db.dialect == dialectPostgres {
			handles = append(handles, openAt(t, db.dsn, db.clock))
		}
		for round := range 5 {
			id := fmt.Sprint(round)
			db.session(t, id)
			var got atomic.Int32
			errs := make([]error, 16)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() {
					if errs[i] = handles[i%len(handles)].acquire(t, id, fmt.Sprint("holder ", i)); errs[i] == nil {
						got.Add(1)
					} else if tarport.ErrorCode(errs[i]) == tarport.Conflict {
						errs[i] = nil
					}
				})
			}
			wg.Wait()
			check(t, "AcquireUpload", errors.Join(errs...))
			if got.Load() != 1 {
				t.Errorf("%d of 16 got the session, want 1", got.Load())
			}
		}
	})
}

func TestABlobEndsTheSessionThatItsHolderStillHas(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.session(t, "one")
		check(t, "AcquireUpload", db.acquire(t, "one", "me"))
		put := BlobPut{Digest: digestOf("x"), Size: 1, Repository: "a/b", Upload: "one", Holder: "me", Lease: db.clock.in(grace)}
		check(t, "PutBlob", db.PutBlob(t.Context(), put))
		_, err := db.Upload(t.Context(), "a/b", "one")
		wantCode(t, "the session", err, tarport.BlobUploadUnknown)
		put.Digest = digestOf("y")
		wantCode(t, "PutBlob once more", db.PutBlob(t.Context(), put), tarport.BlobUploadUnknown)
		_, err = db.Blob(t.Context(), put.Digest)
		wantCode(t, "the blob of a session that was not there", err, tarport.BlobUnknown)
		if n := len(db.holds.by); n != 0 {
			t.Errorf("%d holds are kept, want 0", n)
		}
	})
}

// TestTheHoldOfAReplicaThatDiedEnds goes by the clock of each replica.
func TestTheHoldOfAReplicaThatDiedEnds(t *testing.T) {
	t.Parallel()
	dead := onPostgres(t)
	db := openAt(t, dead.dsn, newClock())
	dead.session(t, "one")
	check(t, "AcquireUpload", dead.acquire(t, "one", "dead"))
	db.clock.advance(holdTime - time.Microsecond)
	wantCode(t, "AcquireUpload while the hold counts", db.acquire(t, "one", "me"), tarport.Conflict)
	check(t, "HoldUpload", dead.HoldUpload(t.Context(), "one", "dead", dead.clock.in(2*holdTime)))
	db.clock.advance(time.Microsecond)
	wantCode(t, "AcquireUpload after the hold was prolonged", db.acquire(t, "one", "me"), tarport.Conflict)
	db.clock.advance(holdTime)
	check(t, "AcquireUpload after the hold", db.acquire(t, "one", "me"))
	for what, err := range map[string]error{
		"HoldUpload":    dead.HoldUpload(t.Context(), "one", "dead", dead.clock.in(holdTime)),
		"SaveUpload":    dead.save(t, "one", "dead", 9),
		"ReleaseUpload": dead.ReleaseUpload(t.Context(), "one", "dead"),
		"DeleteUpload":  dead.DeleteUpload(t.Context(), "one", "dead"),
		"PutBlob": dead.PutBlob(t.Context(), BlobPut{
			Digest: digestOf("x"), Size: 1, Repository: "a/b",
			Upload: "one", Holder: "dead", Lease: dead.clock.now(),
		}),
	} {
		wantCode(t, what+" of the one that was thought dead", err, tarport.BlobUploadUnknown)
	}
	check(t, "SaveUpload of the new holder", db.save(t, "one", "me", 3))
	u, err := db.Upload(t.Context(), "a/b", "one")
	check(t, "Upload", err)
	if u.Size != 3 {
		t.Errorf("size = %d, want 3", u.Size)
	}
}

func TestASessionThatNobodyHoldsExpiresAndIsTakenOnce(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		expired := func() []string {
			t.Helper()
			ids, err := db.ExpiredUploads(t.Context(), 10, "")
			check(t, "ExpiredUploads", err)
			return ids
		}
		take := func(id, holder string) bool {
			t.Helper()
			taken, err := db.TakeExpiredUpload(t.Context(), id, holder, db.clock.in(holdTime))
			check(t, "TakeExpiredUpload", err)
			return taken
		}
		for _, id := range []string{"idle", "held", "saved"} {
			db.session(t, id)
		}
		db.clock.advance(expiryTime - time.Second)
		check(t, "AcquireUpload", db.acquire(t, "held", "me"))
		check(t, "AcquireUpload", db.acquire(t, "saved", "me"))
		check(t, "SaveUpload", db.save(t, "saved", "me", 1))
		if got := expired(); len(got) != 0 || take("idle", "sweep") {
			t.Errorf("expired before the time: %v", got)
		}
		db.clock.advance(time.Second)
		if take("held", "sweep") || take("saved", "sweep") {
			t.Error("took a session that is held or that has gone on")
		}
		if !slices.Contains(expired(), "idle") || slices.Contains(expired(), "saved") {
			t.Errorf("expired = %v, want idle in it and not saved", expired())
		}
		if after, err := db.ExpiredUploads(t.Context(), 10, "idle"); err != nil || len(after) != 0 {
			t.Errorf("expired after idle = %v, %v, want none", after, err)
		}
		if !take("idle", "sweep") {
			t.Error("did not get the expired session")
		}
		if take("idle", "another sweep") {
			t.Error("the expired session was taken twice")
		}
		wantCode(t, "AcquireUpload of a session that is being swept", db.acquire(t, "idle", "me"), tarport.Conflict)
		check(t, "DeleteUpload", db.DeleteUpload(t.Context(), "idle", "sweep"))
		if take("idle", "sweep") {
			t.Error("took a session that is gone")
		}
	})
}

func TestSessionsAreCountedByWhoBeganThem(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for i := range 3 {
			db.session(t, fmt.Sprint(i))
		}
		check(t, "AcquireUpload", db.acquire(t, "0", "me"))
		check(t, "DeleteUpload", db.DeleteUpload(t.Context(), "0", "me"))
		for principal, want := range map[int64]int{7: 2, 8: 0} {
			got, err := db.CountUploads(t.Context(), principal, time.Time{})
			check(t, "CountUploads", err)
			if got != want {
				t.Errorf("CountUploads(%d) = %d, want %d", principal, got, want)
			}
		}
	})
}
