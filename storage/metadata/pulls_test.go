package metadata

import (
	"testing"
	"time"

	"github.com/tarport/tarport"
)

func (db *testDB) wantPulls(t *testing.T, ref tarport.Reference, pulls, robots int64, last time.Time) {
	t.Helper()
	got, err := db.Pulls(t.Context(), "team/app", ref)
	check(t, "Pulls", err)
	if got.Pulls != pulls || got.Robots != robots || !got.Last.Equal(last) {
		t.Errorf("%s has %d pulls, %d of robots, the last at %s; want %d, %d, %s", ref, got.Pulls, got.Robots, got.Last, pulls, robots, last)
	}
}

func TestPullsAddUp(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		m := manifest("m")
		db.mustPut(t, db.put("team/app", m, "1.0", "latest"))
		tag, dgst := tarport.Reference{Tag: "1.0"}, tarport.Reference{Digest: m.Digest}
		db.wantPulls(t, tag, 0, 0, time.Time{})
		first, second := time.UnixMicro(1_000_000).UTC(), time.UnixMicro(2_000_000).UTC()
		count := func(ref tarport.Reference, pulls, robots int64, last time.Time) PullCount {
			return PullCount{Repository: "team/app", Reference: ref, Pulls: pulls, Robots: robots, Last: last}
		}
		check(t, "CountPulls", db.CountPulls(t.Context(), []PullCount{count(tag, 3, 1, second), count(dgst, 4, 1, second)}))
		// What comes late, from another replica, does not set the time back.
		check(t, "CountPulls", db.CountPulls(t.Context(), []PullCount{
			count(tag, 1, 0, first), count(tarport.Reference{Tag: "gone"}, 1, 0, second),
			count(tarport.Reference{Digest: digestOf("gone")}, 1, 0, second),
			{Repository: "team/gone", Reference: tag, Pulls: 1, Last: second},
		}))
		db.wantPulls(t, tag, 4, 1, second)
		db.wantPulls(t, dgst, 4, 1, second)
		db.wantPulls(t, tarport.Reference{Tag: "latest"}, 0, 0, time.Time{})
	})
}
