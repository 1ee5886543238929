package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// LoadRequest says what to do with an archive. Namespace is required.
type LoadRequest struct {
	Namespace string
	// Repository and Tag name an image that has no name, or the only one.
	Repository, Tag string
	// Rename are OLD=NEW: a name in the archive, or an image ID, and the name
	// that the image gets.
	Rename []string
	// Compression of plain layers: gzip, zstd, none. Where it is given, also
	// manifests in the archive that pin plain layers are written anew.
	Compression string
	// Partial lets the archive lack layers that the registry has where the
	// sender may pull them: see Missing.
	Partial bool
	// Size of the body where it is known, else 0 or less.
	Size int64
	// Encodings is how many compressions the transport added.
	Encodings int
	// Progress is called, by one goroutine, as the archive passes. May be nil.
	Progress func(Message)
}

// Result is what came of an archive.
type Result struct {
	Images      []Image `json:"images"`
	BytesRead   int64   `json:"bytes_read"`   // of the body
	BytesStored int64   `json:"bytes_stored"` // of blobs that the registry did not have
}

// Image is an image that was loaded, under one of its names.
type Image struct {
	Name string `json:"name"` // repository:tag, or repository@digest where it has no tag
	Manifest
	Warnings []string `json:"warnings"`
	// Manifests are those that an index reaches and the archive has.
	Manifests []Manifest `json:"manifests,omitempty"`
}

// Manifest is a manifest that was stored.
type Manifest struct {
	Digest    digest.Digest `json:"digest"`
	ImageID   string        `json:"image_id"` // the digest of the config; "" for an index or artifact
	MediaType string        `json:"media_type"`
	Platform  string        `json:"platform"` // linux/arm64/v8; "" for an index or artifact
	Size      int64         `json:"size"`     // of its blobs that are layers, as stored
	Layers    []Layer       `json:"layers"`
}

// Layer is a layer of an image.
type Layer struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diff_id"`
	Size   int64         `json:"size"`
	Status string        `json:"status"` // stored, or exists where the registry had it
}

// Load reads an archive to its end and makes its images visible, all or none.
// Errors that the sender may act on are *tarport.Error. The body is not read
// before it is known that the principal of ctx may push into the namespace.
func (s *Service) Load(ctx context.Context, body io.Reader, q LoadRequest) (res *Result, err error) {
	seen := s.observe(KindLoad, body)
	defer func() { seen.done(ctx, res, err) }()
	nm, err := newNaming(q.Namespace, q.Repository, q.Tag, q.Rename)
	if err != nil {
		return nil, err
	}
	if q.Compression != "" {
		if err := checkCompression(q.Compression); err != nil {
			return nil, err
		}
	}
	if err := s.authorizeEarly(ctx, nm); err != nil {
		return nil, err
	}
	if q.Size > s.o.Limits.Archive {
		return nil, tooLarge("the archive has %d bytes, at most %d are allowed", q.Size, s.o.Limits.Archive)
	}
	l := &loading{
		s: s, nm: nm, report: &reporter{send: q.Progress, layers: &seen.layers}, c: newContents(),
		src: &source{ctx: ctx, r: seen, max: s.o.Limits.Archive},
	}
	return l.run(ctx, q)
}

// authorizeEarly refuses who may not push before the bytes move. Each
// repository is asked about again when its name is known.
func (s *Service) authorizeEarly(ctx context.Context, nm *naming) error {
	p := tarport.PrincipalFrom(ctx)
	repository := nm.repository
	if repository == "" {
		// What is asked is whether it may push anything there at all: rights are
		// the namespace's, but a credential can be for some repositories only.
		repository = nm.namespace + "/image"
		for _, g := range p.Scope {
			if tarport.Namespace(g.Repository) == nm.namespace && slices.Contains(g.Actions, tarport.Push) {
				repository = g.Repository
				break
			}
		}
	}
	return s.o.Access.Authorize(ctx, p, tarport.Push, repository)
}

// loading is one call of Load.
type loading struct {
	s      *Service
	nm     *naming
	src    *source
	c      *contents
	batch  Batch
	report *reporter
}

func (l *loading) run(ctx context.Context, q LoadRequest) (_ *Result, err error) {
	if l.batch, err = l.s.newBatch(ctx); err != nil {
		return nil, fmt.Errorf("begin a batch: %w", err)
	}
	defer func() {
		err = errors.Join(err, l.batch.Close())
	}()
	if b, ok := l.batch.(charger); ok {
		b.Charge(q.Namespace)
	}
	if err := l.read(ctx, q); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err // the caller left with the last byte
	}
	var lend *lender
	if q.Partial {
		lend = l.s.newLender(ctx, q.Namespace, q.Compression)
	}
	images, err := l.c.resolve(l.s.o.Limits, lend)
	if err != nil {
		return nil, err
	}
	targets, err := l.nm.apply(images)
	if err != nil {
		return nil, err
	}
	puts, err := l.puts(ctx, images, targets)
	if err != nil {
		return nil, err
	}
	done, err := l.batch.Commit(ctx, puts)
	if err != nil {
		return nil, fmt.Errorf("commit %d manifests: %w", len(puts), lend.goneSince(err))
	}
	res := newResult(images, targets, done.Existed)
	res.BytesRead = l.src.n
	l.report.layers.lent(images)
	for _, im := range res.Images {
		l.report.loaded(im)
	}
	return res, nil
}

// read takes in the whole stream.
func (l *loading) read(ctx context.Context, q LoadRequest) (err error) {
	in := newIntake(ctx, l.s, l.batch, q.Compression)
	in.report, in.lend = l.report, l.s.newLender(ctx, q.Namespace, q.Compression)
	defer func() {
		// Also where the stream broke: nothing may write when the batch is closed.
		if waitErr := in.wait(); err == nil {
			err = waitErr
		}
	}()
	st, err := openStream(l.src, q.Encodings, l.s.o.Limits, in.total)
	defer st.close()
	if err != nil {
		return err
	}
	rd := &reader{limits: l.s.o.Limits, in: st, c: l.c, layers: in, report: l.report, roots: map[string]bool{}}
	return rd.read(ctx)
}

// maxPuts bounds manifests times repositories.
const maxPuts = 20_000

// puts is what is to be committed: each manifest in each repository that an
// image of it goes to.
func (l *loading) puts(ctx context.Context, images []*image, targets map[*image][]target) ([]storage.ManifestPut, error) {
	type key struct {
		repository string
		digest     digest.Digest
	}
	p := tarport.PrincipalFrom(ctx)
	var puts []storage.ManifestPut
	at := map[key]int{}
	allowed := map[string]bool{}
	each := newPuts(l.batch)
	for _, im := range images {
		all := im.all()
		for _, t := range targets[im] {
			if !allowed[t.repository] {
				if err := l.s.o.Access.Authorize(ctx, p, tarport.Push, t.repository); err != nil {
					return nil, err
				}
				allowed[t.repository] = true
			}
			for _, m := range all {
				k := key{t.repository, m.desc.Digest}
				i, ok := at[k]
				if !ok {
					put, err := each.of(ctx, m)
					if err != nil {
						return nil, err
					}
					put.Repository, put.By, put.Via = t.repository, p.Name, "load"
					i, at[k] = len(puts), len(puts)
					puts = append(puts, put)
				}
				if m == im.manifest && t.tag != "" {
					puts[i].Tags = append(puts[i].Tags, t.tag)
				}
			}
			if len(puts) > maxPuts {
				return nil, tooLarge("the archive's names and platforms make more than %d manifests", maxPuts)
			}
		}
	}
	return puts, nil
}

// puts makes what a batch commits of manifests.
type puts struct {
	batch  Batch
	staged map[digest.Digest]bool // blobs of memory that are in the batch
}

func newPuts(b Batch) *puts { return &puts{b, map[digest.Digest]bool{}} }

// of is one manifest with its blobs; those that are in memory are staged.
func (ps *puts) of(ctx context.Context, m *manifest) (storage.ManifestPut, error) {
	put := storage.ManifestPut{MediaType: m.desc.MediaType, Payload: m.payload, AllowMissing: m.sparse}
	for _, b := range m.blobs {
		if b.data != nil && !ps.staged[b.desc.Digest] {
			if err := ps.stage(ctx, b.data); err != nil {
				return put, err
			}
			ps.staged[b.desc.Digest] = true
		}
		link := storage.BlobLink{
			Descriptor: b.desc, DiffID: b.diffID, Compression: b.compression,
			Facts: b.seen.facts, PlainSize: b.seen.size, Prefixes: b.seen.prefixes,
		}
		if b.lent { // what it is was not seen here
			link.DiffID, link.Compression, link.Facts = "", "", ""
		}
		put.Blobs = append(put.Blobs, link)
	}
	return put, nil
}

func (ps *puts) stage(ctx context.Context, data []byte) error {
	w, err := ps.batch.Create(ctx)
	if err != nil {
		return fmt.Errorf("stage a config: %w", err)
	}
	if _, err = w.Write(data); err == nil {
		_, err = w.Finish()
	}
	if err != nil {
		w.Discard()
		return fmt.Errorf("stage a config: %w", err)
	}
	return nil
}

func newResult(images []*image, targets map[*image][]target, existed map[digest.Digest]bool) *Result {
	res := &Result{Images: []Image{}}
	stored := map[digest.Digest]int64{}
	for _, im := range images {
		for _, t := range targets[im] {
			out := Image{Name: t.String(), Manifest: newManifest(im.manifest, existed), Warnings: []string{}}
			if t.tag == "" {
				out.Name += "@" + im.desc.Digest.String()
			}
			for _, m := range im.all() {
				out.Warnings = appendNew(out.Warnings, m.warnings...)
				if m != im.manifest {
					out.Manifests = append(out.Manifests, newManifest(m, existed))
					out.Size += out.Manifests[len(out.Manifests)-1].Size
				}
				for _, b := range m.blobs {
					if !existed[b.desc.Digest] {
						stored[b.desc.Digest] = b.desc.Size
					}
				}
			}
			res.Images = append(res.Images, out)
		}
	}
	for n := range maps.Values(stored) {
		res.BytesStored += n
	}
	return res
}

func newManifest(m *manifest, existed map[digest.Digest]bool) Manifest {
	out := Manifest{Digest: m.desc.Digest, ImageID: m.imageID, MediaType: m.desc.MediaType, Platform: m.platform, Layers: []Layer{}}
	for _, b := range m.layers() {
		status := "stored"
		if existed[b.desc.Digest] {
			status = "exists"
		}
		out.Layers = append(out.Layers, Layer{b.desc.Digest, b.diffID, b.desc.Size, status})
		out.Size += b.desc.Size
	}
	return out
}
