package storage

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

var (
	alice = Puller{UserID: 1, Address: netip.MustParseAddr("192.0.2.1")}
	robot = Puller{UserID: 2, Robot: true}
)

func (s *testStore) wantPulls(t *testing.T, ref tarport.Reference, pulls, robots int64) {
	t.Helper()
	check(t, "write the pulls", s.writePulls(t.Context()))
	got, err := s.db.Pulls(t.Context(), "team/app", ref)
	check(t, "Pulls", err)
	if got.Pulls != pulls || got.Robots != robots {
		t.Errorf("%s has %d pulls, %d of robots; want %d and %d", ref, got.Pulls, got.Robots, pulls, robots)
	}
}

// tagged pushes an image, and returns its digest.
func (s *testStore) tagged(t *testing.T, repository, tag string) digest.Digest {
	t.Helper()
	m, err := s.PutManifest(t.Context(), s.pushImage(t, repository, "layer").put(repository, tag), "")
	check(t, "PutManifest", err)
	return m.Digest
}

func TestPullsAreCounted(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		dgst := s.tagged(t, "team/app", "1.0")
		tag, byDigest := tarport.Reference{Tag: "1.0"}, tarport.Reference{Digest: dgst}
		s.Pulled(alice, "team/app", tag, dgst)
		s.Pulled(robot, "team/app", tag, dgst)
		s.Pulled(alice, "team/app", byDigest, dgst)
		s.wantPulls(t, tag, 2, 1)
		s.wantPulls(t, byDigest, 3, 1)
	})
}

// containerd asks HEAD tag, GET digest.
func TestAPullByDigestAfterAHeadOfATagIsOneOfTheTag(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	dgst := s.tagged(t, "team/app", "1.0")
	tag, byDigest := tarport.Reference{Tag: "1.0"}, tarport.Reference{Digest: dgst}
	s.Resolved(alice, "team/app", "1.0", dgst)
	s.wantPulls(t, tag, 0, 0)
	s.wantPulls(t, byDigest, 0, 0)
	s.Pulled(robot, "team/app", byDigest, dgst) // somebody else
	s.wantPulls(t, tag, 0, 0)
	s.Pulled(alice, "team/app", byDigest, dgst)
	s.Pulled(alice, "team/app", byDigest, dgst) // the HEAD stands for one
	s.wantPulls(t, tag, 1, 0)
	s.wantPulls(t, byDigest, 3, 1)

	s.Resolved(alice, "team/app", "1.0", dgst)
	s.Pulled(alice, "team/app", tag, dgst)
	s.wantPulls(t, tag, 2, 0)

	s.Resolved(alice, "team/app", "1.0", dgst)
	s.clock.advance(resolvedFor + time.Second)
	s.Resolved(alice, "team/other", "1.0", dgst) // begins a generation
	s.clock.advance(resolvedFor + time.Second)
	s.Resolved(alice, "team/third", "1.0", dgst)
	s.Pulled(alice, "team/app", byDigest, dgst)
	s.wantPulls(t, tag, 2, 0)
}

func TestPullsSurviveADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	dgst := s.tagged(t, "team/app", "1.0")
	tag := tarport.Reference{Tag: "1.0"}
	s.Pulled(alice, "team/app", tag, dgst)
	check(t, "close the database", s.db.Close())
	if err := s.writePulls(t.Context()); err == nil {
		t.Fatal("the pulls were written into a closed database")
	}
	s.Pulled(robot, "team/app", tag, dgst)
	again := openStore(t, s)
	again.pulls = s.pulls
	check(t, "Close", again.Close())
	again.wantPulls(t, tag, 2, 1)
}

func TestNotesOfPullsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPulls()
	now := time.Now()
	for i := range maxPulls + 10 {
		p.add(pullKey{"team/app", tarport.Reference{Tag: fmt.Sprint(i)}}, false, now)
		p.resolved(alice, fmt.Sprint("team/", i), "1.0", "", now)
	}
	p.add(pullKey{"team/app", tarport.Reference{Tag: "0"}}, false, now)
	select {
	case <-p.full:
	default:
		t.Error("nobody was told that there is much to write down")
	}
	if n := len(p.young) + len(p.old); n > 2*maxResolved {
		t.Errorf("%d resolutions are kept, want at most %d", n, 2*maxResolved)
	}
	list := p.take()
	if len(list) != maxPulls {
		t.Errorf("%d counts are noted, want %d", len(list), maxPulls)
	}
	p.add(pullKey{"team/app", tarport.Reference{Tag: "0"}}, true, now)
	p.giveBack(list)
	var total, robots int64
	for _, c := range p.take() {
		total += c.Pulls
		robots += c.Robots
	}
	if total != maxPulls+2 || robots != 1 {
		t.Errorf("%d pulls are noted, %d of robots; want %d and 1", total, robots, maxPulls+2)
	}
}
