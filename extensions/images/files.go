package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// File is a path of an image's file system.
type File struct {
	Name    string        `json:"name"`
	Path    string        `json:"path"` // from the root, with a slash before it
	Type    string        `json:"type"` // file, directory, symlink, character-device, block-device or fifo
	Mode    string        `json:"mode"` // octal, of the permissions and the three bits above them: 0755, 4755
	UID     int           `json:"uid"`
	GID     int           `json:"gid"`
	Size    int64         `json:"size"`
	ModTime time.Time     `json:"mtime"`
	Target  string        `json:"target,omitempty"` // of a symlink
	Links   int           `json:"links"`            // how many names the file has
	SHA256  string        `json:"sha256,omitempty"` // of a regular file
	Layer   int           `json:"layer"`            // which one of the image it comes from; -1 where none has an entry of it
	Digest  digest.Digest `json:"layer_digest,omitempty"`
}

// Listing is a path, and what is in it where it is a directory.
type Listing struct {
	Image    digest.Digest `json:"digest"` // of the image's manifest
	Platform string        `json:"platform"`
	File
	Items []File `json:"items"` // by name; empty for what is no directory
}

// MaxContent is the largest file that is shown; of a larger one the image has to
// be pulled or exported.
const MaxContent = 64 << 20

// maxHops is how many symlinks lead on, as in Linux; maxNames how many names
// there are in a path and in all of them.
const (
	maxHops  = 40
	maxNames = 4096
)

// rooted is an image with its file system.
type rooted struct {
	image    digest.Digest
	platform string
	blobs    []digest.Digest // its layers
	tree     *layer.Tree
}

// open reads the file system of an image.
func (s *Service) open(ctx context.Context, q Query) (*rooted, error) {
	m, err := s.manifest(ctx, q)
	if err != nil {
		return nil, err
	}
	doc, err := read(m.Payload)
	if err != nil {
		return nil, err
	}
	d := &Detail{Digest: m.Digest}
	if row, err := s.db.ManifestDetail(ctx, q.Repository, m.Digest); err != nil {
		return nil, err
	} else if d.Kind = row.Kind; d.Kind == "artifact" {
		return nil, tarport.Errorf(tarport.Invalid, "%s is no image and has no files", q.Reference)
	}
	shown, err := s.platforms(ctx, q, m, doc, d)
	if err != nil {
		return nil, err
	}
	if shown == nil {
		return nil, tarport.Errorf(tarport.Invalid, "no image of %s is here", q.Reference)
	}
	if doc, err = read(shown.Payload); err != nil {
		return nil, err
	}
	r := &rooted{image: shown.Digest, platform: d.Platform}
	for _, l := range doc.Layers {
		// A manifest can name blobs that its repository does not have.
		if _, err := s.content.Blob(ctx, q.Repository, l.Digest); err != nil {
			return nil, err
		}
		r.blobs = append(r.blobs, l.Digest)
	}
	r.tree, err = s.trees.get(ctx, r.blobs)
	return r, err
}

// List shows what is at a path, and at most n of what is in it, by name, after
// last. Symlinks on the way are followed, within the image.
func (s *Service) List(ctx context.Context, q Query, at string, n int, last string) (*Listing, error) {
	r, err := s.open(ctx, q)
	if err != nil {
		return nil, err
	}
	node, err := r.find(at)
	if err != nil {
		return nil, err
	}
	l := &Listing{Image: r.image, Platform: r.platform, File: r.file(node), Items: []File{}}
	for _, c := range r.tree.ReadDir(node.Path) {
		if path.Base(c.Path) <= last {
			continue
		}
		if l.Items = append(l.Items, r.file(c)); len(l.Items) == n {
			break
		}
	}
	return l, nil
}

// find looks a path up as the kernel does in a container, step by step: what ..
// is depends on where a symlink before it led to. NOT_FOUND where there is nothing.
func (r *rooted) find(at string) (layer.Node, error) {
	node, _ := r.tree.Lookup(".")
	if strings.Count(at, "/") >= maxNames {
		return node, tarport.Errorf(tarport.NotFound, "there is no path of so many names in the image")
	}
	rest := strings.Split(at, "/")
	for hops, steps := 0, 0; len(rest) > 0; steps++ {
		step := rest[0]
		if rest = rest[1:]; step == "" || step == "." {
			continue
		}
		if node.Entry.Type != tar.TypeDir {
			return node, tarport.Errorf(tarport.NotFound, "there is no %q in the image", at)
		}
		if step == ".." {
			node, _ = r.tree.Lookup(path.Dir(node.Path)) // of the root, itself
			continue
		}
		next, ok := r.tree.Lookup(path.Join(node.Path, step))
		if !ok {
			return next, tarport.Errorf(tarport.NotFound, "there is no %q in the image", at)
		}
		if next.Entry.Type != tar.TypeSymlink || len(rest) == 0 && hops == 0 && r.dangling(node, next) {
			node = next
			continue
		}
		target := next.Entry.Linkname
		if hops++; hops > maxHops || steps+len(rest)+strings.Count(target, "/") >= maxNames {
			return next, tarport.Errorf(tarport.NotFound, "%q leads round in symlinks", at)
		}
		if strings.HasPrefix(target, "/") {
			node, _ = r.tree.Lookup(".")
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return node, nil
}

// dangling tells of a symlink in a directory that leads nowhere: it is then shown
// itself.
func (r *rooted) dangling(dir, n layer.Node) bool {
	target := n.Entry.Linkname
	if !strings.HasPrefix(target, "/") {
		target = dir.Path + "/" + target
	}
	_, err := r.find(target + "/")
	return err != nil
}

func (r *rooted) file(n layer.Node) File {
	e := &n.Entry
	f := File{
		Name: path.Base(n.Path), Path: "/" + n.Path, Type: fileType(e.Type), Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID,
		Size: e.Size, ModTime: time.Unix(e.ModTime, int64(e.ModNano)).UTC(), Links: n.Links, Layer: n.Layer,
	}
	switch {
	case n.Path == ".":
		f.Name, f.Path = "/", "/"
	case e.Type == tar.TypeSymlink:
		f.Target = e.Linkname
	case e.Type == tar.TypeReg && !e.Sparse:
		f.SHA256 = hex.EncodeToString(e.SHA256[:])
	}
	if n.Implied || len(r.blobs) == 0 {
		f.Layer = -1
	} else {
		f.Digest = r.blobs[n.Layer]
	}
	f.Name, f.Path, f.Target = strings.ToValidUTF8(f.Name, "\uFFFD"), strings.ToValidUTF8(f.Path, "\uFFFD"), strings.ToValidUTF8(f.Target, "\uFFFD")
	return f
}

func fileType(t byte) string {
	switch t {
	case tar.TypeDir:
		return "directory"
	case tar.TypeSymlink:
		return "symlink"
	case tar.TypeChar:
		return "character-device"
	case tar.TypeBlock:
		return "block-device"
	case tar.TypeFifo:
		return "fifo"
	}
	return "file"
}

// Content opens a regular file of an image, of which all was read. INVALID for
// what is no regular file, TOO_LARGE for one of more than MaxContent bytes,
// UNAVAILABLE where too many large ones are being sent.
func (s *Service) Content(ctx context.Context, q Query, at string) (io.ReadCloser, File, error) {
	l, err := s.locate(ctx, q, at)
	if err != nil {
		return nil, File{}, err
	}
	content, err := s.copyOf(ctx, l)
	return content, l.File, err
}

// located is a regular file of an image.
type located struct {
	File
	blob   digest.Digest // of the layer that it is in
	offset int64         // there
}

func (s *Service) locate(ctx context.Context, q Query, at string) (*located, error) {
	r, err := s.open(ctx, q)
	if err != nil {
		return nil, err
	}
	node, err := r.find(at)
	if err != nil {
		return nil, err
	}
	f := r.file(node)
	switch {
	case node.Entry.Type != tar.TypeReg:
		return nil, tarport.Errorf(tarport.Invalid, "%s is a %s and no file", f.Path, f.Type)
	case node.Entry.Sparse:
		return nil, tarport.Errorf(tarport.Unsupported, "%s is a sparse file: export the image to read it", f.Path)
	case f.Size > MaxContent:
		return nil, tarport.Errorf(tarport.TooLarge, "%s has %d bytes, at most %d are shown: pull or export the image to read it", f.Path, f.Size, int64(MaxContent))
	}
	return &located{f, r.blobs[node.Layer], node.Entry.Offset}, nil
}

// smallFile is how large a file may be that is sent from memory.
const smallFile = 256 << 10

// copyOf reads a file of a layer to its end, and then gives back the reader's
// slot: how long it takes to send the file is the client's affair, and others
// wait for the slot.
func (s *Service) copyOf(ctx context.Context, l *located) (_ io.ReadCloser, err error) {
	if l.Size <= smallFile {
		var b bytes.Buffer
		return io.NopCloser(&b), s.readFile(ctx, &b, l)
	}
	end, err := s.trees.sends.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	spool, err := s.content.NewSpool(ctx)
	if err != nil {
		return nil, err
	}
	in, err := s.spooled(ctx, spool, l)
	if err != nil {
		spool.Discard()
		return nil, err
	}
	return &fileContent{in, spool, end}, nil
}

func (s *Service) spooled(ctx context.Context, spool *storage.Spool, l *located) (io.ReadCloser, error) {
	if err := s.readFile(ctx, spool, l); err != nil {
		return nil, err
	}
	return spool.Open()
}

// readFile copies a file of a layer, when there is a slot.
func (s *Service) readFile(ctx context.Context, w io.Writer, l *located) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read %s: %w", l.Path, err)
		}
	}()
	leave, err := s.trees.readers.Take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	in, err := s.content.OpenLayerAt(ctx, l.blob, l.offset)
	if err != nil {
		return err
	}
	_, err = io.CopyN(w, in, l.Size)
	return errors.Join(notEOF(err), in.Close())
}

// fileContent is the copy of a file.
type fileContent struct {
	io.ReadCloser
	spool *storage.Spool
	end   func()
}

func (c *fileContent) Close() error {
	defer c.end()
	err := c.ReadCloser.Close()
	c.spool.Discard()
	return err
}

func (s *Service) getFiles(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	n, last, err := httpapi.Page(r)
	if err != nil {
		return err
	}
	l, err := s.List(r.Context(), q, r.URL.Query().Get("path"), n+1, last)
	if err != nil {
		return err
	}
	if len(l.Items) > n {
		l.Items = l.Items[:n]
		httpapi.SetNext(w, r, n, l.Items[n-1].Name)
	}
	return httpapi.WriteJSON(w, http.StatusOK, l)
}

// getContent sends a file: text to be read, the rest to be saved. Nothing in it
// is run by a browser.
func (s *Service) getContent(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	download, err := httpapi.Flag(r, "download")
	if err != nil {
		return err
	}
	f, err := s.locate(r.Context(), q, r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	h := w.Header()
	etag := `"sha256:` + f.SHA256 + `"`
	if httpapi.NoneMatch(r, etag) {
		h.Set("Etag", etag)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	in, err := s.copyOf(r.Context(), f)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	head := make([]byte, min(f.Size, 4<<10))
	if _, err := io.ReadFull(in, head); err != nil {
		return fmt.Errorf("read %s: %w", f.Path, notEOF(err))
	}
	h.Set("Etag", etag)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	if h.Set("Content-Type", "text/plain; charset=utf-8"); !isText(head) {
		h.Set("Content-Type", "application/octet-stream")
		download = true
	}
	if download {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	}
	w.WriteHeader(http.StatusOK)
	if _, err := io.Copy(w, io.MultiReader(bytes.NewReader(head), in)); err != nil {
		panic(http.ErrAbortHandler) // never a short file that looks whole
	}
	return nil
}

func notEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the layer ends early")
	}
	return err
}

// isText tells of UTF-8 without NUL; the last character of head can be cut.
func isText(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for i := 0; i < utf8.UTFMax && len(head) > 0 && !utf8.Valid(head); i++ {
		head = head[:len(head)-1]
	}
	return utf8.Valid(head)
}
