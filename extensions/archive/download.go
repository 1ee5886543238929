package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/internal/places"
)

// Download is an archive that is made while it is read. What it is made of is
// known; its blobs are opened one after the other, when their turn comes.
type Download struct {
	Name     string // for a file
	Size     int64  // exactly
	ETag     string // strong: equal where all bytes are
	Warnings []string

	s      *Service
	files  []tarFile
	memory *places.Share // of Service.saves
}

// Close gives back what the Download has of the memory of all; it is not read
// after it.
func (d *Download) Close() { d.memory.Leave() }

// blobSource is where the bytes of a file in an archive come from.
type blobSource struct {
	s          *Service
	repository string
	digest     digest.Digest
	gzip       bool // its layer is zstd, and is turned to gzip on its way
}

// open returns the blob from the byte at on. It is an *os.File where the bytes
// lie in one.
func (b *blobSource) open(ctx context.Context, at int64) (io.ReadCloser, error) {
	if b.gzip {
		return b.s.gzipReader(ctx, b.repository, b.digest, at)
	}
	r, _, err := b.s.o.Store.OpenBlob(ctx, b.repository, b.digest)
	if err != nil {
		return nil, err
	}
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// keep renews what keeps the collector away.
func (b *blobSource) keep(ctx context.Context) error {
	_, err := b.s.o.Store.Blob(ctx, b.repository, b.digest)
	return err
}

// Serve answers a GET or HEAD: ranges, conditions and all. What it returns is
// an error from before the answer, or what ends the connection in its middle: a
// short archive is never taken for a whole one.
func (d *Download) Serve(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", mediaTar)
	h.Set("Content-Disposition", attachment(d.Name))
	h.Set("Etag", d.ETag)
	h.Set("Cache-Control", "private, no-cache") // a tag moves; whether this is still it is asked each time
	h.Set("X-Content-Type-Options", "nosniff")
	for _, text := range d.Warnings {
		h.Add("Warning", "299 - "+strconv.QuoteToASCII(text)) // distribution spec 1.1, "Warnings"
	}
	if strings.Contains(r.Header.Get("Range"), ",") { // several ranges: nobody resumes so
		r = r.Clone(r.Context())
		r.Header.Del("Range")
	}
	c := d.Open(r.Context())
	defer c.Close()
	if r.Method == http.MethodHead {
		http.ServeContent(w, r, "", time.Time{}, c)
		return c.err
	}
	out, end := &contentWriter{ResponseWriter: w, c: c}, d.s.o.Observer.Begin(KindSave)
	done := Done{Outcome: OutcomeFailed} // a panic leaves it at that
	defer func() { done.Sent = out.sent; end(done) }()
	http.ServeContent(out, r, "", time.Time{}, c)
	done.Outcome = outcomeOf(r.Context(), errors.Join(c.err, out.err), c.err == nil && out.err != nil)
	return c.err
}

// Open returns the archive for reading from wherever it is sought to. ctx is
// for all of it. The Content is closed by the caller.
func (d *Download) Open(ctx context.Context) *Content {
	return &Content{ctx: ctx, d: d, renewed: time.Now()}
}

// Content is an archive as a reader.
type Content struct {
	ctx     context.Context //nolint:containedctx // the request's: the reader lives no longer
	d       *Download
	at      int64
	renewed time.Time
	err     error // what could not be read of the blobs

	blob   io.ReadCloser // what is open of
	file   int           // this file,
	blobAt int64         // at this byte
}

var _ io.ReadSeekCloser = (*Content)(nil)

// Seek is io.Seeker's; it opens nothing.
func (c *Content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.d.Size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	c.at = offset
	return offset, nil
}

// Read is io.Reader's.
func (c *Content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.at >= c.d.Size {
		return 0, io.EOF
	}
	memory, blob, n, err := c.part()
	switch {
	case err != nil:
		return 0, err
	case blob == nil:
		n := copy(p, memory)
		c.at += int64(n)
		return n, nil
	}
	read, err := blob.Read(p[:min(int64(len(p)), n)])
	c.at, c.blobAt = c.at+int64(read), c.blobAt+int64(read)
	switch {
	case read > 0 && errors.Is(err, io.EOF):
		return read, nil
	case errors.Is(err, io.EOF):
		return read, c.fail(io.ErrUnexpectedEOF)
	case err != nil:
		return read, c.fail(err)
	}
	return read, nil
}

// piece is how much of a blob is sent before somebody looks at the clock.
const piece = 64 << 20

// sendTo writes the next n bytes to w. Blobs in files go to it as they are, so
// that the kernel can copy them.
func (c *Content) sendTo(w io.Writer, n int64) (sent int64, err error) {
	n = min(n, c.d.Size-c.at)
	for sent < n {
		memory, blob, size, err := c.part()
		if err != nil {
			return sent, err
		}
		size = min(size, n-sent)
		var done int64
		if blob == nil {
			done, err = writeAll(w, memory[:size])
			c.at += done
		} else {
			done, err = c.sendBlob(w, blob, min(size, piece))
		}
		if sent += done; err != nil {
			return sent, err
		}
	}
	return sent, nil
}

func writeAll(w io.Writer, p []byte) (int64, error) {
	n, err := w.Write(p)
	return int64(n), err
}

// sendBlob writes the next n bytes, which are of a blob.
func (c *Content) sendBlob(w io.Writer, blob io.Reader, n int64) (int64, error) {
	done, err := io.Copy(w, &io.LimitedReader{R: blob, N: n})
	c.at, c.blobAt = c.at+done, c.blobAt+done
	switch watched, ok := blob.(*watchedReader); {
	case ok && watched.err != nil:
		return done, c.fail(watched.err)
	case errors.Is(err, syscall.EIO): // the disk; a client fails otherwise
		return done, c.fail(err)
	case err == nil && done < n:
		return done, c.fail(io.ErrUnexpectedEOF)
	}
	return done, err
}

// fail keeps the error of what could not be read.
func (c *Content) fail(err error) error {
	if i := c.fileAt(); i < len(c.d.files) {
		err = fmt.Errorf("read %s for an archive: %w", c.d.files[i].name, err)
	}
	c.err = err
	return err
}

// fileAt is the file that c.at is in; len(files) for the end of the archive.
func (c *Content) fileAt() int {
	return sort.Search(len(c.d.files), func(i int) bool { return c.d.files[i].end() > c.at })
}

// part returns what lies at c.at, in memory or in a blob, and how much there is
// of it before something else comes.
func (c *Content) part() (memory []byte, blob io.Reader, n int64, err error) {
	i := c.fileAt()
	if i == len(c.d.files) {
		n = c.d.Size - c.at
		return zeros[:n], nil, n, nil
	}
	f := &c.d.files[i]
	at := c.at - f.at
	if at < int64(f.header) {
		header, err := tarHeader(f.name, f.size)
		if err != nil {
			return nil, nil, 0, err
		}
		return header[at:], nil, int64(f.header) - at, nil
	}
	at -= int64(f.header)
	switch {
	case at >= f.size:
		n = padded(f.size) - at
		return zeros[:n], nil, n, nil
	case f.blob == nil:
		return f.data[at:], nil, f.size - at, nil
	}
	if blob, err = c.openBlob(i, at); err != nil {
		return nil, nil, 0, c.fail(err)
	}
	return nil, blob, f.size - at, nil
}

// openBlob returns the blob of a file from the byte at on; the one before it is
// closed.
func (c *Content) openBlob(i int, at int64) (io.Reader, error) {
	if err := c.renew(i); err != nil {
		return nil, err
	}
	if c.blob == nil || c.file != i || c.blobAt != at {
		if err := c.Close(); err != nil {
			return nil, err
		}
		r, err := c.d.files[i].blob.open(c.ctx, at)
		if err != nil {
			return nil, err
		}
		c.blob, c.file, c.blobAt = r, i, at
	}
	if f, ok := c.blob.(*os.File); ok {
		return f, nil
	}
	return &watchedReader{r: c.blob}, nil
}

// renew keeps the blobs that are still to come, from the file i on, where the
// client takes its time: somebody may delete the image meanwhile.
func (c *Content) renew(i int) error {
	if time.Since(c.renewed) < c.d.s.o.Grace/4 {
		return nil
	}
	for _, f := range c.d.files[i:] {
		if f.blob == nil {
			continue
		}
		if err := f.blob.keep(c.ctx); err != nil {
			return err
		}
	}
	c.renewed = time.Now()
	return nil
}

// Close closes what is open. It may be read on after it.
func (c *Content) Close() error {
	if c.blob == nil {
		return nil
	}
	err := c.blob.Close()
	c.blob = nil
	return err
}

// contentWriter lets http.ServeContent copy from a Content without reading it:
// io.CopyN asks the writer first.
type contentWriter struct {
	http.ResponseWriter
	c    *Content
	sent int64
	err  error // of sending, whoever is to blame
}

func (w *contentWriter) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok && l.R == io.Reader(w.c) {
		n, err := w.c.sendTo(w.ResponseWriter, l.N)
		l.N -= n
		w.sent, w.err = w.sent+n, err
		return n, err
	}
	return io.Copy(w.ResponseWriter, src)
}

// watchedReader remembers its error, so that it can be told from the writer's.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
