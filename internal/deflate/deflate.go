// Package deflate compresses to DEFLATE (RFC 1951) at one level, a fast one,
// for layers on their way into the registry: there compression is what a load
// waits for.
//
// It is made for pieces that know nothing of each other, so it needs nothing of
// what a general encoder carries along: no window that slides, no levels, no
// state between two pieces. On layers of Debian packages it is 1.6 to 1.8 times
// as fast as level 1 of github.com/klauspost/compress/flate, which is the
// fastest of the general ones, and makes no more bytes.
package deflate

// Limits of RFC 1951, sections 3.2.3 to 3.2.5, and sizes that are ours.
const (
	// MaxPiece is how many bytes a Piece holds at most.
	MaxPiece = 256 << 10

	// blockSize is how many bytes share Huffman codes. Of less, the codes take
	// too much room; those of more fit no part of it well.
	blockSize = 128 << 10

	windowBits = 15
	window     = 1 << windowBits // the longest distance
	maxStored  = 1<<16 - 1
	minMatch   = 3
	maxMatch   = 258
	endBlock   = 256          // the symbol that ends a block
	lengths    = endBlock + 1 // the symbol of the first length
	litSyms    = 286
	distSyms   = 30
)

// Piece is what is compressed at once. The zero value is empty.
type Piece struct {
	buf buffer
	n   int
}

// Fill takes as much of src as there is room for and returns how many bytes
// that is.
func (p *Piece) Fill(src []byte) int {
	n := copy(p.buf[p.n:MaxPiece], src)
	p.n += n
	return n
}

// Full tells that there is no more room.
func (p *Piece) Full() bool { return p.n == MaxPiece }

// Reset empties the piece.
func (p *Piece) Reset() { p.n = 0 }

// Encoder compresses one piece after the other. It takes about 400 KiB and is
// one goroutine's; the zero value is ready.
type Encoder struct {
	find  finder
	codes codes
	w     bitWriter
}

// Append compresses src and returns dst with the result behind it, which is at
// most a few bytes longer than src. It ends on a byte and refers to nothing
// before it: results that follow each other are one DEFLATE stream, if last is
// true for the last one and for no other. The same piece gives the same bytes,
// on every machine.
func (e *Encoder) Append(dst []byte, src *Piece, last bool) []byte {
	e.find.reset()
	e.w = bitWriter{out: dst}
	for from := 0; from < src.n; from += blockSize {
		to := min(from+blockSize, src.n)
		e.find.block(&src.buf, from, to)
		e.block(src.buf[from:to], last && to == src.n)
	}
	switch {
	case !last:
		e.stored(nil, false) // it ends on a byte, as zlib's Z_FULL_FLUSH does
	case src.n == 0:
		e.stored(nil, true)
	}
	e.w.align()
	return e.w.out
}

// block writes what was found of src, or src itself where that is shorter.
func (e *Encoder) block(src []byte, last bool) {
	size := e.codes.make(&e.find)
	if size/8 >= len(src)+5*(1+len(src)/maxStored) {
		e.stored(src, last)
		return
	}
	e.w.grow(size/8 + 16)
	e.codes.header(&e.w, last)
	e.codes.body(&e.w, &e.find)
}

// stored writes src as it is (RFC 1951 section 3.2.4).
func (e *Encoder) stored(src []byte, last bool) {
	for {
		n := min(len(src), maxStored)
		e.w.grow(8)
		e.w.put(flag(last && n == len(src)), 3)
		e.w.align()
		e.w.out = append(e.w.out, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		e.w.out = append(e.w.out, src[:n]...)
		src = src[n:]
		if len(src) == 0 {
			return
		}
	}
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
