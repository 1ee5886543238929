package metadata

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// Tx is a transaction. now is its time in Unix microseconds, the same for all
// that it writes.
type Tx struct {
	db   *DB
	q    querier
	prep func(ctx context.Context, query string) (*sql.Stmt, error) // nil: the driver caches statements itself
	now  int64

	notes notes // to settle at the end
}

type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Tries of a transaction that PostgreSQL breaks off for another's sake.
const maxTries = 8

// durability says what a transaction waits for.
type durability bool

const (
	durable durability = true  // on disk when update returns
	relaxed durability = false // atomic, but a power loss may undo it: only for what nobody was promised
)

// update runs fn in a transaction that writes, and settles what it noted of
// namespaces' usage. fn may run more than once, so it sets what it returns and
// does not add to it.
func (db *DB) update(ctx context.Context, d durability, fn func(ctx context.Context, tx *Tx) error) error {
	if db.group != nil {
		return db.group.do(ctx, d, settled(fn))
	}
	var err error
	for try := range maxTries {
		if err = db.updateOnce(ctx, d, settled(fn)); !errors.Is(err, errRetry) {
			return err
		}
		wait := time.NewTimer(time.Duration(1<<try) * time.Millisecond)
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
	}
	return tarport.Errorf(tarport.Unavailable, "the registry's database is busy, try again").Because(err)
}

// settled is fn with the settling behind it.
func settled(fn func(context.Context, *Tx) error) func(context.Context, *Tx) error {
	return func(ctx context.Context, tx *Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		return tx.settle(ctx)
	}
}

// updateOnce is update on PostgreSQL.
func (db *DB) updateOnce(ctx context.Context, d durability, fn func(ctx context.Context, tx *Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", classify(err))
	}
	defer func() { _ = tx.Rollback() }() // no-op after the commit
	if d == relaxed {
		if _, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return classify(err)
		}
	}
	if err := fn(ctx, &Tx{db: db, q: tx, now: db.now().UnixMicro()}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", classify(err))
	}
	return nil
}

// view returns a Tx for one reading statement. Readings of several statements
// that must agree are written as one.
func (db *DB) view() *Tx {
	tx := &Tx{db: db, q: db.read, now: db.now().UnixMicro()}
	if db.dialect == dialectSQLite {
		tx.prep = db.prepared
	}
	return tx
}

// prepared keeps statements of the read pool: SQLite compiles each text anew
// otherwise, which costs more than most of our reads.
func (db *DB) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := db.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.read.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if old, loaded := db.stmts.LoadOrStore(query, s); loaded {
		_ = s.Close()
		return old.(*sql.Stmt), nil
	}
	return s, nil
}

// exec runs a statement and tells how many rows it changed.
func (tx *Tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	var res sql.Result
	var err error
	if tx.prep != nil {
		var s *sql.Stmt
		if s, err = tx.prep(ctx, query); err == nil {
			res, err = s.ExecContext(ctx, args...)
		}
	} else {
		res, err = tx.q.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, classify(err)
	}
	n, err := res.RowsAffected()
	return n, classify(err)
}

// query runs a statement and gives each of its rows to scan.
func (tx *Tx) query(ctx context.Context, scan func(scan func(...any) error) error, query string, args ...any) error {
	var rows *sql.Rows
	var err error
	if tx.prep != nil {
		var s *sql.Stmt
		if s, err = tx.prep(ctx, query); err == nil {
			rows, err = s.QueryContext(ctx, args...)
		}
	} else {
		rows, err = tx.q.QueryContext(ctx, query, args...)
	}
	if err != nil {
		return classify(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return classify(err)
		}
	}
	return classify(rows.Err())
}

// row scans the one row of a query into dest; found is false where there is none.
func (tx *Tx) row(ctx context.Context, query string, args []any, dest ...any) (found bool, err error) {
	err = tx.query(ctx, func(scan func(...any) error) error {
		found = true
		return scan(dest...)
	}, query, args...)
	return found, err
}

// all collects the rows of a query; it is never nil.
func all[T any](ctx context.Context, tx *Tx, scan func(v *T, scan func(...any) error) error, query string, args ...any) ([]T, error) {
	list := []T{}
	err := tx.query(ctx, func(s func(...any) error) error {
		var v T
		if err := scan(&v, s); err != nil {
			return err
		}
		list = append(list, v)
		return nil
	}, query, args...)
	return list, err
}

func scanOne[T any](v *T, scan func(...any) error) error { return scan(v) }

// stamp scans Unix microseconds into a time; null and 0 are the zero time.
type stamp struct{ t *time.Time }

// Scan implements sql.Scanner.
func (m stamp) Scan(v any) error {
	*m.t = time.Time{}
	switch v := v.(type) {
	case nil:
	case int64:
		if v != 0 {
			*m.t = time.UnixMicro(v).UTC()
		}
	default:
		return fmt.Errorf("a time in the database is a %T", v)
	}
	return nil
}

// orNull is the inverse of stamp: the zero time is null.
func orNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}
