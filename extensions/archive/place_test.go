package archive

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/deflate"
)

func TestArchivesWaitForAPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeService(t, &fakeStore{}, func(o *Options) { o.Concurrent = 2 })
		user := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1})
		body := docker("a/b:1", layerOf("x")).pack()
		slow, write := io.Pipe() // the first two never get their end
		var loaded, busy atomic.Int32
		load := func(ctx context.Context, r io.Reader) {
			switch _, err := s.Load(ctx, r, request()); tarport.ErrorCode(err) {
			case "":
				loaded.Add(1)
			case tarport.Unavailable:
				busy.Add(1)
			}
		}
		for range 2 {
			go load(user, io.MultiReader(bytes.NewReader(body[:512]), slow))
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(user)
		for range 8 {
			go load(ctx, bytes.NewReader(body))
		}
		synctest.Wait()
		load(user, bytes.NewReader(body)) // more do not wait
		if busy.Load() != 1 {
			t.Errorf("%d were told at once that the registry is busy, want one", busy.Load())
		}
		cancel()
		synctest.Wait()
		began := time.Now()
		load(user, bytes.NewReader(body))
		if busy.Load() != 2 || time.Since(began) != time.Minute {
			t.Errorf("%d were told that the registry is busy, after %s; want 2 after %s", busy.Load(), time.Since(began), time.Minute)
		}
		go load(user, bytes.NewReader(body))
		synctest.Wait()
		if err := write.CloseWithError(errors.New("gone")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if loaded.Load() != 1 {
			t.Errorf("%d archives were loaded, want the one that waited", loaded.Load())
		}
	})
}

// TestGzipIsWhatWasWritten at every length around a block's, in writes of every
// kind, and always in the same bytes.
func TestGzipIsWhatWasWritten(t *testing.T) {
	t.Parallel()
	var pool gzipPool
	for _, n := range []int{0, 1, deflate.MaxPiece - 1, deflate.MaxPiece, deflate.MaxPiece + 1, 5*deflate.MaxPiece + 17, 20 * deflate.MaxPiece} {
		want := []byte(noise(n / 2))
		want = append(want, bytes.Repeat([]byte("a"), n-len(want))...)
		var first []byte
		for _, piece := range []int{n + 1, 100_003, 4096} {
			var out bytes.Buffer
			z := pool.writer(&out)
			for rest := want; len(rest) > 0; {
				m, err := z.Write(rest[:min(piece, len(rest))])
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
				t.Errorf("%d bytes in pieces of %d give other bytes", n, piece)
			}
			r, err := gzip.NewReader(&out)
			if err != nil {
				t.Fatal(err)
			}
			r.Multistream(false)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) || out.Len() != 0 {
				t.Errorf("%d bytes: %d came back (%v), %d are left", n, len(got), err, out.Len())
			}
		}
	}
}

func TestGzipThatIsGivenUpLeavesNothingOnItsWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var pool gzipPool
		full := errors.New("full")
		for range 3 {
			z := pool.writer(writerFunc(func([]byte) (int, error) { return 0, full }))
			var err error
			for err == nil {
				_, err = z.Write(make([]byte, deflate.MaxPiece/3))
				synctest.Wait()
			}
			if !errors.Is(err, full) {
				t.Errorf("Write = %v, want %v", err, full)
			}
			z.abort()
			other := pool.writer(writerFunc(func([]byte) (int, error) { return 0, full }))
			if err := other.close(); !errors.Is(err, full) {
				t.Errorf("close = %v, want %v", err, full)
			}
		}
		if len(pool.places) != 0 {
			t.Errorf("%d places are still taken", len(pool.places))
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
