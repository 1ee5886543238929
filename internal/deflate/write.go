package deflate

import (
	"encoding/binary"
	"slices"
)

// bitWriter appends bits to out. Before it writes, there must be room: grow.
type bitWriter struct {
	out  []byte
	bits uint64 // what does not fill a byte yet
	n    uint   // of them: 0 to 7
}

// grow makes room for n bytes and what put and body write beyond.
func (w *bitWriter) grow(n int) { w.out = slices.Grow(w.out, n+8) }

// put writes the lower n bits of v, of at most 56; the others are 0.
func (w *bitWriter) put(v uint64, n uint) {
	w.bits |= v << w.n
	w.n += n
	at := len(w.out)
	binary.LittleEndian.PutUint64(w.out[at:at+8], w.bits)
	w.out = w.out[:at+int(w.n>>3)]
	w.bits >>= w.n &^ 7
	w.n &= 7
}

// align ends the byte.
func (w *bitWriter) align() {
	if w.n > 0 {
		w.put(0, 8-w.n)
	}
}

// body writes the block's literals and matches and its end. The bits wait in
// acc, the lower n of it; what is full goes out by writing all 8 bytes and going
// on behind those that count.
func (c *codes) body(w *bitWriter, f *finder) {
	out, at, acc, n := w.out[:cap(w.out)], len(w.out), w.bits, w.n
	i := 0 // in the literals
	for _, m := range f.matches[:f.n] {
		run := int(m >> 32)
		for {
			// Four at a time; what is too many has no bits.
			x := binary.LittleEndian.Uint32(f.literals[i&(blockSize-1):])
			c0, c1, c2, c3 := c.lit[x&0xff], c.lit[x>>8&0xff], c.lit[x>>16&0xff], c.lit[x>>24]
			if run < 4 {
				c3 = 0
				if run < 3 {
					c2 = 0
				}
				if run < 2 {
					c1 = 0
				}
				if run < 1 {
					c0 = 0
				}
			}
			acc |= c0.bits() << (n & 63)
			n += c0.size()
			acc |= c1.bits() << (n & 63)
			n += c1.size()
			acc |= c2.bits() << (n & 63)
			n += c2.size()
			acc |= c3.bits() << (n & 63)
			n += c3.size()
			binary.LittleEndian.PutUint64(out[at:], acc)
			at += int(n >> 3)
			acc >>= n & 56
			n &= 7
			if run <= 4 {
				i += run
				break
			}
			i += 4
			run -= 4
		}
		l := c.len[m>>21&0x1ff]
		acc |= l.bits() << (n & 63)
		n += l.size()
		sym := m >> 16 & 0x1f
		d := c.dist[sym]
		acc |= d.bits() << (n & 63)
		n += d.size()
		extra := distExtra[sym]
		acc |= uint64(m) & (1<<(extra&63) - 1) << (n & 63)
		n += uint(extra)
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(n >> 3)
		acc >>= n & 56
		n &= 7
	}
	w.out, w.bits, w.n = out[:at], acc, n
	for _, b := range f.literals[i:f.nLit] {
		w.put(c.lit[b].bits(), c.lit[b].size())
	}
	w.put(c.lit[endBlock].bits(), c.lit[endBlock].size())
}
