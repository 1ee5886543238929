package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The generator of the tests' archives: good ones, which the cases then break.

// entry is one entry of a tar.
type entry struct {
	name string
	body []byte
	link string // makes it a symlink, or what typ says
	typ  byte   // tar.TypeReg where 0 and there is no link
	pax  map[string]string
}

func reg(name string, body []byte) entry { return entry{name: name, body: body} }

func text(name, body string) entry { return entry{name: name, body: []byte(body)} }

func symlink(name, target string) entry { return entry{name: name, link: target, typ: tar.TypeSymlink} }

func hardlink(name, target string) entry { return entry{name: name, link: target, typ: tar.TypeLink} }

// pack writes a tar with its two blocks of zeros at the end.
func pack(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Linkname: e.link, Mode: 0o644, Size: int64(len(e.body)), PAXRecords: e.pax}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.typ == tar.TypeXGlobalHeader {
			h = &tar.Header{Name: e.name, Typeflag: e.typ, PAXRecords: e.pax}
		}
		if err := w.WriteHeader(h); err != nil {
			panic(fmt.Sprintf("pack %q: %v", e.name, err))
		}
		if _, err := w.Write(e.body); err != nil {
			panic(fmt.Sprintf("pack %q: %v", e.name, err))
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// layerOf is a layer with one file.
func layerOf(content string) []byte {
	return pack(text("etc/"+content[:min(len(content), 20)], content))
}

func sum(b []byte) digest.Digest { return digest.FromBytes(b) }

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// configOf is the config of an image of these (plain) layers.
func configOf(arch string, layers ...[]byte) []byte {
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, sum(l).String())
	}
	return toJSON(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{"Cmd": []string{"/x"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
}

// dockerFile is a docker-archive in parts, so that cases can change any.
type dockerFile struct {
	items []map[string]any
	files map[string][]byte
	order []string // of files; the rest follow by name
	extra []entry  // before manifest.json
}

// docker makes an archive as docker 20.10 writes it, of one image.
func docker(tag string, layers ...[]byte) *dockerFile {
	d := &dockerFile{files: map[string][]byte{}}
	d.add(tag, layers...)
	return d
}

func (d *dockerFile) add(tag string, layers ...[]byte) *dockerFile {
	cfg := configOf("amd64", layers...)
	item := map[string]any{"Config": sum(cfg).Encoded() + ".json", "RepoTags": nil}
	if tag != "" {
		item["RepoTags"] = []string{tag}
	}
	d.files[sum(cfg).Encoded()+".json"] = cfg
	paths := []string{}
	for i, l := range layers {
		p := fmt.Sprintf("%s/layer.tar", sum(fmt.Append(nil, len(d.items), i)).Encoded())
		d.files[p] = l
		paths = append(paths, p)
	}
	item["Layers"] = paths
	d.items = append(d.items, item)
	return d
}

// layer is the path of a layer of the first image.
func (d *dockerFile) layer(i int) string {
	return d.items[0]["Layers"].([]string)[i]
}

func (d *dockerFile) config() string {
	return d.items[0]["Config"].(string)
}

// setConfig replaces the config of the first image.
func (d *dockerFile) setConfig(b []byte) *dockerFile {
	delete(d.files, d.config())
	name := sum(b).Encoded() + ".json"
	d.files[name], d.items[0]["Config"] = b, name
	return d
}

func (d *dockerFile) entries() []entry {
	var out []entry
	for _, n := range d.order {
		out = append(out, reg(n, d.files[n]))
	}
	for _, n := range slices.Sorted(maps.Keys(d.files)) {
		if !slices.Contains(d.order, n) {
			out = append(out, reg(n, d.files[n]))
		}
	}
	return append(out, d.extra...)
}

// pack writes the archive with a manifest.json of its items.
func (d *dockerFile) pack() []byte { return d.packWith(string(toJSON(d.items))) }

// packWith writes the archive with this manifest.json.
func (d *dockerFile) packWith(manifest string) []byte {
	return pack(append(d.entries(), text(manifestName, manifest))...)
}

// layout is an OCI image layout in parts.
type layout struct {
	blobs map[string][]byte // by path
	roots []ocispec.Descriptor
	extra []entry
}

func newLayout() *layout { return &layout{blobs: map[string][]byte{}} }

func (l *layout) blob(mediaType string, b []byte) ocispec.Descriptor {
	l.blobs["blobs/sha256/"+sum(b).Encoded()] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum(b), Size: int64(len(b))}
}

// manifest adds a manifest with a config and layers that are given as stored.
func (l *layout) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	if layers == nil {
		layers = []ocispec.Descriptor{}
	}
	return l.document(ocispec.MediaTypeImageManifest, map[string]any{"config": config, "layers": layers})
}

func (l *layout) index(children ...ocispec.Descriptor) ocispec.Descriptor {
	return l.document(ocispec.MediaTypeImageIndex, map[string]any{"manifests": children})
}

func (l *layout) document(mediaType string, keys map[string]any) ocispec.Descriptor {
	doc := map[string]any{"schemaVersion": 2, "mediaType": mediaType}
	maps.Copy(doc, keys)
	return l.blob(mediaType, toJSON(doc))
}

// image adds an image of plain layers, stored as gzip.
func (l *layout) image(arch string, layers ...[]byte) ocispec.Descriptor {
	var ds []ocispec.Descriptor
	for _, b := range layers {
		ds = append(ds, l.blob(ocispec.MediaTypeImageLayerGzip, gz(b)))
	}
	d := l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf(arch, layers...)), ds...)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

// root puts a descriptor into index.json, with a name if it has one.
func (l *layout) root(d ocispec.Descriptor, name string) *layout {
	if name != "" {
		d.Annotations = map[string]string{annotationName: name}
	}
	l.roots = append(l.roots, d)
	return l
}

func (l *layout) drop(d digest.Digest) *layout {
	delete(l.blobs, "blobs/sha256/"+d.Encoded())
	return l
}

func (l *layout) entries(index string) []entry {
	out := []entry{text(layoutName, `{"imageLayoutVersion":"1.0.0"}`)}
	for _, n := range slices.Sorted(maps.Keys(l.blobs)) {
		out = append(out, reg(n, l.blobs[n]))
	}
	return append(append(out, l.extra...), text(indexName, index))
}

func (l *layout) indexJSON() string {
	return string(toJSON(map[string]any{"schemaVersion": 2, "manifests": l.roots}))
}

func (l *layout) pack() []byte { return pack(l.entries(l.indexJSON())...) }

func (l *layout) packWith(index string) []byte { return pack(l.entries(index)...) }

// noise is n letters and digits that hardly compress, the same ones every time.
func noise(n int) string {
	b := make([]byte, (n+1)/2)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return hex.EncodeToString(b)[:n]
}
