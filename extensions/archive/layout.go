package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

const (
	annotationSubject = "io.containerd.manifest.subject" // of a referrer in index.json
	unknown           = "unknown"                        // the platform of attestations
)

// pack lays the archive out: what readers look for first stands first, then
// manifests and configs, then layers.
func (v *saving) pack() (*Download, error) {
	b := newBuilder(v.s)
	if err := b.json(layoutName, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return nil, err
	}
	if err := b.json(indexName, v.indexJSON()); err != nil {
		return nil, err
	}
	if v.docker {
		if err := b.json(manifestName, v.manifestJSON()); err != nil {
			return nil, err
		}
	}
	var all []*saved
	for _, t := range v.tops {
		t.walk(func(m *saved) { all = append(all, m) })
	}
	for _, m := range all {
		b.memory(m.desc.Digest, m.payload)
	}
	for _, m := range all {
		if m.config != nil {
			b.blob(m.repository, *m.config)
		}
	}
	for _, m := range all {
		for _, d := range m.layers {
			if src := v.sources[d.Digest]; src != nil {
				b.add(tarFile{name: blobName(d.Digest), size: d.Size, blob: src})
				continue
			}
			b.blob(m.repository, d)
		}
	}
	d, err := b.download(v.fileName(), v.warnings)
	if err != nil {
		return nil, err
	}
	d.memory = v.memory
	return d, nil
}

// indexJSON names every image of the request, and what refers to them.
func (v *saving) indexJSON() ocispec.Index {
	tags := map[string]string{} // by tag: the repository that has it; "" where there are several
	for _, t := range v.tops {
		if other, ok := tags[t.ref.Tag]; ok && other != t.repository {
			tags[t.ref.Tag] = ""
		} else {
			tags[t.ref.Tag] = t.repository
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, t := range v.tops {
		d := t.desc
		if v.platform == nil {
			d.Platform = nil
		}
		switch {
		case t.subject != "":
			d.Annotations = map[string]string{annotationSubject: t.subject.String()}
		case t.ref.Tag != "":
			full := fullName(v.name(t.repository), t.ref.Tag)
			d.Annotations = map[string]string{annotationName: full, ocispec.AnnotationRefName: t.ref.Tag}
			if tags[t.ref.Tag] == "" { // skopeo and regctl know nothing else
				d.Annotations[ocispec.AnnotationRefName] = full
			}
		}
		index.Manifests = append(index.Manifests, d)
	}
	return index
}

// savedItem is an image in manifest.json.
type savedItem struct {
	Config   string
	RepoTags []string // null where it has none
	Layers   []string
}

// manifestJSON has each image once, with all its names.
func (v *saving) manifestJSON() []*savedItem {
	items := []*savedItem{}
	at := map[string]*savedItem{}
	for _, t := range v.tops {
		if t.item == nil {
			continue
		}
		it := &savedItem{Config: blobName(t.item.config.Digest), Layers: []string{}}
		for _, d := range t.item.layers {
			it.Layers = append(it.Layers, blobName(d.Digest))
		}
		key := it.Config + " " + strings.Join(it.Layers, " ")
		if at[key] == nil {
			at[key] = it
			items = append(items, it)
		}
		if t.ref.Tag != "" {
			at[key].RepoTags = append(at[key].RepoTags, shortName(v.name(t.repository), t.ref.Tag))
		}
	}
	return items
}

// fullName is the name in Docker's normal form. The registry's own address is
// no part of it: the same archive comes from every address of it.
func fullName(repository, tag string) string {
	if !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	return dockerHub + repository + ":" + tag
}

// dockerHub is what docker does not show in front of a name.
const dockerHub = "docker.io/"

// shortName is the name as docker shows it, unless it would take the namespace
// for the address of a registry.
func shortName(repository, tag string) string {
	name, full := repository+":"+tag, fullName(repository, tag)
	if ref, err := reference.ParseNormalizedNamed(name); err != nil || ref.String() != full {
		return full
	}
	return name
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// fileName is a name for the archive that says what is in it.
func (v *saving) fileName() string {
	name := fileWords(v.tops[0].repository, v.tops[0].ref)
	more := slices.IndexFunc(v.tops, func(t *top) bool { return t.subject != "" })
	if more < 0 {
		more = len(v.tops)
	}
	if more > 1 {
		name += fmt.Sprintf("-and-%d-more", more-1)
	}
	if v.platform != nil {
		name += "-" + strings.ReplaceAll(platformWords(*v.platform), "/", "-")
	}
	if !v.docker {
		name += ".oci"
	}
	return name + ".tar"
}

func fileWords(repository string, ref tarport.Reference) string {
	word := ref.Tag
	if ref.Digest != "" {
		word = ref.Digest.Encoded()[:12]
	}
	return strings.ReplaceAll(repository, "/", "-") + "-" + word
}

// builder gathers the files of an archive.
type builder struct {
	s     *Service
	hash  hash.Hash // of all that decides the bytes: what lies in blobs is in their names
	files []tarFile
	names map[string]bool
	size  int64
	err   error
}

// tarFile is one file of the archive.
type tarFile struct {
	at     int64 // where its header begins
	header int   // how long that is
	name   string
	size   int64
	data   []byte // what is in memory
	blob   *blobSource
}

// end is where the next file begins.
func (f *tarFile) end() int64 { return f.at + int64(f.header) + padded(f.size) }

// padded is size in whole blocks.
func padded(size int64) int64 { return (size + layer.BlockSize - 1) &^ (layer.BlockSize - 1) }

func newBuilder(s *Service) *builder {
	return &builder{s: s, hash: sha256.New(), names: map[string]bool{}}
}

func (b *builder) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	b.add(tarFile{name: name, size: int64(len(data)), data: data})
	return nil
}

func (b *builder) memory(d digest.Digest, data []byte) {
	b.add(tarFile{name: blobName(d), size: int64(len(data)), data: data})
}

func (b *builder) blob(repository string, d ocispec.Descriptor) {
	if d.Data != nil {
		b.memory(d.Digest, d.Data)
		return
	}
	b.add(tarFile{name: blobName(d.Digest), size: d.Size, blob: &blobSource{s: b.s, repository: repository, digest: d.Digest}})
}

// add adds a file, and before it its folders; each once.
func (b *builder) add(f tarFile) {
	if b.names[f.name] || b.err != nil {
		return
	}
	b.names[f.name] = true
	if i := strings.LastIndexByte(strings.TrimSuffix(f.name, "/"), '/'); i > 0 {
		b.add(tarFile{name: f.name[:i+1]})
	}
	header, err := tarHeader(f.name, f.size)
	if err != nil {
		b.err = err
		return
	}
	f.at, f.header = b.size, len(header)
	b.size = f.end()
	b.files = append(b.files, f)
	_, _ = b.hash.Write(header)
	_, _ = b.hash.Write(f.data)
}

// tarEnd is two blocks of zeros.
const tarEnd = 2 * layer.BlockSize

var zeros [tarEnd]byte

func (b *builder) download(name string, warnings []string) (*Download, error) {
	if b.err != nil {
		return nil, b.err
	}
	return &Download{
		Name: name, Size: b.size + tarEnd, ETag: `"` + hex.EncodeToString(b.hash.Sum(nil)) + `"`, Warnings: warnings, s: b.s, files: b.files,
	}, nil
}

// tarHeader is the header of a file, or of a folder where the name ends in /:
// ustar, and PAX only where that has no room. The time is 1970, as docker save
// writes it.
func tarHeader(name string, size int64) ([]byte, error) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	return headerBytes(h)
}

// headerBytes is a header as it stands in a tar.
func headerBytes(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("write the header of %s: %w", quoted(h.Name), err)
	}
	return b.Bytes(), nil
}
