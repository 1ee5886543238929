package archive

import (
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is something that can have a name: a manifest, or an index with the
// manifests that it reaches.
type image struct {
	*manifest
	names []name
	// tags are names that say no repository, as skopeo and umoci write them.
	tags []string
}

// manifest is one manifest as it will be stored.
type manifest struct {
	desc    ocispec.Descriptor // media type, digest, size
	payload []byte

	blobs    []blob // what it names and the archive (or the store) has
	imageID  string // the config's digest; "" where it is no image
	platform string // "linux/arm64/v8"; "" where there is none
	subject  digest.Digest
	children []*manifest // of an index: those that are in the archive
	sparse   bool        // something that it names is not there
	warnings []string
	// rewritten is the digest that the manifest has in the archive, where the
	// request asked for another compression than it names.
	rewritten digest.Digest
}

// blob is a blob that a manifest names.
type blob struct {
	desc        ocispec.Descriptor
	diffID      digest.Digest // of layers
	seen        seen          // of layers that passed by
	compression string        // of layers
	data        []byte        // of a blob that is not in the batch yet
	file        *file         // where the archive has it as a file
	lent        bool          // the archive lacks it, the registry has it; nobody has hashed the layer in it here
}

// layers are the manifest's blobs that are layers of an image.
func (m *manifest) layers() []blob {
	var l []blob
	for _, b := range m.blobs {
		if b.diffID != "" {
			l = append(l, b)
		}
	}
	return l
}

// all calls yield for the manifest and what it reaches, children first, each
// digest once: the order in which they can be put.
func (m *manifest) all() []*manifest {
	var out []*manifest
	seen := map[digest.Digest]bool{}
	var walk func(*manifest)
	walk = func(m *manifest) {
		if seen[m.desc.Digest] {
			return
		}
		seen[m.desc.Digest] = true
		for _, c := range m.children {
			walk(c)
		}
		out = append(out, m)
	}
	walk(m)
	return out
}

// hasImage tells whether the manifest is that image or reaches it.
func (m *manifest) hasImage(id string) bool {
	return slices.ContainsFunc(m.all(), func(m *manifest) bool { return m.imageID == id })
}
