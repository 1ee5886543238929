package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Templates gives tests databases that are ready for use. What make does to an
// empty one (the migrations) is done once for each kind of database in a test
// process; the tests get copies. Tests of make itself begin with DSN.
type Templates struct {
	sqlite   func() ([]byte, error)
	postgres func() (string, error)
}

// NewTemplates returns the copies of a database that make made, given the path
// of a SQLite file or a postgres:// address. It must have closed what it opened
// when it returns.
func NewTemplates(make func(ctx context.Context, dsn string) error) *Templates {
	return &Templates{
		sqlite:   sync.OnceValues(func() ([]byte, error) { return sqliteTemplate(make) }),
		postgres: sync.OnceValues(func() (string, error) { return postgresTemplate(make) }),
	}
}

// Each runs a test on a SQLite and on a PostgreSQL database of its own, both
// in parallel with other tests.
func (p *Templates) Each(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, p.SQLite(t, filepath.Join(t.TempDir(), "tarport.db")))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, p.Postgres(t))
	})
}

// SQLite makes a SQLite file at path, and returns path. Where there is a file
// already, it is left as it is.
func (p *Templates) SQLite(tb testing.TB, path string) string {
	tb.Helper()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	b, err := p.sqlite()
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		tb.Fatalf("make a SQLite database: %v", err)
	}
	return path
}

// Postgres is DSN with what make made in the database.
func (p *Templates) Postgres(tb testing.TB) string {
	tb.Helper()
	running(tb)
	template, err := p.postgres()
	if err != nil {
		tb.Fatalf("make the first PostgreSQL database: %v", err)
	}
	return create(tb, template)
}

func sqliteTemplate(make func(ctx context.Context, dsn string) error) ([]byte, error) {
	dir, err := os.MkdirTemp("", "sqlite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	if err := make(context.Background(), path); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path + "-wal"); err == nil {
		return nil, fmt.Errorf("%s is open still", path)
	}
	return os.ReadFile(path)
}

func postgresTemplate(make func(ctx context.Context, dsn string) error) (string, error) {
	c, err := shared()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := newName()
	if err := c.exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return name, make(ctx, c.dsn(name))
}

func newName() string { return "t_" + strings.ToLower(rand.Text()) }
