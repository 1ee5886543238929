package archive

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// fixture is an archive that a real tool made (those in hand/ are written
// after a tool's sources), and what is in it by an independent reader.
type fixture struct {
	File   string `json:"file"`
	Stored string `json:"stored"` // where it lies, if it was compressed to save space here
	Kind   string `json:"kind"`
	Docker []struct {
		Names   []string        `json:"names"`
		Config  string          `json:"config"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"docker_images"`
	OCI []fixtureManifest `json:"oci_manifests"`
}

type fixtureManifest struct {
	Digest      digest.Digest     `json:"digest"`
	MediaType   string            `json:"media_type"`
	Annotations map[string]string `json:"annotations"`
	Manifests   []fixtureManifest `json:"manifests"`
	Config      string            `json:"config"`
	DiffIDs     []digest.Digest   `json:"diff_ids"`
	Platform    string            `json:"platform"`
	Subject     digest.Digest     `json:"subject"`
	Layers      []digest.Digest   `json:"layers"`
}

// fixtures reads the list.
func fixtures(tb testing.TB) (string, []fixture) {
	tb.Helper()
	dir := "testdata"
	b, err := os.ReadFile(filepath.Join(dir, "fixtures.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var list []fixture
	if err := json.Unmarshal(b, &list); err != nil {
		tb.Fatal(err)
	}
	if len(list) < 70 {
		tb.Fatalf("%d fixtures, want all of them", len(list))
	}
	return dir, list
}

func (f fixture) read(tb testing.TB, dir string) []byte {
	tb.Helper()
	if f.Stored == "" {
		return readFile(tb, dir, f.File)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(readFile(tb, dir, f.Stored), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func readFile(tb testing.TB, dir, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func fixtureNamed(tb testing.TB, file string) []byte {
	tb.Helper()
	dir, list := fixtures(tb)
	for _, f := range list {
		if f.File == file {
			return f.read(tb, dir)
		}
	}
	tb.Fatalf("no fixture %s", file)
	return nil
}

// nameIn is where a name of an archive goes in a namespace, by the rule of the
// API and nothing of the code under test.
func nameIn(ns, name string) string {
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	name, _, _ = strings.Cut(name, "@")
	return ns + "/" + strings.TrimPrefix(strings.TrimPrefix(name, "library/"), ns+"/")
}

// wantName is the name that a manifest of index.json gets; fallback is repo=.
func (m fixtureManifest) wantName(ns string) string {
	full, ref := m.Annotations["io.containerd.image.name"], m.Annotations["org.opencontainers.image.ref.name"]
	switch {
	case full != "":
		return nameIn(ns, full)
	case strings.ContainsAny(ref, "/:"):
		return nameIn(ns, ref)
	case ref != "":
		return ns + "/fallback:" + ref
	}
	return ns + "/fallback:latest"
}

// nameless tells whether an image of the fixture says no repository.
func (f fixture) nameless() bool {
	for _, m := range f.OCI {
		if m.Subject == "" && strings.HasPrefix(m.wantName("team"), "team/fallback:") {
			return true
		}
	}
	return slices.ContainsFunc(f.Docker, func(im struct {
		Names   []string        `json:"names"`
		Config  string          `json:"config"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	},
	) bool {
		return len(im.Names) == 0
	})
}

// TestFixtures loads what docker (20.10, 28, 29 on both stores), podman,
// skopeo, buildx, regctl, oras, umoci, crane and others wrote, and pulls it.
// All goes into one registry, each archive into a namespace of its own: what
// one has brought, the next one finds.
func TestFixtures(t *testing.T) {
	t.Parallel()
	dir, list := fixtures(t)
	reg := newRegistry(t)
	for i, f := range list {
		t.Run(f.File, func(t *testing.T) {
			t.Parallel()
			ns := "team" + strconv.Itoa(i)
			if f.refused() {
				ns = "refused"
			}
			res, err := reg.load(t, f.read(t, dir), func(q *LoadRequest) {
				q.Namespace = ns
				if f.nameless() {
					q.Repository = "fallback"
				}
			})
			if f.refused() {
				if got := tarport.ErrorCode(err); got != tarport.ArchiveInvalid {
					t.Fatalf("Load = %v, want ARCHIVE_INVALID", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Load: %v", err)
			}
			f.checkDocker(t, reg, ns, res)
			for _, m := range f.OCI {
				m.check(t, reg, ns, res)
			}
		})
	}
}

// refused tells of the archives that hold no image.
func (f fixture) refused() bool {
	return f.Kind == "rootfs" || f.Kind == "docker-archive-v1-legacy"
}

// TestRefusedFixturesLeaveNothing sends what is no image archive.
func TestRefusedFixturesLeaveNothing(t *testing.T) {
	t.Parallel()
	dir, list := fixtures(t)
	reg := newRegistry(t)
	before := reg.state(t)
	wants := map[string]string{
		"hand/docker-1.7-v1-legacy.tar":           "before 1.10",
		"repacked/oci-gnutar-in-subdirectory.tar": `the directory "o/"`,
		"repacked/rootfs-gnutar-absolute.tar":     "use archives/import",
		"repacked/rootfs-gnutar-sparse.tar":       "use archives/import",
		"outer/export.tar.xz":                     "use archives/import",
		"crane/export-flat.tar":                   "use archives/import",
		"buildx/rootfs.tar":                       "use archives/import",
	}
	for _, f := range list {
		if !f.refused() {
			continue
		}
		_, err := reg.load(t, f.read(t, dir), func(q *LoadRequest) { q.Repository = "x" })
		if e, ok := errors.AsType[*tarport.Error](err); !ok || wants[f.File] == "" || !strings.Contains(e.Message, wants[f.File]) {
			t.Errorf("Load(%s) = %v, want an error about %q", f.File, err, wants[f.File])
		}
		if diff := cmp.Diff(before, reg.state(t)); diff != "" {
			t.Errorf("%s left something (-before +after):\n%s", f.File, diff)
		}
		delete(wants, f.File)
	}
	if len(wants) > 0 {
		t.Errorf("fixtures not seen: %v", wants)
	}
}

func (f fixture) checkDocker(t *testing.T, reg *registry, ns string, res *Result) {
	t.Helper()
	for _, want := range f.Docker {
		names := slices.Clone(want.Names)
		for i := range names {
			names[i] = nameIn(ns, names[i])
		}
		if len(names) == 0 {
			names = []string{ns + "/fallback:latest"}
		}
		for _, n := range names {
			im := imageNamed(t, res, n)
			i := slices.IndexFunc(append([]Manifest{im.Manifest}, im.Manifests...), func(m Manifest) bool { return m.ImageID == want.Config })
			if i < 0 {
				t.Errorf("image %s = %s, want one with the config %s", n, im.ImageID, want.Config)
				continue
			}
			got := append([]Manifest{im.Manifest}, im.Manifests...)[i]
			if diff := cmp.Diff(want.DiffIDs, diffIDs(got)); diff != "" {
				t.Errorf("diffIDs of %s (-want +got):\n%s", n, diff)
			}
			repository, tag, _ := strings.Cut(n, ":")
			reg.pull(t, repository, tagRef(tag), im.Manifest)
			reg.pull(t, repository, digestRef(got.Digest), got)
		}
	}
}

func (m fixtureManifest) check(t *testing.T, reg *registry, ns string, res *Result) {
	t.Helper()
	i := slices.IndexFunc(res.Images, func(im Image) bool { return im.Digest == m.Digest })
	if i < 0 {
		t.Fatalf("no image with the manifest %s", m.Digest)
	}
	im := res.Images[i]
	if m.Subject == "" {
		im = imageNamed(t, res, m.wantName(ns))
	}
	repository, _, _ := strings.Cut(strings.TrimSuffix(im.Name, "@"+im.Digest.String()), ":")
	m.checkOne(t, reg, repository, im.Manifest)
	for _, child := range m.Manifests {
		i := slices.IndexFunc(im.Manifests, func(c Manifest) bool { return c.Digest == child.Digest })
		if i < 0 {
			t.Errorf("index %s has no manifest %s", m.Digest, child.Digest)
			continue
		}
		child.checkOne(t, reg, repository, im.Manifests[i])
	}
	if m.Subject != "" {
		list, _, err := reg.store.Referrers(t.Context(), repository, m.Subject, "", 100, "")
		if err != nil || !slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, m.Digest.String()) }) {
			t.Errorf("Referrers(%s) = %v, %v, want %s among them", m.Subject, list, err, m.Digest)
		}
	}
}

func (m fixtureManifest) checkOne(t *testing.T, reg *registry, repository string, got Manifest) {
	t.Helper()
	if got.Digest != m.Digest || got.MediaType != m.MediaType {
		t.Errorf("manifest = %s (%s), want %s (%s)", got.Digest, got.MediaType, m.Digest, m.MediaType)
	}
	if len(m.DiffIDs) > 0 {
		if got.ImageID != m.Config || got.Platform != m.Platform {
			t.Errorf("image %s = config %s, platform %s, want %s, %s", m.Digest, got.ImageID, got.Platform, m.Config, m.Platform)
		}
		if diff := cmp.Diff(m.DiffIDs, diffIDs(got)); diff != "" {
			t.Errorf("diffIDs of %s (-want +got):\n%s", m.Digest, diff)
		}
		var layers []digest.Digest
		for _, l := range got.Layers {
			layers = append(layers, l.Digest)
		}
		if diff := cmp.Diff(m.Layers, layers); diff != "" {
			t.Errorf("layers of %s (-want +got):\n%s", m.Digest, diff)
		}
	}
	reg.pull(t, repository, digestRef(m.Digest), got)
}

func diffIDs(m Manifest) []digest.Digest {
	out := []digest.Digest{}
	for _, l := range m.Layers {
		out = append(out, l.DiffID)
	}
	return out
}
