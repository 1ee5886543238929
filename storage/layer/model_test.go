package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// model is a file system in the simplest form: what Tree and Delta are compared
// with.
type model map[string]*thing

// thing is what a path is; hard links are the same thing.
type thing struct {
	Type         byte
	Mode         int64
	UID, GID     int
	Content      string
	MTime        int64 // of all but directories
	Target       string
	Major, Minor int64
	Capability   string
}

func (m model) sortedPaths() []string { return slices.Sorted(maps.Keys(m)) }

// below are the paths below a directory.
func (m model) below(dir string) []string {
	var list []string
	for p := range m {
		if dir == "." || strings.HasPrefix(p, dir+"/") {
			list = append(list, p)
		}
	}
	return list
}

func (m model) remove(p string) {
	for _, q := range m.below(p) {
		delete(m, q)
	}
	delete(m, p)
}

// parents makes the directories above a path.
func (m model) parents(p string) {
	for i := range p {
		if p[i] != '/' {
			continue
		}
		if x := m[p[:i]]; x == nil || x.Type != tar.TypeDir {
			m[p[:i]] = &thing{Type: tar.TypeDir, Mode: 0o755}
		}
	}
}

func (m model) put(p string, x *thing) {
	old := m[p]
	if x.Type != tar.TypeDir || old == nil || old.Type != tar.TypeDir {
		m.remove(p)
	}
	m.parents(p)
	m[p] = x
}

type packedEntry struct {
	h    *tar.Header
	body string
}

func unpack(tb testing.TB, plain []byte) []packedEntry {
	tb.Helper()
	tr := tar.NewReader(bytes.NewReader(plain))
	var list []packedEntry
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			tb.Fatalf("archive/tar: %v", err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			tb.Fatalf("archive/tar: %v", err)
		}
		list = append(list, packedEntry{h, string(b)})
	}
}

// apply puts a layer on top: first what it takes away, then what it brings.
func (m model) apply(tb testing.TB, plain []byte) {
	tb.Helper()
	list := unpack(tb, plain)
	for _, e := range list {
		p := CleanPath(e.h.Name)
		if dir, ok := Opaque(p); ok {
			for _, q := range m.below(dir) {
				delete(m, q)
			}
		} else if gone, ok := Whiteout(p); ok {
			m.remove(gone)
		}
	}
	for _, e := range list {
		p := CleanPath(e.h.Name)
		if p == "." || IsMarker(p) {
			continue
		}
		if e.h.Typeflag == tar.TypeLink {
			x := m[CleanPath(e.h.Linkname)]
			if x == nil || x.Type == tar.TypeDir {
				tb.Fatalf("%s is a hard link to %s, which is not there", p, e.h.Linkname)
			}
			m.put(p, x)
			continue
		}
		x := &thing{
			Type: e.h.Typeflag, Mode: e.h.Mode & 0o7777, UID: e.h.Uid, GID: e.h.Gid, Content: e.body, MTime: e.h.ModTime.Unix(),
			Target: e.h.Linkname, Major: e.h.Devmajor, Minor: e.h.Devminor, Capability: e.h.PAXRecords[CapabilityRecord],
		}
		if x.Type == tar.TypeDir {
			x.MTime = 0
		}
		if x.Type == tar.TypeSymlink {
			x.Mode = 0
		}
		m.put(p, x)
	}
}

func modelOf(tb testing.TB, layers ...[]byte) model {
	tb.Helper()
	m := model{}
	for _, l := range layers {
		m.apply(tb, l)
	}
	return m
}

// groups are the names that are one file, where there are several.
func (m model) groups() [][]string {
	by := map[*thing][]string{}
	for _, p := range m.sortedPaths() {
		by[m[p]] = append(by[m[p]], p)
	}
	var list [][]string
	for _, names := range by {
		if len(names) > 1 {
			list = append(list, names)
		}
	}
	slices.SortFunc(list, slices.Compare)
	return list
}

// treeOf is the Tree of plain layers, through their indexes.
func treeOf(tb testing.TB, layers ...[]byte) *Tree {
	tb.Helper()
	t := NewTree()
	for _, l := range layers {
		r, err := NewReader(bytes.NewReader(indexOf(tb, l)))
		if err == nil {
			err = t.Add(r.Next)
		}
		if err != nil {
			tb.Fatalf("Tree: %v", err)
		}
	}
	return t
}

// modelOfTree is what a Tree says, with the contents out of the layers.
func modelOfTree(t *Tree, layers ...[]byte) model {
	m := model{}
	files := map[int]*thing{}
	for n := range t.Walk() {
		if n.Path == "." {
			continue
		}
		e := n.Entry
		x := files[n.File]
		if x == nil {
			x = &thing{
				Type: e.Type, Mode: int64(e.Mode), UID: e.UID, GID: e.GID, MTime: e.ModTime, Target: e.Linkname,
				Major: e.Major, Minor: e.Minor, Capability: string(e.Capability),
			}
			switch e.Type {
			case tar.TypeReg:
				x.Content = string(layers[n.Layer][e.Offset:][:e.Size])
			case tar.TypeDir:
				x.MTime = 0
			case tar.TypeSymlink:
				x.Mode = 0
			}
			files[n.File] = x
		}
		m[n.Path] = x
	}
	return m
}

// wantSame compares two file systems; the groups too where both must have them.
func wantSame(tb testing.TB, what string, want, got model, groups bool) bool {
	tb.Helper()
	diff := cmp.Diff(want, got)
	if groups {
		diff += cmp.Diff(want.groups(), got.groups())
	}
	if diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
	return diff == ""
}

// String keeps long contents out of messages.
func (x *thing) String() string {
	return fmt.Sprintf("%c %o %d:%d %d bytes %d -> %q %d,%d", x.Type, x.Mode, x.UID, x.GID, len(x.Content), x.MTime, x.Target, x.Major, x.Minor)
}
