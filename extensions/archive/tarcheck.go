package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
)

const blockSize = 512

// isTar tells whether b begins with a tar header: one with the right
// checksum, or the zeros of an archive without entries.
func isTar(b []byte) bool {
	if len(b) < blockSize {
		return false
	}
	b = b[:blockSize]
	if isZero(b) {
		return true
	}
	want, ok := octal(b[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64 // old tars summed signed bytes
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func octal(b []byte) (int64, bool) {
	start, end := 0, len(b)
	for start < end && b[start] == ' ' {
		start++
	}
	for end > start && (b[end-1] == ' ' || b[end-1] == 0) {
		end--
	}
	n, err := strconv.ParseUint(string(b[start:end]), 8, 62)
	return int64(n), err == nil
}

var zeros [32 << 10]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}

// tarCheck is a writer that reads what is written as a tar, to its end. It is
// how a layer is checked while it passes: the headers are parsed by
// archive/tar, which Docker's own unpacking uses, and bodies are skipped
// without being copied. It runs as a coroutine, not as a goroutine: a Write
// returns when all of p has been looked at.
type tarCheck struct {
	feed tarFeed
	next func() (struct{}, bool)
	stop func()
	err  error // why it is no tar; known after close
}

// newTarCheck returns a tarCheck; close must be called.
func newTarCheck() *tarCheck {
	c := &tarCheck{}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.feed.more = func() bool { return yield(struct{}{}) }
		c.err = checkTar(&c.feed)
	})
	return c
}

// Write never fails: err says in the end what is wrong.
func (c *tarCheck) Write(p []byte) (int, error) {
	c.feed.chunk = p
	c.next()
	return len(p), nil
}

// close tells the checker that the layer is complete and returns what is wrong
// with it.
func (c *tarCheck) close() error {
	c.feed.ended, c.feed.chunk = true, nil
	c.next()
	c.stop()
	return c.err
}

// abandon ends the checker of a layer that nobody reads on.
func (c *tarCheck) abandon() { c.stop() }

var errAbandoned = errors.New("the layer was abandoned")

// checkTar reads a layer to its end: entries that Docker can unpack, then
// zeros only.
func checkTar(f *tarFeed) error {
	tr := tar.NewReader(f)
	last := ""
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return f.drain()
		}
		if err != nil {
			if last != "" {
				last = ", after the entry " + quoted(last)
			}
			return fmt.Errorf("%s at byte %d%s", tarWords(err), f.pos, last)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
		case tar.TypeGNUSparse:
			// docker: "unhandled tar header type 83" (20.10 and 29), at every pull.
			return fmt.Errorf("its entry %s is an old GNU sparse file, which Docker cannot unpack", quoted(h.Name))
		default:
			return fmt.Errorf("its entry %s is of the unknown type %q", quoted(h.Name), h.Typeflag)
		}
		last = h.Name
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

// tarFeed is the reader that checkTar reads: chunk after chunk, as they are
// written.
type tarFeed struct {
	chunk []byte
	skip  int64 // bytes that Seek has promised to pass over
	pos   int64
	ended bool
	more  func() bool // waits for the next chunk; false where none will come
}

// fill waits until there is something in chunk.
func (f *tarFeed) fill() error {
	for {
		if n := min(f.skip, int64(len(f.chunk))); n > 0 {
			f.chunk, f.skip, f.pos = f.chunk[n:], f.skip-n, f.pos+n
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

func (f *tarFeed) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.fill(); err != nil {
		return 0, err
	}
	n := copy(p, f.chunk)
	f.chunk, f.pos = f.chunk[n:], f.pos+int64(n)
	return n, nil
}

// Seek lets archive/tar pass over bodies. It only goes forward from where it
// is, which is all that archive/tar asks for.
func (f *tarFeed) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.New("a layer can only be read forward")
	}
	f.skip += offset
	return f.pos + f.skip, nil
}

// drain looks at what follows the end of the tar.
func (f *tarFeed) drain() error {
	for {
		if !isZero(f.chunk) {
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
