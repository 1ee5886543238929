package layer

import (
	"archive/tar"
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

// NewDelta returns a Delta over base, which it does not change.
func NewDelta(base *Tree, spool Spool) *Delta {
	d := &Delta{base: base, export: NewTree(), spool: spool}
	d.export.begin()
	d.ix = newIndexer(d.add, nil, d)
	return d
}

// Write takes the next plain bytes of the export.
func (d *Delta) Write(p []byte) (int, error) {
	n, _ := d.ix.Write(p)
	return n, d.err
}

// RefusedError is the error of an export that is a good tar and cannot be made a
// layer of.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

func refused(format string, args ...any) error {
	return &RefusedError{fmt.Sprintf(format, args...)}
}

// Entry is the Delta as the Collector of its own Indexer; nobody else calls it.
func (d *Delta) Entry(h *tar.Header) io.Writer {
	p := CleanPath(h.Name)
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
		return spooling{d}
	}
	return nil
}

// spooling is the content of a file on its way.
type spooling struct{ d *Delta }

func (s spooling) Write(p []byte) (int, error) {
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
		d.err = d.export.add(0, e)
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

// Close tells that the export is complete, and compares. A RefusedError says
// what no layer can be made of, ErrTooLarge that there is too much of it; any
// other error, where none was returned by Write, what is wrong with the tar.
func (d *Delta) Close() error {
	defer d.ix.Abandon()
	if err := d.ix.Close(); d.err != nil || err != nil {
		if d.err != nil {
			return d.err
		}
		return err
	}
	d.compare()
	return nil
}

// Abandon ends a Delta whose export is not read on.
func (d *Delta) Abandon() { d.ix.Abandon() }

// Stats tells how the two differ, after Close.
func (d *Delta) Stats() Stats { return d.stats }

// Empty tells whether nothing differs, after Close.
func (d *Delta) Empty() bool { return len(d.changes) == 0 }
