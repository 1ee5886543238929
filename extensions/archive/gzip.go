package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// gzipLevel and gzipBlock are fixed, so that the same layer gives the same blob
// on every machine with this version. Level 1 is several times as fast as level
// 6, at about 5 % more bytes. Blocks know nothing of each other, which costs
// half a percent more, and saves what the next one would learn of the last.
const (
	gzipLevel = 1
	gzipBlock = 256 << 10
)

// gzipHeader is that of RFC 1952 without name, time or system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

// gzipPool compresses the blocks of all layers that are on their way, in all
// requests together, so that more of them take no more memory than what each
// has not filled yet:
//
//	Write ─> block ─┐                        ┌─> its turn ─> w
//	Write ─> block ─┼─> places ─> encoders ──┼─> its turn ─> w
//	Write ─> block ─┘  (a few)   (one a core) └─> its turn ─> w
//
// The zero value is ready.
type gzipPool struct {
	once     sync.Once
	places   chan struct{}      // holds one for each block between Write and w
	encoders chan *flate.Writer // nil is one that is not made yet
	blocks   sync.Pool
}

// gzipJob is a block on its way.
type gzipJob struct {
	in   []byte
	out  []byte
	last bool
	err  error
	done chan struct{} // holds one when the block is compressed
}

func (p *gzipPool) init() {
	n := runtime.GOMAXPROCS(0)
	p.places = make(chan struct{}, n+2)
	p.encoders = make(chan *flate.Writer, n)
	for range n {
		p.encoders <- nil
	}
	p.blocks.New = func() any {
		const stored = 1 << 10 // what does not compress is a little longer
		return &gzipJob{in: make([]byte, 0, gzipBlock), out: make([]byte, 0, gzipBlock+stored), done: make(chan struct{}, 1)}
	}
}

// writer returns a packer to w.
func (p *gzipPool) writer(w io.Writer) *gzipWriter {
	p.once.Do(p.init)
	z := &gzipWriter{pool: p, w: w, queue: make(chan *gzipJob, cap(p.places)), ended: make(chan struct{})}
	go z.drain()
	return z
}

// Write takes what an encoder makes of the block.
func (j *gzipJob) Write(p []byte) (int, error) {
	j.out = append(j.out, p...)
	return len(p), nil
}

// compress is what an encoder does.
func (p *gzipPool) compress(j *gzipJob) {
	z := <-p.encoders
	defer func() { p.encoders <- z; j.done <- struct{}{} }()
	j.out = j.out[:0]
	if z == nil {
		if z, j.err = flate.NewWriter(j, gzipLevel); j.err != nil {
			return
		}
	} else {
		z.Reset(j)
	}
	if _, j.err = z.Write(j.in); j.err != nil {
		return
	}
	if j.last {
		j.err = z.Close()
	} else {
		j.err = z.Flush()
	}
}

// gzipWriter is one layer that is compressed. Write, close and abort are one
// goroutine's.
type gzipWriter struct {
	pool  *gzipPool
	w     io.Writer
	block *gzipJob // being filled; nil where nothing is
	queue chan *gzipJob
	ended chan struct{} // closed when drain has ended
	crc   uint32
	size  uint32

	mu  sync.Mutex
	err error // the first of w, or of an encoder
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
		if z.block == nil {
			z.block = z.pool.blocks.Get().(*gzipJob)
			z.block.in, z.block.last, z.block.err = z.block.in[:0], false, nil
		}
		n := min(len(rest), gzipBlock-len(z.block.in))
		z.block.in = append(z.block.in, rest[:n]...)
		rest = rest[n:]
		if len(z.block.in) == gzipBlock {
			z.submit()
		}
	}
	return len(p), nil
}

// submit sends the block on its way, when there is a place.
func (z *gzipWriter) submit() {
	j := z.block
	z.block = nil
	z.pool.places <- struct{}{}
	z.queue <- j
	go z.pool.compress(j)
}

// drain writes the blocks in their order.
func (z *gzipWriter) drain() {
	defer close(z.ended)
	if _, err := z.w.Write(gzipHeader); err != nil {
		z.fail(err)
	}
	for j := range z.queue {
		<-j.done
		if j.err != nil {
			z.fail(fmt.Errorf("compress: %w", j.err))
		}
		if z.failed() == nil {
			if _, err := z.w.Write(j.out); err != nil {
				z.fail(err)
			}
		}
		<-z.pool.places
		z.pool.blocks.Put(j)
	}
}

// end waits until nothing of the layer is on its way.
func (z *gzipWriter) end() {
	close(z.queue)
	<-z.ended
}

func (z *gzipWriter) close() error {
	if z.block == nil {
		z.block = z.pool.blocks.Get().(*gzipJob)
		z.block.in, z.block.err = z.block.in[:0], nil
	}
	z.block.last = true
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
	if z.block != nil {
		z.pool.blocks.Put(z.block)
	}
	z.fail(errAborted)
	z.end()
}
