package deflate

import "math/bits"

const (
	litBits  = 12 // of a code of a literal or length: four fit between two writes
	distBits = 12
	metaBits = 7 // RFC 1951 section 3.2.7: of a code of a code's length
	metaSyms = 19
)

// code is a Huffman code, reversed, as it is written, with what follows it: from
// bit 8 on. The lower 8 bits are how many bits it has.
type code uint32

func (c code) bits() uint64 { return uint64(c >> 8) }
func (c code) size() uint   { return uint(c & 0xff) }

// codes are the Huffman codes of a block.
type codes struct {
	lit  [litSyms]code
	len  [512]code // by length, with the extra bits
	dist [32]code

	huffman  huffman
	litLen   [litSyms]uint8
	distLen  [distSyms]uint8
	nLit     int // symbols whose lengths are written
	nDist    int
	metaLen  [metaSyms]uint8
	nMeta    int
	meta     [litSyms + distSyms]uint16 // symbols of code lengths, with their extra bits from bit 8 on
	nSymbols int
}

// The tables of RFC 1951 section 3.2.5.
var (
	lenSymbol [maxMatch + 1]uint8 // less 257
	lenBase   [litSyms - lengths]uint16
	lenExtra  [litSyms - lengths]uint8
	distExtra [32]uint8
)

func init() {
	n := minMatch
	for i := range lenBase {
		if i >= 8 {
			lenExtra[i] = uint8(i/4 - 1)
		}
		lenBase[i] = uint16(n)
		for range 1 << lenExtra[i] {
			if n <= maxMatch {
				lenSymbol[n] = uint8(i)
			}
			n++
		}
	}
	last := len(lenBase) - 1 // 258 has a symbol of its own
	lenBase[last], lenExtra[last], lenSymbol[maxMatch] = maxMatch, 0, uint8(last)
	for i := range distSyms {
		distExtra[i] = uint8(max(0, i/2-1))
	}
}

// distSymbol returns the symbol of a distance (RFC 1951 section 3.2.5): two for
// each power of two.
func distSymbol(d int) int {
	d--
	if d < 4 {
		return d
	}
	n := bits.Len(uint(d)) - 2
	return 2*n + d>>n
}

// metaOrder is that of RFC 1951 section 3.2.7.
var metaOrder = [metaSyms]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

var metaExtra = [metaSyms]uint{16: 2, 17: 3, 18: 7}

// make makes the codes for what was found and returns how many bits the block
// has with them.
func (c *codes) make(f *finder) (size int) {
	f.litFreq[endBlock] = 1
	for n, count := range f.lenFreq[:maxMatch+1] {
		if count != 0 {
			f.litFreq[lengths+int(lenSymbol[n])] += count
		}
	}
	c.huffman.lengths(c.litLen[:], f.litFreq[:litSyms], litBits)
	c.huffman.lengths(c.distLen[:], f.distFreq[:distSyms], distBits)
	assign(c.lit[:], c.litLen[:])
	assign(c.dist[:distSyms], c.distLen[:])
	for n := minMatch; n <= maxMatch; n++ {
		i := lenSymbol[n]
		l := c.lit[lengths+int(i)]
		extra := code(n - int(lenBase[i]))
		c.len[n] = (l>>8|extra<<(l&0xff))<<8 | (l&0xff + code(lenExtra[i]))
	}
	size = c.planHeader()
	for sym, count := range f.litFreq[:litSyms] {
		n := int(c.litLen[sym])
		if sym >= lengths {
			n += int(lenExtra[sym-lengths])
		}
		size += n * int(count)
	}
	for sym, count := range f.distFreq[:distSyms] {
		size += (int(c.distLen[sym]) + int(distExtra[sym])) * int(count)
	}
	return size
}

// planHeader packs the lengths of the codes and returns the header's bits (RFC
// 1951 section 3.2.7).
func (c *codes) planHeader() (size int) {
	c.nLit, c.nDist = litSyms, distSyms
	for c.nLit > lengths && c.litLen[c.nLit-1] == 0 {
		c.nLit--
	}
	for c.nDist > 1 && c.distLen[c.nDist-1] == 0 {
		c.nDist--
	}
	var all [litSyms + distSyms]uint8
	n := copy(all[:], c.litLen[:c.nLit])
	n += copy(all[n:], c.distLen[:c.nDist])
	freq := c.pack(all[:n])
	c.huffman.lengths(c.metaLen[:], freq[:], metaBits)
	c.nMeta = metaSyms
	for c.nMeta > 4 && c.metaLen[metaOrder[c.nMeta-1]] == 0 {
		c.nMeta--
	}
	size = 3 + 5 + 5 + 4 + 3*c.nMeta
	for sym, count := range freq {
		size += (int(c.metaLen[sym]) + int(metaExtra[sym])) * int(count)
	}
	return size
}

// pack makes symbols of lens, with runs of the same length as one symbol, and
// counts them.
func (c *codes) pack(lens []uint8) (freq [metaSyms]uint32) {
	c.nSymbols = 0
	add := func(sym, extra int) {
		c.meta[c.nSymbols] = uint16(extra<<8 | sym)
		c.nSymbols++
		freq[sym]++
	}
	for len(lens) > 0 {
		v, n := lens[0], 1
		for n < len(lens) && lens[n] == v {
			n++
		}
		lens = lens[n:]
		if v != 0 {
			add(int(v), 0)
			n--
		}
		for n >= 3 {
			switch {
			case v != 0:
				m := min(n, 6)
				add(16, m-3)
				n -= m
			case n <= 10:
				add(17, n-3)
				n = 0
			default:
				m := min(n, 138)
				add(18, m-11)
				n -= m
			}
		}
		for ; n > 0; n-- {
			add(int(v), 0)
		}
	}
	return freq
}

// header writes what planHeader has planned.
func (c *codes) header(w *bitWriter, last bool) {
	w.put(flag(last)|2<<1, 3)
	w.put(uint64(c.nLit-lengths), 5)
	w.put(uint64(c.nDist-1), 5)
	w.put(uint64(c.nMeta-4), 4)
	for _, sym := range metaOrder[:c.nMeta] {
		w.put(uint64(c.metaLen[sym]), 3)
	}
	var meta [metaSyms]code
	assign(meta[:], c.metaLen[:])
	for _, s := range c.meta[:c.nSymbols] {
		sym := s & 0xff
		w.put(meta[sym].bits(), meta[sym].size())
		w.put(uint64(s>>8), metaExtra[sym])
	}
}

// assign makes the codes of their lengths (RFC 1951 section 3.2.2).
func assign(to []code, lens []uint8) {
	var count, next [16]uint32
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	for n := 1; n < len(next); n++ {
		next[n] = (next[n-1] + count[n-1]) << 1
	}
	for i, n := range lens {
		to[i] = 0
		if n != 0 {
			to[i] = code(bits.Reverse32(next[n])>>(32-n)<<8 | uint32(n))
			next[n]++
		}
	}
}
