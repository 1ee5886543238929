package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage/layer"
)

// countedStore counts the bytes that are written to blobs: those that
// compression, or a copy, has made.
type countedStore struct {
	Store
	written *atomic.Int64
}

func (s countedStore) NewBatch(ctx context.Context) (Batch, error) {
	b, err := s.Store.NewBatch(ctx)
	return countedBatch{b, s.written}, err
}

type countedBatch struct {
	Batch
	written *atomic.Int64
}

func (b countedBatch) Charge(namespace string) { b.Batch.(charger).Charge(namespace) }

func (b countedBatch) Create(ctx context.Context) (StagedBlob, error) {
	w, err := b.Batch.Create(ctx)
	return countedBlob{w, b.written}, err
}

type countedBlob struct {
	StagedBlob
	written *atomic.Int64
}

func (w countedBlob) Write(p []byte) (int, error) {
	w.written.Add(int64(len(p)))
	return w.StagedBlob.Write(p)
}

func newCounted(tb testing.TB) (*registry, *atomic.Int64) {
	tb.Helper()
	n := new(atomic.Int64)
	return newRegistry(tb, func(o *Options) { o.Store = countedStore{o.Store, n} }), n
}

// longLayer is a layer with one file of n bytes and, behind it, three times the
// word.
func longLayer(n int, word string) []byte {
	return pack(text("opt/long", noise(n)+strings.Repeat(word, 3)))
}

var compressions = []string{gzipped, zstded, uncompressed}

// TestALayerOfDockersOldNamesIsNotCompressedAgain loads what docker 20.10 wrote
// twice, whose names hide the diffIDs.
func TestALayerOfDockersOldNamesIsNotCompressedAgain(t *testing.T) {
	t.Parallel()
	nameless := map[string]bool{}
	bodies := map[string][]byte{"three layers": docker("a/b:1", longLayer(3*layer.PrefixStep+99, "x"), layerOf("short"), pack(text("exact", noise(layer.PrefixStep-1536)))).pack()}
	dir, list := fixtures(t)
	for _, f := range list {
		if strings.HasPrefix(f.File, "docker20/") {
			bodies[f.File], nameless[f.File] = f.read(t, dir), f.nameless()
		}
	}
	if len(bodies) < 8 {
		t.Fatalf("%d archives of docker 20.10, want all of them", len(bodies))
	}
	for name, body := range bodies {
		for _, compression := range compressions {
			t.Run(name+" "+compression, func(t *testing.T) {
				t.Parallel()
				reg, written := newCounted(t)
				into := func(namespace string) *Result {
					return reg.mustLoad(t, body, func(q *LoadRequest) {
						q.Namespace, q.Compression = namespace, compression
						if nameless[name] {
							q.Repository = namespace + "/fallback"
						}
					})
				}
				first := into("team")
				written.Store(0)
				again := into("other")
				var configs int64
				seen := map[string]bool{}
				for i, im := range again.Images {
					repository, _, _ := strings.Cut(im.Name, "@")
					repository, _, _ = strings.Cut(repository, ":")
					reg.pull(t, repository, digestRef(im.Digest), im.Manifest)
					if im.Digest != first.Images[i].Digest {
						t.Errorf("%s is %s now, was %s", im.Name, im.Digest, first.Images[i].Digest)
					}
					for _, l := range im.Layers {
						if l.Status != "exists" {
							t.Errorf("layer %s of %s is %s, want exists", l.Digest, im.Name, l.Status)
						}
					}
					if !seen[im.ImageID] {
						seen[im.ImageID] = true
						b, err := reg.store.Blob(t.Context(), repository, digest.Digest(im.ImageID))
						if err != nil {
							t.Fatal(err)
						}
						configs += b.Size
					}
				}
				if n := written.Load(); n != configs || again.BytesStored != 0 {
					t.Errorf("%d bytes were written, %d stored, want the %d of the configs only, and 0", n, again.BytesStored, configs)
				}
			})
		}
	}
}

// TestAChangedLayerOfTheSameSizeIsStoredAsItIs changes bytes at every place that
// matters to the trial.
func TestAChangedLayerOfTheSameSizeIsStoredAsItIs(t *testing.T) {
	t.Parallel()
	const size = 3*layer.PrefixStep + 5000
	old := longLayer(size, "old")
	for _, compression := range compressions {
		reg := newRegistry(t)
		as := func(q *LoadRequest) { q.Compression = compression }
		reg.mustLoad(t, docker("a/b:1", old).pack(), as)
		// Two that begin as the old one does, so that one of them drops out on the way.
		reg.mustLoad(t, docker("a/b:1", longLayer(size, "two")).pack(), as)
		for _, at := range []int{600, layer.PrefixStep - 1, layer.PrefixStep, 2*layer.PrefixStep + 7, 3*layer.PrefixStep - 1, 3 * layer.PrefixStep, size + 515} {
			changed := bytes.Clone(old)
			changed[at] ^= 1
			res := reg.mustLoad(t, docker("a/b:2", changed).pack(), as)
			im := imageNamed(t, res, "team/a/b:2")
			if im.Layers[0].DiffID != sum(changed) || im.Layers[0].Status != "stored" {
				t.Errorf("%s, changed at %d: layer %+v, want %s to be stored", compression, at, im.Layers[0], sum(changed))
			}
			reg.pull(t, "team/a/b", tagRef("2"), im.Manifest)
		}
		im := imageNamed(t, reg.mustLoad(t, docker("a/b:3", old).pack(), as), "team/a/b:3")
		if im.Layers[0].Status != "exists" {
			t.Errorf("%s: the first layer is %s at last, want exists", compression, im.Layers[0].Status)
		}
		reg.pull(t, "team/a/b", tagRef("3"), im.Manifest)
		reg.wantNothingStaged(t)
	}
}

// TestALayerIsKnownInTheCompressionThatIsAskedForOnly loads one as gzip and then
// as the others.
func TestALayerIsKnownInTheCompressionThatIsAskedForOnly(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	body := docker("a/b:1", longLayer(2*layer.PrefixStep, "x")).pack()
	for _, want := range []string{"stored", "exists"} {
		for _, compression := range compressions {
			res := reg.mustLoad(t, body, func(q *LoadRequest) { q.Compression = compression })
			if im := res.Images[0]; im.Layers[0].Status != want {
				t.Errorf("the layer as %s: %s, want %s", compression, im.Layers[0].Status, want)
			}
			reg.pull(t, "team/a/b", tagRef("1"), res.Images[0].Manifest)
		}
	}
}

// TestWhatALoadCompressedInVainIsDropped has a layer known of which nobody has
// seen how it begins, as those of an older version.
func TestWhatALoadCompressedInVainIsDropped(t *testing.T) {
	t.Parallel()
	reg, written := newCounted(t)
	body := docker("a/b:1", longLayer(2*layer.PrefixStep, "x")).pack()
	first := reg.mustLoad(t, body)
	if _, err := reg.sql.ExecContext(t.Context(), `DELETE FROM layer_prefixes`); err != nil {
		t.Fatal(err)
	}
	// The very bytes that an encoder makes can change from one version to the next.
	written.Store(0)
	again := reg.mustLoad(t, body)
	if n := written.Load(); n < layer.PrefixStep/2 || again.Images[0].Digest != first.Images[0].Digest || again.BytesStored != 0 {
		t.Errorf("%d bytes were written, %d stored, want the layer and 0", n, again.BytesStored)
	}
	written.Store(0)
	reg.mustLoad(t, body)
	if n := written.Load(); n > 1000 {
		t.Errorf("%d bytes were written by the third load, want the config only: it was seen how the layer begins", n)
	}
	reg.wantNothingStaged(t)
}

// TestAPrefixOfALayerIsNotTheLayer: docker knows the size of each.
func TestAPrefixOfALayerIsNotTheLayer(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	long := longLayer(3*layer.PrefixStep, "x")
	short := append(pack(text("a", "b")), make([]byte, 2*layer.PrefixStep)...)
	shorter := short[:len(short)-512]
	for _, l := range [][]byte{long, short, shorter} {
		res := reg.mustLoad(t, docker("a/b:1", l).pack())
		if got := res.Images[0].Layers[0]; got.Status != "stored" || got.DiffID != sum(l) {
			t.Errorf("layer of %d bytes: %+v, want it stored", len(l), got)
		}
		reg.pull(t, "team/a/b", tagRef("1"), res.Images[0].Manifest)
	}
}

// TestNothingIsStagedOfALayerThatIsFollowed looks at the disk while one passes,
// and cuts the archive there: so a process that is killed leaves nothing either.
func TestNothingIsStagedOfALayerThatIsFollowed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	body := docker("a/b:1", longLayer(3*layer.PrefixStep, "x")).pack()
	reg.mustLoad(t, body)
	before := reg.state(t)
	for _, at := range []int{1000, layer.PrefixStep + 2000, 2*layer.PrefixStep + 5000, 3*layer.PrefixStep + 1000} {
		broken := errors.New("the line is cut")
		looked := false
		_, err := reg.Load(t.Context(), io.MultiReader(bytes.NewReader(body[:at]), readerFunc(func([]byte) (int, error) {
			looked = true
			reg.wantNothingStaged(t)
			return 0, io.EOF
		}), iotest.ErrReader(broken)), request())
		if !errors.Is(err, broken) || !looked {
			t.Errorf("cut at %d: Load = %v, want an error because of %v", at, err, broken)
		}
		if diff := cmp.Diff(before, reg.state(t)); diff != "" {
			t.Errorf("cut at %d: something is left (-before +after):\n%s", at, diff)
		}
	}
}

// TestABrokenLayerOfAKnownOnesSizeIsNone: what is no tar is named as that, and
// not taken for the layer that begins so.
func TestABrokenLayerOfAKnownOnesSizeIsNone(t *testing.T) {
	t.Parallel()
	for _, compression := range compressions {
		reg := newRegistry(t)
		as := func(q *LoadRequest) { q.Compression = compression }
		good := longLayer(2*layer.PrefixStep, "x")
		reg.mustLoad(t, docker("a/b:1", good).pack(), as)
		before := reg.state(t)
		bad := bytes.Clone(good)
		bad[len(bad)-1] = 'x' // behind the end of the tar
		_, err := reg.load(t, docker("a/b:1", bad).pack(), as)
		if tarport.ErrorCode(err) != tarport.ArchiveInvalid {
			t.Errorf("%s: Load = %v, want ARCHIVE_INVALID", compression, err)
		}
		if diff := cmp.Diff(before, reg.state(t)); diff != "" {
			t.Errorf("%s: something is left (-before +after):\n%s", compression, diff)
		}
	}
}

// TestAStoredLayerThatIsDamagedIsNotBuiltOn: the archive's layer begins as one
// whose bytes have changed on the disk. It is told, and the next try succeeds.
func TestAStoredLayerThatIsDamagedIsNotBuiltOn(t *testing.T) {
	t.Parallel()
	for _, compression := range compressions {
		reg := newRegistry(t)
		as := func(q *LoadRequest) { q.Compression = compression }
		old := longLayer(3*layer.PrefixStep, "old")
		first := imageNamed(t, reg.mustLoad(t, docker("a/b:1", old).pack(), as), "team/a/b:1")
		blob := reg.blobFile(t, first.Layers[0].Digest)
		b, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 0x40
		if err := os.WriteFile(blob, b, 0o600); err != nil {
			t.Fatal(err)
		}
		changed := docker("a/b:2", longLayer(3*layer.PrefixStep, "new")).pack()
		_, err = reg.load(t, changed, as)
		e, ok := errors.AsType[*tarport.Error](err)
		if !ok || e.Code != tarport.Unavailable || !strings.Contains(e.Message, "cannot be read") || strings.Contains(e.Message, "sha256") {
			t.Errorf("%s: Load over a damaged layer = %v, want UNAVAILABLE, and no name in the message", compression, err)
		}
		reg.wantNothingStaged(t)
		im := imageNamed(t, reg.mustLoad(t, changed, as), "team/a/b:2")
		reg.pull(t, "team/a/b", tagRef("2"), im.Manifest)
	}
}

// TestALayerThatIsFollowedCountsForTheQuota: it is linked there like any other.
func TestALayerThatIsFollowedCountsForTheQuota(t *testing.T) {
	t.Parallel()
	reg, written := newCounted(t)
	old := longLayer(2*layer.PrefixStep, "old")
	body := docker("a/b:1", old).pack()
	reg.mustLoad(t, body)
	for _, ns := range []string{"small", "full"} {
		if _, err := reg.sql.ExecContext(t.Context(), `INSERT INTO namespaces (name, created_at, quota_bytes) VALUES (?, 1, -1)`, ns); err != nil {
			t.Fatal(err)
		}
	}
	quota := func(ns string, n int64) {
		if _, err := reg.sql.ExecContext(t.Context(), `UPDATE namespaces SET quota_bytes = ? WHERE name = ?`, n, ns); err != nil {
			t.Fatal(err)
		}
	}
	quota("small", 2000)
	in := func(ns string) func(*LoadRequest) { return func(q *LoadRequest) { q.Namespace = ns } }
	for what, body := range map[string][]byte{"a known layer": body, "one that begins so": docker("a/b:1", longLayer(2*layer.PrefixStep, "new")).pack()} {
		if _, err := reg.load(t, body, in("small")); tarport.ErrorCode(err) != tarport.Denied {
			t.Errorf("Load of %s into a namespace without room = %v, want DENIED", what, err)
		}
	}
	// What the namespace has costs nothing, also where it is full.
	reg.mustLoad(t, body, in("full"))
	quota("full", 1)
	written.Store(0)
	reg.mustLoad(t, body, in("full"))
	if n := written.Load(); n > 1000 {
		t.Errorf("%d bytes were written, want the config only", n)
	}
	reg.wantNothingStaged(t)
}

// TestALayerThatMayNotBePulledIsNotFollowed: it is made anew, and dropped when all
// of it was shown.
func TestALayerThatMayNotBePulledIsNotFollowed(t *testing.T) {
	t.Parallel()
	written := new(atomic.Int64)
	reg := newRegistry(t, pullsOnlyFrom("team/own", "public/base"), func(o *Options) { o.Store = countedStore{o.Store, written} })
	for _, repository := range []string{"team/own", "public/base", "team/hidden", "other/hidden"} {
		namespace, name, _ := strings.Cut(repository, "/")
		l := pack(text(repository, noise(2*layer.PrefixStep)))
		reg.mustLoad(t, docker(name+":1", l).pack(), func(q *LoadRequest) { q.Namespace = namespace })
		written.Store(0)
		im := reg.mustLoad(t, docker("app:1", l).pack()).Images[0]
		if follows, hidden := written.Load() < 1000, name == "hidden"; follows == hidden {
			t.Errorf("%d bytes were written of a layer of %s", written.Load(), repository)
		}
		if im.Layers[0].Status != "exists" {
			t.Errorf("the layer of %s is %s at last, want exists", repository, im.Layers[0].Status)
		}
	}
	reg.wantNothingStaged(t)
}

// TestDeniedDoesNotTellHowMuchOfALayerWasGuessed sends the beginning of a layer
// that the sender may not pull, and of none, into a namespace that is full.
func TestDeniedDoesNotTellHowMuchOfALayerWasGuessed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, pullsOnlyFrom())
	as := func(namespace string) func(*LoadRequest) {
		return func(q *LoadRequest) { q.Namespace, q.Compression = namespace, uncompressed }
	}
	secret := longLayer(4*layer.PrefixStep, "secret")
	reg.mustLoad(t, docker("a:1", secret).pack(), as("other"))
	if _, err := reg.sql.ExecContext(t.Context(), `INSERT INTO namespaces (name, created_at, quota_bytes) VALUES ('full', 1, 10)`); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(secret)
	wrong[600] ^= 1
	var read []int
	for _, guess := range [][]byte{secret, wrong} {
		body := bytes.NewReader(docker("a:1", guess).pack())
		_, err := reg.Load(t.Context(), body, request(as("full")))
		if tarport.ErrorCode(err) != tarport.Denied {
			t.Errorf("Load into a full namespace = %v, want DENIED", err)
		}
		read = append(read, int(body.Size())-body.Len())
	}
	if read[0] != read[1] || read[0] > 2*layer.PrefixStep {
		t.Errorf("DENIED after %d bytes of a good guess, and %d of a bad one", read[0], read[1])
	}
}

// TestOnlyWhoReadsAStoredLayerWaitsForAPlace: a layer that begins as none, or is
// short, is loaded while all places are taken.
func TestOnlyWhoReadsAStoredLayerWaitsForAPlace(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("a/b:1", longLayer(2*layer.PrefixStep, "old")).pack())
	reg.replays = places.New(places.Options{Places: 1, Queue: 2, Wait: time.Millisecond, Busy: "layers are being read"})
	leave, err := reg.replays.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlike := pack(text("opt/other", noise(2*layer.PrefixStep)))
	reg.mustLoad(t, docker("a/b:2", layerOf("short"), unlike).pack())
	changed := docker("a/b:3", longLayer(2*layer.PrefixStep, "new")).pack()
	before := reg.state(t)
	if _, err := reg.load(t, changed); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("Load of a layer that begins as a stored one, with all places taken = %v, want UNAVAILABLE", err)
	}
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
	leave()
	for range 2 { // each gives its place back
		reg.mustLoad(t, changed)
		changed = docker("a/b:4", longLayer(2*layer.PrefixStep, "one")).pack()
	}
}

// TestProgressOfALayerThatIsFollowed: it passes, and then it was there already.
func TestProgressOfALayerThatIsFollowed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	d := docker("a/b:1", longLayer(2*layer.PrefixStep, "x"))
	id := strings.TrimSuffix(d.layer(0), "/layer.tar")[:12]
	for _, want := range [][]string{{"Loading layer"}, {"Loading layer", "Layer already exists"}} {
		var got []string
		reg.mustLoad(t, d.pack(), func(q *LoadRequest) {
			q.Progress = func(m Message) {
				if m.ID != "" && m.ID != id {
					t.Errorf("a message of the layer %s, want %s", m.ID, id)
				}
				if m.ID != "" && !slices.Contains(got, m.Status) {
					got = append(got, m.Status)
				}
			}
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("progress of the layer (-want +got):\n%s", diff)
		}
	}
}

// wantNothingStaged checks that no file is there but blobs and indexes.
func (r *registry) wantNothingStaged(tb testing.TB) {
	tb.Helper()
	err := filepath.WalkDir(r.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && filepath.Base(path) != "data" && !strings.Contains(path, "tarport/layers") {
			tb.Errorf("%s is there", path)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// blobFile is where the bytes of a blob lie.
func (r *registry) blobFile(tb testing.TB, d digest.Digest) string {
	tb.Helper()
	name := filepath.Join(r.root, "docker/registry/v2/blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded(), "data")
	if _, err := os.Stat(name); err != nil {
		tb.Fatal(err)
	}
	return name
}
