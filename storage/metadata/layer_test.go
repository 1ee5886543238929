package metadata

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// putImageOf puts an image of layers into a repository, named by their content.
func (db *testDB) putImageOf(t *testing.T, repository, payload string, layers ...string) digest.Digest {
	t.Helper()
	var refs []string
	for _, l := range layers {
		db.pushBlob(t, repository, l, grace)
		refs = append(refs, "layer:"+l)
	}
	m := manifest(payload, refs...)
	m.Kind = KindImage
	p := db.put(repository, m)
	p.Image = &Image{OS: "linux", Config: "{}"}
	db.mustPut(t, p)
	return m.Digest
}

func (db *testDB) claim(t *testing.T, holder string) LayerClaim {
	t.Helper()
	c, found, err := db.ClaimLayer(t.Context(), holder, db.clock.in(time.Minute))
	check(t, "ClaimLayer", err)
	if !found {
		t.Fatal("ClaimLayer found nothing")
	}
	return c
}

func TestAPendingLayerIsOneWorkersUntilItsTimeIsOver(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		_, found, err := db.ClaimLayer(ctx, "x", db.clock.in(time.Minute))
		check(t, "ClaimLayer", err)
		if found {
			t.Fatal("ClaimLayer found a layer where there is none")
		}
		db.putImageOf(t, "a/b", "image", "one")
		first := db.claim(t, "first")
		if diff := cmp.Diff(LayerClaim{Digest: digestOf("one"), Attempts: 1, Holder: "first"}, first); diff != "" {
			t.Errorf("ClaimLayer (-want +got):\n%s", diff)
		}
		if _, found, err = db.ClaimLayer(ctx, "second", db.clock.in(time.Minute)); found || err != nil {
			t.Errorf("a layer that is held was given away: %v", err)
		}
		db.clock.advance(50 * time.Second)
		if held, err := db.HoldLayer(ctx, first, db.clock.in(time.Minute)); !held || err != nil {
			t.Errorf("HoldLayer = %v, %v", held, err)
		}
		db.clock.advance(50 * time.Second)
		if _, found, err = db.ClaimLayer(ctx, "second", db.clock.in(time.Minute)); found || err != nil {
			t.Errorf("a layer whose claim was prolonged was given away: %v", err)
		}
		db.clock.advance(20 * time.Second)
		second := db.claim(t, "second")
		if second.Attempts != 2 {
			t.Errorf("the second attempt is counted as %d", second.Attempts)
		}
		for what, call := range map[string]func() (bool, error){
			"HoldLayer":   func() (bool, error) { return db.HoldLayer(ctx, first, db.clock.in(time.Minute)) },
			"FinishLayer": func() (bool, error) { return db.FinishLayer(ctx, first, digestOf("plain"), "{}") },
			"FailLayer":   func() (bool, error) { return db.FailLayer(ctx, first, "x") },
		} {
			if held, err := call(); held || err != nil {
				t.Errorf("%s of who lost the claim = %v, %v; want false", what, held, err)
			}
		}
		if held, err := db.FinishLayer(ctx, second, digestOf("plain"), `{"v":1}`); !held || err != nil {
			t.Errorf("FinishLayer = %v, %v", held, err)
		}
		facts, found, err := db.FactsOfDiffID(ctx, digestOf("plain"), `{"v":1`)
		if facts != `{"v":1}` || !found || err != nil {
			t.Errorf("FactsOfDiffID = %q, %v, %v", facts, found, err)
		}
		if _, found, err = db.FactsOfDiffID(ctx, digestOf("plain"), `{"v":2`); found || err != nil {
			t.Errorf("FactsOfDiffID of another version = %v, %v", found, err)
		}
	})
}

func TestWorkersThatClaimAtOnceGetLayersOfTheirOwn(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		names := []string{"a", "b", "c", "d", "e", "f"}
		db.putImageOf(t, "a/b", "image", names...)
		var mu sync.Mutex
		var got []digest.Digest
		var wg sync.WaitGroup
		for range names {
			wg.Go(func() {
				c, found, err := db.ClaimLayer(t.Context(), "w", db.clock.in(time.Minute))
				if err != nil || !found {
					t.Errorf("ClaimLayer = %v, %v", found, err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, c.Digest)
			})
		}
		wg.Wait()
		slices.Sort(got)
		if n := len(slices.Compact(got)); n != len(names) {
			t.Errorf("%d layers were claimed by %d workers", n, len(names))
		}
	})
}

func TestALayerIsTriedAgainWhenItsTimeHasCome(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		db.putImageOf(t, "a/b", "image", "one")
		check(t, "RetryLayer", db.RetryLayer(ctx, db.claim(t, "w"), "no bytes", db.clock.in(time.Hour)))
		if _, found, err := db.ClaimLayer(ctx, "w", db.clock.in(time.Minute)); found || err != nil {
			t.Errorf("a layer was tried again too early: %v", err)
		}
		db.clock.advance(time.Hour)
		c := db.claim(t, "w")
		if c.Attempts != 2 || c.Reason != "no bytes" {
			t.Errorf("the second attempt is %+v", c)
		}
		check(t, "ReleaseLayer", db.ReleaseLayer(ctx, c))
		if c = db.claim(t, "w"); c.Attempts != 2 {
			t.Errorf("an attempt that was given back counts: %d", c.Attempts)
		}
		if held, err := db.FailLayer(ctx, c, "broken"); !held || err != nil {
			t.Errorf("FailLayer = %v, %v", held, err)
		}
		if b, err := db.Backlog(ctx); b != (Backlog{Failed: 1}) || err != nil {
			t.Errorf("Backlog = %+v, %v; want one layer that failed", b, err)
		}
	})
}

func TestAStartTakesUpWhatTheLastOneLeft(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		db.putImageOf(t, "a/b", "image", "held", "content", "storage", "old", "current", "missing")
		for range 6 {
			c := db.claim(t, "w")
			var err error
			switch c.Digest {
			case digestOf("content"):
				_, err = db.FailLayer(ctx, c, "no tar")
			case digestOf("storage"):
				db.sql(t, `UPDATE layers SET attempts = 8 WHERE digest = $1`, c.Digest.String())
				_, err = db.FailLayer(ctx, c, "no bytes")
			case digestOf("old"):
				_, err = db.FinishLayer(ctx, c, digestOf("x"), `{"v":1,"marks":[]}`)
			case digestOf("current"):
				_, err = db.FinishLayer(ctx, c, digestOf("y"), `{"v":2,"marks":[]}`)
			}
			check(t, "end a claim", err)
		}
		db.sql(t, `DELETE FROM layers WHERE digest = $1`, digestOf("missing").String())
		check(t, "ResumeLayers", db.ResumeLayers(ctx, 8, `{"v":2,`))
		want := map[digest.Digest]bool{digestOf("storage"): true, digestOf("old"): true, digestOf("missing"): true}
		if db.Exclusive() { // of another replica's claim nobody knows whether it lives
			want[digestOf("held")] = true
		}
		got := map[digest.Digest]bool{}
		for {
			c, found, err := db.ClaimLayer(ctx, "w", db.clock.in(time.Minute))
			check(t, "ClaimLayer", err)
			if !found {
				break
			}
			got[c.Digest] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pending after the start (-want +got):\n%s", diff)
		}
	})
}

func TestFactsThatCameWithALayerCountAtOnce(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		db.pushBlob(t, "a/b", "base", grace)
		db.pushBlob(t, "a/b", "app", grace)
		m := manifest("image", "layer:base", "layer:app")
		m.Kind = KindImage
		p := db.put("a/b", m)
		p.Layers = []Layer{{DiffID: digestOf("plain"), Digest: digestOf("base"), Compression: "gzip", Facts: `{"v":"1"}`}}
		db.mustPut(t, p)
		c := db.claim(t, "w")
		if c.Digest != digestOf("app") || c.Known {
			t.Errorf("the first claim is %+v, want the layer that is not known", c)
		}
		if got, err := db.ImagesToScan(ctx, 10, ImageKey{}); len(got) != 0 || err != nil {
			t.Errorf("images to scan = %v, %v; want none", got, err)
		}
		if _, err := db.FailLayer(ctx, c, "broken"); err != nil {
			t.Fatalf("FailLayer: %v", err)
		}
		if got, err := db.ImagesToScan(ctx, 10, ImageKey{}); len(got) != 1 || err != nil {
			t.Errorf("images to scan = %v, %v; want one", got, err)
		}
		if _, found, err := db.ClaimLayer(ctx, "w", db.clock.in(time.Minute)); found || err != nil {
			t.Errorf("the index is made at once: %v", err)
		}
		db.clock.advance(indexLater)
		if c = db.claim(t, "w"); c.Digest != digestOf("base") || !c.Known || c.DiffID != digestOf("plain") {
			t.Errorf("the claim of whose index is to be made is %+v", c)
		}
		db.mustPut(t, db.put("a/c", manifest("other")), p) // facts again
		if held, err := db.FinishLayer(ctx, c, digestOf("plain"), `{"v":"1","marks":[]}`); !held || err != nil {
			t.Errorf("FinishLayer = %v, %v", held, err)
		}
		db.mustPut(t, p)
		if n := db.count(t, `SELECT COUNT(*) FROM layers WHERE state = 'ready' AND facts LIKE '%marks%'`); n != 1 {
			t.Errorf("%d layers have what the worker found, want 1", n)
		}
	})
}

func TestADiffIDThatIsKnownComesWithTheClaim(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.putImageOf(t, "a/b", "image", "one")
		check(t, "RememberLayer", db.RememberLayer(t.Context(), Layer{DiffID: digestOf("plain"), Digest: digestOf("one"), Compression: "gzip"}))
		if c := db.claim(t, "w"); c.DiffID != digestOf("plain") {
			t.Errorf("the claim's diffID is %q", c.DiffID)
		}
	})
}

func TestImagesAreSettledWhenNoLayerOfTheirsIsPending(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		one := db.putImageOf(t, "a/one", "one", "base")
		two := db.putImageOf(t, "a/two", "two", "base", "app", "base")
		keys := func(layer digest.Digest, last ImageKey) (out []digest.Digest) {
			t.Helper()
			var list []ImageKey
			var err error
			if layer == "" {
				list, err = db.ImagesToScan(ctx, 10, last)
			} else {
				list, err = db.ImagesOfLayer(ctx, layer, 10, last)
			}
			check(t, "list images", err)
			for _, k := range list {
				out = append(out, k.Digest)
			}
			return out
		}
		if got := keys("", ImageKey{}); len(got) != 0 {
			t.Errorf("images without a pending layer = %v, want none", got)
		}
		finish := func(layer string) {
			t.Helper()
			db.sql(t, `UPDATE layers SET state = 'ready', facts = $2 WHERE digest = $1`, digestOf(layer).String(), `{"v":1}`)
		}
		finish("base")
		if diff := cmp.Diff([]digest.Digest{one}, keys(digestOf("base"), ImageKey{})); diff != "" {
			t.Errorf("images of the base (-want +got):\n%s", diff)
		}
		finish("app")
		if diff := cmp.Diff([]digest.Digest{one, two}, keys("", ImageKey{})); diff != "" {
			t.Errorf("images to scan (-want +got):\n%s", diff)
		}
		k, found, err := db.ImageKeyOf(ctx, "a/one", one)
		if !found || err != nil {
			t.Fatalf("ImageKeyOf = %v, %v", found, err)
		}
		if diff := cmp.Diff([]digest.Digest{two}, keys(digestOf("base"), k)); diff != "" {
			t.Errorf("images of the base, after one (-want +got):\n%s", diff)
		}
		if _, found, err := db.ImageKeyOf(ctx, "a/one", two); found || err != nil {
			t.Errorf("ImageKeyOf another repository's = %v, %v", found, err)
		}
		var layers []digest.Digest
		two2, _, err := db.ImageKeyOf(ctx, "a/two", two)
		check(t, "ImageKeyOf", err)
		check(t, "EachImageLayer", db.EachImageLayer(ctx, two2, func(l LayerFacts) error {
			if l.State != LayerReady || l.Facts != `{"v":1}` {
				t.Errorf("layer %+v", l)
			}
			layers = append(layers, l.Digest)
			return nil
		}))
		if diff := cmp.Diff([]digest.Digest{digestOf("base"), digestOf("app"), digestOf("base")}, layers); diff != "" {
			t.Errorf("layers (-want +got):\n%s", diff)
		}
		want := Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc", PackageManager: "dpkg", Packages: -1, Slim: true}
		check(t, "SaveScans", db.SaveScans(ctx, []ImageScan{
			{Image: k, State: ScanReady, Base: want, PackageNames: " bash "},
			{Image: two2, State: ScanFailed, Reason: "x"},
			{Image: ImageKey{Repository: k.Repository, Digest: digestOf("gone")}, State: ScanReady, PackageNames: " x "},
		}))
		row, err := db.Image(ctx, "a/one", one)
		check(t, "Image", err)
		if diff := cmp.Diff(want, row.Base); diff != "" || row.Scan != ScanReady {
			t.Errorf("%s, base (-want +got):\n%s", row.Scan, diff)
		}
		if n := db.count(t, `SELECT COUNT(*) FROM image_packages WHERE names LIKE '% bash %'`); n != 1 {
			t.Errorf("%d images have bash, want 1", n)
		}
		check(t, "SaveScans", db.SaveScans(ctx, []ImageScan{{Image: k, State: ScanReady, Base: want}}))
		if n := db.count(t, `SELECT COUNT(*) FROM image_packages`); n != 0 {
			t.Errorf("%d images have packages, want none", n)
		}
		if got := keys("", ImageKey{}); len(got) != 0 {
			t.Errorf("images to scan = %v, want none", got)
		}
	})
}
