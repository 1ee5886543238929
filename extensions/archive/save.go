package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// SaveRequest says which images go into an archive, and how.
type SaveRequest struct {
	// Images are names as tarport.ParseImage takes them; at least one.
	Images []string
	// Format is docker (also where empty), an OCI layout with a manifest.json,
	// which every docker load takes; or oci, the layout alone, which takes
	// everything.
	Format string
	// Platform narrows each image to one, such as linux/arm64; "" keeps all.
	Platform string
	// Compression is "", the layers as they are stored, or gzip, which turns
	// zstd layers into gzip, for engines before Docker 23.
	Compression string
}

// The formats of a saved archive.
const (
	formatDocker = "docker"
	formatOCI    = "oci"
)

// maxSaved is how many names one request can have.
const maxSaved = 500

// Save makes an archive of images that docker load, podman, skopeo and crane
// take, and Load. Nothing is read of layers before the archive is: the Download
// knows its exact size and bytes all the same, since every part of it is known
// by its digest.
//
// The same images give the same archive, wherever and whenever it is made.
// Errors are *tarport.Error: NAME_UNKNOWN, MANIFEST_UNKNOWN and DENIED by the
// rights of the principal of ctx on each repository, BLOB_UNKNOWN where a part
// of an image is damaged, INVALID for what cannot be put into the format.
func (s *Service) Save(ctx context.Context, q SaveRequest) (*Download, error) {
	v, err := s.newSaving(q)
	if err != nil {
		return nil, err
	}
	roots, err := v.authorized(ctx, q.Images)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		if err := v.root(ctx, r); err != nil {
			return nil, within(err, "%s", r.words)
		}
	}
	if err := v.referrers(ctx); err != nil {
		return nil, err
	}
	return v.pack()
}

// saving is one call of Save.
type saving struct {
	s        *Service
	docker   bool
	platform *ocispec.Platform // nil for all
	gzip     bool              // no zstd layers

	tops     []*top
	seen     map[seenKey]*saved
	blobs    map[digest.Digest]bool        // those that were looked up
	bytes    int64                         // of manifests
	entries  int                           // of indexes
	sources  map[digest.Digest]*blobSource // where it is not the blob of that digest in the manifest's repository
	warnings []string
}

// seenKey: what a repository has of an image, another one may lack.
type seenKey struct {
	repository string
	digest     digest.Digest
}

// top is an image that has an entry in index.json.
type top struct {
	words      string // as the request names it
	repository string
	ref        tarport.Reference
	*saved
	item    *saved        // what manifest.json gets; nil for nothing
	subject digest.Digest // of a referrer
}

// saved is a manifest that goes into the archive, with what it reaches.
type saved struct {
	repository string
	desc       ocispec.Descriptor // media type, digest, size; the platform where it is known
	payload    []byte
	config     *ocispec.Descriptor
	layers     []ocispec.Descriptor // those that are here, and other blobs
	children   []*saved             // of an index: those that are here
	platforms  []string             // of an index: all that it names
	isIndex    bool
	notImage   string // why docker load cannot take it; "" where it can
	diffIDs    []digest.Digest
	// rewritten is the digest that it has in the registry, where its layers
	// were turned to gzip.
	rewritten digest.Digest
}

func (s *Service) newSaving(q SaveRequest) (*saving, error) {
	v := &saving{s: s, seen: map[seenKey]*saved{}, blobs: map[digest.Digest]bool{}, sources: map[digest.Digest]*blobSource{}}
	switch q.Format {
	case "", formatDocker:
		v.docker = true
	case formatOCI:
	default:
		return nil, tarport.Errorf(tarport.Invalid, "format must be docker or oci, not %s", quoted(q.Format))
	}
	switch q.Compression {
	case "":
	case gzipped:
		v.gzip = true
	default:
		return nil, tarport.Errorf(tarport.Invalid, "compression can be gzip, which turns zstd layers into gzip, or be left out; not %s", quoted(q.Compression))
	}
	if q.Platform != "" {
		p, err := parsePlatform(q.Platform)
		if err != nil {
			return nil, err
		}
		p = normalPlatform(p)
		v.platform = &p
	}
	return v, nil
}

// authorized reads the names, each once, and asks for the right to pull each
// repository before anything is looked up in any.
func (v *saving) authorized(ctx context.Context, images []string) ([]*top, error) {
	switch n := len(images); {
	case n == 0:
		return nil, tarport.Errorf(tarport.Invalid, "say which image: ?image=NAMESPACE/NAME:TAG")
	case n > maxSaved:
		return nil, tarport.Errorf(tarport.Invalid, "%d images are named, at most %d are allowed in one archive", n, maxSaved)
	}
	var roots []*top
	named, allowed := map[string]bool{}, map[string]bool{}
	for _, name := range images {
		repository, ref, err := tarport.ParseImage(name)
		if err != nil {
			return nil, within(err, "image=%.200s", name)
		}
		if !allowed[repository] {
			if err := v.s.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.Pull, repository); err != nil {
				return nil, err
			}
			allowed[repository] = true
		}
		r := &top{words: imageWords(repository, ref), repository: repository, ref: ref}
		if !named[r.words] {
			named[r.words] = true
			roots = append(roots, r)
		}
	}
	return roots, nil
}

func imageWords(repository string, ref tarport.Reference) string {
	if ref.Digest != "" {
		return repository + "@" + ref.Digest.String()
	}
	return repository + ":" + ref.Tag
}

// root takes in an image of the request.
func (v *saving) root(ctx context.Context, r *top) error {
	m, err := v.manifest(ctx, r.repository, r.ref, 0)
	if err != nil {
		return err
	}
	r.saved = m
	if v.platform != nil {
		if r.saved, err = m.forPlatform(*v.platform); err != nil {
			return err
		}
	}
	if v.docker {
		if r.item, err = r.saved.only("docker load", "; or save it with format=oci"); err != nil {
			return err
		}
	}
	v.tops = append(v.tops, r)
	return nil
}

// manifest takes in a manifest with all that it reaches. What is not here is
// MANIFEST_UNKNOWN or BLOB_UNKNOWN.
func (v *saving) manifest(ctx context.Context, repository string, ref tarport.Reference, depth int) (*saved, error) {
	if m := v.seen[seenKey{repository, ref.Digest}]; m != nil {
		return m, nil
	}
	row, err := v.s.o.Store.Manifest(ctx, repository, ref)
	if err != nil {
		return nil, err
	}
	key := seenKey{repository, row.Digest}
	if m := v.seen[key]; m != nil {
		return m, nil
	}
	l := v.s.o.Limits
	if v.bytes += int64(len(row.Payload)); len(v.seen) >= l.Images || v.bytes > l.Memory {
		return nil, tooLarge("these are more than %d manifests, or more than %d bytes of them: save fewer images at a time", l.Images, l.Memory)
	}
	if depth > l.IndexDepth {
		return nil, tooLarge("its indexes are nested deeper than %d", l.IndexDepth)
	}
	doc, err := parseDocument(row.Payload, l)
	if err != nil {
		return nil, tarport.Errorf(tarport.ManifestInvalid, "the manifest %s: %s", row.Digest, err)
	}
	m := &saved{
		repository: repository, payload: row.Payload, isIndex: isIndexType(row.MediaType),
		desc: ocispec.Descriptor{MediaType: row.MediaType, Digest: row.Digest, Size: int64(len(row.Payload))},
	}
	if m.isIndex {
		err = v.index(ctx, m, doc, depth)
	} else {
		err = v.image(ctx, m, doc)
	}
	if err != nil {
		return nil, err
	}
	v.seen[key] = m
	return m, nil
}

// isAbsent tells whether the error is that something is not here.
func isAbsent(err error) bool {
	switch tarport.ErrorCode(err) {
	case tarport.ManifestUnknown, tarport.BlobUnknown:
		return true
	}
	return false
}

// index takes in what an index names, as far as it is here. The others are left
// out, as docker save does it: the index says by its own bytes what there is.
func (v *saving) index(ctx context.Context, m *saved, doc document, depth int) error {
	m.notImage = "it is an index without an image"
	var absent error
	if v.entries += len(doc.manifests); v.entries > v.s.o.Limits.Names {
		return tooLarge("its indexes have more than %d entries", v.s.o.Limits.Names)
	}
	for _, d := range doc.manifests {
		if d.Platform != nil && d.Platform.OS != unknown {
			m.platforms = appendNew(m.platforms, platformWords(normalPlatform(*d.Platform)))
			if v.platform != nil && !isIndexType(d.MediaType) && !samePlatform(normalPlatform(*d.Platform), *v.platform) {
				continue
			}
		}
		err := v.entry(ctx, m, d, depth)
		if isAbsent(err) {
			absent = err
			v.warn("%s of the index %s is left out: %s", entryWords(d), m.desc.Digest, messageOf(err))
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(m.children) == 0 && len(m.layers) == 0 && absent != nil {
		return within(absent, "nothing of the index %s is here", m.desc.Digest)
	}
	return v.rewriteIndex(m)
}

// entry takes in one entry of an index: a manifest, or a blob, as BuildKit's
// caches have them.
func (v *saving) entry(ctx context.Context, m *saved, d ocispec.Descriptor, depth int) error {
	if !isIndexType(d.MediaType) && !isManifestType(d.MediaType) && d.MediaType != "" {
		if err := v.blob(ctx, m.repository, d); err != nil {
			return err
		}
		m.layers = append(m.layers, d)
		return nil
	}
	child, err := v.manifest(ctx, m.repository, tarport.Reference{Digest: d.Digest}, depth+1)
	if err != nil {
		return err
	}
	c := *child // another index may name it otherwise
	if d.Platform != nil {
		c.desc.Platform = d.Platform
	}
	m.children = append(m.children, &c)
	return nil
}

// image takes in the blobs of a manifest that is no index.
func (v *saving) image(ctx context.Context, m *saved, doc document) error {
	if doc.config == nil {
		return tarport.Errorf(tarport.ManifestInvalid, "the manifest %s has no config", m.desc.Digest)
	}
	if err := v.blob(ctx, m.repository, *doc.config); err != nil {
		return err
	}
	m.config = doc.config
	if !isConfigType(doc.config.MediaType) {
		m.notImage = "it is an artifact, its config is of the type " + quoted(doc.config.MediaType)
	}
	for _, d := range doc.layers {
		err := v.blob(ctx, m.repository, d)
		switch {
		case isAbsent(err) && isForeign(d.MediaType):
			m.notImage = "the layer " + d.Digest.String() + " is elsewhere by its type (" + d.MediaType + ")"
			v.warn("%s has a layer that is elsewhere by its type (%s) and is left out: %s", m.desc.Digest, d.MediaType, d.Digest)
			continue
		case err != nil:
			return err
		case layerTypes[d.MediaType] == "":
			m.notImage = "it is an artifact, it has a layer of the type " + quoted(d.MediaType)
		}
		m.layers = append(m.layers, d)
	}
	if m.notImage == "" {
		if err := v.readConfig(ctx, m); err != nil {
			return err
		}
	}
	return v.rewriteImage(ctx, m)
}

// readConfig reads what docker load reads of a config. A push has never looked
// into it: one that is no image's is an artifact's.
func (v *saving) readConfig(ctx context.Context, m *saved) error {
	if m.config.Size > v.s.o.Limits.JSON {
		m.notImage = fmt.Sprintf("its config has more than %d bytes", v.s.o.Limits.JSON)
		return nil
	}
	data, err := v.s.readBlob(ctx, m.repository, *m.config)
	if err != nil {
		return err
	}
	c, err := parseConfig(data, v.s.o.Limits.LayersPerImage)
	switch {
	case err != nil:
		m.notImage = "its config is not an image's: " + err.Error()
	case len(c.diffIDs) != len(m.layers):
		m.notImage = fmt.Sprintf("it has %d layers and its config %d", len(m.layers), len(c.diffIDs))
	default:
		m.diffIDs = c.diffIDs
		m.desc.Platform = &ocispec.Platform{OS: c.os, Architecture: c.architecture, Variant: c.variant}
	}
	return nil
}

// readBlob reads a small blob whole.
func (s *Service) readBlob(ctx context.Context, repository string, d ocispec.Descriptor) ([]byte, error) {
	if d.Data != nil && int64(len(d.Data)) == d.Size {
		return d.Data, nil
	}
	r, _, err := s.o.Store.OpenBlob(ctx, repository, d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, d.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	return data, nil
}

// blob looks a blob up; nothing is read of it.
func (v *saving) blob(ctx context.Context, repository string, d ocispec.Descriptor) error {
	b, err := v.s.o.Store.Blob(ctx, repository, d.Digest)
	switch {
	case isAbsent(err) && len(d.Data) > 0: // it is in the manifest
	case err != nil:
		return err
	case b.Size != d.Size:
		return tarport.Errorf(tarport.BlobUnknown, "the blob %s has %d bytes, its manifest says %d", d.Digest, b.Size, d.Size)
	}
	if v.blobs[d.Digest] = true; len(v.blobs) > v.s.o.Limits.Layers {
		return tooLarge("these are more than %d blobs: save fewer images at a time", v.s.o.Limits.Layers)
	}
	return nil
}

// forPlatform narrows an image to one platform.
func (m *saved) forPlatform(want ocispec.Platform) (*saved, error) {
	images := m.images()
	for _, im := range images {
		if im.desc.Platform != nil && samePlatform(normalPlatform(*im.desc.Platform), want) {
			return im, nil
		}
	}
	has := m.platforms
	for _, im := range images {
		if im.desc.Platform != nil {
			has = appendNew(has, platformWords(normalPlatform(*im.desc.Platform)))
		}
	}
	switch words := platformWords(want); {
	case len(has) == 0:
		return nil, tarport.Errorf(tarport.ManifestUnknown, "it has no platforms, so not %s either", words)
	case slices.Contains(has, words):
		return nil, tarport.Errorf(tarport.ManifestUnknown, "its platform %s is not complete here: push it again", words)
	default:
		return nil, tarport.Errorf(tarport.ManifestUnknown, "it has no platform %s, only %s", words, strings.Join(has, ", "))
	}
}

// only is the one image of m that manifest.json gets, which has room for one
// platform of a name, or that is exported: linux/amd64 where there is a choice.
// purpose and otherwise are for the message where there is none.
func (m *saved) only(purpose, otherwise string) (*saved, error) {
	images := m.images()
	switch {
	case len(images) == 0:
		return nil, tarport.Errorf(tarport.Invalid, "%s takes images only: %s%s", purpose, m.notImage, otherwise)
	case len(images) == 1:
		return images[0], nil
	}
	var has []string
	for _, im := range images {
		p := normalPlatform(*im.desc.Platform)
		if samePlatform(p, ocispec.Platform{OS: "linux", Architecture: "amd64"}) {
			return im, nil
		}
		has = append(has, platformWords(p))
	}
	return nil, tarport.Errorf(tarport.Invalid, "%s takes one platform, and it has several: choose one with platform= (%s)%s", purpose, strings.Join(has, ", "), otherwise)
}

// images are those of m that docker load takes.
func (m *saved) images() []*saved {
	var list []*saved
	m.walk(func(m *saved) {
		if m.notImage == "" {
			list = append(list, m)
		}
	})
	return list
}

// referrers takes in what refers to the manifests so far: signatures, SBOMs,
// attestations; and what refers to those.
func (v *saving) referrers(ctx context.Context) error {
	in := map[seenKey]bool{}
	var queue []*saved
	add := func(m *saved) {
		if key := (seenKey{m.repository, m.desc.Digest}); !in[key] {
			in[key] = true
			queue = append(queue, m)
		}
	}
	for _, t := range v.tops {
		t.walk(add)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		m := queue[0]
		if m.rewritten != "" {
			continue // they are about what it was
		}
		err := v.referrersOf(ctx, m, func(d ocispec.Descriptor) error {
			if in[seenKey{m.repository, d.Digest}] {
				return nil // of an image: an entry of its index
			}
			ref, err := v.manifest(ctx, m.repository, tarport.Reference{Digest: d.Digest}, 0)
			if isAbsent(err) {
				v.warn("%s, which refers to %s, is left out: %s", d.Digest, m.desc.Digest, messageOf(err))
				return nil
			}
			if err != nil {
				return err
			}
			v.tops = append(v.tops, &top{saved: ref, subject: m.desc.Digest})
			ref.walk(add)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *saving) referrersOf(ctx context.Context, m *saved, fn func(ocispec.Descriptor) error) error {
	const page = 100
	for last := ""; ; {
		list, err := v.s.o.Store.Referrers(ctx, m.repository, m.desc.Digest, "", page, last)
		if err != nil {
			return err
		}
		for _, raw := range list {
			d, err := parseDescriptor([]byte(raw))
			if err != nil {
				return fmt.Errorf("read the descriptor of a referrer of %s: %w", m.desc.Digest, err)
			}
			if err := fn(d); err != nil {
				return err
			}
			last = d.Digest.String()
		}
		if len(list) < page {
			return nil
		}
	}
}

// walk calls fn for m and all that it reaches, each once.
func (m *saved) walk(fn func(*saved)) {
	seen := map[digest.Digest]bool{}
	var visit func(*saved)
	visit = func(m *saved) {
		if seen[m.desc.Digest] {
			return
		}
		seen[m.desc.Digest] = true
		fn(m)
		for _, c := range m.children {
			visit(c)
		}
	}
	visit(m)
}

// maxWarnings is how many a Download can have: a client gets them in headers.
const maxWarnings = 20

func (v *saving) warn(format string, args ...any) {
	if len(v.warnings) < maxWarnings {
		v.warnings = appendNew(v.warnings, fmt.Sprintf(format, args...))
	}
}

// messageOf is the message of an error that isAbsent.
func messageOf(err error) string {
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e.Message
	}
	return err.Error()
}
