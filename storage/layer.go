package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// What a stored layer may cost when it is unpacked. A blob that was pushed is
// what its sender made of it, so these bound the registry's own work; real
// layers are far below.
const (
	layerWindow    = 128 << 20 // of zstd, and dictionary of xz
	layerMax       = 20 << 30  // plain bytes
	layerRatio     = 200       // plain to packed, of what is over layerRatioFrom: layers of zeros are real
	layerRatioFrom = 1 << 30
)

// LayerReader reads the plain bytes of a stored layer.
type LayerReader struct {
	// Compression is what the blob has around the tar: none, gzip, zstd, and xz
	// or bzip2, which have no media type.
	Compression string

	digest digest.Digest
	plain  io.ReadCloser
	packed *packedReader
	file   io.ReadSeekCloser
	size   int64 // of the blob
	n      int64 // of what was read
}

// tooMuch is the error of a layer that is not unpacked, by the bytes that it has
// so far, or in all, and its blob's; nil below the bounds. It is the whole blob's
// size that counts: a layer may begin with zeros.
func tooMuch(plain, blob int64) error {
	switch {
	case plain > layerMax:
		return fmt.Errorf("it unpacks to more than %d bytes", int64(layerMax))
	case plain > layerRatioFrom && plain/layerRatio > blob:
		return fmt.Errorf("it unpacks to more than %d times its size", layerRatio)
	}
	return nil
}

// OpenLayer opens a stored blob for reading what it is once its compression is
// taken off. Whoever reads it to its end has seen the compression's checksums
// verified. An error of the code MANIFEST_INVALID tells, here and from Read,
// that the blob is no layer: to try again does not help. It does not ask who may
// read the blob: callers have. BLOB_UNKNOWN where it is not here.
func (s *Store) OpenLayer(ctx context.Context, dgst digest.Digest) (*LayerReader, error) {
	b, err := s.db.Blob(ctx, dgst)
	if err != nil {
		return nil, err
	}
	file, n, err := s.files.open(ctx, dgst)
	if err := s.intact(ctx, b, n, err); err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return nil, err
	}
	l := &LayerReader{digest: dgst, packed: &packedReader{ctx: ctx, r: file}, file: file, size: n}
	r := bufio.NewReaderSize(l.packed, 64<<10)
	head, err := r.Peek(layer.MagicLen)
	if err == nil || errors.Is(err, io.EOF) {
		l.Compression = layer.CompressionOf(head)
		l.plain, err = layer.Decompress(r, l.Compression, layerWindow)
	}
	if err != nil {
		return nil, errors.Join(l.broken(err), file.Close())
	}
	return l, nil
}

func (l *LayerReader) Read(p []byte) (int, error) {
	n, err := l.plain.Read(p)
	l.n += int64(n)
	if over := tooMuch(l.n, l.size); over != nil && (err == nil || errors.Is(err, io.EOF)) {
		err = over
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = l.broken(err)
	}
	return n, err
}

// skip goes to an offset in the plain bytes, before anything was read.
func (l *LayerReader) skip(offset int64) error {
	if l.Compression != layer.Uncompressed {
		_, err := io.CopyBuffer(io.Discard, io.LimitReader(struct{ io.Reader }{l}, offset), make([]byte, 256<<10))
		return err
	}
	if _, err := l.file.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("read blob %s: %w", l.digest, err)
	}
	l.plain = io.NopCloser(bufio.NewReaderSize(l.packed, 64<<10))
	return nil
}

// broken tells an error of the storage, which may pass, from one of the blob.
func (l *LayerReader) broken(err error) error {
	if l.packed.err != nil {
		return fmt.Errorf("read blob %s: %w", l.digest, l.packed.err)
	}
	return notALayer(l.digest, err)
}

func notALayer(dgst digest.Digest, err error) error {
	return tarport.Errorf(tarport.ManifestInvalid, "the blob %s is no layer: %v", dgst, err).Because(err)
}

// Close lets go of the blob.
func (l *LayerReader) Close() error { return errors.Join(l.plain.Close(), l.file.Close()) }

// packedReader reads a blob's file: it ends with ctx and remembers its errors.
type packedReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way
	r   io.Reader
	err error // other than io.EOF
}

func (p *packedReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		p.err = err
		return 0, err
	}
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		p.err = err
	}
	return n, err
}

// IndexLayer reads a stored layer to its end, makes its index and shows it to c,
// which may be nil. It returns the diffID: what the bytes are and not what
// anybody claims; the registry remembers it from then on. The taps get the plain
// bytes as they are read. Errors are as OpenLayer's, and ErrMistake. It does not
// ask who may read the blob.
func (s *Store) IndexLayer(ctx context.Context, dgst digest.Digest, c layer.Collector, taps ...io.Writer) (diffID digest.Digest, err error) {
	r, err := s.OpenLayer(ctx, dgst)
	if err != nil {
		return "", err
	}
	defer func() {
		// Not always of a request: where nobody recovers, the process would end.
		if p := recover(); p != nil {
			s.o.Log.LogAttrs(ctx, slog.LevelError, "a layer brought the registry to a mistake of its own; please report it",
				slog.String("digest", dgst.String()), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = ErrMistake
		}
		err = errors.Join(err, r.Close())
	}()
	return s.indexLayer(ctx, dgst, r, c, taps)
}

// ErrMistake is the answer where the contents of a layer, which are anybody's,
// found a mistake in the registry: it is not tried again.
var ErrMistake = tarport.Errorf(tarport.ManifestInvalid, "the registry made a mistake in reading it; its log has more")

func (s *Store) indexLayer(ctx context.Context, dgst digest.Digest, r *LayerReader, c layer.Collector, taps []io.Writer) (digest.Digest, error) {
	x, err := s.NewIndex(ctx)
	if err != nil {
		return "", err
	}
	defer x.Discard()
	h := layer.NewHasher()
	ix := layer.NewIndexer(x, c)
	defer ix.Abandon()
	to := io.MultiWriter(append([]io.Writer{h, ix}, taps...)...)
	if _, err := io.CopyBuffer(to, r, make([]byte, 256<<10)); err != nil {
		return "", err
	}
	if err := ix.Close(); err != nil {
		return "", notALayer(dgst, err)
	}
	if err := ix.Err(); err != nil {
		return "", err
	}
	diffID := digest.NewDigestFromBytes(digest.SHA256, h.Sum())
	if layer.HasMediaType(r.Compression) { // nobody can pull it otherwise, so it stands for nothing
		known := metadata.Layer{DiffID: diffID, Digest: dgst, Compression: r.Compression, Plain: plainOf(h.Size(), h.Prefixes())}
		if err := s.db.RememberLayer(ctx, known); err != nil {
			return "", err
		}
	}
	return diffID, x.Finish(ctx, diffID)
}
