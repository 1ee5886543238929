package storage

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
)

// Spool is a file for what a request has to keep while it goes on, and nobody
// after it: see layer.Spool. It is for one goroutine, is not durable, counts in
// no quota, and ends with Discard. What a crash leaves of one is swept.
type Spool struct {
	s       *Store
	ctx     context.Context //nolint:containedctx // io.Writer has no other way; it is the request's
	id      string
	file    stagedFile // nil where it was opened for reading
	written int64      // in the file; what comes after it is in tail
	tail    []byte
	err     error
}

// spoolTail is how much of a Spool is in memory: what is taken back while it is
// still there costs no writing.
const spoolTail = 1 << 20

// temporary is a staged file that can be cut, and whose bytes need not be on the
// disk.
type temporary interface {
	cut(size int64) error
}

// NewSpool begins a Spool.
func (s *Store) NewSpool(ctx context.Context) (*Spool, error) {
	if err := s.disk.fits(0); err != nil {
		return nil, err
	}
	p := &Spool{s: s, ctx: ctx, id: rand.Text(), tail: make([]byte, 0, spoolTail)}
	var err error
	if p.file, err = s.files.stage(ctx, p.id, 0); err != nil {
		return nil, storageFull(fmt.Errorf("stage a temporary file: %w", err))
	}
	if f, ok := p.file.(temporary); ok {
		err = f.cut(0)
	}
	if err != nil {
		p.Discard()
		return nil, fmt.Errorf("stage a temporary file: %w", err)
	}
	return p, nil
}

// Mark is where the next byte goes.
func (p *Spool) Mark() int64 { return p.written + int64(len(p.tail)) }

// Write adds to the end.
func (p *Spool) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		if len(p.tail) == cap(p.tail) {
			if err := p.flush(); err != nil {
				return n, err
			}
		}
		k := min(len(b), cap(p.tail)-len(p.tail))
		p.tail = append(p.tail, b[:k]...)
		n, b = n+k, b[k:]
	}
	return n, nil
}

func (p *Spool) flush() error {
	if p.err == nil {
		p.err = p.s.disk.fits(int64(len(p.tail)))
	}
	if p.err == nil {
		var n int
		n, p.err = p.file.Write(p.tail)
		p.written, p.tail = p.written+int64(n), p.tail[:0]
		p.err = storageFull(p.err)
	}
	return p.err
}

// Rewind takes back what was written since Mark returned at. A storage driver
// cannot take back what has left the memory: that stays, unused, and the next
// Mark is behind it.
func (p *Spool) Rewind(at int64) error {
	if at >= p.written {
		p.tail = p.tail[:at-p.written]
		return nil
	}
	p.tail = p.tail[:0]
	f, ok := p.file.(temporary)
	if !ok {
		return nil
	}
	if err := f.cut(at); err != nil {
		return fmt.Errorf("cut a temporary file: %w", err)
	}
	p.written = at
	return nil
}

// Open ends the writing and opens the Spool for reading.
func (p *Spool) Open() (io.ReadSeekCloser, error) {
	err := p.flush()
	if _, ok := p.file.(temporary); !ok && err == nil {
		err = p.file.sync(p.ctx) // or a driver does not know the file
	}
	if cerr := p.close(); err == nil {
		err = cerr
	}
	var r io.ReadSeekCloser
	if err == nil {
		r, err = p.s.files.openStaged(p.ctx, p.id)
	}
	if err != nil {
		return nil, fmt.Errorf("read a temporary file: %w", storageFull(err))
	}
	return r, nil
}

func (p *Spool) close() error {
	if p.file == nil {
		return nil
	}
	f := p.file
	p.file = nil
	return f.Close()
}

// Discard removes the Spool. What Open returned is closed before.
func (p *Spool) Discard() {
	_ = p.close()
	_ = p.s.files.dropStaged(context.WithoutCancel(p.ctx), p.id) // a file that stays is swept later
}
