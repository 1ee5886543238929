package archive

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/tarport/tarport/internal/deflate"
)

// gzipHeader is that of RFC 1952 without name, time or system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

func newGzipPool() *chunkPool {
	return newChunkPool(func() chunk { return new(deflate.Piece) }, func() encoder { return new(gzipEncoder) })
}

type gzipEncoder struct{ deflate.Encoder }

func (e *gzipEncoder) Append(dst []byte, p chunk, last bool) []byte {
	return e.Encoder.Append(dst, p.(*deflate.Piece), last)
}

// gzipWriter is one layer that becomes one member of gzip.
type gzipWriter struct {
	*chunkWriter
	w    io.Writer
	crc  uint32
	size uint32
}

func newGzipWriter(p *chunkPool, w io.Writer) *gzipWriter {
	return &gzipWriter{chunkWriter: p.writer(w, gzipHeader), w: w}
}

func (z *gzipWriter) Write(p []byte) (int, error) {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(len(p)) //nolint:gosec // RFC 1952: modulo 2^32
	return z.chunkWriter.Write(p)
}

func (z *gzipWriter) close() error {
	if err := z.chunkWriter.close(); err != nil {
		return err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, z.crc)
	_, err := z.w.Write(binary.LittleEndian.AppendUint32(trailer, z.size))
	return err
}
