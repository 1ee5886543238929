// Package pgtest gives tests a throw-away PostgreSQL.
//
// The first call of DSN in a test process starts a cluster of the installed
// PostgreSQL (Debian's postgresql package) in a temporary directory, on a unix
// socket that nobody else can reach, with durability off. Every call makes an
// empty database of its own in it, so tests may run in parallel:
//
//	test process --pipe--> watching shell --> postgres
//	                 (closed by the kernel however the test process ends)
//
// The shell waits for the end of the pipe, then stops postgres and removes the
// directory. That needs no TestMain and holds after a panic and a kill -9 too.
//
// Only tests import this package.
package pgtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// user is the superuser of the cluster.
const user = "tarport"

// shared is the one cluster of this test process. It is a variable because
// nothing but the process spans the tests that share it.
var shared = sync.OnceValues(start)

// DSN makes an empty database and returns its postgres:// address. The database
// is dropped when the test ends. Without PostgreSQL on the machine the test is
// skipped, or fails where the environment says CI=true.
func DSN(t testing.TB) string {
	t.Helper()
	return create(t, "template1")
}

// running is the cluster; it ends the test where there is none.
func running(t testing.TB) *cluster {
	t.Helper()
	c, err := shared()
	if errors.Is(err, errNotInstalled) && os.Getenv("CI") != "true" {
		t.Skipf("needs PostgreSQL: %v", err)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return c
}

// create makes a copy of the template, for as long as the test runs.
func create(t testing.TB, template string) string {
	t.Helper()
	c, name := running(t), newName()
	if err := c.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		// t's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := c.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	return c.dsn(name)
}

// dsn is the address of one database of the cluster.
func (c *cluster) dsn(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + database}
	u.RawQuery = url.Values{"host": {c.dir}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// exec runs one statement in the maintenance database.
func (c *cluster) exec(ctx context.Context, statement string) error {
	db, err := sql.Open("pgx", c.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}
