package archive

import "hash/maphash"

// nameSet is a set of names of which some are marked. It keeps a hash of each,
// in some 16 bytes of memory, since a root file system may have millions; the seed
// is secret, so nobody makes two names fall together.
type nameSet struct {
	seed  maphash.Seed
	slots []uint64 // open addressing; 0 is free, the lowest bit is the mark
	n     int
}

func newNameSet() *nameSet {
	return &nameSet{seed: maphash.MakeSeed(), slots: make([]uint64, 64)}
}

// sum is never 0, and has no mark.
func (s *nameSet) sum(name string) uint64 { return max(maphash.String(s.seed, name)&^1, 2) }

// slot is where a sum is, or belongs.
func (s *nameSet) slot(sum uint64) *uint64 {
	last := uint64(len(s.slots)) - 1 // a power of two less one
	for i := sum >> 1 & last; ; i = (i + 1) & last {
		if at := &s.slots[i]; *at == 0 || *at&^1 == sum {
			return at
		}
	}
}

// add adds a name; a mark stays.
func (s *nameSet) add(name string, mark bool) {
	if s.n >= len(s.slots)/4*3 {
		old := s.slots
		s.slots = make([]uint64, 2*len(old))
		for _, v := range old {
			if v != 0 {
				*s.slot(v &^ 1) = v
			}
		}
	}
	at := s.slot(s.sum(name))
	if *at == 0 {
		*at = s.sum(name)
		s.n++
	}
	if mark {
		*at |= 1
	}
}

func (s *nameSet) has(name string) bool { return *s.slot(s.sum(name)) != 0 }

func (s *nameSet) marked(name string) bool { return *s.slot(s.sum(name))&1 != 0 }
