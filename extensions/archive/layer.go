package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// intake takes the files that can be layers out of the stream, one after the
// other, and into the batch. What is left to do when a file's last byte has
// passed (the last blocks of compression, the fsync) is done while the next
// file is read.
type intake struct {
	limits      Limits
	store       Store
	batch       Batch
	packers     *packers
	compression string // of plain layers
	repack      bool   // also of those that a manifest may name

	report *reporter
	total  *int64 // bytes that came out of decompression
	buf    []byte
	group  *errgroup.Group
	failed context.Context         // the group's: done when one of its goroutines failed
	forms  map[digest.Digest]*form // by diffID: what was compressed of this archive
	facts  int                     // bytes of what is known of the layers
}

func newIntake(ctx context.Context, s *Service, b Batch, compression string) *intake {
	in := &intake{
		limits: s.o.Limits, store: s.o.Store, batch: b, packers: &s.packers,
		compression: cmp.Or(compression, s.o.Compression),
		repack:      s.o.Repack || compression != "",
		total:       new(int64), buf: make([]byte, bufferSize), forms: map[digest.Digest]*form{},
	}
	in.group, in.failed = errgroup.WithContext(ctx)
	in.group.SetLimit(2)
	return in
}

// wait waits until all that passed is in the batch. Then forms and diffIDs are
// known.
func (in *intake) wait() error { return in.group.Wait() }

// plan is what is kept of a layer.
type plan struct {
	raw    bool   // its bytes as they are
	packed string // the compression that it gets; "" for none
	known  *form  // what the store has of it, if its name tells the truth
}

// plan decides by what is known of the file before its bytes pass. A manifest
// of the archive can name only what lies at blobs/<algorithm>/<hex>, and that
// must then be there to the byte.
func (in *intake) plan(ctx context.Context, f *file) (plan, error) {
	var p plan
	switch f.compression {
	case gzipped, zstded:
		return plan{raw: true}, nil
	case xzed, bzip2ed: // there is no media type for them, and clients fail
		p = plan{raw: f.pinned(), packed: gzipped}
		if in.compression == zstded {
			p.packed = zstded
		}
		return p, nil
	}
	p.raw = in.compression == uncompressed || f.pinned() && !in.repack
	want := uncompressed
	if !p.raw {
		p.packed, want = in.compression, in.compression
	}
	hint := f.hint()
	if hint == "" {
		return p, nil
	}
	known, err := in.store.KnownLayers(ctx, hint)
	if err != nil {
		return p, fmt.Errorf("look up layer %s: %w", hint, err)
	}
	for _, l := range known {
		if l.Compression == want {
			return plan{known: &form{l.Digest, l.Size, l.Compression}}, nil
		}
	}
	return p, nil
}

// layer takes in a file that looks like a layer. That it is none is no error
// here: nobody may have named it.
func (in *intake) layer(ctx context.Context, f *file, body *entryReader) error {
	if in.failed.Err() != nil {
		return in.wait()
	}
	p, err := in.plan(ctx, f)
	if err != nil {
		return err
	}
	if f.compression == uncompressed && f.size > in.limits.Layer {
		return tooLarge("the layer %s has %d bytes, at most %d are allowed", quoted(f.name), f.size, in.limits.Layer)
	}
	f.shown = true
	if p.known != nil {
		in.report.known(f)
		f.shown = false
	}
	j := &job{in: in, f: f}
	if p.known == nil {
		j.look = newLook(nil)
	}
	j.check = layer.NewIndexer(nil, j.look.collector())
	defer j.abandon()
	if p.raw {
		if j.raw, err = in.create(ctx, ""); err != nil {
			return err
		}
	}
	if p.packed != "" {
		if j.packed, err = in.create(ctx, p.packed); err != nil {
			return err
		}
	}
	// A plain layer that is stored as it is has its digest as diffID, and the
	// store computes that: the bytes are hashed once.
	if p.packed != "" || p.known != nil || f.compression != uncompressed {
		j.hash = sha256.New()
	}
	if err := j.run(body); err != nil {
		return err
	}
	return j.finish(p)
}

// whole takes in a stream that is one layer, plain, and shows its entries to c.
// It reads on only while there is nothing wrong with the layer.
func (in *intake) whole(ctx context.Context, f *file, src io.Reader, c layer.Collector) (err error) {
	p := plan{raw: in.compression == uncompressed}
	j := &job{in: in, f: f, look: newLook(c)}
	j.check = layer.NewIndexer(nil, j.look.collector())
	defer j.abandon()
	if p.raw {
		j.raw, err = in.create(ctx, "")
	} else {
		p.packed, j.hash = in.compression, sha256.New()
		j.packed, err = in.create(ctx, p.packed)
	}
	if err != nil {
		return err
	}
	if _, err := j.pump(whileGood{src, j.check}, j.raw, j.packed); err != nil {
		return err
	}
	if err := j.finish(p); err != nil || f.notLayer == "" {
		return err
	}
	return brokenRootFS(f.notLayer)
}

// whileGood ends where a layer turns out to be none.
type whileGood struct {
	r     io.Reader
	check *layer.Indexer
}

func (g whileGood) Read(p []byte) (int, error) {
	if err := g.check.Broken(); err != nil {
		return 0, brokenRootFS(err.Error())
	}
	return g.r.Read(p)
}

func brokenRootFS(why string) error { return invalid("the root file system is broken: %s", why) }

// opaque stages a large file that is no layer: an artifact may name it.
func (in *intake) opaque(ctx context.Context, f *file, body *entryReader) error {
	f.notLayer = "it is not a tar archive"
	w, err := in.create(ctx, "")
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, in.buf); err != nil {
		w.drop()
		return err
	}
	f.raw = &form{}
	in.finish(w, f.raw, nil)
	return nil
}

// job is one layer on its way.
type job struct {
	in     *intake
	f      *file
	check  *layer.Indexer
	look   *look     // nil where what is in the layer is known
	hash   hash.Hash // nil where the store's is enough
	raw    *staging  // nil where the bytes are not kept
	packed *staging  // nil where nothing is compressed
}

// run reads the layer to its end.
func (j *job) run(body *entryReader) error {
	if j.f.compression == uncompressed {
		_, err := j.pump(body, j.raw, j.packed)
		return err
	}
	var src io.Reader = body
	if j.raw != nil {
		src = io.TeeReader(body, j.raw)
	}
	d, err := layer.Decompress(src, j.f.compression, j.in.limits.Window)
	if err == nil {
		m := &meter{
			limits: j.in.limits, total: j.in.total, in: func() int64 { return body.n },
			what: "the layer " + quoted(j.f.name), max: j.in.limits.Layer,
		}
		var broken bool
		broken, err = j.pump(metered{d, m}, j.packed, nil)
		_ = d.Close() // a reader; there is nothing to lose
		if !broken && err != nil {
			return err
		}
	}
	switch e, limit := errors.AsType[*tarport.Error](err); {
	case body.err != nil:
		return body.err
	case j.raw != nil && j.raw.err != nil:
		return j.raw.err
	case limit:
		return e
	case err != nil:
		j.f.notLayer = "its " + j.f.compression + " compression: " + plainWords(err)
	}
	return j.drain(body)
}

// pump moves src to the end into hash, check and the writers. readErr tells
// that the error is src's.
func (j *job) pump(src io.Reader, a, b *staging) (readErr bool, err error) {
	for {
		n, err := src.Read(j.in.buf)
		p := j.in.buf[:n]
		if j.hash != nil {
			j.hash.Write(p)
		}
		_, _ = j.check.Write(p)
		for _, w := range []*staging{a, b} {
			if w == nil {
				continue
			}
			if _, err := w.Write(p); err != nil {
				return false, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return true, err
		}
	}
}

// drain reads what the decompressor left of the file.
func (j *job) drain(body *entryReader) error {
	dst := io.Discard
	if j.raw != nil {
		dst = struct{ io.Writer }{j.raw}
	}
	_, err := io.CopyBuffer(dst, struct{ io.Reader }{body}, j.in.buf)
	return err
}

// finish hands over what was made of the layer.
func (j *job) finish(p plan) error {
	in, f := j.in, j.f
	if err := j.check.Close(); err != nil && f.notLayer == "" {
		f.notLayer = err.Error()
	}
	if f.notLayer == "" {
		f.facts = in.keep(j.look)
	}
	if j.hash != nil && f.notLayer == "" {
		f.diffID = digest.NewDigest(digest.SHA256, j.hash)
	}
	if p.known != nil {
		j.verifyKnown(p.known)
	}
	if j.packed != nil && f.notLayer == "" {
		if same := in.forms[f.diffID]; same != nil {
			f.packed = same // another entry of this archive brought the same layer
		} else {
			f.packed = &form{compression: p.packed}
			in.forms[f.diffID] = f.packed
			in.finish(j.packed, f.packed, nil)
			j.packed = nil
		}
	}
	if j.raw != nil {
		f.raw = &form{compression: f.compression}
		plain := f
		if f.compression != uncompressed || f.notLayer != "" {
			plain = nil
		}
		in.finish(j.raw, f.raw, plain)
		j.raw = nil
	}
	in.report.layers.taken(f, p)
	return nil
}

// verifyKnown uses what the store has, where the bytes are what the name says.
func (j *job) verifyKnown(known *form) {
	f := j.f
	switch {
	case f.notLayer != "":
	case f.diffID != f.hint():
		f.notLayer = fmt.Sprintf("its name says that its sha256 is %s, it is %s", f.hint().Encoded(), f.diffID.Encoded())
	case known.compression == uncompressed:
		f.raw = known
	default:
		f.packed = known
	}
}

// abandon drops what finish did not hand over.
func (j *job) abandon() {
	j.check.Abandon()
	for _, w := range []*staging{j.raw, j.packed} {
		if w != nil {
			w.drop()
		}
	}
}

// staging is a blob in the making, compressed on its way or not.
type staging struct {
	blob StagedBlob
	pack packer // nil where the bytes are stored as they are
	err  error
}

func (in *intake) create(ctx context.Context, compression string) (*staging, error) {
	b, err := in.batch.Create(ctx)
	if err != nil {
		return nil, fmt.Errorf("stage a blob: %w", err)
	}
	w := &staging{blob: b}
	if compression != "" {
		w.pack = in.packers.get(compression, b)
	}
	return w, nil
}

func (w *staging) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	var err error
	if w.pack != nil {
		_, err = w.pack.Write(p)
	} else {
		_, err = w.blob.Write(p)
	}
	if err != nil {
		w.err = fmt.Errorf("write a staged blob: %w", err)
		return 0, w.err
	}
	return len(p), nil
}

// drop ends the blob and leaves nothing of it.
func (w *staging) drop() {
	if w.pack != nil {
		w.pack.abort()
	}
	w.blob.Discard()
}

// finish completes the blob while the stream is read on; its digest is in to
// after wait. Of a plain layer, whose file is given, it is the diffID as well.
func (in *intake) finish(w *staging, to *form, plain *file) {
	in.group.Go(func() error {
		if w.pack != nil {
			if err := w.pack.close(); err != nil {
				w.blob.Discard()
				return fmt.Errorf("write a staged blob: %w", err)
			}
		}
		desc, err := w.blob.Finish()
		if err != nil {
			w.blob.Discard()
			return fmt.Errorf("finish a staged blob: %w", err)
		}
		to.digest, to.size = desc.Digest, desc.Size
		if plain != nil {
			plain.diffID = desc.Digest
		}
		return nil
	})
}
