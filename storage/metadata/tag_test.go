package metadata

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

func asError(tb testing.TB, err error) *tarport.Error {
	tb.Helper()
	e, ok := errors.AsType[*tarport.Error](err)
	if !ok {
		tb.Fatalf("error = %v, want a *tarport.Error", err)
	}
	return e
}

// change is a row of a tag's history.
type change struct {
	Digest, Previous string
	At               int64
	By, Via          string
}

func (db *testDB) history(tb testing.TB, repository, tag string) []change {
	tb.Helper()
	list, err := all(tb.Context(), db.view(), func(c *change, scan func(...any) error) error {
		return scan(&c.Digest, &c.Previous, &c.At, &c.By, &c.Via)
	}, `SELECT COALESCE(h.digest, ''), COALESCE(h.previous, ''), h.changed_at, h.changed_by, h.changed_via
		FROM tag_history h JOIN repositories r ON r.id = h.repository_id WHERE r.name = $1 AND h.name = $2 ORDER BY h.id`, repository, tag)
	check(tb, "read the history", err)
	return list
}

func TestEveryChangeOfATagIsRememberedAndNoneThatChangesNothing(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		one, two := manifest("one"), manifest("two")
		d1, d2 := one.Digest.String(), two.Digest.String()
		var want []change
		did := func(digest, previous, by, via string) {
			want = append(want, change{digest, previous, db.clock.now().UnixMicro(), by, via})
			db.clock.advance(time.Second)
		}
		db.mustPut(t, db.put("a/b", one, "latest"))
		did(d1, "", "alice", "push")
		db.mustPut(t, db.put("a/b", one, "latest")) // the same again
		db.mustPut(t, db.put("a/b", two, "latest"))
		did(d2, d1, "alice", "push")
		check(t, "Tag", db.Tag(t.Context(), "a/b", "latest", one.Digest, "bob", "tag"))
		did(d1, d2, "bob", "tag")
		check(t, "DeleteTag", db.DeleteTag(t.Context(), "a/b", "latest", "carol"))
		did("", d1, "carol", "delete")
		check(t, "Tag", db.Tag(t.Context(), "a/b", "latest", two.Digest, "bob", "tag"))
		did(d2, "", "bob", "tag")
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", two.Digest, "dave", db.clock.now()))
		did("", d2, "dave", "delete")
		if diff := cmp.Diff(want, db.history(t, "a/b", "latest")); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}
	})
}

func TestATagPointsOnlyToAManifestOfItsOwnRepository(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		m := manifest("m")
		db.mustPut(t, db.put("a/b", m), db.put("a/c", manifest("other"), "latest"))
		wantCode(t, "Tag of another's manifest", db.Tag(t.Context(), "a/c", "x", m.Digest, "bob", "tag"), tarport.ManifestUnknown)
		wantCode(t, "Tag in no repository", db.Tag(t.Context(), "a/none", "x", m.Digest, "bob", "tag"), tarport.NameUnknown)
		wantCode(t, "DeleteTag of none", db.DeleteTag(t.Context(), "a/b", "latest", "bob"), tarport.ManifestUnknown)
		wantCode(t, "DeleteTag in no repository", db.DeleteTag(t.Context(), "a/none", "latest", "bob"), tarport.NameUnknown)
		check(t, "DeleteTag", db.DeleteTag(t.Context(), "a/c", "latest", "bob"))
		_, err := db.Manifest(t.Context(), "a/c", tarport.Reference{Digest: digestOf("other")})
		check(t, "its manifest by digest", err)
		tags, err := db.TagsOf(t.Context(), "a/none", m.Digest)
		check(t, "TagsOf in no repository", err)
		if len(tags) != 0 {
			t.Errorf("TagsOf in no repository = %v, want none", tags)
		}
	})
}

// pageOf is what a page of sorted names must be.
func pageOf(names []string, n int, last string) Page {
	var p Page
	after := names[indexAfter(names, last):]
	list := after[:min(n, len(after))]
	p.Joined, p.Count, p.More = strings.Join(list, `","`), len(list), len(after) > n
	if len(list) > 0 {
		p.Last = list[len(list)-1]
	}
	return p
}

func indexAfter(names []string, last string) int {
	i, found := slices.BinarySearch(names, last)
	if found {
		i++
	}
	return i
}

// randomNames makes names out of three letters; many of them begin alike.
func randomNames(r *rand.Rand, alphabet string, count int, valid func(string) bool) []string {
	names := map[string]bool{}
	for range count {
		b := make([]byte, 1+r.IntN(6))
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		if name := string(b); valid(name) {
			names[name] = true
		}
	}
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// comparePages compares random pages, and a walk over all, with the model.
func comparePages(t *testing.T, r *rand.Rand, names []string, alphabet string, list func(n int, last string) (Page, error)) {
	t.Helper()
	lasts := []string{"", "\x01", "~", strings.Repeat(alphabet[:1], 9)}
	lasts = append(lasts, randomNames(r, alphabet, 8, func(string) bool { return true })...)
	for range 8 {
		lasts = append(lasts, names[r.IntN(len(names))])
	}
	for _, last := range lasts {
		for _, n := range []int{0, 1, 2, 7, len(names), 1000} {
			got, err := list(n, last)
			check(t, "list", err)
			if diff := cmp.Diff(pageOf(names, n, last), got); diff != "" {
				t.Fatalf("page of %d after %q of %q (-want +got):\n%s", n, last, names, diff)
			}
		}
	}
	for _, n := range []int{1, 3} {
		var walked []string
		for last := ""; ; {
			p, err := list(n, last)
			check(t, "list", err)
			walked = append(walked, p.Names()...)
			if last = p.Last; !p.More {
				break
			}
		}
		if diff := cmp.Diff(names, walked); diff != "" {
			t.Fatalf("walk by %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestPagesOfTagsAreThoseOfASortedList(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for seed := range uint64(6) {
			r := rand.New(rand.NewPCG(seed, 7))
			alphabet := []string{"aB-", "a_.", "0aZ", "aab", "_-.", "zZ9"}[seed]
			names := randomNames(r, alphabet, 20+r.IntN(150), func(s string) bool { return tarport.CheckTag(s) == nil })
			repository := fmt.Sprintf("ns/r%d", seed)
			db.mustPut(t, db.put(repository, manifest("m"), names...), db.put(repository+"x", manifest("m"), "other"))
			t.Logf("seed %d: %d tags", seed, len(names))
			comparePages(t, r, names, alphabet, func(n int, last string) (Page, error) {
				return db.Tags(t.Context(), repository, n, last)
			})
		}
	})
}

func TestPagesOfRepositoriesAreThoseOfASortedListOfThoseWithAManifest(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		const alphabet = "a/-"
		r := rand.New(rand.NewPCG(3, 7))
		names := randomNames(r, alphabet, 2000, func(s string) bool { return tarport.CheckRepository(s) == nil })
		for _, name := range names {
			db.mustPut(t, db.put(name, manifest("m")))
		}
		db.pushBlob(t, "aaa/empty", "content", grace) // has no manifest
		comparePages(t, r, names, alphabet, func(n int, last string) (Page, error) {
			return db.Repositories(t.Context(), n, last)
		})
	})
}

func TestTagsOfARepositoryWithoutAnyIsAnEmptyPageAndOfNoneIsNameUnknown(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "content", grace)
		p, err := db.Tags(t.Context(), "a/b", 10, "")
		check(t, "Tags", err)
		if diff := cmp.Diff(Page{}, p); diff != "" || p.Names() != nil {
			t.Errorf("Tags (-want +got):\n%s names %v", diff, p.Names())
		}
		_, err = db.Tags(t.Context(), "a/none", 10, "")
		wantCode(t, "Tags of no repository", err, tarport.NameUnknown)
	})
}

func TestTheHistoryOfATagIsPaged(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		one, two := manifest("one"), manifest("two")
		db.mustPut(t, db.put("a/b", one, "latest", "other"))
		db.clock.advance(time.Second)
		db.mustPut(t, db.put("a/b", two, "latest"))
		at := db.clock.now().UTC()
		db.clock.advance(time.Second)
		check(t, "DeleteTag", db.DeleteTag(t.Context(), "a/b", "latest", "carol"))
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", one.Digest, "dave", db.clock.now()))
		var got []TagChange
		for before := int64(0); ; {
			list, err := db.TagHistory(t.Context(), "a/b", "latest", 1, before)
			check(t, "TagHistory", err)
			if len(list) == 0 {
				break
			}
			before = list[0].ID
			list[0].ID = 0
			got = append(got, list...)
		}
		want := []TagChange{
			{Previous: two.Digest, At: at.Add(time.Second), By: "carol", Via: "delete", Here: true},
			{Digest: two.Digest, Previous: one.Digest, At: at, By: "alice", Via: "push", Here: true},
			{Digest: one.Digest, At: at.Add(-time.Second), By: "alice", Via: "push"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}
		for _, repository := range []string{"a/none", "a/b"} {
			list, err := db.TagHistory(t.Context(), repository, "none", 10, 0)
			check(t, "TagHistory of none", err)
			if len(list) != 0 {
				t.Errorf("the history of no tag has %d changes", len(list))
			}
		}
	})
}
