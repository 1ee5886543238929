package archive

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
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
	// Name is what the images of a repository are called in the archive, without a
	// tag, in a form that docker takes; the repository's own name where nil.
	Name func(repository string) string
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

// What saves may have in memory that are under way, as their clients may take any
// time: manifests above all, with what they are parsed to.
const (
	savesMemory    = 512 << 20
	manifestMemory = 1 << 10 // of one, besides its bytes
	digestMemory   = 128     // of a digest that a config names
	blobMemory     = 512     // of a file of the archive
)

// Save makes an archive of images that docker load, podman, skopeo and crane
// take, and Load. Nothing is read of layers before the archive is: the Download
// knows its exact size and bytes all the same, since every part of it is known
// by its digest. The Download is closed by the caller.
//
// The same images give the same archive, wherever and whenever it is made.
// Errors are *tarport.Error: NAME_UNKNOWN, MANIFEST_UNKNOWN and DENIED by the
// rights of the principal of ctx on each repository, BLOB_UNKNOWN where a part
// of an image is damaged, INVALID for what cannot be put into the format,
// UNAVAILABLE where too many archives are being sent.
func (s *Service) Save(ctx context.Context, q SaveRequest) (_ *Download, err error) {
	defer func() { s.refused(ctx, KindSave, err) }()
	v, err := s.newSaving(ctx, q)
	if err != nil {
		return nil, err
	}
	handed := false // a panic hands over nothing
	defer func() {
		if !handed {
			v.memory.Leave()
		}
	}()
	d, err := v.download(ctx, q.Images)
	handed = err == nil
	return d, err
}

func (v *saving) download(ctx context.Context, images []string) (*Download, error) {
	roots, err := v.authorized(ctx, images)
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
	memory   *places.Share     // of Service.saves
	name     func(repository string) string

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

func (s *Service) newSaving(ctx context.Context, q SaveRequest) (*saving, error) {
	v := &saving{s: s, memory: s.saves.Enter(ctx), name: func(repository string) string { return strings.TrimPrefix(q.Name(repository), dockerHub) }, seen: map[seenKey]*saved{}, blobs: map[digest.Digest]bool{}, sources: map[digest.Digest]*blobSource{}}
	if q.Name == nil {
		v.name = func(repository string) string { return repository }
	}
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
		if r.item, err = r.only("docker load", "; or save it with format=oci"); err != nil {
			return err
		}
	}
	v.tops = append(v.tops, r)
	return nil
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
		list, more, err := v.s.o.Store.Referrers(ctx, m.repository, m.desc.Digest, "", page, last)
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
		if !more {
			return nil
		}
	}
}

// maxWarnings is how many a Download can have: a client gets them in headers.
const maxWarnings = 20

func (v *saving) warn(format string, args ...any) {
	if len(v.warnings) < maxWarnings {
		v.warnings = appendNew(v.warnings, fmt.Sprintf(format, args...))
	}
}
