package layer

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// An index is one zstd frame with a checksum. In it is the magic, then a record
// for each entry in the order of the tar, then the end:
//
//	type       byte; 0 is the end: the number of entries as uvarint follows, and then nothing
//	flags      byte
//	path       uvarint: how many bytes it shares with the last one; uvarint: length of the rest; the rest
//	mode       uvarint, unless it is the last one's
//	uid, gid   varint, unless they are the last one's
//	time       varint: seconds since the last one's; uvarint: nanoseconds, where there are any
//	capability uvarint: length; bytes; where there is one
//	offset     varint: from the end of the last one's body
//	regular    uvarint: size; 32 bytes: sha256, unless it is sparse
//	links      uvarint: length; target
//	devices    varint: major, minor
//
// It costs 40 to 50 bytes an entry, most of them the hash.
const indexMagic = "tarport layer index 1\n"

const (
	sameMode = 1 << iota
	sameOwner
	hasNano
	hasCapability
	isSparse
	knownFlags = 1<<iota - 1
)

// indexWindow is what reading and writing an index costs in memory, more or
// less: what repeats in an index is near.
const indexWindow = 128 << 10

// encoder writes an index.
type encoder struct {
	z    *zstd.Encoder
	buf  []byte
	last Entry
	n    uint64
}

func newEncoder(w io.Writer) *encoder {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(indexWindow), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
	if err != nil {
		panic(fmt.Sprintf("layer: zstd encoder: %v", err)) // constants are wrong
	}
	return &encoder{z: z, buf: []byte(indexMagic)}
}

func (c *encoder) add(e *Entry) error {
	b := append(c.buf, e.Type, flagsOf(e, &c.last))
	shared := sharedPrefix(e.Path, c.last.Path)
	b = binary.AppendUvarint(b, uint64(shared)) //nolint:gosec // a length
	b = appendString(b, e.Path[shared:])
	if e.Mode != c.last.Mode {
		b = binary.AppendUvarint(b, uint64(e.Mode))
	}
	if e.UID != c.last.UID || e.GID != c.last.GID {
		b = binary.AppendVarint(binary.AppendVarint(b, int64(e.UID)), int64(e.GID))
	}
	b = binary.AppendVarint(b, e.ModTime-c.last.ModTime)
	if e.ModNano != 0 {
		b = binary.AppendUvarint(b, uint64(e.ModNano)) //nolint:gosec // not negative
	}
	if e.Capability != nil {
		b = appendString(b, string(e.Capability))
	}
	b = binary.AppendVarint(b, e.Offset-c.last.end())
	switch e.Type {
	case tar.TypeReg:
		b = binary.AppendUvarint(b, uint64(e.Size)) //nolint:gosec // archive/tar gives no negative size
		if !e.Sparse {
			b = append(b, e.SHA256[:]...)
		}
	case tar.TypeLink, tar.TypeSymlink:
		b = appendString(b, e.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		b = binary.AppendVarint(binary.AppendVarint(b, e.Major), e.Minor)
	}
	c.n++
	c.last = *e
	return c.write(b)
}

func (c *encoder) write(b []byte) error {
	_, err := c.z.Write(b)
	c.buf = b[:0]
	return err
}

// close writes the end. An index without it is none.
func (c *encoder) close() error {
	err := c.write(binary.AppendUvarint(append(c.buf, 0), c.n))
	return errors.Join(err, c.z.Close())
}

// end is where the body would end if the entry had one of its size: what comes
// next is near.
func (e *Entry) end() int64 { return e.Offset + e.Size }

func flagsOf(e, last *Entry) (f byte) {
	for _, x := range []struct {
		is   bool
		flag byte
	}{
		{e.Mode == last.Mode, sameMode},
		{e.UID == last.UID && e.GID == last.GID, sameOwner},
		{e.ModNano != 0, hasNano},
		{e.Capability != nil, hasCapability},
		{e.Sparse, isSparse},
	} {
		if x.is {
			f |= x.flag
		}
	}
	return f
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// ErrIndex is what errors of Reader are that mean that the index is damaged:
// it has to be made again.
var ErrIndex = errors.New("the index of the layer is damaged")

// Reader reads an index.
type Reader struct {
	r    *bufio.Reader
	last Entry
	n    uint64
	err  error
}

// NewReader returns a Reader of the index that r has. It reads ahead, and needs
// no closing. The error is ErrIndex where it is no index.
func NewReader(r io.Reader) (*Reader, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return nil, damaged(err)
	}
	rd := &Reader{r: bufio.NewReaderSize(z, 32<<10)}
	head := make([]byte, len(indexMagic))
	if _, err := io.ReadFull(rd.r, head); err != nil {
		return nil, damaged(err)
	}
	if string(head) != indexMagic {
		return nil, fmt.Errorf("%w: it begins with %q", ErrIndex, head)
	}
	return rd, nil
}

func damaged(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // io.EOF is for the end that was marked
	}
	return fmt.Errorf("%w: %w", ErrIndex, err)
}

// Next returns the next entry; io.EOF after the last one, when the index is
// known to be whole, and ErrIndex where it is not. What it returned before is
// then worth nothing.
func (r *Reader) Next() (Entry, error) {
	if r.err != nil {
		return Entry{}, r.err
	}
	e, err := r.next()
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged(err)
	}
	if r.err = err; err != nil {
		return Entry{}, err
	}
	r.last = e
	r.n++
	return e, nil
}

func (r *Reader) next() (Entry, error) {
	d := decoder{r: r.r}
	kind := d.byte()
	if kind == 0 && d.err == nil {
		return Entry{}, r.atEnd()
	}
	flags := d.byte()
	if d.err == nil && (!isType(kind) || flags&^byte(knownFlags) != 0) {
		return Entry{}, fmt.Errorf("an entry of the type %q with the flags %#x", kind, flags)
	}
	e := Entry{Type: kind, Mode: r.last.Mode, UID: r.last.UID, GID: r.last.GID, Sparse: flags&isSparse != 0}
	shared := d.uvarint(uint64(len(r.last.Path)))
	e.Path = r.last.Path[:shared] + d.string()
	if flags&sameMode == 0 {
		e.Mode = uint32(d.uvarint(0o7777)) //nolint:gosec // bounded
	}
	if flags&sameOwner == 0 {
		e.UID, e.GID = int(d.varint()), int(d.varint())
	}
	e.ModTime = r.last.ModTime + d.varint()
	if flags&hasNano != 0 {
		e.ModNano = int32(d.uvarint(999_999_999)) //nolint:gosec // bounded
	}
	if flags&hasCapability != 0 {
		e.Capability = []byte(d.string())
	}
	e.Offset = r.last.end() + d.varint()
	switch kind {
	case tar.TypeReg:
		e.Size = int64(d.uvarint(1<<63 - 1)) //nolint:gosec // bounded
		if !e.Sparse {
			d.full(e.SHA256[:])
		}
	case tar.TypeLink, tar.TypeSymlink:
		e.Linkname = d.string()
	case tar.TypeChar, tar.TypeBlock:
		e.Major, e.Minor = d.varint(), d.varint()
	}
	if errors.Is(d.err, io.EOF) {
		d.err = io.ErrUnexpectedEOF
	}
	return e, d.err
}

// atEnd reads what follows the mark of the end; io.EOF where all is well. The
// last read is what makes zstd compare its checksum.
func (r *Reader) atEnd() error {
	d := decoder{r: r.r}
	n := d.uvarint(1<<64 - 1)
	if d.err != nil {
		return io.ErrUnexpectedEOF
	}
	if n != r.n {
		return fmt.Errorf("there should be %d entries, and there were %d", n, r.n)
	}
	_, err := r.r.ReadByte()
	if err == nil {
		return errors.New("it goes on after its end")
	}
	return err
}

func isType(t byte) bool { return t >= tar.TypeReg && t <= tar.TypeFifo }

// decoder reads the parts of a record; after an error it gives zeros.
type decoder struct {
	r   *bufio.Reader
	err error
}

var errRange = errors.New("a number is out of its range")

// maxString bounds a string: archive/tar reads no longer names, links and
// records.
const maxString = 1 << 20

func (d *decoder) byte() byte {
	if d.err != nil {
		return 0
	}
	b, err := d.r.ReadByte()
	d.err = err
	return b
}

func (d *decoder) uvarint(most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	var n uint64
	if n, d.err = binary.ReadUvarint(d.r); d.err == nil && n > most {
		d.err = errRange
	}
	if d.err != nil {
		return 0
	}
	return n
}

func (d *decoder) varint() int64 {
	if d.err != nil {
		return 0
	}
	var n int64
	n, d.err = binary.ReadVarint(d.r)
	return n
}

func (d *decoder) full(p []byte) {
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, p)
	}
}

func (d *decoder) string() string {
	n := int(d.uvarint(maxString)) //nolint:gosec // bounded
	if d.err != nil || n == 0 {
		return ""
	}
	if n > d.r.Size() {
		var b strings.Builder // grows with what comes, not with what is promised
		_, d.err = io.CopyN(&b, d.r, int64(n))
		return b.String()
	}
	var p []byte
	p, d.err = d.r.Peek(n)
	s := string(p)
	_, _ = d.r.Discard(len(p)) // they are in the buffer
	return s
}
