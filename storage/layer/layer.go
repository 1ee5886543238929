// Package layer reads layers: the tars that images are made of. It checks one
// while its bytes pass, and writes an index of it, so that what is in a layer
// is known later without reading it again.
//
//	plain bytes ──> Indexer ──┬─> is it a tar that Docker can unpack?
//	                          ├─> the index: an Entry for each entry of the tar
//	                          └─> a Collector's: the files that it asks for
//	index ──> Reader ──> Entry, Entry, …
//
// It does no I/O but through io.Reader and io.Writer, and knows nothing of
// images, digests of blobs or where anything lies: storage keeps the indexes.
// Names in a layer are data here and never paths.
package layer

import (
	"archive/tar"
	"path"
	"strings"
)

// Entry is one entry of a layer's tar, as its index has it.
type Entry struct {
	// Path is the entry's name as CleanPath gives it.
	Path string
	Type byte   // archive/tar's Typeflag: TypeReg, TypeLink, …; never TypeRegA or TypeXGlobalHeader
	Mode uint32 // permissions with setuid, setgid and sticky: 07777 at most

	UID, GID int
	Size     int64 // of a regular file's content, else 0
	// ModTime is in whole seconds since 1970, ModNano what is over it, 0 to
	// 999,999,999.
	ModTime int64
	ModNano int32
	// Linkname is the target: of a symlink to the byte, of a hard link as
	// CleanPath gives it.
	Linkname     string
	Major, Minor int64 // of devices

	// Capability is the extended attribute security.capability, nil where there
	// is none. Others are not kept.
	Capability []byte

	// SHA256 is of a regular file's content, unless it is Sparse.
	SHA256 [32]byte
	// Sparse tells that the tar has the file as its parts that are not holes: at
	// Offset there are these, and the content's hash is not known.
	Sparse bool
	// Offset is where in the plain tar the body begins: of Size bytes where the
	// entry is a regular file that is not Sparse.
	Offset int64
}

// The names that stand for what a layer takes away.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts
const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// Whiteout returns what an entry of this (clean) path takes out of the layers
// below; false where it is no whiteout.
func Whiteout(p string) (target string, ok bool) {
	dir, name := path.Split(p)
	gone, ok := strings.CutPrefix(name, whiteoutPrefix)
	if !ok || strings.HasPrefix(name, aufsPrefix) || gone == "" || gone == "." || gone == ".." {
		return "", false
	}
	return dir + gone, true
}

// Opaque returns the directory whose content in the layers below an entry of
// this (clean) path hides, "." for the root; false where it is no such marker.
func Opaque(p string) (dir string, ok bool) {
	if path.Base(p) != opaqueName {
		return "", false
	}
	return path.Dir(p), true
}

// IsMarker tells whether an entry of this (clean) path can be no file of an
// image: a whiteout, an opaque marker, or what aufs left.
func IsMarker(p string) bool { return strings.HasPrefix(path.Base(p), whiteoutPrefix) }

// CleanPath returns the place of an entry as a path below the root, without a
// slash at either end, and "." for the root: "./a", "/a", "a//" and "../a" are
// a. The bytes are kept as they are, whether they are UTF-8 or not.
func CleanPath(name string) string {
	if p := path.Clean("/" + name)[1:]; p != "" {
		return p
	}
	return "."
}

// entryOf is what a header says; hash, offset and sparseness come later.
func entryOf(h *tar.Header) Entry {
	e := Entry{
		Path: CleanPath(h.Name), Type: h.Typeflag, Mode: uint32(h.Mode & 0o7777),
		UID: h.Uid, GID: h.Gid, ModTime: h.ModTime.Unix(), ModNano: int32(h.ModTime.Nanosecond()), //nolint:gosec // below a billion
	}
	switch h.Typeflag {
	case tar.TypeReg:
		e.Size, e.Sparse = h.Size, IsSparse(h)
	case tar.TypeLink:
		e.Linkname = CleanPath(h.Linkname)
	case tar.TypeSymlink:
		e.Linkname = h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		e.Major, e.Minor = h.Devmajor, h.Devminor
	}
	if c, ok := h.PAXRecords[CapabilityRecord]; ok {
		e.Capability = []byte(c)
	}
	return e
}

// CapabilityRecord is the PAX record that Entry.Capability comes from.
const CapabilityRecord = "SCHILY.xattr.security.capability"

// IsSparse tells of the forms in which a few bytes of a tar stand for any
// number of zeros.
func IsSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}
