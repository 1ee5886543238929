package archive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

func importRequest(change ...func(*ImportRequest)) ImportRequest {
	q := ImportRequest{Repository: "team/app", Tag: "1"}
	for _, fn := range change {
		fn(&q)
	}
	return q
}

// importFS imports a root file system as team/app:1.
func (r *registry) importFS(tb testing.TB, rootFS []byte, change ...func(*ImportRequest)) (*Result, error) {
	tb.Helper()
	return r.Import(tb.Context(), bytes.NewReader(rootFS), importRequest(change...))
}

func (r *registry) mustImport(tb testing.TB, rootFS []byte, change ...func(*ImportRequest)) Image {
	tb.Helper()
	res, err := r.importFS(tb, rootFS, change...)
	if err != nil {
		tb.Fatalf("Import: %v", err)
	}
	if len(res.Images) != 1 || len(res.Images[0].Layers) != 1 {
		tb.Fatalf("Import = %+v, want one image of one layer", res)
	}
	return res.Images[0]
}

// config reads the config of an image.
func (r *registry) config(tb testing.TB, repository string, im Image) []byte {
	tb.Helper()
	f, b, err := r.store.OpenBlob(tb.Context(), repository, digest.Digest(im.ImageID))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	out := make([]byte, b.Size)
	if _, err := f.Read(out); err != nil {
		tb.Fatal(err)
	}
	return out
}

// rootFSFixture is a root file system that a real tool wrote, and the diffID
// that docker 20.10 and 29 gave it.
type rootFSFixture struct {
	File   string
	Stored string
	DiffID digest.Digest `json:"diff_id"`
}

func rootFSFixtures(tb testing.TB) []rootFSFixture {
	tb.Helper()
	var list []rootFSFixture
	if err := json.Unmarshal(readFile(tb, "testdata", "import/rootfs.json"), &list); err != nil {
		tb.Fatal(err)
	}
	if len(list) < 15 {
		tb.Fatalf("%d root file systems, want all of them", len(list))
	}
	return list
}

func (f rootFSFixture) read(tb testing.TB) []byte {
	tb.Helper()
	return fixture{File: f.File, Stored: f.Stored}.read(tb, "testdata")
}

// TestImportFixtures imports what docker, podman, crane, buildx, bsdtar, cpio
// and GNU tar wrote, in every outer compression, and pulls it. What docker
// cannot unpack, or not keep, is refused.
func TestImportFixtures(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	refused := map[string]string{
		"export/whiteout-named-files.tar":   `"etc/.wh.keep"`,
		"repacked/rootfs-gnutar-sparse.tar": "sparse",
	}
	for i, f := range rootFSFixtures(t) {
		for _, compression := range []string{"", zstded, uncompressed} {
			tag := fmt.Sprintf("%d%s", i, compression)
			res, err := reg.importFS(t, f.read(t), func(q *ImportRequest) { q.Tag, q.Compression = tag, compression })
			if want := refused[f.File]; want != "" {
				if tarport.ErrorCode(err) != tarport.ArchiveInvalid || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: Import = %v, want ARCHIVE_INVALID about %s", f.File, err, want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: Import: %v", f.File, err)
				continue
			}
			im := imageNamed(t, res, "team/app:"+tag)
			if got := im.Layers[0].DiffID; got != f.DiffID {
				t.Errorf("%s: diffID = %s, docker's is %s", f.File, got, f.DiffID)
			}
			reg.pull(t, "team/app", tagRef(tag), im.Manifest)
		}
	}
}

// TestImportConfig compares with the config that engine 29 wrote of the same
// root file system.
func TestImportConfig(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	before := time.Now()
	im := reg.mustImport(t, readFile(t, "testdata", "outer/export.tar.gz"), func(q *ImportRequest) {
		q.Changes, q.Message, q.Platform = []string{`CMD ["/bin/sh"]`, "ENV A=b"}, "imported by 29", "linux/arm64/v8"
	})
	got := decoded(t, reg.config(t, "team/app", im))
	created, err := time.Parse(time.RFC3339Nano, got["created"].(string))
	if err != nil || created.Before(before.Truncate(time.Microsecond)) || created.After(time.Now()) {
		t.Errorf("created = %v, %v, want now", got["created"], err)
	}
	want := decoded(t, []byte(strings.ReplaceAll(`{"created":"CREATED","architecture":"arm64","os":"linux","variant":"v8","rootfs":{"type":"layers","diff_ids":["sha256:c881791a0f3ee47c82c056ab60dc8d89deb2097c1b9a1abbdc409b4942c16a03"]},"history":[{"created":"CREATED","comment":"imported by 29"}],"config":{"Env":["A=b"],"Cmd":["/bin/sh"]},"comment":"imported by 29"}`,
		"CREATED", got["created"].(string))))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-docker 29 with its comment +got):\n%s", diff)
	}
	if im.Platform != "linux/arm64/v8" || im.MediaType != dockerManifest {
		t.Errorf("Import = %+v, want linux/arm64/v8, a Docker manifest", im)
	}
	im = reg.mustImport(t, layerOf("x"), func(q *ImportRequest) { q.Author = "A <a@b>" })
	got = decoded(t, reg.config(t, "team/app", im))
	history := got["history"].([]any)[0].(map[string]any)
	if got["author"] != "A <a@b>" || history["author"] != "A <a@b>" || history["comment"] != "Imported from -" || got["comment"] != "Imported from -" {
		t.Errorf("config = %v, want the author and docker's own comment", got)
	}
}

// TestImportOptionsOfRealEngines has what engines do with message, platform,
// repo and tag. What differs from engine 29 is in docs/import.md.
func TestImportOptionsOfRealEngines(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	rootFS := layerOf("x")
	differ := map[string]tarport.Code{ // where 29 takes it
		"bogus/arch": tarport.Invalid,     // as 20.10 does
		"UPPER/x":    tarport.NameInvalid, // as 20.10 does, and our grammar is that of a registry
	}
	for _, c := range readChanges(t).Options {
		q := importRequest(func(q *ImportRequest) {
			q.Message, q.Platform = c.Query["message"], c.Query["platform"]
			if repo := c.Query["repo"]; repo != "" {
				q.Repository, q.Tag = repo, c.Query["tag"]
			}
		})
		res, err := reg.Import(t.Context(), bytes.NewReader(rootFS), q)
		code := differ[c.Query["platform"]+c.Query["repo"]]
		if c.New.Status >= 400 || code != "" {
			want := strings.ReplaceAll(c.New.Error, `"linux/amd64/v2/extra": cannot parse platform specifier: invalid argument`, "platform=\"linux/amd64/v2/extra\"")
			if got := tarport.ErrorCode(err); got.Status() != 400 || code != "" && got != code || !strings.Contains(err.Error(), want) {
				t.Errorf("Import(%v) = %v, want a 400 with %q", c.Query, err, c.New.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("Import(%v): %v", c.Query, err)
			continue
		}
		im := res.Images[0]
		repository, _, _ := strings.Cut(im.Name, ":")
		got := decoded(t, reg.config(t, repository, im))
		variant, _ := got["variant"].(string)
		architecture := c.New.Architecture
		if !strings.Contains(c.Query["platform"], "/") {
			architecture = runtime.GOARCH
		}
		if got["os"] != c.New.OS || got["architecture"] != architecture || variant != c.New.Variant || got["comment"] != c.New.Comment {
			t.Errorf("Import(%v) = %v, engine 29 made %+v", c.Query, got, c.New)
		}
		if c.Query["tag"] == "2" && im.Name != "ok/x:2" {
			t.Errorf("Import(%v) is named %s, want ok/x:2", c.Query, im.Name)
		}
	}
}

func TestImportNames(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for _, c := range []struct{ repo, tag, want string }{
		{"team/app", "", "team/app:latest"},
		{"team/app:2", "", "team/app:2"},
		{"registry.example.com:5000/team/deep/er/app", "x", "team/deep/er/app:x"},
		{"docker.io/library/app", "", "app:latest"},
		{"my.team/app:1", "", "my.team/app:1"}, // a namespace can have a dot
		{"my.team/deep/app", "", "deep/app:latest"},
		{"localhost:5000/app", "", "app:latest"},
		{"docker.io/app", "", "app:latest"},
	} {
		if im := reg.mustImport(t, layerOf("x"), func(q *ImportRequest) { q.Repository, q.Tag = c.repo, c.tag }); im.Name != c.want {
			t.Errorf("repo=%s tag=%s is named %s, want %s", c.repo, c.tag, im.Name, c.want)
		}
	}
}

func TestImportPlatforms(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":             "linux/" + runtime.GOARCH,
		"LINUX/AMD64":  "linux/amd64",
		"linux/x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "linux/armhf": "linux/arm", "linux/armel": "linux/arm/v6",
		"linux/arm64/v8": "linux/arm64/v8", "macos/arm64": "darwin/arm64", "riscv64": "linux/riscv64", "linux": "linux/" + runtime.GOARCH, "windows/amd64": "windows/amd64",
		"a/b/c/d": "", "/": "", "linux/": "", "linux/pdp11": "", "minix/amd64": "", "linux amd64": "", strings.Repeat("x", 5000): "", "\x1b[31m": "",
	} {
		p, err := importPlatform(s)
		got := imageConfig{os: p.OS, architecture: p.Architecture, variant: p.Variant}.platform()
		if want == "" {
			if tarport.ErrorCode(err) != tarport.Invalid || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("importPlatform(%.50q) = %s, %v, want INVALID", s, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("importPlatform(%q) = %s, %v, want %s", s, got, err, want)
		}
	}
}

// TestImportKnownLayer: a layer that the registry has is not stored again.
func TestImportKnownLayer(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	rootFS := layerOf("x")
	// Of other bytes than ours, at another level.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	packed := enc.EncodeAll(rootFS, nil)
	d := docker("a/b:1", rootFS)
	d.files[d.layer(0)] = packed
	loaded := reg.mustLoad(t, d.pack()).Images[0]
	res, err := reg.importFS(t, rootFS, func(q *ImportRequest) { q.Compression = zstded })
	if err != nil {
		t.Fatal(err)
	}
	im := res.Images[0]
	if got, want := im.Layers[0], loaded.Layers[0]; got.Digest != want.Digest || got.Status != "exists" {
		t.Errorf("layer = %+v, want %s as it is there", got, want.Digest)
	}
	if want := int64(len(reg.config(t, "team/app", im))); res.BytesStored != want || res.BytesRead != int64(len(rootFS)) {
		t.Errorf("Import read %d and stored %d bytes, want %d and %d", res.BytesRead, res.BytesStored, len(rootFS), want)
	}
	reg.pull(t, "team/app", tagRef("1"), im.Manifest)
}

// TestImportProgress has the messages of docker import.
func TestImportProgress(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var got []Message
	rootFS := pack(text("a", noise(2<<20)))
	im := reg.mustImport(t, rootFS, func(q *ImportRequest) {
		q.Size = int64(len(rootFS))
		q.Progress = func(m Message) { got = append(got, m) }
	})
	if len(got) < 2 || got[0].Status != "Importing" || got[0].Progress.Total != int64(len(rootFS)) {
		t.Errorf("messages = %+v, want how far it is", got)
	}
	if last := (Message{Status: im.ImageID}); cmp.Diff(last, got[len(got)-1]) != "" {
		t.Errorf("last message = %+v, want %+v", got[len(got)-1], last)
	}
}

func TestImportEvent(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustImport(t, layerOf("x"))
	var via, tagVia string
	err := reg.sql.QueryRowContext(t.Context(), `SELECT m.pushed_via, t.pushed_via FROM manifests m, tags t`).Scan(&via, &tagVia)
	if err != nil || via != "import" || tagVia != "import" {
		t.Errorf("pushed via %q and %q, %v, want import", via, tagVia, err)
	}
}
