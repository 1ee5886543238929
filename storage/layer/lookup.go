package layer

import (
	"iter"
	"slices"
	"strings"
)

// Node is a path of a Tree.
type Node struct {
	Path string
	// Layer is the one that the content and what Entry says is from, 0 for the
	// bottom.
	Layer int
	// Entry is what is there. Its Path is Node.Path also where the layer has the
	// content under another name, and its Type is never TypeLink.
	Entry Entry
	// File is the same for all names of one file, and Links is how many there
	// are.
	File, Links int
	// Implied is a directory that no layer has an entry of, only ones below it.
	Implied bool
}

// Len is how many paths there are, the root counted.
func (t *Tree) Len() int { return len(t.nodes) - len(t.freeNodes) }

// Lookup returns what is at a path, which must be clean (see CleanPath); "." is
// the root. It follows no symlinks.
func (t *Tree) Lookup(p string) (Node, bool) {
	n, ok := t.find(p)
	if !ok {
		return Node{}, false
	}
	return t.node(n, p), true
}

// ReadDir returns what is in a directory, in the order of the names' bytes; nil
// where there is no such directory.
func (t *Tree) ReadDir(p string) []Node {
	n, ok := t.find(p)
	if !ok {
		return nil
	}
	var list []Node
	for _, c := range t.sorted(n) {
		list = append(list, t.node(c, join(p, t.nodes[c].name)))
	}
	return list
}

// Walk yields all paths, the root first: a directory before what is in it, and
// that in the order of the names' bytes, as docker export does.
func (t *Tree) Walk() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		t.walk(0, ".", func(n int32, p string) bool { return yield(t.node(n, p)) })
	}
}

func (t *Tree) walk(n int32, p string, yield func(n int32, p string) bool) bool {
	if !yield(n, p) {
		return false
	}
	for _, c := range t.sorted(n) {
		if !t.walk(c, join(p, t.nodes[c].name), yield) {
			return false
		}
	}
	return true
}

func (t *Tree) sorted(n int32) []int32 {
	list := slices.Collect(t.children(n))
	slices.SortFunc(list, func(a, b int32) int { return strings.Compare(t.nodes[a].name, t.nodes[b].name) })
	return list
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// node is what is known of a node whose path is p.
func (t *Tree) node(n int32, p string) Node {
	i := t.nodes[n].inode
	x := &t.inodes[i]
	e := Entry{
		Path: p, Type: x.kind, Mode: uint32(x.mode), UID: x.uid, GID: x.gid, Size: x.size, ModTime: x.mtime, ModNano: x.nano,
		SHA256: x.sha256, Sparse: x.sparse, Offset: x.offset,
	}
	if r, ok := t.rare[i]; ok {
		e.Linkname, e.Major, e.Minor = r.linkname, r.major, r.minor
		if r.capability != "" {
			e.Capability = []byte(r.capability)
		}
	}
	return Node{Path: p, Layer: int(x.layer), Entry: e, File: int(i), Links: int(x.links), Implied: x.implied}
}
