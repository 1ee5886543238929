package storage

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
	"time"
)

func TestACopyGivesBothWritersAllBytesHoweverTheyCome(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, pieceCount * pieceSize, (pieceCount+1)*pieceSize + 3} {
		b := content(n)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"as they come":           func(r io.Reader) io.Reader { return r },
			"in halves":              iotest.HalfReader,
			"with io.EOF beside":     iotest.DataErrReader,
			"with empty reads":       func(r io.Reader) io.Reader { return &stutterReader{r: r} },
			"in halves, with io.EOF": func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) },
		} {
			var one, two bytes.Buffer
			got, err := copyTo(&one, &two, wrap(bytes.NewReader(b)))
			if err != nil || got != int64(n) || !bytes.Equal(one.Bytes(), b) || !bytes.Equal(two.Bytes(), b) {
				t.Errorf("%d bytes %s: copyTo = %d, %v; the writers have %d and %d", n, name, got, err, one.Len(), two.Len())
			}
		}
	}
}

// stutterReader reads nothing every other time, which io.Reader allows.
type stutterReader struct {
	r   io.Reader
	odd bool
}

func (s *stutterReader) Read(p []byte) (int, error) {
	if s.odd = !s.odd; s.odd {
		return 0, nil
	}
	return s.r.Read(p)
}

func TestACopyEndsWithTheWriterThatFailsThoughTheBodyHasNoEnd(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	for _, first := range []int{0, pieceSize, 3 * pieceSize} {
		for name, writers := range map[string][2]io.Writer{
			"the file": {&limitedWriter{left: first, err: mine}, io.Discard},
			"the hash": {io.Discard, &limitedWriter{left: first, err: mine}},
		} {
			if _, err := copyTo(writers[0], writers[1], endless{}); !errors.Is(err, mine) {
				t.Errorf("%s fails after %d bytes: error = %v, want mine", name, first, err)
			}
		}
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// limitedWriter takes so many bytes and then fails.
type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, w.err
	}
	w.left -= len(p)
	return len(p), nil
}

func TestACopyLeavesNoGoroutineBehind(t *testing.T) { //nolint:paralleltest // it counts goroutines
	before := runtime.NumGoroutine()
	for range 20 {
		_, _ = copyTo(io.Discard, io.Discard, io.LimitReader(endless{}, 3*pieceSize))
		_, _ = copyTo(&limitedWriter{err: io.ErrShortWrite}, io.Discard, io.LimitReader(endless{}, 3*pieceSize))
		_, _ = copyTo(io.Discard, io.Discard, io.MultiReader(bytes.NewReader(content(2*pieceSize)), iotest.ErrReader(io.ErrNoProgress)))
	}
	limit := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > before {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
