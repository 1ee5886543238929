package layer

import (
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// The compressions, by the names that the API uses. A layer of an image has one
// of the first three: the others have no media type.
const (
	Uncompressed = "none"
	Gzip         = "gzip"
	Zstd         = "zstd"
	Xz           = "xz"
	Bzip2        = "bzip2"
)

// HasMediaType tells whether a layer of an image may be compressed so.
func HasMediaType(compression string) bool {
	return compression == Uncompressed || compression == Gzip || compression == Zstd
}

// MagicLen is how much of a file CompressionOf needs.
const MagicLen = 10

// CompressionOf tells how something that begins with b is compressed. Names
// and media types are not asked: both lie, in archives that tools make.
func CompressionOf(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(b) >= 4 && b[0]&0xf0 == 0x50 && bytes.Equal(b[1:4], []byte{0x2a, 0x4d, 0x18}): // a skippable frame, as pzstd writes first
		return Zstd
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	case len(b) >= MagicLen && bytes.HasPrefix(b, []byte("BZh")) && b[3] >= '1' && b[3] <= '9' &&
		(bytes.Equal(b[4:10], []byte{0x31, 0x41, 0x59, 0x26, 0x53, 0x59}) || bytes.Equal(b[4:10], []byte{0x17, 0x72, 0x45, 0x38, 0x50, 0x90})):
		return Bzip2
	}
	return Uncompressed
}

// Decompress returns what is in r, which needs no more memory than window, 1
// KiB to 4 GiB, for zstd's window or xz's dictionary. It starts no goroutine.
// Checksums are verified by whoever reads to the end.
func Decompress(r io.Reader, compression string, window int64) (io.ReadCloser, error) {
	switch compression {
	case Gzip:
		return gzip.NewReader(r)
	case Zstd:
		most := uint64(window) //nolint:gosec // positive, says the contract
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(most), zstd.WithDecoderMaxMemory(most))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Xz:
		d, err := xz.NewReader(r, uint32(window)) //nolint:gosec // the same
		return io.NopCloser(d), err
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	return io.NopCloser(r), nil
}
