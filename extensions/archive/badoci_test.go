package archive

import (
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// ociCase makes an archive of one image, which fn may break before it is named
// in index.json.
func ociCase(fn func(l *layout) ocispec.Descriptor) []byte {
	l := newLayout()
	return l.root(fn(l), "a/b:1").pack()
}

func badOCI() []bad {
	layer := layerOf("x")
	config := func(l *layout) ocispec.Descriptor {
		return l.blob(ocispec.MediaTypeImageConfig, configOf("amd64", layer))
	}
	// doc is an image whose manifest is this text; %s are config and layer.
	doc := func(format string) []byte {
		return ociCase(func(l *layout) ocispec.Descriptor {
			c, b := toJSON(config(l)), toJSON(l.blob(ocispec.MediaTypeImageLayerGzip, gz(layer)))
			return l.blob(ocispec.MediaTypeImageManifest, []byte(strings.NewReplacer("CONFIG", string(c), "LAYER", string(b)).Replace(format)))
		})
	}
	// desc is an image whose layer has this descriptor.
	desc := func(fn func(d *ocispec.Descriptor)) []byte {
		return ociCase(func(l *layout) ocispec.Descriptor {
			d := l.blob(ocispec.MediaTypeImageLayerGzip, gz(layer))
			fn(&d)
			return l.manifest(config(l), d)
		})
	}
	typed := func(mediaType string, stored []byte) []byte {
		return ociCase(func(l *layout) ocispec.Descriptor { return l.manifest(config(l), l.blob(mediaType, stored)) })
	}
	changed := func(path func(l *layout, root ocispec.Descriptor) string, to string) []byte {
		l := newLayout()
		root := l.image("amd64", layer)
		l.blobs[path(l, root)] = []byte(to)
		return l.root(root, "a/b:1").pack()
	}
	rootPath := func(_ *layout, root ocispec.Descriptor) string { return "blobs/sha256/" + root.Digest.Encoded() }
	configPath := func(*layout, ocispec.Descriptor) string {
		return "blobs/sha256/" + sum(configOf("amd64", layer)).Encoded()
	}
	gone := func(d digest.Digest) []byte {
		l := newLayout()
		return l.root(l.image("amd64", layer), "a/b:1").drop(d).pack()
	}
	out := []bad{
		{name: "oci-manifest-missing", body: ociCase(func(l *layout) ocispec.Descriptor { d := l.image("amd64", layer); l.drop(d.Digest); return d }), want: "is not in the archive"},
		{name: "oci-config-missing", body: gone(sum(configOf("amd64", layer))), want: "is not in the archive"},
		{name: "oci-layer-missing", body: gone(sum(gz(layer))), want: "is not in the archive"},
		{name: "oci-manifest-damaged", body: changed(rootPath, `{"schemaVersion":2}`), want: "damaged"},
		{name: "oci-config-damaged", body: changed(configPath, `{}`), want: "damaged"},
		{name: "oci-layer-damaged", body: changed(func(*layout, ocispec.Descriptor) string { return "blobs/sha256/" + sum(gz(layer)).Encoded() }, string(gz(layerOf("other")))), want: "damaged"},
		{name: "oci-manifest-is-layer", body: ociCase(func(l *layout) ocispec.Descriptor { return l.blob(ocispec.MediaTypeImageManifest, layer) }), want: "not JSON"},
		{name: "oci-manifest-text", body: ociCase(func(l *layout) ocispec.Descriptor { return l.blob(ocispec.MediaTypeImageManifest, []byte("x")) }), want: "not JSON"},
		{name: "oci-manifest-too-large", body: ociCase(func(l *layout) ocispec.Descriptor {
			return l.blob(ocispec.MediaTypeImageManifest, []byte(`{"a":"`+noise(70<<10)+`"}`))
		}), want: "too large"},
		{name: "oci-manifest-of-index-type", body: ociCase(func(l *layout) ocispec.Descriptor {
			d := l.image("amd64", layer)
			d.MediaType = ocispec.MediaTypeImageIndex
			return d
		}), want: "says that it is"},
		{name: "oci-manifest-size", body: ociCase(func(l *layout) ocispec.Descriptor { d := l.image("amd64", layer); d.Size++; return d }), want: "bytes"},
		{name: "oci-schema1", body: ociCase(func(l *layout) ocispec.Descriptor {
			return l.blob(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":1,"fsLayers":[]}`))
		}), want: "schemaVersion is 1"},
		{name: "oci-both-layers-and-manifests", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[LAYER],"manifests":[LAYER]}`), want: "both layers and manifests"},
		{name: "oci-manifests-in-manifest", body: doc(`{"schemaVersion":2,"manifests":[LAYER]}`), want: "does not look like it"},
		{name: "oci-no-config", body: doc(`{"schemaVersion":2,"layers":[LAYER]}`), want: "does not look like it"},
		{name: "oci-media-type-inside", body: doc(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":CONFIG,"layers":[LAYER]}`), want: "says that it is"},
		{name: "oci-key-twice", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[],"layers":[LAYER]}`), want: "twice"},
		{name: "oci-key-case", body: doc(`{"schemaVersion":2,"config":CONFIG,"Layers":[LAYER]}`), want: "must be written"},
		{name: "oci-layers-object", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":{}}`), want: "layers"},
		{name: "oci-layers-null-item", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[null]}`), want: "layers"},
		{name: "oci-config-string", body: doc(`{"schemaVersion":2,"config":"x","layers":[LAYER]}`), want: "config"},
		{name: "oci-trailing", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[LAYER]}{}`), want: "after its end"},
		{name: "oci-too-many-layers", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[` + strings.Repeat("LAYER,", 10) + `LAYER]}`), want: "more than 10 elements"},
		{name: "oci-layer-count", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[LAYER,LAYER]}`), want: "has 2 layers, its config 1"},
		{name: "oci-no-layers", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[]}`), want: "has 0 layers, its config 1"},
		{name: "oci-subject-broken", body: doc(`{"schemaVersion":2,"config":CONFIG,"layers":[LAYER],"subject":{"digest":"x"}}`), want: "subject"},
		{name: "oci-layer-size", body: desc(func(d *ocispec.Descriptor) { d.Size++ }), want: "bytes"},
		{name: "oci-layer-size-negative", body: desc(func(d *ocispec.Descriptor) { d.Size = -1 }), want: "size is -1"},
		{name: "oci-layer-other-digest", body: desc(func(d *ocispec.Descriptor) { d.Digest = sum([]byte("gone")) }), want: "is not in the archive"},
		{name: "oci-layer-data", body: desc(func(d *ocispec.Descriptor) { d.Data = []byte("not it") }), want: "data"},
		{name: "oci-layer-sha512", body: desc(func(d *ocispec.Descriptor) { d.Digest = digest.SHA512.FromBytes(gz(layer)) }), want: "sha512"},
		{name: "oci-layer-labelled-zstd", body: typed(ocispec.MediaTypeImageLayerZstd, gz(layer)), want: "its compression is gzip"},
		{name: "oci-zstd-labelled-gzip", body: typed(ocispec.MediaTypeImageLayerGzip, zst(layer)), want: "its compression is zstd"},
		{name: "oci-xz-labelled-gzip", body: typed(ocispec.MediaTypeImageLayerGzip, append([]byte("\xfd7zXZ\x00"), noise(700)...)), want: "its compression is xz"},
		{name: "oci-layer-is-text", body: typed(ocispec.MediaTypeImageLayer, []byte(noise(2000))), want: "not a tar"},
		{name: "oci-layer-is-other", body: typed(ocispec.MediaTypeImageLayerGzip, gz(layerOf("other"))), want: "diffID"},
		{name: "oci-layer-is-broken", body: typed(ocispec.MediaTypeImageLayerGzip, gz(layer)[:100]), want: "cut off"},
		{name: "oci-layer-is-cut-tar", body: typed(ocispec.MediaTypeImageLayerGzip, gz(layer[:512])), want: "cut off"},
		{name: "oci-layout-version", body: pack(text(layoutName, `{"imageLayoutVersion":"2.0.0"}`), text(indexName, `{"schemaVersion":2,"manifests":[]}`)), want: "imageLayoutVersion"},
		{name: "oci-layout-text", body: pack(text(layoutName, `1.0.0`), text(indexName, `{"schemaVersion":2,"manifests":[]}`)), want: "oci-layout"},
	}
	for i, s := range []string{
		"", "x", "sha256:", "sha256:x", "sha256:../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + strings.Repeat("A", 64),
		"sha256:" + strings.Repeat("a", 63), "sha256:" + strings.Repeat("a", 65), strings.Repeat("a", 64), "SHA256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 64) + "\n",
	} {
		out = append(out, bad{name: fmt.Sprintf("oci-digest-%02d", i), body: desc(func(d *ocispec.Descriptor) { d.Digest = digest.Digest(s) }), want: "is not a digest"})
	}
	return out
}

func badIndexes() []bad {
	layer := layerOf("x")
	raw := func(s string) []byte {
		l := newLayout()
		d := l.image("amd64", layer)
		return l.packWith(strings.ReplaceAll(s, "ROOT", string(toJSON(d))))
	}
	nested := func(depth int) []byte {
		return ociCase(func(l *layout) ocispec.Descriptor {
			d := l.image("amd64", layer)
			for range depth {
				d = l.index(d, d) // twice: 2^depth paths to one image
			}
			return d
		})
	}
	many := func() []byte {
		l := newLayout()
		for i := range 2 {
			var ds []ocispec.Descriptor
			for j := range 12 {
				ds = append(ds, l.image(fmt.Sprint("arch", i, "-", j), layer))
			}
			l.root(l.index(ds...), fmt.Sprint("a/b:", i))
		}
		return l.pack()
	}
	return []bad{
		{name: "index-empty-file", body: raw(""), want: "index.json"},
		{name: "index-null", body: raw("null"), want: "index.json"},
		{name: "index-list", body: raw("[]"), want: "index.json"},
		{name: "index-no-version", body: raw(`{"manifests":[ROOT]}`), want: "schemaVersion"},
		{name: "index-no-manifests", body: raw(`{"schemaVersion":2}`), want: "names no image"},
		{name: "index-empty", body: raw(`{"schemaVersion":2,"manifests":[]}`), want: "names no image"},
		{name: "index-is-manifest", body: raw(`{"schemaVersion":2,"config":ROOT,"layers":[]}`), want: "not an OCI image index"},
		{name: "index-media-type", body: raw(`{"schemaVersion":2,"mediaType":"text/plain","manifests":[ROOT]}`), want: "not an OCI image index"},
		{name: "index-key-case", body: raw(`{"schemaVersion":2,"Manifests":[ROOT]}`), want: "must be written"},
		{name: "index-key-twice", body: raw(`{"schemaVersion":2,"manifests":[],"manifests":[ROOT]}`), want: "twice"},
		{name: "index-descriptor-null", body: raw(`{"schemaVersion":2,"manifests":[null]}`), want: "manifests"},
		{name: "index-descriptor-empty", body: raw(`{"schemaVersion":2,"manifests":[{}]}`), want: "not a digest"},
		{name: "index-unknown-only", body: raw(`{"schemaVersion":2,"manifests":[{"mediaType":"text/plain","digest":"` + sum(nil).String() + `","size":0}]}`), want: "names no image"},
		{name: "index-too-large", body: raw(`{"schemaVersion":2,"a":"` + noise(66<<10) + `"}`), code: tarport.TooLarge, want: "index.json has"},
		{name: "index-name-bad", body: raw(`{"schemaVersion":2,"manifests":[` + strings.Replace(string(toJSON(newLayout().image("amd64", layer))), `"digest"`, `"annotations":{"io.containerd.image.name":"A/B:1"},"digest"`, 1) + `]}`), code: tarport.NameInvalid, want: "A/B:1"},
		{name: "index-too-deep", body: nested(6), want: "deep"},
		{name: "index-many", body: many(), code: tarport.TooLarge, want: "more than 20 manifests"},
		{name: "index-all-absent", body: ociCase(func(l *layout) ocispec.Descriptor {
			d := l.image("amd64", layer)
			i := l.index(d)
			l.drop(d.Digest)
			return i
		}), want: "is not in the archive"},
		{name: "index-child-damaged", body: ociCase(func(l *layout) ocispec.Descriptor {
			d, good := l.image("amd64", layer), l.image("arm64", layer)
			l.blobs["blobs/sha256/"+d.Digest.Encoded()] = []byte("{}")
			return l.index(d, good)
		}), want: "damaged"},
		{name: "index-child-of-two-types", body: ociCase(func(l *layout) ocispec.Descriptor {
			d := l.image("amd64", layer)
			other := d
			other.MediaType = dockerManifest
			return l.index(d, other)
		}), want: "is named as"},
		{name: "index-child-of-two-sizes", body: ociCase(func(l *layout) ocispec.Descriptor {
			d := l.image("amd64", layer)
			other := d
			other.Size++
			return l.index(d, other)
		}), want: "bytes"},
		{name: "index-name-clash", body: func() []byte {
			l := newLayout()
			return l.root(l.image("amd64", layer), "a/b:1").root(l.image("arm64", layer), "a/b:1").pack()
		}(), code: tarport.Invalid, want: "two images"},
		{name: "index-compress-pinned", body: ociCase(func(l *layout) ocispec.Descriptor {
			return l.index(l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf("amd64", layer)), l.blob(ocispec.MediaTypeImageLayer, layer)))
		}), want: "without compression=", q: func(q *LoadRequest) { q.Compression = "gzip" }},
	}
}

// badPairs are archives that are two images, depending on the reader.
func badPairs() []bad {
	x, y := layerOf("x"), layerOf("y")
	pair := func(fn func(l *layout, d *dockerFile)) []byte {
		l, d := newLayout(), docker("a/b:1", y)
		fn(l, d)
		return pack(append(l.entries(l.indexJSON()), append(d.entries(), text(manifestName, string(toJSON(d.items))))...)...)
	}
	return []bad{
		{name: "oci-and-docker-disagree", body: pair(func(l *layout, _ *dockerFile) { l.root(l.image("amd64", x), "a/b:1") }), code: tarport.Invalid, want: "two images"},
		{name: "oci-and-docker-disagree-spelling", body: pair(func(l *layout, _ *dockerFile) { l.root(l.image("amd64", x), "docker.io/a/b:1") }), code: tarport.Invalid, want: "two images"},
		{name: "oci-and-docker-disagree-index", body: pair(func(l *layout, _ *dockerFile) {
			l.root(l.index(l.image("amd64", x), l.image("arm64", x)), "a/b:1")
		}), code: tarport.Invalid, want: "two images"},
		{name: "oci-and-docker-swapped", body: pair(func(l *layout, d *dockerFile) {
			l.root(l.image("amd64", x), "a/b:1").root(l.image("amd64", y), "a/c:1")
			d.add("a/c:1", x)
		}), code: tarport.Invalid, want: "two images"},
		{name: "oci-good-docker-broken", body: pair(func(l *layout, d *dockerFile) {
			l.root(l.image("amd64", y), "a/b:1")
			delete(d.files, d.layer(0))
		}), want: "is not in the archive"},
		{name: "oci-broken-docker-good", body: pair(func(l *layout, _ *dockerFile) {
			l.root(l.image("amd64", y), "a/b:1").drop(sum(gz(y)))
		}), want: "is not in the archive"},
	}
}

// badParameters are requests that are wrong whatever the archive.
func badParameters() []bad {
	good := docker("a/b:1", layerOf("x")).pack()
	two := docker("a/b:1", layerOf("x")).add("a/c:1", layerOf("y")).pack()
	q := func(fn func(*LoadRequest)) func(*LoadRequest) { return fn }
	return []bad{
		{name: "query-no-namespace", body: good, code: tarport.Invalid, want: "namespace", q: q(func(q *LoadRequest) { q.Namespace = "" })},
		{name: "query-namespace-slash", body: good, code: tarport.NameInvalid, want: "namespace", q: q(func(q *LoadRequest) { q.Namespace = "a/b" })},
		{name: "query-namespace-upper", body: good, code: tarport.NameInvalid, want: "namespace", q: q(func(q *LoadRequest) { q.Namespace = "Team" })},
		{name: "query-repo-upper", body: good, code: tarport.NameInvalid, want: "repo=", q: q(func(q *LoadRequest) { q.Repository = "A" })},
		{name: "query-repo-digest", body: good, code: tarport.NameInvalid, want: "repo=", q: q(func(q *LoadRequest) { q.Repository = "a@" + sum(nil).String() })},
		{name: "query-repo-tag-twice", body: good, code: tarport.Invalid, want: "tag=", q: q(func(q *LoadRequest) { q.Repository, q.Tag = "a:1", "2" })},
		{name: "query-tag-bad", body: good, code: tarport.TagInvalid, want: "tag=", q: q(func(q *LoadRequest) { q.Tag = "-x" })},
		{name: "query-repo-for-two", body: two, code: tarport.Invalid, want: "use rename=", q: q(func(q *LoadRequest) { q.Repository = "x" })},
		{name: "query-tag-for-two", body: two, code: tarport.Invalid, want: "use rename=", q: q(func(q *LoadRequest) { q.Tag = "x" })},
		{name: "query-rename-form", body: good, code: tarport.Invalid, want: "OLD=NEW", q: q(func(q *LoadRequest) { q.Rename = []string{"a/b:1"} })},
		{name: "query-rename-empty", body: good, code: tarport.Invalid, want: "OLD=NEW", q: q(func(q *LoadRequest) { q.Rename = []string{"a/b:1="} })},
		{name: "query-rename-new-bad", body: good, code: tarport.NameInvalid, want: "name", q: q(func(q *LoadRequest) { q.Rename = []string{"a/b:1=X"} })},
		{name: "query-rename-unknown", body: good, code: tarport.Invalid, want: "has no image", q: q(func(q *LoadRequest) { q.Rename = []string{"a/x:1=c:1"} })},
		{name: "query-rename-to-one", body: two, code: tarport.Invalid, want: "two images", q: q(func(q *LoadRequest) { q.Rename = []string{"a/b:1=a/c:1"} })},
		{name: "query-rename-and-repo", body: good, code: tarport.Invalid, want: "together", q: q(func(q *LoadRequest) { q.Rename, q.Repository = []string{"a/b:1=c:1"}, "x" })},
		{name: "query-compression", body: good, code: tarport.Invalid, want: "compression", q: q(func(q *LoadRequest) { q.Compression = "xz" })},
	}
}
