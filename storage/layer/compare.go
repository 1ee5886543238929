package layer

import (
	"archive/tar"
	"encoding/binary"
	"strings"
)

// edit is one entry of the layer that a Delta writes.
type edit struct {
	path         string
	base, export int32  // nodes; none where there is none. A whiteout where there is no export
	link         string // what it is a hard link to; "" for none
}

// comparison goes over both trees of a Delta side by side.
type comparison struct {
	*Delta
	// linked are the files of the export with several names of which one has to
	// be written: then all are, so that they stay one file.
	linked map[int32]bool
	// first is the name under which such a file is in the layer.
	first map[int32]string
}

// compare fills changes and stats.
func (d *Delta) compare() {
	c := &comparison{Delta: d, linked: map[int32]bool{}, first: map[int32]string{}}
	d.stats = Stats{BaseFiles: d.base.files(0)}
	c.survey(0, 0, "")
	c.directory(0, 0, "")
}

// files counts the regular files at and below a node.
func (t *Tree) files(n int32) int {
	count := 0
	if t.inodes[t.nodes[n].inode].kind == tar.TypeReg {
		count++
	}
	for c := range t.children(n) {
		count += t.files(c)
	}
	return count
}

// pair is a name in a directory of the one, the other or both.
type pair struct {
	name, path   string
	base, export int32 // nodes; none where there is none
	engines      bool  // the export's is the engine's own, and tells nothing of the base's
}

// pairs are what is in a directory of either, in the order of the names' bytes.
func (c *comparison) pairs(base, export int32, prefix string) []pair {
	var bs, es []int32
	if base != none {
		bs = c.base.sorted(base)
	}
	if export != none {
		es = c.export.sorted(export)
	}
	list := make([]pair, 0, max(len(bs), len(es)))
	for len(bs) > 0 || len(es) > 0 {
		p := pair{base: none, export: none}
		order := 0
		switch {
		case len(bs) == 0:
			order = 1
		case len(es) == 0:
			order = -1
		default:
			order = strings.Compare(c.base.nodes[bs[0]].name, c.export.nodes[es[0]].name)
		}
		if order <= 0 {
			p.base, p.name, bs = bs[0], c.base.nodes[bs[0]].name, bs[1:]
		}
		if order >= 0 {
			p.export, p.name, es = es[0], c.export.nodes[es[0]].name, es[1:]
		}
		p.path = prefix + p.name
		p.engines = p.export != none && c.export.isEngines(p.path, p.export)
		list = append(list, p)
	}
	return list
}

// survey counts what was kept and finds the hard links that have to be written.
func (c *comparison) survey(base, export int32, prefix string) {
	for _, p := range c.pairs(base, export, prefix) {
		switch {
		case p.engines && p.base != none:
			c.stats.Kept += c.base.files(p.base)
		case p.engines || p.export == none:
		default:
			i := c.export.nodes[p.export].inode
			x := &c.export.inodes[i]
			if x.kind == tar.TypeDir {
				c.survey(c.baseDir(p.base), p.export, p.path+"/")
				continue
			}
			if x.links > 1 && c.changed(p) {
				c.linked[i] = true
			}
			if p.base != none && sameContent(&c.base.inodes[c.base.nodes[p.base].inode], x) {
				c.stats.Kept++
			}
		}
	}
}

// directory writes down what differs in a directory: first what is gone, as the
// specification advises, then the rest in the order of the names' bytes.
func (c *comparison) directory(base, export int32, prefix string) {
	pairs := c.pairs(base, export, prefix)
	for _, p := range pairs {
		if p.export == none {
			c.stats.Deleted++
			c.changes = append(c.changes, edit{path: prefix + whiteoutPrefix + p.name, base: p.base, export: none})
		}
	}
	for _, p := range pairs {
		if p.export == none || p.engines {
			continue
		}
		if c.export.inodes[c.export.nodes[p.export].inode].kind == tar.TypeDir {
			c.subdirectory(p)
		} else {
			c.file(p)
		}
	}
}

// subdirectory writes a directory down where it or something in it differs: what
// unpacks a layer needs the modes of the parents.
func (c *comparison) subdirectory(p pair) {
	at := len(c.changes)
	c.changes = append(c.changes, edit{path: p.path, base: p.base, export: p.export})
	c.directory(c.baseDir(p.base), p.export, p.path+"/")
	changed := c.changed(p)
	if len(c.changes) == at+1 && (!changed || p.base == none && c.export.isScaffold(p.path, p.export)) {
		c.changes = c.changes[:at]
		return
	}
	if changed {
		c.count(p)
	}
}

func (c *comparison) file(p pair) {
	changed := c.changed(p)
	if changed {
		c.count(p)
	}
	i := c.export.nodes[p.export].inode
	if !changed && !c.linked[i] {
		return
	}
	c.changes = append(c.changes, edit{path: p.path, base: p.base, export: p.export, link: c.first[i]})
	if c.linked[i] && c.first[i] == "" {
		c.first[i] = p.path
	}
}

func (c *comparison) count(p pair) {
	if p.base == none {
		c.stats.Added++
	} else {
		c.stats.Changed++
	}
}

// baseDir is a node of the base where it is a directory, else none: what was
// below another thing is gone with it.
func (c *comparison) baseDir(n int32) int32 {
	if n != none && c.base.inodes[c.base.nodes[n].inode].kind == tar.TypeDir {
		return n
	}
	return none
}

// changed tells whether what the export has there is not what the base has.
func (c *comparison) changed(p pair) bool {
	if p.base == none {
		return true
	}
	b, e := c.base.nodes[p.base].inode, c.export.nodes[p.export].inode
	return !sameFile(&c.base.inodes[b], &c.export.inodes[e], c.base.rare[b], c.export.rare[e])
}

// sameFile compares what an export can show. Of two files that look the same
// only the content's hash tells: tools set sizes and times as they like. What
// docker export drops (extended attributes other than the capability, owner's
// names, access times) says nothing. A directory's time says nothing either,
// since each change in it sets it.
func sameFile(b, e *inode, br, er rare) bool {
	switch {
	case b.kind == tar.TypeDir && e.implied:
		return e.kind == tar.TypeDir // it has no entry, which tells nothing
	case b.kind != e.kind || b.uid != e.uid || b.gid != e.gid || !sameCapability(br.capability, er.capability):
		return false
	case b.kind == tar.TypeDir:
		return b.mode == e.mode
	case !sameTime(b, e):
		return false
	case b.kind == tar.TypeReg:
		return b.mode == e.mode && sameContent(b, e)
	case b.kind == tar.TypeSymlink:
		return br.linkname == er.linkname // its mode is nobody's
	}
	return b.mode == e.mode && br.major == er.major && br.minor == er.minor
}

func sameContent(b, e *inode) bool {
	return b.kind == e.kind && b.size == e.size && !b.sparse && b.sha256 == e.sha256
}

// sameTime compares as docker does: an export has whole seconds only, and what
// lacks the part below says nothing of it.
// https://github.com/moby/moby/blob/v28.5.2/vendor/github.com/moby/go-archive/changes.go (sameFsTime)
func sameTime(b, e *inode) bool {
	return b.mtime == e.mtime && (b.nano == e.nano || b.nano == 0 || e.nano == 0)
}

// sameCapability compares two security.capability attributes. docker export
// writes revision 3, which also has the user namespace's root, as revision 2.
func sameCapability(a, b string) bool {
	if a == b {
		return true
	}
	const magic, set = 4, 16 // flags and revision; permitted and inheritable, two words each
	if len(a) < magic+set || len(b) < magic+set {
		return false
	}
	effective := func(s string) bool { return binary.LittleEndian.Uint32([]byte(s[:magic]))&1 != 0 }
	return effective(a) == effective(b) && a[magic:magic+set] == b[magic:magic+set]
}

// isEngines tells whether what an export has at a path is the mount point that
// the engine makes in every container, and not the image's or the container's:
// the real file is mounted over it and never exported.
// https://github.com/moby/moby/blob/v28.5.2/daemon/initlayer/setup_unix.go; podman makes .containerenv too.
func (t *Tree) isEngines(p string, n int32) bool {
	i := t.nodes[n].inode
	x := &t.inodes[i]
	switch p {
	case ".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv":
		return x.kind == tar.TypeReg && x.size == 0
	case "etc/mtab":
		return x.kind == tar.TypeSymlink && t.rare[i].linkname == "/proc/mounts"
	case "dev/pts", "dev/shm":
		return x.kind == tar.TypeDir && t.nodes[n].first == none
	}
	return false
}

// isScaffold tells whether a directory in which nothing is left was made for the
// mounts. podman's run is one where its file is in it.
func (t *Tree) isScaffold(p string, n int32) bool {
	switch p {
	case "dev", "etc", "proc", "sys":
		return true
	case "run":
		return t.nodes[n].first != none
	}
	return false
}
