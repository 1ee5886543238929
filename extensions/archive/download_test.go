package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// saveURL is the address of an archive on a server of serve.
func saveURL(base string, images ...string) string {
	return strings.Replace(base, "/load", "/save", 1) + "?" + url.Values{"image": images}.Encode()
}

// fetch sends a request and returns the answer, read.
func fetch(tb testing.TB, method, target string, header ...string) (*http.Response, []byte, error) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, target, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

func TestHTTPSave(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("app:1.0", layerOf(noise(150_000)), layerOf("x")).add("b/web:2", layerOf("y")).pack())
	base := serve(t, reg.Service)
	target := saveURL(base, "team/app:1.0", "team/b/web:2")
	resp, whole, err := fetch(t, http.MethodGet, target)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(whole)) || len(whole) < 80_000 {
		t.Fatalf("GET = %d with %d bytes of %d: %v\n%.200s", resp.StatusCode, len(whole), resp.ContentLength, err, whole)
	}
	etag := resp.Header.Get("Etag")
	for k, want := range map[string]string{
		"Content-Type": "application/x-tar", "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache",
		"Content-Disposition": `attachment; filename="team-app-1.0-and-1-more.tar"`, "Warning": "",
	} {
		if got := resp.Header.Get(k); got != want {
			t.Errorf("%s = %q, want %q", k, got, want)
		}
	}
	if len(entries(t, whole)) < 10 || len(etag) < 20 || strings.HasPrefix(etag, "W/") {
		t.Errorf("the archive has the entries %d and the ETag %s", len(entries(t, whole)), etag)
	}
	n := len(whole)
	span := func(from, to int) string { return fmt.Sprintf("bytes %d-%d/%d", from, to-1, n) }
	for _, c := range []struct {
		name, method string
		header       []string
		status       int
		from, to     int
	}{
		{"HEAD", http.MethodHead, nil, 200, 0, 0},
		{"the same", http.MethodGet, []string{"If-None-Match", etag}, 304, 0, 0},
		{"another", http.MethodGet, []string{"If-None-Match", `"x"`}, 200, 0, n},
		{"resumed", http.MethodGet, []string{"Range", "bytes=70001-"}, 206, 70001, n},
		{"resumed safely", http.MethodGet, []string{"Range", "bytes=70001-", "If-Range", etag}, 206, 70001, n},
		{"resumed, but another", http.MethodGet, []string{"Range", "bytes=70001-", "If-Range", `"x"`}, 200, 0, n},
		{"the beginning", http.MethodGet, []string{"Range", "bytes=0-0"}, 206, 0, 1},
		{"the end", http.MethodGet, []string{"Range", "bytes=-1500"}, 206, n - 1500, n},
		{"two ranges", http.MethodGet, []string{"Range", "bytes=0-1,5-6"}, 200, 0, n},
		{"behind the end", http.MethodGet, []string{"Range", fmt.Sprintf("bytes=%d-", n)}, 416, 0, 0},
	} {
		resp, body, err := fetch(t, c.method, target, c.header...)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s = %d, %v, want %d", c.name, resp.StatusCode, err, c.status)
			continue
		}
		if c.status < 300 && !bytes.Equal(body, whole[c.from:c.to]) {
			t.Errorf("%s: the body is not what lies at %d to %d", c.name, c.from, c.to)
		}
		if got := resp.Header.Get("Content-Range"); c.status == 206 && got != span(c.from, c.to) {
			t.Errorf("%s: Content-Range = %s, want %s", c.name, got, span(c.from, c.to))
		}
		if c.method == http.MethodHead && resp.ContentLength != int64(n) {
			t.Errorf("HEAD: Content-Length = %d, want %d", resp.ContentLength, n)
		}
	}
}

// TestEveryByteCanBeTheFirst reads an archive from each of its bytes on, and in
// steps of all sizes.
func TestEveryByteCanBeTheFirst(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		for _, compression := range []string{"", gzipped} {
			t.Run(fmt.Sprint("elsewhere ", elsewhere, " ", compression), func(t *testing.T) {
				t.Parallel()
				testEveryByte(t, newRegistry(t, func(o *Options) {
					if elsewhere {
						o.Store = noFiles{o.Store}
					}
				}), compression)
			})
		}
	}
}

// noFiles is a store whose blobs are in no *os.File, as on a storage driver.
type noFiles struct{ Store }

func (s noFiles) OpenBlob(ctx context.Context, repository string, d digest.Digest) (io.ReadSeekCloser, metadata.Blob, error) {
	r, b, err := s.Store.OpenBlob(ctx, repository, d)
	return struct{ io.ReadSeekCloser }{r}, b, err
}

func testEveryByte(t *testing.T, reg *registry, compression string) {
	t.Helper()
	l := newLayout()
	l.root(l.index(l.image("amd64", layerOf("x")), l.image("arm64", layerOf(noise(3000)))), "docker.io/team/app:1")
	layer := layerOf(noise(2000))
	l.root(l.manifest(l.blob(ocispec.MediaTypeImageConfig, configOf("amd64", layer)), l.blob(ocispec.MediaTypeImageLayerZstd, zst(layer))), "docker.io/team/zstd:1")
	reg.mustLoad(t, l.pack())
	d, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1", "team/zstd:1"}, Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	whole := read(t, d)
	c := d.Open(t.Context())
	defer c.Close()
	for i := 0; i < len(whole); i += 1 + len(compression)*7 { // what is compressed begins anew each time
		n := int64(1 + i%1301)
		n = min(n, d.Size-int64(i))
		if _, err := c.Seek(int64(i), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if sent, err := c.sendTo(&b, n); err != nil || sent != n || !bytes.Equal(b.Bytes(), whole[i:int64(i)+n]) {
			t.Fatalf("%d bytes from %d on are others, or only %d (%v)", n, i, sent, err)
		}
		if i%97 == 0 {
			part := make([]byte, n)
			_, _ = c.Seek(int64(i), io.SeekStart)
			if _, err := io.ReadFull(c, part); err != nil || !bytes.Equal(part, whole[i:int64(i)+n]) {
				t.Fatalf("%d bytes read from %d on are others (%v)", n, i, err)
			}
		}
	}
	if err := iotest.TestReader(d.Open(t.Context()), whole); err != nil {
		t.Error(err)
	}
}

// TestDamagedBlobEndsTheConnection takes a layer away, cuts it, and deletes its
// repository, between the answer's beginning and its turn.
func TestDamagedBlobEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(reg *registry, file string) error{
		"deleted": func(_ *registry, file string) error { return os.Remove(file) },
		"cut":     func(_ *registry, file string) error { return os.Truncate(file, 150_000) },
		"gone": func(reg *registry, _ string) error {
			return reg.store.DeleteRepository(context.Background(), "team/app")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, func(o *Options) { o.Compression = "none" })
			reg.mustLoad(t, docker("app:1", layerOf(noise(200_000)), layerOf("top")).pack())
			var layer string
			for file, size := range reg.state(t) {
				if size > 200_000 {
					layer = strings.TrimPrefix(file, "file ")
				}
			}
			d, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(reg, layer); err != nil {
				t.Fatal(err)
			}
			w := &answer{header: http.Header{}}
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
			if err := d.Serve(w, r); err == nil || w.status != http.StatusOK || int64(w.body.Len()) >= d.Size {
				t.Errorf("Serve = %v, after status %d and %d of %d bytes; want an error after a short answer", err, w.status, w.body.Len(), d.Size)
			}
			// What is not there when it is asked for is told before.
			_, err = reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}})
			if code := tarport.ErrorCode(err); code != tarport.BlobUnknown && code != tarport.ManifestUnknown {
				t.Errorf("Save afterwards = %v, want BLOB_UNKNOWN or MANIFEST_UNKNOWN", err)
			}
		})
	}
}

// answer is a ResponseWriter that keeps what it gets.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// TestClientIsToldOfAShortArchive: over a real connection the client sees that
// it has not got everything.
func TestClientIsToldOfAShortArchive(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	reg.mustLoad(t, docker("app:1", layerOf(noise(200_000))).pack())
	images := reg.o.Store
	reg.o.Store = &losing{Store: images}
	_, body, err := fetch(t, http.MethodGet, saveURL(serve(t, reg.Service), "team/app:1"))
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) == 0 {
		t.Errorf("GET = %d bytes, %v, want an unexpected end", len(body), err)
	}
}

// losing is a store whose layers are cut when they are read.
type losing struct{ Store }

func (s *losing) OpenBlob(ctx context.Context, repository string, d digest.Digest) (io.ReadSeekCloser, metadata.Blob, error) {
	r, b, err := s.Store.OpenBlob(ctx, repository, d)
	if err == nil && b.Size > 50_000 {
		return &cutReader{r}, b, nil
	}
	return r, b, err
}

type cutReader struct{ io.ReadSeekCloser }

func (r *cutReader) Read(p []byte) (int, error) {
	if at, _ := r.Seek(0, io.SeekCurrent); at > 40_000 {
		return 0, errors.New("the disk is broken")
	}
	return r.ReadSeekCloser.Read(p[:min(len(p), 30_000)])
}

// TestSlowDownloadKeepsItsBlobs: while an archive is read, blobs that are still
// to come have a lease, also where their image was deleted.
func TestSlowDownloadKeepsItsBlobs(t *testing.T) {
	t.Parallel()
	const grace = time.Hour
	now := time.Now()
	reg := newRegistryOn(t, func(o *storage.Options) { o.Now, o.Grace = func() time.Time { return now }, grace })
	res := reg.mustLoad(t, docker("app:1", layerOf("a"), layerOf("b"), layerOf("c")).pack())
	d, err := reg.Save(t.Context(), SaveRequest{Images: []string{"team/app:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.store.DeleteManifest(t.Context(), "team/app", res.Images[0].Digest, "me"); err != nil {
		t.Fatal(err)
	}
	c := d.Open(t.Context())
	defer c.Close()
	for i := range d.files {
		now = now.Add(grace)
		c.renewed = c.renewed.Add(-grace)
		if _, err := io.CopyN(io.Discard, c, d.files[i].end()-c.at); err != nil {
			t.Fatalf("read %s: %v", d.files[i].name, err)
		}
		for _, f := range d.files[i+1:] {
			if f.blob == nil || d.files[i].blob == nil {
				continue
			}
			if going, err := reg.db.MarkGoing(t.Context(), f.blob.digest, now); err != nil || going {
				t.Fatalf("the collector may take %s, which is still to come (%v)", f.name, err)
			}
		}
	}
}
