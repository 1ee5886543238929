package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/tarport/tarport/internal/deflate"
)

// gzipHeader is that of RFC 1952 without name, time or system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

// gzipPool compresses pieces, which know nothing of each other: that costs half
// a percent of size, and they need not wait for each other. The same layer gives
// the same blob on every machine with this version.
//
// It compresses the pieces of all layers that are on their way, in all
// requests together, so that more of them take no more memory than what each
// has not filled yet:
//
//	Write ─> piece ─┐                        ┌─> its turn ─> w
//	Write ─> piece ─┼─> places ─> encoders ──┼─> its turn ─> w
//	Write ─> piece ─┘  (a few)   (one a core) └─> its turn ─> w
//
// The zero value is ready.
type gzipPool struct {
	once     sync.Once
	places   chan struct{}         // holds one for each piece between Write and w
	encoders chan *deflate.Encoder // nil is one that is not made yet
	jobs     sync.Pool
}

// gzipJob is a piece on its way.
type gzipJob struct {
	in   deflate.Piece
	out  []byte
	last bool
	err  error
	done chan struct{} // holds one when the piece is compressed
}

func (p *gzipPool) init() {
	n := runtime.GOMAXPROCS(0)
	p.places = make(chan struct{}, n+2)
	p.encoders = make(chan *deflate.Encoder, n)
	for range n {
		p.encoders <- nil
	}
	p.jobs.New = func() any {
		const more = 1 << 10 // what does not compress is a little longer
		return &gzipJob{out: make([]byte, 0, deflate.MaxPiece+more), done: make(chan struct{}, 1)}
	}
}

// writer returns a packer to w.
func (p *gzipPool) writer(w io.Writer) *gzipWriter {
	p.once.Do(p.init)
	z := &gzipWriter{pool: p, w: w, queue: make(chan *gzipJob, cap(p.places)), ended: make(chan struct{})}
	go z.drain()
	return z
}

// compress is what an encoder does. A mistake in it, which nobody else would
// recover from here, ends one load and not the process.
func (p *gzipPool) compress(j *gzipJob) {
	z := <-p.encoders
	defer func() {
		if r := recover(); r != nil {
			z, j.err = nil, fmt.Errorf("compress: panic: %v", r)
		}
		p.encoders <- z
		j.done <- struct{}{}
	}()
	if z == nil {
		z = new(deflate.Encoder)
	}
	j.out = z.Append(j.out[:0], &j.in, j.last)
}

// gzipWriter is one layer that is compressed. Write, close and abort are one
// goroutine's.
type gzipWriter struct {
	pool  *gzipPool
	w     io.Writer
	job   *gzipJob // being filled; nil where nothing is
	queue chan *gzipJob
	ended chan struct{} // closed when drain has ended
	crc   uint32
	size  uint32

	mu  sync.Mutex
	err error // the first of w
}

func (z *gzipWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

func (z *gzipWriter) fail(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err == nil {
		z.err = err
	}
}

// Write takes p; an error of the writer behind it can come later.
func (z *gzipWriter) Write(p []byte) (int, error) {
	if err := z.failed(); err != nil {
		return 0, err
	}
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(len(p)) //nolint:gosec // RFC 1952: modulo 2^32
	for rest := p; len(rest) > 0; {
		j := z.filling()
		rest = rest[j.in.Fill(rest):]
		if j.in.Full() {
			z.submit()
		}
	}
	return len(p), nil
}

// filling returns the piece that is being filled.
func (z *gzipWriter) filling() *gzipJob {
	if z.job == nil {
		z.job = z.pool.jobs.Get().(*gzipJob)
		z.job.in.Reset()
		z.job.last, z.job.err = false, nil
	}
	return z.job
}

// submit sends the piece on its way, when there is a place.
func (z *gzipWriter) submit() {
	j := z.job
	z.job = nil
	z.pool.places <- struct{}{}
	z.queue <- j
	go z.pool.compress(j)
}

// drain writes the pieces in their order.
func (z *gzipWriter) drain() {
	defer close(z.ended)
	if _, err := z.w.Write(gzipHeader); err != nil {
		z.fail(err)
	}
	for j := range z.queue {
		<-j.done
		if j.err != nil {
			z.fail(j.err)
		}
		if z.failed() == nil {
			if _, err := z.w.Write(j.out); err != nil {
				z.fail(err)
			}
		}
		<-z.pool.places
		z.pool.jobs.Put(j)
	}
}

// end waits until nothing of the layer is on its way.
func (z *gzipWriter) end() {
	close(z.queue)
	<-z.ended
}

func (z *gzipWriter) close() error {
	z.filling().last = true
	z.submit()
	z.end()
	if err := z.failed(); err != nil {
		return err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, z.crc)
	_, err := z.w.Write(binary.LittleEndian.AppendUint32(trailer, z.size))
	return err
}

func (z *gzipWriter) abort() {
	if z.job != nil {
		z.pool.jobs.Put(z.job)
		z.job = nil
	}
	z.fail(errAborted)
	z.end()
}
