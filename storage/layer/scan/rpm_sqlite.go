package scan

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// sqliteReader keeps an SQLite database that is being read, up to
// maxRPMSqlite, and then reads the table Packages. It is a reader of hostile
// files: each page is visited once, nothing is followed out of the file.
// https://www.sqlite.org/fileformat2.html
type sqliteReader struct {
	chunks  [][]byte
	size    int
	page    int // bytes
	usable  int // of a page
	visited map[uint32]bool
	budget  int // bytes of rows that are still read: cells of hostile files overlap
	list    list
}

const (
	sqliteChunk = 1 << 20
	schemaHead  = 1 << 10 // of a row of the schema: kind, name, table, root
)

func (r *sqliteReader) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && r.size < maxRPMSqlite {
		if r.size%sqliteChunk == 0 {
			r.chunks = append(r.chunks, make([]byte, 0, sqliteChunk))
		}
		last := &r.chunks[len(r.chunks)-1]
		take := min(len(p), sqliteChunk-len(*last))
		*last, p = append(*last, p[:take]...), p[take:]
		r.size += take
	}
	return n, nil
}

func (r *sqliteReader) finish(m *Mark) bool {
	root, ok := r.open()
	if !ok {
		return unread{}.finish(m)
	}
	r.walk(root, r.header)
	m.Packages = pack(r.list.count, sorted(r.list.packages))
	return true
}

// open finds the root of the table Packages.
func (r *sqliteReader) open() (root uint32, ok bool) {
	if len(r.chunks) == 0 || len(r.chunks[0]) < 512 || string(r.chunks[0][:16]) != "SQLite format 3\x00" {
		return 0, false
	}
	b := r.chunks[0]
	if r.page = int(binary.BigEndian.Uint16(b[16:])); r.page == 1 {
		r.page = 64 << 10
	}
	if r.usable = r.page - int(b[20]); r.page < 512 || r.page&(r.page-1) != 0 || r.usable < 480 {
		return 0, false
	}
	r.visited, r.budget = map[uint32]bool{}, 2*r.size
	r.walk(1, func(payload func(n int) []byte) {
		c := columns(payload(schemaHead))
		if len(c) >= 4 && string(c[0]) == "table" && string(c[1]) == "Packages" {
			for _, d := range c[3] { // an integer, big endian
				root = root<<8 | uint32(d)
			}
		}
	})
	return root, root > 0
}

// at returns a page; nil where the file has none of that number.
func (r *sqliteReader) at(n uint32) []byte {
	off := (int64(n) - 1) * int64(r.page)
	if n == 0 || off+int64(r.page) > int64(r.size) {
		return nil
	}
	i := off % sqliteChunk // pages divide chunks
	return r.chunks[off/sqliteChunk][i : i+int64(r.page)]
}

// walk calls row for each row of the table whose tree begins at a page. payload
// gives its first bytes.
func (r *sqliteReader) walk(n uint32, row func(payload func(n int) []byte)) {
	b := r.at(n)
	if b == nil || r.visited[n] {
		return
	}
	r.visited[n] = true
	h := b
	if n == 1 {
		h = b[100:] // behind the file's header
	}
	cells := int(binary.BigEndian.Uint16(h[3:]))
	pointers, interior := h[8:], h[0] == 5
	if interior {
		pointers = h[12:]
	} else if h[0] != 13 {
		return
	}
	for i := 0; i < cells && 2*i+2 <= len(pointers); i++ {
		at := int(binary.BigEndian.Uint16(pointers[2*i:]))
		if at+4 > r.usable { // what is behind it is reserved
			continue
		}
		if interior {
			r.walk(binary.BigEndian.Uint32(b[at:]), row)
			continue
		}
		row(func(n int) []byte { return r.payload(b[at:r.usable], n) })
	}
	if interior {
		r.walk(binary.BigEndian.Uint32(h[8:]), row)
	}
}

// payload returns the first n bytes of a leaf's cell, or all that it has.
func (r *sqliteReader) payload(cell []byte, n int) []byte {
	size, cell := varint(cell)
	_, cell = varint(cell)   // the number of the row
	if size > maxRPMSqlite { // than the file has; it may be negative as an int
		return nil
	}
	local := int64(r.usable - 35)
	if int64(size) > local { // the rest is on pages of its own
		least := int64((r.usable-12)*32/255 - 23)
		if local = least + (int64(size)-least)%int64(r.usable-4); local > int64(r.usable-35) {
			local = least
		}
	} else {
		local = int64(size)
	}
	if r.budget -= int(min(uint64(n), size)); local < 0 || local > int64(len(cell)) || r.budget < 0 { //nolint:gosec // n is not negative
		return nil
	}
	out := slices.Clone(cell[:min(local, int64(n))])
	cell = cell[local:]
	if uint64(local) == size || len(cell) < 4 {
		return out
	}
	for next := binary.BigEndian.Uint32(cell); len(out) < n; {
		b := r.at(next)
		if b == nil {
			break
		}
		out = append(out, b[4:r.usable]...)
		next = binary.BigEndian.Uint32(b)
	}
	return out[:min(n, len(out), int(size))]
}

// header takes a row of the table Packages: a number and the header.
func (r *sqliteReader) header(payload func(n int) []byte) {
	c := columns(payload(rpmHead))
	if len(c) < 2 {
		return
	}
	if r.list.count++; len(r.list.packages) >= maxPackages {
		return
	}
	if p, ok := rpmPackage(c[1]); ok {
		r.list.packages = append(r.list.packages, p)
	}
}

// columns are the values of a record, the last as much as there is of it.
func columns(b []byte) (out [][]byte) {
	size, types := varint(b)
	if size > uint64(len(b)) || size < 1 {
		return nil
	}
	body := b[size:]
	types = types[:max(0, len(types)-len(body))]
	for len(types) > 0 && len(out) < 16 {
		var t uint64
		t, types = varint(types)
		n := valueSize(t)
		v := body[:min(n, uint64(len(body)))]
		out, body = append(out, v), body[len(v):]
	}
	return out
}

// valueSize is the size of a value by its serial type.
func valueSize(t uint64) uint64 {
	switch {
	case t >= 12:
		return (t - 12) / 2
	case t <= 4:
		return t
	case t == 5:
		return 6
	case t <= 7:
		return 8
	}
	return 0
}

// varint reads a number of SQLite; what is behind it, nil at the end.
func varint(b []byte) (v uint64, rest []byte) {
	for i := 0; i < len(b) && i < 9; i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), b[i+1:]
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, b[i+1:]
		}
	}
	return v, nil
}

// sorted puts packages in the order of their names.
func sorted(list []Package) []Package {
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return list
}
