package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
)

// savedBytes reads an archive whole, and checks what is true of every one: it
// is as long as it says, and a tar to its end, of the names that it should
// have, each once, in the same bytes again.
func (r *registry) savedBytes(tb testing.TB, q SaveRequest) []byte {
	tb.Helper()
	d, err := r.Save(tb.Context(), q)
	if err != nil {
		tb.Fatalf("Save(%v): %v", q.Images, err)
	}
	b := read(tb, d)
	if int64(len(b)) != d.Size {
		tb.Errorf("the archive of %v has %d bytes, want %d as it says", q.Images, len(b), d.Size)
	}
	again, err := r.Save(tb.Context(), q)
	if err != nil || again.ETag != d.ETag || again.Name != d.Name || !bytes.Equal(read(tb, again), b) {
		tb.Errorf("the archive of %v is another one the second time (%v)", q.Images, err)
	}
	entries(tb, b)
	return b
}

func read(tb testing.TB, d *Download) []byte {
	tb.Helper()
	c := d.Open(tb.Context())
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		tb.Fatalf("read the archive %s: %v", d.Name, err)
	}
	return b
}

// entries are the files of an archive. What lies under blobs/ is what its name
// says.
func entries(tb testing.TB, archive []byte) map[string][]byte {
	tb.Helper()
	out := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			tb.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			tb.Fatal(err)
		}
		if _, twice := out[h.Name]; twice {
			tb.Errorf("the archive has %s twice", h.Name)
		}
		if h.ModTime.Unix() != 0 || h.Uname+h.Gname != "" || h.Uid+h.Gid != 0 {
			tb.Errorf("%s has a time or an owner: %+v", h.Name, h)
		}
		out[h.Name] = b
		if p := strings.Split(h.Name, "/"); len(p) == 3 && p[2] != "" {
			want := digest.NewDigestFromEncoded(digest.Algorithm(p[1]), p[2])
			if got := want.Algorithm().FromBytes(b); got != want {
				tb.Errorf("%s holds %s", h.Name, got)
			}
		}
	}
}

func indexOf(tb testing.TB, files map[string][]byte) (index ocispec.Index) {
	tb.Helper()
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		tb.Fatal(err)
	}
	return index
}

func itemsOf(tb testing.TB, files map[string][]byte) (items []savedItem) {
	tb.Helper()
	if err := json.Unmarshal(files["manifest.json"], &items); err != nil {
		tb.Fatal(err)
	}
	return items
}

// names are what Save takes, of what Load has answered. Referrers come along.
func (r *Result) names() []string {
	var names []string
	for _, im := range r.Images {
		if !strings.Contains(im.Name, "@") {
			names = append(names, im.Name)
		}
	}
	return names
}

// TestSavedFixturesComeBack saves every fixture that was loaded and loads that
// into another registry: the same names have the same digests there, and image
// IDs, layers and referrers.
func TestSavedFixturesComeBack(t *testing.T) {
	t.Parallel()
	dir, list := fixtures(t)
	from, to := newRegistry(t), newRegistry(t)
	for i, f := range list {
		if f.refused() {
			continue
		}
		t.Run(f.File, func(t *testing.T) {
			t.Parallel()
			in := func(q *LoadRequest) {
				if q.Namespace = "team" + strconv.Itoa(i); f.nameless() {
					q.Repository = "fallback"
				}
			}
			loaded := from.mustLoad(t, f.read(t, dir), in)
			for _, format := range []string{formatDocker, formatOCI} {
				q := SaveRequest{Images: loaded.names(), Format: format}
				if format == formatDocker && f.File == "oci/oras-artifact-layout.tar" {
					if _, err := from.Save(t.Context(), q); tarport.ErrorCode(err) != tarport.Invalid {
						t.Errorf("Save of an artifact for docker = %v, want INVALID", err)
					}
					continue
				}
				back := to.mustLoad(t, from.savedBytes(t, q), func(q *LoadRequest) { q.Namespace = "team" + strconv.Itoa(i) })
				if diff := cmp.Diff(digests(loaded), digests(back)); diff != "" {
					t.Errorf("as %s (-loaded +saved and loaded):\n%s", format, diff)
				}
			}
		})
	}
}

// digests are what must be the same on both sides.
func digests(r *Result) map[string][]string {
	out := map[string][]string{}
	for _, im := range r.Images {
		var list []string
		for _, m := range append([]Manifest{im.Manifest}, im.Manifests...) {
			list = append(list, m.Digest.String()+" "+m.MediaType+" "+m.ImageID+" "+m.Platform)
			for _, l := range m.Layers {
				list = append(list, l.Digest.String()+" "+l.DiffID.String())
			}
		}
		slices.Sort(list)
		out[im.Name] = slices.Compact(list)
	}
	return out
}

// TestSaveNames: what is named how in index.json and manifest.json.
func TestSaveNames(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	one := reg.mustLoad(t, docker("app:1", layerOf("x")).pack()).Images[0]
	reg.mustLoad(t, docker("app:latest", layerOf("x")).add("other:1", layerOf("x"), layerOf("y")).pack())
	for _, ns := range []string{"foo.bar", "docker.io"} { // namespaces that look like addresses
		reg.mustLoad(t, docker("team/app:1", layerOf(ns)).pack(), func(q *LoadRequest) { q.Namespace = ns })
	}
	byDigest := "team/app@" + one.Digest.String()
	files := entries(t, reg.savedBytes(t, SaveRequest{Images: []string{
		"team/app:1", "team/app", "team/app:1", byDigest, "team/other:1", "foo.bar/team/app:1", "docker.io/team/app:1",
	}}))
	var got [][]string
	for _, d := range indexOf(t, files).Manifests {
		got = append(got, []string{d.Annotations["io.containerd.image.name"], d.Annotations["org.opencontainers.image.ref.name"]})
	}
	want := [][]string{
		{"docker.io/team/app:1", "docker.io/team/app:1"}, // the tag alone would be three images'
		{"docker.io/team/app:latest", "latest"},
		{"", ""},
		{"docker.io/team/other:1", "docker.io/team/other:1"},
		{"docker.io/foo.bar/team/app:1", "docker.io/foo.bar/team/app:1"},
		{"docker.io/docker.io/team/app:1", "docker.io/docker.io/team/app:1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names in index.json (-want +got):\n%s", diff)
	}
	items := itemsOf(t, files)
	var tags [][]string
	for _, it := range items {
		tags = append(tags, it.RepoTags)
		for _, name := range append(it.Layers, it.Config) {
			if files[name] == nil {
				t.Errorf("manifest.json names %s, which is not there", name)
			}
		}
	}
	if diff := cmp.Diff([][]string{{"team/app:1", "team/app:latest"}, {"team/other:1"}, {"docker.io/foo.bar/team/app:1"}, {"docker.io/docker.io/team/app:1"}}, tags); diff != "" {
		t.Errorf("names in manifest.json (-want +got):\n%s", diff)
	}
	if len(items[1].Layers) != 2 || items[0].Layers[0] != items[1].Layers[0] {
		t.Errorf("equal layers are not one file: %v and %v", items[0].Layers, items[1].Layers)
	}
	untagged := itemsOf(t, entries(t, reg.savedBytes(t, SaveRequest{Images: []string{byDigest}})))
	if len(untagged) != 1 || untagged[0].RepoTags != nil {
		t.Errorf("an image by digest has the names %v", untagged)
	}
}

// multi is an index of these architectures, with an attestation of the first
// and a signature of the index.
func multi(l *layout, compress func([]byte) []byte, architectures ...string) ocispec.Descriptor {
	mediaType := ocispec.MediaTypeImageLayerGzip
	if bytes.HasPrefix(compress(nil), zst(nil)) {
		mediaType = ocispec.MediaTypeImageLayerZstd
	}
	var list []ocispec.Descriptor
	for _, a := range architectures {
		layer := layerOf("for " + a)
		d := l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf(a, layer)), l.blob(mediaType, compress(layer)))
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: a}
		list = append(list, d)
	}
	att := refer(l, list[0], "application/vnd.in-toto+json")
	att.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	att.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": list[0].Digest.String()}
	index := l.index(append(list, att)...)
	l.root(index, "docker.io/team/app:1")
	l.root(refer(l, index, "application/vnd.example.signature"), "")
	return index
}

// refer adds an artifact that refers to something.
func refer(l *layout, subject ocispec.Descriptor, layerType string) ocispec.Descriptor {
	subject = ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	return l.document(ocispec.MediaTypeImageManifest, map[string]any{
		"subject": subject, "artifactType": layerType,
		"config": l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		"layers": []ocispec.Descriptor{l.blob(layerType, []byte("about "+subject.Digest.String()))},
	})
}

func gz1(b []byte) []byte { return gz(b) }

func TestSavePlatforms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		architectures  []string
		missing        string // one that is not loaded
		format         string
		platform       string
		item           string // the architecture in manifest.json
		top            int    // descriptors in index.json
		images         []string
		warnings, code string
	}{
		{name: "all, docker gets amd64", architectures: []string{"arm64", "amd64"}, item: "amd64", top: 2, images: []string{"arm64", "amd64"}},
		{name: "only one that docker can get", architectures: []string{"s390x"}, item: "s390x", top: 2, images: []string{"s390x"}},
		{name: "no choice", architectures: []string{"arm64", "s390x"}, code: "choose one with platform= (linux/arm64, linux/s390x)"},
		{name: "no choice needed", architectures: []string{"arm64", "s390x"}, format: "oci", top: 2, images: []string{"arm64", "s390x"}},
		{name: "one of them", architectures: []string{"amd64", "arm64"}, platform: "linux/arm64/v8", item: "arm64", top: 1, images: []string{"arm64"}},
		{name: "the attested one", architectures: []string{"amd64", "arm64"}, platform: "x86_64", item: "amd64", top: 2, images: []string{"amd64"}},
		{name: "one of them for OCI", architectures: []string{"amd64", "arm64"}, platform: "linux/arm64", format: "oci", top: 1, images: []string{"arm64"}},
		{name: "another", architectures: []string{"amd64", "arm64"}, platform: "linux/s390x", code: "it has no platform linux/s390x, only linux/amd64, linux/arm64"},
		{name: "sparse", architectures: []string{"arm64", "amd64"}, missing: "amd64", item: "arm64", top: 2, images: []string{"arm64"}, warnings: "the platform \"linux/amd64\" of the index"},
		{name: "what is missing", architectures: []string{"arm64", "amd64"}, missing: "amd64", platform: "linux/amd64", code: "MANIFEST_UNKNOWN"},
		{name: "not a platform", architectures: []string{"amd64"}, platform: "linux/", code: "must be of the form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			l := newLayout()
			multi(l, gz1, c.architectures...)
			if c.missing != "" {
				l.drop(sum(configOf(c.missing, layerOf("for "+c.missing))))
			}
			reg.mustLoad(t, l.pack())
			d, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}, Format: c.format, Platform: c.platform})
			if c.code != "" {
				if err == nil || !strings.Contains(err.Error(), c.code) || tarport.ErrorCode(err) == tarport.Internal {
					t.Errorf("Save = %v, want an error with %q", err, c.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(d.Warnings, "\n"); (got == "") != (c.warnings == "") || !strings.Contains(got, c.warnings) {
				t.Errorf("warnings = %q, want %q", got, c.warnings)
			}
			files := entries(t, read(t, d))
			if got := len(indexOf(t, files).Manifests); got != c.top {
				t.Errorf("index.json has %d entries, want %d", got, c.top)
			}
			for _, a := range []string{"amd64", "arm64", "s390x"} {
				layer := layerOf("for " + a)
				if got, want := files[blobName(sum(gz(layer)))] != nil, slices.Contains(c.images, a); got != want {
					t.Errorf("the layer for %s is there: %v, want %v", a, got, want)
				}
				if c.item == a && itemsOf(t, files)[0].Config != blobName(sum(configOf(a, layer))) {
					t.Errorf("manifest.json has %v, want the image for %s", itemsOf(t, files)[0], a)
				}
			}
			if files[manifestName] != nil && c.format == formatOCI {
				t.Error("an OCI layout has a manifest.json")
			}
		})
	}
}

func TestSaveRefuses(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			if a != tarport.Pull || strings.HasPrefix(repository, "hidden/") {
				return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", repository)
			}
			return nil
		})
		o.Limits.Images = 4
	})
	l := newLayout()
	multi(l, gz1, "amd64", "arm64")
	loadAs(t, reg, l.pack())
	for _, c := range []struct {
		name string
		q    SaveRequest
		code tarport.Code
	}{
		{"nothing", SaveRequest{}, tarport.Invalid},
		{"too many names", SaveRequest{Images: make([]string, maxSaved+1)}, tarport.Invalid},
		{"no name", SaveRequest{Images: []string{"Team/App"}}, tarport.NameInvalid},
		{"no tag", SaveRequest{Images: []string{"team/app:-"}}, tarport.TagInvalid},
		{"no digest", SaveRequest{Images: []string{"team/app@sha256:x"}}, tarport.DigestInvalid},
		{"no such tag", SaveRequest{Images: []string{"team/app:2"}}, tarport.ManifestUnknown},
		{"no such repository", SaveRequest{Images: []string{"team/none:1"}}, tarport.ManifestUnknown},
		{"hidden", SaveRequest{Images: []string{"hidden/app:1"}}, tarport.NameUnknown},
		{"one of them hidden", SaveRequest{Images: []string{"team/app:2", "hidden/app:1"}}, tarport.NameUnknown},
		{"another format", SaveRequest{Images: []string{"team/app:1"}, Format: "zip"}, tarport.Invalid},
		{"another compression", SaveRequest{Images: []string{"team/app:1"}, Compression: "zstd"}, tarport.Invalid},
		{"too many manifests", SaveRequest{Images: []string{"team/app:1"}}, tarport.TooLarge},
	} {
		if _, err := reg.Save(t.Context(), c.q); tarport.ErrorCode(err) != c.code {
			t.Errorf("%s: Save = %v, want %s", c.name, err, c.code)
		}
	}
}

// loadAs loads into a registry that allows nothing but pulls.
func loadAs(t *testing.T, reg *registry, archive []byte) {
	t.Helper()
	o := reg.o
	o.Access, o.Limits = access(allowAll), Limits{}
	s, err := New(o)
	if err == nil {
		_, err = s.Load(t.Context(), bytes.NewReader(archive), request())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSaveTurnsZstdIntoGzip: the image keeps its ID and its layers' diffIDs, in
// every form, and what is gzip already is not touched.
func TestSaveTurnsZstdIntoGzip(t *testing.T) {
	t.Parallel()
	for _, known := range []string{"made on the way", "known here", "known elsewhere", "known to others"} {
		t.Run(known, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			l := newLayout()
			index := multi(l, zst, "amd64", "arm64")
			reg.mustLoad(t, l.pack())
			layer := layerOf("for amd64")
			want := sum(gz(layer)) // which is not as we compress it
			if known != "made on the way" {
				ns := map[string]string{"known here": "team", "known elsewhere": "other", "known to others": "hidden"}[known]
				l := newLayout()
				reg.mustLoad(t, l.root(l.image("amd64", layer), ns+"/gz:1").pack(), func(q *LoadRequest) { q.Namespace = ns })
			}
			reg.o.Access = access(func(_ tarport.Principal, _ tarport.Action, repository string) error {
				if strings.HasPrefix(repository, "hidden/") {
					return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", repository)
				}
				return nil
			})
			archive := reg.savedBytes(t, SaveRequest{Images: []string{"team/app:1"}, Compression: "gzip"})
			files := entries(t, archive)
			for name, b := range files {
				if bytes.HasPrefix(b, zst(nil)[:4]) {
					t.Errorf("%s is zstd", name)
				}
			}
			if got, want := files[blobName(want)] != nil, known == "known here" || known == "known elsewhere"; got != want {
				t.Errorf("the known layer is used: %v, want %v", got, want)
			}
			if n := len(indexOf(t, files).Manifests); n != 1 || indexOf(t, files).Manifests[0].Digest == index.Digest {
				t.Errorf("index.json = %s, want one entry with another digest than %s", files[indexName], index.Digest)
			}
			im := newRegistry(t).mustLoad(t, archive).Images[0]
			if len(im.Manifests) != 2 || len(im.Warnings) > 0 {
				t.Fatalf("loaded again it is %+v, want two platforms and no attestation", im)
			}
			for i, a := range []string{"amd64", "arm64"} {
				m := im.Manifests[i]
				if m.ImageID != sum(configOf(a, layerOf("for "+a))).String() || m.Layers[0].DiffID != sum(layerOf("for "+a)) {
					t.Errorf("loaded again the image for %s is %+v", a, m)
				}
			}
			d, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}, Compression: "gzip"})
			if err != nil || len(d.Warnings) == 0 {
				t.Errorf("Save = %v, %v, want warnings about other digests", d, err)
			}
		})
	}
}

// TestSaveKeepsGzipAsItIs: compression=gzip changes nothing where nothing is
// zstd.
func TestSaveKeepsGzipAsItIs(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	multi(l, gz1, "amd64", "arm64")
	reg.mustLoad(t, l.pack())
	q := SaveRequest{Images: []string{"team/app:1"}}
	plain := reg.savedBytes(t, q)
	q.Compression = "gzip"
	if !bytes.Equal(reg.savedBytes(t, q), plain) {
		t.Error("the archive is another one")
	}
}

// TestSaveOfABrokenZstdLayer: nothing is sent of what does not unpack.
func TestSaveOfABrokenZstdLayer(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	multi(l, zst, "amd64")
	res := reg.mustLoad(t, l.pack())
	digest := res.Images[0].Manifests[0].Layers[0].Digest
	file := reg.root + "/docker/registry/v2/blobs/sha256/" + digest.Encoded()[:2] + "/" + digest.Encoded() + "/data"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}, Compression: "gzip"})
	if tarport.ErrorCode(err) != tarport.Conflict || !strings.Contains(err.Error(), "zstd compression is broken") {
		t.Errorf("Save = %v, want CONFLICT", err)
	}
}

// TestTarHeaders: names and sizes that ustar has no room for.
func TestTarHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		size int64
		len  int
	}{
		{"oci-layout", 30, 512},
		{"blobs/sha256/", 0, 512},
		{blobName(sum(nil)), 8<<30 - 1, 512},
		{blobName(sum(nil)), 8 << 30, 1536},
		{blobName(digest.SHA512.FromBytes(nil)), 5, 1536},
	} {
		b, err := tarHeader(c.name, c.size)
		if err != nil || len(b) != c.len {
			t.Fatalf("tarHeader(%s, %d) has %d bytes (%v), want %d", c.name, c.size, len(b), err, c.len)
		}
		h, err := tar.NewReader(bytes.NewReader(b)).Next()
		if err != nil || h.Name != c.name || h.Size != c.size {
			t.Errorf("the header of %s with %d bytes reads as %+v, %v", c.name, c.size, h, err)
		}
	}
}

// TestSaveIsTheSameFromEveryRegistry: a download can go on at another replica,
// and after the tag has moved it is another one.
func TestSaveIsTheSameFromEveryRegistry(t *testing.T) {
	t.Parallel()
	one, two := docker("a:1", layerOf("x"), layerOf("y")).pack(), docker("b:1", layerOf("y"), layerOf("z")).pack()
	here, there := newRegistry(t), newRegistry(t)
	here.mustLoad(t, one)
	here.mustLoad(t, two)
	there.mustLoad(t, two)
	there.mustLoad(t, one)
	q := SaveRequest{Images: []string{"team/a:1", "team/b:1"}}
	if !bytes.Equal(here.savedBytes(t, q), there.savedBytes(t, q)) {
		t.Error("two registries with the same images give other archives")
	}
	before, err := here.Save(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := there.Save(t.Context(), q); err != nil || d.ETag != before.ETag {
		t.Errorf("the ETags are %s and %s (%v)", before.ETag, d.ETag, err)
	}
	here.mustLoad(t, docker("a:1", layerOf("other")).pack())
	if d, err := here.Save(t.Context(), q); err != nil || d.ETag == before.ETag {
		t.Errorf("the ETag is %s before and after the tag has moved (%v)", before.ETag, err)
	}
}

// TestSaveBoundsWhatItUnpacks: a zstd layer that was pushed can be a bomb.
func TestSaveBoundsWhatItUnpacks(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, func(o *Options) { o.Limits.Layer = 1 << 20 })
	bomb := pack(text("zeros", strings.Repeat("\x00", 2<<20)))
	push(t, reg, "team/bomb", "1", configOf("amd64", bomb), zst(bomb))
	_, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/bomb:1"}, Compression: "gzip"})
	if tarport.ErrorCode(err) != tarport.TooLarge || !strings.Contains(err.Error(), "unpacks to more than") {
		t.Errorf("Save = %v, want TOO_LARGE", err)
	}
}

func TestSaveWaitsForAPlaceToPackIn(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	multi(l, zst, "amd64")
	reg.mustLoad(t, l.pack())
	reg.packing = places.New(places.Options{Places: 1, Queue: 2, Wait: time.Millisecond, Busy: "layers are being packed anew"})
	leave, err := reg.packing.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	q := SaveRequest{Images: []string{"team/app:1"}, Compression: "gzip"}
	if _, err := reg.Save(t.Context(), q); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("Save with all places taken = %v, want UNAVAILABLE", err)
	}
	leave()
	reg.savedBytes(t, q)
}

// TestSavesAreBoundedTogether: what they hold of manifests while they are sent, or
// made, and what ends gives all of it back.
func TestSavesAreBoundedTogether(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	multi(l, zst, "amd64", "arm64")
	reg.mustLoad(t, l.pack())
	q := SaveRequest{Images: []string{"team/app:1"}}
	reg.saves = places.NewRoom(1<<20, "saves")
	one := reg.saves.Enter(tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1}))
	open, err := reg.Save(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = one.Take(1 << 10)
	}
	for range 2 { // the first must leave nothing behind
		if _, err := reg.Save(t.Context(), q); tarport.ErrorCode(err) != tarport.Unavailable || !strings.Contains(err.Error(), "saves") {
			t.Errorf("Save where others have all memory = %v, want UNAVAILABLE", err)
		}
	}
	open.Close()
	second, err := reg.Save(t.Context(), q)
	if err != nil {
		t.Fatalf("Save where another has ended: %v", err)
	}
	second.Close()
	one.Leave()
	if err := reg.saves.Enter(tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1})).Take(1 << 20); err != nil {
		t.Errorf("not all was given back: %v", err)
	}
}

// TestAGzipFormIsLearnedOnce, whoever comes at the same time; and by the next one
// where the first goes away.
func TestAGzipFormIsLearnedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c forms
		d, want := digest.FromString("x"), form{size: 7}
		_, first, err := c.learn(t.Context(), d)
		if err != nil || first == nil {
			t.Fatalf("learn = %v, want that it is to be learned", err)
		}
		user := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1})
		if _, done, err := c.learn(user, d); err != nil || done == nil { // does not wait for a stranger
			t.Fatalf("learn = %v, want that who is logged in learns it too", err)
		} else {
			done()
		}
		gone, leave := context.WithCancel(t.Context())
		var errs [8]error
		var learned atomic.Int32
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				ctx := t.Context()
				if i == 0 {
					ctx = gone
				}
				f, done, err := c.learn(ctx, d)
				errs[i] = err
				if done != nil {
					learned.Add(1)
					c.put(d, want)
					done()
				} else if err == nil && f != want {
					t.Errorf("learn = %+v, want %+v", f, want)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		first() // it has failed
		wg.Wait()
		if err := errors.Join(errs[1:]...); !errors.Is(errs[0], context.Canceled) || err != nil || learned.Load() != 1 || len(c.learning) != 0 {
			t.Errorf("%d have learned it, errors %v and %v; want one, who left, and none", learned.Load(), errs[0], err)
		}
	})
}
