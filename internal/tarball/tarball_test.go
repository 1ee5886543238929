package tarball_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/internal/tarball"
)

// fixtureDir has archives that real tools made, and fixtures.json, which says
// what is in them by an independent reader.
var fixtureDir = filepath.Join("..", "..", "extensions", "archive", "testdata")

type fixture struct {
	File   string
	Stored string // where it lies, packed by zstd
	Kind   string
	Docker []struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"docker_images"`
	OCI []fixtureManifest `json:"oci_manifests"`
}

type fixtureManifest struct {
	Manifests []fixtureManifest
	DiffIDs   []digest.Digest `json:"diff_ids"` // of images only
	Layers    []digest.Digest
}

func fixtures(t *testing.T) []fixture {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(fixtureDir, "fixtures.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []fixture
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// plain is the tar of a fixture; nil where its compression is not taken off
// here.
func (f fixture) plain(t *testing.T) []byte {
	t.Helper()
	name := f.File
	if f.Stored != "" {
		name = f.Stored
	}
	b, err := os.ReadFile(filepath.Join(fixtureDir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	for compression := tarball.Compression(b); compression != ""; compression = tarball.Compression(b) {
		r, err := tarball.Unpack(bytes.NewReader(b), compression)
		if err != nil {
			t.Fatalf("%s: %v", f.File, err)
		}
		if r == nil {
			return nil
		}
		if b, err = io.ReadAll(r); err != nil {
			t.Fatalf("%s: %v", f.File, err)
		}
	}
	return b
}

// wants are the diffIDs and digests that the fixture's description names.
func (f fixture) wants() (diffIDs, digests []digest.Digest) {
	for _, im := range f.Docker {
		diffIDs = append(diffIDs, im.DiffIDs...)
	}
	var walk func([]fixtureManifest)
	walk = func(list []fixtureManifest) {
		for _, m := range list {
			if m.DiffIDs != nil {
				digests = append(digests, m.Layers...)
			}
			walk(m.Manifests)
		}
	}
	walk(f.OCI)
	return set(diffIDs), set(digests)
}

func set(list []digest.Digest) []digest.Digest {
	slices.Sort(list)
	return append([]digest.Digest{}, slices.Compact(list)...)
}

func always(digest.Digest) bool { return true }

// TestEveryFormIsUnderstood looks into every archive that tools made, once by
// seeking and once as a stream.
func TestEveryFormIsUnderstood(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, f := range fixtures(t) {
		if f.Docker == nil && f.OCI == nil {
			continue
		}
		b := f.plain(t)
		if b == nil {
			continue
		}
		seen++
		for how, a := range map[string]func() (*tarball.Archive, error){
			"seeking":   func() (*tarball.Archive, error) { return tarball.Scan(bytes.NewReader(b), bytes.NewReader(b)) },
			"streaming": func() (*tarball.Archive, error) { return tarball.Scan(iotest.HalfReader(bytes.NewReader(b)), nil) },
		} {
			a, err := a()
			if err != nil {
				t.Errorf("%s, %s: %v", f.File, how, err)
				continue
			}
			diffIDs, digests := f.wants()
			if diff := cmp.Diff(diffIDs, set(a.DiffIDs())); diff != "" {
				t.Errorf("%s, %s: diffIDs (-want +got):\n%s", f.File, how, diff)
			}
			if diff := cmp.Diff(digests, set(a.Digests())); diff != "" {
				t.Errorf("%s, %s: digests (-want +got):\n%s", f.File, how, diff)
			}
			checkReduced(t, f.File+", "+how, b, a)
		}
	}
	if seen < 50 {
		t.Errorf("%d fixtures were looked into, want them all", seen)
	}
}

// checkReduced leaves all layers out, and none.
func checkReduced(t *testing.T, what string, b []byte, a *tarball.Archive) {
	t.Helper()
	whole := entries(t, what, b)
	all, none := a.Without(always, always)
	if len(none) != len(a.Layers) {
		t.Errorf("%s: %d layers of %d are left out", what, len(none), len(a.Layers))
	}
	reduced := entries(t, what, read(t, what, all, b))
	var want []string
	gone := 0
	for _, e := range whole {
		if gone < len(whole)-len(reduced) && !slices.Contains(reduced, e) {
			gone++
			continue
		}
		want = append(want, e)
	}
	if diff := cmp.Diff(want, reduced); diff != "" || gone != len(a.Layers) {
		t.Errorf("%s: %d entries are gone, want %d (-want +got):\n%s", what, gone, len(a.Layers), diff)
	}
	same, _ := a.Without(func(digest.Digest) bool { return false }, func(digest.Digest) bool { return false })
	if diff := cmp.Diff(whole, entries(t, what, read(t, what, same, b))); diff != "" {
		t.Errorf("%s: with every layer (-want +got):\n%s", what, diff)
	}
}

// read reads the tar of the ranges in three ways, which have to be the same.
func read(t *testing.T, what string, r tarball.Ranges, b []byte) []byte {
	t.Helper()
	body := r.Of(bytes.NewReader(b))
	whole, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size+100))
	if err != nil || int64(len(whole)) != body.Size || body.Size != r.Size() {
		t.Fatalf("%s: %d bytes, %v, want %d", what, len(whole), err, body.Size)
	}
	var parts []byte
	for at := int64(0); at < body.Size; at += 700 {
		p := make([]byte, min(700, body.Size-at))
		if n, err := body.ReadAt(p, at); n != len(p) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%s: ReadAt(%d) = %d, %v", what, at, n, err)
		}
		parts = append(parts, p...)
	}
	stream, err := io.ReadAll(r.From(iotest.OneByteReader(bytes.NewReader(b))))
	if err != nil || !bytes.Equal(stream, whole) || !bytes.Equal(parts, whole) {
		t.Fatalf("%s: the ranges of a stream (%d bytes, %v), of a file (%d) and in parts (%d) differ", what, len(stream), err, len(whole), len(parts))
	}
	return whole
}

// entries are names, types and digests of contents.
func entries(t *testing.T, what string, b []byte) []string {
	t.Helper()
	var out []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		d, err := digest.FromReader(r)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		out = append(out, string(h.Typeflag)+" "+h.Name+" "+h.Linkname+" "+d.String())
	}
}

// pack makes a tar of names and contents in turn; "->target" is a link.
func pack(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}
		content := files[i+1]
		if target, ok := strings.CutPrefix(content, "->"); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func scan(b []byte) (*tarball.Archive, error) {
	return tarball.Scan(bytes.NewReader(b), bytes.NewReader(b))
}

const config = `{"rootfs":{"type":"layers","diff_ids":["sha256:aa","sha256:bb"]}}`

// TestALayerGoesOnlyWhenAllAgree is about a file that two images have under
// different diffIDs, and about links to one.
func TestALayerGoesOnlyWhenAllAgree(t *testing.T) {
	t.Parallel()
	a, err := scan(pack(t,
		"x/layer.tar", "->../y/layer.tar", "y/layer.tar", "Y", "z.tar", "Z", "one.json", config,
		"two.json", `{"rootfs":{"type":"layers","diff_ids":["sha256:cc"]}}`,
		"manifest.json", `[{"Config":"one.json","RepoTags":["a/b:1"],"Layers":["x/layer.tar","z.tar"]},{"Config":"two.json","RepoTags":null,"Layers":["./y/layer.tar"]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]digest.Digest{"sha256:aa", "sha256:bb", "sha256:cc"}, set(a.DiffIDs())); diff != "" {
		t.Errorf("diffIDs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a/b:1"}, a.Names); diff != "" || a.Manifests != 2 {
		t.Errorf("names (-want +got):\n%s%d images, want 2", diff, a.Manifests)
	}
	for _, tt := range []struct {
		has  []digest.Digest
		want int
	}{
		{nil, 0}, {[]digest.Digest{"sha256:aa"}, 0}, {[]digest.Digest{"sha256:bb"}, 1}, {[]digest.Digest{"sha256:aa", "sha256:cc"}, 1},
	} {
		_, out := a.Without(func(d digest.Digest) bool { return slices.Contains(tt.has, d) }, always)
		if len(out) != tt.want {
			t.Errorf("with %v at the registry %d layers are left out, want %d", tt.has, len(out), tt.want)
		}
	}
}

func TestWhatIsNotUnderstoodIsAnError(t *testing.T) {
	t.Parallel()
	good := pack(t, "one.json", config, "a", "A", "b", "B", "manifest.json", `[{"Config":"one.json","Layers":["a","b"]}]`)
	if _, err := scan(good); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":              {},
		"no tar":               bytes.Repeat([]byte("x"), 2000),
		"cut":                  good[:1600],
		"no image":             pack(t, "etc/passwd", "root"),
		"a layer is not there": pack(t, "one.json", config, "a", "A", "manifest.json", `[{"Config":"one.json","Layers":["a","b"]}]`),
		"a loop of links":      pack(t, "one.json", config, "a", "->b", "b", "->a", "manifest.json", `[{"Config":"one.json","Layers":["a","b"]}]`),
		"a layer too few":      pack(t, "one.json", config, "a", "A", "manifest.json", `[{"Config":"one.json","Layers":["a"]}]`),
		"a file twice":         pack(t, "one.json", config, "a", "A", "a", "A", "b", "B", "manifest.json", `[{"Config":"one.json","Layers":["a","b"]}]`),
		"no JSON":              pack(t, "manifest.json", "[{"),
	} {
		if a, err := scan(b); err == nil {
			t.Errorf("%s: %+v, want an error", name, a)
		}
	}
}

func FuzzScan(f *testing.F) {
	names, err := filepath.Glob(filepath.Join(fixtureDir, "*", "*.tar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 64<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := scan(b)
		if err != nil {
			return
		}
		ranges, _ := a.Without(always, always)
		body := ranges.Of(bytes.NewReader(b))
		n, err := io.Copy(io.Discard, io.NewSectionReader(body, 0, body.Size))
		if err == nil && n != body.Size || n > body.Size || body.Size > int64(len(b))+1536 {
			t.Errorf("a body of %d bytes out of %d has %d, %v", body.Size, len(b), n, err)
		}
	})
}
