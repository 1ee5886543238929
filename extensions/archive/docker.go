package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types (distribution: docs/spec/manifest-v2-2.md).
const (
	dockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList       = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig     = "application/vnd.docker.container.image.v1+json"
	dockerLayer      = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip  = dockerLayer + ".gzip"
	dockerLayerZstd  = dockerLayer + ".zstd"
	dockerLayerFile  = "layer.tar" // docker save up to 24: in a folder named by the v1 ID
	dockerForeign    = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignGz  = dockerForeign + ".gzip"
	untaggedByDocker = "<none>:<none>"
)

// dockerItem is one image of manifest.json.
type dockerItem struct {
	where  string // for messages: "image 2 of manifest.json"
	config string
	tags   []string
	layers []string
}

// parseManifestJSON reads what docker save, and everything that does as it
// does, writes about its images.
func parseManifestJSON(data []byte, l Limits) ([]dockerItem, error) {
	raw, err := elements(data, l.Images)
	if _, ok := errors.AsType[*tooManyError](err); ok {
		return nil, tooLarge("manifest.json names more than %d images", l.Images)
	}
	if err != nil {
		return nil, invalid("manifest.json is not the list of images that docker save writes: %s", err)
	}
	if len(raw) == 0 {
		return nil, invalid("manifest.json names no image")
	}
	items := make([]dockerItem, len(raw))
	names := l.Names
	for i, r := range raw {
		items[i].where = fmt.Sprintf("image %d of manifest.json", i+1)
		err := items[i].parse(r, l.LayersPerImage, names)
		if _, ok := errors.AsType[*tooManyError](err); ok {
			return nil, tooLarge("%s: %s", items[i].where, err)
		}
		if err != nil {
			return nil, invalid("%s: %s", items[i].where, err)
		}
		names -= len(items[i].tags)
	}
	return items, nil
}

func (it *dockerItem) parse(raw []byte, layers, names int) error {
	o, err := parseObject(raw, "Config", "RepoTags", "Layers")
	if err != nil {
		return err
	}
	if err := o.get("Config", &it.config); err != nil {
		return err
	}
	if it.config == "" {
		return errors.New("it has no Config")
	}
	if it.tags, err = o.texts("RepoTags", names); err != nil {
		return err
	}
	it.layers, err = o.texts("Layers", layers)
	return err
}

// names parses an item's RepoTags. Bazel writes "" and old dockers
// "<none>:<none>" where there is no name.
func (it dockerItem) names() ([]name, error) {
	var out []name
	for _, t := range it.tags {
		if t == "" || t == untaggedByDocker {
			continue
		}
		n, err := parseName(t)
		if err != nil {
			return nil, err
		}
		if n.tag == "" { // docker load: "invalid tag"
			return nil, nameInvalid("%s is named %s, which has no tag", it.where, quoted(t))
		}
		out = append(out, n)
	}
	return out, nil
}

// configHint finds the sha256 in the names that tools give to configs.
var configHint = regexp.MustCompile(`^(?:blobs/sha256/|sha256:|)([0-9a-f]{64})(?:\.json|)$`)

// item verifies an image of manifest.json: all its files are there, and its
// layers are what its config says. It returns the image with a manifest of
// our making.
func (r *resolver) item(it dockerItem) (*manifest, error) {
	f, err := r.c.find(it.config)
	if err != nil {
		return nil, within(err, "the config of %s", it.where)
	}
	cfg, err := r.config(f, "the config of "+it.where+", "+quoted(f.name))
	if err != nil {
		return nil, err
	}
	id := f.sum()
	var warnings []string
	if m := configHint.FindStringSubmatch(f.name); m != nil && m[1] != id.Encoded() {
		if f.pinned() {
			return nil, invalid("the config of %s, %s, is damaged: its sha256 is %s", it.where, quoted(f.name), id.Encoded())
		}
		warnings = append(warnings, fmt.Sprintf("the config %s is not what its name says: the image ID is %s", quoted(f.name), id))
	}
	if len(cfg.diffIDs) != len(it.layers) {
		return nil, invalid("%s has %d layers in manifest.json and %d in its config", it.where, len(it.layers), len(cfg.diffIDs))
	}
	m := &manifest{
		imageID: id.String(), platform: cfg.platform(), warnings: warnings,
		blobs: []blob{{desc: ocispec.Descriptor{MediaType: dockerConfig, Digest: id, Size: f.size}, data: f.data}},
	}
	for i, path := range it.layers {
		b, err := r.itemLayer(path, cfg.diffIDs[i])
		if err != nil {
			return nil, within(err, "layer %d of %s", i+1, it.where)
		}
		m.blobs = append(m.blobs, b)
	}
	return m, m.write(false)
}

func (r *resolver) itemLayer(path string, want digest.Digest) (blob, error) {
	f, err := r.c.find(path)
	if errors.Is(err, errMissing) && r.lender != nil {
		return r.lender.layer(want)
	}
	if err != nil {
		return blob{}, err
	}
	form, err := f.layer()
	if err != nil {
		return blob{}, err
	}
	if f.diffID != want {
		return blob{}, invalid("%s has the diffID %s, the config says %s", quoted(f.name), f.diffID, want)
	}
	return blob{
		desc:   ocispec.Descriptor{MediaType: dockerLayer, Digest: form.digest, Size: form.size},
		diffID: f.diffID, compression: form.compression, seen: f.seen,
	}, nil
}

// write makes the manifest of an image that has none of its own: what docker
// push would have sent, a Docker schema 2 manifest, or an OCI manifest where that
// is wanted, or a layer is zstd, for which Docker's types have no name that
// clients know.
func (m *manifest) write(oci bool) error {
	mediaType, config, layer := dockerManifest, dockerConfig, dockerLayerType
	for _, b := range m.blobs {
		if oci || b.compression == zstded {
			mediaType, config, layer = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociLayerType
		}
	}
	doc := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Layers: []ocispec.Descriptor{}}
	for i := range m.blobs {
		b := &m.blobs[i]
		if b.diffID == "" {
			b.desc.MediaType = config
			doc.Config = b.desc
			continue
		}
		b.desc.MediaType = layer(b.compression)
		doc.Layers = append(doc.Layers, b.desc)
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encode a manifest: %w", err)
	}
	m.payload = payload
	m.desc = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(payload), Size: int64(len(payload))}
	return nil
}

func dockerLayerType(compression string) string {
	if compression == gzipped {
		return dockerLayerGzip
	}
	return dockerLayer
}

func ociLayerType(compression string) string {
	switch compression {
	case gzipped:
		return ocispec.MediaTypeImageLayerGzip
	case zstded:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}
