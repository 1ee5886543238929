package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Media types of the manifests that the registry takes.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Bounds of a manifest.
const (
	MaxManifest    = 4 << 20 // bytes
	maxDescriptors = 2000
	maxDepth       = 32
)

// document is the part of a manifest that the registry reads. Pointers and nil
// slices tell what is absent.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// ParseManifest reads a manifest or index of the media type that the client or
// the archive named. It is strict, because two readers that disagree about a
// document pull two images: the type named, the mediaType inside and the shape
// must be the same; no key may stand twice, nor in another case; what has
// config or layers has no manifests. Keys that are not known are kept, as all
// the bytes are. Errors are MANIFEST_INVALID.
//
// The digest is sha256; the caller sets another.
func ParseManifest(mediaType string, payload []byte) (metadata.Manifest, error) {
	var none metadata.Manifest
	if len(payload) > MaxManifest {
		return none, tarport.Errorf(tarport.TooLarge, "the manifest has %d bytes, at most %d are allowed", len(payload), MaxManifest)
	}
	if err := checkKeys(payload); err != nil {
		return none, tarport.Errorf(tarport.ManifestInvalid, "the manifest is not valid: %s", err)
	}
	var d document
	if err := json.Unmarshal(payload, &d); err != nil {
		return none, tarport.Errorf(tarport.ManifestInvalid, "the manifest is not valid: %s", plain(err))
	}
	m := metadata.Manifest{Digest: digest.FromBytes(payload), MediaType: mediaType, Payload: payload, ArtifactType: d.ArtifactType}
	if err := d.check(mediaType); err != nil {
		return none, tarport.Errorf(tarport.ManifestInvalid, "the manifest is not valid: %s", err)
	}
	m.References = d.references()
	m.Kind, m.Size = d.kind(), d.size()
	if d.Subject != nil {
		m.Subject = d.Subject.Digest
	}
	if m.ArtifactType == "" && d.Config != nil {
		m.ArtifactType = d.Config.MediaType // distribution spec, "Listing Referrers"
	}
	desc, err := json.Marshal(ocispec.Descriptor{
		MediaType: mediaType, Digest: m.Digest, Size: int64(len(payload)),
		ArtifactType: m.ArtifactType, Annotations: d.Annotations,
	})
	if err != nil {
		return none, fmt.Errorf("encode the descriptor of a manifest: %w", err)
	}
	m.Descriptor = string(desc)
	return m, nil
}

// plain is an error of the decoder without the names of our types.
func plain(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s cannot be a JSON %s", e.Field, e.Value)
	}
	return err
}

func (d *document) check(mediaType string) error {
	if err := d.checkShape(mediaType); err != nil {
		return err
	}
	if n := len(d.Layers) + len(d.Manifests); n > maxDescriptors {
		return fmt.Errorf("it names %d things, at most %d are allowed", n, maxDescriptors)
	}
	if err := checkMediaType(d.ArtifactType); err != nil {
		return fmt.Errorf("artifactType: %w", err)
	}
	return d.each(checkDescriptor)
}

// isIndexType tells the two kinds of manifests apart.
func isIndexType(mediaType string) (bool, error) {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, MediaTypeDockerManifestList:
		return true, nil
	case ocispec.MediaTypeImageManifest, MediaTypeDockerManifest:
		return false, nil
	}
	return false, fmt.Errorf("its type %q is not one of %s, %s, %s, %s", mediaType, ocispec.MediaTypeImageManifest,
		ocispec.MediaTypeImageIndex, MediaTypeDockerManifest, MediaTypeDockerManifestList)
}

func (d *document) checkShape(mediaType string) error {
	isIndex, err := isIndexType(mediaType)
	if err != nil {
		return err
	}
	switch {
	case d.SchemaVersion != 2:
		return fmt.Errorf("schemaVersion is %d, not 2", d.SchemaVersion)
	case d.MediaType != "" && d.MediaType != mediaType:
		return fmt.Errorf("its mediaType is %q, but it was sent as %q", d.MediaType, mediaType)
	case d.MediaType == "" && (mediaType == MediaTypeDockerManifest || mediaType == MediaTypeDockerManifestList):
		return errors.New("it has no mediaType, which Docker's manifests must have")
	case d.Manifests != nil && (d.Config != nil || d.Layers != nil):
		return errors.New("it has config or layers, and manifests: it must be an image or an index")
	case isIndex && d.Manifests == nil:
		return errors.New("it was sent as an index and has no manifests")
	case !isIndex && (d.Config == nil || d.Layers == nil):
		return errors.New("it was sent as an image and has not both config and layers")
	}
	return nil
}

func (d *document) each(fn func(where string, desc *ocispec.Descriptor) error) error {
	if d.Config != nil {
		if err := fn("config", d.Config); err != nil {
			return err
		}
	}
	for i := range d.Layers {
		if err := fn(fmt.Sprintf("layers[%d]", i), &d.Layers[i]); err != nil {
			return err
		}
	}
	for i := range d.Manifests {
		if err := fn(fmt.Sprintf("manifests[%d]", i), &d.Manifests[i]); err != nil {
			return err
		}
	}
	if d.Subject != nil {
		return fn("subject", d.Subject)
	}
	return nil
}

func checkDescriptor(where string, desc *ocispec.Descriptor) error {
	if _, err := tarport.ParseDigest(desc.Digest.String()); err != nil {
		return fmt.Errorf("%s: %q is not a sha256 or sha512 digest", where, desc.Digest)
	}
	if desc.Size < 0 {
		return fmt.Errorf("%s: the size %d is negative", where, desc.Size)
	}
	if err := checkMediaType(desc.MediaType); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if desc.Data != nil && (int64(len(desc.Data)) != desc.Size || desc.Digest.Algorithm().FromBytes(desc.Data) != desc.Digest) {
		return fmt.Errorf("%s: data is not what size and digest say", where)
	}
	return nil
}

// checkMediaType is not strict about what a media type looks like; but what is
// stored and asked for is text (PostgreSQL's has no NUL).
func checkMediaType(s string) error {
	if len(s) > 255 {
		return errors.New("the media type is longer than 255 bytes")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("the media type has control characters in it")
	}
	return nil
}

func (d *document) references() []metadata.ManifestReference {
	refs := make([]metadata.ManifestReference, 0, 1+len(d.Layers)+len(d.Manifests))
	add := func(kind string, desc *ocispec.Descriptor) {
		refs = append(refs, metadata.ManifestReference{Kind: kind, Digest: desc.Digest, Size: desc.Size})
	}
	if d.Config != nil {
		add(metadata.KindConfig, d.Config)
	}
	for i := range d.Layers {
		if isForeign(d.Layers[i].MediaType) {
			add(metadata.KindForeign, &d.Layers[i])
		} else {
			add(metadata.KindLayer, &d.Layers[i])
		}
	}
	for i := range d.Manifests {
		add(metadata.KindManifest, &d.Manifests[i])
		refs[len(refs)-1].Platform = platformOf(&d.Manifests[i])
	}
	return refs
}

// isForeign tells of a layer that need not be pushed: image-spec 1.1, "Non-
// Distributable Layers", and Docker's foreign layers. Its urls are never fetched.
func isForeign(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// knownKeys are the keys that a reader may look for, by the object they stand
// in. Go's decoder takes "MediaType" for "mediaType" and the last of two;
// others take the first, or none.
var knownKeys = map[string][]string{
	"":           {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"},
	"descriptor": {"mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"},
	"platform":   {"architecture", "os", "os.version", "os.features", "variant", "features"},
}

// checkKeys refuses what is not one JSON object, repeated keys, and known keys
// in another case.
func checkKeys(payload []byte) error {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	if err := checkObject(dec, "", 1); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func checkObject(dec *json.Decoder, kind string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if seen[key] {
			return fmt.Errorf("the key %q stands twice", key)
		}
		seen[key] = true
		for _, k := range knownKeys[kind] {
			if key != k && strings.EqualFold(key, k) {
				return fmt.Errorf("the key %q is %q in the wrong case", key, k)
			}
		}
		t, err = checkValue(dec, kindOf(kind, key), depth)
		if err != nil {
			return err
		}
		if t == nil && kind == "" && (key == "config" || key == "layers" || key == "manifests") {
			return fmt.Errorf("%s is null: some take that for absent, and others do not", key)
		}
	}
	_, err := dec.Token()
	return err
}

// kindOf is the kind of object that stands under a key.
func kindOf(parent, key string) string {
	if parent == "" {
		switch key {
		case "config", "layers", "manifests", "subject":
			return "descriptor"
		}
	}
	if parent == "descriptor" && key == "platform" {
		return "platform"
	}
	return "other"
}

// checkValue returns the first token of the value.
func checkValue(dec *json.Decoder, kind string, depth int) (json.Token, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		err = checkObject(dec, kind, depth+1)
	case json.Delim('['):
		if depth >= maxDepth {
			return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
		}
		for dec.More() {
			if _, err := checkValue(dec, kind, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
	}
	return t, err
}
