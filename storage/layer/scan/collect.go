package scan

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"strings"
)

// Collector gathers the facts of one layer while its tar passes. It is what
// layer.NewIndexer calls; it is used by one goroutine. What is in a layer is
// anybody's: where it finds a mistake in the rules, the collecting ends, and
// nothing else does. Err tells then.
type Collector struct {
	layer    Layer
	reader   reader // of the file whose body passes; nil where none is wanted
	mark     Mark   // the file's, added when it has passed
	programs int    // looked at, besides the well-known
	size     int    // of the marks
	docs     bool
	light    bool
	missed   bool
	err      error // the mistake that ended the collecting
}

// NewCollector returns a Collector of a layer.
func NewCollector() *Collector { return &Collector{layer: Layer{Version: Version}} }

// NewLightCollector returns a Collector that keeps no database in memory: it
// does without what only an SQLite database of RPM says, and Missed then tells
// so.
func NewLightCollector() *Collector {
	c := NewCollector()
	c.light = true
	return c
}

// reader takes the body of a file, and says in the end what it found.
type reader interface {
	io.Writer
	// finish puts what was found into m; false where the file says nothing.
	finish(m *Mark) bool
}

// Layer ends the collecting and returns the facts; what there is of them where
// Err tells of a mistake.
func (c *Collector) Layer() Layer {
	c.guard(c.flush)
	return c.layer
}

// Missed tells, after Layer, whether a light collector left something out.
func (c *Collector) Missed() bool { return c.missed || c.err != nil }

// Err is the mistake of ours that ended the collecting, with its stack, for a
// log; nil where there was none.
func (c *Collector) Err() error { return c.err }

// guard calls fn, unless there was a mistake before.
func (c *Collector) guard(fn func()) {
	if c.err != nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			c.err, c.reader = fmt.Errorf("panic: %v\n%s", p, debug.Stack()), nil
		}
	}()
	fn()
}

// Entry looks at the next header of the tar. The writer that it returns wants
// the body of the file; it is nil where nobody does.
func (c *Collector) Entry(h *tar.Header) (w io.Writer) {
	c.guard(func() {
		c.flush()
		if w = c.entry(h); w != nil {
			w = guarded{c, w}
		}
	})
	return w
}

// guarded is the reader of a file.
type guarded struct {
	c *Collector
	w io.Writer
}

func (g guarded) Write(p []byte) (n int, err error) {
	n = len(p)
	g.c.guard(func() { n, err = g.w.Write(p) })
	return n, err
}

func (c *Collector) entry(h *tar.Header) io.Writer {
	if len(h.Name) > maxPath {
		return nil
	}
	p := clean(h.Name)
	if dir, name := path.Split(p); strings.HasPrefix(name, whiteoutPrefix) {
		c.whiteout(strings.TrimSuffix(dir, "/"), name)
		return nil
	}
	cl := classOf(p)
	if cl == nothing {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if cl == inner && p != "" {
			c.add(Mark{Path: p, Kind: Directory})
		}
	case tar.TypeSymlink, tar.TypeLink:
		c.link(p, cl, h)
	case tar.TypeReg:
		return c.file(p, cl, h)
	}
	return nil
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// whiteout marks what hides lower layers. Other names with the prefix are
// aufs's own and mean nothing.
func (c *Collector) whiteout(dir, name string) {
	if name == opaqueMarker {
		if cl := classOf(dir); cl == inner || cl == many {
			c.add(Mark{Path: dir, Kind: Opaque})
		}
		return
	}
	name = strings.TrimPrefix(name, whiteoutPrefix)
	if name == "" || strings.HasPrefix(name, whiteoutPrefix) {
		return
	}
	p := path.Join(dir, name)
	if cl := classOf(p); cl != nothing && cl != doc {
		c.add(Mark{Path: p, Kind: Whiteout})
	}
}

func (c *Collector) link(p string, cl class, h *tar.Header) {
	if cl == doc || cl == program && !wellKnown[path.Base(p)] || len(h.Linkname) > maxPath {
		return
	}
	if h.Typeflag == tar.TypeLink {
		c.add(Mark{Path: p, Kind: Hardlink, Target: clean(h.Linkname)})
		return
	}
	c.add(Mark{Path: p, Kind: Symlink, Target: h.Linkname})
}

// file begins a regular file.
func (c *Collector) file(p string, cl class, h *tar.Header) io.Writer {
	var r reader
	switch cl {
	case release:
		r = newReleaseReader()
	case text:
		r = &textReader{}
	case apkDB:
		r = newAPKReader()
	case dpkgDB:
		if strings.HasSuffix(p, ".md5sums") {
			return nil
		}
		r = newDpkgReader()
	case dpkgConf:
		r = newConfReader()
	case rpmDB:
		r = c.rpmReader(p, h.Size)
	case rpmList:
		r = newListReader()
	case program:
		if !c.wanted(p, h) {
			return nil
		}
		r = &programReader{}
	case doc:
		if path.Base(p) != "copyright" && !c.docs {
			c.docs = true
			c.add(Mark{Path: docs, Kind: File})
		}
		return nil
	default: // it is there, which is all that counts
		c.add(Mark{Path: p, Kind: File})
		return nil
	}
	c.mark, c.reader = Mark{Path: p, Kind: File}, r
	return r
}

// docs is the path of the mark that says that there is documentation.
const docs = "usr/share/doc/*"

func (c *Collector) rpmReader(p string, size int64) reader {
	switch path.Base(p) {
	case "Packages":
		return &bdbReader{}
	case "Packages.db":
		return &ndbReader{}
	}
	if c.light {
		c.missed = true
		return unread{}
	}
	if size > maxRPMSqlite {
		return unread{}
	}
	return &sqliteReader{}
}

// wanted tells whether to look into an executable.
func (c *Collector) wanted(p string, h *tar.Header) bool {
	if wellKnown[path.Base(p)] {
		return true
	}
	if h.Mode&0o111 == 0 || c.programs >= maxPrograms {
		return false
	}
	c.programs++
	return true
}

// flush ends the file whose body has passed.
func (c *Collector) flush() {
	if c.reader == nil {
		return
	}
	if c.reader.finish(&c.mark) || classOf(c.mark.Path) != program || wellKnown[path.Base(c.mark.Path)] {
		c.add(c.mark)
	}
	c.reader, c.mark = nil, Mark{}
}

func (c *Collector) add(m Mark) {
	n := m.size()
	if len(c.layer.Marks) >= maxMarks || c.size+n > maxFacts {
		c.layer.Truncated = true
		return
	}
	c.size += n
	c.layer.Marks = append(c.layer.Marks, m)
}

// unread is a database that is there and is not read.
type unread struct{}

func (unread) Write(p []byte) (int, error) { return len(p), nil }

func (unread) finish(m *Mark) bool {
	m.Packages = &Packages{Count: -1}
	return true
}
