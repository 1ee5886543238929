// Package tarball looks into an image archive on the client's side: what images
// and layers it names, found from the tar's headers and its JSON files alone, so
// that a layer which the registry has need not be sent.
//
//	file ─ Scan ─> Archive ─ Layers ─> the registry is asked which it lacks
//	                   └──── Without(those it has) ─> Ranges of the file
//	                                  Ranges.Of(file) ─> a Body to send
//
// It checks nothing: the registry does, of what it gets. Where an archive is
// not understood here it is sent as it is. The forms are those of docker save,
// podman, skopeo, buildx, crane and the others that extensions/archive takes:
// manifest.json, index.json, or both.
package tarball

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The files that say what is in an archive, and what is read of one.
const (
	manifestName = "manifest.json"
	indexName    = "index.json"

	maxEntries = 100_000
	maxJSON    = 20 << 20 // of one file
	maxMemory  = 64 << 20 // of all files together
	maxDepth   = 8        // of indexes in indexes
	maxLinks   = 10
)

// Archive is what an image archive holds.
type Archive struct {
	// Names are the names of its images, as they stand there, each once.
	Names []string
	// Layers are the files that are layers of its images, each once.
	Layers []*Layer
	// Size is how long the tar is, unpacked.
	Size int64
	// Manifests is how many images and platforms were found.
	Manifests int

	end   int64 // of the last entry
	byKey map[*file]*Layer
}

// Layer is a file that is a layer, with all that refers to it.
type Layer struct {
	// DiffIDs are those that configs have for it: manifest.json names the file.
	DiffIDs []digest.Digest
	// Digests are those that manifests have for it: its place is that of a blob.
	Digests []digest.Digest
	// Size is the file's, as it is in the archive.
	Size int64

	file *file
}

// file is an entry with content.
type file struct {
	head, body, end int64 // where its headers, its content, and what follows begin
	size            int64
	data            []byte // what scan kept of it
	twice           bool
}

// scanner collects the entries of a tar.
type scanner struct {
	at     io.ReaderAt // nil: files are kept as they pass
	files  map[string]*file
	links  map[string]string // cleaned targets
	memory int64
	a      *Archive
}

var errNotImages = errors.New("there is neither a manifest.json nor an index.json")

// Scan reads a tar that is not compressed. Where r is an io.Seeker too, the
// content of large files is skipped; at is the same file, or nil where r is a
// stream, of which the small files are then kept. An error means that the
// archive is better sent as it is.
func Scan(r io.Reader, at io.ReaderAt) (*Archive, error) {
	s := &scanner{at: at, files: map[string]*file{}, links: map[string]string{}, a: &Archive{byKey: map[*file]*Layer{}}}
	if err := s.entries(r); err != nil {
		return nil, err
	}
	if s.files[manifestName] == nil && s.files[indexName] == nil {
		return nil, errNotImages
	}
	if err := s.index(); err != nil {
		return nil, err
	}
	if err := s.manifest(); err != nil {
		return nil, err
	}
	return s.a, nil
}

func (s *scanner) entries(r io.Reader) error {
	pos := &position{r: r}
	in := io.Reader(pos)
	if seeker, ok := r.(io.Seeker); ok {
		in = &seekPosition{position: pos, seeker: seeker}
	}
	tr := tar.NewReader(in)
	end := int64(0)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		if n == maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		f := &file{head: end, body: pos.n, size: h.Size}
		if headerOnly(h.Typeflag) {
			f.size = 0
		}
		end = f.body + (f.size+blockSize-1)/blockSize*blockSize
		f.end = end
		if err := s.entry(tr, h, f); err != nil {
			return err
		}
	}
	s.a.Size, s.a.end = pos.n, end
	return nil
}

func (s *scanner) entry(tr *tar.Reader, h *tar.Header, f *file) error {
	if h.Typeflag == tar.TypeGNUSparse {
		return errors.New("it has a sparse file")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("it has a sparse file")
		}
	}
	name := clean(h.Name)
	if s.memory += int64(len(name)+len(h.Linkname)) + 128; s.memory > maxMemory {
		return errors.New("its names are too many")
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		target := h.Linkname
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(name), target)
		}
		s.links[name] = clean(target)
	case tar.TypeLink:
		s.links[name] = clean(h.Linkname)
	case tar.TypeReg:
		if before := s.files[name]; before != nil {
			before.twice = true
			return nil
		}
		s.files[name] = f
		if s.at == nil {
			return s.keep(tr, f)
		}
	}
	return nil
}

// keep reads a file that can be JSON, while it passes.
func (s *scanner) keep(tr *tar.Reader, f *file) error {
	first := make([]byte, 1)
	if _, err := io.ReadFull(tr, first); err != nil || f.size > maxJSON || first[0] != '{' && first[0] != '[' {
		return nil //nolint:nilerr // an empty file; tar's own errors come again with the next entry
	}
	if s.memory += f.size; s.memory > maxMemory {
		return errors.New("its small files are too large together")
	}
	f.data = make([]byte, f.size)
	f.data[0] = first[0]
	if _, err := io.ReadFull(tr, f.data[1:]); err != nil {
		return fmt.Errorf("read the tar: %w", err)
	}
	return nil
}

// find is the file of a name, through links.
func (s *scanner) find(name string) (*file, error) {
	key := clean(name)
	for range maxLinks {
		if f := s.files[key]; f != nil {
			if f.twice {
				return nil, fmt.Errorf("it has %s twice", key)
			}
			return f, nil
		}
		target, ok := s.links[key]
		if !ok {
			return nil, fmt.Errorf("it has no %s", key)
		}
		key = target
	}
	return nil, fmt.Errorf("%s is a chain of links", name)
}

// decode reads a JSON file.
func (s *scanner) decode(f *file, v any) error {
	b := f.data
	if b == nil {
		if s.at == nil || f.size > maxJSON {
			return errors.New("one of its descriptions is no JSON")
		}
		if s.memory += f.size; s.memory > maxMemory {
			return errors.New("its small files are too large together")
		}
		b = make([]byte, f.size)
		if _, err := s.at.ReadAt(b, f.body); err != nil {
			return err
		}
	}
	return json.Unmarshal(b, v)
}

// layer is the layer of a file.
func (s *scanner) layer(f *file) *Layer {
	l := s.a.byKey[f]
	if l == nil {
		l = &Layer{Size: f.size, file: f}
		s.a.byKey[f] = l
		s.a.Layers = append(s.a.Layers, l)
	}
	return l
}

func (a *Archive) name(s string) {
	if s != "" {
		a.Names = appendNew(a.Names, s)
	}
}

func appendNew[T comparable](list []T, v T) []T {
	for _, has := range list {
		if has == v {
			return list
		}
	}
	return append(list, v)
}

// clean is the key of a name: "./a", "/a" and "a//" are a.
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

const blockSize = 512

// headerOnly tells of which entries archive/tar reads no content, whatever
// their size says.
func headerOnly(flag byte) bool {
	switch flag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return true
	}
	return false
}

// position counts what a tar.Reader has read.
type position struct {
	r io.Reader
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

// seekPosition lets it skip.
type seekPosition struct {
	*position
	seeker io.Seeker
}

func (p *seekPosition) Seek(offset int64, whence int) (int64, error) {
	n, err := p.seeker.Seek(offset, whence)
	if err == nil {
		p.n = n
	}
	return n, err
}
