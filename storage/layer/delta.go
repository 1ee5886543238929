package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// Delta finds what a file system has that its base has not, and the other way
// round, and writes it as a layer: what docker commit makes of a container, from
// what docker export writes of it.
//
//	export ──> Delta ──┬─ unchanged, by its sha256 ──> forgotten
//	                   └─ the rest ──> Spool
//	Close: both trees are compared
//	Missing, Supply: contents that only the base has, for hard links
//	WriteTo: the layer
//
// The export is read once, in its own order. Every content goes to the Spool
// while it is hashed and is taken back where it is the base's, so that nothing is
// in memory but the trees. It is for one goroutine.
type Delta struct {
	base, export *Tree
	spool        Spool
	watch        Collector // may be nil
	ix           *Indexer
	err          error // why the export cannot be compared

	at      int64  // in the spool, of the body that passes
	changes []edit // after Close
	missing []need
	stats   Stats
}

// Spool keeps what may be new while the export is read.
type Spool interface {
	// Write appends.
	io.Writer
	// Mark is where the next byte goes.
	Mark() int64
	// Rewind tells that what was written since Mark returned at is not needed.
	Rewind(at int64) error
}

// Stats tell how an export differs from its base.
type Stats struct {
	// BaseFiles are the regular files of the base, and Kept those whose content
	// is the same under the same path in the export.
	BaseFiles, Kept int
	// Added, Changed and Deleted are paths: of what was deleted as a whole the
	// topmost.
	Added, Changed, Deleted int
}

// NewDelta returns a Delta over base, which it does not change. watch sees the
// entries of the export as an Indexer's Collector does, first; it may be nil.
func NewDelta(base *Tree, spool Spool, watch Collector) *Delta {
	d := &Delta{base: base, export: NewTree(), spool: spool, watch: watch}
	d.export.begin()
	d.ix = newIndexer(d.add, nil, d)
	return d
}

// Write takes the next plain bytes of the export. An ExportError says why no
// layer can be made of it, ErrTooLarge that there is too much in it.
func (d *Delta) Write(p []byte) (int, error) {
	n, _ := d.ix.Write(p)
	if err := d.ix.Broken(); err != nil {
		d.fail(err)
	}
	return n, d.err
}

// ExportError is an error of the export, and not of what it is compared with.
type ExportError struct{ Reason string }

func (e *ExportError) Error() string { return e.Reason }

func refused(format string, args ...any) error {
	return &ExportError{fmt.Sprintf(format, args...)}
}

// fail notes the first error of the export.
func (d *Delta) fail(err error) {
	switch {
	case d.err != nil:
	case errors.Is(err, ErrTooLarge):
		d.err = err
	default:
		d.err = &ExportError{err.Error()}
	}
}

// Entry is the Delta as the Collector of its own Indexer; nobody else calls it.
func (d *Delta) Entry(h *tar.Header) io.Writer {
	p := CleanPath(h.Name)
	var watching io.Writer
	if d.watch != nil {
		watching = d.watch.Entry(h)
	}
	switch {
	case d.err != nil:
		return nil
	case hasMarker(p):
		// docker commit takes them, and makes an image in which something else is
		// gone and which docker save cannot save.
		d.err = refused("%s begins with .wh., which in a layer stands for a file that was deleted: an image cannot have a file of that name", quoted(p))
	case h.Typeflag == tar.TypeReg && IsSparse(h):
		d.err = refused("%s is a sparse file: pack the file system without --sparse", quoted(p))
	case h.Typeflag == tar.TypeReg:
		d.at = d.spool.Mark()
		return spooling{d, watching}
	}
	return nil
}

// spooling is the content of a file on its way.
type spooling struct {
	d     *Delta
	watch io.Writer // may be nil
}

func (s spooling) Write(p []byte) (int, error) {
	if s.watch != nil {
		_, _ = s.watch.Write(p) // its own affair
	}
	n, err := s.d.spool.Write(p)
	if err != nil {
		s.d.err = fmt.Errorf("keep what is new: %w", err)
	}
	return n, err
}

// add is called with each entry when its body has passed.
func (d *Delta) add(e *Entry) error {
	if d.err != nil {
		return d.err
	}
	if e.Type == tar.TypeReg {
		e.Offset = d.at
		if i, ok := d.inBase(e); ok {
			e.Offset = inBase(i)
			d.err = d.spool.Rewind(d.at)
		}
	}
	if d.err == nil {
		if err := d.export.add(0, e); err != nil {
			d.fail(err)
		}
	}
	return d.err
}

// inBase finds the inode of the base that has an entry's content under the same
// path, unless something else of the entry is new: then the content has to be in
// the layer.
func (d *Delta) inBase(e *Entry) (int32, bool) {
	n, ok := d.base.find(e.Path)
	if !ok {
		return 0, false
	}
	i := d.base.nodes[n].inode
	x, r := inodeOf(0, e)
	return i, sameFile(&d.base.inodes[i], &x, d.base.rare[i], r)
}

// The content of a file of the export is in the spool at its inode's offset, or
// it is that of an inode of the base, where the offset is negative.
func inBase(i int32) int64 { return -1 - int64(i) }

func baseInode(offset int64) (i int32, ok bool) {
	return int32(-1 - offset), offset < 0 //nolint:gosec // what inBase made
}

// Close tells that the export is complete, and compares. Errors are as Write's.
func (d *Delta) Close() error {
	defer d.ix.Abandon()
	if err := d.ix.Close(); err != nil {
		d.fail(err)
	}
	if d.err == nil && !d.ix.ended {
		// What a layer may lack would here delete what comes behind the cut.
		d.err = refused("it has no end: it was cut off")
	}
	if d.err == nil {
		d.compare()
	}
	return d.err
}

// Abandon ends a Delta whose export is not read on.
func (d *Delta) Abandon() { d.ix.Abandon() }

// Len is how many paths of the export are in memory.
func (d *Delta) Len() int { return d.export.Len() }

// Stats tells how the two differ, after Close.
func (d *Delta) Stats() Stats { return d.stats }

// Empty tells whether nothing differs, after Close.
func (d *Delta) Empty() bool { return len(d.changes) == 0 }
