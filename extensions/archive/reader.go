package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/tarport/tarport/storage/layer"
)

// The files that say what is in an archive.
const (
	manifestName = "manifest.json"
	indexName    = "index.json"
	layoutName   = "oci-layout"
)

// reader reads the one tar of a body, entry after entry.
type reader struct {
	limits Limits
	in     *stream
	tr     *tar.Reader
	c      *contents
	layers *intake
	report *reporter
	memory int64 // spent of Limits.Memory
	kept   int   // files that are tars or compressed
	roots  map[string]bool
}

// maxName is the longest name that is kept: what is longer is nobody's layer.
const maxName = 4096

// nameCost is what an entry costs in memory beside its name.
const nameCost = 256

// read reads the stream to its end.
func (rd *reader) read(ctx context.Context) error {
	rd.tr = tar.NewReader(rd.in)
	for n := 0; ; n++ {
		h, err := rd.tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return rd.in.broken(err, "after "+rd.c.lastEntry())
		}
		if n >= rd.limits.Entries {
			return tooLarge("the archive has more than %d entries", rd.limits.Entries)
		}
		if err := rd.entry(ctx, h); err != nil {
			return err
		}
	}
	return rd.in.drain()
}

func (rd *reader) entry(ctx context.Context, h *tar.Header) error {
	// The type before the name: archive/tar returns a PAX global header as an
	// entry, named by its own path record.
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if layer.IsSparse(h) {
		return invalid("the entry %s is a sparse file: pack the archive without --sparse", quoted(h.Name))
	}
	name, ok := cleanName(h.Name)
	if !ok {
		return nil // it is outside: nobody can name it
	}
	rd.c.last = name
	if err := rd.lookAtRoot(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		if err := rd.spend(int64(len(name)+len(h.Linkname)) + nameCost); err != nil {
			return err
		}
		rd.c.addLink(name, h.Linkname, h.Typeflag == tar.TypeLink)
		return nil
	default:
		return nil
	}
	if err := rd.spend(int64(len(name)) + nameCost); err != nil {
		return err
	}
	f := rd.c.add(name, h.Size)
	if f == nil {
		return nil // a second one of the name; whoever names it is told
	}
	return rd.file(ctx, f)
}

// file takes in one regular file: what looks like a layer goes to the store,
// the rest stays in memory where it is small.
func (rd *reader) file(ctx context.Context, f *file) error {
	head := make([]byte, min(layer.BlockSize, f.size))
	if _, err := io.ReadFull(rd.tr, head); err != nil {
		return rd.in.broken(err, "in the entry "+quoted(f.name))
	}
	f.compression = layer.CompressionOf(head)
	body := &entryReader{rd: rd, f: f, r: io.MultiReader(bytes.NewReader(head), rd.tr)}
	isLayer := f.compression != uncompressed || layer.IsTar(head) || f.size == 0 && (f.pinned() || strings.HasSuffix(f.name, ".tar"))
	most := rd.limits.JSON
	if f.name == manifestName {
		most = rd.limits.ManifestJSON
	}
	switch {
	case isLayer:
		if rd.kept++; rd.kept > rd.limits.Layers {
			return rd.notAnArchive(tooLarge("the archive has more than %d layers", rd.limits.Layers))
		}
		return rd.layers.layer(ctx, f, body)
	case f.size <= most:
		if err := rd.spend(f.size); err != nil {
			return err
		}
		f.data = make([]byte, f.size)
		_, err := io.ReadFull(body, f.data)
		return err
	case f.name == manifestName || f.name == indexName || f.name == layoutName:
		return tooLarge("%s has %d bytes, at most %d are read", f.name, f.size, most)
	}
	if !f.pinned() {
		return nil // large, no layer, and no manifest can name it
	}
	if rd.kept++; rd.kept > rd.limits.Layers {
		return tooLarge("the archive has more than %d large files", rd.limits.Layers)
	}
	return rd.layers.opaque(ctx, f, body)
}

// spend takes n bytes of what an archive may have in memory.
func (rd *reader) spend(n int64) error {
	if rd.memory += n; rd.memory > rd.limits.Memory {
		return rd.notAnArchive(tooLarge("the archive has more than %d bytes of configs, manifests and other small files", rd.limits.Memory))
	}
	return nil
}

// cleanName is the key of an entry: "./a", "/a" and "a//" are a. False where
// the name leads out of the archive, is its root, or is too long to be one
// that matters.
func cleanName(name string) (string, bool) {
	if len(name) > maxName {
		return "", false
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", false
	}
	return clean, true
}

// entryReader reads a file's bytes and tells errors of the stream from others.
type entryReader struct {
	rd  *reader
	f   *file
	r   io.Reader
	n   int64
	err error // of the stream, not io.EOF
}

func (e *entryReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.r.Read(p)
	e.n += int64(n)
	e.rd.report.passed(e.f, e.n)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = e.rd.in.broken(err, "in the entry "+quoted(e.f.name))
		err = e.err
	}
	return n, err
}

// rootDirs are the directories of a Unix root: no image archive has them.
var rootDirs = map[string]bool{
	"bin": true, "boot": true, "dev": true, "etc": true, "home": true, "lib": true, "lib64": true, "media": true, "mnt": true,
	"opt": true, "proc": true, "root": true, "run": true, "sbin": true, "srv": true, "sys": true, "tmp": true, "usr": true, "var": true,
}

// lookAtRoot notices a root file system early: what docker export writes is
// large, and its sender should not wait for the end to learn that it is at the
// wrong door.
func (rd *reader) lookAtRoot(name string) error {
	top, _, _ := strings.Cut(name, "/")
	if !rootDirs[top] || rd.roots[top] || rd.c.hasMarker() {
		return nil
	}
	rd.roots[top] = true
	if len(rd.roots) < 4 {
		return nil
	}
	return errRootFS
}

// notAnArchive prefers the reason why an archive is too large.
func (rd *reader) notAnArchive(err error) error {
	if len(rd.roots) > 1 && !rd.c.hasMarker() {
		return errRootFS
	}
	return err
}

var errRootFS = invalid("this is a root file system, as docker export writes it, and not an image: " +
	"use archives/import to make an image of it, or docker save to get an archive that can be loaded")
