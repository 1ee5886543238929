package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// clock is a clock that a test moves. It begins now, since files have the
// times of the machine.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.micros.Store(time.Now().UnixMicro())
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Load()) }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

// testStore is a store with what it stands on.
type testStore struct {
	*Store
	dsn    string
	root   string                      // "" on a driver
	driver storagedriver.StorageDriver // nil on a root
	clock  *clock
}

// eachStore runs a test on each database and on each kind of files. Neither
// knows of the other, so two pairs show all there is to see.
func eachStore(t *testing.T, test func(t *testing.T, s *testStore)) {
	t.Helper()
	t.Run("sqlite and a file system", func(t *testing.T) {
		t.Parallel()
		test(t, onSQLite(t))
	})
	t.Run("postgres and a driver", func(t *testing.T) {
		t.Parallel()
		test(t, openStore(t, &testStore{dsn: metadatatest.Postgres(t), driver: inmemory.New(), clock: newClock()}))
	})
}

func sqliteDSN(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "metadata.db")
}

// onSQLite is a store on SQLite and a file system.
func onSQLite(tb testing.TB) *testStore {
	tb.Helper()
	return openStore(tb, &testStore{dsn: sqliteDSN(tb), root: tb.TempDir(), clock: newClock()})
}

// onPostgres is a store on PostgreSQL and a file system.
func onPostgres(tb testing.TB) *testStore {
	tb.Helper()
	return openStore(tb, &testStore{dsn: metadatatest.Postgres(tb), root: tb.TempDir(), clock: newClock()})
}

// openStore opens a store over what s names: anew, or as another process does.
func openStore(tb testing.TB, s *testStore) *testStore {
	tb.Helper()
	db := metadatatest.Open(tb, metadata.Options{DSN: s.dsn, Now: s.clock.now})
	addUsers(tb, db)
	opened := *s
	var err error
	opened.Store, err = New(Options{DB: db, Root: s.root, Driver: s.driver, Now: s.clock.now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return &opened
}

// addUsers makes the users 1 to 9, who may push: what a client may do is read
// again in the transaction that makes its content visible.
func addUsers(tb testing.TB, db *metadata.DB) {
	tb.Helper()
	for i := range 9 {
		name := fmt.Sprintf("user%d", i+1)
		if _, err := db.CreateUser(tb.Context(), metadata.User{Name: name, PasswordHash: "-", Admin: true}); err != nil && tarport.ErrorCode(err) != tarport.Conflict {
			tb.Fatalf("CreateUser: %v", err)
		}
	}
}

// restarted is the store as the next process sees it.
func (s *testStore) restarted(tb testing.TB) *testStore {
	tb.Helper()
	check(tb, "close the database", s.db.Close())
	return openStore(tb, s)
}

// replica is another process on the same data; PostgreSQL only.
func (s *testStore) replica(tb testing.TB, c *clock) *testStore {
	tb.Helper()
	other := *s
	other.clock = c
	return openStore(tb, &other)
}

func check(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// wantCode fails the test where err is not one of the code.
func wantCode(tb testing.TB, what string, err error, want tarport.Code) {
	tb.Helper()
	if got := tarport.ErrorCode(err); got != want {
		tb.Errorf("%s: error = %v (code %q), want code %q", what, err, got, want)
	}
}

// as is the test's context with a user in it.
func as(tb testing.TB, user int64) context.Context {
	tb.Helper()
	return tarport.WithPrincipal(tb.Context(), tarport.Principal{UserID: user, Name: "alice"})
}

// content is n bytes that are the same each time and no two pieces alike.
func content(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242 + n)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// push puts a blob into a repository.
func (s *testStore) push(tb testing.TB, repository string, b []byte) digest.Digest {
	tb.Helper()
	u, err := s.NewUpload(as(tb, 7), repository)
	check(tb, "NewUpload", err)
	_, err = u.ReadFrom(bytes.NewReader(b))
	check(tb, "ReadFrom", err)
	d := digest.FromBytes(b)
	_, err = u.Commit(as(tb, 7), ocispec.Descriptor{Digest: d})
	check(tb, "Commit", err)
	return d
}

// wantBlob reads a blob and compares it.
func (s *testStore) wantBlob(tb testing.TB, repository string, d digest.Digest, want []byte) {
	tb.Helper()
	b, err := s.Blob(tb.Context(), repository, d)
	check(tb, "Blob", err)
	if b.Digest != d || b.Size != int64(len(want)) {
		tb.Errorf("Blob = %+v, want digest %s and size %d", b, d, len(want))
	}
	r, b, err := s.OpenBlob(tb.Context(), repository, d)
	check(tb, "OpenBlob", err)
	got, err := io.ReadAll(r)
	check(tb, "read the blob", errors.Join(err, r.Close()))
	if !bytes.Equal(got, want) || b.Size != int64(len(want)) {
		tb.Errorf("the blob has %d bytes (size said: %d), not the %d that were pushed", len(got), b.Size, len(want))
	}
}

// wantNoBlob checks that nobody is told of a blob.
func (s *testStore) wantNoBlob(tb testing.TB, repository string, d digest.Digest) {
	tb.Helper()
	_, err := s.Blob(tb.Context(), repository, d)
	wantCode(tb, "Blob", err, tarport.BlobUnknown)
	r, _, err := s.OpenBlob(tb.Context(), repository, d)
	wantCode(tb, "OpenBlob", err, tarport.BlobUnknown)
	if r != nil {
		tb.Error("OpenBlob gave a reader with its error")
	}
}

// overwrite puts other bytes where those of a blob lie; nil takes them away.
func (s *testStore) overwrite(tb testing.TB, path string, b []byte) {
	tb.Helper()
	var err error
	switch {
	case s.root != "" && b == nil:
		err = os.Remove(s.root + path)
	case s.root != "":
		err = os.WriteFile(s.root+path, b, 0o600)
	case b == nil:
		err = s.driver.Delete(tb.Context(), path)
	default:
		err = s.driver.PutContent(tb.Context(), path, b)
	}
	check(tb, "overwrite "+path, err)
}

// staged lists the files of uploads.
func (s *testStore) staged(tb testing.TB) []string {
	tb.Helper()
	var ids []string
	check(tb, "walkStaged", s.files.walkStaged(tb.Context(), func(id string, _ time.Time) error {
		ids = append(ids, id)
		return nil
	}))
	return ids
}

// wantNothingStaged checks that no file of an upload is left.
func (s *testStore) wantNothingStaged(tb testing.TB) {
	tb.Helper()
	if ids := s.staged(tb); len(ids) != 0 {
		tb.Errorf("files of uploads that are left: %v", ids)
	}
}

func TestNewWantsADatabaseAndOnePlaceForBytes(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	for _, o := range []Options{
		{},
		{Root: t.TempDir()},
		{DB: s.db},
		{DB: s.db, Root: t.TempDir(), Driver: inmemory.New()},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
	blocked := filepath.Join(t.TempDir(), "file")
	check(t, "write", os.WriteFile(blocked, nil, 0o600))
	if _, err := New(Options{DB: s.db, Root: blocked}); err == nil {
		t.Error("New on a root that is a file succeeded")
	}
}

func TestCheckTellsWhetherDatabaseAndStorageAnswer(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		check(t, "Check of an empty store", s.Check(t.Context()))
		s.push(t, "a/b", content(10))
		check(t, "Check", s.Check(t.Context()))
		check(t, "close the database", s.db.Close())
		if err := s.Check(t.Context()); err == nil {
			t.Error("Check without a database succeeded")
		}
	})
	s := onSQLite(t)
	check(t, "remove", os.RemoveAll(s.root))
	if err := s.Check(t.Context()); err == nil {
		t.Error("Check without the folder succeeded")
	}
}
