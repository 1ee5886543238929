package metadata

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

func TestAManifestIsReadByTagAndByDigestAsItCame(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		m := manifest("payload\x00\xff bytes")
		db.mustPut(t, db.put("a/b", m, "one", "two"))
		want := Manifest{Digest: m.Digest, MediaType: m.MediaType, Payload: m.Payload}
		for _, ref := range []tarport.Reference{{Tag: "one"}, {Tag: "two"}, {Digest: m.Digest}} {
			got, err := db.Manifest(t.Context(), "a/b", ref)
			check(t, "Manifest", err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Manifest(%s) (-want +got):\n%s", ref, diff)
			}
		}
		for _, c := range []struct {
			repository string
			ref        tarport.Reference
		}{
			{"a/b", tarport.Reference{Tag: "three"}},
			{"a/b", tarport.Reference{Digest: digestOf("other")}},
			{"a/c", tarport.Reference{Tag: "one"}},
			{"a/c", tarport.Reference{Digest: m.Digest}},
		} {
			_, err := db.Manifest(t.Context(), c.repository, c.ref)
			wantCode(t, "Manifest "+c.repository+" "+c.ref.String(), err, tarport.ManifestUnknown)
		}
	})
}

func TestManifestsArePutAllOrNone(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		layer := db.pushBlob(t, "a/b", "layer", grace)
		good := db.put("a/b", manifest("good", "layer:layer"), "latest")
		good.Layers = []Layer{{DiffID: digestOf("plain"), Digest: layer, Size: 5, Compression: "gzip"}}
		subject := manifest("subject")
		subject.Subject = digestOf("somebody")
		for name, bad := range map[string]struct {
			put  ManifestPut
			code tarport.Code
		}{
			"a missing layer":          {db.put("c/d", manifest("bad", "layer:missing")), tarport.ManifestBlobUnknown},
			"a missing config":         {db.put("c/d", manifest("bad", "config:missing")), tarport.ManifestBlobUnknown},
			"a layer linked elsewhere": {db.put("c/d", manifest("bad", "layer:layer")), tarport.ManifestBlobUnknown},
			"a wrong size": {func() ManifestPut {
				m := manifest("bad", "layer:layer")
				m.References[0].Size++
				return db.put("a/b", m)
			}(), tarport.ManifestInvalid},
			"a link to a blob that is not here": {func() ManifestPut {
				p := db.put("c/d", manifest("bad"))
				p.Links = []digest.Digest{digestOf("nowhere")}
				return p
			}(), tarport.ManifestBlobUnknown},
		} {
			err := db.PutManifests(t.Context(), []ManifestPut{good, db.put("0/first", subject, "x"), bad.put})
			wantCode(t, "PutManifests with "+name, err, bad.code)
			for _, table := range []string{"manifests", "manifest_references", "tags", "tag_history", "diff_ids"} {
				if got := db.count(t, `SELECT COUNT(*) FROM `+table); got != 0 {
					t.Errorf("with %s: %d rows in %s, want 0", name, got, table)
				}
			}
			if got := db.count(t, `SELECT COUNT(*) FROM repositories`); got != 1 {
				t.Errorf("with %s: %d repositories, want the one that was there", name, got)
			}
		}
		db.mustPut(t, good, db.put("0/first", subject, "x"))
		for table, want := range map[string]int64{"manifests": 2, "manifest_references": 1, "tags": 2, "tag_history": 2, "diff_ids": 1, "repositories": 2} {
			if got := db.count(t, `SELECT COUNT(*) FROM `+table); got != want {
				t.Errorf("%d rows in %s, want %d", got, table, want)
			}
		}
	})
}

func TestWhatAManifestMayNameWithoutItsBeingHere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "blob", grace)
		child := manifest("child")
		db.mustPut(t, db.put("a/b", child))
		for _, references := range [][]string{
			{"foreign:elsewhere"},
			{"manifest:elsewhere"},
			{"manifest:child"},
			{"manifest:blob"}, // as in BuildKit's caches
		} {
			db.mustPut(t, db.put("a/b", manifest(fmt.Sprint(references), references...)))
		}
		sparse := db.put("a/b", manifest("sparse", "config:missing", "layer:missing"))
		wantCode(t, "a sparse image", db.PutManifests(t.Context(), []ManifestPut{sparse}), tarport.ManifestBlobUnknown)
		sparse.AllowMissing = true
		db.mustPut(t, sparse)
		for name, m := range map[string]Manifest{
			"a child":         manifest("index", "manifest:child"),
			"a blob in index": manifest("cache", "manifest:blob"),
			"a sparse layer":  manifest("sparse 2", "layer:blob"),
			"a foreign layer": manifest("foreign", "foreign:blob"),
		} {
			m.References[0].Size++
			p := db.put("a/b", m)
			p.AllowMissing = true
			wantCode(t, "a wrong size of "+name, db.PutManifests(t.Context(), []ManifestPut{p}), tarport.ManifestInvalid)
		}
	})
}

func TestTheErrorNamesTheBlobsThatAreMissing(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "here", grace)
		err := db.PutManifests(t.Context(), []ManifestPut{db.put("a/b", manifest("m", "config:one", "layer:here", "layer:two", "foreign:three"))})
		wantCode(t, "PutManifests", err, tarport.ManifestBlobUnknown)
		e := asError(t, err)
		want := map[string]any{"missing": []digest.Digest{digestOf("one"), digestOf("two")}}
		if diff := cmp.Diff(want, e.Detail); diff != "" {
			t.Errorf("detail (-want +got):\n%s", diff)
		}
	})
}

func TestAManifestRenewsTheLeasesThatEndSoonAndOnlyThose(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		soon := db.pushBlob(t, "a/b", "soon", time.Hour)
		long := db.pushBlob(t, "a/b", "long", 30*time.Hour)
		other := db.pushBlob(t, "a/b", "other", time.Hour)
		p := db.put("a/b", manifest("only long", "layer:long"))
		db.mustPut(t, p)
		if got, want := db.blobLease(t, long), db.clock.in(30*time.Hour); !got.Equal(want) {
			t.Errorf("lease of a blob whose lease is long = %v, want %v", got, want)
		}
		db.mustPut(t, db.put("a/b", manifest("both", "layer:long", "layer:soon")))
		if got := db.blobLease(t, soon); !got.Equal(p.Lease) {
			t.Errorf("lease of a blob whose lease ended soon = %v, want %v", got, p.Lease)
		}
		if got, want := db.blobLease(t, other), db.clock.in(time.Hour); !got.Equal(want) {
			t.Errorf("lease of a blob that was not named = %v, want %v", got, want)
		}
	})
}

func TestAManifestPutAgainKeepsItsRowAndGetsTheNewTag(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "layer", grace)
		m := manifest("m", "layer:layer", "layer:layer")
		db.mustPut(t, db.put("a/b", m, "one"))
		db.clock.advance(time.Minute)
		db.mustPut(t, db.put("a/b", m, "two"))
		if got := db.count(t, `SELECT COUNT(*) FROM manifest_references`); got != 2 {
			t.Errorf("references = %d, want 2", got)
		}
		if got, want := db.count(t, `SELECT created_at FROM manifests`), db.clock.in(-time.Minute).UnixMicro(); got != want {
			t.Errorf("created_at = %d, want %d", got, want)
		}
		tags, err := db.TagsOf(t.Context(), "a/b", m.Digest)
		check(t, "TagsOf", err)
		if diff := cmp.Diff([]string{"one", "two"}, tags); diff != "" {
			t.Errorf("TagsOf (-want +got):\n%s", diff)
		}
	})
}

func TestDeletingAManifestTakesItsTagsAndReferencesAndNobodyElses(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "layer", grace)
		gone, stays := manifest("gone", "layer:layer"), manifest("stays", "layer:layer")
		db.mustPut(t, db.put("a/b", gone, "one", "two"), db.put("a/b", stays, "three"), db.put("a/c", manifest("gone"), "one"))
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", gone.Digest, "bob", db.clock.in(grace)))
		_, err := db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "one"})
		wantCode(t, "its tag", err, tarport.ManifestUnknown)
		_, err = db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "three"})
		check(t, "another's tag", err)
		_, err = db.Manifest(t.Context(), "a/c", tarport.Reference{Tag: "one"})
		check(t, "the same tag elsewhere", err)
		if got := db.count(t, `SELECT COUNT(*) FROM manifest_references`); got != 1 {
			t.Errorf("references = %d, want 1", got)
		}
		wantCode(t, "again", db.DeleteManifest(t.Context(), "a/b", gone.Digest, "bob", db.clock.now()), tarport.ManifestUnknown)
		wantCode(t, "in no repository", db.DeleteManifest(t.Context(), "a/none", gone.Digest, "bob", db.clock.now()), tarport.NameUnknown)
	})
}

func TestARemovedRepositoryTakesNothingOfAnotherAndItsBlobsKeepTheGrace(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for _, repository := range []string{"a/b", "a/c"} {
			db.pushBlob(t, repository, "layer", time.Hour)
			db.mustPut(t, db.put(repository, manifest("one", "layer:layer"), "1", "latest"), db.put(repository, manifest("index", "manifest:one"), "index"))
		}
		only := db.pushBlob(t, "a/b", "only here", time.Hour)
		db.mustPut(t, db.put("a/b", manifest("two", "layer:only here"), "2"))
		db.session(t, "session")
		db.clock.advance(5 * grace) // all leases are over
		check(t, "DeleteRepository", db.DeleteRepository(t.Context(), "a/b", db.clock.in(grace)))
		wantCode(t, "DeleteRepository again", db.DeleteRepository(t.Context(), "a/b", db.clock.in(grace)), tarport.NameUnknown)
		for table, want := range map[string]int64{"repositories": 1, "manifests": 2, "manifest_references": 2, "tags": 3, "tag_history": 3, "blob_links": 1, "blobs": 2, "namespaces": 1} {
			if got := db.count(t, `SELECT COUNT(*) FROM `+table); got != want {
				t.Errorf("%d rows in %s, want %d", got, table, want)
			}
		}
		_, err := db.Manifest(t.Context(), "a/c", tarport.Reference{Tag: "latest"})
		check(t, "the other repository's manifest", err)
		if db.markGoing(t, only) {
			t.Error("the collector got a blob right after its repository was removed")
		}
		db.clock.advance(grace)
		if !db.markGoing(t, only) {
			t.Error("the collector does not get the blob after the grace")
		}
		// A session of the repository makes it anew.
		check(t, "AcquireUpload", db.acquire(t, "session", "me"))
		check(t, "PutBlob", db.PutBlob(t.Context(), BlobPut{Digest: digestOf("x"), Size: 1, Repository: "a/b", Upload: "session", Holder: "me", Lease: db.clock.in(grace)}))
		_, err = db.LinkedBlob(t.Context(), "a/b", digestOf("x"))
		check(t, "LinkedBlob", err)
	})
}

// TestReferrersPagesAreThoseOfAModel compares random pages with a sorted list.
func TestReferrersPagesAreThoseOfAModel(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		subject := digestOf("subject")
		model := map[string][]string{} // digests by artifact type; "" has all
		var puts []ManifestPut
		for i := range 60 {
			m := manifest(fmt.Sprint(i))
			m.ArtifactType = []string{"", "sbom", "sbom/x", "signature"}[i%4]
			m.Subject = subject
			if i%10 == 9 {
				m.Subject = digestOf("another")
			} else {
				model[""] = append(model[""], m.Descriptor)
				if m.ArtifactType != "" {
					model[m.ArtifactType] = append(model[m.ArtifactType], m.Descriptor)
				}
			}
			puts = append(puts, db.put("a/b", m), db.put("a/c", manifest(fmt.Sprint("not ", i))))
		}
		db.mustPut(t, puts...)
		for k := range model {
			slices.Sort(model[k])
		}
		r := rand.New(rand.NewPCG(1, 2))
		for _, artifactType := range []string{"", "sbom", "sbom/x", "signature", "none", "SBOM"} {
			all := model[artifactType]
			for _, n := range []int{0, 1, 3, 1000} {
				from := 0
				if len(all) > 0 {
					from = r.IntN(len(all) + 1)
				}
				last := ""
				if from > 0 {
					last = all[from-1][len(`{"digest":"`) : len(all[from-1])-len(`"}`)]
				}
				want := append([]string{}, all[from:min(from+n, len(all))]...)
				got, more, err := db.Referrers(t.Context(), "a/b", subject, artifactType, n, last)
				check(t, "Referrers", err)
				if diff := cmp.Diff(want, got); diff != "" || more != (from+n < len(all)) {
					t.Errorf("Referrers(%q, %d, %q), more %t (-want +got):\n%s", artifactType, n, last, more, diff)
				}
			}
		}
		for _, repository := range []string{"a/c", "a/none"} {
			got, _, err := db.Referrers(t.Context(), repository, subject, "", 10, "")
			check(t, "Referrers", err)
			if got == nil || len(got) != 0 {
				t.Errorf("Referrers in %s = %#v, want an empty list", repository, got)
			}
		}
	})
}

// TestAPageOfReferrersHasBoundedBytes, as each has all annotations of its manifest;
// and the pages have all of them.
func TestAPageOfReferrersHasBoundedBytes(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		const n, large = 12, maxPageBytes / 4
		subject := digestOf("subject")
		var puts []ManifestPut
		want := map[string]bool{}
		for i := range n {
			m := manifest(fmt.Sprint(i))
			m.Subject = subject
			m.Descriptor = fmt.Sprintf(`{"digest":"%s","annotations":{"a":"%s"}}`, m.Digest, strings.Repeat("x", large))
			want[m.Digest.String()] = true
			puts = append(puts, db.put("a/b", m))
		}
		db.mustPut(t, puts...)
		last := ""
		for more := true; more; {
			var list []string
			var err error
			list, more, err = db.Referrers(t.Context(), "a/b", subject, "", 1000, last)
			check(t, "Referrers", err)
			if size := len(strings.Join(list, "")); size == 0 || size > maxPageBytes+large+1000 {
				t.Fatalf("a page of %d descriptors has %d bytes", len(list), size)
			}
			for _, d := range list {
				last, _, _ = strings.Cut(d[len(`{"digest":"`):], `"`)
				if !want[last] {
					t.Errorf("%s is there twice, or is none", last)
				}
				delete(want, last)
			}
		}
		if len(want) > 0 {
			t.Errorf("%d are on no page", len(want))
		}
	})
}

// TestWritersOfOneTagAtOnceLeaveAHistoryWithoutGaps has each change begin where
// the one before it ended, whoever made it, on two handles of PostgreSQL.
func TestWritersOfOneTagAtOnceLeaveAHistoryWithoutGaps(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		handles := []*testDB{db}
		if db.dialect == dialectPostgres {
			handles = append(handles, openAt(t, db.dsn, db.clock))
		}
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for w := range errs {
			wg.Go(func() {
				on := handles[w%len(handles)]
				for i := range 8 {
					var err error
					if i%4 == 3 {
						err = on.DeleteTag(t.Context(), "a/b", "latest", "alice")
						if tarport.ErrorCode(err) == tarport.ManifestUnknown { // another was first
							err = nil
						}
					} else {
						err = on.PutManifests(t.Context(), []ManifestPut{on.put("a/b", manifest(fmt.Sprint(w, i)), "latest")})
					}
					if err != nil {
						errs[w] = err
						return
					}
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			check(t, "writer", err)
		}
		history := db.history(t, "a/b", "latest")
		var at string
		for i, h := range history {
			if h.Previous != at || h.Digest == at {
				t.Fatalf("change %d goes from %q to %q, the tag was at %q", i, h.Previous, h.Digest, at)
			}
			at = h.Digest
		}
		m, err := db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "latest"})
		if err != nil {
			wantCode(t, "the tag in the end", err, tarport.ManifestUnknown)
		}
		if string(m.Digest) != at {
			t.Errorf("the tag is at %q, its history ends at %q", m.Digest, at)
		}
		if len(history) < 16 {
			t.Errorf("only %d changes were made", len(history))
		}
	})
}

func TestTwoReplicasThatMakeTheSameRepositoryAtOnceShareIt(t *testing.T) {
	t.Parallel()
	db := onPostgres(t)
	other := openAt(t, db.dsn, db.clock)
	errs := make(chan error, 1)
	check(t, "first", db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.makeRepository(ctx, "ns/new"); err != nil {
			return err
		}
		go func() {
			errs <- other.PutManifests(context.WithoutCancel(t.Context()), []ManifestPut{other.put("ns/new", manifest("m"), "latest")})
		}()
		db.waitForLockWait(t)
		return nil
	}))
	check(t, "second", <-errs)
	if got := db.count(t, `SELECT COUNT(*) FROM repositories`); got != 1 {
		t.Errorf("repositories = %d, want 1", got)
	}
	_, err := db.Manifest(t.Context(), "ns/new", tarport.Reference{Tag: "latest"})
	check(t, "Manifest", err)
}
