package deflate

import "slices"

// huffman finds how long codes must be. It holds what that needs.
type huffman struct {
	keys [litSyms]uint64
	tree [litSyms]uint32
}

// lengths sets to to the lengths of the codes of the symbols that freq counts,
// at most limit bits each; 0 where there is none of a symbol. At least two get a
// code: some decoders take no set of codes that is not complete.
func (h *huffman) lengths(to []uint8, freq []uint32, limit int) {
	clear(to)
	keys := h.keys[:0]
	for sym, n := range freq {
		if n != 0 {
			keys = append(keys, uint64(n)<<16|uint64(sym))
		}
	}
	if len(keys) < 2 {
		to[0], to[1] = 1, 1
		if len(keys) == 1 && keys[0]&0xffff > 1 {
			to[1], to[keys[0]&0xffff] = 0, 1
		}
		return
	}
	slices.Sort(keys)
	count := h.depths(keys)
	limitDepths(&count, limit)
	i := 0
	for n := limit; n > 0; n-- {
		for range count[n] {
			to[keys[i]&0xffff] = uint8(n)
			i++
		}
	}
}

// maxDepth is deeper than any tree of a block: a leaf at depth n needs more
// symbols in all than the n-th Fibonacci number.
const maxDepth = 32

// depths returns how many leaves a Huffman tree has at each depth, for counts in
// ascending order from bit 16 of keys on: Moffat and Katajainen, "In-Place
// Calculation of Minimum-Redundancy Codes" (1995).
func (h *huffman) depths(keys []uint64) (count [maxDepth + 1]int) {
	n := len(keys)
	a := h.tree[:n]
	for i, k := range keys {
		a[i] = uint32(k >> 16)
	}
	// Weights become parents.
	a[0] += a[1]
	root, leaf := 0, 2
	for next := 1; next < n-1; next++ {
		if leaf >= n || a[root] < a[leaf] {
			a[next], a[root] = a[root], uint32(next)
			root++
		} else {
			a[next] = a[leaf]
			leaf++
		}
		if leaf >= n || root < next && a[root] < a[leaf] {
			a[next], a[root] = a[next]+a[root], uint32(next)
			root++
		} else {
			a[next] += a[leaf]
			leaf++
		}
	}
	// Parents become depths.
	a[n-2] = 0
	for i := n - 3; i >= 0; i-- {
		a[i] = a[a[i]] + 1
	}
	// What is no inner node is a leaf.
	inner := n - 2
	for open, depth := 1, 0; open > 0; depth++ {
		used := 0
		for inner >= 0 && int(a[inner]) == depth {
			used++
			inner--
		}
		count[depth] += open - used
		open = 2 * used
	}
	return count
}

// limitDepths moves leaves up to limit, and as many others down that there is
// room for all.
func limitDepths(count *[maxDepth + 1]int, limit int) {
	for n := maxDepth; n > limit; n-- {
		count[limit] += count[n]
		count[n] = 0
	}
	room := 1 << limit
	for n := 1; n <= limit; n++ {
		room -= count[n] << (limit - n)
	}
	for ; room < 0; room++ {
		n := limit - 1
		for count[n] == 0 {
			n--
		}
		count[limit]--
		count[n]--
		count[n+1] += 2
	}
}
