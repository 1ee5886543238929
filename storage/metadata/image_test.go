package metadata

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// image is an image manifest whose layer has as many bytes as its name.
func image(payload, layer string) Manifest {
	m := manifest(payload, "layer:"+layer)
	m.Kind, m.Size = KindImage, int64(len(layer))
	return m
}

// index is an index of manifests, by their payloads.
func index(payload string, children ...string) Manifest {
	m := manifest(payload)
	m.Kind, m.MediaType = KindIndex, mediaTypeIndex
	for _, c := range children {
		m.References = append(m.References, ManifestReference{Kind: KindManifest, Digest: digestOf(c), Size: int64(len(c)), Platform: "linux/" + c})
	}
	return m
}

func (db *testDB) tagSize(t *testing.T, tag string) int64 {
	t.Helper()
	return db.count(t, `SELECT size FROM tags WHERE name = $1`, tag)
}

func TestAnIndexHasTheSizeOfItsImagesThatAreHere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		for _, layer := range []string{"four", "sevenyy"} {
			db.pushBlob(t, "a/b", layer, grace)
		}
		want := func(when string, size int64) {
			t.Helper()
			if got := db.tagSize(t, "both"); got != size {
				t.Errorf("%s the index has %d bytes, want %d", when, got, size)
			}
		}
		both := index("both", "one", "two", "one", "signature")
		both.References[3].Platform = NoPlatform
		db.mustPut(t, db.put("a/b", both, "both"))
		want("without images", 0)
		db.mustPut(t, db.put("a/b", image("one", "four"), "1"))
		want("with one image, named twice,", 4)
		db.mustPut(t, db.put("a/b", image("two", "sevenyy")), db.put("a/b", image("signature", "four")))
		want("with both images, and what is no platform's,", 11)
		db.mustPut(t, db.put("a/b", index("outer", "both"), "outer"))
		check(t, "DeleteManifest", db.DeleteManifest(t.Context(), "a/b", digestOf("one"), "ann", db.clock.in(grace)))
		want("with one image deleted", 7)
		check(t, "Tag", db.Tag(t.Context(), "a/b", "other", digestOf("both"), "ann", "tag"))
		if got := db.tagSize(t, "other"); got != 7 {
			t.Errorf("another tag of the index has %d bytes, want 7", got)
		}
		check(t, "DeleteRepository", db.DeleteRepository(t.Context(), "a/b", db.clock.in(grace)))
		if got := db.count(t, `SELECT COUNT(*) FROM images`); got != 0 {
			t.Errorf("%d images are left of a repository that was deleted", got)
		}
	})
}

func TestWhatClaimsToBeHugeCanStillBeAddedUp(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		var children []string
		for _, c := range []string{"a", "b", "c"} {
			m := manifest(c)
			m.Kind, m.Size = KindImage, MaxSize
			db.mustPut(t, db.put("a/b", m))
			children = append(children, c)
		}
		db.mustPut(t, db.put("a/b", index("index", children...), "index"))
		if got := db.tagSize(t, "index"); got != 3*MaxSize {
			t.Errorf("the index has %d bytes", got)
		}
	})
}

func TestAnImageIsKeptAsItWasRead(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "layer", grace)
		want := Image{OS: "linux", Architecture: "arm", Variant: "v7", OSVersion: "1", Created: time.UnixMicro(0).UTC(), Author: "a", Message: "m", Config: `{"env":[]}`}
		p := db.put("a/b", image("one", "layer"))
		p.Image = &want
		db.mustPut(t, p, p)
		got, err := db.Image(t.Context(), "a/b", digestOf("one"))
		check(t, "Image", err)
		if diff := cmp.Diff(ImageRow{Image: want, Size: 5, Scan: ScanPending}, got); diff != "" {
			t.Errorf("Image (-want +got):\n%s", diff)
		}
		_, err = db.Image(t.Context(), "a/b", digestOf("two"))
		wantCode(t, "another", err, tarport.ManifestUnknown)
		_, err = db.Image(t.Context(), "a/c", digestOf("one"))
		wantCode(t, "another repository's", err, tarport.ManifestUnknown)

		db.sql(t, `DELETE FROM blob_links`)
		db.sql(t, `DELETE FROM blobs`)
		if got := db.count(t, `SELECT COUNT(*) FROM layers`); got != 0 {
			t.Errorf("%d layers are left of blobs that are gone", got)
		}
	})
}

func TestATagOfNoManifestIsNone(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.mustPut(t, db.put("a/b", manifest("m")))
		err := db.update(t.Context(), durable, func(ctx context.Context, tx *Tx) error {
			_, err := tx.tag(ctx, 1, "x", digestOf("nothing"), "ann", "tag")
			return err
		})
		wantCode(t, "tag", err, tarport.ManifestUnknown)
	})
}
