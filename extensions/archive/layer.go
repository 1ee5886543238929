package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
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
	replays     *places.Set

	report *reporter
	lend   *lender // tells which layers may be followed; whole has no need of it
	total  *int64  // bytes that came out of decompression
	buf    []byte  // of a step of layer.Prefixes
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
		replays:     s.replays,
		total:       new(int64), buf: make([]byte, layer.PrefixStep), forms: map[digest.Digest]*form{},
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
	trial  bool   // the store may have it: its bytes tell
}

// want is the compression that a plain layer gets.
func (p plan) want() string { return cmp.Or(p.packed, uncompressed) }

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
	if !p.raw {
		p.packed = in.compression
	}
	hint := f.hint()
	// Docker up to 24 names a layer by an ID that is no diffID and looks like one.
	p.trial = hint == "" || path.Base(f.name) == dockerLayerFile
	if hint == "" {
		return p, nil
	}
	known, err := knownForm(ctx, in.store, hint, p.want())
	if known != nil {
		p = plan{known: known}
	}
	return p, err
}

// knownForm returns the stored form of a layer that has the compression; nil
// where there is none.
func knownForm(ctx context.Context, s Known, diffID digest.Digest, compression string) (*form, error) {
	list, err := s.KnownLayers(ctx, diffID)
	if err != nil {
		return nil, fmt.Errorf("look up layer %s: %w", diffID, err)
	}
	for _, l := range list {
		if l.Compression == compression {
			return &form{l.Digest, l.Size, l.Compression}, nil
		}
	}
	return nil, nil //nolint:nilnil // none is no error
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
	j := &job{in: in, f: f, plan: p}
	if p.known == nil {
		j.look = newLook(nil)
	}
	j.check = layer.NewIndexer(nil, j.look.collector())
	defer j.abandon()
	if p.trial {
		j.trial = &trial{in: in, want: p.want(), size: f.size}
	} else if err := j.open(ctx); err != nil {
		return err
	}
	// A plain layer that is stored as it is has its digest as diffID, and the
	// store computes that: the bytes are hashed once.
	if p.trial || p.packed != "" || p.known != nil || f.compression != uncompressed {
		j.hash = layer.NewHasher()
	}
	if err := j.run(ctx, body); err != nil {
		return err
	}
	return j.finish(ctx)
}

// whole takes in a stream that is one layer, plain, and shows its entries to c.
// It reads on only while there is nothing wrong with the layer.
func (in *intake) whole(ctx context.Context, f *file, src io.Reader, c layer.Collector) error {
	j := &job{in: in, f: f, plan: plan{raw: in.compression == uncompressed}, look: newLook(c)}
	j.check = layer.NewIndexer(nil, j.look.collector())
	defer j.abandon()
	if !j.plan.raw {
		j.plan.packed, j.hash = in.compression, layer.NewHasher()
	}
	if err := j.open(ctx); err != nil {
		return err
	}
	if _, err := j.pump(ctx, whileGood{src, j.check}); err != nil {
		return err
	}
	if err := j.finish(ctx); err != nil || f.notLayer == "" {
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
	plan   plan
	check  *layer.Indexer
	look   *look    // nil where what is in the layer is known
	raw    *staging // nil where the bytes are not kept
	packed *staging // nil where nothing is compressed

	hash  *layer.Hasher // nil where the store's is enough
	trial *trial        // nil where the store does not have the layer, or it was known before
	at    int           // what the trial has not dropped: the beginning of the intake's buffer
}

// open begins the blobs that are made of the layer.
func (j *job) open(ctx context.Context) (err error) {
	if j.plan.raw {
		if j.raw, err = j.in.create(ctx, ""); err != nil {
			return err
		}
	}
	if j.plan.packed != "" {
		j.packed, err = j.in.create(ctx, j.plan.packed)
	}
	return err
}

// run reads the layer to its end.
func (j *job) run(ctx context.Context, body *entryReader) error {
	if j.f.compression == uncompressed {
		_, err := j.pump(ctx, body)
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
		broken, err = j.pump(ctx, metered{d, m})
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

// pump moves src to the end into hash, check and what is made of the plain
// bytes. readErr tells that the error is src's.
func (j *job) pump(ctx context.Context, src io.Reader) (readErr bool, err error) {
	for {
		p := j.in.buf[j.at:min(j.at+bufferSize, len(j.in.buf))]
		n, err := src.Read(p)
		p = p[:n]
		if j.hash != nil {
			_, _ = j.hash.Write(p)
		}
		_, _ = j.check.Write(p)
		if werr := j.keep(ctx, p); werr != nil {
			return false, werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return true, err
		}
	}
}

// keep does with plain bytes, which lie in the intake's buffer, what is to be
// done with them.
func (j *job) keep(ctx context.Context, p []byte) (err error) {
	if j.trial != nil {
		j.at += len(p)
		return j.hold(ctx)
	}
	if j.packed != nil {
		_, err = j.packed.Write(p)
	}
	if j.raw != nil && j.f.compression == uncompressed && err == nil {
		_, err = j.raw.Write(p)
	}
	return err
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
func (j *job) finish(ctx context.Context) error {
	in, f := j.in, j.f
	if err := j.check.Close(); err != nil && f.notLayer == "" {
		f.notLayer = err.Error()
	}
	if err := j.identify(ctx); err != nil {
		return err
	}
	if j.packed != nil && f.notLayer == "" && f.packed == nil {
		f.packed = &form{compression: j.plan.packed}
		in.forms[f.diffID] = f.packed
		in.finish(j.packed, f.packed, nil)
		j.packed = nil
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
	in.report.layers.taken(f, j.plan)
	return nil
}

func diffIDOf(h *layer.Hasher) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, h.Sum())
}

// identify finds out which layer it is, and uses what is there of it already.
func (j *job) identify(ctx context.Context) error {
	f := j.f
	switch {
	case f.notLayer == "":
	case j.trial != nil && j.plan.raw: // somebody may name it all the same
		return j.begin(ctx)
	default:
		j.trial = nil
		return nil
	}
	f.seen.facts = j.in.keep(j.look)
	if j.hash == nil {
		return nil
	}
	f.diffID, f.seen.size, f.seen.prefixes = diffIDOf(j.hash), j.hash.Size(), j.hash.Prefixes()
	switch {
	case j.plan.known == nil && (j.packed != nil || j.trial != nil):
		return j.compare(ctx)
	case j.plan.known == nil:
	case f.diffID != f.hint():
		f.notLayer = fmt.Sprintf("its name says that its sha256 is %s, it is %s", f.hint().Encoded(), f.diffID.Encoded())
	default:
		f.use(j.plan.known)
	}
	return nil
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
			plain.diffID, plain.seen.size, plain.seen.prefixes = desc.Digest, desc.Size, w.blob.Prefixes()
		}
		return nil
	})
}
