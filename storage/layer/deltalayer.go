package layer

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// need is a content that the layer has to have and only the base has: of a file
// that has a new name.
type need struct {
	layer  int32
	offset int64 // in the plain layer
	export int32 // the inode
}

// Missing returns the layers of the base, as their numbers in its Tree, that
// Supply has to be called with before WriteLayer. There are none but where an
// unchanged file got one more name: the layer has to have the file itself too,
// since Docker unpacks a layer by itself, and there a hard link into another one
// leads nowhere.
func (d *Delta) Missing() []int {
	d.missing = d.missing[:0]
	for _, c := range d.changes {
		if c.export == none || c.link != "" {
			continue
		}
		i := d.export.nodes[c.export].inode
		x := &d.export.inodes[i]
		if b, ok := baseInode(x.offset); ok && x.kind == tar.TypeReg {
			from := &d.base.inodes[b]
			d.missing = append(d.missing, need{from.layer, from.offset, i})
		}
	}
	slices.SortFunc(d.missing, func(a, b need) int { return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.offset, b.offset)) })
	var layers []int
	for _, n := range d.missing {
		if l := int(n.layer); len(layers) == 0 || layers[len(layers)-1] != l {
			layers = append(layers, l)
		}
	}
	return layers
}

// Supply takes what is missing out of the plain bytes of a layer of the base, and
// reads no further.
func (d *Delta) Supply(layer int, plain io.Reader) error {
	var pos int64
	h := sha256.New()
	last := need{offset: -1}
	for _, n := range d.missing {
		x := &d.export.inodes[n.export]
		if int(n.layer) != layer {
			continue
		}
		if n.offset == last.offset { // one file of the base, which the export has as two
			x.offset = d.export.inodes[last.export].offset
			continue
		}
		last = n
		if n.offset < pos {
			return fmt.Errorf("%w: two files lie over each other", ErrIndex)
		}
		if _, err := io.CopyN(io.Discard, plain, n.offset-pos); err != nil {
			return fmt.Errorf("read a layer of the base: %w", noEOF(err))
		}
		at := d.spool.Mark()
		h.Reset()
		if _, err := io.CopyN(io.MultiWriter(d.spool, h), plain, x.size); err != nil {
			return fmt.Errorf("copy from a layer of the base: %w", noEOF(err))
		}
		if !bytes.Equal(h.Sum(nil), x.sha256[:]) {
			return fmt.Errorf("%w: a file's content is not what it says", ErrIndex)
		}
		pos = n.offset + x.size
		x.offset = at
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteLayer writes the layer: a tar in which a directory stands before what is
// in it, the rest in the order of the names' bytes, what is gone in front.
// contents is what the spool has got. The same two file systems give the same
// bytes.
func (d *Delta) WriteLayer(w io.Writer, contents io.ReadSeeker) error {
	out := &sink{w: w}
	tw := tar.NewWriter(out)
	buf := make([]byte, 64<<10)
	pos := int64(-1)
	for i := range d.changes {
		c := &d.changes[i]
		h := d.header(c)
		if err := tw.WriteHeader(h); err != nil && out.err == nil {
			return refused("%s has an owner, number or name that no tar can have: %v", quoted(c.path), err)
		}
		if out.err != nil {
			return fmt.Errorf("write the entry %s: %w", quoted(c.path), out.err)
		}
		if h.Size == 0 {
			continue
		}
		offset := d.export.inodes[d.export.nodes[c.export].inode].offset
		if offset != pos {
			if _, err := contents.Seek(offset, io.SeekStart); err != nil {
				return fmt.Errorf("read what is new: %w", err)
			}
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(contents, h.Size), buf)
		if err == nil && n < h.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("write the content of %s: %w", quoted(c.path), err)
		}
		pos = offset + n
	}
	return tw.Close()
}

// sink remembers its writer's error.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = errors.Join(s.err, err)
	return n, err
}

// header is the tar header of an edit: as docker's, but without names of owners
// and without the bits of the file's type, which no reader asks.
func (d *Delta) header(c *edit) *tar.Header {
	if c.export == none {
		// docker's mode; the time is not known, and one that is always the same
		// makes equal deltas equal.
		return &tar.Header{Name: c.path, Typeflag: tar.TypeReg, Mode: 0o600, ModTime: time.Unix(0, 0)}
	}
	t, i := d.export, d.export.nodes[c.export].inode
	if t.inodes[i].implied && c.base != none && d.base.inodes[d.base.nodes[c.base].inode].kind == tar.TypeDir {
		t, i = d.base, d.base.nodes[c.base].inode // the export does not tell
	}
	x, r := &t.inodes[i], t.rare[i]
	h := &tar.Header{
		Name: c.path, Typeflag: x.kind, Mode: int64(x.mode), Uid: x.uid, Gid: x.gid,
		ModTime: time.Unix(x.mtime, int64(x.nano)), Linkname: r.linkname, Devmajor: r.major, Devminor: r.minor,
	}
	if x.nano != 0 {
		h.Format = tar.FormatPAX // others round
	}
	if r.capability != "" {
		h.PAXRecords = map[string]string{CapabilityRecord: r.capability}
	}
	switch {
	case c.link != "":
		h.Typeflag, h.Linkname, h.Devmajor, h.Devminor = tar.TypeLink, c.link, 0, 0
	case x.kind == tar.TypeDir:
		h.Name += "/"
	case x.kind == tar.TypeReg:
		h.Size = x.size
	}
	return h
}
