package tarball

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest reads manifest.json: Docker's form, in which a config's diffIDs say
// what the layers are.
func (s *scanner) manifest() error {
	f := s.files[manifestName]
	if f == nil {
		return nil
	}
	var items []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := s.decode(f, &items); err != nil {
		return fmt.Errorf("read manifest.json: %w", err)
	}
	for _, it := range items {
		config, err := s.find(it.Config)
		if err != nil {
			return err
		}
		var c struct {
			RootFS ocispec.RootFS `json:"rootfs"`
		}
		if err := s.decode(config, &c); err != nil {
			return fmt.Errorf("read %s: %w", it.Config, err)
		}
		if len(c.RootFS.DiffIDs) != len(it.Layers) {
			return fmt.Errorf("%s does not fit its layers", it.Config)
		}
		for i, name := range it.Layers {
			layer, err := s.find(name)
			if err != nil {
				return err
			}
			l := s.layer(layer)
			l.DiffIDs = appendNew(l.DiffIDs, c.RootFS.DiffIDs[i])
		}
		for _, tag := range it.RepoTags {
			s.a.name(tag)
		}
		s.a.Manifests++
	}
	return nil
}

// index reads index.json: OCI's form, in which manifests name blobs by digest.
func (s *scanner) index() error {
	f := s.files[indexName]
	if f == nil {
		return nil
	}
	var index ocispec.Index
	if err := s.decode(f, &index); err != nil {
		return fmt.Errorf("read index.json: %w", err)
	}
	seen := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		if err := s.descriptor(d, seen, 0); err != nil {
			return err
		}
		name := d.Annotations["io.containerd.image.name"]
		if name == "" {
			name = d.Annotations[ocispec.AnnotationRefName]
		}
		if strings.ContainsAny(name, "/:") { // else it is a tag, which is no name
			s.a.name(name)
		}
	}
	return nil
}

// descriptor reads what is below a descriptor, as far as the archive has it.
func (s *scanner) descriptor(d ocispec.Descriptor, seen map[digest.Digest]bool, depth int) error {
	f := s.blob(d.Digest)
	if f == nil || seen[d.Digest] || !isDocument(d.MediaType) {
		return nil
	}
	seen[d.Digest] = true
	if depth == maxDepth {
		return fmt.Errorf("its indexes are more than %d deep", maxDepth)
	}
	var doc struct {
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := s.decode(f, &doc); err != nil {
		return fmt.Errorf("read the manifest %s: %w", d.Digest, err)
	}
	for _, m := range doc.Manifests {
		if err := s.descriptor(m, seen, depth+1); err != nil {
			return err
		}
	}
	if !isImage(doc.Config, doc.Layers) {
		return nil
	}
	s.a.Manifests++
	for _, ld := range doc.Layers {
		if lf := s.blob(ld.Digest); lf != nil {
			l := s.layer(lf)
			l.Digests = appendNew(l.Digests, ld.Digest)
		}
	}
	return nil
}

// blob is the file of a digest; nil where the archive has none.
func (s *scanner) blob(d digest.Digest) *file {
	if d.Validate() != nil {
		return nil
	}
	f, err := s.find("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
	if err != nil {
		return nil
	}
	return f
}

// isDocument tells of a manifest or an index. Where nothing is said it is one:
// OCI 1.0 did not have to.
func isDocument(mediaType string) bool {
	return mediaType == "" || strings.HasSuffix(mediaType, "+json")
}

// isImage tells whether a manifest is an image's, and no artifact's, whose
// blobs the registry has as nobody's layer.
func isImage(config ocispec.Descriptor, layers []ocispec.Descriptor) bool {
	switch config.MediaType {
	case ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
	default:
		return false
	}
	for _, l := range layers {
		if !strings.Contains(l.MediaType, ".tar") {
			return false
		}
	}
	return true
}
