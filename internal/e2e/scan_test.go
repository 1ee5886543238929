package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestAKilledServerGoesOnLookingIntoWhatWasPushed pushes an image, kills the
// server while it reads the layer, and asks the next one what the image is
// built on.
func TestAKilledServerGoesOnLookingIntoWhatWasPushed(t *testing.T) {
	t.Parallel()
	const slowly = "TARPORT_SCAN_RATE=64KiB"
	s := serve(t, slowly)
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(debianLayer(t), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(s.addr+"/team/base:12", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "admin", Password: adminPassword})); err != nil {
		t.Fatalf("push: %v", err)
	}
	await(t, "the server to read the layer", func() bool {
		staged, err := filepath.Glob(filepath.Join(s.dir, "data/tarport/uploads/*"))
		return err == nil && len(staged) > 0 && scanOf(t, s).Scan == "pending"
	})
	s.kill()
	s.env = append(s.env, "TARPORT_SCAN_RATE=0")
	s.start(t)
	var got scanned
	await(t, "the scan", func() bool {
		got = scanOf(t, s)
		return got.Scan != "pending"
	})
	if b := got.Base; got.Scan != "ready" || b == nil || b.ID != "debian" || b.Version != "12" || b.Name != "bookworm" || b.Libc != "glibc" ||
		b.PackageManager != "dpkg" || b.Packages != 1 || b.Slim {
		t.Errorf("the scan is %s, the base %+v; want debian 12 bookworm, glibc, dpkg with 1 package", got.Scan, got.Base)
	}
}

// debianLayer is a layer that takes some time at a slow pace.
func debianLayer(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range map[string]string{
		"etc/os-release":                     "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
		"var/lib/dpkg/status":                "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\n",
		"usr/lib/x86_64-linux-gnu/libc.so.6": string(make([]byte, 4<<20)),
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// scanned is what a list of tags says of an image's layers.
type scanned struct {
	Scan string
	Base *struct {
		ID, Version, Name, Libc string
		PackageManager          string `json:"package_manager"`
		Packages                int
		Slim                    bool
	}
}

func scanOf(t *testing.T, s *server) scanned {
	t.Helper()
	var list struct {
		Items []struct{ Platforms []scanned }
	}
	r, err := s.client(t).raw(t.Context(), http.MethodGet, "/api/v1/repositories/team/base/-/tags", nil, "Authorization", basicAuth("admin", adminPassword))
	if err == nil {
		err = json.Unmarshal(r.body, &list)
	}
	if err != nil || len(list.Items) != 1 || len(list.Items[0].Platforms) != 1 {
		t.Fatalf("tags = %d, %v: %s", r.status, err, r.body)
	}
	return list.Items[0].Platforms[0]
}

// await waits until something is so.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
