package archive

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The nondistributable layer types; image-spec's constants for them are deprecated.
const (
	ociForeign     = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	ociForeignGzip = ociForeign + "+gzip"
	ociForeignZstd = ociForeign + "+zstd"
)

// layerTypes are the media types of layers and the compression that each
// promises. What is of another type is opaque: an artifact's, an attestation,
// encrypted.
var layerTypes = map[string]string{
	dockerLayer: uncompressed, dockerLayerGzip: gzipped, dockerLayerZstd: zstded,
	dockerForeign: uncompressed, dockerForeignGz: gzipped,
	ocispec.MediaTypeImageLayer: uncompressed, ocispec.MediaTypeImageLayerGzip: gzipped, ocispec.MediaTypeImageLayerZstd: zstded,
	ociForeign: uncompressed, ociForeignGzip: gzipped, ociForeignZstd: zstded,
}

func isForeign(mediaType string) bool {
	return strings.HasPrefix(mediaType, dockerForeign) || strings.HasPrefix(mediaType, ociForeign)
}

func isIndexType(t string) bool    { return t == ocispec.MediaTypeImageIndex || t == dockerList }
func isManifestType(t string) bool { return t == ocispec.MediaTypeImageManifest || t == dockerManifest }
func isConfigType(t string) bool   { return t == ocispec.MediaTypeImageConfig || t == dockerConfig }

// absentError tells that a part of an image is not in the archive. In an index
// that is allowed (docker save leaves out platforms that it has not pulled),
// anywhere else it is an error.
type absentError struct{ what string }

func lacks(err error) bool {
	_, ok := errors.AsType[*absentError](err)
	return ok
}

func (e *absentError) Error() string { return e.what + " is not in the archive" }

// document is a manifest or an index, read.
type document struct {
	mediaType    string
	config       *ocispec.Descriptor
	layers       []ocispec.Descriptor
	manifests    []ocispec.Descriptor
	subject      digest.Digest
	hasManifests bool
	hasLayers    bool
}

var documentKeys = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers", "blobs"}

func parseDocument(data []byte, l Limits) (document, error) {
	var d document
	o, err := parseObject(data, documentKeys...)
	if err != nil {
		return d, err
	}
	var version int
	if err := errors.Join(o.get("schemaVersion", &version), o.get("mediaType", &d.mediaType)); err != nil {
		return d, err
	}
	if version != 2 {
		return d, fmt.Errorf("its schemaVersion is %d, only 2 is supported", version)
	}
	d.hasManifests, d.hasLayers = o.has("manifests"), o.has("layers") || o.has("config")
	if d.hasManifests && d.hasLayers {
		return d, errors.New("it has both layers and manifests") // CVE-2021-41190
	}
	if d.manifests, err = descriptors(o, "manifests", l.Images); err != nil {
		return d, err
	}
	if d.layers, err = descriptors(o, "layers", l.LayersPerImage); err != nil {
		return d, err
	}
	if o.has("config") {
		c, err := parseDescriptor(o["config"])
		if err != nil {
			return d, fmt.Errorf("its config: %w", err)
		}
		d.config = &c
	}
	if o.has("subject") {
		s, err := parseDescriptor(o["subject"])
		if err != nil {
			return d, fmt.Errorf("its subject: %w", err)
		}
		d.subject = s.Digest
	}
	return d, nil
}

func descriptors(o object, key string, most int) ([]ocispec.Descriptor, error) {
	raw, err := o.list(key, most)
	if err != nil {
		return nil, err
	}
	out := make([]ocispec.Descriptor, len(raw))
	for i, r := range raw {
		if out[i], err = parseDescriptor(r); err != nil {
			return nil, fmt.Errorf("element %d of its %q: %w", i+1, key, err)
		}
	}
	return out, nil
}

func parseDescriptor(raw json.RawMessage) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	o, err := parseObject(raw, "mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
	if err != nil {
		return d, err
	}
	var dgst string
	err = errors.Join(o.get("mediaType", &d.MediaType), o.get("digest", &dgst), o.get("size", &d.Size), o.get("urls", &d.URLs),
		o.get("annotations", &d.Annotations), o.get("data", &d.Data), o.get("platform", &d.Platform), o.get("artifactType", &d.ArtifactType))
	if err != nil {
		return d, err
	}
	d.Digest = digest.Digest(dgst)
	switch {
	case d.Digest.Validate() != nil: // CVE-2024-3727: it becomes a name
		return d, fmt.Errorf("%s is not a digest", quoted(dgst))
	case d.Digest.Algorithm() != digest.SHA256:
		return d, fmt.Errorf("its digest is of %s, only sha256 is supported in archives", d.Digest.Algorithm())
	case d.Size < 0:
		return d, fmt.Errorf("its size is %d", d.Size)
	case len(d.Data) > 0 && (int64(len(d.Data)) != d.Size || digest.FromBytes(d.Data) != d.Digest):
		return d, fmt.Errorf("its data is not what its digest %s says", d.Digest)
	}
	return d, nil
}

// manifest reads a manifest, or an index with what it reaches. Each digest is
// visited once: an index that names its child twice, forty levels deep, stopped
// containerd for good.
func (r *resolver) manifest(desc ocispec.Descriptor, depth int) (*manifest, error) {
	if m := r.seen[desc.Digest]; m != nil {
		return m, r.sameAs(m, desc, depth)
	}
	if a := r.absent[desc.Digest]; a != nil {
		return nil, a
	}
	switch {
	case depth > r.limits.IndexDepth:
		return nil, invalid("index.json nests indexes more than %d deep", r.limits.IndexDepth)
	case len(r.seen) >= r.limits.Images:
		return nil, tooLarge("index.json reaches more than %d manifests", r.limits.Images)
	}
	m, doc, err := r.open(desc)
	switch {
	case err != nil:
	case isIndexType(m.desc.MediaType):
		err = r.index(m, doc, depth)
	default:
		err = r.image(m, doc, depth)
	}
	if a, ok := errors.AsType[*absentError](err); ok {
		r.absent[desc.Digest] = a
	}
	if err != nil {
		return nil, err
	}
	r.seen[desc.Digest] = m
	return m, nil
}

// open reads the document of a manifest or an index: what names it, what it
// says itself and its shape must tell the same type.
func (r *resolver) open(desc ocispec.Descriptor) (*manifest, document, error) {
	what := "the manifest " + desc.Digest.String()
	b, err := r.blob(desc, what)
	if err != nil {
		return nil, document{}, err
	}
	if b.data == nil {
		return nil, document{}, invalid("%s is not JSON or too large", what)
	}
	doc, err := parseDocument(b.data, r.limits)
	if err != nil {
		return nil, doc, invalid("%s: %s", what, err)
	}
	mediaType := cmp.Or(desc.MediaType, doc.mediaType)
	switch {
	case doc.mediaType != "" && doc.mediaType != mediaType:
		return nil, doc, invalid("%s says that it is %s, what names it says %s", what, quoted(doc.mediaType), quoted(mediaType))
	case !isIndexType(mediaType) && !isManifestType(mediaType):
		return nil, doc, invalid("%s is of the type %s, which is not supported", what, quoted(mediaType))
	case isIndexType(mediaType) && doc.hasLayers, isManifestType(mediaType) && (doc.hasManifests || doc.config == nil):
		return nil, doc, invalid("%s is of the type %s, but does not look like it", what, mediaType)
	}
	return &manifest{
		desc:    ocispec.Descriptor{MediaType: mediaType, Digest: desc.Digest, Size: int64(len(b.data))},
		payload: b.data, subject: doc.subject,
	}, doc, nil
}

// sameAs checks a second descriptor of a manifest.
func (r *resolver) sameAs(m *manifest, desc ocispec.Descriptor, depth int) error {
	switch {
	case m.rewritten != "" && depth > 0:
		return errPinned(m.rewritten)
	case m.rewritten != "":
		return nil
	case desc.Size != m.desc.Size:
		return wrongSize("the manifest "+desc.Digest.String(), desc.Size, m.desc.Size)
	case desc.MediaType != "" && desc.MediaType != m.desc.MediaType:
		return invalid("the manifest %s is named as %s and as %s", desc.Digest, m.desc.MediaType, quoted(desc.MediaType))
	}
	return nil
}

// errPinned refuses to compress what something holds the digest of.
func errPinned(d digest.Digest) error {
	return invalid("the layers of the manifest %s cannot be compressed: an index or a signature holds its digest; load it without compression=", d)
}

func wrongSize(what string, says, has int64) error {
	return invalid("%s has %d bytes, what names it says %d", what, has, says)
}

// index reads what an index names, as far as it is there.
func (r *resolver) index(m *manifest, doc document, depth int) error {
	for _, d := range doc.manifests {
		var err error
		if isIndexType(d.MediaType) || isManifestType(d.MediaType) || d.MediaType == "" {
			var child *manifest
			if child, err = r.manifest(d, depth+1); err == nil {
				m.children = append(m.children, child)
			}
		} else { // BuildKit's caches are indexes of layers
			var b blob
			what := "the blob " + d.Digest.String()
			if b, err = r.blob(d, what); lacks(err) && r.lender != nil {
				b, err = r.lender.blob(d, "", what)
			}
			if err == nil {
				m.blobs = append(m.blobs, b)
			}
		}
		if absent, ok := errors.AsType[*absentError](err); ok {
			m.sparse = true
			m.warnings = append(m.warnings, entryWords(d)+" is incomplete: "+absent.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(m.children) == 0 && len(m.blobs) == 0 {
		return &absentError{"all that the index " + m.desc.Digest.String() + " names"}
	}
	return nil
}

// entryWords names an entry of an index to its user.
func entryWords(d ocispec.Descriptor) string {
	if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return "the attestation " + d.Digest.String()
	}
	if d.Platform == nil {
		return "the entry " + d.Digest.String()
	}
	c := imageConfig{os: d.Platform.OS, architecture: d.Platform.Architecture, variant: d.Platform.Variant}
	return "the platform " + quoted(c.platform())
}

// image reads a manifest with config and layers: an image, or an artifact that
// uses the form.
func (r *resolver) image(m *manifest, doc document, depth int) error {
	what := "the manifest " + m.desc.Digest.String()
	config, err := r.blob(*doc.config, "the config "+doc.config.Digest.String()+" of "+what)
	if err != nil {
		return err
	}
	m.blobs = append(m.blobs, config)
	isImage := isConfigType(doc.config.MediaType)
	for _, d := range doc.layers {
		isImage = isImage && layerTypes[d.MediaType] != ""
	}
	var diffIDs []digest.Digest
	if isImage {
		if config.file == nil { // in the descriptor itself: no tool does that
			return invalid("the config of %s is not a file of the archive", what)
		}
		cfg, err := r.config(config.file, "the config of "+what)
		if err != nil {
			return err
		}
		if len(cfg.diffIDs) != len(doc.layers) {
			return invalid("%s has %d layers, its config %d", what, len(doc.layers), len(cfg.diffIDs))
		}
		m.imageID, m.platform, diffIDs = doc.config.Digest.String(), cfg.platform(), cfg.diffIDs
	}
	for i, d := range doc.layers {
		want := digest.Digest("")
		if isImage {
			want = diffIDs[i]
		}
		if err := r.imageLayer(m, d, want, fmt.Sprintf("layer %d of %s", i+1, what)); err != nil {
			return err
		}
	}
	return r.rewrite(m, doc, depth)
}

// imageLayer adds a layer to the manifest. want is its diffID, "" where it is
// no layer of an image.
func (r *resolver) imageLayer(m *manifest, d ocispec.Descriptor, want digest.Digest, what string) error {
	b, err := r.blob(d, what)
	absent := lacks(err)
	if absent && isForeign(d.MediaType) {
		m.warnings = append(m.warnings, what+" is elsewhere by its type ("+d.MediaType+") and not in the archive")
		return nil
	} else if absent && r.lender != nil {
		b, err = r.lender.blob(d, want, what)
	}
	if err != nil {
		return err
	}
	if want == "" || b.lent {
		if b.file != nil && b.file.raw == nil && b.data == nil {
			return invalid("%s was to be compressed, but its manifest is no image: load it without compression=", what)
		}
		m.blobs = append(m.blobs, b)
		return nil
	}
	f := b.file
	switch {
	case f == nil:
		return invalid("%s is not a file of the archive", what)
	case f.compression == layerTypes[d.MediaType]:
	case isPlainOrGzip(f.compression) && isPlainOrGzip(layerTypes[d.MediaType]):
		// skopeo --dest-oci-accept-uncompressed-layers writes that, and every
		// client goes by magic here.
		m.warnings = append(m.warnings, fmt.Sprintf("%s is of the type %s, but its compression is %s", what, d.MediaType, f.compression))
	default: // crane labels xz, bzip2 and zstd as gzip
		return invalid("%s is of the type %s, but its compression is %s: not every client could unpack it", what, d.MediaType, f.compression)
	}
	switch {
	case f.notLayer != "" || f.diffID == "":
		return within(errOf(f.layer()), "%s", what)
	case f.diffID != want:
		return invalid("%s has the diffID %s, the config says %s", what, f.diffID, want)
	}
	b.diffID, b.compression, b.seen = f.diffID, f.compression, f.seen
	if f.raw == nil {
		m.rewritten = m.desc.Digest
		b.desc.Digest, b.desc.Size, b.compression = f.packed.digest, f.packed.size, f.packed.compression
	}
	m.blobs = append(m.blobs, b)
	return nil
}

func isPlainOrGzip(compression string) bool {
	return compression == uncompressed || compression == gzipped
}

func errOf(_ *form, err error) error { return err }

// rewrite gives the image a manifest of ours where its layers were compressed
// on the way in, because the request asked for it.
func (r *resolver) rewrite(m *manifest, doc document, depth int) error {
	switch {
	case m.rewritten == "":
		return nil
	case depth > 0 || doc.subject != "":
		return errPinned(m.rewritten)
	}
	m.warnings = append(m.warnings, "its layers were compressed, so its manifest is not the archive's own "+m.rewritten.String())
	return m.write(false)
}

// blob finds the blob of a descriptor and checks its digest and size.
func (r *resolver) blob(d ocispec.Descriptor, what string) (blob, error) {
	f, err := r.c.blob(d.Digest)
	switch {
	case err != nil:
		return blob{}, within(err, "%s", what)
	case f == nil && len(d.Data) > 0:
		return blob{desc: d, data: d.Data}, nil
	case f == nil:
		return blob{}, &absentError{what}
	case f.sum() != "" && f.sum() != d.Digest:
		return blob{}, invalid("%s is damaged: the sha256 of its bytes is %s", what, f.sum().Encoded())
	case f.sum() == "" && f.packed == nil:
		return blob{}, within(errOf(f.layer()), "%s", what)
	case f.size != d.Size:
		return blob{}, wrongSize(what, d.Size, f.size)
	}
	return blob{desc: d, data: f.data, file: f}, nil
}
