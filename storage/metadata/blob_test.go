package metadata

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

const grace = 24 * time.Hour

func (db *testDB) blobLease(tb testing.TB, d digest.Digest) time.Time {
	tb.Helper()
	b, err := db.Blob(tb.Context(), d)
	check(tb, "Blob", err)
	return b.LeasedUntil
}

func (db *testDB) markGoing(tb testing.TB, d digest.Digest) bool {
	tb.Helper()
	going, err := db.MarkGoing(tb.Context(), d, db.clock.now())
	check(tb, "MarkGoing", err)
	return going
}

func TestABlobIsSeenOnlyInRepositoriesThatLinkIt(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "content", time.Hour)
		got, err := db.LinkedBlob(t.Context(), "a/b", d)
		check(t, "LinkedBlob", err)
		want := Blob{Digest: d, Size: 7, LeasedUntil: db.clock.in(time.Hour)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("LinkedBlob (-want +got):\n%s", diff)
		}
		for _, other := range []string{"a/c", "a", "b"} {
			_, err := db.LinkedBlob(t.Context(), other, d)
			wantCode(t, "LinkedBlob in "+other, err, tarport.BlobUnknown)
		}
		_, err = db.LinkedBlob(t.Context(), "a/b", digestOf("other"))
		wantCode(t, "LinkedBlob of another digest", err, tarport.BlobUnknown)
		got, err = db.Blob(t.Context(), d)
		check(t, "Blob", err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Blob (-want +got):\n%s", diff)
		}
		_, err = db.Blob(t.Context(), digestOf("other"))
		wantCode(t, "Blob of another digest", err, tarport.BlobUnknown)
	})
}

func TestABlobPushedAgainGetsANewLeaseAndStaysOne(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "content", time.Hour)
		db.clock.advance(time.Minute)
		db.pushBlob(t, "a/b", "content", time.Hour)
		db.pushBlob(t, "a/c", "content", time.Hour)
		db.pushBlob(t, "b/a", "content", time.Hour)
		if got, want := db.blobLease(t, d), db.clock.in(time.Hour); !got.Equal(want) {
			t.Errorf("lease = %v, want %v", got, want)
		}
		list, err := db.Blobs(t.Context(), 10, "")
		check(t, "Blobs", err)
		if diff := cmp.Diff([]digest.Digest{d}, list); diff != "" {
			t.Errorf("Blobs (-want +got):\n%s", diff)
		}
		sources, err := db.BlobSources(t.Context(), d, "", 10)
		check(t, "BlobSources", err)
		if diff := cmp.Diff([]string{"a/b", "a/c", "b/a"}, sources); diff != "" {
			t.Errorf("BlobSources (-want +got):\n%s", diff)
		}
		sources, err = db.BlobSources(t.Context(), d, "b", 1)
		check(t, "BlobSources", err)
		if diff := cmp.Diff([]string{"b/a"}, sources); diff != "" {
			t.Errorf("BlobSources of b (-want +got):\n%s", diff)
		}
	})
}

func TestBlobsPagesInByteOrder(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		var want []digest.Digest
		for i := range 25 {
			want = append(want, db.pushBlob(t, "a/b", fmt.Sprint(i), time.Hour))
		}
		slices.Sort(want)
		db.clock.advance(2 * time.Hour)
		if !db.markGoing(t, want[3]) {
			t.Fatal("MarkGoing = false")
		}
		want = slices.Delete(want, 3, 4)
		var got []digest.Digest
		for last := digest.Digest(""); ; last = got[len(got)-1] {
			page, err := db.Blobs(t.Context(), 7, last)
			check(t, "Blobs", err)
			got = append(got, page...)
			if len(page) == 0 {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Blobs (-want +got):\n%s", diff)
		}
	})
}

func TestALeaseIsOnlyEverMovedOn(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "content", grace)
		check(t, "RenewLease", db.RenewLease(t.Context(), d, db.clock.in(time.Hour)))
		if got, want := db.blobLease(t, d), db.clock.in(grace); !got.Equal(want) {
			t.Errorf("lease after a shorter one = %v, want %v", got, want)
		}
		check(t, "RenewLease", db.RenewLease(t.Context(), d, db.clock.in(2*grace)))
		if got, want := db.blobLease(t, d), db.clock.in(2*grace); !got.Equal(want) {
			t.Errorf("lease after a longer one = %v, want %v", got, want)
		}
		check(t, "RenewLease of an unknown blob", db.RenewLease(t.Context(), digestOf("other"), db.clock.in(grace)))
	})
}

func TestAMountLinksWhatTheSourceLinksAndNothingElse(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "content", time.Hour)
		b, err := db.MountBlob(t.Context(), "a/b", "new/repo", d, db.clock.in(grace))
		check(t, "MountBlob", err)
		if diff := cmp.Diff(Blob{Digest: d, Size: 7, LeasedUntil: db.clock.in(grace)}, b); diff != "" {
			t.Errorf("MountBlob (-want +got):\n%s", diff)
		}
		got, err := db.LinkedBlob(t.Context(), "new/repo", d)
		check(t, "LinkedBlob", err)
		if diff := cmp.Diff(b, got); diff != "" {
			t.Errorf("LinkedBlob (-want +got):\n%s", diff)
		}
		_, err = db.MountBlob(t.Context(), "a/b", "new/repo", d, db.clock.in(grace))
		check(t, "MountBlob again", err)
		for _, from := range []string{"a/none", "a"} {
			_, err = db.MountBlob(t.Context(), from, "other/repo", d, db.clock.in(grace))
			wantCode(t, "MountBlob from "+from, err, tarport.BlobUnknown)
		}
		_, err = db.MountBlob(t.Context(), "a/b", "other/repo", digestOf("other"), db.clock.in(grace))
		wantCode(t, "MountBlob of another digest", err, tarport.BlobUnknown)
		if got := db.count(t, `SELECT COUNT(*) FROM repositories WHERE name = 'other/repo'`); got != 0 {
			t.Error("a mount that failed made its repository")
		}
	})
}

func TestABlobThatAManifestNeedsIsNotUnlinked(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "used", time.Hour)
		other := db.pushBlob(t, "a/b", "unused", time.Hour)
		db.pushBlob(t, "a/c", "used", time.Hour)
		m := manifest("m", "layer:used")
		db.mustPut(t, db.put("a/b", m))
		wantCode(t, "UnlinkBlob in use", db.UnlinkBlob(t.Context(), "a/b", d), tarport.Conflict)
		check(t, "UnlinkBlob elsewhere", db.UnlinkBlob(t.Context(), "a/c", d))
		wantCode(t, "UnlinkBlob twice", db.UnlinkBlob(t.Context(), "a/c", d), tarport.BlobUnknown)
		wantCode(t, "UnlinkBlob in no repository", db.UnlinkBlob(t.Context(), "a/none", d), tarport.BlobUnknown)
		check(t, "UnlinkBlob unused", db.UnlinkBlob(t.Context(), "a/b", other))
		_, err := db.LinkedBlob(t.Context(), "a/b", other)
		wantCode(t, "LinkedBlob after it", err, tarport.BlobUnknown)
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", m.Digest, "bob", db.clock.in(grace)))
		check(t, "UnlinkBlob after the manifest is gone", db.UnlinkBlob(t.Context(), "a/b", d))
	})
}

func TestTheCollectorGetsOnlyWhatNothingReferencesAndWhoseLeaseIsOver(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		leased := db.pushBlob(t, "a/b", "leased", grace)
		used := db.pushBlob(t, "a/b", "used", time.Hour)
		free := db.pushBlob(t, "a/b", "free", time.Hour)
		db.pushBlob(t, "a/c", "free", time.Hour)
		m := db.put("a/b", manifest("m", "layer:used"))
		m.Lease, m.RenewBefore = db.clock.in(time.Hour), db.clock.now()
		db.mustPut(t, m)
		if db.markGoing(t, free) {
			t.Error("MarkGoing of a blob whose lease runs = true")
		}
		db.clock.advance(time.Hour)
		for name, d := range map[string]digest.Digest{"leased": leased, "referenced": used, "unknown": digestOf("unknown")} {
			if db.markGoing(t, d) {
				t.Errorf("MarkGoing of a blob that is %s = true", name)
			}
		}
		for range 2 { // the second time as after a crash
			if !db.markGoing(t, free) {
				t.Error("MarkGoing of a free blob = false")
			}
		}
		for _, repo := range []string{"a/b", "a/c"} {
			_, err := db.LinkedBlob(t.Context(), repo, free)
			wantCode(t, "LinkedBlob of a going blob in "+repo, err, tarport.BlobUnknown)
		}
		check(t, "DropGoing", db.DropGoing(t.Context(), free))
		check(t, "DropGoing of a live blob", db.DropGoing(t.Context(), used))
		if got := db.count(t, `SELECT COUNT(*) FROM blobs`); got != 2 {
			t.Errorf("blobs = %d, want 2", got)
		}
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", m.Manifest.Digest, "bob", db.clock.in(grace)))
		if db.markGoing(t, used) {
			t.Error("MarkGoing right after the last manifest went = true, want the grace first")
		}
		db.clock.advance(grace)
		if !db.markGoing(t, used) {
			t.Error("MarkGoing after the grace = false")
		}
	})
}

func TestAGoingBlobIsAbsentToEverybodyAndAPushMeetsErrGoing(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		d := db.pushBlob(t, "a/b", "content", time.Hour)
		layer := Layer{DiffID: digestOf("plain"), Digest: d, Size: 7, Compression: "gzip"}
		withLayer := db.put("a/b", manifest("known", "layer:content"))
		withLayer.Layers = []Layer{layer}
		db.mustPut(t, withLayer)
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", withLayer.Manifest.Digest, "bob", db.clock.now()))
		db.clock.advance(3 * grace)
		if !db.markGoing(t, d) {
			t.Fatal("MarkGoing = false")
		}
		_, err := db.Blob(t.Context(), d)
		wantCode(t, "Blob", err, tarport.BlobUnknown)
		_, err = db.MountBlob(t.Context(), "a/b", "a/c", d, db.clock.in(grace))
		wantCode(t, "MountBlob", err, tarport.BlobUnknown)
		check(t, "RenewLease", db.RenewLease(t.Context(), d, db.clock.in(grace)))
		sources, err := db.BlobSources(t.Context(), d, "", 10)
		check(t, "BlobSources", err)
		layers, err := db.KnownLayers(t.Context(), layer.DiffID)
		check(t, "KnownLayers", err)
		if len(sources) != 0 || len(layers) != 0 {
			t.Errorf("sources %v, known layers %v, want none", sources, layers)
		}
		wantCode(t, "a manifest that names it", db.PutManifests(t.Context(), []ManifestPut{db.put("a/b", manifest("m", "layer:content"))}), tarport.ManifestBlobUnknown)
		linking := db.put("a/b", manifest("m", "layer:content"))
		linking.Links = []digest.Digest{d}
		wantCode(t, "a manifest that links it", db.PutManifests(t.Context(), []ManifestPut{linking}), tarport.ManifestBlobUnknown)

		put := BlobPut{Digest: d, Size: 7, Repository: "a/b", Lease: db.clock.in(grace)}
		if err := db.PutBlob(t.Context(), put); !errors.Is(err, ErrGoing) {
			t.Errorf("PutBlob: error = %v, want ErrGoing", err)
		}
		check(t, "DropGoing", db.DropGoing(t.Context(), d))
		check(t, "PutBlob after the collector is done", db.PutBlob(t.Context(), put))
		_, err = db.LinkedBlob(t.Context(), "a/b", d)
		check(t, "LinkedBlob", err)
		if layers, _ := db.KnownLayers(t.Context(), layer.DiffID); len(layers) != 0 {
			t.Errorf("known layers of a blob that came anew = %v, want none", layers)
		}
	})
}

// marking begins to mark a blob on a handle of its own, as another replica's
// collector, and has not committed yet.
func (db *testDB) marking(t *testing.T, d digest.Digest, more ...string) (commit func()) {
	t.Helper()
	other := openAt(t, db.dsn, db.clock)
	tx, err := other.write.BeginTx(t.Context(), nil)
	check(t, "begin", err)
	res, err := tx.ExecContext(t.Context(), markGoing, d.String(), db.clock.now().UnixMicro())
	check(t, "mark", err)
	if n, _ := res.RowsAffected(); n != 1 {
		t.Fatal("the blob was not marked")
	}
	for _, query := range append([]string{unlinkEverywhere}, more...) {
		_, err = tx.ExecContext(t.Context(), query, d.String())
		check(t, query, err)
	}
	return func() {
		t.Helper()
		if err := tx.Commit(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			t.Fatalf("commit: %v", err)
		}
	}
}

func TestAManifestThatOvertakesTheCollectorOnAnotherReplicaLeavesNoHole(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	d := db.pushBlob(t, "a/b", "content", time.Hour)
	db.clock.advance(2 * time.Hour)
	commit := db.marking(t, d)
	errs := make(chan error, 1)
	go func() {
		errs <- db.PutManifests(context.WithoutCancel(t.Context()), []ManifestPut{db.put("a/b", manifest("m", "layer:content"), "latest")})
	}()
	db.waitForLockWait(t) // the manifest's check has seen the blob, and its lease waits for the row
	commit()
	wantCode(t, "PutManifests", <-errs, tarport.ManifestBlobUnknown)
	if got := db.count(t, `SELECT COUNT(*) FROM manifest_references`); got != 0 {
		t.Errorf("%d references to a blob that is going, want 0", got)
	}
}

func TestTheCollectorWaitsForAManifestOnAnotherReplicaAndThenLeavesItsBlob(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	d := db.pushBlob(t, "a/b", "content", time.Hour)
	db.clock.advance(2 * time.Hour)
	other := openAt(t, db.dsn, db.clock)
	var going bool
	errs := make(chan error, 1)
	check(t, "put a manifest", db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
		p := db.put("a/b", manifest("m", "layer:content"))
		if err := tx.putManifest(ctx, &p); err != nil {
			return err
		}
		go func() {
			var err error
			going, err = other.MarkGoing(context.WithoutCancel(t.Context()), d, db.clock.now())
			errs <- err
		}()
		db.waitForLockWait(t)
		return nil
	}))
	check(t, "MarkGoing", <-errs)
	if going {
		t.Error("MarkGoing took a blob that a manifest had just named")
	}
}

func TestAMountThatTheCollectorOvertakesMakesNoRowWithoutBytes(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{"marked": nil, "gone": {deleteBlob}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := onPostgres(t)
			d := db.pushBlob(t, "a/b", "content", time.Hour)
			db.clock.advance(2 * time.Hour)
			commit := db.marking(t, d, more...)
			errs := make(chan error, 1)
			go func() {
				_, err := db.MountBlob(context.WithoutCancel(t.Context()), "a/b", "a/c", d, db.clock.in(grace))
				errs <- err
			}()
			db.waitForLockWait(t)
			commit()
			wantCode(t, "MountBlob", <-errs, tarport.BlobUnknown)
			if got := db.count(t, `SELECT COUNT(*) FROM blobs WHERE state = 'live'`); got != 0 {
				t.Errorf("%d live blobs, want 0", got)
			}
		})
	}
}

func TestMarkUnusedTakesBackOnlyWhatNobodyHasSeenSince(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		lease := db.clock.in(grace)
		staged := func(content string) digest.Digest {
			t.Helper()
			d := digestOf(content)
			check(t, "PutBlob", db.PutBlob(t.Context(), BlobPut{Digest: d, Size: int64(len(content)), Lease: lease}))
			return d
		}
		for name, c := range map[string]struct {
			since func(d digest.Digest, content string)
			want  bool
		}{
			"nothing": {func(digest.Digest, string) {}, true},
			"a push":  {func(_ digest.Digest, content string) { db.pushBlob(t, "a/b", content, grace) }, false},
			"another batch": {func(d digest.Digest, _ string) {
				check(t, "renew", db.RenewLease(t.Context(), d, lease.Add(1*time.Microsecond)))
			}, false},
			"a manifest": {func(d digest.Digest, content string) {
				p := db.put("a/b", manifest("m of "+content, "layer:"+content))
				p.Links, p.Lease = []digest.Digest{d}, lease
				db.mustPut(t, p)
			}, false},
		} {
			d := staged(name)
			c.since(d, name)
			going, err := db.MarkUnused(t.Context(), d, lease)
			check(t, "MarkUnused", err)
			if going != c.want {
				t.Errorf("MarkUnused after %s = %v, want %v", name, going, c.want)
			}
			if _, err := db.Blob(t.Context(), d); (err != nil) != c.want {
				t.Errorf("Blob after MarkUnused after %s: error = %v", name, err)
			}
		}
	})
}

func TestKnownLayersRemembersEachStoredFormOfALayer(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		plain := digestOf("plain tar")
		var want []Layer
		for _, compression := range []string{"none", "gzip", "zstd"} {
			d := db.pushBlob(t, "a/b", compression, time.Hour)
			want = append(want, Layer{DiffID: plain, Digest: d, Size: int64(len(compression)), Compression: compression})
		}
		slices.SortFunc(want, func(a, b Layer) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		p := db.put("a/b", manifest("m", "layer:none"))
		p.Layers = want
		db.mustPut(t, p)
		db.mustPut(t, p)
		got, err := db.KnownLayers(t.Context(), plain)
		check(t, "KnownLayers", err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("KnownLayers (-want +got):\n%s", diff)
		}
		none, err := db.KnownLayers(t.Context(), digestOf("another"))
		check(t, "KnownLayers", err)
		if none == nil || len(none) != 0 {
			t.Errorf("KnownLayers of an unknown layer = %#v, want an empty list", none)
		}
	})
}

func TestRememberLayerIsForBlobsThatAreHere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		plain := digestOf("plain tar")
		wantKnown := func(want bool) {
			t.Helper()
			known, err := db.KnowsLayer(t.Context(), plain)
			check(t, "KnowsLayer", err)
			if known != want {
				t.Errorf("KnowsLayer = %v, want %v", known, want)
			}
		}
		check(t, "RememberLayer", db.RememberLayer(t.Context(), Layer{DiffID: plain, Digest: digestOf("nowhere"), Compression: "gzip"}))
		wantKnown(false)
		want := Layer{DiffID: plain, Digest: db.pushBlob(t, "a/b", "layer", time.Hour), Size: 5, Compression: "zstd"}
		for range 2 {
			check(t, "RememberLayer", db.RememberLayer(t.Context(), want))
		}
		wantKnown(true)
		got, err := db.KnownLayers(t.Context(), plain)
		check(t, "KnownLayers", err)
		if diff := cmp.Diff([]Layer{want}, got); diff != "" {
			t.Errorf("KnownLayers (-want +got):\n%s", diff)
		}
	})
}

func TestSimilarLayersAreThoseThatBeginAlike(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		first := []byte("0123456789abcdef")
		layerOf := func(name, compression string, size int64, prefixes string) Layer {
			db.clock.advance(time.Second)
			return Layer{
				DiffID: digestOf(name), Digest: db.pushBlob(t, "a/b", name+compression, time.Hour), Size: int64(len(name + compression)),
				Compression: compression, Plain: Plain{Size: size, First: []byte(prefixes)[:16], Prefixes: []byte(prefixes)},
			}
		}
		const huge = 20 << 30
		old := layerOf("old", "gzip", huge, string(first)+"................")
		newer := layerOf("newer", "gzip", huge, string(first))
		packed := layerOf("packed", "zstd", huge, string(first))
		p := db.put("a/b", manifest("m", "layer:oldgzip"))
		p.Layers = []Layer{
			old, layerOf("smaller", "gzip", huge-1, string(first)), layerOf("other", "gzip", huge, "fedcba9876543210"),
			{DiffID: digestOf("short"), Digest: db.pushBlob(t, "a/b", "short", time.Hour), Compression: "gzip", Plain: Plain{Size: huge}},
		}
		db.mustPut(t, p)
		db.mustPut(t, p)
		check(t, "RememberLayer", db.RememberLayer(t.Context(), newer))
		check(t, "RememberLayer", db.RememberLayer(t.Context(), packed))
		wantSimilar := func(compression string, n int, want ...Layer) {
			t.Helper()
			got, err := db.SimilarLayers(t.Context(), first, huge, compression, n)
			check(t, "SimilarLayers", err)
			if diff := cmp.Diff(append([]Layer{}, want...), got); diff != "" {
				t.Errorf("SimilarLayers (-want +got):\n%s", diff)
			}
		}
		wantSimilar("gzip", 9, newer, old)
		wantSimilar("gzip", 1, newer)
		wantSimilar("zstd", 9, packed)
		wantSimilar("none", 9)
		check(t, "ForgetPrefixes", db.ForgetPrefixes(t.Context(), newer.Digest))
		wantSimilar("gzip", 9, old)

		db.clock.advance(2 * time.Hour)
		going, err := db.MarkGoing(t.Context(), packed.Digest, db.clock.now())
		check(t, "MarkGoing", err)
		if !going {
			t.Fatal("MarkGoing of a blob that nobody needs = false")
		}
		wantSimilar("zstd", 9)
		check(t, "DropGoing", db.DropGoing(t.Context(), packed.Digest)) // the foreign key must let it go
		check(t, "RememberLayer", db.RememberLayer(t.Context(), packed))
		wantSimilar("zstd", 9)
	})
}
