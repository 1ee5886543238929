// Package metadata is the truth about everything but the bytes of blobs:
// repositories, manifests with their payload, tags and their history, which
// manifest references which blob, which repository links which blob, upload
// sessions, diffIDs, users and keys. It is the only package with SQL in it.
//
// The database is SQLite (one process, one file) or PostgreSQL (several
// replicas); both get the same SQL text. Every exported method of DB is one
// transaction.
//
//	SQLite       many readers ──┐
//	             one writer  ───┴── the file      transactions that wait for the
//	                                              writer share one fsync (group.go)
//	PostgreSQL   a pool, READ COMMITTED, row locks where two replicas can race
//
// Errors that a caller may act on are *tarport.Error; classify translates the
// drivers'.
package metadata

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tarport/tarport"
)

// Options of Open.
type Options struct {
	// DSN is the path of a SQLite file, or a URL postgres://… Required.
	DSN string
	// Now is the clock; time.Now where nil.
	Now func() time.Time
	// Namespaces says who may create them.
	Namespaces NamespacePolicy
}

// DB is the metadata of one registry. It may be used by many goroutines.
type DB struct {
	dialect dialect
	now     func() time.Time
	read    *sql.DB
	write   *sql.DB  // the same as read on PostgreSQL
	locking *sql.DB  // PostgreSQL only: connections that hold advisory locks, apart so that lock and work never wait for each other's
	group   *group   // SQLite only
	locks   keyLocks // SQLite only
	holds   holds    // SQLite only
	stmts   sync.Map // query -> *sql.Stmt, of the read pool

	policy NamespacePolicy
	rights atomic.Uint64 // see RightsEpoch
}

// Open opens the database, creates it where it is not there, and brings its
// schema up to date. An old binary refuses a schema that is newer than itself.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	db := &DB{now: o.Now, policy: o.Namespaces}
	var err error
	if strings.HasPrefix(o.DSN, "postgres://") || strings.HasPrefix(o.DSN, "postgresql://") {
		err = db.openPostgres(o.DSN)
	} else {
		err = db.openSQLite(ctx, o.DSN)
	}
	if err == nil {
		err = db.migrate(ctx)
	}
	if err == nil && db.dialect == dialectSQLite {
		db.group, err = newGroup(db, o.DSN)
	}
	if err == nil {
		err = db.readTagNames(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (db *DB) openPostgres(dsn string) (err error) {
	db.dialect = dialectPostgres
	if db.read, err = sql.Open("pgx", dsn); err != nil {
		return fmt.Errorf("open the PostgreSQL database: %w", err)
	}
	db.read.SetMaxOpenConns(32)
	db.read.SetMaxIdleConns(16)
	db.read.SetConnMaxIdleTime(5 * time.Minute)
	db.write = db.read
	if db.locking, err = sql.Open("pgx", dsn); err != nil {
		return fmt.Errorf("open the PostgreSQL database: %w", err)
	}
	db.locking.SetMaxOpenConns(16)
	return nil
}

// openSQLite opens two pools on the file: one connection that writes, and some
// that cannot. What must be durable is made so by group.
func (db *DB) openSQLite(ctx context.Context, path string) (err error) {
	db.dialect = dialectSQLite
	pragmas := []string{"busy_timeout(10000)", "foreign_keys(1)", "temp_store(2)", "cache_size(-8192)"}
	open := func(more ...string) (*sql.DB, error) {
		q := url.Values{"_pragma": append(append([]string{}, pragmas...), more...), "_txlock": {"immediate"}}
		return sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: escapePath(path), RawQuery: q.Encode()}).String())
	}
	if db.write, err = open("journal_mode(wal)", "synchronous(normal)", "wal_autocheckpoint(4000)"); err != nil {
		return fmt.Errorf("open the SQLite database %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	if err := db.write.PingContext(ctx); err != nil { // makes the file, so that readers find it
		return fmt.Errorf("open the SQLite database %s: %w", path, err)
	}
	if db.read, err = open("query_only(1)", "mmap_size(268435456)"); err != nil {
		return fmt.Errorf("open the SQLite database %s: %w", path, err)
	}
	n := max(4, 2*runtime.GOMAXPROCS(0))
	db.read.SetMaxOpenConns(n)
	db.read.SetMaxIdleConns(n)
	return nil
}

func escapePath(p string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(p)
}

// Close ends what runs and closes the database.
func (db *DB) Close() error {
	if db.group != nil {
		db.group.close()
	}
	var errs []error
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.write != nil && db.write != db.read {
		errs = append(errs, db.write.Close())
	}
	if db.locking != nil {
		errs = append(errs, db.locking.Close())
	}
	return errors.Join(errs...)
}

// Ping tells whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	if err := db.read.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("ask the database: %w", err)
	}
	return nil
}

// Exclusive tells whether this process is the only one that writes to the
// database, so that what was read may be kept in memory until this process
// changes it.
func (db *DB) Exclusive() bool { return db.dialect == dialectSQLite }

// RightsEpoch changes with every change, by this process, of who may do what:
// what was read of it in another epoch is not believed any more.
func (db *DB) RightsEpoch() uint64 { return db.rights.Load() }

// changeRights is update for what changes who may do what.
func (db *DB) changeRights(ctx context.Context, what string, fn func(ctx context.Context, tx *Tx) error) error {
	err := db.update(ctx, durable, fn)
	db.rights.Add(1) // also after an error: the answer of a commit can be lost
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

type dialect int

const (
	dialectSQLite dialect = iota
	dialectPostgres
)

// Kinds of errors that the code acts on.
var (
	errRetry    = errors.New("transaction must be tried again")
	errConflict = errors.New("constraint violated")
)

// classify translates the drivers' errors: the only place that knows them.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == "40001" || e.Code == "40P01": // serialization failure, deadlock
			return fmt.Errorf("%w: %w", errRetry, err)
		case strings.HasPrefix(e.Code, "23"):
			return fmt.Errorf("%w: %w", errConflict, err)
		case strings.HasPrefix(e.Code, "53"), strings.HasPrefix(e.Code, "57"), strings.HasPrefix(e.Code, "08"):
			return tarport.Errorf(tarport.Unavailable, "the registry's database is not available, try again").Because(err)
		}
		return err
	}
	if connectionLost(err) {
		return tarport.Errorf(tarport.Unavailable, "the registry's database is not available, try again").Because(err)
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CONSTRAINT:
			return fmt.Errorf("%w: %w", errConflict, err)
		case sqlite3.SQLITE_FULL:
			return tarport.Errorf(tarport.InsufficientStorage, "the registry's disk is full").Because(err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR:
			return tarport.Errorf(tarport.Unavailable, "the registry's database is not available, try again").Because(err)
		}
	}
	return err
}

// connectionLost tells of an error that PostgreSQL did not live to explain. A
// call that its own context ended is none, though it costs the connection too.
func connectionLost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[*net.OpError](err)
	return connect || network || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
