package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage/layer"
)

// ExportRequest names the image whose file system is wanted.
type ExportRequest struct {
	Image    string // as tarport.ParseImage takes it
	Platform string // such as linux/arm64; "" for the only one, or linux/amd64
}

// Export writes the file system that an image's layers make, as docker export
// writes a container's: one tar, names relative and in the order of their bytes
// (layer by layer where the layers are in another order), hard links after the
// file that they are of, times in whole seconds, of the extended attributes
// security.capability. What Docker itself adds to a container (.dockerenv, its
// mount points) is not there. It is the same to the byte each time.
//
// Errors from before the first byte are *tarport.Error as Save's. One that
// comes later leaves what was written without the tar's end.
func (s *Service) Export(ctx context.Context, w io.Writer, q ExportRequest) error {
	x, err := s.newExport(ctx, q)
	if err != nil {
		return err
	}
	defer x.close()
	return x.writeTo(ctx, w)
}

// export is a file system that is to be written.
type export struct {
	s      *Service
	name   string // for a file
	size   int64  // of the tar
	blobs  []digest.Digest
	tree   *layer.Tree
	files  []int // by layer: how many files have their content there
	sorted bool  // the files of each layer are in the order of the tree
	held   int64 // of Service.paths

	small, windows *places.Share // of Service.small and Service.windows
}

// What exports may cost that are under way. The client decides how long one
// takes, so there may be many.
const (
	exportTrees   = 4         // are made at once
	smallExport   = 20_000    // paths of an export that large ones do not keep out
	smallPaths    = 1_000_000 // of all of those
	exportWindows = 16        // zstd layers that all are reading: up to 128 MiB each
	layerwise     = 3         // what a path costs, where files are sorted by their layers
)

// hold tells that this export has a tree of so many paths in memory, and times as
// much as a tree needs.
func (x *export) hold(paths, times int) error {
	n := int64(paths) * int64(times)
	if paths <= smallExport {
		return x.small.Take(n)
	}
	x.held += n
	if all := x.s.paths.Add(n); all > maxPaths {
		return tarport.Errorf(tarport.Unavailable, "too many large exports or commits are under way: try again later")
	}
	return nil
}

// close gives back what was held; nothing the second time.
func (x *export) close() {
	x.s.paths.Add(-x.held)
	x.held = 0
	x.small.Leave()
	x.windows.Leave()
}

func (s *Service) newExport(ctx context.Context, q ExportRequest) (_ *export, err error) {
	defer func() { s.refused(ctx, KindExport, err) }()
	v, err := s.newSaving(ctx, SaveRequest{Format: formatOCI, Platform: q.Platform})
	if err != nil {
		return nil, err
	}
	defer v.memory.Leave()
	roots, err := v.authorized(ctx, slices.DeleteFunc([]string{q.Image}, func(name string) bool { return name == "" }))
	if err != nil {
		return nil, err
	}
	r := roots[0]
	if err := v.root(ctx, r); err != nil {
		return nil, within(err, "%s", r.words)
	}
	m, err := r.only("an export", "")
	if err != nil {
		return nil, within(err, "%s", r.words)
	}
	x := &export{
		s: s, name: fileWords(r.repository, r.ref) + "-rootfs.tar", files: make([]int, len(m.layers)),
		small: s.small.Enter(ctx), windows: s.windows.Enter(ctx),
	}
	for _, d := range m.layers {
		x.blobs = append(x.blobs, d.Digest)
	}
	err = x.plant(ctx, m)
	if err == nil {
		err = x.survey()
	}
	if err == nil {
		err = x.limitOpen(ctx, r.repository, m.layers)
	}
	if err != nil {
		x.close()
		return nil, within(err, "%s", r.words)
	}
	return x, nil
}

// plant makes the tree when it is its turn, and holds its paths.
func (x *export) plant(ctx context.Context, m *saved) (err error) {
	leave, err := x.s.planting.Take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if x.tree, err = x.s.tree(ctx, m.layers, m.diffIDs); err != nil {
		return err
	}
	return x.hold(x.tree.Len(), 1)
}

// survey adds up the size, and finds out whether all files come in the order of
// the tree when their layers are read side by side.
func (x *export) survey() error {
	x.sorted, x.size = true, tarEnd
	last := make([]int64, len(x.blobs))
	names := linkNames{}
	for n := range x.tree.Walk() {
		h := names.header(n)
		if h == nil {
			continue
		}
		b, err := headerBytes(h)
		if err != nil {
			return err
		}
		x.size += int64(len(b)) + padded(h.Size)
		if h.Size > 0 {
			x.files[n.Layer]++
			x.sorted = x.sorted && n.Entry.Offset > last[n.Layer]
			last[n.Layer] = n.Entry.Offset
		}
	}
	return nil
}

// How many layers are read side by side at most. Those of zstd can need a window
// of many megabytes each.
const (
	maxOpen     = 100
	maxOpenZstd = 4
)

func (x *export) limitOpen(ctx context.Context, repository string, layers []ocispec.Descriptor) error {
	open, zstd := 0, 0
	for i, n := range x.files {
		if n == 0 {
			continue
		}
		isZstd, err := x.s.isZstd(ctx, repository, layers[i])
		if err != nil {
			return err
		}
		if open++; isZstd {
			zstd++
		}
	}
	if x.sorted = x.sorted && open <= maxOpen && zstd <= maxOpenZstd; !x.sorted {
		zstd = min(zstd, 1)
		if err := x.hold(x.tree.Len(), layerwise-1); err != nil {
			return err
		}
	}
	return x.windows.Take(int64(zstd))
}

// linkNames are the first names of files that have several, by layer.Node.File.
type linkNames map[int]string

// header is what stands for a node in the tar: of a file's second name, a hard
// link to the first. The root has none: docker export leaves it out.
func (l linkNames) header(n layer.Node) *tar.Header {
	if n.Path == "." {
		return nil
	}
	e := n.Entry
	h := &tar.Header{Typeflag: e.Type, Name: n.Path, Mode: int64(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: time.Unix(e.ModTime, 0)}
	if e.Capability != nil {
		h.PAXRecords = map[string]string{layer.CapabilityRecord: string(e.Capability)}
	}
	if n.Links > 1 && e.Type != tar.TypeDir {
		if first, ok := l[n.File]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return h
		}
		l[n.File] = n.Path
	}
	switch e.Type {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeReg:
		h.Size = e.Size
	case tar.TypeSymlink:
		h.Linkname = e.Linkname
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = e.Major, e.Minor
	}
	return h
}

func (x *export) writeTo(ctx context.Context, w io.Writer) error {
	out := &exportWriter{Writer: bufio.NewWriterSize(w, 64<<10), sum: sha256.New(), buf: make([]byte, bufferSize)}
	open := make([]*layerFiles, len(x.blobs))
	defer func() {
		for _, l := range open {
			l.close()
		}
	}()
	var err error
	if x.sorted {
		err = x.writeSorted(ctx, out, open)
	} else {
		err = x.writeByLayer(ctx, out, open)
	}
	if err != nil {
		return err
	}
	if _, err := out.Write(zeros[:]); err != nil {
		return err
	}
	return out.Flush()
}

// writeSorted reads all layers side by side.
func (x *export) writeSorted(ctx context.Context, out *exportWriter, open []*layerFiles) error {
	names, left := linkNames{}, append([]int(nil), x.files...)
	for n := range x.tree.Walk() {
		h := names.header(n)
		if h == nil {
			continue
		}
		if h.Size == 0 {
			if err := out.header(h); err != nil {
				return err
			}
			continue
		}
		if err := x.write(ctx, out, open, wanted{h, n.Layer, n.Entry}); err != nil {
			return err
		}
		if left[n.Layer]--; left[n.Layer] == 0 {
			open[n.Layer].close()
		}
	}
	return nil
}

// wanted is a file whose content is in a layer.
type wanted struct {
	header *tar.Header
	layer  int
	entry  layer.Entry
}

// write writes one file with its content.
func (x *export) write(ctx context.Context, out *exportWriter, open []*layerFiles, f wanted) error {
	if open[f.layer] == nil {
		in, err := x.s.o.Store.OpenLayer(ctx, x.blobs[f.layer])
		if err != nil {
			return err
		}
		open[f.layer] = newLayerFiles(in)
	}
	body, err := open[f.layer].at(f.entry.Offset)
	if err == nil {
		err = out.file(f.header, body)
	}
	if err == nil && !f.entry.Sparse && !bytes.Equal(out.sum.Sum(nil), f.entry.SHA256[:]) {
		err = errors.New("its content is not what it was")
	}
	if err != nil {
		return fmt.Errorf("read %s in layer %s: %w", quoted(f.header.Name), x.blobs[f.layer], err)
	}
	return nil
}

// writeByLayer writes first what needs no content, then the files of one layer
// after the other, as they come there.
func (x *export) writeByLayer(ctx context.Context, out *exportWriter, open []*layerFiles) error {
	names := linkNames{}
	files := make([][]wanted, len(x.blobs))
	links := map[string][]*tar.Header{} // by the name of the file
	for n := range x.tree.Walk() {
		h := names.header(n)
		switch {
		case h == nil:
		case h.Size > 0:
			files[n.Layer] = append(files[n.Layer], wanted{h, n.Layer, n.Entry})
		case h.Typeflag == tar.TypeLink && n.Entry.Size > 0:
			links[h.Linkname] = append(links[h.Linkname], h)
		default:
			if err := out.header(h); err != nil {
				return err
			}
		}
	}
	for l, list := range files {
		slices.SortFunc(list, func(a, b wanted) int { return cmp.Compare(a.entry.Offset, b.entry.Offset) })
		for _, f := range list {
			if err := x.write(ctx, out, open, f); err != nil {
				return err
			}
			for _, link := range links[f.header.Name] {
				if err := out.header(link); err != nil {
					return err
				}
			}
		}
		open[l].close()
		files[l] = nil
	}
	return nil
}

// exportWriter writes a tar.
type exportWriter struct {
	*bufio.Writer
	sum hash.Hash // of the last file's content
	buf []byte
}

func (w *exportWriter) header(h *tar.Header) error {
	b, err := headerBytes(h)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func (w *exportWriter) file(h *tar.Header, body io.Reader) error {
	if err := w.header(h); err != nil {
		return err
	}
	w.sum.Reset()
	n, err := io.CopyBuffer(io.MultiWriter(w.sum, w.Writer), struct{ io.Reader }{io.LimitReader(body, h.Size)}, w.buf)
	if err == nil && n < h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = w.Write(zeros[:padded(n)-n])
	}
	return err
}

// layerFiles are the files of a layer, read forward.
type layerFiles struct {
	in  io.ReadCloser
	n   int64 // read of in
	tar *tar.Reader
}

func newLayerFiles(in io.ReadCloser) *layerFiles {
	l := &layerFiles{in: in}
	l.tar = tar.NewReader(struct{ io.Reader }{l})
	return l
}

func (l *layerFiles) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	l.n += int64(n)
	return n, err
}

// at goes on to the entry whose body begins at the offset, and returns the body,
// with the zeros of a sparse file.
func (l *layerFiles) at(offset int64) (io.Reader, error) {
	for {
		if _, err := l.tar.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		switch {
		case l.n == offset:
			return l.tar, nil
		case l.n > offset:
			return nil, fmt.Errorf("there is no file at byte %d, where its index has one", offset)
		}
	}
}

// close may be called more than once, and on nil.
func (l *layerFiles) close() {
	if l != nil && l.in != nil {
		_ = l.in.Close() // a reader; there is nothing to lose
		l.in = nil
	}
}
