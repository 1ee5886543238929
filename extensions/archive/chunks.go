package archive

import (
	"fmt"
	"io"
	"runtime"
	"sync"
)

// chunk is what is compressed at once: a part of a layer that knows nothing of
// the others. That costs one or two percent of size, and the parts of a layer
// need not wait for each other.
type chunk interface {
	// Fill takes as much of p as there is room for and tells how much.
	Fill(p []byte) int
	Full() bool
	Reset()
}

// encoder compresses chunks one after the other; one goroutine's.
type encoder interface {
	// Append appends the chunk to dst; last tells that it ends the layer.
	Append(dst []byte, p chunk, last bool) []byte
}

// chunkPool compresses the chunks of all layers that are on their way, in all
// requests together, so that more of them take no more memory than what each
// has not filled yet:
//
//	Write ─> chunk ─┐                        ┌─> its turn ─> w
//	Write ─> chunk ─┼─> places ─> encoders ──┼─> its turn ─> w
//	Write ─> chunk ─┘  (a few)   (one a core) └─> its turn ─> w
//
// The same layer gives the same blob on every machine with this version.
type chunkPool struct {
	places     chan struct{} // holds one for each chunk between Write and w
	encoders   chan encoder  // nil is one that is not made yet
	newEncoder func() encoder
	jobs       sync.Pool
}

// chunkJob is a chunk on its way.
type chunkJob struct {
	in   chunk
	out  []byte
	last bool
	err  error
	done chan struct{} // holds one when the chunk is compressed
}

func newChunkPool(newChunk func() chunk, newEncoder func() encoder) *chunkPool {
	n := runtime.GOMAXPROCS(0)
	p := &chunkPool{places: make(chan struct{}, n+2), encoders: make(chan encoder, n), newEncoder: newEncoder}
	for range n {
		p.encoders <- nil
	}
	p.jobs.New = func() any { return &chunkJob{in: newChunk(), done: make(chan struct{}, 1)} }
	return p
}

// writer returns a packer to w, which gets head first.
func (p *chunkPool) writer(w io.Writer, head []byte) *chunkWriter {
	z := &chunkWriter{pool: p, w: w, queue: make(chan *chunkJob, cap(p.places)), ended: make(chan struct{})}
	go z.drain(head)
	return z
}

// compress is what an encoder does. A mistake in it, which nobody else would
// recover from here, ends one load and not the process.
func (p *chunkPool) compress(j *chunkJob) {
	z := <-p.encoders
	defer func() {
		if r := recover(); r != nil {
			z, j.err = nil, fmt.Errorf("compress: panic: %v", r)
		}
		p.encoders <- z
		j.done <- struct{}{}
	}()
	if z == nil {
		z = p.newEncoder()
	}
	j.out = z.Append(j.out[:0], j.in, j.last)
}

// chunkWriter is one layer that is compressed. Write, close and abort are one
// goroutine's.
type chunkWriter struct {
	pool  *chunkPool
	w     io.Writer
	job   *chunkJob // being filled; nil where nothing is
	queue chan *chunkJob
	ended chan struct{} // closed when drain has ended

	mu  sync.Mutex
	err error // the first of w, or of an encoder
}

func (z *chunkWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

func (z *chunkWriter) fail(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err == nil {
		z.err = err
	}
}

// Write takes p; an error of the writer behind it can come later.
func (z *chunkWriter) Write(p []byte) (int, error) {
	if err := z.failed(); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		j := z.filling()
		rest = rest[j.in.Fill(rest):]
		if j.in.Full() {
			z.submit()
		}
	}
	return len(p), nil
}

// filling returns the chunk that is being filled.
func (z *chunkWriter) filling() *chunkJob {
	if z.job == nil {
		z.job = z.pool.jobs.Get().(*chunkJob)
		z.job.in.Reset()
		z.job.last, z.job.err = false, nil
	}
	return z.job
}

// submit sends the chunk on its way, when there is a place.
func (z *chunkWriter) submit() {
	j := z.job
	z.job = nil
	z.pool.places <- struct{}{}
	z.queue <- j
	go z.pool.compress(j)
}

// drain writes head and the chunks in their order.
func (z *chunkWriter) drain(head []byte) {
	defer close(z.ended)
	if _, err := z.w.Write(head); err != nil {
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
func (z *chunkWriter) end() {
	close(z.queue)
	<-z.ended
}

func (z *chunkWriter) close() error {
	z.filling().last = true
	z.submit()
	z.end()
	return z.failed()
}

func (z *chunkWriter) abort() {
	if z.job != nil {
		z.pool.jobs.Put(z.job)
		z.job = nil
	}
	z.fail(errAborted)
	z.end()
}
