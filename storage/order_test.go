package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// spyFiles writes down what is done to the files, in its order, and lets calls
// fail. What the rows say at that moment stands beside the call.
type spyFiles struct {
	files
	rows func(call string, id string, d digest.Digest) string // may be nil

	mu    sync.Mutex
	calls []string
	fail  func(n int, call string) error // of the n-th call, from 1; may be nil
}

func (f *spyFiles) did(call, id string, d digest.Digest) error {
	note := ""
	if f.rows != nil {
		note = f.rows(call, id, d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.TrimSpace(call+" "+note))
	if f.fail == nil {
		return nil
	}
	return f.fail(len(f.calls), call)
}

func (f *spyFiles) stage(ctx context.Context, id string, size int64) (stagedFile, error) {
	if err := f.did("stage", id, ""); err != nil {
		return nil, err
	}
	w, err := f.files.stage(ctx, id, size)
	if err != nil {
		return nil, err
	}
	return &spyStaged{w, f, id}, nil
}

func (f *spyFiles) openStaged(ctx context.Context, id string) (io.ReadSeekCloser, error) {
	if err := f.did("openStaged", id, ""); err != nil {
		return nil, err
	}
	return f.files.openStaged(ctx, id)
}

func (f *spyFiles) dropStaged(ctx context.Context, id string) error {
	if err := f.did("dropStaged", id, ""); err != nil {
		return err
	}
	return f.files.dropStaged(ctx, id)
}

func (f *spyFiles) place(ctx context.Context, id string, d digest.Digest) error {
	if err := f.did("place", id, d); err != nil {
		return err
	}
	return f.files.place(ctx, id, d)
}

func (f *spyFiles) open(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if err := f.did("open", "", d); err != nil {
		return nil, 0, err
	}
	return f.files.open(ctx, d)
}

func (f *spyFiles) size(ctx context.Context, d digest.Digest) (int64, error) {
	if err := f.did("size", "", d); err != nil {
		return 0, err
	}
	return f.files.size(ctx, d)
}

func (f *spyFiles) remove(ctx context.Context, d digest.Digest) error {
	if err := f.did("remove", "", d); err != nil {
		return err
	}
	return f.files.remove(ctx, d)
}

type spyStaged struct {
	stagedFile
	f  *spyFiles
	id string
}

func (w *spyStaged) Write(p []byte) (int, error) {
	if err := w.f.did("write", w.id, ""); err != nil {
		n, _ := w.stagedFile.Write(p[:len(p)/2]) // as a disk that is full does
		return n, err
	}
	return w.stagedFile.Write(p)
}

func (w *spyStaged) sync(ctx context.Context) error {
	if err := w.f.did("sync", w.id, ""); err != nil {
		return err
	}
	return w.stagedFile.sync(ctx)
}

// spied puts a spy between a store and its files.
func (s *testStore) spied(tb testing.TB) *spyFiles {
	tb.Helper()
	spy := &spyFiles{files: s.files}
	s.files = spy
	return spy
}

// withRows notes at each call whether the rows are there.
func (s *testStore) withRows(tb testing.TB, spy *spyFiles) {
	tb.Helper()
	spy.rows = func(call, id string, d digest.Digest) string {
		switch call {
		case "place", "remove":
			if _, err := s.db.Blob(tb.Context(), d); err != nil {
				return "without row"
			}
			return "with row"
		case "dropStaged":
			if has, err := s.db.HasUpload(tb.Context(), id); err != nil || has {
				return "with row"
			}
			return "without row"
		}
		return ""
	}
}

func TestABlobIsSyncedThenPlacedThenRecorded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		spy := s.spied(t)
		s.withRows(t, spy)
		d := s.push(t, "a/b", content(100))
		if diff := cmp.Diff([]string{"stage", "write", "sync", "place without row"}, spy.calls); diff != "" {
			t.Errorf("calls of an upload (-want +got):\n%s", diff)
		}
		if _, err := s.db.Blob(t.Context(), d); err != nil {
			t.Errorf("the row after it: %v", err)
		}

		spy.calls = nil
		b := s.batch(t)
		put := stageImage(t, b, "team/app", "1", "x")
		_, err := b.Commit(t.Context(), []ManifestPut{put})
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		blob := []string{"stage", "write", "write", "sync"}
		want := append(append(append([]string{}, blob...), blob...), "place without row", "place without row", "open") // the config is read
		if diff := cmp.Diff(want, spy.calls); diff != "" {
			t.Errorf("calls of a batch (-want +got):\n%s", diff)
		}
	})
}

func TestBytesGoOnlyAfterTheirRow(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		id := s.begun(t, "a/b", content(100))
		spy := s.spied(t)
		s.withRows(t, spy)
		check(t, "Cancel", s.resume(t, "a/b", id).Cancel(t.Context()))
		if diff := cmp.Diff([]string{"dropStaged without row"}, spy.calls); diff != "" {
			t.Errorf("calls of a cancel (-want +got):\n%s", diff)
		}
		b := s.batch(t)
		put := stageImage(t, b, "team/app", "1", "x")
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: descriptor(digest.FromString("nowhere"))})
		spy.calls = nil
		_, err := b.Commit(t.Context(), []ManifestPut{put})
		wantCode(t, "Commit", err, tarport.ManifestBlobUnknown)
		check(t, "Close", b.Close())
		// The row that is going is none to anybody.
		want := []string{"place without row", "place without row", "open", "remove without row", "remove without row"}
		if diff := cmp.Diff(want, spy.calls); diff != "" {
			t.Errorf("calls of a batch that fails (-want +got):\n%s", diff)
		}
	})
}

func failing(call string, err error) func(int, string) error {
	return func(_ int, got string) error {
		if got == call {
			return &fs.PathError{Op: call, Path: "/secret/path", Err: err}
		}
		return nil
	}
}

func TestAFullDiskIsInsufficientStorageAndLeavesNothing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		spy := s.spied(t)
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
			for _, call := range []string{"stage", "write", "sync", "place"} {
				spy.fail = failing(call, errno)
				for _, n := range []int{100, 3*pieceSize + 1} {
					s.uploadToAFullDisk(t, call, content(n))
				}
				s.batchToAFullDisk(t, call, content(100))
				s.wantNothingStaged(t)
			}
		}
		spy.fail = nil // space is there again
		d := s.push(t, "a/b", content(100))
		s.wantBlob(t, "a/b", d, content(100))
	})
}

func (s *testStore) uploadToAFullDisk(t *testing.T, call string, b []byte) {
	t.Helper()
	u, err := s.NewUpload(as(t, 7), "a/b")
	check(t, "NewUpload", err)
	d := digest.FromBytes(b)
	_, err = u.ReadFrom(bytes.NewReader(b))
	if err == nil {
		_, err = u.Commit(as(t, 7), descriptor(d))
	}
	wantCode(t, "an upload where "+call+" fails", err, tarport.InsufficientStorage)
	if e, ok := errors.AsType[*tarport.Error](err); ok && strings.Contains(e.Message, "secret") {
		t.Errorf("the message has a path in it: %q", e.Message)
	}
	check(t, "Cancel", u.Cancel(t.Context()))
	s.wantNoUpload(t, "a/b", u.ID())
	s.wantNoBlob(t, "a/b", d)
}

func (s *testStore) batchToAFullDisk(t *testing.T, call string, p []byte) {
	t.Helper()
	b := s.batch(t)
	err := func() error {
		w, err := b.Create(t.Context())
		if err != nil {
			return err
		}
		if _, err = w.Write(p); err != nil {
			return err
		}
		desc, err := w.Finish()
		if err != nil {
			return err
		}
		put := imageOf().put("team/app", "1")
		put.Blobs = []BlobLink{{Descriptor: desc}}
		_, err = b.Commit(t.Context(), []ManifestPut{put})
		return err
	}()
	wantCode(t, "a batch where "+call+" fails", err, tarport.InsufficientStorage)
	check(t, "Close", b.Close())
}

func TestAnUploadWhoseFileFailedInTheMiddleCannotGoOn(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for name, end := range map[string]io.Reader{
			"and the body is whole": bytes.NewReader(nil),
			"and the body broke":    &errReader{errors.New("broken")},
		} {
			u, err := s.NewUpload(as(t, 7), "a/b")
			check(t, "NewUpload", err)
			_, err = u.ReadFrom(bytes.NewReader(content(100)))
			check(t, "ReadFrom", err)
			spy := s.spied(t)
			u.file = &spyStaged{u.file, spy, u.ID()}
			spy.fail = failing("write", syscall.EIO)
			if _, err = u.ReadFrom(io.MultiReader(bytes.NewReader(content(1000)), end)); err == nil {
				t.Errorf("%s: ReadFrom succeeded", name)
			}
			spy.fail = nil
			check(t, "Close", u.Close())
			s.wantNoUpload(t, "a/b", u.ID())
			s.wantNothingStaged(t)
		}
	})
}

type errReader struct{ err error }

func (r *errReader) Read([]byte) (int, error) { return 0, r.err }

// TestEveryCallOfTheStorageMayFailOnce fails each call in turn: what was
// answered well is there, what was not can be done again.
func TestEveryCallOfTheStorageMayFailOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		spy := s.spied(t)
		scenario := func(name string) error {
			b := []byte("blob of " + name)
			d := digest.FromBytes(b)
			u, err := s.NewUpload(as(t, 7), "a/b")
			if err != nil {
				return err
			}
			defer func() { _ = u.Cancel(t.Context()) }()
			if _, err = u.ReadFrom(bytes.NewReader(b)); err != nil {
				return err
			}
			if _, err = u.Commit(as(t, 7), descriptor(d)); err != nil {
				return err
			}
			if _, err = s.MountBlob(t.Context(), "a/b", "c/d", d); err != nil {
				return err
			}
			batch, err := s.NewBatch(t.Context())
			if err != nil {
				return err
			}
			defer func() { _ = batch.Close() }()
			w, err := batch.Create(t.Context())
			if err != nil {
				return err
			}
			config := configOf(string(b))
			if _, err = w.Write(config); err != nil {
				return err
			}
			desc, err := w.Finish()
			if err != nil {
				return err
			}
			put := imageOf(string(b)).put("c/d", "latest")
			put.Blobs = []BlobLink{{Descriptor: desc}}
			if _, err = batch.Commit(t.Context(), []ManifestPut{put}); err != nil {
				return err
			}
			r, _, err := s.OpenBlob(t.Context(), "c/d", d)
			if err != nil {
				return err
			}
			return r.Close()
		}
		for n := 1; ; n++ {
			name := string(rune('A' + n))
			spy.mu.Lock()
			spy.calls, spy.fail = nil, func(i int, call string) error {
				if i == n {
					return &fs.PathError{Op: call, Path: "x", Err: syscall.EIO}
				}
				return nil
			}
			spy.mu.Unlock()
			err := scenario(name)
			reached := len(spy.calls) >= n
			if err == nil && reached && spy.calls[n-1] != "dropStaged" {
				t.Errorf("call %d, %s, failed and nobody was told", n, spy.calls[n-1])
			}
			if code := tarport.ErrorCode(err); err != nil && code != tarport.Internal {
				t.Errorf("call %d, %s: error = %v, want an internal one", n, spy.calls[n-1], err)
			}
			spy.fail = nil
			if err != nil {
				check(t, "the same again", scenario(name))
			}
			b := []byte("blob of " + name)
			s.wantBlob(t, "c/d", digest.FromBytes(b), b)
			if !reached {
				t.Logf("%d calls", n-1)
				break
			}
		}
	})
}
