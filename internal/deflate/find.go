package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	hashBits = 13 // a table of 16 KiB stays in the nearest cache
	behind   = 8  // a match begins at so many bytes at least, to be compared backwards
	ahead    = 32 // and as many before the end, to be compared forwards
	stride   = 16 // literals are copied in steps of so many bytes
)

// buffer is read at masked places only, so that reading needs no check, and
// cannot leave it either way.
type buffer [MaxPiece + stride]byte

func (b *buffer) load64(at int) uint64 { return binary.LittleEndian.Uint64(b[at&(MaxPiece-1):]) }
func (b *buffer) load32(at int) uint32 { return binary.LittleEndian.Uint32(b[at&(MaxPiece-1):]) }

// match is literals and the repetition that follows them, packed, so that many
// fit the cache: from bit 32 on how many literals, from 21 the length, from 16
// the symbol of the distance, and below the distance less one.
type match uint64

// finder looks for repetitions with a table of where the last 5 bytes of the
// same hash were.
//
// What such a search costs is less the work than the branches that no processor
// foresees, each of them worth some thirty instructions. So two places are
// looked at for one branch; whether a candidate is valid is computed and not
// asked; a match grows backwards without a loop; and literals are put aside, to
// be counted and written without asking where they came from. For the same
// reason arrays have a power of two of places.
type finder struct {
	table [1 << hashBits]uint16 // by hash: the place, modulo 2^16

	// of the block
	matches  [blockSize / 2]match
	n        int
	literals [blockSize + stride]byte // those of the matches, then those behind the last
	nLit     int
	litFreq  [512]uint32
	lenFreq  [512]uint32
	distFreq [32]uint32
}

// reset forgets the last piece: what is made of one must not depend on another.
func (f *finder) reset() { clear(f.table[:]) }

func hash(u uint64) uint64 { return u << 24 * 889523592379 >> (64 - hashBits) }

// bad is 0 if the 4 bytes at c, which is d before the place of u, are the lower
// ones of u, and a match can be there: from behind on, 1 to 32 Ki before.
func bad(src *buffer, u uint64, c, d int) uint64 {
	differ := uint64(src.load32(c) ^ uint32(u))
	return differ | uint64(int64(d-1))>>windowBits | uint64(int64(c-behind))>>63
}

// block makes matches of src[from:end]; what is before can be repeated.
func (f *finder) block(src *buffer, from, end int) {
	f.n, f.nLit = 0, 0
	clear(f.litFreq[:])
	clear(f.lenFreq[:])
	clear(f.distFreq[:])
	next := from // what is not taken yet begins here
	for s := max(from, behind); s < end-ahead; {
		u := src.load64(s)
		h0, h1 := hash(u), hash(u>>8)
		d := int(uint16(s) - f.table[h0])
		f.table[h0] = uint16(s)
		d1 := int(uint16(s+1) - f.table[h1])
		f.table[h1] = uint16(s + 1)
		b0 := bad(src, u, s-d, d)
		b1 := bad(src, u>>8, s+1-d1, d1)
		if b0 != 0 && b1 != 0 {
			s += 3 + (s-next)>>5 // in longer steps where nothing repeats
			continue
		}
		if b0 != 0 {
			s++
			d = d1
		}
		s = f.add(src, next, s, d, end)
		next = s
		if s < end-ahead {
			f.table[hash(src.load64(s-2))] = uint16(s - 2)
		}
	}
	f.nLit += copy(f.literals[f.nLit:], src[next:end])
	f.count()
}

// add takes the literals from next on and, at s, what was d before, which is 4
// bytes at least. It returns the first place behind.
func (f *finder) add(src *buffer, next, s, d, limit int) int {
	c := s - d
	n := 4
	if x := src.load64(s+4) ^ src.load64(c+4); x != 0 {
		n += bits.TrailingZeros64(x) >> 3
	} else {
		n = same(src, s, c, limit)
	}
	back := min(bits.LeadingZeros64(src.load64(s-8)^src.load64(c-8))>>3, s-next)
	s -= back
	n += back
	end := s + n

	lit := s - next
	for from, to := next, f.nLit; ; {
		*(*[stride]byte)(f.literals[to&(blockSize-1):]) = [stride]byte(src[from&(MaxPiece-1):])
		from, to = from+stride, to+stride
		if from >= s {
			break
		}
	}
	f.nLit += lit

	sym := distSymbol(d) & 31
	m := match(sym<<16 | (d - 1))
	for n > maxMatch {
		part := min(maxMatch, n-minMatch)
		f.put(m, lit, part, sym)
		lit = 0
		n -= part
	}
	f.put(m, lit, n, sym)
	return end
}

func (f *finder) put(m match, lit, n, sym int) {
	f.distFreq[sym&31]++
	f.lenFreq[n&511]++
	f.matches[f.n&(len(f.matches)-1)] = m | match(lit)<<32 | match(n)<<21
	f.n++
}

// same returns how many bytes before end are the same at s and at c; 12 are.
func same(src *buffer, s, c, end int) int {
	n := 12
	for s+n+8 <= end {
		if x := src.load64(s+n) ^ src.load64(c+n); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
		n += 8
	}
	for s+n < end && src[s+n] == src[c+n] {
		n++
	}
	return n
}

// count counts the literals, in four tables: the same byte again need not wait.
func (f *finder) count() {
	var t [3][256]uint32
	lits := f.literals[:f.nLit]
	for ; len(lits) >= 8; lits = lits[8:] {
		x := binary.LittleEndian.Uint64(lits)
		f.litFreq[x&0xff]++
		t[0][x>>8&0xff]++
		t[1][x>>16&0xff]++
		t[2][x>>24&0xff]++
		f.litFreq[x>>32&0xff]++
		t[0][x>>40&0xff]++
		t[1][x>>48&0xff]++
		t[2][x>>56]++
	}
	for _, b := range lits {
		f.litFreq[b]++
	}
	for b := range t[0] {
		f.litFreq[b] += t[0][b] + t[1][b] + t[2][b]
	}
}
