package archive

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// zstdSize is how many bytes share a frame: of twice as many the result would be
// 2 % shorter, and a load would take 4 MiB more of memory.
const zstdSize = 256 << 10

func newZstdPool() *chunkPool {
	return newChunkPool(func() chunk { return &zstdChunk{make([]byte, 0, zstdSize)} }, newZstdEncoder)
}

type zstdChunk struct{ b []byte }

func (p *zstdChunk) Fill(src []byte) int {
	n := copy(p.b[len(p.b):zstdSize], src)
	p.b = p.b[:len(p.b)+n]
	return n
}

func (p *zstdChunk) Full() bool { return len(p.b) == zstdSize }

func (p *zstdChunk) Reset() { p.b = p.b[:0] }

// zstdEncoder makes a frame of each chunk: RFC 8878 section 3.1 has frames that
// follow each other as one stream.
type zstdEncoder struct{ z *zstd.Encoder }

func newZstdEncoder() encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(zstdSize),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	if err != nil {
		panic(fmt.Sprintf("archive: zstd encoder: %v", err)) // constants are wrong
	}
	return zstdEncoder{z}
}

func (e zstdEncoder) Append(dst []byte, p chunk, _ bool) []byte {
	return e.z.EncodeAll(p.(*zstdChunk).b, dst)
}
