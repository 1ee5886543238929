package layer

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
)

// Collector sees what passes through an Indexer.
type Collector interface {
	// Entry is called for each entry in its order, the PAX global headers left
	// out. h is the collector's to keep. Where it returns a writer and the entry
	// is a regular file that is not sparse, the writer gets the file's content
	// before Entry is called again; an error of the writer ends that.
	Entry(h *tar.Header) io.Writer
}

// Indexer is a writer that reads what is written as a layer, to its end. The
// headers are parsed by archive/tar, which Docker's own unpacking uses; bodies
// pass by and are not copied. It runs as a coroutine, not as a goroutine: a
// Write returns when all of p has been looked at. It is for one goroutine, and
// ends with Close or Abandon.
type Indexer struct {
	feed    feed
	next    func() (struct{}, bool)
	stop    func()
	tarErr  error // why it is no tar; known after Close
	collect Collector

	add      func(*Entry) error // gets each entry whose body has passed; nil where nobody wants it
	end      func() error
	entry    Entry     // whose body passes
	hash     hash.Hash // of that body
	hashing  bool
	pending  bool // entry is complete when the next header comes
	wanted   io.Writer
	indexErr error
	ended    bool // the tar has the zeros that end one
}

// NewIndexer returns an Indexer that writes the index to w as the layer passes,
// and shows the layer to c. Where w is nil it only checks and shows, and hashes
// nothing. c may be nil. What either of the two does wrong is no fault of the
// layer: see Err.
func NewIndexer(w io.Writer, c Collector) *Indexer {
	if w == nil {
		return newIndexer(nil, nil, c)
	}
	index := newEncoder(w)
	return newIndexer(index.add, index.close, c)
}

func newIndexer(add func(*Entry) error, end func() error, c Collector) *Indexer {
	ix := &Indexer{collect: c, add: add, end: end}
	if add != nil {
		ix.hash = sha256.New()
	}
	ix.feed.tap = ix.body
	ix.next, ix.stop = iter.Pull(func(yield func(struct{}) bool) {
		ix.feed.more = func() bool { return yield(struct{}{}) }
		ix.tarErr = ix.read()
	})
	return ix
}

// Write never fails: Close says what is wrong.
func (ix *Indexer) Write(p []byte) (int, error) {
	ix.feed.chunk = p
	ix.next()
	return len(p), nil
}

// Close tells that the layer is complete, ends the index and returns what is
// wrong with the layer. Then the index is useless.
func (ix *Indexer) Close() error {
	ix.feed.ended, ix.feed.chunk = true, nil
	ix.next()
	ix.stop()
	if ix.tarErr == nil && ix.end != nil && ix.indexErr == nil {
		ix.indexErr = ix.end()
	}
	return ix.tarErr
}

// Broken returns what is already known to be wrong with the layer: there is no
// need to write more of it.
func (ix *Indexer) Broken() error { return ix.tarErr }

// Err returns why there is no whole index of a good layer: the error of the
// writer that NewIndexer got. Call it after Close.
func (ix *Indexer) Err() error { return ix.indexErr }

// Abandon ends the Indexer of a layer that nobody reads on. It may be called
// after Close.
func (ix *Indexer) Abandon() { ix.stop() }

var errAbandoned = errors.New("the layer was abandoned")

// read reads a layer to its end: entries that Docker can unpack, then zeros
// only.
func (ix *Indexer) read() error {
	tr := tar.NewReader(&ix.feed)
	last, end := "", int64(0)
	for {
		h, err := tr.Next()
		if err == nil || errors.Is(err, io.EOF) {
			ix.complete()
		}
		if errors.Is(err, io.EOF) {
			ix.ended = ix.feed.pos >= end+BlockSize
			return ix.feed.drain()
		}
		if err != nil {
			if last != "" {
				last = ", after the entry " + quoted(last)
			}
			return fmt.Errorf("%s at byte %d%s", tarWords(err), ix.feed.pos, last)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
			ix.begin(h)
		case tar.TypeXGlobalHeader: // archive/tar applies it to nothing, and nor does Docker
		case tar.TypeGNUSparse:
			// docker: "unhandled tar header type 83" (20.10 and 29), at every pull.
			return fmt.Errorf("its entry %s is an old GNU sparse file, which Docker cannot unpack", quoted(h.Name))
		default:
			return fmt.Errorf("its entry %s is of the unknown type %q", quoted(h.Name), h.Typeflag)
		}
		last, end = h.Name, ix.feed.pos
		if h.Typeflag == tar.TypeReg {
			end += (h.Size + BlockSize - 1) / BlockSize * BlockSize // of a sparse file too much: then nobody asks
		}
	}
}

// begin is called with each header, when the feed stands at the body.
func (ix *Indexer) begin(h *tar.Header) {
	sparse := h.Typeflag == tar.TypeReg && IsSparse(h)
	ix.wanted = nil
	if ix.collect != nil {
		ix.wanted = ix.collect.Entry(h)
	}
	if ix.add != nil && ix.indexErr == nil {
		ix.entry, ix.pending = entryOf(h), true
		ix.entry.Offset = ix.feed.pos
		ix.hashing = h.Typeflag == tar.TypeReg && !sparse
	}
	// A sparse file's h.Size is what it unpacks to, and not what follows here.
	if h.Typeflag == tar.TypeReg && !sparse && (ix.wanted != nil || ix.hashing) {
		ix.feed.body = h.Size
	}
}

// body gets what passes of a regular file.
func (ix *Indexer) body(p []byte) {
	if ix.hashing {
		ix.hash.Write(p)
	}
	if ix.wanted != nil {
		if _, err := ix.wanted.Write(p); err != nil {
			ix.wanted = nil
		}
	}
}

// complete writes the entry whose body has passed.
func (ix *Indexer) complete() {
	if !ix.pending {
		return
	}
	if ix.hashing {
		ix.hash.Sum(ix.entry.SHA256[:0])
		ix.hash.Reset()
	}
	ix.pending, ix.hashing = false, false
	if err := ix.add(&ix.entry); err != nil {
		ix.indexErr = fmt.Errorf("write the index of a layer: %w", err)
	}
}

func tarWords(err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it is cut off"
	case errors.Is(err, tar.ErrHeader):
		return "there is no tar header"
	}
	return err.Error()
}

// quoted is a name of the layer for a message: bounded, and without what a
// terminal would obey.
func quoted(s string) string {
	const most = 160
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// feed is the reader that archive/tar reads: chunk after chunk, as they are
// written.
type feed struct {
	chunk []byte
	skip  int64 // bytes that Seek has promised to pass over
	pos   int64
	body  int64 // of what comes, the bytes that tap gets
	tap   func(p []byte)
	ended bool
	more  func() bool // waits for the next chunk; false where none will come
}

// pass takes n bytes off the chunk.
func (f *feed) pass(n int64) {
	p := f.chunk[:n]
	f.chunk, f.pos = f.chunk[n:], f.pos+n
	if f.body > 0 {
		n = min(n, f.body)
		f.body -= n
		f.tap(p[:n])
	}
}

// fill waits until there is something in chunk.
func (f *feed) fill() error {
	for {
		if n := min(f.skip, int64(len(f.chunk))); n > 0 {
			f.skip -= n
			f.pass(n)
		}
		switch {
		case len(f.chunk) > 0:
			return nil
		case f.ended && f.skip > 0:
			return io.ErrUnexpectedEOF
		case f.ended:
			return io.EOF
		case !f.more():
			return errAbandoned
		}
	}
}

func (f *feed) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.fill(); err != nil {
		return 0, err
	}
	n := copy(p, f.chunk)
	f.pass(int64(n))
	return n, nil
}

// Seek lets archive/tar pass over bodies. It only goes forward from where it
// is, which is all that archive/tar asks for.
func (f *feed) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.New("a layer can only be read forward")
	}
	f.skip += offset
	return f.pos + f.skip, nil
}

// drain looks at what follows the end of the tar.
func (f *feed) drain() error {
	for {
		if !IsZero(f.chunk) {
			return fmt.Errorf("there is data after its end, at byte %d", f.pos)
		}
		f.pos += int64(len(f.chunk))
		f.chunk = nil
		switch err := f.fill(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
