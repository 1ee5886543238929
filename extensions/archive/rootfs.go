package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/tarport/tarport/storage/layer"
)

// rootFS looks at the entries of a root file system as they pass, and notices
// what no layer may hold, or what is no root file system.
type rootFS struct {
	most  int // entries
	seen  int
	files *nameSet // that a hard link can be made to; symlinks are marked
	last  string
	err   error

	root     bool // whether there is a directory that root file systems have
	archive  bool // whether all files so far are such as image archives have
	index    bool // and one of them is the list of the others
	blobs    int
	manifest bytes.Buffer // what begins as the list of docker save does
}

func newRootFS(most int) *rootFS {
	return &rootFS{most: most, files: newNameSet(), archive: true}
}

// Entry makes it a layer.Collector.
func (fs *rootFS) Entry(h *tar.Header) io.Writer {
	if fs.err != nil {
		return nil
	}
	if fs.err = fs.entry(h); fs.err == nil && fs.last == manifestName && h.Typeflag == tar.TypeReg {
		return &head{&fs.manifest, manyBytes}
	}
	return nil
}

// head is a writer that keeps the beginning.
type head struct {
	b    *bytes.Buffer
	left int
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.left)
	h.left -= n
	h.b.Write(p[:n])
	return len(p), nil
}

func (fs *rootFS) entry(h *tar.Header) error {
	if fs.seen++; fs.seen > fs.most {
		return tooLarge("the root file system has more than %d entries", fs.most)
	}
	name := layer.CleanPath(h.Name)
	fs.last = name
	if strings.Contains("/"+name, "/.wh.") {
		return invalid("the root file system has an entry %s: such names stand for deleted files in the layers of images, so it "+
			"cannot be kept; rename or remove it", quoted(name))
	}
	if top, _, _ := strings.Cut(name, "/"); rootDirs[top] {
		fs.root = true
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		if to := layer.CleanPath(h.Linkname); !fs.has(to) {
			return invalid("the entry %s is a hard link to %s, which is no file before it", quoted(name), quoted(to))
		}
	}
	fs.files.add(name, h.Typeflag == tar.TypeSymlink)
	return fs.door(name, h)
}

// has tells whether a hard link can be made to a path. Where a directory on
// the way is a symlink it may be another one's name; then nothing is said
// against it.
func (fs *rootFS) has(name string) bool {
	if fs.files.has(name) {
		return true
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if fs.files.marked(dir) {
			return true
		}
	}
	return false
}

// blobFile is what the files are called that image archives are made of.
var blobFile = regexp.MustCompile(`^(?:blobs/sha(?:256/[0-9a-f]{64}|512/[0-9a-f]{128})|[0-9a-f]{64}/(?:layer\.tar|json|VERSION)|(?:sha256:)?[0-9a-f]{64}(?:\.json|\.tar|\.tar\.gz)?)$`)

// manyBytes is the size of a file that tells an image archive early.
const manyBytes = 1 << 20

var errImageArchive = invalid("this looks like an archive of images, as docker save writes it, and not like a root file system: " +
	"use archives/load to load it, or docker export to get a root file system")

// door notices an image archive, which is at the wrong door.
func (fs *rootFS) door(name string, h *tar.Header) error {
	if !fs.archive {
		return nil
	}
	switch {
	case name == manifestName || name == indexName || name == layoutName || name == "repositories":
		fs.index = true
	case blobFile.MatchString(name):
		if fs.blobs++; h.Size >= manyBytes {
			return errImageArchive // before all of it was sent
		}
	default:
		fs.archive = false
	}
	return nil
}

// close says what is wrong when all has passed.
func (fs *rootFS) close() error {
	if fs.err == nil && (fs.archive && fs.index && fs.blobs > 0 || fs.isDockerArchive()) {
		fs.err = errImageArchive
	}
	return fs.err
}

// isDockerArchive tells whether there is a list of images, of which the files
// are there, and no directory that every root file system has.
func (fs *rootFS) isDockerArchive() bool {
	items, err := parseManifestJSON(fs.manifest.Bytes(), DefaultLimits())
	if err != nil || fs.root {
		return false
	}
	for _, name := range append(items[0].layers, items[0].config) {
		if !fs.has(layer.CleanPath(name)) {
			return false
		}
	}
	return true
}

// rootReader reads the tar of a root file system, until something is wrong.
type rootReader struct {
	st     *stream
	fs     *rootFS
	max    int64
	n      int64
	passed func()
}

func (r *rootReader) Read(p []byte) (int, error) {
	if r.fs.err != nil { // of what was read before
		return 0, r.fs.err
	}
	n, err := r.st.Read(p)
	r.n += int64(n)
	r.passed()
	switch {
	case r.n > r.max:
		return n, tooLarge("the root file system has more than %d bytes", r.max)
	case err != nil && !errors.Is(err, io.EOF):
		where := "at its beginning"
		if r.fs.last != "" {
			where = "after the entry " + quoted(r.fs.last)
		}
		return n, r.st.broken(err, where)
	}
	return n, err
}
