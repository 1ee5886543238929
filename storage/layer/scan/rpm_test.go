package scan_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/storage/layer/scan"
)

// Berkeley DB and ndb are not written by any rpm that is at hand: these are
// written after their descriptions, db_page.h of Berkeley DB and rpmpkg.c of
// RPM. The readers were tried on real ones as well.

// rpmHeader is a package as RPM keeps it.
func rpmHeader(name, version, release string, filler int) []byte {
	store := "C\x00" + name + "\x00" + version + "\x00" + release + "\x00" + strings.Repeat("f", filler)
	at := 2
	var index []byte
	for i, v := range []string{name, version, release} {
		for _, n := range []int{1000 + i, 6, at, 1} {
			index = binary.BigEndian.AppendUint32(index, uint32(n))
		}
		at += len(v) + 1
	}
	b := binary.BigEndian.AppendUint32(nil, 3)
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	return append(append(b, index...), store...)
}

// bdb is a hash database with two packages, the pages of one behind the
// hash's, those of the other before it, and a third that was removed.
func bdb() string {
	const size = 4096
	file := make([]byte, 6*size)
	le := binary.LittleEndian
	le.PutUint32(file[12:], 0x061561)
	le.PutUint32(file[20:], size)
	file[25] = 8
	overflow := func(page, previous, next int, content []byte) {
		b := file[page*size:]
		le.PutUint32(b[8:], uint32(page))
		le.PutUint32(b[12:], uint32(previous))
		le.PutUint32(b[16:], uint32(next))
		b[25] = 7
		copy(b[26:size], content)
	}
	overflow(1, 0, 0, rpmHeader("bash", "4.4.20", "5.el8", 100))
	large := rpmHeader("glibc", "2.28", "251.el8_10", 6000)
	overflow(3, 0, 4, large)
	overflow(4, 3, 0, large[size-26:])
	overflow(5, 0, 0, rpmHeader("removed", "1", "1", 0))
	hash := file[2*size : 3*size]
	hash[25] = 13
	at := size
	entry := func(i int, content []byte) {
		at -= len(content)
		copy(hash[at:], content)
		le.PutUint16(hash[26+2*i:], uint16(at))
	}
	for i, page := range []uint32{1, 3} {
		entry(2*i, []byte{1, byte(i + 1), 0, 0, 0})
		off := make([]byte, 12)
		off[0] = 3
		le.PutUint32(off[4:], page)
		entry(2*i+1, off)
	}
	entry(4, []byte{1, 0, 0, 0, 0}) // the number of the next package, kept in the page
	entry(5, []byte{1, 9, 0, 0, 0})
	le.PutUint16(hash[20:], 6)
	return string(file)
}

// ndb is a database with a slot that is free, and packages before and behind
// the end of a page.
func ndb() string {
	const page = 4096
	le := binary.LittleEndian
	file := make([]byte, page)
	copy(file, "RpmP")
	le.PutUint32(file[12:], 1) // pages of slots
	for at := 32; at < page; at += 16 {
		copy(file[at:], "Slot")
	}
	for i, p := range [][]byte{rpmHeader("bash", "4.4", "19.6.1", 3000), rpmHeader("aaa_base", "84.87", "3.6.1", 900), rpmHeader("glibc", "2.31", "9.3.2", 9000)} {
		slot := file[32+32*i:]
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(file)/16))
		blob := make([]byte, 16, 16+len(p)+32)
		copy(blob, "BlbS")
		le.PutUint32(blob[4:], uint32(i+1))
		le.PutUint32(blob[12:], uint32(len(p)))
		blob = append(blob, p...)
		blob = append(blob, make([]byte, (16-len(blob)%16)%16)...)
		file = append(file, blob...)
	}
	return string(file)
}

func TestOlderDatabasesOfRPM(t *testing.T) {
	t.Parallel()
	for path, c := range map[string]struct {
		body string
		want []scan.Package
	}{
		"var/lib/rpm/Packages":             {bdb(), []scan.Package{{Name: "bash", Version: "4.4.20-5.el8"}, {Name: "glibc", Version: "2.28-251.el8_10"}}},
		"usr/lib/sysimage/rpm/Packages.db": {ndb(), []scan.Package{{Name: "aaa_base", Version: "84.87-3.6.1"}, {Name: "bash", Version: "4.4-19.6.1"}, {Name: "glibc", Version: "2.31-9.3.2"}}},
	} {
		img := scan.Merge([]scan.Layer{layer(file{name: path, body: c.body})})
		if diff := cmp.Diff(c.want, img.Packages); diff != "" || img.Count != len(c.want) {
			t.Errorf("%s: count %d (-want +got):\n%s", path, img.Count, diff)
		}
		if img := scan.Merge([]scan.Layer{layer(file{name: path, body: c.body[:100]})}); img.Count != -1 {
			t.Errorf("%s, cut off: count %d, want -1", path, img.Count)
		}
	}
}

// A database that grew over a page of interior nodes, and rows that go on
// elsewhere, are in the real one; what a hostile one does is bounded.
func TestAnSQLiteFileThatGoesInCircles(t *testing.T) {
	t.Parallel()
	real := gunzip(t, "testdata/rpmdb.sqlite.gz")
	for at := 100; at < len(real); at += 509 {
		b := append([]byte(nil), real...)
		copy(b[at:], []byte{5, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 2})
		img := scan.Merge([]scan.Layer{layer(file{name: "var/lib/rpm/rpmdb.sqlite", body: string(b)})})
		if img.PackageManager != "rpm" || img.Count > 1000 {
			t.Fatalf("%s: %s with %d packages", fmt.Sprint("changed at byte ", at), img.PackageManager, img.Count)
		}
	}
}

// hostileSQLite is a database with pages of 512 bytes, whose table Packages
// has one row: a cell at an offset of its page, of these bytes.
func hostileSQLite(reserved byte, at int, cell []byte) string {
	b := make([]byte, 16<<10) // more than is read of a row
	copy(b, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(b[16:], 512)
	b[20] = reserved
	leaf := func(h []byte, at int) {
		h[0] = 13
		binary.BigEndian.PutUint16(h[3:], 1)
		binary.BigEndian.PutUint16(h[8:], uint16(at))
	}
	// A row of the schema: its size and number, the types of the values, the
	// values: a table Packages, whose root is page 2.
	values := "table" + "Packages" + "Packages" + "\x02"
	row := append([]byte{5, 13 + 2*5, 13 + 2*8, 13 + 2*8, 1}, values...)
	leaf(b[100:], 200)
	copy(b[200:], append([]byte{byte(len(row)), 1}, row...))
	leaf(b[512:], at)
	copy(b[512+at:], cell)
	return string(b)
}

// TestAHostileDatabaseOfRPMIsRead: the scanner has nobody who would catch a
// panic.
func TestAHostileDatabaseOfRPMIsRead(t *testing.T) {
	t.Parallel()
	header := rpmHeader("bash", "5", "1", 0)
	blob := 12 + 2*len(header)
	good := append([]byte{byte(len(header) + 5), 1, 4, 1, 0x80 | byte(blob>>7), byte(blob & 0x7f), 7}, header...)
	for name, c := range map[string]struct {
		reserved byte
		at       int
		cell     []byte
		packages int
	}{
		"a cell as it should be":                {0, 300, good, 1},
		"a cell in what is reserved":            {32, 500, []byte{1, 1, 1, 1}, 0},
		"a size of 64 bits, as an int negative": {0, 300, append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0x2b, 1}, header...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := scan.Merge([]scan.Layer{layer(file{name: "var/lib/rpm/rpmdb.sqlite", body: hostileSQLite(c.reserved, c.at, c.cell)})})
			if img.PackageManager != "rpm" || img.Count != c.packages {
				t.Errorf("%s with %d packages, want %d", img.PackageManager, img.Count, c.packages)
			}
		})
	}
}
