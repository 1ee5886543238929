package pgtest_test

import (
	"bufio"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarport/tarport/internal/pgtest"
)

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatalf("open %s: %v", dsn, err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestEachCallGivesAnEmptyDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	one, two := pgtest.DSN(t), pgtest.DSN(t)
	if one == two {
		t.Fatalf("DSN gave %s twice", one)
	}
	if _, err := open(t, one).ExecContext(t.Context(), "CREATE TABLE t (a int)"); err != nil {
		t.Fatalf("create table: %v", err)
	}
	var tables int
	const count = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
	if err := open(t, two).QueryRowContext(t.Context(), count).Scan(&tables); err != nil {
		t.Fatalf("count tables: %v", err)
	}
	if tables != 0 {
		t.Errorf("tables of the second database = %d, want 0", tables)
	}
}

func TestDatabaseIsDroppedWhenTheTestEnds(t *testing.T) {
	t.Parallel()
	var inner string
	t.Run("inner", func(t *testing.T) { inner = pgtest.DSN(t) })
	if inner == "" {
		t.Skip("the inner test was skipped")
	}
	if err := open(t, inner).PingContext(t.Context()); err == nil {
		t.Errorf("%s still answers", inner)
	}
}

// TestClusterEndsWithAKilledTestProcess runs this test binary once more, kills
// it while its cluster is up, and expects neither postgres nor files to remain.
func TestClusterEndsWithAKilledTestProcess(t *testing.T) {
	t.Parallel()
	const role = "PGTEST_VICTIM"
	if os.Getenv(role) != "" {
		_, _ = os.Stdout.WriteString("dsn " + pgtest.DSN(t) + "\n")
		<-t.Context().Done() // until killed
		return
	}
	pgtest.DSN(t) // skips where there is no PostgreSQL
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // like /tmp, for the cluster's user
		if err := os.Chmod(d, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
	}
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	victim.Env = append(os.Environ(), role+"=1", "TMPDIR="+dir)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatalf("start victim: %v", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "dsn ") {
	}
	if lines.Text() == "" {
		t.Fatalf("victim ended before it had a database: %v", victim.Wait())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pgtest-*", "data", "postmaster.pid")); len(left) != 1 {
		t.Fatalf("clusters of the victim = %v, want one", left)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatalf("kill victim: %v", err)
	}
	_ = victim.Wait() // "signal: killed"
	waitFor(t, func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, "pgtest-*"))
		return len(left) == 0
	}, "the cluster's directory to go")
}

func waitFor(t *testing.T, done func() bool, what string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
