package archive

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// commitFS commits a root file system over team/base:1, as team/app:2.
func (r *registry) commitFS(tb testing.TB, rootFS []byte, change ...func(*CommitRequest)) (*Result, error) {
	tb.Helper()
	q := CommitRequest{ImportRequest: ImportRequest{Repository: "team/app", Tag: "2"}, Base: "team/base:1"}
	for _, fn := range change {
		fn(&q)
	}
	return r.Commit(tb.Context(), bytes.NewReader(rootFS), q)
}

func (r *registry) mustCommit(tb testing.TB, rootFS []byte, change ...func(*CommitRequest)) Image {
	tb.Helper()
	res, err := r.commitFS(tb, rootFS, change...)
	if err != nil {
		tb.Fatalf("Commit: %v", err)
	}
	if len(res.Images) != 1 {
		tb.Fatalf("Commit = %+v, want one image", res)
	}
	return res.Images[0]
}

// loadBase loads an image of these layers as team/base:1.
func (r *registry) loadBase(tb testing.TB, layers ...[]byte) Image {
	tb.Helper()
	return r.mustLoad(tb, docker("base:1", layers...).pack()).Images[0]
}

// treeOf is the file system of an image.
func (r *registry) treeOf(tb testing.TB, im Manifest) *layer.Tree {
	tb.Helper()
	var descs []ocispec.Descriptor
	var diffIDs []digest.Digest
	for _, l := range im.Layers {
		descs, diffIDs = append(descs, ocispec.Descriptor{Digest: l.Digest, Size: l.Size}), append(diffIDs, l.DiffID)
	}
	t, err := r.tree(tb.Context(), descs, diffIDs)
	if err != nil {
		tb.Fatalf("tree: %v", err)
	}
	return t
}

// paths are the names in a tree.
func paths(t *layer.Tree) (list []string) {
	for n := range t.Walk() {
		if n.Path != "." {
			list = append(list, n.Path)
		}
	}
	return list
}

// TestACommitReadsTheBaseOnceAndThenOnlyTheUpload has zeros where the layers of
// the base were, once they are known.
func TestACommitReadsTheBaseOnceAndThenOnlyTheUpload(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.loadBase(t, pack(text("a", "1")), pack(text("b", "2")))
	for i, c := range []struct {
		base   string
		export []byte
		want   []string
	}{
		{"team/base:1", pack(text("a", "1"), text("b", "2"), text("c", "3")), []string{"c"}},
		{"team/base:1", pack(text("a", "1"), text("b", "other")), []string{"b"}},
		{"team/app:0", pack(text("a", "1"), text("b", "2"), text("c", "3"), text("d", "4")), []string{"d"}}, // whose delta was indexed as it was made
	} {
		im := reg.mustCommit(t, c.export, func(q *CommitRequest) { q.Tag, q.Base = fmt.Sprint(i), c.base })
		top := im.Manifest
		top.Layers = top.Layers[len(top.Layers)-1:]
		if diff := cmp.Diff(c.want, paths(reg.treeOf(t, top))); diff != "" {
			t.Errorf("commit %d: the delta (-want +got):\n%s", i, diff)
		}
		for file, size := range reg.state(t) {
			isLayer := func(l Layer) bool { return strings.Contains(file, l.Digest.Encoded()) }
			if !slices.ContainsFunc(im.Layers, isLayer) {
				continue
			}
			if err := os.WriteFile(strings.TrimPrefix(file, "file "), make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestADamagedIndexIsMadeAgain(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	im := reg.loadBase(t, pack(text("a", "1"), text("b", "2")))
	export := pack(text("a", "1"), text("b", "2"), text("c", "3"))
	first := reg.mustCommit(t, export)
	x, err := reg.store.NewIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = x.Write([]byte("what a power failure left")); err == nil {
		err = x.Finish(t.Context(), im.Layers[0].DiffID)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again := reg.mustCommit(t, export); again.Layers[1] != (Layer{first.Layers[1].Digest, first.Layers[1].DiffID, first.Layers[1].Size, "exists"}) {
		t.Errorf("layers = %+v, want the first's %+v", again.Layers, first.Layers)
	}
}

func TestTheManifestOfACommitIsOfTheBasesKind(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	plain := pack(text("a", "1"))
	export := pack(text("a", "1"), text("b", "2"))
	l := newLayout()
	reg.mustLoad(t, l.root(l.image("amd64", plain), "docker.io/team/oci:1").pack())
	reg.push(t, "team/zstd", "1", configOf("amd64", plain), zst(plain))
	reg.loadBase(t, plain)
	for _, c := range []struct{ base, compression, manifest, layer string }{
		{"team/base:1", "", dockerManifest, dockerLayerGzip},
		{"team/base:1", uncompressed, dockerManifest, dockerLayer},
		{"team/base:1", zstded, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		{"team/oci:1", "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
		{"team/oci:1", uncompressed, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		{"team/zstd:1", "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
	} {
		im := reg.mustCommit(t, export, func(q *CommitRequest) { q.Base, q.Compression = c.base, c.compression })
		reg.pull(t, "team/app", tagRef("2"), im.Manifest)
		m, err := reg.store.Manifest(t.Context(), "team/app", tagRef("2"))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := parseDocument(m.Payload, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if got := doc.layers[1].MediaType; m.MediaType != c.manifest || got != c.layer {
			t.Errorf("over %s with compression=%s: %s with a layer of %s, want %s with %s", c.base, c.compression, m.MediaType, got, c.manifest, c.layer)
		}
		if got := paths(reg.treeOf(t, im.Manifest)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("over %s: files %v", c.base, got)
		}
	}
}

func TestCommitOverAnImageOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	load := func(name string, architectures ...string) {
		l := newLayout()
		reg.mustLoad(t, l.root(multi(l, gz, architectures...), "docker.io/team/"+name+":1").pack())
	}
	load("with", "arm64", "amd64")
	load("without", "arm64", "riscv64")
	load("one", "arm64")
	for _, c := range []struct{ base, platform, want, refused string }{
		{base: "with", want: "linux/amd64"},
		{base: "with", platform: "linux/arm64/v8", want: "linux/arm64"},
		{base: "without", refused: "linux/arm64, linux/riscv64"},
		{base: "without", platform: "riscv64", want: "linux/riscv64"},
		{base: "one", want: "linux/arm64"},
		{base: "one", platform: "linux/amd64", refused: "only linux/arm64"},
		{base: "one", platform: "a/b/c/d", refused: "platform"},
	} {
		res, err := reg.commitFS(t, pack(text("new", "1")), func(q *CommitRequest) {
			q.Base, q.Platform, q.Force = "team/"+c.base+":1", c.platform, true
		})
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) || tarport.ErrorCode(err) == tarport.Internal {
				t.Errorf("%+v: error = %v", c, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", c, err)
		case res.Images[0].Platform != c.want:
			t.Errorf("%+v: platform = %s", c, res.Images[0].Platform)
		}
	}
}

func TestTheConfigOfACommit(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	plain := pack(text("a", "1"))
	config := fmt.Sprintf(`{"architecture":"arm64","variant":"v8","os":"linux","os.version":"1.2","os.features":["x"],"author":"Base","comment":"base","docker_version":"1",
		"container_config":{"Cmd":["x"]},"vendor":1,"created":"2020-01-01T00:00:00Z","history":[{"created":"2020-01-01T00:00:00Z","created_by":"ADD","vendor":"kept"}],
		"rootfs":{"type":"layers","diff_ids":["%s"]},"config":{"Env":["A=1","B=2"],"Cmd":["run"],"Entrypoint":null,"OnBuild":["RUN x"],"Shell":["/bin/x"],"Labels":{"a":"1"},
		"Healthcheck":{"Test":["CMD","x"],"Interval":5}}}`, sum(plain))
	reg.mustLoad(t, docker("base:1", plain).setConfig([]byte(config)).pack())
	im := reg.mustCommit(t, pack(text("a", "1"), text("b", "2")), func(q *CommitRequest) {
		q.Message, q.Author, q.CreatedBy = "fix: the b", "Ann <ann@example.com>", "sleep 1000"
		q.Changes = []string{"ENV A=changed C=$B", "LABEL b=2", "HEALTHCHECK NONE", "CMD []"}
	})
	got := decoded(t, reg.config(t, "team/app", im))
	want := decoded(t, fmt.Appendf(nil, `{"architecture":"arm64","variant":"v8","os":"linux","os.version":"1.2","os.features":["x"],"author":"Ann <ann@example.com>","created":%q,
		"history":[{"created":"2020-01-01T00:00:00Z","created_by":"ADD","vendor":"kept"},{"created":%[1]q,"created_by":"sleep 1000","author":"Ann <ann@example.com>","comment":"fix: the b"}],
		"rootfs":{"type":"layers","diff_ids":["%s","%s"]},"config":{"Env":["A=changed","B=2","C=2"],"Cmd":["run"],"Labels":{"a":"1","b":"2"},
		"Healthcheck":{"Test":["NONE"],"Interval":5}}}`, got["created"], sum(plain), im.Layers[1].DiffID))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	var via string
	if err := reg.sql.QueryRowContext(t.Context(), `SELECT pushed_via FROM manifests WHERE digest = $1`, im.Digest.String()).Scan(&via); err != nil || via != "commit" {
		t.Errorf("the manifest came by %q, %v, want commit", via, err)
	}
}

func TestCommitOfWhatDidNotChange(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	plain := pack(text("a", "1"))
	base := reg.loadBase(t, plain)
	im := reg.mustCommit(t, plain, func(q *CommitRequest) { q.Message = "nothing" })
	reg.pull(t, "team/app", tagRef("2"), im.Manifest)
	history := decoded(t, reg.config(t, "team/app", im))["history"].([]any)
	last := history[len(history)-1].(map[string]any)
	if len(im.Layers) != 1 || im.Layers[0].Digest != base.Layers[0].Digest || last["empty_layer"] != true || last["comment"] != "nothing" {
		t.Errorf("layers %+v, history %v, want the base's layer and an item of no layer", im.Layers, history)
	}
}

func TestCommitOverABaseWithoutLayers(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("base:1").pack())
	im := reg.mustCommit(t, pack(text("a", "1")))
	if got := paths(reg.treeOf(t, im.Manifest)); len(im.Layers) != 1 || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%d layers with %v", len(im.Layers), got)
	}
}

func TestCommitsThatAreRefused(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			if repository == "secret/base" || a == tarport.Push && repository == "team/readonly" {
				return tarport.Errorf(tarport.NameUnknown, "there is no repository %s", repository)
			}
			return nil
		})
	})
	reg.loadBase(t, pack(text("a", "1"), text("b", "2"), text("c", "3"), text("d", "4"), text("e", "5")))
	artifact := newLayout()
	reg.mustLoad(t, artifact.root(artifact.manifest(artifact.blob("application/vnd.example+json", []byte("{}"))), "docker.io/team/artifact:1").pack())
	windows := pack(text("Files/x", "1"))
	config := strings.Replace(string(configOf("amd64", windows)), `"os":"linux"`, `"os":"windows"`, 1)
	reg.mustLoad(t, docker("windows:1", windows).setConfig([]byte(config)).pack())
	good := pack(text("a", "1"), text("b", "2"), text("c", "3"))
	before := reg.state(t)
	for name, c := range map[string]struct {
		body   []byte
		change func(*CommitRequest)
		code   tarport.Code
		words  string
	}{
		"no base":               {good, func(q *CommitRequest) { q.Base = "" }, tarport.Invalid, "base="},
		"a base that is none":   {good, func(q *CommitRequest) { q.Base = "team/Base:1" }, tarport.NameInvalid, "base=team/Base:1"},
		"an unknown base":       {good, func(q *CommitRequest) { q.Base = "team/base:9" }, tarport.ManifestUnknown, "team/base:9"},
		"a hidden base":         {good, func(q *CommitRequest) { q.Base = "secret/base:1" }, tarport.NameUnknown, ""},
		"an artifact":           {good, func(q *CommitRequest) { q.Base = "team/artifact:1" }, tarport.Invalid, "artifact"},
		"an image of Windows":   {good, func(q *CommitRequest) { q.Base = "team/windows:1" }, tarport.Invalid, "Windows"},
		"no repository":         {good, func(q *CommitRequest) { q.Repository = "" }, tarport.Invalid, "repo="},
		"no right to push":      {good, func(q *CommitRequest) { q.Repository = "team/readonly" }, tarport.NameUnknown, ""},
		"a change":              {good, func(q *CommitRequest) { q.Changes = []string{"RUN x"} }, tarport.Invalid, "RUN is not a valid change command"},
		"a compression":         {good, func(q *CommitRequest) { q.Compression = "xz" }, tarport.Invalid, "compression"},
		"a message of zeros":    {good, func(q *CommitRequest) { q.CreatedBy = "\x00" }, tarport.Invalid, "UTF-8"},
		"a size over the limit": {good, func(q *CommitRequest) { q.Size = 1 << 50 }, tarport.TooLarge, "at most"},
		"another base": {
			pack(text("a", "1"), text("b", "2"), text("z", "9")), nil, tarport.Conflict, "of the 5 files in team/base:1 only 2 are in",
		},
		"nothing":           {nil, nil, tarport.ArchiveInvalid, "empty"},
		"no tar":            {[]byte(noise(9000)), nil, tarport.ArchiveInvalid, "no tar header"},
		"a cut one":         {good[:1540], nil, tarport.ArchiveInvalid, "cut off"},
		"one without end":   {good[:len(good)-1024], nil, tarport.ArchiveInvalid, "no end"},
		"a cut compression": {gz(good)[:60], nil, tarport.ArchiveInvalid, "ends early"},
		"two of them":       {append(bytes.Clone(good), good...), nil, tarport.ArchiveInvalid, "data after its end"},
		"a whiteout":        {pack(text("a", "1"), text("etc/.wh.keep", "")), nil, tarport.ArchiveInvalid, "etc/.wh.keep"},
		"a loose hard link": {pack(text("a", "1"), hardlink("b", "x")), nil, tarport.ArchiveInvalid, "hard link"},
		"a hard link later": {pack(hardlink("b", "a"), text("a", "1")), nil, tarport.ArchiveInvalid, "hard link"},
		"a long path":       {pack(text(strings.Repeat("d/", 3000)+"x", "1")), nil, tarport.ArchiveInvalid, "6001 bytes"},
		"an image archive":  {docker("x:1", layerOf("x")).pack(), nil, tarport.ArchiveInvalid, "archives/load"},
	} {
		res, err := reg.commitFS(t, c.body, func(q *CommitRequest) {
			if c.change != nil {
				c.change(q)
			}
		})
		if tarport.ErrorCode(err) != c.code || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s: Commit = %+v, %v, want %s with %q", name, res, err, c.code, c.words)
		}
	}
	// The indexes of the bases may have been made: they are a cache.
	after := reg.state(t)
	for k := range after {
		if strings.Contains(k, "/tarport/layers/") {
			delete(after, k)
		}
	}
	delete(after, "rows of diff_ids")
	delete(before, "rows of diff_ids")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
	reg.mustCommit(t, pack(text("a", "1"), text("z", "9")), func(q *CommitRequest) { q.Force = true })
}

// push makes an image visible as a push does: nobody has looked into its layers.
func (r *registry) push(tb testing.TB, repository, tag string, config []byte, layers ...[]byte) {
	tb.Helper()
	l := newLayout()
	var descs []ocispec.Descriptor
	for _, b := range layers {
		descs = append(descs, l.blob(ocispec.MediaTypeImageLayerGzip, b))
	}
	d := l.manifest(l.blob(ocispec.MediaTypeImageConfig, config), descs...)
	b, err := r.store.NewBatch(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Close()
	put := storage.ManifestPut{Repository: repository, MediaType: d.MediaType, Payload: l.blobs["blobs/sha256/"+d.Digest.Encoded()], Tags: []string{tag}, Via: storage.ViaPush}
	for _, blob := range append(layers, config) {
		w, err := b.Create(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(blob); err != nil {
			tb.Fatal(err)
		}
		desc, err := w.Finish()
		if err != nil {
			tb.Fatal(err)
		}
		put.Blobs = append(put.Blobs, storage.BlobLink{Descriptor: desc})
	}
	if _, err := b.Commit(tb.Context(), []storage.ManifestPut{put}); err != nil {
		tb.Fatal(err)
	}
}

func TestCommitOverAnImageThatWasPushed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	plain := pack(text("a", "1"))
	for i, packed := range [][]byte{gz(plain), zst(plain), plain} {
		base := fmt.Sprintf("team/pushed:%d", i)
		reg.push(t, "team/pushed", fmt.Sprint(i), configOf("amd64", plain), packed)
		im := reg.mustCommit(t, pack(text("a", "1"), text("b", "2")), func(q *CommitRequest) { q.Base = base })
		reg.pull(t, "team/app", tagRef("2"), im.Manifest) // each layer by its real compression
		if im.Layers[0].Digest != sum(packed) {
			t.Errorf("the first layer = %+v, want the base's own", im.Layers[0])
		}
	}
	for name, layer := range map[string][]byte{"text": []byte("no layer"), "another layer": gz(pack(text("x", "1")))} {
		reg.push(t, "team/broken", "1", configOf("amd64", plain), layer)
		_, err := reg.commitFS(t, plain, func(q *CommitRequest) { q.Base = "team/broken:1" })
		if c := tarport.ErrorCode(err); c == "" || c.Status() >= 500 || !strings.Contains(err.Error(), "layer 1") {
			t.Errorf("over %s: Commit = %v, want an error about layer 1", name, err)
		}
	}
}

// TestABaseThatLiesAboutItsLayersShowsNothingOfOthers: the config of a pushed
// image is a claim. One that claims the diffID of a layer of somebody else would
// learn from the whiteouts what is in it.
func TestABaseThatLiesAboutItsLayersShowsNothingOfOthers(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	secret := pack(text("secret/key", "1"))
	im := reg.mustLoad(t, docker("secret:1", secret).pack()).Images[0]
	reg.treeOf(t, im.Manifest) // it has an index
	reg.push(t, "team/liar", "1", configOf("amd64", secret), gz(pack(text("mine", "1"))))
	_, err := reg.commitFS(t, pack(text("mine", "1")), func(q *CommitRequest) { q.Base = "team/liar:1" })
	if tarport.ErrorCode(err) != tarport.Conflict || !strings.Contains(err.Error(), "diffID") {
		t.Errorf("Commit = %v, want CONFLICT about the diffID", err)
	}
}

func TestTheProgressOfACommit(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.loadBase(t, pack(text("a", "1")))
	var got []Message
	im := reg.mustCommit(t, pack(text("a", "1"), text("b", "2")), func(q *CommitRequest) { q.Progress = func(m Message) { got = append(got, m) } })
	if len(got) < 2 || got[0].Status != "Comparing" || got[len(got)-1].Status != im.ImageID {
		t.Errorf("messages = %+v, want some of the comparison, and last the image's ID", got)
	}
}

// TestACommitIsChargedToTheNamespace: what is new is refused as it comes.
func TestACommitIsChargedToTheNamespace(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.loadBase(t, pack(text("a", "1")))
	quota := int64(4 << 20)
	if err := reg.db.UpdateNamespace(t.Context(), "team", metadata.NamespacePatch{Quota: &quota}); err != nil {
		t.Fatal(err)
	}
	before := reg.state(t)
	_, err := reg.commitFS(t, pack(text("a", "1"), text("big", noise(12<<20))))
	if tarport.ErrorCode(err) != tarport.Denied {
		t.Errorf("Commit = %v, want DENIED", err)
	}
	after := reg.state(t)
	maps.DeleteFunc(after, func(k string, _ int64) bool { return strings.Contains(k, "/tarport/layers/") })
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}

func TestACommitWarnsOfMoreLayersThanDockerTakes(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	layers, export := [][]byte{}, []entry{}
	for i := range dockerLayers {
		e := text(fmt.Sprintf("%03d", i), "x")
		layers, export = append(layers, pack(e)), append(export, e)
	}
	reg.loadBase(t, layers...)
	if im := reg.mustCommit(t, pack(export...)); len(im.Warnings) != 0 {
		t.Errorf("warnings = %v of %d layers", im.Warnings, len(im.Layers))
	}
	im := reg.mustCommit(t, pack(append(export, text("new", "x"))...))
	if len(im.Warnings) != 1 || !strings.Contains(im.Warnings[0], "126 layers") {
		t.Errorf("warnings = %v of %d layers", im.Warnings, len(im.Layers))
	}
}

// TestCommitsOfManyFilesShareTheMemory: one that is large is told to come again
// where others are.
func TestCommitsOfManyFilesShareTheMemory(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.loadBase(t, pack(text("a", "1")))
	others := &committing{s: reg.Service}
	if err := others.hold(maxPaths); err != nil {
		t.Fatalf("hold = %v of one that is alone", err)
	}
	large := &committing{s: reg.Service}
	if err := large.hold(freePaths); err != nil {
		t.Errorf("hold = %v of what is free", err)
	}
	if err := large.hold(freePaths + 1); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("hold = %v, want UNAVAILABLE", err)
	}
	reg.mustCommit(t, pack(text("a", "1"), text("b", "2"))) // small ones go on
	if got, want := reg.paths.Load(), int64(maxPaths+freePaths+1); got != want {
		t.Errorf("%d paths are held after a commit, want %d as before", got, want)
	}
}
