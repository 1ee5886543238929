package archive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// The compressions, by the names that the API uses. What is stored is one of
// the first three: the others have no media type.
const (
	uncompressed = layer.Uncompressed
	gzipped      = layer.Gzip
	zstded       = layer.Zstd
	xzed         = layer.Xz
	bzip2ed      = layer.Bzip2
)

func checkCompression(c string) error {
	switch c {
	case uncompressed, gzipped, zstded:
		return nil
	}
	return tarport.Errorf(tarport.Invalid, "compression must be gzip, zstd or none, not %s", quoted(c))
}

// source is the body: it counts, ends with ctx, and remembers whether it was
// the sender or the archive that broke off.
type source struct {
	ctx context.Context // an io.Reader gets no context; this one lives for one call of Load
	r   io.Reader
	max int64
	n   int64
	err error // what the body's reader said, other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	switch {
	case s.n > s.max:
		s.err = tooLarge("the archive is larger than %d bytes", s.max)
		return n, s.err
	case err != nil && !errors.Is(err, io.EOF):
		s.err = err
	}
	return n, err
}

// failure is the error of a body that could not be read to its end. The
// server ends the context where a read fails, so the read's own error comes
// first.
func (s *source) failure() error {
	large, isLarge := errors.AsType[*http.MaxBytesError](s.err)
	_, ours := errors.AsType[*tarport.Error](s.err)
	switch {
	case s.err == nil || ours || errors.Is(s.err, context.Canceled) || errors.Is(s.err, context.DeadlineExceeded):
		return s.err
	case isLarge:
		return tooLarge("the archive is larger than %d bytes", large.Limit).Because(s.err)
	}
	return tarport.Errorf(tarport.Invalid, "the upload broke off after %d bytes", s.n).Because(errors.Join(s.err, s.ctx.Err()))
}

// meter bounds what comes out of a decompressor.
type meter struct {
	limits Limits
	total  *int64       // of the archive, over all decompression
	in     func() int64 // how much went in
	what   string       // for the message
	max    int64
	n      int64
}

// add counts n more bytes.
func (m *meter) add(n int) error {
	m.n += int64(n)
	*m.total += int64(n)
	switch {
	case m.n > m.max:
		return tooLarge("%s unpacks to more than %d bytes", m.what, m.max)
	case *m.total > m.limits.Unpacked:
		return tooLarge("the archive unpacks to more than %d bytes", m.limits.Unpacked)
	case m.n > m.limits.RatioFrom && m.n/m.limits.Ratio > m.in():
		return tooLarge("%s unpacks to more than %d times its size", m.what, m.limits.Ratio)
	}
	return nil
}

// metered counts what is read of r.
type metered struct {
	r io.Reader
	m *meter
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if over := m.m.add(n); over != nil {
		return n, over
	}
	return n, err
}

const bufferSize = 256 << 10

// stream is the tar inside a body: every compression around it taken off.
type stream struct {
	io.Reader
	src    *source
	layers []string // what was taken off, outermost first
	closer []io.Closer
}

// openStream finds out how the body is compressed. encodings are those that
// the request's Content-Encoding names: one more compression each.
func openStream(src *source, encodings int, limits Limits, total *int64) (*stream, error) {
	s := &stream{src: src}
	r := bufio.NewReaderSize(src, bufferSize)
	for depth := 0; ; depth++ {
		head, err := r.Peek(layer.BlockSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return s, s.broken(err, "at its beginning")
		}
		kind := layer.CompressionOf(head)
		switch {
		case kind == uncompressed:
			if err := refuseOther(head); err != nil {
				return s, err
			}
			s.Reader = r
			return s, nil
		case depth > encodings:
			return s, invalid("the archive is compressed twice: %s inside %s; send it with one compression", kind, s.layers[depth-1])
		}
		d, err := layer.Decompress(r, kind, limits.Window)
		if err != nil {
			return s, s.broken(err, "in the header of its "+kind+" compression")
		}
		s.layers, s.closer = append(s.layers, kind), append(s.closer, d)
		m := &meter{limits: limits, total: total, in: func() int64 { return src.n }, what: "the " + kind + " stream", max: limits.Unpacked}
		r = bufio.NewReaderSize(metered{d, m}, bufferSize)
	}
}

// refuseOther says what something is that is no tar; nil where it may be one.
func refuseOther(head []byte) error {
	text := strings.TrimSpace(string(head))
	switch {
	case len(head) == 0:
		return invalid("there is nothing in the archive: the body is empty")
	case layer.IsTar(head):
		return nil
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return invalid("this is a zip file and not a tar archive")
	case bytes.HasPrefix(head, []byte("7z\xbc\xaf\x27\x1c")), bytes.HasPrefix(head, []byte("Rar!")):
		return invalid("this is a 7z or rar file and not a tar archive")
	case bytes.HasPrefix(head, []byte{0x04, 0x22, 0x4d, 0x18}), bytes.HasPrefix(head, []byte{0x1f, 0x9d}):
		return invalid("the archive is compressed with lz4 or compress: use gzip, zstd, xz, bzip2 or none")
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["), strings.HasPrefix(text, "<"):
		return invalid("this is text (%s), not a tar archive", quoted(text[:min(len(text), 40)]))
	case len(head) < layer.BlockSize:
		return invalid("the archive has only %d bytes: no tar is that short", len(head))
	}
	return invalid("this is not a tar archive: its first block is no tar header, and it is not gzip, zstd, xz or bzip2 either")
}

// drain reads what follows the tar's end, so that a checksum at the end of the
// compression counts (no other tool checks it), and a second archive behind the
// first one is noticed. Zeros are padding.
func (s *stream) drain() error {
	buf := make([]byte, bufferSize)
	for {
		n, err := s.Read(buf)
		if !layer.IsZero(buf[:n]) {
			return invalid("there is data after the end of the archive: are these two archives in one file?")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.broken(err, "after the end of the tar")
		}
	}
}

// broken is the error of a stream that could not be read on.
func (s *stream) broken(err error, where string) error {
	if failure := s.src.failure(); failure != nil {
		return failure
	}
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e
	}
	what := "is broken"
	if len(s.layers) > 0 {
		what = "or its " + strings.Join(s.layers, " in ") + " compression is broken"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		what = "ends early"
	}
	return invalid("the archive %s %s: %s", what, where, plainWords(err)).Because(err)
}

func (s *stream) close() {
	for _, c := range s.closer {
		_ = c.Close() // readers; there is nothing to lose
	}
}

// plainWords says what a decompressor or the tar reader found.
func plainWords(err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it is cut off"
	case errors.Is(err, gzip.ErrChecksum):
		return "the checksum at the end of the gzip stream is wrong"
	case errors.Is(err, gzip.ErrHeader):
		return "there is no gzip header where one should be"
	case errors.Is(err, zstd.ErrCRCMismatch):
		return "the checksum of the zstd stream is wrong"
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, xz.ErrMemlimit):
		return "it needs more memory to be unpacked than is allowed"
	}
	// The libraries' errors are about the client's bytes and name nothing of ours.
	return err.Error()
}
