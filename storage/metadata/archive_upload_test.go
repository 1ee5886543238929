package metadata

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// archive begins a session of an archive of which 10 bytes came, and takes it.
func (db *testDB) archive(tb testing.TB, user int64, id, namespace string, length int64, l UploadLimits) (ArchiveUpload, error) {
	tb.Helper()
	u := ArchiveUpload{Upload: Upload{ID: id, Principal: user, StartedAt: db.clock.now()}, Namespace: namespace, Length: length, ExpiresAt: db.clock.in(expiryTime)}
	if err := db.CreateArchiveUpload(tb.Context(), u, l); err != nil {
		return u, err
	}
	_, err := db.AcquireUpload(tb.Context(), "", id, "me", db.clock.in(holdTime), u.ExpiresAt)
	if err == nil {
		err = db.AddUploadPart(tb.Context(), u, "me", l, UploadPart{ID: "part of " + id, Size: 10}, u.ExpiresAt)
	}
	u.Size = 10
	return u, err
}

// TestParallelUploadsKeepTheirLimit has many requests of one user ask for the
// same room at once.
func TestParallelUploadsKeepTheirLimit(t *testing.T) {
	t.Parallel()
	const n = 12
	eachDB(t, func(t *testing.T, db *testDB) {
		handles := []*testDB{db}
		if db.dialect == dialectPostgres {
			handles = append(handles, openAt(t, db.dsn, db.clock))
		}
		limits := UploadLimits{Count: 1000, Bytes: n*10 + 100}
		for name, take := range map[string]func(db *testDB, user int64, u *ArchiveUpload, id string) error{
			"a new upload": func(db *testDB, user int64, _ *ArchiveUpload, id string) error {
				_, err := db.archive(t, user, "new "+id, "", 100, limits)
				return err
			},
			"a length": func(db *testDB, _ int64, u *ArchiveUpload, _ string) error {
				return db.SetUploadLength(t.Context(), *u, "me", limits, 110)
			},
			"a part": func(db *testDB, _ int64, u *ArchiveUpload, id string) error {
				return db.AddUploadPart(t.Context(), *u, "me", limits, UploadPart{ID: "more of " + id, Begins: 10, Size: 100}, u.ExpiresAt)
			},
		} {
			user, err := db.CreateUser(t.Context(), User{Name: "user-of-" + name[2:5], PasswordHash: "x"})
			check(t, "CreateUser", err)
			var open [n]ArchiveUpload
			for i := range open {
				open[i], err = db.archive(t, user.ID, fmt.Sprint(name, i), "", -1, limits)
				check(t, "begin", err)
			}
			errs := make([]error, n)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() {
					h := handles[i%len(handles)]
					if name != "a new upload" {
						h = db // who holds the session
					}
					errs[i] = take(h, user.ID, &open[i], fmt.Sprint(name, i))
				})
			}
			wg.Wait()
			denied := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return tarport.ErrorCode(err) != tarport.Denied })
			if len(denied) != n-1 {
				t.Errorf("%s: %d of %d were refused, want all but one: %v", name, len(denied), n, errors.Join(errs...))
			}
		}
	})
}

func TestUploadsAreListedByWhatTheyWereBegunFor(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for id, namespace := range map[string]string{"A": "", "B": "team", "C": "other", "D": "team"} {
			_, err := db.archive(t, 7, id, namespace, 10, UploadLimits{Count: 100})
			check(t, "begin", err)
		}
		for namespace, want := range map[string][]string{"": {"A", "B", "C", "D"}, "team": {"B", "D"}, "none": {}} {
			got := []string{}
			for last, more := "", true; more; {
				page, err := db.ArchiveUploads(t.Context(), 7, namespace, 1, last)
				check(t, "ArchiveUploads", err)
				for _, u := range page {
					got, last = append(got, u.ID), u.ID
				}
				more = len(page) > 0
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("those of %q (-want +got):\n%s", namespace, diff)
			}
		}
	})
}
