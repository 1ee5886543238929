package archive

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// gzipLevel and the block size (pgzip's own, 1 MiB) are fixed, so that the
// same layer gives the same blob on every machine with this version. Level 1 is
// several times as fast as level 6, at about 5 % more bytes.
const gzipLevel = 1

// packer compresses one layer on all cores. It is ended by close or abort.
type packer interface {
	io.Writer
	// close writes what is left.
	close() error
	// abort gives up; what was written is useless.
	abort()
}

// packers keeps compressors for the next layer: each has megabytes of buffers.
type packers struct {
	gzip sync.Pool
	zstd sync.Pool
}

// get returns a compressor to gzip or zstd that writes to w.
func (p *packers) get(compression string, w io.Writer) packer {
	if compression == zstded {
		z, ok := p.zstd.Get().(*zstd.Encoder)
		if !ok {
			z = newZstd()
		}
		z.Reset(w)
		return &zstdPacker{z, &p.zstd}
	}
	z, ok := p.gzip.Get().(*pgzip.Writer)
	if !ok {
		z = newGzip()
	}
	z.Reset(w)
	return &gzipPacker{z, &p.gzip}
}

func newGzip() *pgzip.Writer {
	z, err := pgzip.NewWriterLevel(io.Discard, gzipLevel)
	if err != nil {
		panic(fmt.Sprintf("archive: gzip level %d: %v", gzipLevel, err)) // a constant is wrong
	}
	return z
}

func newZstd() *zstd.Encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		panic(fmt.Sprintf("archive: zstd encoder: %v", err)) // constants are wrong
	}
	return z
}

type gzipPacker struct {
	*pgzip.Writer
	pool *sync.Pool
}

func (p *gzipPacker) close() error {
	err := p.Close()
	p.abort()
	return err
}

// abort ends the goroutine that pgzip leaves after a failed write.
func (p *gzipPacker) abort() {
	p.Reset(io.Discard)
	p.pool.Put(p.Writer)
}

type zstdPacker struct {
	*zstd.Encoder
	pool *sync.Pool
}

func (p *zstdPacker) close() error {
	err := p.Close()
	p.abort()
	return err
}

func (p *zstdPacker) abort() {
	p.Reset(nil)
	p.pool.Put(p.Encoder)
}
