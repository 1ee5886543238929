package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// archive begins a session and lets go of it.
func (s *testStore) archive(tb testing.TB, length int64) (id string) {
	tb.Helper()
	u, err := s.NewArchiveUpload(as(tb, 7), length, "filename YS50YXI=")
	check(tb, "NewArchiveUpload", err)
	check(tb, "Close", u.Close())
	return u.Info().ID
}

// appendTo goes on with a session.
func (s *testStore) appendTo(tb testing.TB, id string, r io.Reader, sum *Checksum) (int64, error) {
	tb.Helper()
	u, err := s.ResumeArchiveUpload(as(tb, 7), id)
	check(tb, "ResumeArchiveUpload", err)
	n, err := u.Append(as(tb, 7), r, sum)
	check(tb, "Close", u.Close())
	return n, err
}

func (s *testStore) wantArchive(tb testing.TB, id string, want []byte) {
	tb.Helper()
	u, err := s.ResumeArchiveUpload(as(tb, 7), id)
	check(tb, "ResumeArchiveUpload", err)
	r, err := u.Open(as(tb, 7))
	check(tb, "Open", err)
	got, err := io.ReadAll(iotest.OneByteReader(r))
	check(tb, "read the upload", errors.Join(err, r.Close(), u.Close()))
	if !bytes.Equal(got, want) {
		tb.Errorf("the upload has %d bytes, not the %d that were sent", len(got), len(want))
	}
}

func (s *testStore) wantOffset(tb testing.TB, id string, want int64) {
	tb.Helper()
	i, err := s.ArchiveUpload(as(tb, 7), id)
	check(tb, "ArchiveUpload", err)
	if i.Size != want {
		tb.Errorf("the upload has %d bytes, want %d", i.Size, want)
	}
}

func md5Of(b []byte, want []byte) *Checksum {
	sum := md5.Sum(want)
	return &Checksum{Hash: md5.New(), Want: sum[:]}
}

func TestAnArchiveGoesOnOverRestarts(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		want := content(300_000)
		id := s.archive(t, int64(len(want)))
		for at := 0; at < len(want); {
			next := min(at+70_001, len(want))
			n, err := s.appendTo(t, id, bytes.NewReader(want[at:next]), nil)
			check(t, "Append", err)
			if at += int(n); at != next {
				t.Fatalf("Append kept %d bytes, want %d", at, next)
			}
			s = s.restarted(t)
			s.clock.advance(time.Second)
			s.sweepLeftovers(t.Context())
			s.wantOffset(t, id, int64(at))
		}
		if files := len(s.staged(t)); s.root != "" && files != 1 || s.root == "" && files != 5 {
			t.Errorf("the parts lie in %d files", files)
		}
		s.wantArchive(t, id, want)
		u, err := s.ResumeArchiveUpload(as(t, 7), id)
		check(t, "ResumeArchiveUpload", err)
		if i := u.Info(); i.Metadata != "filename YS50YXI=" || i.Length != 300_000 || i.Principal != 7 || !i.ExpiresAt.After(s.clock.now()) {
			t.Errorf("Info = %+v", i)
		}
		check(t, "Delete", u.Delete(t.Context()))
		s.wantNothingStaged(t)
		_, err = s.ArchiveUpload(as(t, 7), id)
		wantCode(t, "ArchiveUpload", err, tarport.NotFound)
	})
}

// What a killed process wrote and did not record lies behind the bytes that
// count, or in a file that nobody knows.
func TestWhatACrashLeftOfAnArchiveCountsForNothing(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	want := content(3000)
	id := s.archive(t, 3000)
	_, err := s.appendTo(t, id, bytes.NewReader(want[:1000]), nil)
	check(t, "Append", err)
	part := s.staged(t)[0]
	s.overwrite(t, stagedPath(part), append(bytes.Clone(want[:1000]), "rubbish"...))
	s.overwrite(t, stagedPath("LEFTOVER"), content(10))
	s = s.restarted(t)
	s.sweepLeftovers(t.Context())
	if got := s.staged(t); len(got) != 1 || got[0] != part {
		t.Errorf("files after the sweep: %v, want %s", got, part)
	}
	_, err = s.appendTo(t, id, bytes.NewReader(want[1000:]), nil)
	check(t, "Append", err)
	s.wantArchive(t, id, want)
}

func TestAnArchivesPartOfAnotherChecksumIsNotKept(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		a, b := content(1000), content(2*pieceSize)
		id := s.archive(t, int64(len(a)+len(b)))
		_, err := s.appendTo(t, id, bytes.NewReader(a), md5Of(a, a))
		check(t, "Append", err)
		n, err := s.appendTo(t, id, bytes.NewReader(b), md5Of(b, a))
		wantCode(t, "Append with another checksum", err, tarport.ChecksumMismatch)
		s.wantOffset(t, id, 1000)
		broken := errors.New("gone")
		m, err := s.appendTo(t, id, io.MultiReader(bytes.NewReader(b[:900]), iotest.ErrReader(broken)), md5Of(b, b[:900]))
		if n != 0 || m != 0 || !errors.Is(err, broken) {
			t.Errorf("Append kept %d and %d bytes, error %v; want none and %v", n, m, err, broken)
		}
		s.wantOffset(t, id, 1000)
		_, err = s.appendTo(t, id, bytes.NewReader(b), md5Of(b, b))
		check(t, "Append", err)
		s.wantArchive(t, id, append(a, b...))
	})
}

func TestWhatCameOfAnArchiveBeforeTheClientWentIsKept(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		want := content(5000)
		id := s.archive(t, 5000)
		gone := errors.New("gone")
		n, err := s.appendTo(t, id, io.MultiReader(bytes.NewReader(want[:1234]), iotest.ErrReader(gone)), nil)
		if n != 1234 || !errors.Is(err, gone) {
			t.Errorf("Append = %d, %v, want 1234, %v", n, err, gone)
		}
		n, err = s.appendTo(t, id, iotest.ErrReader(gone), nil)
		if n != 0 || !errors.Is(err, gone) {
			t.Errorf("Append = %d, %v, want 0, %v", n, err, gone)
		}
		s.wantOffset(t, id, 1234)
		u, err := s.ResumeArchiveUpload(as(t, 7), id)
		check(t, "ResumeArchiveUpload", err)
		_, err = u.Open(as(t, 7))
		wantCode(t, "Open of a part", err, tarport.Conflict)
		if e, _ := errors.AsType[*tarport.Error](err); e == nil || e.Detail.(map[string]any)["offset"] != int64(1234) || e.Detail.(map[string]any)["length"] != int64(5000) {
			t.Errorf("Open of a part: %v tells not how far it is", err)
		}
		check(t, "Close", u.Close())
		_, err = s.appendTo(t, id, bytes.NewReader(want[1234:]), nil)
		check(t, "Append", err)
		s.wantArchive(t, id, want)
	})
}

// slowly advances the clock with each read.
type slowly struct {
	r     io.Reader
	clock *clock
}

func (r slowly) Read(p []byte) (int, error) {
	r.clock.advance(checkpointEvery / 4)
	return r.r.Read(p[:min(len(p), 10)])
}

func TestALongRequestIsRecordedNowAndThen(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		want := content(1000)
		id := s.archive(t, 1000)
		seen := int64(-1)
		r := io.MultiReader(slowly{bytes.NewReader(want[:500]), s.clock}, readerFunc(func([]byte) (int, error) {
			i, err := s.ArchiveUpload(as(t, 7), id)
			seen = i.Size
			return 0, errors.Join(err, io.EOF)
		}), bytes.NewReader(want[500:]))
		_, err := s.appendTo(t, id, r, nil)
		check(t, "Append", err)
		if seen < 400 || seen > 500 {
			t.Errorf("after 500 bytes %d were recorded", seen)
		}
		s.wantArchive(t, id, want)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) {
	n, err := f(p)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

func TestAnArchiveIsItsSendersAndAnAdministrators(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		id := s.archive(t, 10)
		admin := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 3, Admin: true})
		part := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 3, Admin: true, TokenID: 1, Namespace: "a"})
		_, err := s.ArchiveUpload(as(t, 8), id)
		wantCode(t, "another's", err, tarport.NotFound)
		_, err = s.ResumeArchiveUpload(as(t, 8), id)
		wantCode(t, "another's", err, tarport.NotFound)
		_, err = s.ResumeArchiveUpload(part, id)
		wantCode(t, "an administrator's token for a namespace", err, tarport.NotFound)
		_, err = s.ResumeArchiveUpload(as(t, 7), strings.Repeat("A", 26))
		wantCode(t, "none", err, tarport.NotFound)
		list, err := s.ArchiveUploads(as(t, 8), 10, "")
		check(t, "ArchiveUploads", err)
		mine, err := s.ArchiveUploads(as(t, 7), 10, "")
		check(t, "ArchiveUploads", err)
		if len(list) != 0 || len(mine) != 1 || mine[0].ID != id {
			t.Errorf("ArchiveUploads = %v and %v", list, mine)
		}
		u, err := s.ResumeArchiveUpload(admin, id)
		check(t, "ResumeArchiveUpload by an administrator", err)
		_, err = s.ResumeArchiveUpload(as(t, 7), id)
		wantCode(t, "while it is held", err, tarport.Conflict)
		check(t, "Delete", u.Delete(t.Context()))
	})
}

// TestATokenForANamespaceHasTheArchivesOfSuchTokens and no other of its owner's.
func TestATokenForANamespaceHasTheArchivesOfSuchTokens(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		by := func(namespace string) context.Context {
			return tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 7, Admin: true, TokenID: 1, Namespace: namespace})
		}
		ids := map[string]string{}
		for _, namespace := range []string{"", "team", "other"} {
			u, err := s.NewArchiveUpload(by(namespace), 10, "")
			check(t, "NewArchiveUpload", err)
			check(t, "Close", u.Close())
			ids[namespace] = u.Info().ID
		}
		for _, namespace := range []string{"", "team", "other", "third"} {
			list, err := s.ArchiveUploads(by(namespace), 10, "")
			check(t, "ArchiveUploads", err)
			var want int
			for of, id := range ids {
				_, err := s.ArchiveUpload(by(namespace), id)
				u, rerr := s.ResumeArchiveUpload(by(namespace), id)
				if namespace != "" && namespace != of {
					wantCode(t, "one of "+of+" by a token for "+namespace, errors.Join(err, rerr), tarport.NotFound)
					continue
				}
				want++
				check(t, "one of "+of+" by a token for "+namespace, errors.Join(err, rerr))
				check(t, "Close", u.Close())
			}
			if len(list) != want {
				t.Errorf("a token for %q lists %d uploads, want %d", namespace, len(list), want)
			}
		}
	})
}

func TestArchivesAreBounded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		s.o.MaxArchive, s.o.MaxUploadBytes, s.o.MaxUploads = 1000, 1500, 3
		refused := func(what string, length int64, code tarport.Code) {
			t.Helper()
			_, err := s.NewArchiveUpload(as(t, 7), length, "")
			wantCode(t, what, err, code)
		}
		refused("too long", 1001, tarport.TooLarge)
		s.archive(t, 900)
		refused("more than the user may have", 601, tarport.Denied)
		id := s.archive(t, -1)
		n, err := s.appendTo(t, id, bytes.NewReader(content(900)), nil)
		wantCode(t, "Append of more than the user may have", err, tarport.Denied)
		if n != 600 {
			t.Errorf("Append kept %d bytes, want 600", n)
		}
		s.o.MaxUploadBytes = 0
		n, err = s.appendTo(t, id, bytes.NewReader(content(900)), nil)
		wantCode(t, "Append of more than an archive may have", err, tarport.TooLarge)
		if n != 400 {
			t.Errorf("Append kept %d bytes, want 400", n)
		}
		s.archive(t, 0)
		refused("one too many", 0, tarport.TooManyRequests)
		s.clock.advance(25 * time.Hour)
		other := s.archive(t, 10)
		n, err = s.appendTo(t, other, bytes.NewReader(content(11)), md5Of(nil, content(11)))
		wantCode(t, "Append of more than there is", err, tarport.ChecksumMismatch)
		if n != 0 {
			t.Errorf("Append kept %d bytes, want none", n)
		}
		_, err = s.Sweep(t.Context(), time.Hour)
		check(t, "Sweep", err)
		s.wantNothingStaged(t)
	})
}

func TestTheLengthOfAnArchiveIsSaidOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		id := s.archive(t, -1)
		_, err := s.appendTo(t, id, bytes.NewReader(content(20)), nil)
		check(t, "Append", err)
		u, err := s.ResumeArchiveUpload(as(t, 7), id)
		check(t, "ResumeArchiveUpload", err)
		_, err = u.Open(t.Context())
		wantCode(t, "Open", err, tarport.Conflict)
		wantCode(t, "less than there is", u.SetLength(t.Context(), 19), tarport.Conflict)
		check(t, "SetLength", u.SetLength(t.Context(), 20))
		check(t, "SetLength again", u.SetLength(t.Context(), 20))
		wantCode(t, "another one", u.SetLength(t.Context(), 21), tarport.Conflict)
		check(t, "Close", u.Close())
		s.wantArchive(t, id, content(20))
	})
}

func TestAnArchiveGoesOnOnAnotherReplica(t *testing.T) {
	t.Parallel()
	s := onPostgres(t)
	other := s.replica(t, s.clock)
	want := content(9000)
	id := s.archive(t, 9000)
	for i, st := range []*testStore{s, other, s} {
		_, err := st.appendTo(t, id, bytes.NewReader(want[i*3000:(i+1)*3000]), nil)
		check(t, "Append", err)
	}
	u, err := s.ResumeArchiveUpload(as(t, 7), id)
	check(t, "ResumeArchiveUpload", err)
	_, err = other.ResumeArchiveUpload(as(t, 7), id)
	wantCode(t, "on the other replica", err, tarport.Conflict)
	check(t, "Close", u.Close())
	other.wantArchive(t, id, want)
}

func TestAnArchiveThatExpiresLeavesNothing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		old := s.archive(t, 100)
		_, err := s.appendTo(t, old, bytes.NewReader(content(50)), nil)
		check(t, "Append", err)
		s.clock.advance(23 * time.Hour)
		fresh := s.archive(t, 100)
		_, err = s.appendTo(t, fresh, bytes.NewReader(content(50)), nil)
		check(t, "Append", err)
		s.clock.advance(2 * time.Hour)
		_, err = s.ArchiveUpload(as(t, 7), old)
		wantCode(t, "ArchiveUpload of what expired", err, tarport.NotFound)
		n, err := s.Sweep(t.Context(), 24*time.Hour)
		check(t, "Sweep", err)
		if files := s.staged(t); n != 1 || len(files) != 1 {
			t.Errorf("Sweep = %d and left %v, want 1 and one file", n, files)
		}
		s.wantOffset(t, fresh, 50)
	})
}

// A power failure can leave the length of a file and not its bytes, where
// nobody waited for them to be on the disk.
func TestASessionThatLostBytesIsNotGoneOnWith(t *testing.T) {
	t.Parallel()
	b := content(1000)
	for name, after := range map[string][]byte{"whole": b[:500], "zeros": make([]byte, 500), "short": b[:400]} {
		s := onSQLite(t)
		id := s.begun(t, "a/b", b[:500])
		s.overwrite(t, stagedPath(id), after)
		s.clock.advance(time.Second)
		s = s.restarted(t)
		for range 2 {
			u := s.resume(t, "a/b", id)
			_, err := u.Commit(as(t, 7), descriptor(digest.FromBytes(b[:500])))
			if want := map[bool]tarport.Code{false: tarport.BlobUploadUnknown}[name == "whole"]; tarport.ErrorCode(err) != want {
				t.Errorf("%s: Commit = %v, want %q", name, err, want)
			}
			if check(t, "Close", u.Close()); name == "whole" {
				break
			}
		}
		if _, err := os.Stat(s.root + blobPath(digest.FromBytes(b[:500]))); (err == nil) != (name == "whole") {
			t.Errorf("%s: the blob's file: %v", name, err)
		}
	}
}
