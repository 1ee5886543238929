package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// spaceTest is a store whose namespace team is there, with one byte in it.
type spaceTest struct {
	*Store
	tb  testing.TB
	db  *metadata.DB
	now *atomic.Int64
}

// eachStore runs a test over SQLite and over PostgreSQL.
func eachSpace(t *testing.T, test func(t *testing.T, s *spaceTest)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(t, newSpaceTest(t, dsn))
	})
}

func newSpaceTest(tb testing.TB, dsn string) *spaceTest {
	tb.Helper()
	now := &atomic.Int64{}
	now.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	clock := func() time.Time { return time.UnixMicro(now.Load()) }
	db := metadatatest.Open(tb, metadata.Options{DSN: dsn, Now: clock})
	s, err := New(Options{DB: db, Root: tb.TempDir(), MinFree: 1, Now: clock})
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	st := &spaceTest{s, tb, db, now}
	if err := st.push("team/app", []byte("1"), Body{Length: 1, Last: true}); err != nil {
		tb.Fatalf("first push: %v", err)
	}
	return st
}

func (s *spaceTest) quota(n int64) {
	s.tb.Helper()
	if err := s.db.SetQuota(s.tb.Context(), "team", n); err != nil {
		s.tb.Fatalf("SetQuota: %v", err)
	}
}

// push sends a blob in one request, of which the server knows what is in body.
func (s *spaceTest) push(repository string, content []byte, body Body) error {
	ctx := WithBody(context.WithoutCancel(s.tb.Context()), body)
	u, err := s.NewUpload(ctx, repository)
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }() // nothing after the commit
	if _, err := u.ReadFrom(bytes.NewReader(content)); err != nil {
		return err
	}
	_, err = u.Commit(ctx, ocispec.Descriptor{Digest: digest.FromBytes(content)})
	return err
}

func (s *spaceTest) wantUsage(what string, used, reserved int64) {
	s.tb.Helper()
	u, err := s.db.Usage(s.tb.Context(), "team")
	if err != nil {
		s.tb.Fatalf("Usage: %v", err)
	}
	if u.Used != used || u.Reserved != reserved {
		s.tb.Errorf("%s: used %d, reserved %d, want %d and %d", what, u.Used, u.Reserved, used, reserved)
	}
	list, err := s.db.Recount(s.tb.Context(), false)
	if err != nil {
		s.tb.Fatalf("Recount: %v", err)
	}
	for _, r := range list {
		if !r.Equal() {
			s.tb.Errorf("%s: stored %+v, recounted %+v", what, r.Stored, r.Counted)
		}
	}
}

// wantNothingStaged fails the test where bytes of an upload are left.
func (s *spaceTest) wantNothingStaged(what string) {
	s.tb.Helper()
	err := s.files.walkStaged(s.tb.Context(), func(id string, _ time.Time) error {
		return errors.New(id)
	})
	if err != nil {
		s.tb.Errorf("%s: the upload %v is left", what, err)
	}
}

// unread fails the test when it is read.
type unread struct{ tb testing.TB }

func (u unread) Read([]byte) (int, error) {
	u.tb.Error("the body was read")
	return 0, io.EOF
}

func TestWhatIsKnownToBeTooLargeIsRefusedBeforeItsBytesMove(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		s.quota(100)
		for _, n := range []int64{100, 50 << 20} {
			for _, last := range []bool{true, false} {
				ctx := WithBody(t.Context(), Body{Length: n, Last: last})
				u, err := s.NewUpload(ctx, "team/app")
				if err != nil {
					t.Fatalf("NewUpload: %v", err)
				}
				_, err = u.ReadFrom(unread{t})
				wantCode(t, fmt.Sprintf("%d bytes", n), err, tarport.Denied)
				if err := u.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				_, err = s.UploadStatus(t.Context(), "team/app", u.ID())
				wantCode(t, "the session after the refusal", err, tarport.BlobUploadUnknown)
			}
		}
		if err := s.push("team/app", bytes.Repeat([]byte("x"), 99), Body{Length: 99, Last: true}); err != nil {
			t.Errorf("what just fits: %v", err)
		}
		s.wantUsage("at the end", 100, 0)
		s.wantNothingStaged("at the end")
	})
}

func TestCheckRoom(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		s.quota(100)
		for n, want := range map[int64]tarport.Code{1: "", 99: "", 100: tarport.Denied} {
			wantCode(t, fmt.Sprintf("%d bytes", n), s.CheckRoom(t.Context(), "team", n), want)
		}
		wantCode(t, "a namespace that is not there", s.CheckRoom(t.Context(), "absent", 1<<20), "")
		wantCode(t, "more than the disk has", s.CheckRoom(t.Context(), "absent", 1<<62), tarport.InsufficientStorage)
		s.wantUsage("at the end", 1, 0)
	})
}

func TestWhatIsThereCostsNothingAlsoInAFullNamespace(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		content := bytes.Repeat([]byte("x"), 3<<20)
		body := Body{Length: int64(len(content)), Digest: digest.FromBytes(content), Last: true}
		if err := s.push("team/app", content, body); err != nil {
			t.Fatalf("push: %v", err)
		}
		s.quota(1)
		if err := s.push("team/other", content, body); err != nil {
			t.Errorf("push of what is there: %v", err)
		}
		if _, err := s.MountBlob(t.Context(), "team/app", "team/third", body.Digest); err != nil {
			t.Errorf("mount of what is there: %v", err)
		}
		wrong := Body{Length: body.Length, Digest: body.Digest, Last: true}
		lie := append([]byte("y"), content[1:]...)
		if err := s.push("team/app", lie, wrong); err == nil {
			t.Error("other bytes under the digest of what is there were taken")
		}
		s.wantUsage("at the end", 3<<20+1, 0)
		s.wantNothingStaged("at the end")
	})
}

func TestAnUploadOfUnknownLengthReservesInStepsAndStopsAtTheQuota(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		s.quota(20<<20 + 1)
		send := func(n int64) (u *Upload, read int64, err error) {
			if u, err = s.NewUpload(t.Context(), "team/app"); err != nil {
				t.Fatalf("NewUpload: %v", err)
			}
			r := &io.LimitedReader{R: zeros{}, N: n}
			_, err = u.ReadFrom(r)
			return u, n - r.N, err
		}
		u, _, err := send(19 << 20)
		if err != nil {
			t.Fatalf("ReadFrom of what fits: %v", err)
		}
		if err := u.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		s.wantUsage("a session that was let go of", 1, 19<<20)
		over, read, err := send(19 << 20)
		wantCode(t, "more than fits", err, tarport.Denied)
		if read > 3<<20 {
			t.Errorf("%d bytes were read where 1 MiB fits", read)
		}
		if err := over.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.wantUsage("after the refusal", 1, 19<<20)

		u, err = s.ResumeUpload(t.Context(), "team/app", u.ID())
		if err != nil {
			t.Fatalf("ResumeUpload: %v", err)
		}
		want := digest.FromBytes(make([]byte, 19<<20))
		if _, err := u.Commit(t.Context(), ocispec.Descriptor{Digest: want}); err != nil {
			t.Fatalf("Commit: %v", err)
		}
		s.wantUsage("finished", 19<<20+1, 0)
		s.wantNothingStaged("at the end")
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAChunkIsCountedBeforeTheClientHearsOfIt(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		s.quota(100)
		u, err := s.NewUpload(t.Context(), "team/app")
		if err != nil {
			t.Fatalf("NewUpload: %v", err)
		}
		if _, err := u.ReadFrom(strings.NewReader("12345")); err != nil {
			t.Fatalf("ReadFrom: %v", err)
		}
		s.wantUsage("before the session is let go of", 1, 5)
		if err := u.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if u, err = s.ResumeUpload(t.Context(), "team/app", u.ID()); err != nil || u.Size() != 5 {
			t.Fatalf("ResumeUpload: %v, size %d, want 5", err, u.Size())
		}
		_, err = u.ReadFrom(strings.NewReader(strings.Repeat("x", 95))) // its length is not known before
		wantCode(t, "a chunk too many", err, tarport.Denied)
		if err := u.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.wantUsage("after the refusal", 1, 0)
		s.wantNothingStaged("after the refusal")
	})
}

func TestWhatExpiresOrIsCancelledIsGivenBack(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		for i := range 2 {
			u, err := s.NewUpload(t.Context(), "team/app")
			if err != nil {
				t.Fatalf("NewUpload: %v", err)
			}
			if _, err := u.ReadFrom(&io.LimitedReader{R: zeros{}, N: 2 << 20}); err != nil {
				t.Fatalf("ReadFrom: %v", err)
			}
			end := u.Close
			if i == 1 {
				end = func() error { return u.Cancel(t.Context()) }
			}
			if err := end(); err != nil {
				t.Fatalf("end: %v", err)
			}
		}
		s.wantUsage("one cancelled, one open", 1, 2<<20)
		b, err := s.NewBatch(t.Context())
		if err != nil {
			t.Fatalf("NewBatch: %v", err)
		}
		b.Charge("team")
		stage(t, b, make([]byte, 3<<20))
		s.now.Add((25 * time.Hour).Microseconds())
		if _, err := s.Sweep(t.Context(), time.Hour); err != nil {
			t.Fatalf("Sweep: %v", err)
		}
		s.wantUsage("expired", 1, 0)
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.wantUsage("at the end", 1, 0)
	})
}

func stage(tb testing.TB, b *Batch, content []byte) ocispec.Descriptor {
	tb.Helper()
	d, err := tryStage(tb.Context(), b, content)
	if err != nil {
		tb.Fatalf("stage: %v", err)
	}
	return d
}

func tryStage(ctx context.Context, b *Batch, content []byte) (ocispec.Descriptor, error) {
	w, err := b.Create(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for len(content) > 0 && err == nil {
		n := min(len(content), 64<<10)
		_, err = w.Write(content[:n])
		content = content[n:]
	}
	if err == nil {
		var d ocispec.Descriptor
		if d, err = w.Finish(); err == nil {
			return d, nil
		}
	}
	w.Discard()
	return ocispec.Descriptor{}, err
}

func (s *spaceTest) commit(b *Batch, tag string, layers ...ocispec.Descriptor) error {
	config := []byte(`{"os":"linux"}`)
	cd, err := tryStage(s.tb.Context(), b, config)
	if err != nil {
		return err
	}
	var list []string
	put := ManifestPut{
		Repository: "team/app", MediaType: ocispec.MediaTypeImageManifest, Tags: []string{tag}, Via: ViaLoad,
		Blobs: []BlobLink{{Descriptor: cd}},
	}
	for _, d := range layers {
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageLayer, d.Digest, d.Size))
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: d})
	}
	put.Payload = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, cd.Digest, cd.Size, strings.Join(list, ","))
	_, err = b.Commit(s.tb.Context(), []ManifestPut{put})
	return err
}

func TestAnArchiveIsRefusedAsItComesAndAtItsCommit(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		const config = 14
		content := bytes.Repeat([]byte("layer"), 1<<20)
		s.quota(6<<20 + 1)
		load := func(charge bool, layers ...[]byte) error {
			b, err := s.NewBatch(t.Context())
			if err != nil {
				return err
			}
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			if charge {
				b.Charge("team")
			}
			var list []ocispec.Descriptor
			for _, l := range layers {
				d, err := tryStage(t.Context(), b, l)
				if err != nil {
					return err
				}
				list = append(list, d)
			}
			return s.commit(b, "latest", list...)
		}
		if err := load(true, content); err != nil {
			t.Fatalf("what fits: %v", err)
		}
		used := int64(len(content)) + config + 1
		s.wantUsage("loaded", used, 0)
		other := bytes.Repeat([]byte("other"), 1<<20)
		wantCode(t, "a layer too many", load(true, other), tarport.Denied)
		wantCode(t, "one too many where nobody named the namespace", load(false, other), tarport.Denied)
		s.wantUsage("after the refusals", used, 0)
		if err := load(true, content); err != nil {
			t.Errorf("what is there once more, in a nearly full namespace: %v", err)
		}
		s.quota(1)
		if err := load(true, content); err != nil {
			t.Errorf("what is there once more, in a namespace over its quota: %v", err)
		}
		s.wantUsage("at the end", used, 0)
		s.wantNothingStaged("at the end")
	})
}

func TestConcurrentUploadsAndLoadsDoNotExceedTheQuota(t *testing.T) {
	t.Parallel()
	eachSpace(t, func(t *testing.T, s *spaceTest) {
		const quota, size = 10<<20 + 1, 3 << 20
		s.quota(quota)
		var taken, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				content := bytes.Repeat([]byte{byte(i)}, size)
				var err error
				switch i % 3 {
				case 0:
					err = s.push(fmt.Sprint("team/", i), content, Body{Length: size, Last: true})
				case 1:
					err = s.push(fmt.Sprint("team/", i), content, Body{Length: -1})
				case 2:
					var b *Batch
					if b, err = s.NewBatch(t.Context()); err == nil {
						b.Charge("team")
						var d ocispec.Descriptor
						if d, err = tryStage(t.Context(), b, content); err == nil {
							err = s.commit(b, fmt.Sprint(i), d)
						}
						err = errors.Join(err, b.Close())
					}
				}
				switch tarport.ErrorCode(err) {
				case "":
					taken.Add(1)
				case tarport.Denied:
					refused.Add(1)
				default:
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if taken.Load() > 3 || refused.Load() < 5 {
			t.Errorf("%d of 8 were taken, %d refused, want at most 3 taken", taken.Load(), refused.Load())
		}
		u, err := s.db.Usage(t.Context(), "team")
		if err != nil || u.Used > quota || u.Reserved != 0 {
			t.Errorf("usage = %+v (%v), want at most %d and nothing reserved", u, err, quota)
		}
		s.wantUsage("at the end", u.Used, 0)
		s.wantNothingStaged("at the end")
	})
}

func TestANearlyFullDiskTakesNothingAndGivesAndDeletesAll(t *testing.T) {
	t.Parallel()
	s := newSpaceTest(t, filepath.Join(t.TempDir(), "meta.db"))
	var free atomic.Int64
	asked := 0
	s.disk = &disk{paths: []string{"x"}, minFree: 1000, now: s.o.Now, free: func(string) (int64, bool, error) { asked++; return free.Load(), true, nil }}
	free.Store(1500)
	b, err := s.NewBatch(t.Context())
	if err != nil {
		t.Fatalf("NewBatch: %v", err)
	}
	if err := s.commit(b, "old"); err != nil {
		t.Fatalf("commit with room: %v", err)
	}
	wantCode(t, "a body that leaves less", s.push("team/app", nil, Body{Length: 501, Last: true}), tarport.InsufficientStorage)
	u, err := s.NewUpload(t.Context(), "team/app")
	if err != nil {
		t.Fatalf("NewUpload: %v", err)
	}
	if asked != 1 {
		t.Errorf("the file system was asked %d times within a second, want once", asked)
	}
	free.Store(999)
	s.now.Add(time.Second.Microseconds())
	m, err := s.Manifest(t.Context(), "team/app", tarport.Reference{Tag: "old"})
	if err != nil {
		t.Errorf("Manifest: %v", err)
	}
	_, err = u.ReadFrom(unread{t})
	wantCode(t, "a body", err, tarport.InsufficientStorage)
	_, err = s.NewBatch(t.Context())
	wantCode(t, "a load", err, tarport.InsufficientStorage)
	_, err = s.NewUpload(t.Context(), "team/app")
	wantCode(t, "an upload", err, tarport.InsufficientStorage)
	_, err = s.MountBlob(t.Context(), "team/app", "team/b", digest.FromString("1"))
	wantCode(t, "a mount", err, tarport.InsufficientStorage)
	wantCode(t, "a tag", s.Tag(t.Context(), "team/app", "new", m.Digest, "", ViaTag), tarport.InsufficientStorage)
	_, err = s.PutManifest(t.Context(), ManifestPut{Repository: "team/app", MediaType: m.MediaType, Payload: m.Payload}, "")
	wantCode(t, "a manifest", err, tarport.InsufficientStorage)
	if _, err := s.Blob(t.Context(), "team/app", digest.FromString("1")); err != nil {
		t.Errorf("Blob: %v", err)
	}
	for what, err := range map[string]error{
		"cancel": u.Cancel(t.Context()), "delete of a tag": s.DeleteTag(t.Context(), "team/app", "old", ""),
		"delete of a manifest": s.DeleteManifest(t.Context(), "team/app", m.Digest, ""),
		"delete of a blob":     s.DeleteBlob(t.Context(), "team/app", digest.FromString("1")),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	free.Store(5000)
	s.now.Add(time.Second.Microseconds())
	if err := s.push("team/app", []byte("new"), Body{Length: 3, Last: true}); err != nil {
		t.Errorf("push when there is room again: %v", err)
	}
}

func TestFreeBytesAsksTheFileSystem(t *testing.T) {
	t.Parallel()
	n, ok, err := freeBytes(t.TempDir())
	if err != nil || ok && n <= 0 {
		t.Errorf("freeBytes = %d, %v, %v", n, ok, err)
	}
	if _, _, err := freeBytes(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("freeBytes of what is not there: no error")
	}
}

func BenchmarkPushOfASmallBlob(b *testing.B) {
	s := newSpaceTest(b, filepath.Join(b.TempDir(), "meta.db"))
	s.quota(1 << 50)
	i := 0
	for b.Loop() {
		i++
		content := fmt.Append(nil, i)
		if err := s.push("team/app", content, Body{Length: int64(len(content)), Last: true}); err != nil {
			b.Fatalf("push: %v", err)
		}
	}
}
