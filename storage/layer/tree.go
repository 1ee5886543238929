package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Tree is the file system that layers make, one on top of the other. It has the
// entries and not the contents: those are in the layers, at Node.Layer and
// Entry.Offset.
//
// It costs about 200 bytes a name, and refuses more than maxNodes. It is for one
// goroutine while layers are added, and for any number afterwards.
type Tree struct {
	nodes                 []node
	inodes                []inode
	rare                  map[int32]rare // by inode
	names                 map[nameIn]int32
	freeNodes, freeInodes []int32 // to be used again
	layers                int
	bytes                 int64 // of names, targets and capabilities

	// dir is the directory of the entry that was placed last, and dirNode its
	// node: entries come directory by directory. "" for none.
	dir     string
	dirNode int32
}

// node is a name in a directory; the first is the root.
type node struct {
	name                string
	parent, inode       int32
	first, next, before int32 // child and siblings, in no order; none where negative
	// layer is the layer that last spoke of the name, or of one below it, and
	// cleared the last one that hid all below it: what it hides again is gone.
	layer, cleared int32
}

// inode is what names name. Those of hard links have one together.
type inode struct {
	sha256               [32]byte
	size, mtime, offset  int64
	uid, gid             int
	nano, layer          int32
	links                int32
	mode                 uint16
	kind                 byte
	implied, sparse, odd bool // odd: it has something in Tree.rare
}

// rare is what few inodes have.
type rare struct {
	linkname     string
	capability   string
	major, minor int64
}

// nameIn is a name in the directory of a node.
type nameIn struct {
	dir  int32
	name string
}

const none int32 = -1

// What a Tree may hold: a layer of 1 GiB can have two million entries, and 500
// directories can be in one name.
const (
	maxNodes     = 1_000_000
	maxTreeBytes = 256 << 20
	maxPath      = 4096 // Linux's own
)

// ErrTooLarge is the error of layers with more in them than a Tree holds.
var ErrTooLarge = fmt.Errorf("there are more than %d files, or their names are longer than %d MiB in all", maxNodes, maxTreeBytes>>20)

// NewTree returns a Tree of no layer: an empty root.
func NewTree() *Tree {
	t := &Tree{names: map[nameIn]int32{}, rare: map[int32]rare{}}
	t.nodes = append(t.nodes, node{name: ".", parent: none, first: none, next: none, before: none, cleared: none})
	t.inodes = append(t.inodes, impliedDir(0))
	return t
}

func impliedDir(layer int32) inode {
	return inode{kind: tar.TypeDir, mode: 0o755, implied: true, links: 1, layer: layer}
}

// Add puts a layer on top: next returns its entries, as Reader.Next does, until
// io.EOF. Within a layer the last entry of a path counts, and a whiteout hides
// only what is in the layers below, wherever in the layer it stands. After an
// error the Tree is worth nothing.
func (t *Tree) Add(next func() (Entry, error)) error {
	l := t.begin()
	for {
		e, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = t.add(l, &e)
		}
		if err != nil {
			return err
		}
	}
}

// begin begins a layer and returns its number.
func (t *Tree) begin() int32 {
	t.layers++
	t.dir = ""
	return int32(t.layers - 1) //nolint:gosec // nobody has two billion layers
}

// add applies one entry of the layer.
func (t *Tree) add(l int32, e *Entry) error {
	if dir, ok := Opaque(e.Path); ok {
		if n, found := t.find(dir); found {
			t.hideChildren(n, l)
		}
		return nil
	}
	if target, ok := Whiteout(e.Path); ok {
		if n, found := t.find(target); found {
			t.hide(n, l)
		}
		return nil
	}
	if hasMarker(e.Path) {
		return nil // what aufs left, or what is below a whiteout: Docker passes over it
	}
	if len(e.Path) > maxPath {
		return fmt.Errorf("its entry %s has a path of %d bytes, which is longer than any system takes", quoted(e.Path), len(e.Path))
	}
	if e.Path == "." {
		if e.Type == tar.TypeDir {
			t.fill(&t.nodes[0].inode, l, e)
		}
		return nil
	}
	if e.Type == tar.TypeLink {
		return t.addLink(l, e)
	}
	n, err := t.place(l, e.Path)
	if err != nil {
		return err
	}
	if e.Type != tar.TypeDir {
		t.removeChildren(n)
	} else if i := t.nodes[n].inode; i != none && t.inodes[i].kind == tar.TypeDir {
		t.fill(&t.nodes[n].inode, l, e) // its children stay
		return nil
	}
	t.release(n)
	t.fill(&t.nodes[n].inode, l, e)
	return t.bounded()
}

// addLink gives a file one more name.
func (t *Tree) addLink(l int32, e *Entry) error {
	target, ok := t.find(e.Linkname)
	if !ok || t.inodes[t.nodes[target].inode].kind == tar.TypeDir {
		return fmt.Errorf("its entry %s is a hard link to %s, which is no file there", quoted(e.Path), quoted(e.Linkname))
	}
	if e.Path == e.Linkname {
		return nil
	}
	// The name may be a directory that the target is in: it is held over that.
	i := t.nodes[target].inode
	t.inodes[i].links++
	n, err := t.place(l, e.Path)
	if err != nil {
		return err
	}
	t.removeChildren(n)
	t.release(n)
	t.nodes[n].inode = i
	return t.bounded()
}

func (t *Tree) bounded() error {
	if t.Len() > maxNodes || t.bytes > maxTreeBytes {
		return ErrTooLarge
	}
	return nil
}

// fill makes *i the inode of an entry that is no link: the one it is, where it
// is one.
func (t *Tree) fill(i *int32, l int32, e *Entry) {
	if *i == none {
		*i = t.newInode(inode{links: 1})
	}
	t.forget(*i)
	x, r := inodeOf(l, e)
	x.links = t.inodes[*i].links
	t.inodes[*i] = x
	if x.odd {
		t.rare[*i] = r
		t.bytes += r.bytes()
	}
}

// inodeOf is what an entry that is no hard link says.
func inodeOf(l int32, e *Entry) (inode, rare) {
	r := rare{e.Linkname, string(e.Capability), e.Major, e.Minor}
	return inode{
		sha256: e.SHA256, size: e.Size, mtime: e.ModTime, offset: e.Offset, uid: e.UID, gid: e.GID, nano: e.ModNano,
		layer: l, mode: uint16(e.Mode), kind: e.Type, sparse: e.Sparse, odd: r != (rare{}), //nolint:gosec // twelve bits
	}, r
}

func (t *Tree) newInode(x inode) int32 {
	if last := len(t.freeInodes) - 1; last >= 0 {
		i := t.freeInodes[last]
		t.freeInodes, t.inodes[i] = t.freeInodes[:last], x
		return i
	}
	t.inodes = append(t.inodes, x)
	return int32(len(t.inodes) - 1) //nolint:gosec // bounded, as there is one for a node
}

// forget drops what is rare of an inode.
func (t *Tree) forget(i int32) {
	if t.inodes[i].odd {
		t.bytes -= t.rare[i].bytes()
		delete(t.rare, i)
	}
}

func (r rare) bytes() int64 { return int64(len(r.linkname) + len(r.capability)) }

// find returns the node of a clean path. Symlinks are files here.
func (t *Tree) find(p string) (int32, bool) {
	if p == "." {
		return 0, true
	}
	n := int32(0)
	for part := range strings.SplitSeq(p, "/") {
		var ok bool
		if n, ok = t.names[nameIn{n, part}]; !ok {
			return 0, false
		}
	}
	return n, true
}

// place returns the node of a clean path other than the root's, new or not. What
// is above it becomes a directory where it is none: Docker makes one too, in
// place of a symlink below as well.
func (t *Tree) place(l int32, p string) (int32, error) {
	n, rest := int32(0), p
	slash := strings.LastIndexByte(p, '/')
	if slash > 0 && p[:slash] == t.dir {
		n, rest = t.dirNode, p[slash+1:]
	}
	for {
		name, below, more := strings.Cut(rest, "/")
		child, ok := t.names[nameIn{n, name}]
		if !ok {
			if err := t.bounded(); err != nil {
				return 0, err
			}
			child = t.insert(n, name)
		}
		t.nodes[child].layer = l
		if !more {
			t.dir, t.dirNode = p[:max(slash, 0)], n
			return child, nil
		}
		if n, rest = child, below; t.nodes[n].inode == none || t.inodes[t.nodes[n].inode].kind != tar.TypeDir {
			t.release(n)
			t.nodes[n].inode = t.newInode(impliedDir(l))
		}
	}
}

// insert makes a node without an inode.
func (t *Tree) insert(dir int32, name string) int32 {
	name = strings.Clone(name) // it is part of a longer path
	first := t.nodes[dir].first
	x := node{name: name, parent: dir, inode: none, first: none, next: first, before: none, cleared: none}
	var n int32
	if last := len(t.freeNodes) - 1; last >= 0 {
		n = t.freeNodes[last]
		t.freeNodes, t.nodes[n] = t.freeNodes[:last], x
	} else {
		n = int32(len(t.nodes)) //nolint:gosec // bounded
		t.nodes = append(t.nodes, x)
	}
	if first != none {
		t.nodes[first].before = n
	}
	t.nodes[dir].first = n
	t.names[nameIn{dir, name}] = n
	t.bytes += int64(len(name))
	return n
}

// release takes the inode of a node away from it.
func (t *Tree) release(n int32) {
	i := t.nodes[n].inode
	if i == none {
		return
	}
	t.nodes[n].inode = none
	if t.inodes[i].links--; t.inodes[i].links == 0 {
		t.forget(i)
		t.freeInodes = append(t.freeInodes, i)
	}
}

// remove takes a node out of the tree, and all below it.
func (t *Tree) remove(n int32) {
	t.dir = "" // it may be it
	t.removeChildren(n)
	t.release(n)
	x := &t.nodes[n]
	t.bytes -= int64(len(x.name))
	t.freeNodes = append(t.freeNodes, n)
	delete(t.names, nameIn{x.parent, x.name})
	if x.before != none {
		t.nodes[x.before].next = x.next
	} else {
		t.nodes[x.parent].first = x.next
	}
	if x.next != none {
		t.nodes[x.next].before = x.before
	}
}

func (t *Tree) removeChildren(n int32) {
	for c := range t.children(n) {
		t.remove(c)
	}
}

// children yields the nodes in a directory; the one that was yielded may be
// removed.
func (t *Tree) children(n int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for c := t.nodes[n].first; c != none; {
			next := t.nodes[c].next
			if !yield(c) {
				return
			}
			c = next
		}
	}
}

// hide takes away what the layers below l have of a node.
func (t *Tree) hide(n, l int32) {
	if t.nodes[n].layer < l {
		t.remove(n)
		return
	}
	t.hideChildren(n, l)
	i := t.nodes[n].inode
	if t.inodes[i].layer < l && t.inodes[i].kind == tar.TypeDir { // l has only something below it
		t.forget(i)
		t.inodes[i] = impliedDir(l)
	}
}

// hideChildren does nothing the second time: a layer of a million markers would
// else cost a million times what it has in it.
func (t *Tree) hideChildren(n, l int32) {
	if t.nodes[n].cleared == l {
		return
	}
	t.nodes[n].cleared = l
	for c := range t.children(n) {
		t.hide(c, l)
	}
}

// hasMarker tells whether any part of a path is a marker.
func hasMarker(p string) bool {
	return strings.HasPrefix(p, whiteoutPrefix) || strings.Contains(p, "/"+whiteoutPrefix)
}
