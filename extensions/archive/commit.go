package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// CommitRequest says what image to make of the file system of a container.
// Repository and Base are required.
type CommitRequest struct {
	// ImportRequest as for Import, but Message may be empty, Changes are applied
	// to the config of the base, and Platform chooses one of a base that has
	// several; "" for linux/amd64 among them.
	ImportRequest
	// Base is the image that the container was made of, as tarport.ParseImage
	// takes it.
	Base string
	// CreatedBy is the command of the container, for the history; may be "".
	CreatedBy string
	// Force takes a file system that looks as if it came of another base.
	Force bool
}

// Commit makes an image of a container: docker commit. The body is the whole
// file system of the container, as docker export writes it. It is compared with
// the base as it passes, and what differs becomes one layer on top of the base's
// own; where nothing differs there is no new layer.
//
// Errors that the sender may act on are *tarport.Error. The body is not read
// before it is known that the request is of its form, and that the principal of
// ctx may push there and pull the base.
func (s *Service) Commit(ctx context.Context, body io.Reader, q CommitRequest) (res *Result, err error) {
	seen := s.observe(KindCommit, body)
	defer func() { seen.done(ctx, res, err) }()
	c, err := s.newCommitting(ctx, q)
	if err != nil {
		return nil, err
	}
	c.src, c.report.layers = &source{ctx: ctx, r: seen, max: s.o.Limits.Archive}, &seen.layers
	return c.run(ctx)
}

// committing is one call of Commit.
type committing struct {
	s      *Service
	q      CommitRequest
	to     target
	base   *base
	config runConfig
	src    *source
	batch  Batch
	report *reporter
	held   int64 // of Service.paths
}

// newCommitting is all that can be done before the body is read.
func (s *Service) newCommitting(ctx context.Context, q CommitRequest) (*committing, error) {
	to, err := parseTarget(q.Repository, q.Tag)
	if err != nil {
		return nil, err
	}
	if q.Base == "" {
		return nil, tarport.Errorf(tarport.Invalid, "say which image the container was made of: ?base=NAMESPACE/NAME:TAG")
	}
	if err := s.authorizeTo(ctx, to, q.Compression, q.Size); err != nil {
		return nil, err
	}
	if err := checkTexts(q.Message, q.Author, q.CreatedBy); err != nil {
		return nil, err
	}
	b, err := s.openBase(ctx, q.Base, q.Platform)
	if err != nil {
		return nil, err
	}
	config, err := commitChanges(b.config.container(), q.Changes, b.doc.OS)
	if err != nil {
		return nil, err
	}
	return &committing{s: s, q: q, to: to, base: b, config: config, report: &reporter{send: q.Progress}}, nil
}

func (c *committing) run(ctx context.Context) (_ *Result, err error) {
	if c.batch, err = c.s.newBatch(ctx); err != nil {
		return nil, fmt.Errorf("begin a batch: %w", err)
	}
	defer func() {
		err = errors.Join(err, c.batch.Close())
	}()
	if b, ok := c.batch.(charger); ok {
		b.Charge(tarport.Namespace(c.to.repository))
	}
	delta, err := c.layer(ctx)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err // the caller left with the last byte
	}
	m, err := c.manifest(delta)
	if err != nil {
		return nil, err
	}
	res, err := c.s.commitOne(ctx, c.batch, m, c.to, storage.ViaCommit)
	if err != nil {
		return nil, err
	}
	res.BytesRead = c.src.n
	c.report.made(res.Images[0])
	return res, nil
}

// layer reads the body and returns the layer of what differs; nil where nothing
// does.
func (c *committing) layer(ctx context.Context) (*blob, error) {
	tree, err := c.base.tree(ctx, c.s)
	if err != nil {
		return nil, err
	}
	defer func() { c.s.paths.Add(-c.held) }()
	if err := c.hold(tree.Len()); err != nil {
		return nil, err
	}
	spool, err := c.s.o.Store.NewSpool(ctx)
	if err != nil {
		return nil, err
	}
	defer spool.Discard()
	fs := newRootFS(c.s.o.Limits.Files)
	d := layer.NewDelta(tree, spool, fs)
	defer d.Abandon()
	if err := c.read(d, fs, tree.Len()); err != nil {
		return nil, err
	}
	if err := c.checkBase(d.Stats()); err != nil {
		return nil, err
	}
	if d.Empty() {
		return nil, nil
	}
	for _, n := range d.Missing() {
		if err := c.supply(ctx, d, n); err != nil {
			return nil, within(err, "layer %d of the base %s", n+1, c.base.words)
		}
	}
	contents, err := spool.Open()
	if err != nil {
		return nil, err
	}
	defer contents.Close()
	return c.store(ctx, d, contents)
}

// What the trees of all commits and exports may have in memory: some 200 bytes a
// path. Up to freePaths of each commit come without asking.
const (
	freePaths = 300_000
	maxPaths  = 4_000_000
)

// hold tells that this commit has n paths in memory.
func (c *committing) hold(n int) error {
	more := int64(n) - c.held
	c.held = int64(n)
	if all := c.s.paths.Add(more); n > freePaths && all > maxPaths {
		return tarport.Errorf(tarport.Unavailable, "too many large commits are under way: try again later")
	}
	return nil
}

// read takes in the whole stream; the base has so many paths.
func (c *committing) read(d *layer.Delta, fs *rootFS, base int) error {
	var unpacked int64
	st, err := openStream(c.src, c.q.Encodings, c.s.o.Limits, &unpacked)
	defer st.close()
	if err != nil {
		return err
	}
	r := &rootReader{st: st, fs: fs, max: c.s.o.Limits.Layer, passed: func() { c.report.comparing(c.src.n, c.q.Size) }}
	in := &watchedReader{r: r}
	if _, err := io.CopyBuffer(&held{c, d, base}, in, make([]byte, bufferSize)); err != nil {
		if in.err != nil {
			return in.err
		}
		return deltaError(err)
	}
	if err := fs.close(); err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return deltaError(err)
	}
	return nil
}

// held writes to a Delta, within the room that there is for its paths.
type held struct {
	c    *committing
	d    *layer.Delta
	base int // paths of the base
}

func (h *held) Write(p []byte) (int, error) {
	n, err := h.d.Write(p)
	if err == nil {
		err = h.c.hold(h.base + h.d.Len())
	}
	return n, err
}

// deltaError is an error of a Delta, about the file system that it was given.
func deltaError(err error) error {
	var e *layer.ExportError
	switch {
	case errors.Is(err, layer.ErrTooLarge):
		return tooLarge("the root file system is too large to be compared: %s", err)
	case errors.As(err, &e):
		return brokenRootFS(e.Error())
	}
	return err
}

// checkBase notices an export of another image. It counts contents, so that a
// change of all owners or times is none.
func (c *committing) checkBase(st layer.Stats) error {
	if c.q.Force || 2*st.Kept >= st.BaseFiles {
		return nil
	}
	return tarport.Errorf(tarport.Conflict, "of the %d files in %s only %d are in this root file system with the same content: "+
		"is it the image that the container was made of? force=true commits it all the same", st.BaseFiles, c.base.words, st.Kept)
}

// supply takes what the delta needs out of a layer of the base.
func (c *committing) supply(ctx context.Context, d *layer.Delta, n int) error {
	r, err := c.s.o.Store.OpenLayer(ctx, c.base.layers[n].desc.Digest)
	if err != nil {
		return err
	}
	return errors.Join(d.Supply(n, r), r.Close())
}

// store writes the layer into the batch, with its index.
func (c *committing) store(ctx context.Context, d *layer.Delta, contents io.ReadSeeker) (_ *blob, err error) {
	in := newIntake(ctx, c.s, c.batch, c.q.Compression)
	defer func() {
		// Also where it failed: nothing may write when the batch is closed.
		if waitErr := in.wait(); err == nil {
			err = waitErr
		}
	}()
	packed := in.compression
	if packed == uncompressed {
		packed = ""
	}
	w, err := in.create(ctx, packed)
	if err != nil {
		return nil, err
	}
	look := newLook(nil)
	x, err := newIndexing(ctx, c.batch, look)
	if err != nil {
		w.drop()
		return nil, err
	}
	defer x.abandon()
	h := layer.NewHasher()
	if err := d.WriteLayer(io.MultiWriter(h, x, w), contents); err != nil {
		w.drop()
		return nil, deltaError(err)
	}
	out := &form{compression: in.compression}
	in.finish(w, out, nil)
	diffID := diffIDOf(h)
	if err := x.finish(ctx, diffID); err != nil {
		return nil, err
	}
	if err := in.wait(); err != nil {
		return nil, err
	}
	b, err := c.s.known(ctx, diffID, *out)
	if err == nil {
		b.seen = seen{in.keep(look), h.Size(), h.Prefixes()}
		c.report.layers.taken(&file{compression: uncompressed}, plan{packed: packed})
	}
	return b, err
}

// indexing makes the index of a layer of a batch, where the batch takes one.
type indexing struct {
	*layer.Indexer
	staged *storage.StagedIndex // nil for none
}

func newIndexing(ctx context.Context, b Batch, c layer.Collector) (*indexing, error) {
	x := &indexing{}
	if ib, ok := b.(indexBatch); ok {
		var err error
		if x.staged, err = ib.CreateIndex(ctx); err != nil {
			return nil, err
		}
	}
	if x.staged == nil {
		x.Indexer = layer.NewIndexer(nil, c)
	} else {
		x.Indexer = layer.NewIndexer(x.staged, c)
	}
	return x, nil
}

func (x *indexing) finish(ctx context.Context, diffID digest.Digest) error {
	if err := x.Close(); err != nil {
		return fmt.Errorf("check a layer that was made here: %w", err)
	}
	if x.staged == nil {
		return nil
	}
	if err := x.Err(); err != nil {
		return err
	}
	return x.staged.Finish(ctx, diffID)
}

func (x *indexing) abandon() {
	x.Abandon()
	if x.staged != nil {
		x.staged.Discard()
	}
}

// manifest makes the image: the base's config as docker commit changes it.
// The base's ONBUILD and SHELL are not inherited, nor are keys that are no image
// specification's.
func (c *committing) manifest(delta *blob) (*manifest, error) {
	now := time.Now().UTC()
	item := ocispec.History{Created: &now, Author: c.q.Author, CreatedBy: c.q.CreatedBy, Comment: c.q.Message, EmptyLayer: delta == nil}
	last, err := json.Marshal(item)
	if err != nil {
		return nil, fmt.Errorf("encode a history: %w", err)
	}
	doc := c.base.doc
	doc.Created, doc.Author, doc.Config = &now, c.q.Author, c.config
	doc.History = append(doc.History[:len(doc.History):len(doc.History)], last)
	layers := c.base.layers[:len(c.base.layers):len(c.base.layers)]
	if delta != nil {
		layers = append(layers, *delta)
	}
	if len(layers) > c.s.o.Limits.LayersPerImage {
		return nil, tooLarge("the image would have %d layers, at most %d are allowed", len(layers), c.s.o.Limits.LayersPerImage)
	}
	doc.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, l.diffID)
	}
	m, err := newImage(doc, layers, c.base.oci)
	if err == nil && len(layers) > dockerLayers {
		m.warnings = append(m.warnings, fmt.Sprintf("it has %d layers, and Docker unpacks at most %d: export it and import that, to make one of them", len(layers), dockerLayers))
	}
	return m, err
}

// dockerLayers is how many layers Docker unpacks.
// https://github.com/moby/moby/blob/v28.5.2/layer/layer_store.go (maxLayerDepth)
const dockerLayers = 125
