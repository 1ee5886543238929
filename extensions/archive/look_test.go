package archive

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/metadata"
)

// base is what an image of a registry is built on, as a list of tags shows it.
func (r *registry) base(t *testing.T, repository string, image digest.Digest) metadata.ImageRow {
	t.Helper()
	row, err := r.db.Image(t.Context(), repository, image)
	if err != nil {
		t.Fatalf("Image: %v", err)
	}
	return row
}

func TestWhatAnImageIsBuiltOnIsKnownWithTheLoad(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for file, want := range map[string]metadata.Base{
		"docker20/untagged-by-id.tar":      {ID: "distroless", Version: "12", Name: "bookworm", Libc: "none", PackageManager: "dpkg", Packages: 2},
		"docker20/names-with-registry.tar": {ID: "scratch", Libc: "none", PackageManager: "none"},
		"skopeo/docker-archive.tar":        {ID: "scratch", Libc: "none", PackageManager: "none"}, // of layers that are known by now, perhaps
		"outer/oci.tar.zst":                {ID: "scratch", Libc: "none", PackageManager: "none"},
		"hand/nix-stream-layered.tar":      {ID: "nixos", Libc: "none", PackageManager: "none"},
	} {
		res := reg.mustLoad(t, fixtureNamed(t, file), func(q *LoadRequest) {
			if strings.Contains(file, "untagged") {
				q.Repository = "fallback"
			}
		})
		name, _, _ := strings.Cut(res.Images[0].Name, ":")
		name, _, _ = strings.Cut(name, "@")
		row := reg.base(t, name, res.Images[0].Digest)
		if row.Scan != metadata.ScanReady || row.Base != want {
			t.Errorf("%s: the scan of %s is %s %q, the base %+v; want %+v", file, name, row.Scan, row.ScanReason, row.Base, want)
		}
	}
}

const alpineFiles = "ID=alpine\nVERSION_ID=3.19.1\n"

// An import has checks of its own that see the entries too.
func TestWhatAnImportIsBuiltOnIsKnown(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	root := pack(text("etc/os-release", alpineFiles), text("lib/apk/db/installed", "P:musl\nV:1\n\nP:apk-tools\nV:2\n\n"), text("manifest.json", "no list of images"))
	res, err := reg.Import(t.Context(), bytes.NewReader(root), ImportRequest{Repository: "team/root", Tag: "1"})
	if err != nil {
		t.Fatalf("Import: %v", err)
	}
	row := reg.base(t, "team/root", res.Images[0].Digest)
	if want := (metadata.Base{ID: "alpine", Version: "3.19.1", Libc: "musl", PackageManager: "apk", Packages: 2}); row.Scan != metadata.ScanReady || row.Base != want {
		t.Errorf("the scan is %s, the base %+v; want %+v", row.Scan, row.Base, want)
	}
}

// The layer of a commit has the package database as the container left it.
func TestWhatACommitIsBuiltOnIsKnown(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	base := []entry{text("etc/os-release", alpineFiles), text("lib/apk/db/installed", "P:musl\nV:1\n\n"), text("srv/a", "a"), text("srv/b", "b")}
	reg.loadBase(t, pack(base...))
	base[1] = text("lib/apk/db/installed", "P:musl\nV:1\n\nP:curl\nV:8.5.0-r0\n\n")
	im := reg.mustCommit(t, pack(base...))
	row := reg.base(t, "team/app", im.Digest)
	if want := (metadata.Base{ID: "alpine", Version: "3.19.1", Libc: "musl", PackageManager: "apk", Packages: 2}); row.Scan != metadata.ScanReady || row.Base != want {
		t.Errorf("the scan is %s, the base %+v; want %+v", row.Scan, row.Base, want)
	}
}

// The database of RPM that is SQLite's cannot be read while it passes: then the
// layer waits for the scanner, and so does the image.
func TestALayerThatNeedsMoreThanALookIsLeftToTheScanner(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	root := pack(text("etc/os-release", "ID=fedora\n"), text("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\x00"))
	res, err := reg.Import(t.Context(), bytes.NewReader(root), ImportRequest{Repository: "team/root", Tag: "1"})
	if err != nil {
		t.Fatalf("Import: %v", err)
	}
	if row := reg.base(t, "team/root", res.Images[0].Digest); row.Scan != metadata.ScanPending {
		t.Errorf("the scan is %s, want pending", row.Scan)
	}
}
