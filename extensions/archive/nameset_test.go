package archive

import (
	"strconv"
	"testing"
)

func TestNameSet(t *testing.T) {
	t.Parallel()
	s := newNameSet()
	const n = 100_000
	for i := range n {
		s.add(strconv.Itoa(i), i%3 == 0)
		s.add(strconv.Itoa(i), false)
	}
	if s.n != n || len(s.slots) > 2*n*4/3 {
		t.Errorf("%d names in %d slots, want %d in few", s.n, len(s.slots), n)
	}
	for i := range 2 * n {
		if name := strconv.Itoa(i); s.has(name) != (i < n) || s.marked(name) != (i < n && i%3 == 0) {
			t.Fatalf("has(%q), marked = %v, %v", name, s.has(name), s.marked(name))
		}
	}
}
