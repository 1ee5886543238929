package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

func descriptor(d digest.Digest) ocispec.Descriptor { return ocispec.Descriptor{Digest: d} }

// begun is an upload session that somebody has written to and let go of.
func (s *testStore) begun(tb testing.TB, repository string, b []byte) (id string) {
	tb.Helper()
	u, err := s.NewUpload(as(tb, 7), repository)
	check(tb, "NewUpload", err)
	_, err = u.ReadFrom(bytes.NewReader(b))
	check(tb, "ReadFrom", err)
	check(tb, "Close", u.Close())
	return u.ID()
}

func (s *testStore) resume(tb testing.TB, repository, id string) *Upload {
	tb.Helper()
	u, err := s.ResumeUpload(as(tb, 7), repository, id)
	check(tb, "ResumeUpload", err)
	return u
}

// wantSize asks how far a session is.
func (s *testStore) wantSize(tb testing.TB, repository, id string, want int64) {
	tb.Helper()
	u, err := s.UploadStatus(as(tb, 7), repository, id)
	check(tb, "UploadStatus", err)
	if u.Size() != want {
		tb.Errorf("the session has %d bytes, want %d", u.Size(), want)
	}
}

func (s *testStore) wantNoUpload(tb testing.TB, repository, id string) {
	tb.Helper()
	_, err := s.ResumeUpload(as(tb, 7), repository, id)
	wantCode(tb, "ResumeUpload", err, tarport.BlobUploadUnknown)
	_, err = s.UploadStatus(as(tb, 7), repository, id)
	wantCode(tb, "UploadStatus", err, tarport.BlobUploadUnknown)
}

func TestWhatIsUploadedInOneGoIsReadBack(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, n := range []int{0, 1, 100, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 17, 2*pieceCount*pieceSize + 5} {
			b := content(n)
			d := s.push(t, "a/b", b)
			s.wantBlob(t, "a/b", d, b)
			s.wantNoBlob(t, "a/c", d)
		}
		s.wantNothingStaged(t)
	})
}

func TestAnUploadSaysWhatItIs(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		u, err := s.NewUpload(as(t, 7), "a/b")
		check(t, "NewUpload", err)
		if u.ID() == "" || u.Size() != 0 || !u.StartedAt().Equal(s.clock.now()) {
			t.Errorf("a new upload: id %q, size %d, started %v", u.ID(), u.Size(), u.StartedAt())
		}
		started := u.StartedAt()
		n, err := u.Write(content(10))
		check(t, "Write", err)
		m, err := u.ReadFrom(bytes.NewReader(content(20)))
		check(t, "ReadFrom", err)
		if n != 10 || m != 20 || u.Size() != 30 {
			t.Errorf("Write = %d, ReadFrom = %d, Size = %d, want 10, 20, 30", n, m, u.Size())
		}
		check(t, "Close", u.Close())
		s.clock.advance(time.Second)
		again := s.resume(t, "a/b", u.ID())
		if again.ID() != u.ID() || again.Size() != 30 || !again.StartedAt().Equal(started) {
			t.Errorf("resumed: id %q, size %d, started %v, want %q, 30, %v", again.ID(), again.Size(), again.StartedAt(), u.ID(), started)
		}
		b := append(content(10), content(20)...)
		desc, err := again.Commit(as(t, 7), descriptor(digest.FromBytes(b)))
		check(t, "Commit", err)
		want := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: 30}
		if desc.Digest != want.Digest || desc.Size != want.Size || desc.MediaType != want.MediaType {
			t.Errorf("Commit = %+v, want %+v", desc, want)
		}
	})
}

func TestAnUploadInPiecesGoesOnOverRestartsOfTheProcess(t *testing.T) {
	t.Parallel()
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		eachStore(t, func(t *testing.T, s *testStore) {
			b := content(100_000)
			u, err := s.NewUpload(as(t, 7), "a/b")
			check(t, "NewUpload", err)
			check(t, "Close", u.Close())
			for at := 0; at < len(b); {
				next := min(at+33_333, len(b))
				u := s.resume(t, "a/b", u.ID())
				if u.Size() != int64(at) {
					t.Fatalf("resumed at %d, want %d", u.Size(), at)
				}
				_, err := u.ReadFrom(bytes.NewReader(b[at:next]))
				check(t, "ReadFrom", err)
				check(t, "Close", u.Close())
				at = next
				s = s.restarted(t)
				s.wantSize(t, "a/b", u.ID(), int64(at))
			}
			d := a.FromBytes(b)
			_, err = s.resume(t, "a/b", u.ID()).Commit(as(t, 7), descriptor(d))
			check(t, "Commit", err)
			s.wantBlob(t, "a/b", d, b)
			s.wantNoUpload(t, "a/b", u.ID())
			s.wantBlob(t, "a/b", d, b)
			s = s.restarted(t)
			s.wantBlob(t, "a/b", d, b)
			s.wantNothingStaged(t)
		})
	}
}

func TestBytesThatHaveAnotherDigestBecomeNoBlob(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, want := range []digest.Digest{digest.FromString("other"), digest.SHA512.FromString("other")} {
			id := s.begun(t, "a/b", content(1000))
			u := s.resume(t, "a/b", id)
			_, err := u.Commit(as(t, 7), descriptor(want))
			wantCode(t, "Commit", err, tarport.DigestInvalid)
			s.wantNoBlob(t, "a/b", want)
			s.wantNoBlob(t, "a/b", digest.FromBytes(content(1000)))
			if _, err := s.files.size(t.Context(), want); err == nil {
				t.Error("there is a file under the digest")
			}
			check(t, "Cancel", u.Cancel(t.Context()))
			check(t, "Close after Cancel", u.Close())
			s.wantNoUpload(t, "a/b", id)
			s.wantNothingStaged(t)
		}
	})
}

func TestASessionCanGoOnAfterACommitWithTheWrongDigest(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		id := s.begun(t, "a/b", b[:600])
		u := s.resume(t, "a/b", id)
		_, err := u.Commit(as(t, 7), descriptor(digest.FromBytes(b)))
		wantCode(t, "Commit of a part", err, tarport.DigestInvalid)
		check(t, "Close", u.Close())
		u = s.resume(t, "a/b", id)
		_, err = u.ReadFrom(bytes.NewReader(b[600:]))
		check(t, "ReadFrom", err)
		_, err = u.Commit(as(t, 7), descriptor(digest.FromBytes(b)))
		check(t, "Commit", err)
		s.wantBlob(t, "a/b", digest.FromBytes(b), b)
	})
}

func TestASessionWhoseFileIsLostOrTooShortIsUnknown(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for name, left := range map[string][]byte{"lost": nil, "cut": content(1000)[:999], "empty": {}} {
			id := s.begun(t, "a/b", content(1000))
			s.overwrite(t, stagedPath(id), left)
			u := s.resume(t, "a/b", id)
			_, err := u.ReadFrom(strings.NewReader("more"))
			wantCode(t, name+": ReadFrom", err, tarport.BlobUploadUnknown)
			_, err = u.Commit(as(t, 7), descriptor(digest.FromBytes(content(1000))))
			wantCode(t, name+": Commit", err, tarport.BlobUploadUnknown)
			check(t, "Cancel", u.Cancel(t.Context()))
			s.wantNoUpload(t, "a/b", id)
		}
		s.wantNothingStaged(t)
	})
}

func TestBytesBehindWhatTheSessionKnowsOfAreCutOff(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*testStore{"sqlite": onSQLite(t), "postgres": onPostgres(t)} {
		b := content(1000)
		id := s.begun(t, "a/b", b[:600])
		s.overwrite(t, stagedPath(id), append(bytes.Clone(b[:600]), content(500)...))
		u := s.resume(t, "a/b", id)
		_, err := u.ReadFrom(bytes.NewReader(b[600:]))
		check(t, name+": ReadFrom", err)
		_, err = u.Commit(as(t, 7), descriptor(digest.FromBytes(b)))
		check(t, name+": Commit", err)
		s.wantBlob(t, "a/b", digest.FromBytes(b), b)
	}
}

func TestASessionThatOneRequestHoldsIsAConflictToAnother(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		id := s.begun(t, "a/b", content(100))
		u := s.resume(t, "a/b", id)
		_, err := u.Write(content(50))
		check(t, "Write", err)
		_, err = s.ResumeUpload(as(t, 7), "a/b", id)
		wantCode(t, "ResumeUpload meanwhile", err, tarport.Conflict)
		s.wantSize(t, "a/b", id, 100) // what runs is not in it
		status, err := s.UploadStatus(as(t, 7), "a/b", id)
		check(t, "UploadStatus", err)
		if _, err := status.Write(content(1)); err == nil {
			t.Error("Write on what was only asked for succeeded")
		}
		check(t, "Cancel of what was only asked for", status.Cancel(t.Context()))
		check(t, "Close of what was only asked for", status.Close())
		check(t, "Close", u.Close())
		s.wantSize(t, "a/b", id, 150)
		check(t, "Close", s.resume(t, "a/b", id).Close())
		s.wantSize(t, "a/b", id, 150)
	})
}

func TestASessionIsOpenOnlyToWhoBeganItAndInItsRepository(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		id := s.begun(t, "a/b", content(100))
		for _, c := range []struct {
			user       int64
			repository string
			id         string
		}{{8, "a/b", id}, {7, "a/c", id}, {0, "a/b", id}, {7, "a/b", "none"}, {7, "a/b", "../" + id}} {
			_, err := s.ResumeUpload(as(t, c.user), c.repository, c.id)
			wantCode(t, fmt.Sprintf("ResumeUpload(%+v)", c), err, tarport.BlobUploadUnknown)
			_, err = s.UploadStatus(as(t, c.user), c.repository, c.id)
			wantCode(t, fmt.Sprintf("UploadStatus(%+v)", c), err, tarport.BlobUploadUnknown)
		}
		check(t, "Close", s.resume(t, "a/b", id).Close())
	})
}

func TestAUserHasOnlySoManySessions(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		s.o.MaxUploads = 3
		var last *Upload
		for range 3 {
			u, err := s.NewUpload(as(t, 7), "a/b")
			check(t, "NewUpload", err)
			last = u
		}
		_, err := s.NewUpload(as(t, 7), "a/b")
		wantCode(t, "NewUpload", err, tarport.TooManyRequests)
		_, err = s.NewUpload(as(t, 8), "a/b")
		check(t, "NewUpload of another user", err)
		check(t, "Cancel", last.Cancel(t.Context()))
		_, err = s.NewUpload(as(t, 7), "a/b")
		check(t, "NewUpload after one was cancelled", err)
	})
}

func TestABodyThatBreaksLeavesTheSessionWhereItBroke(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		broken := errors.New("broken")
		for _, n := range []int{0, 1, 1000, pieceSize, pieceSize + 1, pieceCount*pieceSize + 1, 2*pieceCount*pieceSize + 77} {
			b := content(n + 100)
			u, err := s.NewUpload(as(t, 7), "a/b")
			check(t, "NewUpload", err)
			got, err := u.ReadFrom(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) || got != int64(n) || u.Size() != int64(n) {
				t.Errorf("ReadFrom of %d bytes = %d, %v, size %d, want them and the body's error", n, got, err, u.Size())
			}
			check(t, "Close", u.Close())
			s.wantSize(t, "a/b", u.ID(), int64(n))
			again := s.resume(t, "a/b", u.ID())
			_, err = again.ReadFrom(bytes.NewReader(b[n:]))
			check(t, "ReadFrom", err)
			_, err = again.Commit(as(t, 7), descriptor(digest.FromBytes(b)))
			check(t, "Commit", err)
			s.wantBlob(t, "a/b", digest.FromBytes(b), b)
		}
	})
}

func TestOneOfSixteenCommitsOfASessionAtOnceSucceeds(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for round := range 5 {
			b := content(10_000 + round)
			d := digest.FromBytes(b)
			id := s.begun(t, "a/b", b)
			errs := make([]error, 16)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() {
					u, err := s.ResumeUpload(as(t, 7), "a/b", id)
					if err == nil {
						_, err = u.Commit(as(t, 7), descriptor(d))
						err = errors.Join(err, u.Close())
					}
					errs[i] = err
				})
			}
			wg.Wait()
			done := 0
			for _, err := range errs {
				switch tarport.ErrorCode(err) {
				case "":
					done++
				case tarport.Conflict, tarport.BlobUploadUnknown:
				default:
					t.Errorf("Commit: %v", err)
				}
			}
			if done != 1 {
				t.Errorf("%d of 16 commits succeeded, want 1", done)
			}
			s.wantBlob(t, "a/b", d, b)
		}
		s.wantNothingStaged(t)
	})
}

func TestACommitIsFinishedThoughTheClientIsGone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		u := s.resume(t, "a/b", s.begun(t, "a/b", b))
		_, err := u.Write(nil) // the file is open
		check(t, "Write", err)
		ctx, cancel := context.WithCancel(as(t, 7))
		cancel()
		_, err = u.Commit(ctx, descriptor(digest.FromBytes(b)))
		check(t, "Commit", err)
		s.wantBlob(t, "a/b", digest.FromBytes(b), b)
	})
}

func TestAnUploadThatIsOverCannotBeUsed(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for name, end := range map[string]func(*Upload) error{
			"closed":    (*Upload).Close,
			"cancelled": func(u *Upload) error { return u.Cancel(t.Context()) },
			"committed": func(u *Upload) error {
				_, err := u.Commit(as(t, 7), descriptor(digest.FromString("x")))
				return err
			},
		} {
			u, err := s.NewUpload(as(t, 7), "a/b")
			check(t, "NewUpload", err)
			_, err = u.Write([]byte("x"))
			check(t, "Write", err)
			check(t, name, end(u))
			if _, err := u.Write([]byte("y")); err == nil {
				t.Errorf("%s: Write succeeded", name)
			}
			if _, err := u.ReadFrom(strings.NewReader("y")); err == nil {
				t.Errorf("%s: ReadFrom succeeded", name)
			}
			if _, err := u.Commit(as(t, 7), descriptor(digest.FromString("x"))); err == nil {
				t.Errorf("%s: Commit succeeded", name)
			}
			check(t, name+": Close", u.Close())
			check(t, name+": Cancel", u.Cancel(t.Context()))
		}
	})
}

// twoHolders is a session that the first of two replicas lost to the second:
// its hold was not renewed in time, and the second one has written on.
func twoHolders(t *testing.T) (lost, now *Upload, s *testStore, b []byte) {
	t.Helper()
	s = onPostgres(t)
	late := newClock()
	late.advance(holdFor)
	other := s.replica(t, late)
	b = content(1000)
	id := s.begun(t, "a/b", b[:100])
	lost = s.resume(t, "a/b", id)
	_, err := lost.ReadFrom(bytes.NewReader(b[100:]))
	check(t, "ReadFrom", err)
	now = other.resume(t, "a/b", id)
	_, err = now.ReadFrom(bytes.NewReader(content(900)))
	check(t, "ReadFrom on the other replica", err)
	return lost, now, s, b
}

func TestACommitOfARequestThatLostItsSessionTouchesNoBlob(t *testing.T) {
	t.Parallel()
	lost, now, s, b := twoHolders(t)
	d := s.push(t, "c/d", b) // the same blob, whole, from elsewhere
	_, err := lost.Commit(as(t, 7), descriptor(d))
	wantCode(t, "Commit", err, tarport.BlobUploadUnknown)
	s.wantBlob(t, "c/d", d, b)
	s.wantNoBlob(t, "a/b", d)
	whole := append(bytes.Clone(b), content(900)...) // what the lost request had brought counts
	_, err = now.Commit(as(t, 7), descriptor(digest.FromBytes(whole)))
	check(t, "Commit of who has the session", err)
	s.wantBlob(t, "a/b", digest.FromBytes(whole), whole)
	if err := lost.Close(); err != nil {
		wantCode(t, "Close of who lost it", err, tarport.BlobUploadUnknown)
	}
}

func TestACancelOfARequestThatLostItsSessionTakesNothingFromWhoHasIt(t *testing.T) {
	t.Parallel()
	lost, now, s, b := twoHolders(t)
	wantCode(t, "Cancel", lost.Cancel(as(t, 7)), tarport.BlobUploadUnknown)
	whole := append(bytes.Clone(b), content(900)...) // what the lost request had brought counts
	_, err := now.Commit(as(t, 7), descriptor(digest.FromBytes(whole)))
	check(t, "Commit of who has the session", err)
	s.wantBlob(t, "a/b", digest.FromBytes(whole), whole)
}

func TestASweepTakesWhatExpiredAndNothingThatIsInUse(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		expired := s.begun(t, "a/b", content(100))
		never, err := s.NewUpload(as(t, 7), "a/b") // nothing was ever written to it
		check(t, "NewUpload", err)
		s.clock.advance(s.o.UploadExpiry)
		fresh := s.begun(t, "a/b", content(100))
		n, err := s.Sweep(t.Context(), s.o.UploadExpiry)
		check(t, "Sweep", err)
		if n != 2 {
			t.Errorf("Sweep = %d, want 2", n)
		}
		s.wantNoUpload(t, "a/b", expired)
		s.wantNoUpload(t, "a/b", never.ID())
		if got := s.staged(t); len(got) != 1 || got[0] != fresh {
			t.Errorf("files = %v, want only %s", got, fresh)
		}
		u := s.resume(t, "a/b", fresh)
		s.clock.advance(s.o.UploadExpiry)
		if s.db.Exclusive() { // a replica's hold would be over by now
			n, err = s.Sweep(t.Context(), s.o.UploadExpiry)
			check(t, "Sweep", err)
			if n != 0 {
				t.Errorf("Sweep while the session is held = %d, want 0", n)
			}
		}
		_, err = u.Commit(as(t, 7), descriptor(digest.FromBytes(content(100))))
		check(t, "Commit", err)
	})
}

func TestASweepEndsThoughManyExpiredSessionsAreHeld(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	s.o.MaxUploads = 1000
	for range 150 {
		u, err := s.NewUpload(as(t, 7), "a/b")
		check(t, "NewUpload", err)
		_, err = u.Write([]byte("x"))
		check(t, "Write", err)
		t.Cleanup(func() { _ = u.Cancel(context.WithoutCancel(t.Context())) })
	}
	s.clock.advance(s.o.UploadExpiry)
	idle, err := s.NewUpload(as(t, 8), "a/b")
	check(t, "NewUpload", err)
	s.clock.advance(s.o.UploadExpiry)
	n, err := s.Sweep(t.Context(), s.o.UploadExpiry)
	check(t, "Sweep", err)
	if n != 1 {
		t.Errorf("Sweep = %d, want 1", n)
	}
	s.wantNoUpload(t, "a/b", idle.ID())
}

func TestASweepTakesFilesThatNoSessionKnowsOnceTheyAreOld(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		known := s.begun(t, "a/b", content(100))
		write(t, s.files, "orphan", 0, "left by a crash")
		for _, c := range []struct {
			age, after time.Duration
			want       int
		}{{time.Hour, 0, 0}, {time.Hour, time.Hour + time.Minute, 1}, {time.Hour, 0, 0}} {
			s.clock.advance(c.after)
			n, err := s.Sweep(t.Context(), c.age)
			check(t, "Sweep", err)
			if n != c.want {
				t.Errorf("Sweep = %d, want %d", n, c.want)
			}
		}
		if got := s.staged(t); len(got) != 1 || got[0] != known {
			t.Errorf("files = %v, want only %s", got, known)
		}
	})
}

func TestRunSweepsAtItsStartAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	s.push(t, "a/b", content(20))
	known := s.begun(t, "a/b", content(10))
	write(t, s.files, "orphan", 0, "left by a crash")
	b, err := s.NewBatch(t.Context())
	check(t, "NewBatch", err)
	b.Charge("a")
	stage(t, b, content(3<<20))
	s = s.restarted(t)
	s.clock.advance(time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(s.staged(t)) > 1 {
		<-tick.C
	}
	if got := s.staged(t); len(got) != 1 || got[0] != known {
		t.Errorf("files = %v, want only %s", got, known)
	}
	u, err := s.db.Usage(t.Context(), "a")
	for ; err == nil && u.Reserved > 10; u, err = s.db.Usage(t.Context(), "a") {
		<-tick.C
	}
	check(t, "Usage", err)
	cancel()
	check(t, "Run", <-done)
}

func TestSessionsThatNobodyGoesOnWithDoNotLockTheirUserOut(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		s.o.MaxUploads = 1
		_, err := s.NewUpload(as(t, 7), "a/b")
		check(t, "NewUpload", err)
		_, err = s.NewUpload(as(t, 7), "a/b")
		wantCode(t, "a second at once", err, tarport.TooManyRequests)
		s.clock.advance(idleUpload)
		_, err = s.NewUpload(as(t, 7), "a/b")
		check(t, "NewUpload after an idle hour", err)
	})
}
