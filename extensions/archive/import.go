package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// ImportRequest says what image to make of a root file system. Repository is
// required.
type ImportRequest struct {
	// Repository is the name that the image gets, the namespace included; it may
	// have a tag. A registry's host in front, and library/, are dropped. Tag
	// counts more than the name's; "latest" where there is none.
	Repository, Tag string
	// Message is the comment of the image's history; where it is "", Docker's
	// "Imported from -".
	Message string
	// Author of the image; may be "".
	Author string
	// Changes are instructions of a Dockerfile; see applyChanges.
	Changes []string
	// Platform is of the form os[/architecture[/variant]], in any spelling that
	// Docker knows; "" for linux on what this registry runs on.
	Platform string
	// Compression of the layer: gzip, zstd, none; "" for the server's.
	Compression string
	// Size of the body where it is known, else 0 or less.
	Size int64
	// Encodings is how many compressions the transport added.
	Encodings int
	// Progress is called, by one goroutine, as the root file system passes. May
	// be nil.
	Progress func(Message)
}

// Import makes an image with one layer of a root file system: docker import.
// The layer is the tar in the body, byte for byte. Errors that the sender may
// act on are *tarport.Error. The body is not read before it is known that the
// request is of its form, and that the principal of ctx may push there.
func (s *Service) Import(ctx context.Context, body io.Reader, q ImportRequest) (res *Result, err error) {
	seen := s.observe(KindImport, body)
	defer func() { seen.done(ctx, res, err) }()
	to, err := parseTarget(q.Repository, q.Tag)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeTo(ctx, to, q.Compression, q.Size); err != nil {
		return nil, err
	}
	platform, err := importPlatform(q.Platform)
	if err != nil {
		return nil, err
	}
	config, err := applyChanges(runConfig{}, q.Changes, platform.OS)
	if err != nil {
		return nil, err
	}
	if err := checkTexts(q.Message, q.Author); err != nil {
		return nil, err
	}
	im := &importing{
		s: s, to: to, config: config, platform: platform, report: &reporter{send: q.Progress, layers: &seen.layers},
		src: &source{ctx: ctx, r: seen, max: s.o.Limits.Archive},
	}
	return im.run(ctx, q)
}

// parseTarget reads the name that an image gets, of a request that makes one.
// Docker lets tag= count more than the name's, too.
func parseTarget(repo, tag string) (target, error) {
	if repo == "" {
		return target{}, tarport.Errorf(tarport.Invalid, "say what the image is to be called: ?repo=NAMESPACE/NAME (and &tag=TAG)")
	}
	n, err := parseName(repo)
	switch {
	case strings.Contains(repo, "@"): // also where the digest is none
		return target{}, nameInvalid("repo=: cannot import digest reference: an image gets its digest from what is in it").Because(err)
	case err != nil:
		return target{}, within(err, "repo=")
	case n.host != strings.ToLower(n.host) && !strings.ContainsAny(n.host, ".:"): // the grammar takes Team/app for a host and its app
		return target{}, nameInvalid("repo=%s: repository name must be lowercase", bounded(repo))
	}
	to := target{n.repository(), cmp.Or(tag, n.tag, defaultTag)}
	if err := tarport.CheckRepository(to.repository); err != nil {
		return target{}, within(err, "repo=")
	}
	if err := tarport.CheckTag(to.tag); err != nil {
		return target{}, within(err, "tag=")
	}
	return to, nil
}

// authorizeTo refuses, before the bytes move, who may not push there, and what
// cannot fit: an image that is made is new, so it needs some room.
func (s *Service) authorizeTo(ctx context.Context, to target, compression string, size int64) error {
	if err := s.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.Push, to.repository); err != nil {
		return err
	}
	if compression != "" {
		if err := checkCompression(compression); err != nil {
			return err
		}
	}
	if size > s.o.Limits.Archive {
		return tooLarge("the archive has %d bytes, at most %d are allowed", size, s.o.Limits.Archive)
	}
	return s.o.Store.CheckRoom(ctx, tarport.Namespace(to.repository), 1)
}

// maxText bounds the message and the author of an image.
const maxText = 64 << 10

func checkTexts(texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return tooLarge("the message or the author has %d bytes, at most %d are allowed", len(t), maxText)
		}
		if !utf8.ValidString(t) || strings.ContainsRune(t, 0) {
			return tarport.Errorf(tarport.Invalid, "message and author must be text in UTF-8, without zero bytes")
		}
	}
	return nil
}

// importPlatform is what an image is for: linux on this machine's architecture
// where nobody says it.
func importPlatform(s string) (ocispec.Platform, error) {
	if s == "" {
		return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := parsePlatform(s)
	if err != nil {
		return p, err
	}
	return p, checkPlatform(p)
}

// importing is one call of Import.
type importing struct {
	s        *Service
	to       target
	config   runConfig
	platform ocispec.Platform
	src      *source
	batch    Batch
	report   *reporter
}

func (im *importing) run(ctx context.Context, q ImportRequest) (_ *Result, err error) {
	if im.batch, err = im.s.newBatch(ctx); err != nil {
		return nil, fmt.Errorf("begin a batch: %w", err)
	}
	defer func() {
		err = errors.Join(err, im.batch.Close())
	}()
	if b, ok := im.batch.(charger); ok {
		b.Charge(tarport.Namespace(im.to.repository))
	}
	layer, err := im.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err // the caller left with the last byte
	}
	m, err := im.manifest(layer, q)
	if err != nil {
		return nil, err
	}
	res, err := im.s.commitOne(ctx, im.batch, m, im.to, storage.ViaImport)
	if err != nil {
		return nil, err
	}
	res.BytesRead = im.src.n
	im.report.made(res.Images[0])
	return res, nil
}

// read takes in the whole stream, and returns the layer that is in it.
func (im *importing) read(ctx context.Context, q ImportRequest) (blob, error) {
	in := newIntake(ctx, im.s, im.batch, q.Compression)
	in.report = im.report
	f := &file{name: "rootfs.tar", size: q.Size, compression: uncompressed}
	err := im.stream(ctx, in, f, q.Encodings)
	// Also where the stream broke: nothing may write when the batch is closed.
	if waitErr := in.wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return blob{}, err
	}
	stored, err := f.layer()
	if err != nil {
		return blob{}, err
	}
	b, err := im.s.known(ctx, f.diffID, *stored)
	if err != nil {
		return blob{}, err
	}
	b.seen = f.seen
	return *b, nil
}

func (im *importing) stream(ctx context.Context, in *intake, f *file, encodings int) error {
	st, err := openStream(im.src, encodings, im.s.o.Limits, in.total)
	defer st.close()
	if err != nil {
		return err
	}
	fs := newRootFS(im.s.o.Limits.Files)
	r := &rootReader{st: st, fs: fs, max: im.s.o.Limits.Layer, passed: func() { im.report.importing(im.src.n, f.size) }}
	if err := in.whole(ctx, f, r, fs); err != nil {
		return err
	}
	return fs.close()
}

// imageDoc is the config of an image that is made here. Docker has "comment",
// the image specification does not.
type imageDoc struct {
	ocispec.Image
	Comment string    `json:"comment,omitempty"`
	Config  runConfig `json:"config"` // in the place of the specification's
}

// manifest makes the image: what docker import writes, in the form of engine
// 29, with the comment that engines with graph drivers show.
func (im *importing) manifest(layer blob, q ImportRequest) (*manifest, error) {
	message := cmp.Or(q.Message, "Imported from -")
	now := time.Now().UTC()
	doc := imageDoc{Comment: message, Config: im.config, Image: ocispec.Image{
		Created: &now, Author: q.Author, Platform: im.platform,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.diffID}},
		History: []ocispec.History{{Created: &now, Author: q.Author, Comment: message}},
	}}
	return newImage(doc, []blob{layer}, false)
}

// newImage makes a manifest of a config that is made here, and its layers; an
// OCI manifest where that is wanted.
func newImage(config any, layers []blob, oci bool) (*manifest, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode a config: %w", err)
	}
	id := digest.FromBytes(data)
	m := &manifest{
		imageID: id.String(),
		blobs:   append([]blob{{desc: ocispec.Descriptor{Digest: id, Size: int64(len(data))}, data: data}}, layers...),
	}
	cfg, err := parseConfig(data, len(layers))
	if err != nil {
		return nil, fmt.Errorf("read a config that was made here: %w", err)
	}
	m.platform = cfg.platform()
	return m, m.write(oci)
}

// commitOne makes one image visible under one name.
func (s *Service) commitOne(ctx context.Context, b Batch, m *manifest, to target, via string) (*Result, error) {
	put, err := newPuts(b).of(ctx, m)
	if err != nil {
		return nil, err
	}
	put.Repository, put.By, put.Via, put.Tags = to.repository, tarport.PrincipalFrom(ctx).Name, via, []string{to.tag}
	done, err := b.Commit(ctx, []storage.ManifestPut{put})
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", to, err)
	}
	im := &image{manifest: m}
	return newResult([]*image{im}, map[*image][]target{im: {to}}, done.Existed), nil
}
