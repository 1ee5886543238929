package metadata

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/pressly/goose/v3"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/pgtest"
)

// clock is a clock that a test moves.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.micros.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Load()) }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }
func (c *clock) in(d time.Duration) time.Time {
	return c.now().Add(d)
}

// testDB is a database with the clock that it goes by.
type testDB struct {
	*DB
	dsn   string
	clock *clock
}

// templates are databases that the migrations have made; a variable, as the
// tests of this process share them.
var templates = pgtest.NewTemplates(func(ctx context.Context, dsn string) error {
	db, err := Open(ctx, Options{DSN: dsn})
	if err != nil {
		return err
	}
	return db.Close()
})

// eachDB runs a test on a fresh SQLite and on a fresh PostgreSQL database.
func eachDB(t *testing.T, test func(t *testing.T, db *testDB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, onSQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, onPostgres(t))
	})
}

func onSQLite(tb testing.TB) *testDB {
	tb.Helper()
	return openAt(tb, templates.SQLite(tb, filepath.Join(tb.TempDir(), "meta data?#%.db")), newClock())
}

func onPostgres(tb testing.TB) *testDB {
	tb.Helper()
	return openAt(tb, templates.Postgres(tb), newClock())
}

// openAt opens one more handle on a database.
func openAt(tb testing.TB, dsn string, c *clock) *testDB {
	tb.Helper()
	db, err := Open(tb.Context(), Options{DSN: dsn, Now: c.now})
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return &testDB{db, dsn, c}
}

// sql runs a statement of the test's own.
func (db *testDB) sql(tb testing.TB, query string, args ...any) {
	tb.Helper()
	err := db.update(tb.Context(), durable, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, query, args...)
		return err
	})
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// count returns the one number that a query gives.
func (db *testDB) count(tb testing.TB, query string, args ...any) int64 {
	tb.Helper()
	var n int64
	if _, err := db.view().row(tb.Context(), query, args, &n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return n
}

// wantCode fails the test where err is not one of the code.
func wantCode(tb testing.TB, what string, err error, want tarport.Code) {
	tb.Helper()
	if got := tarport.ErrorCode(err); got != want {
		tb.Errorf("%s: error = %v (code %q), want code %q", what, err, got, want)
	}
}

func check(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// waitFor waits for something that another goroutine or server does.
func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			tb.Fatalf("waited in vain for %s", what)
		}
	}
}

// waitForLockWait waits until somebody waits for a lock of the PostgreSQL database.
func (db *testDB) waitForLockWait(tb testing.TB) {
	tb.Helper()
	waitFor(tb, "a transaction that waits for a lock", func() bool {
		return db.count(tb, `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
}

func digestOf(s string) digest.Digest { return digest.FromString(s) }

// pushBlob puts a blob into a repository; its size is that of its name.
func (db *testDB) pushBlob(tb testing.TB, repository, content string, lease time.Duration) digest.Digest {
	tb.Helper()
	d := digestOf(content)
	err := db.PutBlob(tb.Context(), BlobPut{Digest: d, Size: int64(len(content)), Repository: repository, Lease: db.clock.in(lease)})
	check(tb, "PutBlob", err)
	return d
}

// manifest makes a manifest; references are named by their content, with the
// kind before it: "layer:abc".
func manifest(payload string, references ...string) Manifest {
	d := digestOf(payload)
	m := Manifest{
		Digest: d, MediaType: "application/vnd.oci.image.manifest.v1+json", Payload: []byte(payload),
		Descriptor: `{"digest":"` + d.String() + `"}`,
	}
	for _, r := range references {
		kind, content, _ := strings.Cut(r, ":")
		m.References = append(m.References, ManifestReference{Kind: kind, Digest: digestOf(content), Size: int64(len(content))})
	}
	return m
}

// put makes a ManifestPut with long leases.
func (db *testDB) put(repository string, m Manifest, tags ...string) ManifestPut {
	return ManifestPut{
		Repository: repository, Manifest: m, Tags: tags, By: "alice", Via: "push",
		Lease: db.clock.in(48 * time.Hour), RenewBefore: db.clock.in(24 * time.Hour),
	}
}

func (db *testDB) mustPut(tb testing.TB, puts ...ManifestPut) {
	tb.Helper()
	check(tb, "PutManifests", db.PutManifests(tb.Context(), puts))
}

func TestOpenBringsAFreshDatabaseToTheNewestSchemaAndLeavesACurrentOneAlone(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		files, err := fs.Glob(migrations, "migrations/*.sql")
		check(t, "list migrations", err)
		const newest = `SELECT COUNT(*) FROM goose_db_version WHERE version_id > 0`
		if got, want := db.count(t, newest), int64(len(files)); got != want {
			t.Errorf("applied migrations = %d, want %d", got, want)
		}
		db.pushBlob(t, "a/b", "content", time.Hour)
		if db.dialect == dialectSQLite {
			check(t, "Close", db.Close()) // one process
		}
		again := openAt(t, db.dsn, db.clock)
		if got, want := again.count(t, newest), int64(len(files)); got != want {
			t.Errorf("applied migrations after a second start = %d, want %d", got, want)
		}
		if _, err := again.LinkedBlob(t.Context(), "a/b", digestOf("content")); err != nil {
			t.Errorf("blob after a second start: %v", err)
		}
	})
}

func TestBothDatabasesHaveTheSameTablesAndColumns(t *testing.T) {
	t.Parallel()
	lite, pg := onSQLite(t), onPostgres(t)
	list := func(db *testDB, query string) []string {
		names, err := all(t.Context(), db.view(), scanOne[string], query)
		check(t, "list columns", err)
		return names
	}
	got := list(lite, `SELECT m.name || '.' || p.name || CASE WHEN p."notnull" = 1 OR p.pk > 0 THEN ' not null' ELSE '' END
		FROM sqlite_master m JOIN pragma_table_info(m.name) p
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%' ORDER BY 1`)
	want := list(pg, `SELECT (table_name || '.' || column_name || CASE WHEN is_nullable = 'NO' THEN ' not null' ELSE '' END) COLLATE "C"
		FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'goose_%' ORDER BY 1`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns of SQLite differ from those of PostgreSQL (-postgres +sqlite):\n%s", diff)
	}
	if len(got) < 40 {
		t.Errorf("found only %d columns: %v", len(got), got)
	}
	indexes := func(db *testDB, query string) []string {
		names := list(db, query)
		return slices.DeleteFunc(names, func(s string) bool { return strings.Contains(s, "autoindex") })
	}
	got = indexes(lite, `SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY 1`)
	want = indexes(pg, `SELECT indexname::text COLLATE "C" FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey' AND indexname NOT LIKE '%_key' ORDER BY 1`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("indexes of SQLite differ from those of PostgreSQL (-postgres +sqlite):\n%s", diff)
	}
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		dir, err := fs.Sub(migrations, "migrations")
		check(t, "migrations", err)
		d := goose.DialectPostgres
		if db.dialect == dialectSQLite {
			d = goose.DialectSQLite3
			db.group.close() // it has the only connection that writes
			defer func() { db.group = nil }()
		}
		p, err := goose.NewProvider(d, db.write, dialectFS{dir, columnTypes[db.dialect]}, goose.WithDisableGlobalRegistry(true))
		check(t, "NewProvider", err)
		_, err = p.DownTo(t.Context(), 0)
		check(t, "DownTo(0)", err)
		_, err = p.Up(t.Context())
		check(t, "Up", err)
		if got := db.count(t, `SELECT COUNT(*) FROM repositories`); got != 0 {
			t.Errorf("repositories = %d, want 0", got)
		}
	})
}

func TestOpenRefusesASchemaThatIsNewerThanTheBinary(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.sql(t, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)`)
		if db.dialect == dialectSQLite {
			check(t, "Close", db.Close())
		}
		newer, err := Open(t.Context(), Options{DSN: db.dsn})
		if err == nil {
			_ = newer.Close()
			t.Fatal("Open of a newer schema succeeded")
		}
		for _, want := range []string{"99999", "newer tarport"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error = %q, want %q in it", err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("error = %q, want one line", err)
		}
	})
}

func TestSeveralReplicasThatStartAtOnceOnAnEmptyDatabaseAllOpenIt(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			db, err := Open(t.Context(), Options{DSN: dsn})
			if err == nil {
				err = db.Ping(t.Context())
				err = errors.Join(err, db.Close())
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestOpenTellsWhatIsWrongWithADatabaseThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		filepath.Join(t.TempDir(), "no", "such", "folder", "x.db"),
		"postgres://nobody@127.0.0.1:1/none?connect_timeout=1",
	} {
		db, err := Open(t.Context(), Options{DSN: dsn})
		if err == nil {
			_ = db.Close()
			t.Errorf("Open(%q) succeeded", dsn)
		}
	}
}

func TestCloseCanBeCalledTwiceAndEverythingAfterItIsAnError(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		check(t, "Ping", db.Ping(t.Context()))
		check(t, "first Close", db.Close())
		check(t, "second Close", db.Close())
		if err := db.Ping(t.Context()); err == nil {
			t.Error("Ping after Close succeeded")
		}
		if _, err := db.Blob(t.Context(), digestOf("x")); err == nil || tarport.ErrorCode(err) == tarport.BlobUnknown {
			t.Errorf("Blob after Close: error = %v, want an internal one", err)
		}
		err := db.PutBlob(t.Context(), BlobPut{Digest: digestOf("x"), Repository: "a/b"})
		if err == nil {
			t.Error("PutBlob after Close succeeded")
		}
	})
}

func TestErrorsOfTheDatabasesAreToldApart(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		err := db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
			_, err := tx.exec(ctx, insertLink, 4711, digestOf("x").String(), tx.now)
			return err
		})
		if !errors.Is(err, errConflict) {
			t.Errorf("a link to nowhere: error = %v, want errConflict", err)
		}
		err = db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
			_, err := tx.exec(ctx, "SELECT nonsense FROM nowhere")
			return err
		})
		wantCode(t, "nonsense", err, tarport.Internal)
		if errors.Is(err, errConflict) || errors.Is(err, errRetry) {
			t.Errorf("nonsense: error = %v, want a plain one", err)
		}
	})
}
