package metadata

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTotalsAreOfWhatIsThere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		b, err := db.Backlog(ctx)
		check(t, "Backlog", err)
		if b != (Backlog{}) {
			t.Errorf("Backlog of nothing = %+v", b)
		}
		began := db.clock.now()
		db.putImageOf(t, "a/b", "image", "one", "three")
		db.clock.advance(time.Minute)
		db.putImageOf(t, "a/c", "another", "one", "five!")
		check(t, "CreateUpload", db.CreateUpload(ctx, Upload{ID: "u1", Repository: "a/b", StartedAt: began}, db.clock.in(time.Hour)))
		limits := UploadLimits{Count: 10}
		check(t, "CreateArchiveUpload", db.CreateArchiveUpload(ctx, ArchiveUpload{Upload: Upload{ID: "a1", StartedAt: began}, Length: 100, ExpiresAt: db.clock.in(time.Hour)}, limits))
		check(t, "CreateArchiveUpload", db.CreateArchiveUpload(ctx, ArchiveUpload{Upload: Upload{ID: "a2", StartedAt: began}, Length: -1, ExpiresAt: db.clock.in(time.Second)}, limits))
		db.clock.advance(2 * time.Second) // the last one is over

		b, err = db.Backlog(ctx)
		check(t, "Backlog", err)
		if diff := cmp.Diff(Backlog{Blobs: 1, Archives: 1, Pending: 3, Since: began}, b); diff != "" {
			t.Errorf("Backlog (-want +got):\n%s", diff)
		}
		n, bytes, err := db.BlobTotals(ctx)
		check(t, "BlobTotals", err)
		if want := int64(len("one" + "three" + "five!")); n != 3 || bytes != want {
			t.Errorf("BlobTotals = %d, %d; want 3, %d", n, bytes, want)
		}
	})
}
