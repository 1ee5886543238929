// Package metadatatest gives tests databases of metadata that have today's
// schema: copies of one that the migrations made once in the test process, as
// [metadata.Open] finds them at every start but the first.
//
// Only tests import this package; those of metadata itself cannot.
package metadatatest

import (
	"context"
	"strings"
	"testing"

	"github.com/tarport/tarport/internal/pgtest"
	"github.com/tarport/tarport/storage/metadata"
)

// templates is a variable since nothing but the process spans its tests.
var templates = pgtest.NewTemplates(func(ctx context.Context, dsn string) error {
	db, err := metadata.Open(ctx, metadata.Options{DSN: dsn})
	if err != nil {
		return err
	}
	return db.Close()
})

// Each runs a test on a SQLite and on a PostgreSQL database of its own, both
// in parallel with other tests.
func Each(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	templates.Each(t, test)
}

// Open opens a database until the test ends. A SQLite file that is not there
// is made.
func Open(tb testing.TB, o metadata.Options) *metadata.DB {
	tb.Helper()
	if !strings.HasPrefix(o.DSN, "postgres://") {
		templates.SQLite(tb, o.DSN)
	}
	db, err := metadata.Open(tb.Context(), o)
	if err != nil {
		tb.Fatalf("open the database: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Postgres makes a database and returns its postgres:// address; without
// PostgreSQL it does what [pgtest.DSN] does.
func Postgres(tb testing.TB) string {
	tb.Helper()
	return templates.Postgres(tb)
}
