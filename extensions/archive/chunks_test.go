package archive

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tarport/tarport/internal/deflate"
	"github.com/tarport/tarport/storage/layer"
)

// chunkSizes are how many bytes are compressed at once.
var chunkSizes = map[string]int{gzipped: deflate.MaxPiece, zstded: zstdSize}

// TestWhatIsPackedComesBack at every length around a chunk's, in writes of every
// kind, and always in the same bytes.
func TestWhatIsPackedComesBack(t *testing.T) {
	t.Parallel()
	packers := newPackers()
	for compression, size := range chunkSizes {
		for _, n := range []int{0, 1, size - 1, size, size + 1, 3*size + 17} {
			want := []byte(noise(n / 2))
			want = append(want, bytes.Repeat([]byte("a"), n-len(want))...)
			var first []byte
			for _, step := range []int{n + 1, 100_003, 4096} {
				var out bytes.Buffer
				z := packers.get(compression, &out)
				for rest := want; len(rest) > 0; {
					m, err := z.Write(rest[:min(step, len(rest))])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[m:]
				}
				if err := z.close(); err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = bytes.Clone(out.Bytes())
				}
				if !bytes.Equal(first, out.Bytes()) {
					t.Errorf("%s: %d bytes in steps of %d give other bytes", compression, n, step)
				}
				r, err := layer.Decompress(&out, compression, 8<<20)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes: %d came back (%v)", compression, n, len(got), err)
				}
			}
		}
	}
}

func TestAPackerThatIsGivenUpLeavesNothingOnItsWay(t *testing.T) {
	t.Parallel()
	for compression, size := range chunkSizes {
		synctest.Test(t, func(t *testing.T) {
			packers := newPackers()
			full := errors.New("full")
			for range 3 {
				z := packers.get(compression, writerFunc(func([]byte) (int, error) { return 0, full }))
				var err error
				for err == nil {
					_, err = z.Write(make([]byte, size/3))
					synctest.Wait()
				}
				if !errors.Is(err, full) {
					t.Errorf("Write = %v, want %v", err, full)
				}
				z.abort()
				other := packers.get(compression, writerFunc(func([]byte) (int, error) { return 0, full }))
				if err := other.close(); !errors.Is(err, full) {
					t.Errorf("close = %v, want %v", err, full)
				}
			}
			if n := len(packers.gzip.places) + len(packers.zstd.places); n != 0 {
				t.Errorf("%d places are still taken", n)
			}
		})
	}
}

// brokenEncoder panics at its first chunk, as a mistake would let it.
type brokenEncoder struct{}

func (brokenEncoder) Append([]byte, chunk, bool) []byte { panic("no such place") }

func TestAPanicOfAnEncoderIsAnError(t *testing.T) {
	t.Parallel()
	pool := newChunkPool(func() chunk { return new(deflate.Piece) }, func() encoder { return brokenEncoder{} })
	for range 5 { // more than there are encoders
		z := pool.writer(io.Discard, nil)
		if _, err := z.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := z.close(); err == nil || !strings.Contains(err.Error(), "no such place") {
			t.Errorf("close = %v, want the panic", err)
		}
	}
	if len(pool.places) != 0 {
		t.Errorf("%d places are still taken", len(pool.places))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
