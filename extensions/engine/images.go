package engine

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// tagged is what a tag leads to: one image, or the platforms of an index.
type tagged struct {
	repository, tag string
	taggedAt        time.Time
	target          digest.Digest
	images          []metadata.TaggedImage // at least one
}

// chosen is the image that stands for all: a client's world has one platform
// where it does not name another.
func (t *tagged) chosen() *metadata.TaggedImage {
	for i, im := range t.images {
		if im.OS == "linux" && im.Architecture == "amd64" {
			return &t.images[i]
		}
	}
	return &t.images[0]
}

// platform is the image for a platform; nil where there is none.
func (t *tagged) platform(p ocispec.Platform) *metadata.TaggedImage {
	for i, im := range t.images {
		if im.OS == p.OS && im.Architecture == p.Architecture && (im.Variant == p.Variant || p.Variant == "") {
			return &t.images[i]
		}
	}
	return nil
}

// Bounds of an answer: the Engine API has no pages.
const (
	maxImages = 10_000
	maxRows   = 5 * maxImages // images of several platforms
	maxFacts  = 32 << 20      // bytes of what is known of their configs
)

// images reads what the tags lead to that keep keeps; nil is all. Where that is
// too much, the error is TOO_LARGE, and comes with the first of it.
func (h *Handler) images(ctx context.Context, q metadata.ImageQuery, keep func(repository, tag string) bool) ([]tagged, error) {
	if err := h.mayList(ctx, q); err != nil {
		return nil, err
	}
	var list []tagged
	rows, size, facts := 0, 0, map[digest.Digest]string{} // an image can have many tags
	err := h.o.Images.TaggedImages(ctx, q, func(im metadata.TaggedImage) error {
		if keep != nil && !keep(im.Repository, im.Tag) {
			return nil
		}
		if known, ok := facts[im.Digest]; ok {
			im.Config = known
		} else {
			facts[im.Digest] = im.Config
			size += len(im.Config)
		}
		last := len(list) - 1
		more := last >= 0 && list[last].repository == im.Repository && list[last].tag == im.Tag
		if rows++; rows > maxRows || size > maxFacts || !more && len(list) == maxImages {
			return tarport.Errorf(tarport.TooLarge, "the namespace %s has too many tags for one list (%d are possible): name those to list, docker images NAME or --filter reference=PATTERN",
				q.Namespace, maxImages)
		}
		if more {
			list[last].images = append(list[last].images, im)
		} else {
			list = append(list, tagged{im.Repository, im.Tag, im.TaggedAt, im.Target, []metadata.TaggedImage{im}})
		}
		return nil
	})
	return list, err
}

// mayList asks for the right to see what is asked for: one repository, or the
// namespace.
func (h *Handler) mayList(ctx context.Context, q metadata.ImageQuery) error {
	a, on := tarport.NamespaceRead, q.Namespace
	if q.Repository != "" {
		a, on = tarport.Pull, q.Repository
	}
	return h.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), a, on)
}

// find returns what a client's name for an image leads to, as the daemon does
// it: a name counts more than an ID. Where it is an ID there can be several, all
// of one image, and each has only that. Else the error is the daemon's.
func (h *Handler) find(ctx context.Context, ns string, n name) ([]tagged, error) {
	if n.repository != "" {
		q := metadata.ImageQuery{Namespace: ns, Repository: n.repository}
		if n.digest == "" {
			q.Tag = n.tagOrDefault()
		}
		list, err := h.images(ctx, q, nil)
		if err != nil && !absent(err) {
			return nil, err
		}
		if n.digest != "" {
			list = slices.DeleteFunc(list, func(t tagged) bool { return !t.narrow(n.digest) })
		}
		if len(list) > 0 {
			return list, nil
		}
	}
	if n.id == "" {
		return nil, n.unknown()
	}
	list, err := h.images(ctx, metadata.ImageQuery{Namespace: ns, ID: n.id}, nil)
	switch {
	case err != nil && !absent(err):
		return nil, err
	case len(list) == 0:
		return nil, n.unknown()
	}
	for _, t := range list {
		if t.images[0].ID != list[0].images[0].ID {
			return nil, tarport.Errorf(tarport.Invalid, "invalid reference format: %s is the beginning of more than one image ID", n.raw)
		}
	}
	return list, nil
}

func (n name) tagOrDefault() string {
	if n.tag == "" {
		return defaultTag
	}
	return n.tag
}

// narrow leaves of t what has the digest; false where nothing has.
func (t *tagged) narrow(d digest.Digest) bool {
	if t.target == d {
		return true
	}
	for _, im := range t.images {
		if im.Digest == d {
			t.images = []metadata.TaggedImage{im}
			return true
		}
	}
	return false
}

// absent tells of an error that says the same of what is not there and of what
// is hidden.
func absent(err error) bool {
	switch tarport.ErrorCode(err) {
	case tarport.NameUnknown, tarport.NotFound, tarport.ManifestUnknown:
		return true
	}
	return false
}

// parsePlatform reads the platform of a query: JSON of the OCI type. It is "" in
// most.
func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(s), &p); err != nil || p.OS == "" || p.Architecture == "" {
		return nil, tarport.Errorf(tarport.Invalid, "the platform %.200s is not JSON with os and architecture", s)
	}
	return &p, nil
}

func platformWords(p ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}
