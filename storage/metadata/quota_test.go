package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarport/tarport"
)

// sized puts a blob of any size into a repository.
func (db *testDB) sized(tb testing.TB, repository, content string, size int64) error {
	tb.Helper()
	return db.PutBlob(tb.Context(), BlobPut{Digest: digestOf(content), Size: size, Repository: repository, Lease: db.clock.in(grace)})
}

func (db *testDB) wantUsage(tb testing.TB, what, namespace string, used, reserved int64) {
	tb.Helper()
	u, err := db.Usage(tb.Context(), namespace)
	check(tb, "Usage", err)
	if u.Used != used || u.Reserved != reserved {
		tb.Errorf("%s: %s uses %d and has reserved %d, want %d and %d", what, namespace, u.Used, u.Reserved, used, reserved)
	}
}

// wantTrueUsage fails the test where what is stored is not what is there.
func (db *testDB) wantTrueUsage(tb testing.TB, what string) {
	tb.Helper()
	list, err := db.Recount(tb.Context(), false)
	check(tb, "Recount", err)
	for _, r := range list {
		if !r.Equal() {
			tb.Fatalf("%s: usage of %s: stored %+v, recounted %+v", what, r.Namespace, r.Stored, r.Counted)
		}
	}
}

func TestABlobCountsOnceInANamespace(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for _, repo := range []string{"a/one", "a/two", "a/one", "b/one"} {
			check(t, "PutBlob", db.sized(t, repo, "x", 100))
		}
		db.wantUsage(t, "one blob in two repositories", "a", 100, 0)
		db.wantUsage(t, "the same blob elsewhere", "b", 100, 0)
		_, err := db.MountBlob(t.Context(), "a/one", "a/three", digestOf("x"), db.clock.in(grace))
		check(t, "MountBlob", err)
		db.wantUsage(t, "a mount within the namespace", "a", 100, 0)
		check(t, "UnlinkBlob", db.UnlinkBlob(t.Context(), "a/one", digestOf("x")))
		check(t, "UnlinkBlob", db.UnlinkBlob(t.Context(), "a/two", digestOf("x")))
		db.wantUsage(t, "with one link left", "a", 100, 0)
		check(t, "UnlinkBlob", db.UnlinkBlob(t.Context(), "a/three", digestOf("x")))
		db.wantUsage(t, "with no link left", "a", 0, 0)
		db.wantUsage(t, "elsewhere", "b", 100, 0)
		db.clock.advance(2 * grace)
		if !db.markGoing(t, digestOf("x")) {
			t.Fatal("MarkGoing = false")
		}
		db.wantUsage(t, "after the collector", "b", 0, 0)
		db.wantTrueUsage(t, "at the end")
	})
}

func TestADeletedImageCostsNothingAnyMore(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for _, content := range []string{"config", "shared", "own"} {
			db.pushBlob(t, "a/b", content, grace)
		}
		one := manifest("one", "config:config", "layer:shared", "layer:own")
		two := manifest("two", "config:config", "layer:shared")
		db.mustPut(t, db.put("a/b", one, "1"), db.put("a/b", two, "2"))
		db.wantUsage(t, "two images", "a", 6+6+3, 0)
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", one.Digest, "alice", db.clock.in(grace)))
		db.wantUsage(t, "one image", "a", 6+6, 0)
		if _, err := db.LinkedBlob(t.Context(), "a/b", digestOf("own")); err != nil {
			t.Errorf("a blob of the deleted image: %v, want it readable until it is collected", err)
		}
		db.wantTrueUsage(t, "after the delete")

		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 6+6))
		wantCode(t, "the deleted image once more, over the quota", db.PutManifests(t.Context(), []ManifestPut{db.put("a/b", one, "1")}), tarport.Denied)
		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 6+6+3))
		db.mustPut(t, db.put("a/b", one, "1"))
		db.wantUsage(t, "the deleted image once more", "a", 6+6+3, 0)
		check(t, "DeleteRepository", db.DeleteRepository(t.Context(), "a/b", db.clock.in(grace)))
		db.wantUsage(t, "without its repository", "a", 0, 0)
		db.wantTrueUsage(t, "at the end")
	})
}

func TestWhatExceedsTheQuotaIsRefusedInWordsAndChangesNothing(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		check(t, "PutBlob", db.sized(t, "a/b", "x", 3<<20))
		check(t, "PutBlob", db.sized(t, "b/b", "big", 8<<20))
		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 10<<20))
		err := db.sized(t, "a/new", "y", 7<<20+1)
		wantCode(t, "a blob one byte too large", err, tarport.Denied)
		e, _ := errors.AsType[*tarport.Error](err)
		for _, words := range []string{"namespace a is full", "uses 3.0 MiB of 10.0 MiB", "needs 7.0 MiB more"} {
			if !strings.Contains(e.Message, words) {
				t.Errorf("message = %q, want %q in it", e.Message, words)
			}
		}
		_, err = db.LinkedBlob(t.Context(), "a/new", digestOf("y"))
		wantCode(t, "the refused blob", err, tarport.BlobUnknown)
		_, err = db.MountBlob(t.Context(), "b/b", "a/b", digestOf("big"), db.clock.in(grace))
		wantCode(t, "a mount", err, tarport.Denied)
		linking := db.put("a/b", manifest("m"))
		linking.Links = append(linking.Links, digestOf("big"))
		wantCode(t, "a load", db.PutManifests(t.Context(), []ManifestPut{linking}), tarport.Denied)
		check(t, "the last byte", db.sized(t, "a/b", "z", 7<<20))
		check(t, "what is there", db.sized(t, "a/c", "x", 3<<20))
		check(t, "SetQuota below the usage", db.SetQuota(t.Context(), "a", 1))
		check(t, "a delete when over the quota", db.UnlinkBlob(t.Context(), "a/b", digestOf("z")))
		check(t, "what is there when over the quota", db.sized(t, "a/d", "x", 3<<20))
		wantCode(t, "one byte when over the quota", db.sized(t, "a/b", "w", 1), tarport.Denied)
		wantCode(t, "a quota of -2", db.SetQuota(t.Context(), "a", -2), tarport.Invalid)
		wantCode(t, "a quota of nothing", db.SetQuota(t.Context(), "nowhere", 1), tarport.NotFound)
		db.wantUsage(t, "at the end", "a", 3<<20, 0)
		db.wantTrueUsage(t, "at the end")
	})
}

// begin begins an upload session and holds it.
func (db *testDB) begin(tb testing.TB, repository, id string) {
	tb.Helper()
	check(tb, "CreateUpload", db.CreateUpload(tb.Context(), Upload{ID: id, Repository: repository, Principal: 1, StartedAt: db.clock.now()}, db.clock.in(grace)))
	_, err := db.AcquireUpload(tb.Context(), repository, id, "h-"+id, db.clock.in(time.Hour), db.clock.in(grace))
	check(tb, "AcquireUpload", err)
}

func TestUploadsReserveAndGiveBack(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.begin(t, "a/b", "early") // before its namespace is there
		got, err := db.ReserveUpload(t.Context(), "early", "h-early", "a/b", 5, 50)
		check(t, "ReserveUpload", err)
		if got != 50 {
			t.Errorf("reserved %d in a namespace that is not there, want 50", got)
		}
		check(t, "PutBlob", db.sized(t, "a/b", "x", 10))
		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 100))
		db.wantUsage(t, "an upload that began before its namespace", "a", 10, 0)
		check(t, "SaveUpload", db.SaveUpload(t.Context(), "early", "h-early", UploadProgress{Size: 5, Expires: db.clock.in(grace)}))
		db.wantUsage(t, "saved", "a", 10, 5)

		db.begin(t, "a/b", "u")
		got, err = db.ReserveUpload(t.Context(), "u", "h-u", "a/b", 20, 80)
		check(t, "ReserveUpload", err)
		if got != 80 {
			t.Errorf("reserved %d, want 80", got)
		}
		got, err = db.ReserveUpload(t.Context(), "u", "h-u", "a/b", 2, 80)
		check(t, "ReserveUpload", err)
		if got < 2 || got > 5 {
			t.Errorf("reserved %d of the last 5, want 2 to 5", got)
		}
		_, err = db.ReserveUpload(t.Context(), "u", "h-u", "a/b", 6, 6)
		wantCode(t, "more than is left", err, tarport.Denied)
		wantCode(t, "CheckQuota", db.CheckQuota(t.Context(), "a", 6), tarport.Denied)
		check(t, "CheckQuota elsewhere", db.CheckQuota(t.Context(), "nowhere", 1<<50))
		check(t, "CheckpointUpload", db.CheckpointUpload(t.Context(), "u", "h-u", UploadProgress{Size: 7, Expires: db.clock.in(grace)}))
		db.wantUsage(t, "after a checkpoint", "a", 10, 5+7)
		wantCode(t, "a checkpoint over the quota", db.CheckpointUpload(t.Context(), "u", "h-u", UploadProgress{Size: 86, Expires: db.clock.in(grace)}), tarport.Denied)

		check(t, "PutBlob", db.PutBlob(t.Context(), BlobPut{Digest: digestOf("u"), Size: 7, Repository: "a/b", Upload: "u", Holder: "h-u", Lease: db.clock.in(grace)}))
		db.wantUsage(t, "finished", "a", 17, 5)
		db.clock.advance(2 * grace)
		taken, err := db.TakeExpiredUpload(t.Context(), "early", "sweeper", db.clock.in(time.Hour))
		check(t, "TakeExpiredUpload", err)
		if !taken {
			t.Fatal("an expired upload was not taken")
		}
		check(t, "DeleteUpload", db.DeleteUpload(t.Context(), "early", "sweeper"))
		db.wantUsage(t, "expired", "a", 17, 0)
		db.wantTrueUsage(t, "at the end")
	})
}

func TestBatchesReserveAndGiveBack(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		check(t, "PutBlob", db.sized(t, "a/b", "x", 10))
		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 100))
		reserve := func(id string, need int64) error {
			_, err := db.ReserveBatch(t.Context(), id, "a", need, need, db.clock.in(grace))
			return err
		}
		check(t, "ReserveBatch", reserve("one", 30))
		check(t, "ReserveBatch", reserve("one", 20))
		check(t, "ReserveBatch", reserve("two", 40))
		wantCode(t, "more than is left", reserve("two", 1), tarport.Denied)
		db.wantUsage(t, "two batches", "a", 10, 90)

		check(t, "PutBlob", db.sized(t, "", "layer", 50))
		put := db.put("a/b", manifest("m"), "latest")
		put.Links = append(put.Links, digestOf("layer"))
		check(t, "PutBatch", db.PutBatch(t.Context(), "one", []ManifestPut{put}))
		db.wantUsage(t, "one of them committed", "a", 60, 40)
		check(t, "ReleaseBatch", db.ReleaseBatch(t.Context(), "two"))
		check(t, "ReleaseBatch again", db.ReleaseBatch(t.Context(), "two"))
		db.wantUsage(t, "the other given back", "a", 60, 0)
		check(t, "ReserveBatch", reserve("crashed", 40))
		check(t, "ReleaseBatches", db.ReleaseBatches(t.Context(), db.clock.now()))
		db.wantUsage(t, "before it expires", "a", 60, 40)
		check(t, "ReleaseBatches", db.ReleaseBatches(t.Context(), db.clock.in(grace)))
		db.wantUsage(t, "when it has expired", "a", 60, 0)
		db.wantTrueUsage(t, "at the end")
	})
}

func TestRecountFindsAndRepairsWhatIsWrong(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		check(t, "PutBlob", db.sized(t, "a/b", "x", 10))
		check(t, "PutBlob", db.sized(t, "b/b", "x", 10))
		db.sql(t, `UPDATE namespaces SET used_bytes = 7, reserved_bytes = 3 WHERE name = 'a'`)
		list, err := db.Recount(t.Context(), true)
		check(t, "Recount", err)
		if len(list) != 2 || list[0].Namespace != "a" || list[0].Equal() || !list[1].Equal() {
			t.Errorf("Recount = %+v, want a to differ and b not", list)
		}
		db.wantUsage(t, "repaired", "a", 10, 0)
		db.wantTrueUsage(t, "repaired")
	})
}

// tracer makes random changes, as several clients would.
type tracer struct {
	*testDB
	r    *rand.Rand
	open map[string]string // repository by session that is held
	n    int
}

func (x *tracer) repo() string {
	return fmt.Sprintf("%c/%d", 'a'+x.r.IntN(2), x.r.IntN(3))
}

func (x *tracer) content() (string, int64) {
	n := 1 + x.r.IntN(6)
	return fmt.Sprint("blob", n), int64(n * 10)
}

// step makes one change; what is refused for a reason that a client may meet is
// part of the trace.
func (x *tracer) step(ctx context.Context, tb testing.TB) {
	tb.Helper()
	x.n++
	repo := x.repo()
	content, size := x.content()
	id := fmt.Sprint("u", x.n)
	m := manifest(fmt.Sprint("m", x.r.IntN(3)), "layer:"+content)
	m.References[0].Size = size
	var err error
	switch x.r.IntN(15) {
	case 0, 1, 2:
		err = x.PutBlob(ctx, BlobPut{Digest: digestOf(content), Size: size, Repository: repo, Lease: x.clock.in(time.Hour)})
	case 3:
		_, err = x.MountBlob(ctx, x.repo(), repo, digestOf(content), x.clock.in(time.Hour))
	case 4:
		err = x.UnlinkBlob(ctx, repo, digestOf(content))
	case 5:
		err = x.PutManifests(ctx, []ManifestPut{x.put(repo, m, "latest"), x.put(x.repo(), m)})
	case 6:
		err = x.DeleteManifest(ctx, repo, m.Digest, "", x.clock.in(time.Hour))
	case 7:
		x.begin(tb, repo, id)
		x.open[id] = repo
		_, err = x.ReserveUpload(ctx, id, "h-"+id, repo, 1, int64(x.r.IntN(40)))
	case 8, 9:
		err = x.finishOne(ctx, digestOf(content).String(), size)
	case 10:
		id = fmt.Sprint("b", x.r.IntN(3))
		_, err = x.ReserveBatch(ctx, id, tarport.Namespace(repo), 1, int64(x.r.IntN(40)), x.clock.in(time.Hour))
	case 11:
		p := x.put(repo, m, "loaded")
		p.Links = append(p.Links, digestOf(content))
		err = x.PutBatch(ctx, fmt.Sprint("b", x.r.IntN(3)), []ManifestPut{p})
	case 12:
		err = x.collect(ctx, content)
	case 13:
		if x.r.IntN(4) == 0 {
			_, err = x.DeleteNamespace(ctx, tarport.Namespace(repo), true, x.clock.in(time.Hour))
		}
	case 14:
		err = x.SetQuota(ctx, tarport.Namespace(repo), int64(x.r.IntN(300)-1))
		if x.r.IntN(4) == 0 {
			err = x.DeleteRepository(ctx, repo, x.clock.in(time.Hour))
		}
	}
	if code := tarport.ErrorCode(err); code == tarport.Internal {
		tb.Fatalf("step %d: %v", x.n, err)
	}
}

// finishOne ends one of the sessions in one of the ways that there are.
func (x *tracer) finishOne(ctx context.Context, dgst string, size int64) error {
	for id, repo := range x.open {
		delete(x.open, id)
		switch x.r.IntN(3) {
		case 0:
			return x.DeleteUpload(ctx, id, "h-"+id)
		case 1:
			return x.SaveUpload(ctx, id, "h-"+id, UploadProgress{Size: size, Expires: x.clock.in(time.Hour)})
		}
		d, err := tarport.ParseDigest(dgst)
		if err != nil {
			return err
		}
		return x.PutBlob(ctx, BlobPut{Digest: d, Size: size, Repository: repo, Upload: id, Holder: "h-" + id, Lease: x.clock.in(time.Hour)})
	}
	return nil
}

func (x *tracer) collect(ctx context.Context, content string) error {
	going, err := x.MarkGoing(ctx, digestOf(content), x.clock.in(2*time.Hour))
	if err != nil || !going {
		return err
	}
	return x.DropGoing(ctx, digestOf(content))
}

func TestStoredUsageIsTheRecountedOneAfterEveryTrace(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		traces, steps := 12, 120
		if testing.Short() {
			traces = 3
		}
		for trace := range traces {
			seed := rand.Uint64()
			x := &tracer{testDB: db, r: rand.New(rand.NewPCG(seed, 0)), open: map[string]string{}, n: trace * 1000}
			for range steps {
				x.step(t.Context(), t)
				if x.n%10 == 0 {
					db.wantTrueUsage(t, fmt.Sprintf("seed %d, step %d", seed, x.n))
				}
			}
			db.wantTrueUsage(t, fmt.Sprintf("seed %d, the end", seed))
		}
	})
}

// TestConcurrentPushesMountsAndCancelsNeverExceedNorLeak races what a namespace
// of 100 bytes can hold about half of.
func TestConcurrentPushesMountsAndCancelsNeverExceedNorLeak(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for i := range 8 {
			check(t, "PutBlob", db.sized(t, "other/b", fmt.Sprint("mount", i), 10))
		}
		check(t, "PutBlob", db.sized(t, "a/b", "first", 10))
		check(t, "SetQuota", db.SetQuota(t.Context(), "a", 100))
		var wg sync.WaitGroup
		done := make(chan struct{})
		worst := make(chan int64, 1)
		go func() {
			var most int64
			for {
				u, err := db.Usage(context.WithoutCancel(t.Context()), "a")
				if err == nil {
					most = max(most, u.Used+u.Reserved)
				}
				select {
				case <-done:
					worst <- most
					return
				default:
				}
			}
		}()
		errs := make(chan error, 64)
		for w := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), 1))
				for i := range 12 {
					errs <- db.race(t, r, fmt.Sprintf("%d-%d", w, i))
				}
			})
		}
		go func() { wg.Wait(); close(errs) }()
		refused := 0
		for err := range errs {
			switch code := tarport.ErrorCode(err); code {
			case tarport.Denied:
				refused++
			case "", tarport.BlobUnknown, tarport.Conflict:
			default:
				t.Errorf("raced: %v", err)
			}
		}
		close(done)
		if most := <-worst; most > 100 {
			t.Errorf("%d bytes were used of a quota of 100", most)
		}
		if refused == 0 {
			t.Error("nothing was refused: the race is none")
		}
		db.wantTrueUsage(t, "after the race")
		u, err := db.Usage(t.Context(), "a")
		check(t, "Usage", err)
		if u.Reserved != 0 {
			t.Errorf("%d bytes are still reserved", u.Reserved)
		}
	})
}

// TestOfTwoThatLinkOneBlobTheSecondSeesTheFirst is about PostgreSQL, where two
// transactions run at once.
func TestOfTwoThatLinkOneBlobTheSecondSeesTheFirst(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	for _, repo := range []string{"other/b", "a/one", "a/two"} {
		check(t, "PutBlob", db.sized(t, repo, repo, 1))
	}
	check(t, "PutBlob", db.sized(t, "other/b", "x", 100))
	linked, second := make(chan struct{}), make(chan error)
	go func() {
		<-linked
		_, err := db.MountBlob(context.WithoutCancel(t.Context()), "other/b", "a/two", digestOf("x"), db.clock.in(grace))
		second <- err
	}()
	err := db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
		repo, _, err := tx.repository(ctx, "a/one")
		if err == nil {
			err = tx.linkBlob(ctx, repo, digestOf("x"), 100)
		}
		if err == nil {
			err = tx.settle(ctx)
		}
		close(linked)
		db.waitForLockWait(t)
		return err
	})
	check(t, "the first", err)
	check(t, "the second", <-second)
	db.wantUsage(t, "after both", "a", 102, 0)
	db.wantTrueUsage(t, "after both")
}

// race pushes, mounts, cancels or deletes once.
func (db *testDB) race(tb testing.TB, r *rand.Rand, id string) error {
	tb.Helper()
	ctx := tb.Context()
	repo := fmt.Sprint("a/", r.IntN(3))
	n := r.IntN(8)
	switch r.IntN(4) {
	case 0:
		_, err := db.MountBlob(ctx, "other/b", repo, digestOf(fmt.Sprint("mount", n)), db.clock.in(grace))
		return err
	case 1:
		return db.UnlinkBlob(ctx, repo, digestOf(fmt.Sprint("mount", n)))
	}
	u := Upload{ID: id, Repository: repo, Principal: 1, StartedAt: db.clock.now()}
	if err := db.CreateUpload(ctx, u, db.clock.in(grace)); err != nil {
		return err
	}
	if _, err := db.AcquireUpload(ctx, repo, id, id, db.clock.in(time.Hour), db.clock.in(grace)); err != nil {
		return err
	}
	_, err := db.ReserveUpload(ctx, id, id, repo, 10, 30)
	if err == nil && n%2 == 0 {
		err = db.PutBlob(ctx, BlobPut{Digest: digestOf(fmt.Sprint("push", n)), Size: 10, Repository: repo, Upload: id, Holder: id, Lease: db.clock.in(grace)})
		if err == nil {
			return nil
		}
	}
	return errors.Join(err, db.DeleteUpload(ctx, id, id))
}

func BenchmarkPutBlob(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *testDB{"sqlite": onSQLite, "postgres": onPostgres} {
		b.Run(name, func(b *testing.B) {
			db := open(b)
			check(b, "PutBlob", db.sized(b, "a/b", "first", 1))
			check(b, "SetQuota", db.SetQuota(b.Context(), "a", 1<<60))
			i := 0
			for b.Loop() {
				i++
				check(b, "PutBlob", db.sized(b, "a/b", fmt.Sprint(i), 1))
			}
		})
	}
}

func BenchmarkCheckQuota(b *testing.B) {
	db := onSQLite(b)
	check(b, "PutBlob", db.sized(b, "a/b", "first", 1))
	for b.Loop() {
		check(b, "CheckQuota", db.CheckQuota(b.Context(), "a", 1))
	}
}

func BenchmarkPutManifest(b *testing.B) {
	db := onSQLite(b)
	var references []string
	for i := range 8 {
		db.pushBlob(b, "a/b", fmt.Sprint("l", i), 2*grace)
		references = append(references, fmt.Sprint("layer:l", i))
	}
	i := 0
	for b.Loop() {
		i++
		db.mustPut(b, db.put("a/b", manifest(fmt.Sprint("m", i), references...), fmt.Sprint("t", i)))
	}
}
