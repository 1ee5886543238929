package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

func TestPlainLayersGetTheCompressionAskedFor(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	layer := pack(text("a", strings.Repeat("compress me ", 500_000))) // six blocks of gzip
	body := docker("a/b:1", layer, layerOf("second")).pack()
	for _, c := range []struct{ compression, mediaType, layerType string }{
		{"", dockerManifest, dockerLayerGzip},
		{"gzip", dockerManifest, dockerLayerGzip},
		{"none", dockerManifest, dockerLayer},
		{"zstd", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
	} {
		res := reg.mustLoad(t, body, func(q *LoadRequest) { q.Compression = c.compression })
		im := imageNamed(t, res, "team/a/b:1")
		if im.MediaType != c.mediaType {
			t.Errorf("compression=%s: manifest = %s, want %s", c.compression, im.MediaType, c.mediaType)
		}
		if diff := cmp.Diff([]digest.Digest{sum(layer), sum(layerOf("second"))}, diffIDs(im.Manifest)); diff != "" {
			t.Errorf("compression=%s: diffIDs (-want +got):\n%s", c.compression, diff)
		}
		if im.ImageID != sum(configOf("amd64", layer, layerOf("second"))).String() || im.Platform != "linux/amd64" {
			t.Errorf("compression=%s: image %s on %s", c.compression, im.ImageID, im.Platform)
		}
		m, err := reg.store.Manifest(t.Context(), "team/a/b", tagRef("1"))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(m.Payload), `"`+c.layerType+`"`); n != 2 {
			t.Errorf("compression=%s: %s has %d layers of the type %s, want 2", c.compression, m.Payload, n, c.layerType)
		}
		reg.pull(t, "team/a/b", tagRef("1"), im.Manifest)
	}
}

func TestTheSameLayerGivesTheSameBlobEverywhere(t *testing.T) {
	t.Parallel()
	body := docker("a/b:1", pack(text("a", noise(2<<20)))).pack()
	one, two := newRegistry(t).mustLoad(t, body), newRegistry(t).mustLoad(t, gz(body))
	if diff := cmp.Diff(one.Images, two.Images); diff != "" {
		t.Errorf("two registries made two images (-one +two):\n%s", diff)
	}
}

func TestLayersThatAreCompressedAlready(t *testing.T) {
	t.Parallel()
	plain := readPlain(t)
	for _, c := range []struct {
		file, want string
		kept       bool
	}{
		{"layer.tar.gz", gzipped, true}, {"layer.tar.zst", zstded, true}, {"layer.tar.xz", gzipped, false}, {"layer.tar.bz2", gzipped, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			stored := readFile(t, "testdata/layers", c.file)
			d := docker("a/b:1", plain)
			// A name that lies about the compression: it is not asked.
			d.files["x.tar.gz"] = stored
			delete(d.files, d.layer(0))
			d.items[0]["Layers"] = []string{"x.tar.gz"}
			im := imageNamed(t, reg.mustLoad(t, d.pack()), "team/a/b:1")
			got := im.Layers[0]
			if got.DiffID != sum(plain) || (got.Digest == sum(stored)) != c.kept {
				t.Errorf("layer = %+v, want the diffID %s; kept as it is: %v", got, sum(plain), c.kept)
			}
			known, err := reg.store.KnownLayers(t.Context(), sum(plain))
			if want := []metadata.Layer{{DiffID: sum(plain), Digest: got.Digest, Size: got.Size, Compression: c.want}}; err != nil || !cmp.Equal(known, want) {
				t.Errorf("KnownLayers = %v, %v, want %v", known, err, want)
			}
			reg.pull(t, "team/a/b", tagRef("1"), im.Manifest)
		})
	}
}

// readPlain is the layer of testdata/layers, which xz, bzip2, gzip and zstd
// have compressed.
func readPlain(tb testing.TB) []byte {
	tb.Helper()
	return readFile(tb, "testdata/layers", "layer.tar")
}

func TestALayerThatIsKnownIsOnlyVerified(t *testing.T) {
	t.Parallel()
	layer := layerOf("known")
	stored := metadata.Layer{DiffID: sum(layer), Digest: sum([]byte("blob")), Size: 4, Compression: gzipped}
	for _, path := range []string{"%s.tar", "%s/layer.tar", "blobs/sha256/%s", "%s"} {
		st := &fakeStore{known: map[digest.Digest][]metadata.Layer{sum(layer): {stored}}}
		var created atomic.Int32
		st.fail = func(op string) error {
			if op == "create" {
				created.Add(1)
			}
			return nil
		}
		s := newFakeService(t, st)
		at := func(body []byte, name digest.Digest) []byte {
			d := docker("a/b:1", body)
			p := fmt.Sprintf(path, name.Encoded())
			d.files[p] = body
			delete(d.files, d.layer(0))
			d.items[0]["Layers"] = []string{p}
			return d.pack()
		}
		q := request(func(q *LoadRequest) { q.Compression = gzipped })
		res, err := s.Load(t.Context(), bytes.NewReader(at(layer, sum(layer))), q)
		if err != nil {
			t.Fatalf("Load with %s: %v", path, err)
		}
		if got, want := res.Images[0].Layers[0], (Layer{stored.Digest, sum(layer), 4, "exists"}); got != want {
			t.Errorf("layer at %s = %+v, want %+v", path, got, want)
		}
		if n := created.Load(); n != 1 {
			t.Errorf("%d blobs were written for %s, want the config only", n, path)
		}
		if l := st.puts[0].Blobs[1]; l.Descriptor.Digest != stored.Digest || l.DiffID != sum(layer) || l.Compression != gzipped {
			t.Errorf("link of %s = %+v, want one to %+v", path, l, stored)
		}
		// A name that lies must not smuggle other bytes in, nor bring known ones.
		_, err = s.Load(t.Context(), bytes.NewReader(at(layerOf("another"), sum(layer))), q)
		if tarport.ErrorCode(err) != tarport.ArchiveInvalid {
			t.Errorf("Load of a lie at %s = %v, want ARCHIVE_INVALID", path, err)
		}
		st.checkClean(t)
	}
}

func TestALayerThatIsKnownInAnotherCompressionIsCompressed(t *testing.T) {
	t.Parallel()
	layer := layerOf("known")
	st := &fakeStore{known: map[digest.Digest][]metadata.Layer{sum(layer): {{DiffID: sum(layer), Digest: sum([]byte("blob")), Size: 4, Compression: zstded}}}}
	s := newFakeService(t, st)
	d := docker("a/b:1", layer)
	p := sum(layer).Encoded() + ".tar"
	d.files[p] = layer
	delete(d.files, d.layer(0))
	d.items[0]["Layers"] = []string{p}
	res, err := s.Load(t.Context(), bytes.NewReader(d.pack()), request())
	if err != nil {
		t.Fatal(err)
	}
	if l := st.puts[0].Blobs[1]; l.Compression != gzipped || res.Images[0].MediaType != dockerManifest {
		t.Errorf("link = %+v in a %s, want gzip in Docker's", l, res.Images[0].MediaType)
	}
}

func TestLoadingAgainStoresNothing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for _, file := range []string{"skopeo/docker-archive.tar", "docker28/save-multi.tar", "docker29/save-multiarch.tar", "docker20/duplicate-layer.tar"} {
		body := fixtureNamed(t, file)
		first := reg.mustLoad(t, body)
		if first.BytesRead != int64(len(body)) {
			t.Errorf("%s: bytes_read = %d, want %d", file, first.BytesRead, len(body))
		}
		again := reg.mustLoad(t, body, func(q *LoadRequest) { q.Namespace = "other" })
		if again.BytesStored != 0 {
			t.Errorf("%s: bytes_stored of the second load = %d, want 0", file, again.BytesStored)
		}
		for _, im := range again.Images {
			for _, l := range im.Layers {
				if l.Status != "exists" {
					t.Errorf("%s: layer %s of the second load is %s, want exists", file, l.Digest, l.Status)
				}
			}
			repository, tag, _ := strings.Cut(im.Name, ":")
			reg.pull(t, repository, tagRef(tag), im.Manifest)
		}
	}
}

func TestLinksAreFollowedInsideTheArchive(t *testing.T) {
	t.Parallel()
	layer := layerOf("x")
	d := docker("a/b:1", layer, layer)
	p, q := d.layer(0), d.layer(1)
	delete(d.files, p)
	delete(d.files, q)
	chain := []entry{symlink(p, "../l9"), symlink("l9", "/l8"), hardlink("l8", "./l7")} // links before their target, of every kind
	for i := 7; i > 1; i-- {
		chain = append(chain, symlink(fmt.Sprint("l", i), fmt.Sprint("l", i-1)))
	}
	d.extra = append(chain, reg("l1", layer), hardlink(q, "l1"))
	im := imageNamed(t, newRegistry(t).mustLoad(t, d.pack()), "team/a/b:1")
	if diff := cmp.Diff([]digest.Digest{sum(layer), sum(layer)}, diffIDs(im.Manifest)); diff != "" {
		t.Errorf("diffIDs (-want +got):\n%s", diff)
	}
}

func TestEqualLayersBecomeOneBlob(t *testing.T) {
	t.Parallel()
	layer := layerOf("x")
	st := &fakeStore{}
	s := newFakeService(t, st)
	if _, err := s.Load(t.Context(), bytes.NewReader(docker("a/b:1", layer, layer, layer).pack()), request()); err != nil {
		t.Fatal(err)
	}
	if len(st.blobs) != 2 || len(st.puts[0].Blobs) != 4 {
		t.Errorf("%d blobs and %d links, want 2 and 4", len(st.blobs), len(st.puts[0].Blobs))
	}
}

func TestOddButGoodLayers(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	whole := pack(text("a", "x"), entry{name: "d/", typ: tar.TypeDir}, symlink("/abs", "/etc/passwd"), text("../up", "x"), hardlink("h", "a"),
		entry{name: "fifo", typ: tar.TypeFifo}, entry{name: "dev", typ: tar.TypeChar}, entry{name: "blk", typ: tar.TypeBlock},
		entry{name: "pax", pax: map[string]string{"SCHILY.xattr.user.x": "y"}}, text(strings.Repeat("long/", 60)+"x", "x"))
	for name, layer := range map[string][]byte{
		"zero bytes":       {},
		"docker's empty":   make([]byte, 1024),
		"no end":           whole[:len(whole)-1024],
		"half an end":      whole[:len(whole)-512],
		"lots of padding":  append(bytes.Clone(whole), make([]byte, 1<<20)...),
		"names and links":  whole,
		"global PAX":       pack(entry{name: "g", typ: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "git archive writes that"}}, text("a", "x")),
		"large first file": pack(text("a", noise(700<<10)), text("b", "y")),
	} {
		im := imageNamed(t, reg.mustLoad(t, docker("a/b:1", layer).pack()), "team/a/b:1")
		if got := im.Layers[0].DiffID; got != sum(layer) {
			t.Errorf("%s: diffID = %s, want %s", name, got, sum(layer))
		}
		reg.pull(t, "team/a/b", tagRef("1"), im.Manifest)
	}
}

func TestAbsentPlatformsAreNamedInWarnings(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	here, gone, partly := l.image("amd64", layerOf("x")), l.image("arm64", layerOf("y")), l.image("s390x", layerOf("z"))
	root := l.index(here, gone, partly)
	body := l.root(root, "a/b:1").drop(gone.Digest).drop(sum(gz(layerOf("z")))).pack()
	im := imageNamed(t, reg.mustLoad(t, body), "team/a/b:1")
	if im.Digest != root.Digest || len(im.Manifests) != 1 || im.Manifests[0].Digest != here.Digest {
		t.Errorf("image = %+v, want the index %s with %s", im, root.Digest, here.Digest)
	}
	if len(im.Warnings) != 2 || !strings.Contains(im.Warnings[0], "linux/arm64") || !strings.Contains(im.Warnings[1], "linux/s390x") {
		t.Errorf("warnings = %q, want one for arm64 and one for s390x", im.Warnings)
	}
	if _, err := reg.store.Manifest(t.Context(), "team/a/b", digestRef(partly.Digest)); tarport.ErrorCode(err) != tarport.ManifestUnknown {
		t.Errorf("Manifest of a platform without its layer = %v, want MANIFEST_UNKNOWN", err)
	}
	reg.pull(t, "team/a/b", digestRef(here.Digest), im.Manifests[0])
}

func TestArtifactsAndCachesAreKeptAsTheyAre(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	empty := ocispec.DescriptorEmptyJSON // its bytes are in the descriptor only
	blobs := []ocispec.Descriptor{
		l.blob("application/vnd.example.text", []byte("any text")), l.blob("application/vnd.example.nothing", nil),
		l.blob("application/vnd.example.xz", readFile(t, "testdata/layers", "layer.tar.xz")),
		l.blob("application/vnd.example.broken-gzip", append([]byte{0x1f, 0x8b, 8}, noise(900)...)),
		l.blob("application/vnd.example.large", []byte(noise(5<<20))), l.blob("application/vnd.example.tar", layerOf("x")),
	}
	artifact := l.manifest(empty, blobs...)
	cache := l.index(l.blob(ocispec.MediaTypeImageLayerGzip, gz(layerOf("y"))), l.blob("application/vnd.buildkit.cacheconfig.v0", []byte("{}")))
	res := reg.mustLoad(t, l.root(artifact, "a/artifact:1").root(cache, "a/cache:1").pack())
	for name, d := range map[string]ocispec.Descriptor{"artifact": artifact, "cache": cache} {
		im := imageNamed(t, res, "team/a/"+name+":1")
		if im.Digest != d.Digest || im.ImageID != "" || len(im.Layers) != 0 {
			t.Errorf("%s = %+v, want the manifest %s and no image", name, im, d.Digest)
		}
		reg.pull(t, "team/a/"+name, tagRef("1"), im.Manifest)
	}
}

func TestForeignLayersNeedNotBeThere(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	base, own := layerOf("windows"), layerOf("x")
	foreign := ocispec.Descriptor{MediaType: dockerForeignGz, Digest: sum(gz(base)), Size: int64(len(gz(base))), URLs: []string{"http://127.0.0.1:1/never-fetched"}}
	m := l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf("amd64", base, own)), foreign, l.blob(ocispec.MediaTypeImageLayerGzip, gz(own)))
	im := imageNamed(t, reg.mustLoad(t, l.root(m, "a/b:1").pack()), "team/a/b:1")
	if im.Digest != m.Digest || len(im.Layers) != 1 || len(im.Warnings) != 1 {
		t.Errorf("image = %+v, want %s with one layer and a warning", im, m.Digest)
	}
}

func TestAManifestIsWrittenAnewOnlyWhereTheRequestSaysSo(t *testing.T) {
	t.Parallel()
	body := fixtureNamed(t, "docker28/save-single.tar")
	kept := imageNamed(t, newRegistry(t).mustLoad(t, body), "team/acme/kitchen-sink:all-config")
	for _, change := range []func(*LoadRequest, *Options){
		func(q *LoadRequest, _ *Options) { q.Compression = gzipped },
		func(_ *LoadRequest, o *Options) { o.Repack = true },
	} {
		var q LoadRequest
		var o Options
		change(&q, &o)
		reg := newRegistry(t, func(to *Options) { to.Repack = o.Repack })
		res := reg.mustLoad(t, body, func(to *LoadRequest) { to.Compression = q.Compression })
		im := imageNamed(t, res, "team/acme/kitchen-sink:all-config")
		if im.Digest == kept.Digest || im.MediaType != dockerManifest || im.Size >= kept.Size || len(im.Warnings) != 1 || !strings.Contains(im.Warnings[0], kept.Digest.String()) {
			t.Errorf("image = %+v, want a smaller one with a manifest of its own", im)
		}
		if im.ImageID != kept.ImageID || !cmp.Equal(diffIDs(im.Manifest), diffIDs(kept.Manifest)) {
			t.Errorf("image ID = %s, want %s and the same diffIDs", im.ImageID, kept.ImageID)
		}
		reg.pull(t, "team/acme/kitchen-sink", tagRef("all-config"), im.Manifest)
		again := reg.mustLoad(t, body, func(to *LoadRequest) { to.Compression = q.Compression })
		if again.BytesStored != 0 {
			t.Errorf("the second load stored %d bytes, want 0", again.BytesStored)
		}
	}
}

func TestAConfigThatIsNotWhatItsNameSays(t *testing.T) {
	t.Parallel()
	d := docker("a/b:1", layerOf("x"))
	name := d.config()
	d.files[name] = append(d.files[name], '\n') // somebody has edited it
	im := imageNamed(t, newRegistry(t).mustLoad(t, d.pack()), "team/a/b:1")
	if im.ImageID != sum(d.files[name]).String() || len(im.Warnings) != 1 {
		t.Errorf("image = %+v, want the ID of the bytes and a warning", im)
	}
}

func TestNothingIsReadWithoutTheRight(t *testing.T) {
	t.Parallel()
	denied := tarport.Errorf(tarport.Denied, "no")
	var asked []string
	reg := newRegistry(t, func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			asked = append(asked, string(a)+" "+repository)
			return denied
		})
	})
	unread := readerFunc(func([]byte) (int, error) {
		t.Error("the body was read")
		return 0, errors.New("read")
	})
	scoped := tarport.Principal{UserID: 1, Scope: []tarport.Grant{
		{Repository: "other/x", Actions: []tarport.Action{tarport.Push}},
		{Repository: "team/y", Actions: []tarport.Action{tarport.Pull}},
		{Repository: "team/z", Actions: []tarport.Action{tarport.Push}},
	}}
	for _, c := range []struct {
		p    tarport.Principal
		q    LoadRequest
		want string
	}{
		{tarport.Principal{}, request(), "push team/image"},
		{tarport.Principal{}, request(func(q *LoadRequest) { q.Repository = "acme/app" }), "push team/acme/app"},
		{scoped, request(), "push team/z"},
	} {
		asked = nil
		_, err := reg.Load(tarport.WithPrincipal(t.Context(), c.p), unread, c.q)
		if !errors.Is(err, denied) || len(asked) != 1 || asked[0] != c.want {
			t.Errorf("Load(%+v) = %v after asking %q, want DENIED after %q", c.q, err, asked, c.want)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestEachRepositoryIsAskedAbout(t *testing.T) {
	t.Parallel()
	var asked []string
	reg := newRegistry(t, func(o *Options) {
		o.Access = access(func(_ tarport.Principal, _ tarport.Action, repository string) error {
			asked = append(asked, repository)
			if repository == "team/a/secret" {
				return tarport.Errorf(tarport.Denied, "no")
			}
			return nil
		})
	})
	before := reg.state(t)
	body := docker("a/b:1", layerOf("x")).add("a/b:2", layerOf("y")).add("a/secret:1", layerOf("z")).pack()
	if _, err := reg.load(t, body); tarport.ErrorCode(err) != tarport.Denied {
		t.Errorf("Load = %v, want DENIED", err)
	}
	if diff := cmp.Diff([]string{"team/image", "team/a/b", "team/a/secret"}, asked); diff != "" {
		t.Errorf("asked about (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}

func TestWhoAndHowIsRecorded(t *testing.T) {
	t.Parallel()
	st := &fakeStore{}
	s := newFakeService(t, st)
	ctx := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 7, Name: "ann"})
	if _, err := s.Load(ctx, bytes.NewReader(docker("a/b:1", layerOf("x")).pack()), request()); err != nil {
		t.Fatal(err)
	}
	if p := st.puts[0]; p.By != "ann" || p.Via != "load" || p.Repository != "team/a/b" || !cmp.Equal(p.Tags, []string{"1"}) {
		t.Errorf("put = %+v, want ann's, by load, team/a/b:1", p)
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	t.Parallel()
	good := Options{Store: &fakeStore{}, Access: access(allowAll)}
	for name, change := range map[string]func(*Options){
		"no store":    func(o *Options) { o.Store = nil },
		"no access":   func(o *Options) { o.Access = nil },
		"compression": func(o *Options) { o.Compression = "lz4" },
		"window":      func(o *Options) { o.Limits.Window = 1 << 32 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("New with a wrong %s = nil, want an error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Errorf("New = %v", err)
	}
}

// TestMemoryStaysFlat loads a layer far larger than what may be in memory.
func TestMemoryStaysFlat(t *testing.T) {
	const size = 96 << 20
	s, err := New(Options{Store: nullStore{}, Access: access(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	body := bigArchive(size, bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	runtime.GC()
	before, peak := heap(), uint64(0)
	_, err = s.Load(t.Context(), body, request(func(q *LoadRequest) {
		q.Progress = func(Message) { peak = max(peak, heap()) }
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the heap grew by %d MiB while %d MiB passed", (peak-min(peak, before))>>20, size>>20)
	if peak == 0 || peak > before+48<<20 {
		t.Errorf("the heap grew from %d to %d bytes while %d passed, want at most 48 MiB more", before, peak, size)
	}
}
