package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// eachFiles runs a test on each implementation of files.
func eachFiles(t *testing.T, test func(t *testing.T, f files)) {
	t.Helper()
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		f, err := newLocalFiles(t.TempDir())
		check(t, "newLocalFiles", err)
		test(t, f)
	})
	t.Run("driver", func(t *testing.T) {
		t.Parallel()
		test(t, &driverFiles{inmemory.New()})
	})
}

func write(t *testing.T, f files, id string, at int64, p string) {
	t.Helper()
	w, err := f.stage(t.Context(), id, at)
	check(t, "stage", err)
	_, err = io.WriteString(w, p)
	check(t, "write", errors.Join(err, w.Close()))
}

func readStaged(t *testing.T, f files, id string) string {
	t.Helper()
	r, err := f.openStaged(t.Context(), id)
	check(t, "openStaged", err)
	b, err := io.ReadAll(r)
	check(t, "read", errors.Join(err, r.Close()))
	return string(b)
}

func wantNotExist(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: error = %v, want fs.ErrNotExist", what, err)
	}
}

func TestAStagedFileGoesOnBehindItsSizeAndBeginsAnewAtNought(t *testing.T) {
	t.Parallel()
	eachFiles(t, func(t *testing.T, f files) {
		write(t, f, "one", 0, "abc")
		write(t, f, "one", 3, "def")
		if got, want := readStaged(t, f, "one"), "abcdef"; got != want {
			t.Errorf("file = %q, want %q", got, want)
		}
		write(t, f, "one", 0, "x")
		if got, want := readStaged(t, f, "one"), "x"; got != want {
			t.Errorf("file = %q, want %q", got, want)
		}
		_, err := f.stage(t.Context(), "one", 2)
		wantNotExist(t, "stage behind the end of the file", err)
		_, err = f.stage(t.Context(), "two", 1)
		wantNotExist(t, "stage of no file", err)
		_, err = f.openStaged(t.Context(), "none")
		wantNotExist(t, "openStaged of no file", err)
	})
}

// TestWhatLiesBehindTheSizeOfAStagedFileIsNeverPartOfIt: it was written and not
// accounted for. A file system cuts it off; a driver cannot, so there the
// session is lost.
func TestWhatLiesBehindTheSizeOfAStagedFileIsNeverPartOfIt(t *testing.T) {
	t.Parallel()
	eachFiles(t, func(t *testing.T, f files) {
		write(t, f, "one", 0, "abcdef")
		w, err := f.stage(t.Context(), "one", 3)
		if _, driver := f.(*driverFiles); driver {
			wantNotExist(t, "stage", err)
			return
		}
		check(t, "stage", err)
		_, err = io.WriteString(w, "xy")
		check(t, "write", errors.Join(err, w.Close()))
		if got, want := readStaged(t, f, "one"), "abcxy"; got != want {
			t.Errorf("file = %q, want %q", got, want)
		}
	})
}

func TestStagedFilesAreListedAndDropped(t *testing.T) {
	t.Parallel()
	eachFiles(t, func(t *testing.T, f files) {
		list := func() []string {
			ids := []string{}
			check(t, "walkStaged", f.walkStaged(t.Context(), func(id string, modified time.Time) error {
				if d := time.Since(modified); d < -time.Minute || d > time.Minute {
					t.Errorf("%s was modified %v ago", id, d)
				}
				ids = append(ids, id)
				return nil
			}))
			slices.Sort(ids)
			return ids
		}
		if got := list(); len(got) != 0 {
			t.Errorf("at the start: %v", got)
		}
		write(t, f, "one", 0, "abc")
		write(t, f, "two", 0, "")
		if diff := cmp.Diff([]string{"one", "two"}, list()); diff != "" {
			t.Errorf("staged (-want +got):\n%s", diff)
		}
		mine := errors.New("mine")
		if err := f.walkStaged(t.Context(), func(string, time.Time) error { return mine }); !errors.Is(err, mine) {
			t.Errorf("walkStaged: error = %v, want mine", err)
		}
		check(t, "dropStaged", f.dropStaged(t.Context(), "one"))
		check(t, "dropStaged of no file", f.dropStaged(t.Context(), "one"))
		if diff := cmp.Diff([]string{"two"}, list()); diff != "" {
			t.Errorf("staged (-want +got):\n%s", diff)
		}
	})
}

func TestPlaceMakesABlobOfAStagedFileInPlaceOfWhatWasThere(t *testing.T) {
	t.Parallel()
	eachFiles(t, func(t *testing.T, f files) {
		for _, d := range []digest.Digest{digest.FromString("x"), digest.SHA512.FromString("x")} {
			_, err := f.size(t.Context(), d)
			wantNotExist(t, "size of no blob", err)
			_, _, err = f.open(t.Context(), d)
			wantNotExist(t, "open of no blob", err)
			for _, p := range []string{"first", "second time", ""} {
				w, err := f.stage(t.Context(), "one", 0)
				check(t, "stage", err)
				_, err = io.WriteString(w, p)
				check(t, "write", errors.Join(err, w.sync(t.Context()), w.Close()))
				check(t, "place", f.place(t.Context(), "one", d))
				n, err := f.size(t.Context(), d)
				check(t, "size", err)
				r, opened, err := f.open(t.Context(), d)
				check(t, "open", err)
				b, err := io.ReadAll(r)
				check(t, "read", errors.Join(err, r.Close()))
				if n != int64(len(p)) || opened != n || string(b) != p {
					t.Errorf("blob = %q, size %d and %d, want %q", b, n, opened, p)
				}
				_, err = f.openStaged(t.Context(), "one")
				wantNotExist(t, "the staged file after place", err)
			}
			wantNotExist(t, "place of no file", f.place(t.Context(), "none", d))
			check(t, "remove", f.remove(t.Context(), d))
			check(t, "remove of no blob", f.remove(t.Context(), d))
			_, err = f.size(t.Context(), d)
			wantNotExist(t, "size after remove", err)
		}
		check(t, "check", f.check(t.Context()))
	})
}

func TestABlobIsReadFromWhereItIsSoughtTo(t *testing.T) {
	t.Parallel()
	eachFiles(t, func(t *testing.T, f files) {
		d := digest.FromString("x")
		write(t, f, "one", 0, "0123456789")
		check(t, "place", f.place(t.Context(), "one", d))
		r, _, err := f.open(t.Context(), d)
		check(t, "open", err)
		defer func() { check(t, "Close", r.Close()) }()
		for _, c := range []struct {
			offset int64
			whence int
			at     int64
			read   string
		}{
			{0, io.SeekEnd, 10, ""},
			{0, io.SeekStart, 0, "01"},
			{0, io.SeekCurrent, 2, "2"},
			{-1, io.SeekCurrent, 2, "23"},
			{-3, io.SeekEnd, 7, "789"},
			{0, io.SeekCurrent, 10, ""},
			{5, io.SeekStart, 5, "56789"},
			{20, io.SeekStart, 20, ""},
		} {
			at, err := r.Seek(c.offset, c.whence)
			check(t, fmt.Sprintf("Seek(%d, %d)", c.offset, c.whence), err)
			b := make([]byte, len(c.read))
			_, err = io.ReadFull(r, b)
			check(t, "read", err)
			if at != c.at || string(b) != c.read {
				t.Errorf("Seek(%d, %d) = %d and read %q, want %d and %q", c.offset, c.whence, at, b, c.at, c.read)
			}
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("Read behind the end = %d, %v, want io.EOF", n, err)
		}
		if _, err := r.Seek(-1, io.SeekStart); err == nil {
			t.Error("Seek before the beginning succeeded")
		}
	})
}

// TestBlobsLieWhereDistributionsFileSystemDriverPutsThem lets its data
// directory be taken over.
func TestBlobsLieWhereDistributionsFileSystemDriverPutsThem(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	b := content(100)
	d := s.push(t, "a/b", b)
	got, err := os.ReadFile(s.root + "/docker/registry/v2/blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data")
	check(t, "read the blob's file", err)
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
}

// TestTheFoldersOfBlobsAreThereFromTheStart: to put a blob into place makes one
// folder, whose parent can be synced, and never two.
func TestTheFoldersOfBlobsAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for range 2 {
		_, err := newLocalFiles(root + "/new/root")
		check(t, "newLocalFiles", err)
	}
	for _, a := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(root + "/new/root/docker/registry/v2/blobs/" + a)
		check(t, "read the folder", err)
		if len(entries) != 256 {
			t.Errorf("%d folders for %s, want 256", len(entries), a)
		}
	}
	// And where somebody has tidied them away.
	f, err := newLocalFiles(root + "/new/root")
	check(t, "newLocalFiles", err)
	d := digest.FromString("x")
	check(t, "remove", os.RemoveAll(root+"/new/root/docker/registry/v2/blobs/sha256"))
	write(t, f, "one", 0, "x")
	check(t, "place", f.place(t.Context(), "one", d))
	if _, err := f.size(t.Context(), d); err != nil {
		t.Errorf("size: %v", err)
	}
}
