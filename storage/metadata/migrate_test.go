package metadata

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// TestAnUpgradeKeepsWhatIsThere: the schema before prefixes, namespaces of uploads
// and verified chains is brought up with rows in it.
func TestAnUpgradeKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := t.Context()
		top := map[string]digest.Digest{"base": digestOf("chain 1"), "app": digestOf("chain 2")}
		for name, chains := range map[string][]digest.Digest{"base": {top["base"]}, "app": {top["base"], top["app"]}} {
			db.pushBlob(t, "a/b", "layer "+name, grace)
			p := db.put("a/b", image(name, "layer "+name), name)
			p.Image = &Image{OS: "linux", Config: "{}", Chains: chains}
			db.mustPut(t, p)
		}
		db.sql(t, `UPDATE layers SET state = 'ready', facts = '{}'`)
		base := Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc", PackageManager: "dpkg", Packages: 7}
		settle := func() {
			t.Helper()
			keys, err := db.ImagesToScan(ctx, 10, ImageKey{})
			check(t, "ImagesToScan", err)
			if len(keys) != len(top) {
				t.Fatalf("%d images are to be settled, want %d", len(keys), len(top))
			}
			for _, k := range keys {
				scan := ImageScan{Image: k, State: ScanReady, Base: base, Chain: top["app"]}
				if k.Digest == digestOf("base") {
					scan.Chain = top["base"]
				}
				check(t, "SaveScans", db.SaveScans(ctx, []ImageScan{scan}))
			}
		}
		related := func() []RelatedImage {
			t.Helper()
			list, err := db.BaseImages(ctx, Viewer{All: true}, "a/b", digestOf("app"), 10)
			check(t, "BaseImages", err)
			return list
		}
		settle()
		want := related()
		if len(want) != 1 || want[0].Digest != digestOf("base") {
			t.Fatalf("the image stands on %v before the upgrade", want)
		}
		begun := db.session(t, "one")

		check(t, "Close", db.Close())
		downTo(t, db, 9)
		db = openAt(t, db.dsn, db.clock)

		if got := related(); len(got) != 0 {
			t.Errorf("the image stands on %v, which nobody has verified", got)
		}
		settle()
		if diff := cmp.Diff(want, related()); diff != "" {
			t.Errorf("what the image stands on (-before +after):\n%s", diff)
		}
		row, err := db.Image(ctx, "a/b", digestOf("app"))
		check(t, "Image", err)
		if diff := cmp.Diff(base, row.Base); diff != "" || row.Scan != ScanReady {
			t.Errorf("%s, base (-want +got):\n%s", row.Scan, diff)
		}
		upload, err := db.Upload(ctx, "a/b", "one")
		check(t, "Upload", err)
		if diff := cmp.Diff(begun, upload); diff != "" {
			t.Errorf("upload (-want +got):\n%s", diff)
		}
	})
}

// downTo takes the schema of a database that is closed back to a version.
func downTo(t *testing.T, closed *testDB, version int64) {
	t.Helper()
	db := &DB{now: closed.clock.now}
	var err error
	if closed.dialect == dialectPostgres {
		err = db.openPostgres(closed.dsn)
	} else {
		err = db.openSQLite(t.Context(), closed.dsn)
	}
	check(t, "open", err)
	p, err := db.migrations()
	check(t, "migrations", err)
	_, err = p.DownTo(t.Context(), version)
	check(t, "DownTo", err)
	check(t, "Close", db.Close())
}
