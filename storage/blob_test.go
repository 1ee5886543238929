package storage

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// damages are what can happen to a blob's file.
var damages = map[string]func(b []byte) []byte{
	"is gone":   func([]byte) []byte { return nil },
	"was cut":   func(b []byte) []byte { return b[:len(b)-1] },
	"is empty":  func([]byte) []byte { return []byte{} },
	"has grown": func(b []byte) []byte { return append(b[:len(b):len(b)], 'x') },
}

func TestABlobWhoseFileIsDamagedIsAbsentUntilItIsPushedAgain(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for name, damage := range damages {
			b := append(content(1000), name...)
			d := s.push(t, "a/b", b)
			s.wantBlob(t, "a/b", d, b) // it is in the cache
			s.overwrite(t, blobPath(d), damage(b))
			s.wantNoBlob(t, "a/b", d)
			_, err := s.MountBlob(t.Context(), "a/b", "c/d", d)
			wantCode(t, "MountBlob of a blob that "+name, err, tarport.BlobUnknown)
			s.wantNoBlob(t, "c/d", d)
			s.push(t, "e/f", b) // somebody else has it
			s.wantBlob(t, "a/b", d, b)
			s.wantBlob(t, "e/f", d, b)
		}
	})
}

func TestAPushReplacesBytesOfTheSameSizeThatAreNotTheBlobs(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		d := s.push(t, "a/b", b)
		s.overwrite(t, blobPath(d), make([]byte, len(b)))
		s.push(t, "a/b", b)
		s.wantBlob(t, "a/b", d, b)
	})
}

func TestAMountLinksABlobThatTheSourceLinks(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		d := s.push(t, "a/b", b)
		s.wantNoBlob(t, "c/d", d)
		got, err := s.MountBlob(t.Context(), "a/b", "c/d", d)
		check(t, "MountBlob", err)
		if got.Digest != d || got.Size != 1000 {
			t.Errorf("MountBlob = %+v", got)
		}
		s.wantBlob(t, "c/d", d, b)
		for _, from := range []string{"e/f", "a"} {
			_, err = s.MountBlob(t.Context(), from, "g/h", d)
			wantCode(t, "MountBlob from "+from, err, tarport.BlobUnknown)
		}
		sources, err := s.BlobSources(t.Context(), d, "", 10)
		check(t, "BlobSources", err)
		if diff := cmp.Diff([]string{"a/b", "c/d"}, sources); diff != "" {
			t.Errorf("BlobSources (-want +got):\n%s", diff)
		}
	})
}

func TestADeletedBlobIsGoneFromItsRepositoryAndNoOther(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		d := s.push(t, "a/b", b)
		s.push(t, "c/d", b)
		s.wantBlob(t, "a/b", d, b)
		check(t, "DeleteBlob", s.DeleteBlob(t.Context(), "a/b", d))
		s.wantNoBlob(t, "a/b", d)
		s.wantBlob(t, "c/d", d, b)
		wantCode(t, "DeleteBlob again", s.DeleteBlob(t.Context(), "a/b", d), tarport.BlobUnknown)
		s.push(t, "a/b", b)
		s.wantBlob(t, "a/b", d, b)
	})
}

func TestABlobThatAManifestNeedsIsNotDeleted(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "a/b", "layer")
		_, err := s.PutManifest(t.Context(), img.put("a/b", "latest"), "")
		check(t, "PutManifest", err)
		for _, d := range []digest.Digest{img.config.Digest, img.layers[0].Digest} {
			wantCode(t, "DeleteBlob", s.DeleteBlob(t.Context(), "a/b", d), tarport.Conflict)
			if _, err := s.Blob(t.Context(), "a/b", d); err != nil {
				t.Errorf("Blob: %v", err)
			}
		}
	})
}

// lease is until when a blob is sure to stay, by the row.
func (s *testStore) leaseOf(tb testing.TB, d digest.Digest) time.Time {
	tb.Helper()
	b, err := s.db.Blob(tb.Context(), d)
	check(tb, "Blob", err)
	return b.LeasedUntil
}

func TestEveryPositiveAnswerAboutABlobLeavesItTheGraceAtLeast(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := content(1000)
		d := s.push(t, "a/b", b)
		plain := digest.FromString("plain")
		img := s.pushImage(t, "a/b")
		put := img.put("a/b", "latest")
		put.Blobs = []BlobLink{{Descriptor: descriptor(d), DiffID: plain, Compression: "gzip"}}
		_, err := s.PutManifest(t.Context(), put, "")
		check(t, "PutManifest", err)
		for name, ask := range map[string]func() error{
			"Blob": func() error { _, err := s.Blob(t.Context(), "a/b", d); return err },
			"OpenBlob": func() error {
				r, _, err := s.OpenBlob(t.Context(), "a/b", d)
				if err == nil {
					err = r.Close()
				}
				return err
			},
			"MountBlob": func() error { _, err := s.MountBlob(t.Context(), "a/b", "c/d", d); return err },
			"KnownLayers": func() error {
				list, err := s.KnownLayers(t.Context(), plain)
				if err == nil && len(list) != 1 {
					err = errors.New("not known")
				}
				return err
			},
			"a push": func() error { s.push(t, "e/f", b); return nil },
		} {
			for _, wait := range []time.Duration{0, s.o.Grace / 2, s.o.Grace, 3 * s.o.Grace} {
				s.clock.advance(wait)
				check(t, name, ask())
				if left := s.leaseOf(t, d).Sub(s.clock.now()); left < s.o.Grace {
					t.Errorf("%s after %v: the blob stays %v, want %v at least", name, wait, left, s.o.Grace)
				}
			}
		}
	})
}

// TestALongHeldCacheEntryIsRenewedOnce: or else every HEAD of a blob that is
// asked for all day would be a transaction from the second day on.
func TestALongHeldCacheEntryIsRenewedOnce(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	d := s.push(t, "a/b", content(10))
	_, err := s.Blob(t.Context(), "a/b", d)
	check(t, "Blob", err)
	s.clock.advance(s.o.Grace + time.Minute)
	b, err := s.Blob(t.Context(), "a/b", d)
	check(t, "Blob", err)
	if want := s.leaseOf(t, d); !b.LeasedUntil.Equal(want) {
		t.Errorf("lease = %v, want that of the row, %v", b.LeasedUntil, want)
	}
	kept, ok := s.cache.get(cacheKey{cacheBlob, "a/b", string(d)})
	if !ok || !kept.(metadata.Blob).LeasedUntil.Equal(b.LeasedUntil) {
		t.Errorf("the cache has %+v (%v), want the renewed blob", kept, ok)
	}
}

func TestAnAnswerAboutAFreshBlobWritesNothing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		d := s.push(t, "a/b", content(10))
		before := s.leaseOf(t, d)
		s.clock.advance(s.o.Grace / 2)
		_, err := s.Blob(t.Context(), "a/b", d)
		check(t, "Blob", err)
		if got := s.leaseOf(t, d); !got.Equal(before) {
			t.Errorf("lease = %v, want it left at %v", got, before)
		}
	})
}

func TestALayerIsKnownOnlyWhileItsBytesAreWhole(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for name, damage := range damages {
			plain := digest.FromString("plain of " + name)
			b := append(content(500), name...)
			d := s.push(t, "a/b", b)
			put := s.pushImage(t, "a/b").put("a/b")
			put.Blobs = []BlobLink{{Descriptor: descriptor(d), DiffID: plain, Compression: "zstd"}}
			_, err := s.PutManifest(t.Context(), put, "")
			check(t, "PutManifest", err)
			list, err := s.KnownLayers(t.Context(), plain)
			check(t, "KnownLayers", err)
			want := []metadata.Layer{{DiffID: plain, Digest: d, Size: int64(len(b)), Compression: "zstd"}}
			if diff := cmp.Diff(want, list); diff != "" {
				t.Errorf("KnownLayers (-want +got):\n%s", diff)
			}
			s.overwrite(t, blobPath(d), damage(b))
			list, err = s.KnownLayers(t.Context(), plain)
			check(t, "KnownLayers", err)
			if len(list) != 0 {
				t.Errorf("KnownLayers of a blob that %s = %v, want none", name, list)
			}
		}
	})
}

// TestAPushAfterTheCollectorDiedHalfWayTakesTheBlobOver has the row marked, and
// the bytes there or not.
func TestAPushAfterTheCollectorDiedHalfWayTakesTheBlobOver(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, bytesGone := range []bool{false, true} {
			b := content(1000)
			d := s.push(t, "a/b", b)
			s.clock.advance(3 * s.o.Grace)
			going, err := s.db.MarkGoing(t.Context(), d, s.clock.now())
			check(t, "MarkGoing", err)
			if !going {
				t.Fatal("MarkGoing = false")
			}
			if bytesGone {
				check(t, "remove", s.files.remove(t.Context(), d))
			}
			s.cache.changed("a/b") // the collector says so
			s.wantNoBlob(t, "a/b", d)
			s.push(t, "a/b", b)
			s.wantBlob(t, "a/b", d, b)
		}
	})
}

func TestARemovedBlobIsReadToItsEndByWhoHasItOpen(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	b := content(100_000)
	d := s.push(t, "a/b", b)
	r, _, err := s.OpenBlob(t.Context(), "a/b", d)
	check(t, "OpenBlob", err)
	check(t, "remove", s.files.remove(t.Context(), d))
	got, err := io.ReadAll(r)
	check(t, "read", errors.Join(err, r.Close()))
	if digest.FromBytes(got) != d {
		t.Error("other bytes were read")
	}
}
