package scan

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// RPM keeps its packages in one of three databases: Berkeley DB (Packages,
// until RHEL 8), its own ndb (Packages.db, SUSE), SQLite (rpmdb.sqlite, since
// Fedora 33 and RHEL 9). In each a package is one value, its header:
//
//	number of entries, size of the store    4 bytes each, big endian
//	entries: tag, type, offset, count       4 bytes each
//	store
//
// https://rpm-software-management.github.io/rpm/manual/format_header.html
const (
	rpmName    = 1000
	rpmVersion = 1001
	rpmRelease = 1002
	rpmEpoch   = 1003

	rpmTypeInt32  = 4
	rpmTypeString = 6
)

// rpmHead is as much of a header as is looked at: entries are sorted by their
// tags, and name, version and release come first in the store.
const rpmHead = 8 << 10

// rpmPackage reads the beginning of a header.
func rpmPackage(b []byte) (p Package, ok bool) {
	if len(b) < 8 {
		return p, false
	}
	entries := uint64(binary.BigEndian.Uint32(b))
	store := 8 + 16*entries
	if store > uint64(len(b)) {
		return p, false
	}
	var release, epoch string
	for at := uint64(8); at < store; at += 16 {
		tag, kind := binary.BigEndian.Uint32(b[at:]), binary.BigEndian.Uint32(b[at+4:])
		value := store + uint64(binary.BigEndian.Uint32(b[at+8:]))
		if value >= uint64(len(b)) {
			continue
		}
		v := b[value:]
		switch {
		case tag == rpmEpoch && kind == rpmTypeInt32 && len(v) >= 4:
			epoch = strconv.FormatUint(uint64(binary.BigEndian.Uint32(v)), 10) + ":"
		case kind != rpmTypeString:
		case tag == rpmName:
			p.Name = word(cString(v))
		case tag == rpmVersion:
			p.Version = word(cString(v))
		case tag == rpmRelease:
			release = word(cString(v))
		}
	}
	p.Version = epoch + p.Version
	if release != "" {
		p.Version += "-" + release
	}
	return p, p.Name != ""
}

func cString(b []byte) []byte {
	s, _, _ := bytes.Cut(b, []byte{0})
	return s
}

// pages is a writer that gives out pieces of equal size. The first write of
// size bytes is answered by the function's first call, which says the size.
type pages struct {
	size int // of a page; 0 until first has told it
	n    int // pages that passed
	buf  []byte
	// first reads the beginning of the file and returns the size of its
	// pages, 0 for a file that is something else.
	first func(b []byte) int
	page  func(n int, b []byte)
	bad   bool
}

const pagesHead = 512

func (w *pages) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && !w.bad {
		want := max(w.size, pagesHead)
		take := min(len(p), want-len(w.buf))
		w.buf, p = append(w.buf, p[:take]...), p[take:]
		if len(w.buf) < want {
			break
		}
		if w.size == 0 {
			if w.size = w.first(w.buf); w.size < pagesHead {
				w.bad = true
				break
			}
			if len(w.buf) < w.size {
				continue
			}
		}
		w.page(w.n, w.buf)
		w.n++
		w.buf = w.buf[:0]
	}
	return n, nil
}

// bdbReader reads a hash database of Berkeley DB as it passes. Each page tells
// what it is: the hash's pages have the numbers of the pages at which values
// begin, and those have the beginning of the value.
type bdbReader struct {
	pages
	order  binary.ByteOrder
	values map[uint32]bool    // pages at which values begin, by the hash
	heads  map[uint32]Package // what such pages have
}

const (
	bdbHashMagic = 0x061561
	bdbHeader    = 26 // bytes of a page's header

	bdbHashUnsorted = 2
	bdbOverflow     = 7
	bdbHash         = 13
	bdbOffPage      = 3 // a value that is on pages of its own
)

func (r *bdbReader) Write(p []byte) (int, error) {
	if r.first == nil {
		r.first, r.page = r.meta, r.look
		r.values, r.heads = map[uint32]bool{}, map[uint32]Package{}
	}
	return r.pages.Write(p)
}

func (r *bdbReader) meta(b []byte) int {
	switch {
	case binary.LittleEndian.Uint32(b[12:]) == bdbHashMagic:
		r.order = binary.LittleEndian
	case binary.BigEndian.Uint32(b[12:]) == bdbHashMagic:
		r.order = binary.BigEndian
	default:
		return 0
	}
	size := r.order.Uint32(b[20:])
	if size > 64<<10 || size&(size-1) != 0 {
		return 0
	}
	return int(size)
}

func (r *bdbReader) look(n int, b []byte) {
	switch b[25] {
	case bdbHash, bdbHashUnsorted:
		entries := int(r.order.Uint16(b[20:]))
		for i := 1; i < entries && bdbHeader+2*i+2 <= len(b) && len(r.values) < maxPackages; i += 2 { // keys and values in turn
			at := int(r.order.Uint16(b[bdbHeader+2*i:]))
			if at+12 <= len(b) && b[at] == bdbOffPage {
				r.values[r.order.Uint32(b[at+4:])] = true
			}
		}
	case bdbOverflow:
		if previous := r.order.Uint32(b[12:]); previous == 0 && len(r.heads) < maxPackages {
			if p, ok := rpmPackage(b[bdbHeader:]); ok {
				r.heads[uint32(n)] = p //nolint:gosec // a number of a page
			}
		}
	}
}

func (r *bdbReader) finish(m *Mark) bool {
	if r.bad || r.size == 0 {
		return unread{}.finish(m)
	}
	var list []Package
	for page := range r.values {
		if p, ok := r.heads[page]; ok {
			list = append(list, p)
		}
	}
	m.Packages = pack(len(r.values), sorted(list))
	return true
}

// ndbReader reads RPM's own database as it passes: pages of slots, which say
// where packages begin, and then the packages.
type ndbReader struct {
	pages
	slots int             // pages of slots
	at    map[uint64]bool // where packages begin, in blocks of 16 bytes
	list  list
	head  []byte // of a package that goes over the end of a page
}

const ndbPage = 4 << 10

func (r *ndbReader) Write(p []byte) (int, error) {
	if r.first == nil {
		r.first, r.page, r.at = r.meta, r.look, map[uint64]bool{}
	}
	return r.pages.Write(p)
}

func (r *ndbReader) meta(b []byte) int {
	slots := binary.LittleEndian.Uint32(b[12:])
	if string(b[:4]) != "RpmP" || slots == 0 || slots > 2048 {
		return 0
	}
	r.slots = int(slots)
	return ndbPage
}

func (r *ndbReader) look(n int, b []byte) {
	if n < r.slots {
		for at := 0; at < len(b); at += 16 {
			if string(b[at:at+4]) == "Slot" && binary.LittleEndian.Uint32(b[at+4:]) != 0 {
				r.at[uint64(binary.LittleEndian.Uint32(b[at+8:]))] = true
			}
		}
		return
	}
	if r.head != nil {
		r.take(append(r.head, b...))
		r.head = nil
	}
	for at := 0; at < len(b); at += 16 {
		if !r.at[uint64(n)*ndbPage/16+uint64(at)/16] || string(b[at:at+4]) != "BlbS" { //nolint:gosec // n and at are not negative
			continue
		}
		if len(b)-at < rpmHead && r.head == nil && !r.take(b[at:]) {
			r.head = bytes.Clone(b[at:])
		}
	}
}

// take reads a package with its header of 16 bytes.
func (r *ndbReader) take(b []byte) bool {
	p, ok := rpmPackage(b[16:])
	if ok && len(r.list.packages) < maxPackages {
		r.list.packages = append(r.list.packages, p)
	}
	return ok
}

func (r *ndbReader) finish(m *Mark) bool {
	if r.bad || r.size == 0 {
		return unread{}.finish(m)
	}
	if rest := r.buf; len(rest) > 0 { // the last page may be a part of one
		r.look(r.n, append(rest, make([]byte, ndbPage-len(rest))...))
	}
	m.Packages = pack(len(r.at), sorted(r.list.packages))
	return true
}
