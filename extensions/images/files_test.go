package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

type entries []*tar.Header

// tarOf is a layer; files has the contents by name.
func tarOf(t *testing.T, files map[string]string, list entries) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		h.Size = int64(len(files[h.Name]))
		check(t, w.WriteHeader(h))
		_, err := w.Write([]byte(files[h.Name]))
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	check(t, err)
	check(t, z.Close())
	return out.Bytes()
}

func dir(name string) *tar.Header {
	return &tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}
}

func file(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
}

func symlink(name, target string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
}

// rootedImage pushes an image of two layers, the lower one gzipped.
func (w *world) rootedImage(repository, tag string) (digests []digest.Digest) {
	w.Helper()
	big := strings.Repeat("0123456789abcdef", 1<<14)
	lower := tarOf(w.T, map[string]string{
		"usr/bin/tool": "\x7fELF\x00", "etc/gone": "x", "etc/kept": "kept", "etc/changed": "old", "big": big, "srv/hard": "hard",
	}, entries{
		dir("usr"), dir("usr/bin"), file("usr/bin/tool"), symlink("bin", "usr/bin"), dir("etc"), file("etc/gone"), file("etc/kept"), file("etc/changed"),
		file("big"), symlink("loop", "loop"), symlink("out", "../../etc/kept"), symlink("dangling", "/nowhere"), dir("srv"), file("srv/hard"),
		{Name: "srv/link", Typeflag: tar.TypeLink, Linkname: "srv/hard"},
		{Name: "dev-null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
	})
	upper := tarOf(w.T, map[string]string{"etc/changed": "new\n", "entrypoint.sh": "#!/bin/sh\nexec \"$@\"\n"}, entries{
		file("etc/.wh.gone"), file("etc/changed"), {Name: "entrypoint.sh", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7},
	})
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{
		w.blob(repository, ocispec.MediaTypeImageLayerGzip, packed(w.T, lower)), w.blob(repository, ocispec.MediaTypeImageLayer, upper),
	}}
	var c ocispec.Image
	c.OS, c.Architecture, c.RootFS.Type = "linux", "amd64", "layers"
	c.RootFS.DiffIDs = []digest.Digest{digest.FromBytes(lower), digest.FromBytes(upper)}
	b, err := json.Marshal(c)
	check(w.T, err)
	m.Config = w.blob(repository, ocispec.MediaTypeImageConfig, b)
	w.manifest(repository, tag, m)
	return []digest.Digest{m.Layers[0].Digest, m.Layers[1].Digest}
}

// filesImage pushes an image of one layer.
func (w *world) filesImage(repository, tag string, files map[string]string, list entries) {
	w.Helper()
	plain := tarOf(w.T, files, list)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Layers: []ocispec.Descriptor{w.blob(repository, ocispec.MediaTypeImageLayer, plain)},
	}
	var c ocispec.Image
	c.OS, c.Architecture, c.RootFS = "linux", "amd64", ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}
	b, err := json.Marshal(c)
	check(w.T, err)
	m.Config = w.blob(repository, ocispec.MediaTypeImageConfig, b)
	w.manifest(repository, tag, m)
}

func (w *world) list(repository, ref, at, more string) Listing {
	w.Helper()
	var l Listing
	w.get("/repositories/"+repository+"/-/manifests/"+ref+"/files?path="+url.QueryEscape(at)+more, http.StatusOK, &l)
	return l
}

func names(l Listing) (list []string) {
	for _, f := range l.Items {
		list = append(list, f.Name)
	}
	return list
}

func TestTheFilesOfAnImageAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	layers := w.rootedImage("team/app", "1.0")
	for at, want := range map[string][]string{
		"":            {"big", "bin", "dangling", "dev-null", "entrypoint.sh", "etc", "loop", "out", "srv", "usr"},
		"/etc":        {"changed", "kept"},
		"etc/":        {"changed", "kept"},
		"/bin":        {"tool"}, // a symlink
		"/usr/../etc": {"changed", "kept"},
		"../../etc":   {"changed", "kept"},
		"/etc/kept":   nil,
	} {
		if diff := cmp.Diff(want, names(w.list("team/app", "1.0", at, ""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", at, diff)
		}
	}
	sum := sha256.Sum256([]byte("new\n"))
	for at, want := range map[string]File{
		"/etc/changed":   {Name: "changed", Path: "/etc/changed", Type: "file", Mode: "0644", Size: 4, Links: 1, SHA256: hex.EncodeToString(sum[:]), Layer: 1, Digest: layers[1]},
		"/bin":           {Name: "bin", Path: "/usr/bin", Type: "directory", Mode: "0755", Links: 1, Digest: layers[0]},
		"/dangling":      {Name: "dangling", Path: "/dangling", Type: "symlink", Mode: "0777", Target: "/nowhere", Links: 1, Digest: layers[0]},
		"/dev-null":      {Name: "dev-null", Path: "/dev-null", Type: "character-device", Mode: "0000", Links: 1, Digest: layers[0]},
		"/out":           {Name: "kept", Path: "/etc/kept", Type: "file", Mode: "0644", Size: 4, Links: 1, Digest: layers[0]},
		"/entrypoint.sh": {Name: "entrypoint.sh", Path: "/entrypoint.sh", Type: "file", Mode: "4755", UID: 7, Size: 20, Links: 1, Layer: 1, Digest: layers[1]},
	} {
		got := w.list("team/app", "1.0", at, "").File
		if want.SHA256 == "" {
			got.SHA256 = ""
		}
		want.ModTime = got.ModTime
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", at, diff)
		}
	}
	if got := w.list("team/app", "1.0", "/srv/link", ""); got.Links != 2 || got.Size != 4 {
		t.Errorf("a hard link = %+v, want the file, with two names", got.File)
	}
	if diff := cmp.Diff([]string{"kept"}, names(w.list("team/app", "1.0", "/etc", "&n=1&last=changed"))); diff != "" {
		t.Errorf("the second page (-want +got):\n%s", diff)
	}
	for _, at := range []string{"/etc/gone", "/nowhere", "/loop/x", "/etc/kept/x", "/dangling/x"} {
		if code, _ := w.failure("/repositories/team/app/-/manifests/1.0/files?path="+at, http.StatusNotFound); code != string(tarport.NotFound) {
			t.Errorf("%s: %s, want NOT_FOUND", at, code)
		}
	}
}

// TestPathsLeadWhereTheyDoInAContainer: .. goes up from where a symlink led to,
// and not back over its name.
func TestPathsLeadWhereTheyDoInAContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	long := strings.Repeat("./", maxNames) + "etc/app"
	w.filesImage("team/app", "1.0", map[string]string{"etc/app": "harmless", "usr/etc/app": "what runs", "usr/bin/app": "x"}, entries{
		dir("usr"), dir("usr/bin"), file("usr/bin/app"), dir("usr/etc"), file("usr/etc/app"), dir("etc"), file("etc/app"), symlink("bin", "usr/bin"),
		symlink("config", "bin/../etc/app"), symlink("usr/bin/up", "../../etc/app"), symlink("absolute", "/bin/../../etc/app"), symlink("out", "../../../etc/app"),
		symlink("through", "etc/app/../app"), symlink("long", long), symlink("dots", "./bin/.././etc//app"),
	})
	for at, want := range map[string]string{
		"/config": "what runs", "/dots": "what runs", "bin/../etc/app": "what runs", "/bin/../bin/app": "x", "/usr/../etc/app": "harmless",
		"/absolute": "harmless", "/bin/up": "harmless", "/out": "harmless", "/../etc/./app": "harmless", "/bin/../../../etc/app": "harmless",
	} {
		if got := w.raw(at, "").Body.String(); got != want {
			t.Errorf("%s is %q, want %q", at, got, want)
		}
	}
	for at, status := range map[string]int{"/etc/app/../app": 404, "/none/../etc/app": 404, "/through": 400, "/through/": 404, "/long": 400, "/long/": 404} {
		if rec := w.raw(at, ""); rec.Code != status {
			t.Errorf("%s = %d %s, want %d", at, rec.Code, rec.Body, status)
		}
	}
}

func TestAFileThatTheClientHasIsNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	w.rootedImage("team/app", "1.0")
	etag := w.raw("/etc/kept", "").Header().Get("Etag")
	for none, status := range map[string]int{etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304, `"other"`: 200, "": 200} {
		path := "/repositories/team/app/-/manifests/1.0/files/content?path=/etc/kept"
		rq := httptest.NewRequestWithContext(tarport.WithPrincipal(t.Context(), w.user), http.MethodGet, path, nil)
		rq.Header.Set("If-None-Match", none)
		rec := httptest.NewRecorder()
		w.http.ServeHTTP(rec, rq)
		if rec.Code != status || rec.Header().Get("Etag") != etag || (rec.Body.Len() == 0) != (status == http.StatusNotModified) {
			t.Errorf("If-None-Match: %s = %d with %d bytes, ETag %s; want %d", none, rec.Code, rec.Body.Len(), rec.Header().Get("Etag"), status)
		}
	}
}

// raw asks for a file.
func (w *world) raw(at, more string) *httptest.ResponseRecorder {
	w.Helper()
	path := "/repositories/team/app/-/manifests/1.0/files/content?path=" + url.QueryEscape(at) + more
	rec := httptest.NewRecorder()
	w.http.ServeHTTP(rec, httptest.NewRequestWithContext(tarport.WithPrincipal(w.Context(), w.user), http.MethodGet, path, nil))
	return rec
}

func TestAFileOfAnImageIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	w.rootedImage("team/app", "1.0")
	for _, c := range []struct{ at, more, body, mediaType, disposition string }{
		{"/entrypoint.sh", "", "#!/bin/sh\nexec \"$@\"\n", "text/plain; charset=utf-8", ""},
		{"/etc/changed", "&download=true", "new\n", "text/plain; charset=utf-8", "attachment; filename=changed"},
		{"/out", "", "kept", "text/plain; charset=utf-8", ""},
		{"/bin/tool", "", "\x7fELF\x00", "application/octet-stream", "attachment; filename=tool"},
		{"/srv/link", "", "hard", "text/plain; charset=utf-8", ""},
		{"/big", "", strings.Repeat("0123456789abcdef", 1<<14), "text/plain; charset=utf-8", ""},
	} {
		rec := w.raw(c.at, c.more)
		h := rec.Header()
		if rec.Code != http.StatusOK || rec.Body.String() != c.body {
			t.Errorf("%s = %d with %d bytes, want %d", c.at, rec.Code, rec.Body.Len(), len(c.body))
		}
		if h.Get("Content-Type") != c.mediaType || h.Get("Content-Disposition") != c.disposition || h.Get("Content-Length") != fmt.Sprint(len(c.body)) ||
			h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: header %v", c.at, h)
		}
	}
	for at, status := range map[string]int{"/etc": 400, "/dev-null": 400, "/dangling": 400, "/none": 404, "/loop": 400} {
		if rec := w.raw(at, ""); rec.Code != status {
			t.Errorf("%s = %d %s, want %d", at, rec.Code, rec.Body, status)
		}
	}
}

func TestALayerThatIsNoneIsSaidToBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	w.push("team/app", "1.0", []string{"this is no tar"})
	_, message := w.failure("/repositories/team/app/-/manifests/1.0/files", http.StatusConflict)
	if !strings.Contains(message, "layer 1, sha256:") {
		t.Errorf("message = %q, want one that names the layer", message)
	}
}

// countedTrees counts the trees that are built.
type countedTrees struct {
	*storage.Store
	n int
}

func (c *countedTrees) Tree(ctx context.Context, layers []storage.TreeLayer) (*layer.Tree, error) {
	c.n++
	return c.Store.Tree(ctx, layers)
}

func TestTreesAreKeptAsFarAsThereIsRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	digests := w.rootedImage("team/app", "1.0")
	counted := &countedTrees{Store: w.content}
	made := newTrees(w.content)
	made.store = counted
	for range 3 {
		for _, blobs := range [][]digest.Digest{digests, digests[:1]} {
			tree, err := made.get(t.Context(), blobs)
			check(t, err)
			if _, ok := tree.Lookup("entrypoint.sh"); ok != (len(blobs) == 2) {
				t.Errorf("the tree of %d layers is another's", len(blobs))
			}
		}
	}
	if counted.n != 2 {
		t.Errorf("%d trees were built, want 2", counted.n)
	}
}

// madeTrees makes trees of as many files as there are layers.
type madeTrees struct{ n int }

func (m *madeTrees) Tree(_ context.Context, layers []storage.TreeLayer) (*layer.Tree, error) {
	m.n++
	t, left := layer.NewTree(), len(layers)
	return t, t.Add(func() (layer.Entry, error) {
		if left == 0 {
			return layer.Entry{}, io.EOF
		}
		left--
		return layer.Entry{Path: fmt.Sprint("file", left), Type: tar.TypeReg}, nil
	})
}

// TestALargeTreeIsKeptForAWhile: while somebody looks around in it, and then it
// is gone.
func TestALargeTreeIsKeptForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &madeTrees{}
		made := newTrees(nil)
		made.store, made.room = store, 10
		want := func(what string, layers, built int) {
			t.Helper()
			store.n = 0
			_, err := made.get(t.Context(), make([]digest.Digest, layers))
			check(t, err)
			if store.n != built {
				t.Errorf("%s: %d trees were built, want %d", what, store.n, built)
			}
		}
		want("a small one", 2, 1)
		want("a large one", 20, 1)
		for range 3 {
			<-time.After(keepLarge - time.Second)
			want("a large one that is used", 20, 0)
		}
		want("the small one, for which there was no room", 2, 1)
		want("the large one, for which there was none then", 20, 1)
		<-time.After(keepLarge)
		synctest.Wait()
		if len(made.kept) != 0 {
			t.Errorf("%d trees are kept, want none", len(made.kept))
		}
		want("a small one", 2, 1)
		<-time.After(keepLarge)
		want("a small one after a while", 2, 0)
	})
}

// TestWhoReadsAFileSlowlyHoldsUpNobody: files that were opened and are not read
// on keep no reader of layers, and large ones only each other.
func TestWhoReadsAFileSlowlyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	big := strings.Repeat("x", smallFile+1)
	w.filesImage("team/app", "1.0", map[string]string{"big": big, "small": "small"}, entries{file("big"), file("small")})
	s, err := New(Options{DB: w.db, Content: w.content, Access: access{}})
	check(t, err)
	ctx := tarport.WithPrincipal(t.Context(), w.user)
	q := Query{Repository: "team/app", Reference: tarport.Reference{Tag: "1.0"}}
	var open []io.ReadCloser
	for range maxSends {
		in, _, err := s.Content(ctx, q, "/big")
		check(t, err)
		open = append(open, in)
	}
	if _, _, err := s.Content(ctx, q, "/big"); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("one large file more = %v, want UNAVAILABLE", err)
	}
	for range maxReaders + 1 {
		in, _, err := s.Content(ctx, q, "/small")
		check(t, err)
		open = append(open, in)
	}
	for i, in := range open {
		want := big
		if i >= maxSends {
			want = "small"
		}
		if got, err := io.ReadAll(in); err != nil || string(got) != want {
			t.Errorf("file %d has %d bytes (%v), want %d", i, len(got), err, len(want))
		}
		check(t, in.Close())
	}
	in, _, err := s.Content(ctx, q, "/big")
	check(t, err)
	check(t, in.Close())
}
