package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// exported is the file system of an image, checked for what is true of every
// export: it is as long as it said, and each time the same.
func (r *registry) exported(tb testing.TB, q ExportRequest) []byte {
	tb.Helper()
	x, err := r.newExport(tb.Context(), q)
	if err != nil {
		tb.Fatalf("Export(%s): %v", q.Image, err)
	}
	defer x.close()
	var b, again bytes.Buffer
	if err := x.writeTo(tb.Context(), &b); err != nil {
		tb.Fatalf("Export(%s): %v", q.Image, err)
	}
	if int64(b.Len()) != x.size {
		tb.Errorf("the export of %s has %d bytes, want %d as it said", q.Image, b.Len(), x.size)
	}
	x.close()
	if err := r.Export(tb.Context(), &again, q); err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) {
		tb.Errorf("the export of %s is another one the second time (%v)", q.Image, err)
	}
	return b.Bytes()
}

// found is an entry of an export.
type found struct {
	header  *tar.Header
	content []byte
}

// listing are the entries of a tar, in order. No name comes twice, before its
// directory, or as a link before what it is of.
func listing(tb testing.TB, b []byte) []found {
	tb.Helper()
	var list []found
	seen := map[string]byte{".": tar.TypeDir}
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			tb.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			tb.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if seen[name] != 0 || seen[path.Dir(name)] != tar.TypeDir || h.Typeflag == tar.TypeLink && seen[h.Linkname] == 0 {
			tb.Errorf("%s (%q, %s) comes twice or too early", h.Name, h.Typeflag, h.Linkname)
		}
		seen[name] = h.Typeflag
		list = append(list, found{h, content})
	}
}

// TestExportIsWhatDockerExports compares with what docker exported from
// containers, and with the tree that an independent reader found in the images
// that docker committed from them.
func TestExportIsWhatDockerExports(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"simple", "exotic", "docker29"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var expect struct {
				Tree         map[string]treeEntry `json:"tree_after"`
				Groups       [][]string           `json:"hardlink_groups_after"`
				DockersOwn   map[string]any       `json:"export_minus_committed"`
				CommittedTar string               `json:"committed"`
			}
			if err := json.Unmarshal(readFile(t, "testdata", "commit/"+name+".expect.json"), &expect); err != nil {
				t.Fatal(err)
			}
			for name, e := range expect.Tree { // as Python writes what is not UTF-8
				if strings.Contains(name, `\xe9`) {
					delete(expect.Tree, name)
					expect.Tree[strings.ReplaceAll(name, `\xe9`, "\xe9")] = e
				}
			}
			reg := newRegistry(t)
			res := reg.mustLoad(t, readFile(t, "testdata", "commit/"+name+".committed.tar.zst"))
			got := listing(t, reg.exported(t, ExportRequest{Image: res.Images[0].Name}))
			tree, groups := treeOf(got)
			if diff := cmp.Diff(expect.Tree, tree); diff != "" {
				t.Errorf("the tree (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(expect.Groups, groups); diff != "" {
				t.Errorf("hard links (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(headers(listing(t, unzstd(t, "commit/"+name+".export.tar.zst")), expect.DockersOwn), headers(got, expect.DockersOwn)); diff != "" {
				t.Errorf("the headers, in order (-docker +got):\n%s", diff)
			}
		})
	}
}

func unzstd(tb testing.TB, file string) []byte {
	tb.Helper()
	r, err := layer.Decompress(bytes.NewReader(readFile(tb, "testdata", file)), zstded, 128<<20)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// headers are all that a header says, but for the times of directories, which
// Docker's own entries change, the bits of the type in the mode, and the name of
// root, which Docker 29 leaves out.
func headers(list []found, dockersOwn map[string]any) []string {
	var out []string
	for _, f := range list {
		h := f.header
		if _, own := dockersOwn[strings.TrimSuffix(h.Name, "/")]; own {
			continue
		}
		when := strconv.FormatInt(h.ModTime.Unix(), 10)
		if h.Typeflag == tar.TypeDir {
			when = ""
		}
		out = append(out, fmt.Sprintf("%q %s %o %d %d %d %s %q %d %d %x", h.Typeflag, h.Name, h.Mode&0o7777, h.Uid, h.Gid,
			h.Size, when, h.Linkname, h.Devmajor, h.Devminor, h.PAXRecords[layer.CapabilityRecord]))
	}
	return out
}

// treeEntry is an entry as the fixtures' reader writes it.
type treeEntry struct {
	Type   string            `json:"type"`
	Mode   string            `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	ModUTC int64             `json:"mtime"`
	Link   string            `json:"link"`
	SHA256 string            `json:"sha256"`
	Size   int64             `json:"size"`
	Dev    []int64           `json:"dev"`
	Xattrs map[string]string `json:"xattrs_base64"`
}

func treeOf(list []found) (map[string]treeEntry, [][]string) {
	kinds := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeBlock: "block", tar.TypeChar: "char", tar.TypeFifo: "fifo"}
	tree, names := map[string]treeEntry{}, map[string][]string{}
	for _, f := range list {
		h := f.header
		name := strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeLink {
			tree[name] = tree[h.Linkname]
			names[h.Linkname] = append(names[h.Linkname], name)
			continue
		}
		e := treeEntry{Type: kinds[h.Typeflag], Mode: fmt.Sprintf("0o%o", h.Mode&0o7777), UID: h.Uid, GID: h.Gid, ModUTC: h.ModTime.Unix(), Link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeDir:
			e.ModUTC = 0
		case tar.TypeReg:
			s := sha256.Sum256(f.content)
			e.SHA256, e.Size = hex.EncodeToString(s[:]), h.Size
		case tar.TypeBlock, tar.TypeChar:
			e.Dev = []int64{h.Devmajor, h.Devminor}
		}
		if c := h.PAXRecords[layer.CapabilityRecord]; c != "" {
			e.Xattrs = map[string]string{"security.capability": base64.StdEncoding.EncodeToString([]byte(c))}
		}
		tree[name] = e
	}
	groups := [][]string{}
	for first, others := range names {
		groups = append(groups, append([]string{first}, others...))
	}
	slices.SortFunc(groups, slices.Compare[[]string])
	return tree, groups
}

func dir(name string) entry { return entry{name: name + "/", typ: tar.TypeDir} }

func TestExportOfLayers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		layers [][]entry
		want   string // in order; a file with its content
		loose  bool   // not in the order of the names
	}{
		{name: "no layer"},
		{name: "one layer", layers: [][]entry{{dir("etc"), text("etc/a", "1"), symlink("etc/b", "/x"), hardlink("etc/c", "etc/a")}}, want: "etc/ etc/a=1 etc/b->/x etc/c=>etc/a"},
		{name: "replaced", layers: [][]entry{{text("a", "1"), text("b", "1")}, {text("a", "2")}}, want: "a=2 b=1"},
		{name: "whiteout", layers: [][]entry{{dir("d"), text("d/a", "1"), text("d/b", "1")}, {text("d/.wh.a", "")}}, want: "d/ d/b=1"},
		{name: "whiteout of a directory", layers: [][]entry{{dir("d"), text("d/a", "1")}, {text(".wh.d", "")}, {text("e", "")}}, want: "e="},
		{name: "whiteout and again", layers: [][]entry{{text("a", "1")}, {text(".wh.a", "")}, {text("a", "3")}}, want: "a=3"},
		{name: "whiteout of its own layer's", layers: [][]entry{{text("a", "1")}, {text("a", "2"), text(".wh.a", "")}}, want: "a=2"},
		{name: "opaque", layers: [][]entry{{dir("d"), text("d/a", "1"), dir("d/e"), text("d/e/f", "1")}, {dir("d"), text("d/b", "2"), text("d/.wh..wh..opq", "")}}, want: "d/ d/b=2"},
		{name: "file over directory", layers: [][]entry{{dir("d"), text("d/a", "1")}, {text("d", "2")}}, want: "d=2"},
		{name: "directory over file", layers: [][]entry{{text("d", "1")}, {dir("d"), text("d/a", "2")}}, want: "d/ d/a=2"},
		{name: "directory over directory", layers: [][]entry{{dir("d"), text("d/a", "1")}, {dir("d"), text("d/b", "2")}}, want: "d/ d/a=1 d/b=2"},
		{name: "implied directories", layers: [][]entry{{text("x/y/z", "1")}}, want: "x/ x/y/ x/y/z=1"},
		{name: "names of all kinds", layers: [][]entry{{text("./a", "1"), text("/b", "2"), dir("./c/"), text("c//d", "3")}}, want: "a=1 b=2 c/ c/d=3"},
		{name: "order of docker's walk", layers: [][]entry{{dir("a"), text("a/b", "1"), text("a-b", "2"), text("a.b", "3")}}, want: "a/ a/b=1 a-b=2 a.b=3"},
		{name: "the last one counts", layers: [][]entry{{text("a", "1"), text("b", "1"), text("a", "2")}}, want: "b=1 a=2", loose: true},

		{name: "link to a layer below", layers: [][]entry{{text("a", "1")}, {hardlink("b", "a")}}, want: "a=1 b=>a"},
		{name: "link whose target is deleted", layers: [][]entry{{text("a", "1")}, {hardlink("b", "a")}, {text(".wh.a", "")}}, want: "b=1"},
		{name: "link whose target is replaced", layers: [][]entry{{text("b", "1")}, {hardlink("a", "b")}, {text("b", "2")}}, want: "a=1 b=2"},
		{name: "links of what is gone", layers: [][]entry{{text("a", "1")}, {hardlink("b", "a"), hardlink("c", "a")}, {text(".wh.a", "")}}, want: "b=1 c=>b"},
		{name: "link with the smaller name", layers: [][]entry{{text("b", "1"), hardlink("a", "b")}}, want: "a=1 b=>a"},
		{name: "link to an empty file", layers: [][]entry{{text("b", "")}, {hardlink("a", "b")}}, want: "a= b=>a"},
		{name: "link to a symlink", layers: [][]entry{{symlink("b", "x")}, {hardlink("a", "b")}}, want: "a->x b=>a"},

		{name: "another order", layers: [][]entry{{text("z", "1"), dir("d"), text("d/b", "2"), text("d/a", "3"), hardlink("y", "z"), text("empty", "")}}, want: "d/ empty= y=1 z=>y d/b=2 d/a=3", loose: true},
		{name: "another order in one of two", layers: [][]entry{{text("z", "1"), text("a", "1")}, {text("b", "2"), text("c", "2")}}, want: "z=1 a=1 b=2 c=2", loose: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			var layers [][]byte
			for _, l := range c.layers {
				layers = append(layers, pack(l...))
			}
			l := newLayout()
			reg.mustLoad(t, l.root(l.image("amd64", layers...), "team/app:1").pack())
			var got []string
			for _, f := range listing(t, reg.exported(t, ExportRequest{Image: "team/app:1"})) {
				s := f.header.Name
				switch f.header.Typeflag {
				case tar.TypeReg:
					s += "=" + string(f.content)
				case tar.TypeSymlink:
					s += "->" + f.header.Linkname
				case tar.TypeLink:
					s += "=>" + f.header.Linkname
				}
				got = append(got, s)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("Export = %s, want %s", got, c.want)
			}
			x, err := reg.newExport(t.Context(), ExportRequest{Image: "team/app:1"})
			if err != nil || x.sorted == c.loose {
				t.Errorf("sorted = %v, %v, want %v", x.sorted, err, !c.loose)
			}
		})
	}
}

// TestExportTakesAFewZstdLayersAtATime: many are read one after the other.
func TestExportTakesAFewZstdLayersAtATime(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	var layers [][]byte
	for i := range maxOpenZstd + 1 {
		layers = append(layers, pack(text(fmt.Sprintf("a%d", i), "x"), text(fmt.Sprintf("b%d", i), strings.Repeat("y", i+1))))
	}
	for i, want := range []string{"a0 a1 a2 a3 b0 b1 b2 b3", "a0 b0 a1 b1 a2 b2 a3 b3 a4 b4"} {
		l := newLayout()
		var ds []ocispec.Descriptor
		for _, b := range layers[:maxOpenZstd+i] {
			ds = append(ds, l.blob(ocispec.MediaTypeImageLayerZstd, zst(b)))
		}
		m := l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf("amd64", layers[:maxOpenZstd+i]...)), ds...)
		reg.mustLoad(t, l.root(m, "team/app:1").pack())
		var got []string
		for _, f := range listing(t, reg.exported(t, ExportRequest{Image: "team/app:1"})) {
			got = append(got, f.header.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("Export of %d zstd layers = %v, want %s", maxOpenZstd+i, got, want)
		}
	}
}

// TestExportFillsHoles: a sparse file of PAX 1.0, as GNU tar and bsdtar write
// it, comes out whole.
func TestExportFillsHoles(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	body := []byte("1\n1000\n3\n" + strings.Repeat("\x00", 512-9) + "abc")
	l := pack(entry{name: "GNUSparseFile.0/hole", body: body, pax: map[string]string{
		"XXX.sparse.major": "1", "XXX.sparse.minor": "0", "XXX.sparse.name": "hole", "XXX.sparse.realsize": "2000",
	}}, text("z", "after"))
	l = bytes.ReplaceAll(l, []byte("XXX.sparse."), []byte("GNU.sparse.")) // Go does not write such records
	lay := newLayout()
	reg.mustLoad(t, lay.root(lay.image("amd64", l), "team/app:1").pack())
	list := listing(t, reg.exported(t, ExportRequest{Image: "team/app:1"}))
	want := append(append(make([]byte, 1000), "abc"...), make([]byte, 997)...)
	if len(list) != 2 || list[0].header.Name != "hole" || !bytes.Equal(list[0].content, want) || string(list[1].content) != "after" {
		t.Errorf("Export = %d entries, of which the first is %s with %d bytes", len(list), list[0].header.Name, len(list[0].content))
	}
}

func TestExportMakesIndexesAgain(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("app:1", layerOf("x"), layerOf("y")).pack())
	q := ExportRequest{Image: "team/app:1"}
	want := reg.exported(t, q)
	var indexes []string
	for file := range reg.state(t) {
		if strings.Contains(file, "/tarport/layers/") {
			indexes = append(indexes, strings.TrimPrefix(file, "file "))
		}
	}
	if len(indexes) != 2 {
		t.Fatalf("%d indexes, want 2", len(indexes))
	}
	for _, damage := range []func(string) error{
		os.Remove,
		func(f string) error { return os.Truncate(f, 20) },
		func(f string) error { return os.WriteFile(f, []byte("nothing of the sort"), 0o600) },
	} {
		for _, f := range indexes {
			if err := damage(f); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(reg.exported(t, q), want) {
			t.Error("the export is another one after its indexes were damaged")
		}
	}
}

func TestExportRefuses(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	l := newLayout()
	multi(l, gz1, "arm64", "s390x")
	lying := configOf("amd64", layerOf("what it says"))
	reg.mustLoad(t, l.pack())
	push(t, reg, "team/lying", "1", lying, gz(layerOf("what it has")))
	push(t, reg, "team/dangling", "1", configOf("amd64", pack(hardlink("a", "nothing"))), gz(pack(hardlink("a", "nothing"))))
	reg.mustLoad(t, fixtureNamed(t, "oci/oras-artifact-layout.tar"), func(q *LoadRequest) { q.Repository = "artifact" })
	for _, c := range []struct {
		q    ExportRequest
		code tarport.Code
		text string
	}{
		{ExportRequest{}, tarport.Invalid, "say which image"},
		{ExportRequest{Image: "team/none:1"}, tarport.ManifestUnknown, ""},
		{ExportRequest{Image: "team/app:1"}, tarport.Invalid, "choose one with platform= (linux/arm64, linux/s390x)"},
		{ExportRequest{Image: "team/app:1", Platform: "linux/amd64"}, tarport.ManifestUnknown, "it has no platform linux/amd64"},
		{ExportRequest{Image: "team/artifact:1"}, tarport.Invalid, "takes images only"},
		{ExportRequest{Image: "team/lying:1"}, tarport.Conflict, "no client can pull"},
		{ExportRequest{Image: "team/dangling:1"}, tarport.Conflict, "hard link"},
	} {
		var b bytes.Buffer
		err := reg.Export(t.Context(), &b, c.q)
		if tarport.ErrorCode(err) != c.code || !strings.Contains(err.Error(), c.text) || b.Len() > 0 {
			t.Errorf("Export(%+v) = %v with %d bytes, want %s with %q", c.q, err, b.Len(), c.code, c.text)
		}
	}
}

func TestHTTPExport(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, func(o *Options) { o.Compression = "none" })
	reg.mustLoad(t, docker("app:1", layerOf(noise(300_000)), pack(text("top", "1"))).pack())
	target := strings.Replace(serve(t, reg.Service), "/load", "/export", 1) + "?image=team/app:1"
	resp, body, err := fetch(t, http.MethodGet, target)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(body)) || resp.Header.Get("Content-Type") != "application/x-tar" {
		t.Fatalf("GET = %d, %d bytes of %d, %v: %.200s", resp.StatusCode, len(body), resp.ContentLength, err, body)
	}
	if got := resp.Header.Get("Content-Disposition"); got != `attachment; filename="team-app-1-rootfs.tar"` {
		t.Errorf("Content-Disposition = %s", got)
	}
	if n := len(listing(t, body)); n != 3 {
		t.Errorf("%d entries, want etc, its file, and top", n)
	}
	if resp, _, _ := fetch(t, http.MethodHead, target); resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(body)) {
		t.Errorf("HEAD = %d, %d", resp.StatusCode, resp.ContentLength)
	}
	if resp, body, _ := fetch(t, http.MethodGet, target+"9"); resp.StatusCode != http.StatusNotFound || resp.Header.Get("Content-Disposition") != "" {
		t.Errorf("GET of another = %d %s", resp.StatusCode, body)
	}
	// A layer that was damaged in its middle ends the connection.
	for file, size := range reg.state(t) {
		if name := strings.TrimPrefix(file, "file "); size > 300_000 {
			b := readFile(t, "/", name)
			b[200_000] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	resp, body, err = fetch(t, http.MethodGet, target)
	if resp.StatusCode != http.StatusOK || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("GET of a damaged layer = %d with %d bytes, %v, want an unexpected end", resp.StatusCode, len(body), err)
	}
}

// push makes an image as a client that lies can push it: nobody has looked into
// its layer.
func push(tb testing.TB, reg *registry, repository, tag string, config, layer []byte) {
	tb.Helper()
	b, err := reg.store.NewBatch(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Close()
	l := newLayout()
	c, d := l.blob(ocispec.MediaTypeImageConfig, config), l.blob(ocispec.MediaTypeImageLayerGzip, layer)
	m := l.manifest(c, d)
	for _, data := range [][]byte{config, layer} {
		w, err := b.Create(tb.Context())
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			_, err = w.Finish()
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	put := storage.ManifestPut{
		Repository: repository, MediaType: m.MediaType, Payload: l.blobs[blobName(m.Digest)], Tags: []string{tag},
		Blobs: []storage.BlobLink{{Descriptor: c}, {Descriptor: d}},
	}
	if _, err := b.Commit(tb.Context(), []storage.ManifestPut{put}); err != nil {
		tb.Fatal(err)
	}
}

// TestExportsShareTheMemory: a large one is told to come again where there are
// others, and none keeps what it held.
func TestExportsShareTheMemory(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("app:1", pack(text("a", "1"))).pack())
	others := &export{s: reg.Service}
	if err := others.hold(maxPaths, 1); err != nil {
		t.Fatalf("hold = %v of one that is alone", err)
	}
	large := &export{s: reg.Service}
	if err := large.hold(smallExport+1, 1); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("hold = %v, want UNAVAILABLE", err)
	}
	large.close()
	reg.exported(t, ExportRequest{Image: "team/app:1"}) // small ones go on
	if got := reg.paths.Load(); got != maxPaths {
		t.Errorf("%d paths are held after an export, want %d as before", got, int64(maxPaths))
	}
}

// TestExportsAreBoundedTogether: also small ones, and what zstd layers need, since
// clients may take as long as they like. What ends gives all of it back.
func TestExportsAreBoundedTogether(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	layer := pack(text("a", "1"), text("b", "2"))
	push(t, reg, "team/plain", "1", configOf("amd64", layer), layer)
	push(t, reg, "team/zstd", "1", configOf("amd64", layer), zst(layer))
	reg.small, reg.windows = places.NewRoom(2*3, "paths"), places.NewRoom(2, "windows") // half of it for strangers
	for _, c := range []struct{ image, busy string }{{"team/plain:1", "paths"}, {"team/zstd:1", "windows"}} {
		q := ExportRequest{Image: c.image}
		x, err := reg.newExport(t.Context(), q)
		if err != nil {
			t.Fatalf("newExport of %s: %v", c.image, err)
		}
		if c.busy == "windows" {
			x.small.Leave()
		}
		if err := reg.Export(t.Context(), io.Discard, q); tarport.ErrorCode(err) != tarport.Unavailable || !strings.Contains(err.Error(), c.busy) {
			t.Errorf("a second export of %s = %v, want UNAVAILABLE, %s", c.image, err, c.busy)
		}
		x.close()
		reg.exported(t, q)
	}
}
