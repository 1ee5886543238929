package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

func (s *testStore) batch(t *testing.T) *Batch {
	t.Helper()
	b, err := s.NewBatch(t.Context())
	check(t, "NewBatch", err)
	return b
}

// stageBlob writes a blob into a batch, in two pieces.
func stageBlob(t *testing.T, b *Batch, p []byte) (*StagedBlob, ocispec.Descriptor) {
	t.Helper()
	w, err := b.Create(t.Context())
	check(t, "Create", err)
	for _, piece := range [][]byte{p[:len(p)/2], p[len(p)/2:]} {
		_, err = w.Write(piece)
		check(t, "Write", err)
	}
	desc, err := w.Finish()
	check(t, "Finish", err)
	if want := digest.FromBytes(p); desc.Digest != want || desc.Size != int64(len(p)) {
		t.Errorf("Finish = %+v, want %s of %d bytes", desc, want, len(p))
	}
	return w, desc
}

func diffIDOf(layer string) digest.Digest { return digest.FromString("plain " + layer) }

// stageImage stages the blobs of an image and says how to put it.
func stageImage(t *testing.T, b *Batch, repository, tag string, layers ...string) ManifestPut {
	t.Helper()
	img := imageOf(layers...)
	put := img.put(repository, tag)
	put.Via = ViaLoad
	_, config := stageBlob(t, b, configOf(layers...))
	put.Blobs = append(put.Blobs, BlobLink{Descriptor: config})
	for _, l := range layers {
		_, desc := stageBlob(t, b, []byte(l))
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: desc, DiffID: diffIDOf(l), Compression: "gzip"})
	}
	return put
}

// wantNothingOf checks that a put of a batch has left nothing anywhere.
func (s *testStore) wantNothingOf(t *testing.T, put ManifestPut) {
	t.Helper()
	_, err := s.Manifest(t.Context(), put.Repository, tarport.Reference{Digest: digest.FromBytes(put.Payload)})
	wantCode(t, "Manifest", err, tarport.ManifestUnknown)
	for _, l := range put.Blobs {
		d := l.Descriptor.Digest
		s.wantNoBlob(t, put.Repository, d)
		if _, err := s.files.size(t.Context(), d); err == nil {
			t.Errorf("the file of %s is left", d)
		}
		_, err := s.db.Blob(t.Context(), d)
		wantCode(t, "the row of a blob", err, tarport.BlobUnknown)
	}
	s.wantNothingStaged(t)
}

func TestABatchBecomesVisibleWithItsCommit(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		old := s.push(t, "other/repo", []byte("shared"))
		img := s.pushImage(t, "team/app")
		_, err := s.PutManifest(t.Context(), img.put("team/app", "0"), "")
		check(t, "PutManifest", err)
		tags, err := s.Tags(t.Context(), "team/app", 10, "") // into the cache
		check(t, "Tags", err)
		if diff := cmp.Diff([]string{"0"}, tags.Names()); diff != "" {
			t.Errorf("Tags (-want +got):\n%s", diff)
		}

		b := s.batch(t)
		puts := []ManifestPut{
			stageImage(t, b, "team/app", "1", "one", "shared"),
			stageImage(t, b, "team/web", "1", "one", "two"), // "one" is staged twice
		}
		_, nobodys := stageBlob(t, b, []byte("nobody names this"))
		s.wantNoBlob(t, "team/app", digest.FromString("one"))
		res, err := b.Commit(t.Context(), puts)
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		check(t, "Close again", b.Close())

		want := map[digest.Digest]bool{
			digest.FromBytes(configOf("one", "shared")): false, digest.FromBytes(configOf("one", "two")): false,
			digest.FromString("one"): false, digest.FromString("two"): false, old: true,
		}
		if diff := cmp.Diff(want, res.Existed); diff != "" {
			t.Errorf("Existed (-want +got):\n%s", diff)
		}
		for _, put := range puts {
			m, err := s.Manifest(t.Context(), put.Repository, tarport.Reference{Tag: "1"})
			check(t, "Manifest", err)
			if m.Digest != digest.FromBytes(put.Payload) {
				t.Errorf("%s:1 is %s", put.Repository, m.Digest)
			}
		}
		for _, layer := range []string{"one", "shared"} {
			s.wantBlob(t, "team/app", digest.FromString(layer), []byte(layer))
			known, err := s.KnownLayers(t.Context(), diffIDOf(layer))
			check(t, "KnownLayers", err)
			if diff := cmp.Diff([]metadata.Layer{{DiffID: diffIDOf(layer), Digest: digest.FromString(layer), Size: int64(len(layer)), Compression: "gzip"}}, known); diff != "" {
				t.Errorf("KnownLayers (-want +got):\n%s", diff)
			}
		}
		tags, err = s.Tags(t.Context(), "team/app", 10, "")
		check(t, "Tags", err)
		if diff := cmp.Diff([]string{"0", "1"}, tags.Names()); diff != "" {
			t.Errorf("Tags (-want +got):\n%s", diff)
		}
		s.wantNoBlob(t, "team/web", old)
		if _, err := s.files.size(t.Context(), nobodys.Digest); err == nil {
			t.Error("a blob that no manifest names is there")
		}
		s.wantNothingStaged(t)
	})
}

func TestABatchThatFailsLeavesNothingAndTakesNothing(t *testing.T) {
	t.Parallel()
	good := func(t *testing.T, b *Batch) ManifestPut {
		t.Helper()
		return stageImage(t, b, "team/web", "1", "two")
	}
	cases := map[string]struct {
		second func(t *testing.T, b *Batch) ManifestPut
		ctx    func(context.Context) context.Context
		code   tarport.Code
	}{
		"a second manifest whose layer is missing": {second: func(t *testing.T, b *Batch) ManifestPut {
			t.Helper()
			put := stageImage(t, b, "team/web", "1", "two", "missing")
			put.Blobs = without(put.Blobs, digest.FromString("missing"))
			return put
		}, code: tarport.ManifestBlobUnknown},
		"a second manifest that is none": {second: func(t *testing.T, b *Batch) ManifestPut {
			t.Helper()
			put := good(t, b)
			put.Payload = []byte(`{"schemaVersion":2}`)
			return put
		}, code: tarport.ManifestInvalid},
		"a second manifest with a bad tag": {second: func(t *testing.T, b *Batch) ManifestPut {
			t.Helper()
			return stageImage(t, b, "team/web", "-bad", "two")
		}, code: tarport.TagInvalid},
		"a link to a blob that is nowhere": {second: func(t *testing.T, b *Batch) ManifestPut {
			t.Helper()
			put := good(t, b)
			put.Blobs = append(put.Blobs, BlobLink{Descriptor: descriptor(digest.FromString("nowhere"))})
			return put
		}, code: tarport.ManifestBlobUnknown},
		"a client that is gone": {second: good, ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx
		}, code: tarport.Internal},
	}
	eachStore(t, func(t *testing.T, s *testStore) {
		// What was there before: one that a repository links, and one that
		// only has its lease.
		linked := s.push(t, "other/repo", []byte("linked before"))
		loose := s.push(t, "other/repo", []byte("loose before"))
		check(t, "DeleteBlob", s.DeleteBlob(t.Context(), "other/repo", loose))
		for name, c := range cases {
			s.clock.advance(time.Second)
			b := s.batch(t)
			first := stageImage(t, b, "team/app", "1", "one", "linked before", "loose before")
			second := c.second(t, b)
			ctx := t.Context()
			if c.ctx != nil {
				ctx = c.ctx(ctx)
			}
			_, err := b.Commit(ctx, []ManifestPut{first, second})
			wantCode(t, "Commit with "+name, err, c.code)
			check(t, "Close", b.Close())
			for _, put := range []ManifestPut{first, second} {
				put.Blobs = without(put.Blobs, linked, loose)
				s.wantNothingOf(t, put)
			}
			s.wantBlob(t, "other/repo", linked, []byte("linked before"))
			if _, err := s.db.Blob(t.Context(), loose); err != nil {
				t.Errorf("%s: the row of a blob that was there before: %v", name, err)
			}
			if n, err := s.files.size(t.Context(), loose); err != nil || n != int64(len("loose before")) {
				t.Errorf("%s: the file of a blob that was there before: %d, %v", name, n, err)
			}
		}
	})
}

// without are the links but for some.
func without(links []BlobLink, gone ...digest.Digest) []BlobLink {
	return slices.DeleteFunc(slices.Clone(links), func(l BlobLink) bool { return slices.Contains(gone, l.Descriptor.Digest) })
}

func TestABatchThatIsNotCommittedLeavesNothing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		put := stageImage(t, b, "team/app", "1", "one")
		w, err := b.Create(t.Context())
		check(t, "Create", err)
		_, err = w.Write([]byte("half of it"))
		check(t, "Write", err)
		check(t, "Close", b.Close())
		s.wantNothingOf(t, put)
		if _, err := b.Create(t.Context()); err == nil {
			t.Error("Create after Close succeeded")
		}
		if _, err := b.Commit(t.Context(), []ManifestPut{put}); err == nil {
			t.Error("Commit after Close succeeded")
		}
		w.Discard()
	})
}

func TestADiscardedBlobIsNoPartOfItsBatch(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		finished, desc := stageBlob(t, b, []byte("finished"))
		writing, err := b.Create(t.Context())
		check(t, "Create", err)
		_, err = writing.Write([]byte("half of it"))
		check(t, "Write", err)
		for range 2 {
			finished.Discard()
			writing.Discard()
		}
		s.wantNothingStaged(t)
		put := stageImage(t, b, "team/app", "1", "one")
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: desc})
		_, err = b.Commit(t.Context(), []ManifestPut{put})
		wantCode(t, "Commit with the discarded blob", err, tarport.ManifestBlobUnknown)
		check(t, "Close", b.Close())
		s.wantNothingOf(t, put)
	})
}

func TestASecondBatchNeedsNotStageALayerThatIsKnown(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		_, err := b.Commit(t.Context(), []ManifestPut{stageImage(t, b, "team/app", "1", "one")})
		check(t, "Commit", err)
		check(t, "Close", b.Close())

		b = s.batch(t)
		known, err := s.KnownLayers(t.Context(), diffIDOf("one"))
		check(t, "KnownLayers", err)
		put := stageImage(t, b, "other/app", "1")
		img := imageOf("one")
		img.config = put.Blobs[0].Descriptor
		put.Payload = img.payload()
		put.Blobs = append(put.Blobs, BlobLink{Descriptor: ocispec.Descriptor{Digest: known[0].Digest, Size: known[0].Size}})
		res, err := b.Commit(t.Context(), []ManifestPut{put})
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		want := map[digest.Digest]bool{digest.FromString("one"): true, img.config.Digest: false}
		if diff := cmp.Diff(want, res.Existed); diff != "" {
			t.Errorf("Existed (-want +got):\n%s", diff)
		}
		s.wantBlob(t, "other/app", digest.FromString("one"), []byte("one"))
	})
}

// TestOfTwoBatchesWithTheSameLayerTheOneThatFailsTakesNothingFromTheOther has
// the layer in place for both, in either order, before one of them fails.
func TestOfTwoBatchesWithTheSameLayerTheOneThatFailsTakesNothingFromTheOther(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, failsFirst := range []bool{false, true} {
			layer := fmt.Sprint("layer ", failsFirst)
			good, bad := s.batch(t), s.batch(t)
			goodPut, badPut := stageImage(t, good, "team/good", layer[6:], layer), stageImage(t, bad, "team/bad", "1", layer)
			order := []struct {
				b   *Batch
				put ManifestPut
			}{{good, goodPut}, {bad, badPut}}
			if failsFirst {
				slices.Reverse(order)
			}
			placed := map[*Batch][]metadata.BlobPut{}
			for _, o := range order {
				rows, _, err := o.b.place(t.Context(), []ManifestPut{o.put})
				check(t, "place", err)
				placed[o.b] = rows
				s.clock.advance(time.Millisecond)
			}
			check(t, "discard", s.discard(t.Context(), placed[bad]))
			_, err := good.Commit(t.Context(), []ManifestPut{goodPut})
			check(t, "Commit", err)
			s.wantBlob(t, "team/good", digest.FromString(layer), []byte(layer))
			check(t, "Close", errors.Join(good.Close(), bad.Close()))
		}
	})
}

func TestBlobsOfABatchAreWrittenByManyAtOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		staged := map[digest.Digest][]byte{}
		for i := range 8 {
			wg.Go(func() {
				for j := range 4 {
					p := content(1000 + 10*i + j)
					w, err := b.Create(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					for _, piece := range slices.Collect(slices.Chunk(p, 100)) {
						if _, err := w.Write(piece); err != nil {
							t.Error(err)
						}
					}
					desc, err := w.Finish()
					if err != nil {
						t.Error(err)
					}
					if j == 3 {
						w.Discard()
						continue
					}
					mu.Lock()
					staged[desc.Digest] = p
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		put := stageImage(t, b, "team/app", "1")
		for _, d := range slices.Sorted(maps.Keys(staged)) {
			put.Blobs = append(put.Blobs, BlobLink{Descriptor: descriptor(d)})
		}
		_, err := b.Commit(t.Context(), []ManifestPut{put})
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		for d, p := range staged {
			if d != digest.FromBytes(p) {
				t.Errorf("Finish said %s of bytes whose digest is %s", d, digest.FromBytes(p))
			}
			s.wantBlob(t, "team/app", d, p)
		}
		s.wantNothingStaged(t)
	})
}

func TestABatchHealsADamagedBlob(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		d := s.push(t, "other/repo", []byte("layer"))
		s.overwrite(t, blobPath(d), []byte("lay"))
		b := s.batch(t)
		_, err := b.Commit(t.Context(), []ManifestPut{stageImage(t, b, "team/app", "1", "layer")})
		check(t, "Commit", err)
		check(t, "Close", b.Close())
		s.wantBlob(t, "other/repo", d, []byte("layer"))
		s.wantBlob(t, "team/app", d, []byte("layer"))
	})
}
