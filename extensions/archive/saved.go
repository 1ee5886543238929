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
	if err := v.memory.Take(2*int64(len(row.Payload)) + manifestMemory); err != nil {
		return nil, err
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
	if err := v.memory.Take(2 * m.config.Size); err != nil {
		return err
	}
	data, err := v.s.readBlob(ctx, m.repository, *m.config)
	if err != nil {
		return err
	}
	c, err := parseConfig(data, v.s.o.Limits.LayersPerImage)
	if terr := v.memory.Take(digestMemory*int64(len(c.diffIDs)) - 2*m.config.Size); terr != nil {
		return terr
	}
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
	if v.blobs[d.Digest] {
		return nil
	}
	if v.blobs[d.Digest] = true; len(v.blobs) > v.s.o.Limits.Layers {
		return tooLarge("these are more than %d blobs: save fewer images at a time", v.s.o.Limits.Layers)
	}
	return v.memory.Take(blobMemory)
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

// messageOf is the message of an error that isAbsent.
func messageOf(err error) string {
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e.Message
	}
	return err.Error()
}
