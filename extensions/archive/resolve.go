package archive

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resolver finds out, when the whole archive was read, which images are in it.
type resolver struct {
	c       *contents
	limits  Limits
	lender  *lender // of the layers that the archive lacks; nil where it must have all
	seen    map[digest.Digest]*manifest
	absent  map[digest.Digest]*absentError // manifests of which parts are not there
	configs map[*file]imageConfig
	list    []*image

	byDigest map[digest.Digest]*image
	byName   map[string]*image
	byConfig map[string]*image      // of which a config is part
	below    map[digest.Digest]bool // manifests that an index names
}

// resolve returns the archive's images, all verified.
//
// index.json is the truth about manifests and platforms: its manifests are
// kept to the byte. manifest.json adds the images that only it has (docker 25
// to 29 leave untagged ones out of index.json) and names. Where both give one
// name to two images the archive is refused: two readers would see two images.
func (c *contents) resolve(l Limits, lender *lender) ([]*image, error) {
	r := &resolver{
		c: c, limits: l, lender: lender, seen: map[digest.Digest]*manifest{}, absent: map[digest.Digest]*absentError{},
		configs:  map[*file]imageConfig{},
		byDigest: map[digest.Digest]*image{}, byName: map[string]*image{}, byConfig: map[string]*image{}, below: map[digest.Digest]bool{},
	}
	index, err := c.metadata(indexName)
	if err != nil {
		return nil, err
	}
	manifestJSON, err := c.metadata(manifestName)
	if err != nil {
		return nil, err
	}
	layout, err := c.metadata(layoutName)
	if err != nil {
		return nil, err
	}
	if index == nil && manifestJSON == nil {
		return nil, c.noImages()
	}
	if index != nil {
		if err := checkLayout(layout); err != nil {
			return nil, err
		}
		if err := r.indexJSON(index); err != nil {
			return nil, err
		}
	}
	if manifestJSON != nil {
		if err := r.manifestJSON(manifestJSON); err != nil {
			return nil, err
		}
	}
	return r.images()
}

// checkLayout reads oci-layout, which need not be there.
func checkLayout(data []byte) error {
	if data == nil {
		return nil
	}
	var version string
	o, err := parseObject(data, "imageLayoutVersion")
	if err == nil {
		err = o.get("imageLayoutVersion", &version)
	}
	if err == nil && !strings.HasPrefix(version, "1.") {
		err = fmt.Errorf("its imageLayoutVersion is %s, only 1.0.0 is supported", quoted(version))
	}
	if err != nil {
		return invalid("oci-layout: %s", err)
	}
	return nil
}

// indexJSON reads index.json.
func (r *resolver) indexJSON(data []byte) error {
	doc, err := parseDocument(data, r.limits)
	if err != nil {
		return invalid("index.json: %s", err)
	}
	if doc.hasLayers || doc.mediaType != "" && doc.mediaType != ocispec.MediaTypeImageIndex {
		return invalid("index.json is not an OCI image index")
	}
	for _, d := range doc.manifests {
		if d.MediaType != "" && !isIndexType(d.MediaType) && !isManifestType(d.MediaType) {
			continue // the spec: an unknown media type must not be an error here
		}
		m, err := r.manifest(d, 0)
		if absent, ok := errors.AsType[*absentError](err); ok {
			return invalid("index.json: %s", absent)
		}
		if err != nil {
			return err
		}
		if err := r.annotate(r.imageOf(m), d); err != nil {
			return err
		}
	}
	return nil
}

// imageOf returns the image of a manifest, a new one where it is not in the
// list yet.
func (r *resolver) imageOf(m *manifest) *image {
	im := r.byDigest[m.desc.Digest]
	if im == nil {
		im = &image{manifest: m}
		r.list = append(r.list, im)
		r.byDigest[m.desc.Digest] = im
		for _, part := range m.all() {
			if part != m {
				r.below[part.desc.Digest] = true
			}
			// The manifest itself goes before an index that reaches it.
			if part.imageID != "" && (part == m || r.byConfig[part.imageID] == nil) {
				r.byConfig[part.imageID] = im
			}
		}
	}
	return im
}

// annotate gives the image the name that its descriptor in index.json has.
func (r *resolver) annotate(im *image, d ocispec.Descriptor) error {
	full, ref := d.Annotations[annotationName], d.Annotations[ocispec.AnnotationRefName]
	if full == "" {
		full = ref
		if !strings.ContainsAny(ref, "/:@") {
			if ref != "" {
				im.tags = appendNew(im.tags, ref)
			}
			return nil
		}
	}
	n, err := parseName(full)
	switch {
	case err != nil:
		return within(err, "index.json")
	case n.path == danglingName:
		return nil
	case n.tag == "" && n.digest == "":
		n.tag = defaultTag
	}
	return r.name(im, n)
}

// name gives an image a name of the archive.
func (r *resolver) name(im *image, n name) error {
	switch has := r.byName[n.key()]; {
	case has == nil:
		r.byName[n.key()] = im
		im.names = append(im.names, n)
	case has != im:
		return nameClash(n.String(), has.desc.Digest, im.desc.Digest)
	}
	return nil
}

// The names in index.json.
const (
	annotationName = "io.containerd.image.name" // containerd, docker 25 to 29, buildx
	danglingName   = "moby-dangling"            // what docker 29 calls an image without a name
)

// manifestJSON reads manifest.json and joins it with what index.json said.
func (r *resolver) manifestJSON(data []byte) error {
	items, err := parseManifestJSON(data, r.limits)
	if err != nil {
		return err
	}
	for _, it := range items {
		names, err := it.names()
		if err != nil {
			return within(err, "%s", it.where)
		}
		m, err := r.item(it)
		if err != nil {
			return err
		}
		if err := r.join(m, names); err != nil {
			return within(err, "%s", it.where)
		}
	}
	return nil
}

// join adds an image of manifest.json. Where index.json has it, by its config,
// its manifest is the one that counts, and a name can mean the index that
// reaches it: manifest.json then has one platform of many.
func (r *resolver) join(m *manifest, names []name) error {
	im := r.byConfig[m.imageID]
	if im == nil {
		im = r.imageOf(m)
	} else {
		im.warnings = appendNew(im.warnings, m.warnings...)
	}
	for _, n := range names {
		has := r.byName[n.key()]
		switch {
		case has != nil && !has.hasImage(m.imageID):
			return nameClash(n.String(), has.desc.Digest, im.desc.Digest)
		case has == nil:
			if err := r.name(im, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// images is the list without what needs no name of its own: a nameless entry
// of index.json that another one reaches.
func (r *resolver) images() ([]*image, error) {
	var out []*image
	names := 0
	for _, im := range r.list {
		if r.below[im.desc.Digest] && len(im.names)+len(im.tags) == 0 {
			continue
		}
		names += len(im.names) + len(im.tags)
		out = append(out, im)
	}
	switch {
	case len(out) == 0:
		return nil, invalid("index.json names no image")
	case names > r.limits.Names:
		return nil, tooLarge("the archive has %d names, at most %d are allowed", names, r.limits.Names)
	}
	return out, nil
}

// dockerConfigName is how docker save named configs from 1.10 on.
var dockerConfigName = regexp.MustCompile(`^[0-9a-f]{64}\.json$`)

// noImages says what an archive is that has neither manifest.json nor
// index.json.
func (c *contents) noImages() error {
	v1, configs, below := 0, 0, ""
	for n := range c.files {
		switch dir, base := path.Split(n); {
		case dockerConfigName.MatchString(n):
			configs++
		case base == "layer.tar" && c.files[dir+"json"] != nil:
			v1++
		case base == manifestName || base == indexName:
			below = dir
		}
	}
	switch {
	case len(c.files) == 0 && len(c.links) == 0:
		return invalid("there is no file in the archive")
	case configs > 0:
		return invalid("manifest.json is not in the archive, though configs of images are: was it cut off?")
	case c.files["repositories"] != nil || v1 > 0:
		return invalid("this archive is of a Docker before 1.10: it has no manifest.json, so its images have no configs. " +
			"Load it into a Docker between 1.10 and 28 and write it again with docker save")
	case below != "":
		return invalid("the image lies in the directory %s of the archive: pack what is in the directory, as with tar -C %s -cf image.tar .",
			quoted(below), strings.TrimSuffix(below, "/"))
	}
	return invalid("there is neither a manifest.json nor an index.json in the archive. " +
		"If it was cut off, send it again; if it is a root file system (docker export), use archives/import")
}

func appendNew(list []string, more ...string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
