package archive

import (
	"errors"
	"io"
)

// packer compresses one layer on all cores. It is ended by close or abort.
type packer interface {
	io.Writer
	// close writes what is left.
	close() error
	// abort gives up; what was written is useless.
	abort()
}

// packers compress layers; what they need is kept for the next one.
type packers struct{ gzip, zstd *chunkPool }

func newPackers() packers { return packers{newGzipPool(), newZstdPool()} }

// get returns a compressor to gzip or zstd that writes to w. Those of a kind
// share a few places, so w must not be slow: a client's connection needs packers
// of its own.
func (p *packers) get(compression string, w io.Writer) packer {
	if compression == zstded {
		return p.zstd.writer(w, nil)
	}
	return newGzipWriter(p.gzip, w)
}

var errAborted = errors.New("the compression was given up")
