package storage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// plainLayer is a tar with these files, which are their own content.
func plainLayer(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		check(t, "write a header", w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(name))}))
		_, err := io.WriteString(w, name)
		check(t, "write a body", err)
	}
	check(t, "end the tar", w.Close())
	return b.Bytes()
}

// writeIndex writes the index of a layer.
func writeIndex(t *testing.T, x *StagedIndex, plain []byte) {
	t.Helper()
	ix := layer.NewIndexer(x, nil)
	_, _ = ix.Write(plain)
	check(t, "index a layer", errors.Join(ix.Close(), ix.Err()))
}

// wantIndex checks what the index of a layer says; nil for that there is none.
func (s *testStore) wantIndex(t *testing.T, diffID digest.Digest, want []string) {
	t.Helper()
	r, err := s.OpenIndex(t.Context(), diffID)
	if want == nil {
		wantCode(t, "OpenIndex", err, tarport.NotFound)
		return
	}
	check(t, "OpenIndex", err)
	defer func() { check(t, "close", r.Close()) }()
	rd, err := layer.NewReader(r)
	check(t, "NewReader", err)
	var got []string
	for {
		e, err := rd.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, "Next", err)
		got = append(got, e.Path)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the index (-want +got):\n%s", diff)
	}
}

func TestTheIndexesOfABatchCanBeReadWithItsCommit(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		put := stageImage(t, b, "a/b", "1", "one", "two")
		for layer, names := range map[string][]string{"one": {"etc/one"}, "nobody's": {"x"}} {
			x, err := b.CreateIndex(t.Context())
			check(t, "CreateIndex", err)
			writeIndex(t, x, plainLayer(t, names...))
			check(t, "Finish", x.Finish(t.Context(), diffIDOf(layer)))
			x.Discard() // does nothing any more
		}
		s.wantIndex(t, diffIDOf("one"), nil)
		_, err := b.Commit(t.Context(), []ManifestPut{put})
		check(t, "Commit", err)
		s.wantIndex(t, diffIDOf("one"), []string{"etc/one"})
		s.wantIndex(t, diffIDOf("nobody's"), nil)
		s.wantIndex(t, diffIDOf("two"), nil)
		check(t, "Close", b.Close())
		s.wantNothingStaged(t)
	})
}

func TestTheIndexesOfABatchThatFailsAreDropped(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		b := s.batch(t)
		finished, err := b.CreateIndex(t.Context())
		check(t, "CreateIndex", err)
		writeIndex(t, finished, plainLayer(t, "x"))
		check(t, "Finish", finished.Finish(t.Context(), diffIDOf("one")))
		begun, err := b.CreateIndex(t.Context())
		check(t, "CreateIndex", err)
		check(t, "Close", b.Close())
		if err := begun.Finish(t.Context(), diffIDOf("two")); !errors.Is(err, errBatchClosed) {
			t.Errorf("Finish behind Close: error = %v", err)
		}
		s.wantIndex(t, diffIDOf("one"), nil)
		s.wantIndex(t, diffIDOf("two"), nil)
		s.wantNothingStaged(t)
	})
}

func TestAnIndexCanBeReplacedAndDiscarded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		d := diffIDOf("one")
		for _, name := range []string{"first", "second"} {
			x, err := s.NewIndex(t.Context())
			check(t, "NewIndex", err)
			writeIndex(t, x, plainLayer(t, name))
			check(t, "Finish", x.Finish(t.Context(), d))
			s.wantIndex(t, d, []string{name})
		}
		x, err := s.NewIndex(t.Context())
		check(t, "NewIndex", err)
		x.Discard()
		x, err = s.NewIndex(t.Context())
		check(t, "NewIndex", err)
		if err := x.Finish(t.Context(), "sha256:../../../x"); err == nil {
			t.Error("Finish took something that is no digest")
		}
		s.wantIndex(t, d, []string{"second"})
		s.wantNothingStaged(t)
	})
}

func TestAnIndexThatCouldNotBeWrittenIsNone(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	spy := s.spied(t)
	for _, failing := range []string{"write", "sync"} {
		spy.fail = func(_ int, call string) error {
			if call == failing {
				return os.ErrPermission
			}
			return nil
		}
		x, err := s.NewIndex(t.Context())
		check(t, "NewIndex", err)
		ix := layer.NewIndexer(x, nil)
		_, _ = ix.Write(plainLayer(t, "x"))
		check(t, "Close", ix.Close())
		if err := x.Finish(t.Context(), diffIDOf("one")); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s fails: Finish = %v", failing, err)
		}
		s.wantIndex(t, diffIDOf("one"), nil)
	}
	spy.fail = nil
	s.wantNothingStaged(t)
}

func gz(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(p)
	check(t, "gzip", errors.Join(err, w.Close()))
	return b.Bytes()
}

func zst(t *testing.T, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	check(t, "zstd", err)
	defer func() { check(t, "close", w.Close()) }()
	return w.EncodeAll(p, nil)
}

// zstdBlock is how much one block of zstd holds at most.
const zstdBlock = 128 << 10

// zstdZeros is so many blocks of zeros in zstd: four bytes each, which say what
// is repeated (RFC 8878, section 3.1.1.2).
func zstdZeros(blocks int) []byte {
	const last, repeated = 1, 1 << 1
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3} // the magic; no size, no checksum; a window of one block
	for i := range blocks {
		header := repeated | uint32(zstdBlock<<3)
		if i == blocks-1 {
			header |= last
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

// paths is a Collector that keeps names.
type paths []string

func (p *paths) Entry(h *tar.Header) io.Writer {
	*p = append(*p, h.Name)
	return nil
}

func TestIndexLayerMakesTheIndexOfAPushedLayer(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		plain := plainLayer(t, "etc/passwd", "bin/sh")
		diffID := digest.FromBytes(plain)
		for compression, packed := range map[string][]byte{"none": plain, "gzip": gz(t, plain), "zstd": zst(t, plain)} {
			d := s.push(t, "a/b", packed)
			r, err := s.OpenLayer(t.Context(), d)
			check(t, "OpenLayer", err)
			got, err := io.ReadAll(r)
			check(t, "read", errors.Join(err, r.Close()))
			if !bytes.Equal(got, plain) || r.Compression != compression {
				t.Errorf("OpenLayer of %s: %d bytes, compression %s", compression, len(got), r.Compression)
			}
			var seen paths
			gotID, err := s.IndexLayer(t.Context(), d, &seen)
			check(t, "IndexLayer", err)
			if gotID != diffID || len(seen) != 2 {
				t.Errorf("IndexLayer of %s = %s, saw %v, want %s and two entries", compression, gotID, seen, diffID)
			}
		}
		s.wantIndex(t, diffID, []string{"etc/passwd", "bin/sh"})
		known, err := s.KnownLayers(t.Context(), diffID)
		check(t, "KnownLayers", err)
		if len(known) != 3 {
			t.Errorf("KnownLayers = %+v, want all three forms", known)
		}
		s.wantNothingStaged(t)
	})
}

func TestWhatIsNoLayerHasNoIndex(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	plain := plainLayer(t, "etc/passwd")
	cut := gz(t, plain)
	zeros, err := zstd.NewReader(bytes.NewReader(zstdZeros(3)))
	check(t, "zstd", err)
	defer zeros.Close()
	got, err := io.ReadAll(zeros)
	if check(t, "read the zeros", err); !bytes.Equal(got, make([]byte, 3*zstdBlock)) {
		t.Fatalf("three blocks of zeros are %d bytes", len(got))
	}
	for name, blob := range map[string][]byte{
		"text": []byte(strings.Repeat("no tar", 200)), "a tar that is cut off": plain[:514], "gzip that is cut off": cut[:len(cut)-4],
		"gzip of text": gz(t, []byte("no tar at all")), "only a magic": {0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0},
		"a bomb": zstdZeros(layerRatioFrom/zstdBlock + 8),
	} {
		_, err := s.IndexLayer(t.Context(), s.push(t, "a/b", blob), nil)
		wantCode(t, name, err, tarport.ManifestInvalid)
	}
	_, err = s.IndexLayer(t.Context(), digest.FromString("nowhere"), nil)
	wantCode(t, "a blob that is not here", err, tarport.BlobUnknown)
	s.wantNothingStaged(t)
}

// TestAStorageThatFailsDoesNotMakeALayerBad: who asks has to ask again.
func TestAStorageThatFailsDoesNotMakeALayerBad(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	d := s.push(t, "a/b", plainLayer(t, strings.Repeat("x", 90), strings.Repeat("y", 90)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.IndexLayer(ctx, d, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("IndexLayer of a caller that left: error = %v", err)
	}
	s.files = brokenReads{s.files}
	if _, err := s.IndexLayer(t.Context(), d, nil); !errors.Is(err, io.ErrClosedPipe) || tarport.ErrorCode(err) == tarport.ManifestInvalid {
		t.Errorf("IndexLayer on a disk that fails: error = %v", err)
	}
	s.wantNothingStaged(t)
}

// brokenReads breaks off in the middle of each blob.
type brokenReads struct{ files }

func (f brokenReads) open(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	r, n, err := f.files.open(ctx, d)
	return &brokenReader{ReadSeekCloser: r, left: n / 2}, n, err
}

type brokenReader struct {
	io.ReadSeekCloser
	left int64
}

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.ErrClosedPipe
	}
	n, err := r.ReadSeekCloser.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

func TestASweepTakesTheIndexesOfLayersThatAreGone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		kept := s.push(t, "a/b", plainLayer(t, "kept"))
		keptID, err := s.IndexLayer(t.Context(), kept, nil)
		check(t, "IndexLayer", err)
		x, err := s.NewIndex(t.Context())
		check(t, "NewIndex", err)
		writeIndex(t, x, plainLayer(t, "gone"))
		check(t, "Finish", x.Finish(t.Context(), diffIDOf("gone")))
		for _, step := range []struct {
			after   time.Duration
			removed int
			gone    []string
		}{{0, 0, []string{"gone"}}, {2 * indexAge, 1, nil}, {0, 0, nil}} {
			s.clock.advance(step.after)
			n, err := s.SweepIndexes(t.Context())
			check(t, "SweepIndexes", err)
			if n != step.removed {
				t.Errorf("SweepIndexes = %d, want %d", n, step.removed)
			}
			s.wantIndex(t, diffIDOf("gone"), step.gone)
			s.wantIndex(t, keptID, []string{"kept"})
		}
	})
}

// mistaken is a collector with the index of a list as the mistake.
type mistaken struct{}

func (mistaken) Entry(*tar.Header) io.Writer { return []io.Writer{}[len("one")] }

func TestAMistakeInReadingALayerIsAnError(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	ctx := t.Context()
	plain := plainLayer(t, "etc/passwd")
	d := s.push(t, "a/b", plain)
	if _, err := s.IndexLayer(ctx, d, mistaken{}); !errors.Is(err, ErrMistake) {
		t.Errorf("error = %v, want %v", err, ErrMistake)
	}
	if got, err := s.IndexLayer(ctx, d, nil); err != nil || got != digest.FromBytes(plain) {
		t.Errorf("IndexLayer after it = %s, %v", got, err)
	}
	s.wantNothingStaged(t)
}
