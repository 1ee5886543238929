package archive

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// packer compresses one layer on all cores. It is ended by close or abort.
type packer interface {
	io.Writer
	// close writes what is left.
	close() error
	// abort gives up; what was written is useless.
	abort()
}

// packers keeps compressors for the next layer: each has megabytes of buffers.
// The zero value is ready.
type packers struct {
	gzip gzipPool
	zstd sync.Pool
}

// get returns a compressor to gzip or zstd that writes to w. Compressors to gzip
// share a few places, so w must not be slow: a client's connection needs packers
// of its own.
func (p *packers) get(compression string, w io.Writer) packer {
	if compression == zstded {
		z, ok := p.zstd.Get().(*zstd.Encoder)
		if !ok {
			z = newZstd()
		}
		z.Reset(w)
		return &zstdPacker{z, &p.zstd}
	}
	return p.gzip.writer(w)
}

var errAborted = errors.New("the compression was given up")

func newZstd() *zstd.Encoder {
	// A load waits for it, so the level is the fastest, at 6 % more bytes than the
	// next one. Without bounds an encoder takes 20 MiB.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderConcurrency(2))
	if err != nil {
		panic(fmt.Sprintf("archive: zstd encoder: %v", err)) // constants are wrong
	}
	return z
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
