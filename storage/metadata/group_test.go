package metadata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarport/tarport"
)

// blocked lets the writer wait in a job until release is called; what comes
// meanwhile is one group.
func (db *testDB) blocked(t *testing.T) (release func()) {
	t.Helper()
	running, gate := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := db.update(context.WithoutCancel(t.Context()), relaxed, func(context.Context, *Tx) error {
			close(running)
			<-gate
			return nil
		})
		if err != nil {
			t.Errorf("the blocking job: %v", err)
		}
	})
	<-running
	return func() { close(gate); wg.Wait() }
}

// queued waits until n jobs wait for the writer.
func (db *testDB) queued(t *testing.T, n int) {
	t.Helper()
	waitFor(t, "jobs in the queue", func() bool { return len(db.group.queue) == n })
}

func insertNamed(ctx context.Context, tx *Tx, name string) error {
	_, err := tx.exec(ctx, `INSERT INTO namespaces (name, created_at) VALUES ($1, $2)`, name, tx.now)
	return err
}

// group runs the jobs, in their order, as one group and returns their errors.
func (db *testDB) asGroup(t *testing.T, jobs ...func(ctx context.Context, tx *Tx) error) []error {
	t.Helper()
	release := db.blocked(t)
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i, job := range jobs {
		wg.Go(func() { errs[i] = db.update(t.Context(), durable, job) })
		db.queued(t, i+1)
	}
	release()
	wg.Wait()
	return errs
}

func (db *testDB) names(t *testing.T) []string {
	t.Helper()
	list, err := all(t.Context(), db.view(), scanOne[string], `SELECT name FROM namespaces ORDER BY name`)
	check(t, "list names", err)
	return list
}

func wantNames(t *testing.T, db *testDB, want ...string) {
	t.Helper()
	if got := db.names(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rows = %v, want %v", got, want)
	}
}

func TestWaitingTransactionsShareOneCommit(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	var seen []string
	errs := db.asGroup(t,
		func(ctx context.Context, tx *Tx) error { return insertNamed(ctx, tx, "first") },
		func(ctx context.Context, tx *Tx) error {
			seen = db.names(t) // from a connection that reads: nothing is committed yet
			return insertNamed(ctx, tx, "second")
		})
	check(t, "jobs", errors.Join(errs...))
	if len(seen) != 0 {
		t.Errorf("a reader saw %v in the middle of a group, want nothing", seen)
	}
	wantNames(t, db, "first", "second")
}

func TestAJobThatFailsTakesNothingOfItsNeighboursAndLeavesNothing(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	insert := func(name string) func(context.Context, *Tx) error {
		return func(ctx context.Context, tx *Tx) error { return insertNamed(ctx, tx, name) }
	}
	for name, bad := range map[string]struct {
		job  func(ctx context.Context, tx *Tx) error
		want error
	}{
		"an error of its own": {func(ctx context.Context, tx *Tx) error {
			return errors.Join(insertNamed(ctx, tx, "bad"), mine)
		}, mine},
		"a violated constraint": {func(ctx context.Context, tx *Tx) error {
			return errors.Join(insertNamed(ctx, tx, "bad"), insertNamed(ctx, tx, "bad"))
		}, errConflict},
		"a constraint that only the commit checks": {func(ctx context.Context, tx *Tx) error {
			if _, err := tx.exec(ctx, `PRAGMA defer_foreign_keys = 1`); err != nil {
				return err
			}
			if err := insertNamed(ctx, tx, "bad"); err != nil {
				return err
			}
			_, err := tx.exec(ctx, insertLink, 4711, "sha256:none", tx.now)
			return err
		}, errConflict},
		"the whole transaction undone, as SQLite does on a full disk": {func(ctx context.Context, tx *Tx) error {
			if err := insertNamed(ctx, tx, "bad"); err != nil {
				return err
			}
			if _, err := tx.exec(ctx, `ROLLBACK`); err != nil {
				return err
			}
			return mine
		}, mine},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := onSQLite(t)
			errs := db.asGroup(t, insert("a"), bad.job, insert("c"))
			if errs[0] != nil || errs[2] != nil {
				t.Errorf("neighbours' errors = %v, %v, want none", errs[0], errs[2])
			}
			if !errors.Is(errs[1], bad.want) {
				t.Errorf("the bad job's error = %v, want %v", errs[1], bad.want)
			}
			wantNames(t, db, "a", "c")
			check(t, "a job after it", db.update(t.Context(), durable, insert("d")))
			wantNames(t, db, "a", "c", "d")
		})
	}
}

func TestAFullDiskIsSaidSoAndHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	limit := func(query string) {
		t.Helper()
		check(t, query, db.update(t.Context(), relaxed, func(ctx context.Context, _ *Tx) error {
			// By the connection: a pragma does its work when it is prepared.
			_, err := db.group.conn.ExecContext(ctx, query)
			return err
		}))
	}
	db.mustPut(t, db.put("a/b", manifest("small"), "latest"))
	limit(`PRAGMA max_page_count = 1`) // as many as there are already
	errs := db.asGroup(t,
		func(ctx context.Context, tx *Tx) error {
			_, err := tx.exec(ctx, `UPDATE repositories SET changed_at = changed_at + 1`)
			return err
		},
		func(ctx context.Context, tx *Tx) error {
			p := db.put("a/b", manifest(strings.Repeat("large", 1<<18)), "latest")
			return tx.putManifest(ctx, &p)
		},
		func(ctx context.Context, tx *Tx) error {
			_, err := tx.exec(ctx, `UPDATE repositories SET changed_at = changed_at + 1`)
			return err
		})
	check(t, "a neighbour", errors.Join(errs[0], errs[2]))
	wantCode(t, "a large manifest", errs[1], tarport.InsufficientStorage)
	m, err := db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "latest"})
	if err != nil || m.Digest != digestOf("small") {
		t.Errorf("the tag is at %s (%v), want it where it was", m.Digest, err)
	}
	limit(`PRAGMA max_page_count = 1000000`)
	db.mustPut(t, db.put("a/b", manifest(strings.Repeat("large", 1<<18)), "latest"))
}

func TestAJobWhoseCallerGaveUpWhileItWaitedDoesNotRun(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	release := db.blocked(t)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		errs <- db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
			t.Error("the job ran")
			return insertNamed(ctx, tx, "late")
		})
	}()
	db.queued(t, 1)
	cancel()
	release()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
	wantNames(t, db)
}

func TestAJobThatRunsIsFinishedThoughItsCallerGivesUp(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		cancel()
		if ctx.Err() != nil {
			t.Error("the job's own context ended")
		}
		return insertNamed(ctx, tx, "done")
	})
	check(t, "update", err)
	wantNames(t, db, "done")
}

func TestSixtyFourWritersAtOnceAllGetTheirRow(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		var wg sync.WaitGroup
		const writers, each = 64, 5
		errs := make([]error, writers)
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					content := fmt.Sprintf("%d-%d", w, i)
					err := db.PutBlob(t.Context(), BlobPut{
						Digest: digestOf(content), Size: 1,
						Repository: fmt.Sprintf("ns%d/repo", w%8), Lease: db.clock.in(time.Hour),
					})
					errs[w] = errors.Join(errs[w], err)
				}
			})
		}
		wg.Wait()
		check(t, "writers", errors.Join(errs...))
		for query, want := range map[string]int64{
			`SELECT COUNT(*) FROM blobs`:        writers * each,
			`SELECT COUNT(*) FROM blob_links`:   writers * each,
			`SELECT COUNT(*) FROM repositories`: 8,
			`SELECT COUNT(*) FROM namespaces`:   8,
		} {
			if got := db.count(t, query); got != want {
				t.Errorf("%s = %d, want %d", query, got, want)
			}
		}
	})
}

func TestWhatWasAcknowledgedBeforeACloseInTheMiddleOfWritesIsThere(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	const writers = 64
	errs := make([]error, writers)
	var wg sync.WaitGroup
	first := make(chan struct{}, writers)
	for w := range writers {
		wg.Go(func() {
			errs[w] = db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
				first <- struct{}{}
				return insertNamed(ctx, tx, fmt.Sprintf("n%02d", w))
			})
		})
	}
	<-first
	check(t, "Close", db.Close())
	wg.Wait()
	again := openAt(t, db.dsn, db.clock)
	for w, err := range errs {
		got := again.count(t, `SELECT COUNT(*) FROM namespaces WHERE name = $1`, fmt.Sprintf("n%02d", w))
		switch {
		case err == nil && got != 1:
			t.Errorf("writer %d was told yes, and its row is not there", w)
		case err != nil && (got != 0 || !errors.Is(err, errClosed)):
			t.Errorf("writer %d: error %v and %d rows, want errClosed and none", w, err, got)
		}
	}
}

// TestOnlyDurableTransactionsWaitForTheDisk takes the log's file away under the
// writer, so that to wait for it fails.
func TestOnlyDurableTransactionsWaitForTheDisk(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	check(t, "close the log", db.group.log.Close())
	insert := func(d durability, name string) error {
		return db.update(t.Context(), d, func(ctx context.Context, tx *Tx) error { return insertNamed(ctx, tx, name) })
	}
	check(t, "a relaxed transaction", insert(relaxed, "a"))
	wantCode(t, "a durable transaction", insert(durable, "b"), tarport.Unavailable)
	// What the disk has is not known any more: nothing is promised from now on.
	wantCode(t, "a durable transaction after it", insert(durable, "c"), tarport.Unavailable)
	wantCode(t, "a relaxed transaction after it", insert(relaxed, "d"), tarport.Unavailable)
	if got := db.count(t, `SELECT COUNT(*) FROM namespaces WHERE name IN ('c', 'd')`); got != 0 {
		t.Errorf("%d rows were written after the log could not be synced, want 0", got)
	}
}

// TestTheLogThatIsSyncedIsTheOneThatIsWritten proves that the file that durable
// transactions wait for is SQLite's own, also after a restart without anything
// to migrate.
func TestTheLogThatIsSyncedIsTheOneThatIsWritten(t *testing.T) {
	t.Parallel()
	db := onSQLite(t)
	check(t, "Close", db.Close())
	again := openAt(t, db.dsn, db.clock)
	before, err := again.group.log.Stat()
	check(t, "stat", err)
	again.sql(t, `INSERT INTO namespaces (name, created_at) VALUES ('a', 1)`)
	after, err := again.group.log.Stat()
	check(t, "stat", err)
	if after.Size() <= before.Size() {
		t.Errorf("the log had %d bytes before a transaction and %d after it", before.Size(), after.Size())
	}
	named, err := os.Stat(db.dsn + "-wal")
	check(t, "stat", err)
	if !os.SameFile(named, after) {
		t.Error("the file that is synced is not the log that stands beside the database")
	}
}

func TestTransactionsThatPostgreSQLBreaksOffAreTriedAgainANumberOfTimes(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	run := func(failures int) (tries int, err error) {
		err = db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
			if err := insertNamed(ctx, tx, fmt.Sprintf("%d-%d", failures, tries)); err != nil {
				return err
			}
			if tries++; tries <= failures {
				return fmt.Errorf("broken off: %w", errRetry)
			}
			return nil
		})
		return tries, err
	}
	if tries, err := run(2); err != nil || tries != 3 {
		t.Errorf("2 failures: %d tries, error %v, want 3 and none", tries, err)
	}
	tries, err := run(1000)
	if tries != maxTries {
		t.Errorf("without end: %d tries, want %d", tries, maxTries)
	}
	wantCode(t, "without end", err, tarport.Unavailable)
	wantNames(t, db, "2-2")
}

func TestTwoTransactionsThatWaitForEachOthersRowsBothEndWell(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	db.pushBlob(t, "a/b", "one", time.Hour)
	db.pushBlob(t, "a/b", "two", time.Hour)
	var met sync.WaitGroup
	met.Add(2)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, order := range [][2]string{{"one", "two"}, {"two", "one"}} {
		wg.Go(func() {
			tries := 0
			errs[i] = db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
				tries++
				for j, content := range order {
					if _, err := tx.exec(ctx, `UPDATE blobs SET leased_until = leased_until + 1 WHERE digest = $1`, digestOf(content).String()); err != nil {
						return err
					}
					if j == 0 && tries == 1 { // now each has a row that the other wants
						met.Done()
						met.Wait()
					}
				}
				return nil
			})
		})
	}
	wg.Wait()
	check(t, "both", errors.Join(errs...))
	want := db.clock.in(time.Hour).UnixMicro() + 2
	if got := db.count(t, `SELECT MIN(leased_until) FROM blobs`); got != want {
		t.Errorf("leased_until = %d, want %d", got, want)
	}
}
