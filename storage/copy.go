package storage

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// pieceSize and pieceCount bound what an upload holds in memory: two MiB.
const (
	pieceSize  = 512 << 10
	pieceCount = 4
)

var pieces = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}

// copyTo copies r to both writers, so that receiving, hashing and writing
// overlap. It returns how many bytes both of them got; when it returns nothing
// of it runs any more. What fits into one piece is done without goroutines.
//
// After an error of r, both writers have all that came before it. After an
// error of a writer they can differ.
func copyTo(a, b io.Writer, r io.Reader) (int64, error) {
	first := pieces.Get().(*[]byte)
	defer pieces.Put(first)
	n, err := fill(r, *first)
	if err == nil {
		return copyPieces(a, b, (*first)[:n], r)
	}
	for _, w := range []io.Writer{a, b} {
		if _, werr := w.Write((*first)[:n]); werr != nil {
			return 0, werr
		}
	}
	return int64(n), ended(err)
}

// fill reads until p is full. Unlike io.ReadFull it does not hide whether a
// body came to its end or was cut.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// piece is bytes that two writers have still to take.
type piece struct {
	b    []byte
	left *sync.WaitGroup
}

func copyPieces(a, b io.Writer, first []byte, r io.Reader) (total int64, err error) {
	var wg sync.WaitGroup
	var errs [2]error
	var failed atomic.Bool // a writer has: the rest of r need not come
	chans := [2]chan piece{make(chan piece, pieceCount), make(chan piece, pieceCount)}
	for i, w := range []io.Writer{a, b} {
		wg.Go(func() {
			for p := range chans[i] {
				if errs[i] == nil {
					if _, errs[i] = w.Write(p.b); errs[i] != nil {
						failed.Store(true)
					}
				}
				p.left.Done()
			}
		})
	}
	send := func(p []byte, left *sync.WaitGroup) {
		left.Add(2)
		chans[0] <- piece{p, left}
		chans[1] <- piece{p, left}
		total += int64(len(p))
	}
	var slots [pieceCount]struct {
		buf  *[]byte
		busy sync.WaitGroup
	}
	var firstBusy sync.WaitGroup
	send(first, &firstBusy)
	for i := 0; err == nil && !failed.Load(); i++ {
		s := &slots[i%pieceCount]
		s.busy.Wait()
		if s.buf == nil {
			s.buf = pieces.Get().(*[]byte)
			defer pieces.Put(s.buf)
		}
		var n int
		if n, err = fill(r, *s.buf); n > 0 {
			send((*s.buf)[:n], &s.busy)
		}
	}
	close(chans[0])
	close(chans[1])
	wg.Wait()
	if werr := errors.Join(errs[0], errs[1]); werr != nil {
		return 0, werr
	}
	return total, ended(err)
}
