package metadata

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tarport/tarport"
)

// asCarol is a context in which carol asks, with a token. Without an id: the
// database's own look at rights is not what these tests are about.
func asCarol(ctx context.Context) context.Context {
	ctx = tarport.WithPrincipal(ctx, tarport.Principal{Name: "carol", TokenID: 9})
	return tarport.WithCall(ctx, tarport.Call{RequestID: "RQ", Address: netip.MustParseAddr("::ffff:192.0.2.1")})
}

func (db *testDB) events(tb testing.TB, q EventQuery) []Event {
	tb.Helper()
	list, err := db.Events(tb.Context(), q, 100)
	check(tb, "Events", err)
	return list
}

func actions(list []Event) (names []string) {
	for _, e := range list {
		names = append(names, e.Action+" "+e.Target)
	}
	return names
}

func TestEveryChangeOfContentIsAnEvent(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := asCarol(t.Context())
		d := db.pushBlob(t, "a/b", "content", grace)
		m := manifest("m", "layer:content")
		put := []ManifestPut{db.put("a/b", m, "latest", "v1")}
		check(t, "PutManifests", db.PutManifests(ctx, put))
		check(t, "the same again", db.PutManifests(ctx, put))
		_, err := db.MountBlob(ctx, "a/b", "a/c", d, db.clock.in(grace))
		check(t, "MountBlob", err)
		check(t, "UnlinkBlob", db.UnlinkBlob(ctx, "a/c", d))
		check(t, "Tag", db.Tag(ctx, "a/b", "v2", m.Digest, "carol", "tag"))
		check(t, "Tag again", db.Tag(ctx, "a/b", "v2", m.Digest, "carol", "tag"))
		check(t, "DeleteTag", db.DeleteTag(ctx, "a/b", "v2", "carol"))
		wantCode(t, "DeleteTag again", db.DeleteTag(ctx, "a/b", "v2", "carol"), tarport.ManifestUnknown)
		check(t, "SetQuota", db.SetQuota(ctx, "a", 1000))
		check(t, "DeleteManifest", db.DeleteManifest(ctx, "a/b", m.Digest, "carol", db.clock.in(grace)))

		list := db.events(t, EventQuery{Namespace: "a", Actor: "carol"})
		want := []string{
			"manifest.delete " + m.Digest.String(), "quota.set a", "tag.delete v2", "tag.set v2",
			"blob.delete " + d.String(), "blob.mount " + d.String(), "manifest.push " + m.Digest.String(),
		}
		if diff := cmp.Diff(want, actions(list)); diff != "" {
			t.Errorf("events, the newest first (-want +got):\n%s", diff)
		}
		push := Event{
			Action: EventManifestPush, Namespace: "a", Repository: "a/b", Target: m.Digest.String(), Actor: "carol", TokenID: 9,
			Address: "192.0.2.1", RequestID: "RQ", At: db.clock.now().UTC(), Detail: map[string]any{"via": "push", "tags": []any{"latest", "v1"}},
		}
		if diff := cmp.Diff(push, list[len(list)-1], cmpopts.IgnoreFields(Event{}, "ID")); diff != "" {
			t.Errorf("the push (-want +got):\n%s", diff)
		}
	})
}

func TestEventsAreFilteredPagedAndForgotten(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.mustPut(t, db.put("a/b", manifest("m")), db.put("b/b", manifest("m")))
		db.sql(t, `DELETE FROM events`)
		record := func(e Event) { check(t, "Record", db.Record(t.Context(), e)) }
		start := db.clock.now()
		record(Event{Action: "tag.set", Target: "1", Namespace: "a", Actor: "alice"})
		db.clock.advance(time.Hour)
		record(Event{Action: "tag.delete", Target: "2", Namespace: "a", Actor: "bob"})
		record(Event{Action: "tagging", Target: "3", Namespace: "b", Actor: "alice"})
		db.clock.advance(time.Hour)
		record(Event{Action: EventLoginFailed, Target: "4", Namespace: "gone"})
		tests := []struct {
			what string
			q    EventQuery
			want []string
		}{
			{"all", EventQuery{}, []string{"login.fail 4", "tagging 3", "tag.delete 2", "tag.set 1"}},
			{"a namespace", EventQuery{Namespace: "a"}, []string{"tag.delete 2", "tag.set 1"}},
			{"one that is not there", EventQuery{Namespace: "gone"}, nil},
			{"an actor", EventQuery{Actor: "alice"}, []string{"tagging 3", "tag.set 1"}},
			{"an action", EventQuery{Action: "tag.set"}, []string{"tag.set 1"}},
			{"a noun", EventQuery{Action: "tag"}, []string{"tag.delete 2", "tag.set 1"}},
			{"since", EventQuery{Since: start.Add(time.Hour)}, []string{"login.fail 4", "tagging 3", "tag.delete 2"}},
			{"until", EventQuery{Until: start.Add(time.Hour)}, []string{"tag.set 1"}},
			{"all at once", EventQuery{Namespace: "a", Actor: "bob", Action: "tag", Since: start, Until: start.Add(2 * time.Hour)}, []string{"tag.delete 2"}},
		}
		for _, tt := range tests {
			if diff := cmp.Diff(tt.want, actions(db.events(t, tt.q))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.what, diff)
			}
		}
		page, err := db.Events(t.Context(), EventQuery{}, 3)
		check(t, "Events", err)
		if got := actions(db.events(t, EventQuery{Before: page[2].ID})); len(got) != 1 || got[0] != "tag.set 1" {
			t.Errorf("the second page = %v, want tag.set 1", got)
		}
		n, err := db.PruneEvents(t.Context(), start.Add(2*time.Hour), 2)
		check(t, "PruneEvents", err)
		if got := actions(db.events(t, EventQuery{})); n != 2 || len(got) != 2 {
			t.Errorf("PruneEvents of at most 2 = %d, left %v", n, got)
		}
		_, err = db.PruneEvents(t.Context(), start.Add(2*time.Hour), 100)
		check(t, "PruneEvents", err)
		if got := actions(db.events(t, EventQuery{})); len(got) != 1 {
			t.Errorf("left after all is forgotten that is old: %v, want the newest", got)
		}
	})
}

func TestANamespaceMadeAgainDoesNotSeeTheOldOnesEvents(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.mustPut(t, db.put("a/b", manifest("m"), "old"))
		_, err := db.DeleteNamespace(t.Context(), "a", true, db.clock.in(grace))
		check(t, "DeleteNamespace", err)
		db.mustPut(t, db.put("a/b", manifest("m"), "new"))
		for _, e := range db.events(t, EventQuery{Namespace: "a", Action: EventManifestPush}) {
			if diff := cmp.Diff([]any{"new"}, e.Detail["tags"]); diff != "" {
				t.Errorf("an event of the old namespace is listed (-want +got):\n%s", diff)
			}
		}
		if got := len(db.events(t, EventQuery{Action: EventManifestPush})); got != 2 {
			t.Errorf("pushes in all = %d, want 2", got)
		}
		db.wantUsage(t, "made again", "a", 0, 0)
	})
}
