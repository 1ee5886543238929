package scanner

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// registry is a store with a scanner, whose clock a test moves.
type registry struct {
	*storage.Store
	db    *metadata.DB
	root  string
	clock *clock
	dsn   string
}

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func eachDB(t *testing.T, test func(t *testing.T, r *registry)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(t, open(t, dsn, t.TempDir(), &clock{}))
	})
}

func open(t *testing.T, dsn, root string, c *clock) *registry {
	t.Helper()
	db := metadatatest.Open(t, metadata.Options{DSN: dsn, Now: c.now})
	s, err := storage.New(storage.Options{DB: db, Root: root, Now: c.now, Log: slog.New(slog.DiscardHandler)})
	check(t, "open the store", err)
	return &registry{s, db, root, c, dsn}
}

// scanner returns a Scanner that nobody runs.
func (r *registry) scanner(t *testing.T, o Options) *Scanner {
	t.Helper()
	o.Store, o.DB, o.Now, o.Log = r.Store, r.db, r.clock.now, slog.New(slog.DiscardHandler)
	s, err := New(o)
	check(t, "New", err)
	return s
}

// all lets a scanner do all that there is to do.
func (r *registry) all(t *testing.T) {
	t.Helper()
	s := r.scanner(t, Options{})
	for {
		found, err := s.next(t.Context())
		check(t, "next", err)
		if !found {
			break
		}
	}
	_, err := r.SettleImages(t.Context(), "")
	check(t, "SettleImages", err)
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// tarOf is a layer of these files: names and contents in turn.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		check(t, "header", w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := io.WriteString(w, files[i+1])
		check(t, "body", err)
	}
	check(t, "tar", w.Close())
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	check(t, "gzip", err)
	check(t, "gzip", z.Close())
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	check(t, "zstd", err)
	return z.EncodeAll(b, nil)
}

// push makes an image of these layers visible, as a docker push does: nobody
// has looked into them.
func (r *registry) push(t *testing.T, repository string, layers ...[]byte) digest.Digest {
	t.Helper()
	b, err := r.NewBatch(t.Context())
	check(t, "NewBatch", err)
	defer func() { check(t, "Close", b.Close()) }()
	var links []storage.BlobLink
	stage := func(content []byte, mediaType string) ocispec.Descriptor {
		w, err := b.Create(t.Context())
		check(t, "Create", err)
		_, err = w.Write(content)
		check(t, "Write", err)
		desc, err := w.Finish()
		check(t, "Finish", err)
		links = append(links, storage.BlobLink{Descriptor: desc})
		desc.MediaType = mediaType
		return desc
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = stage([]byte(`{"os":"linux","architecture":"amd64"}`), ocispec.MediaTypeImageConfig)
	for _, l := range layers {
		m.Layers = append(m.Layers, stage(l, ocispec.MediaTypeImageLayerGzip))
	}
	payload, err := json.Marshal(m)
	check(t, "encode the manifest", err)
	_, err = b.Commit(t.Context(), []storage.ManifestPut{{
		Repository: repository, MediaType: m.MediaType, Payload: payload, Tags: []string{"latest"}, By: "ann", Via: "push", Blobs: links,
	}})
	check(t, "Commit", err)
	return digest.FromBytes(payload)
}

func (r *registry) image(t *testing.T, repository string, d digest.Digest) metadata.ImageRow {
	t.Helper()
	row, err := r.db.Image(t.Context(), repository, d)
	check(t, "Image", err)
	return row
}

// wantScan checks how far an image is, and what is said of it.
func (r *registry) wantScan(t *testing.T, repository string, d digest.Digest, state, reason string) {
	t.Helper()
	row := r.image(t, repository, d)
	if row.Scan != state || !strings.Contains(row.ScanReason, reason) || reason == "" && row.ScanReason != "" {
		t.Errorf("the scan is %s %q, want %s %q", row.Scan, row.ScanReason, state, reason)
	}
}

// blob is the file of a blob.
func (r *registry) blob(d digest.Digest) string {
	return filepath.Join(r.root, "docker/registry/v2/blobs/sha256", d.Encoded()[:2], d.Encoded(), "data")
}

const (
	release = "ID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\n"
	status  = "Package: Bash\nStatus: install ok installed\nVersion: 5.2\n\nPackage: libc6\nStatus: install ok installed\nVersion: 2.36\n\n"
)

func debian(t *testing.T) []byte {
	t.Helper()
	return tarOf(t, "./etc/os-release", release, "./var/lib/dpkg/status", status, "./lib/x86_64-linux-gnu/libc.so.6", "x")
}

func TestAPushedImageIsLookedInto(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		base := debian(t)
		app := tarOf(t, "srv/app", "app", "var/lib/dpkg/status", strings.SplitAfter(status, "\n\n")[0])
		plain := r.push(t, "a/plain", gzipped(t, base))
		built := r.push(t, "a/built", gzipped(t, base), zstded(t, app))
		r.wantScan(t, "a/built", built, metadata.ScanPending, "")
		if _, err := r.Contents(t.Context(), "a/built", built); tarport.ErrorCode(err) != tarport.Conflict {
			t.Errorf("Contents of a pending image: %v", err)
		}
		r.all(t)
		want := metadata.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc", PackageManager: "dpkg", Packages: 2}
		for _, c := range []struct {
			repository string
			digest     digest.Digest
			packages   int64
		}{{"a/plain", plain, 2}, {"a/built", built, 1}} {
			r.wantScan(t, c.repository, c.digest, metadata.ScanReady, "")
			want.Packages = c.packages
			if diff := cmp.Diff(want, r.image(t, c.repository, c.digest).Base); diff != "" {
				t.Errorf("base of %s (-want +got):\n%s", c.repository, diff)
			}
		}
		img, err := r.Contents(t.Context(), "a/built", built)
		check(t, "Contents", err)
		if diff := cmp.Diff([]scan.Package{{Name: "Bash", Version: "5.2"}}, img.Packages); diff != "" {
			t.Errorf("packages (-want +got):\n%s", diff)
		}
		_, err = r.Contents(t.Context(), "a/plain", built)
		if tarport.ErrorCode(err) != tarport.ManifestUnknown {
			t.Errorf("Contents of another repository's image: %v", err)
		}
		x, err := r.OpenIndex(t.Context(), digest.FromBytes(app))
		check(t, "OpenIndex", err)
		check(t, "Close", x.Close())
		known, err := r.KnownLayers(t.Context(), digest.FromBytes(base))
		if err != nil || len(known) != 1 || known[0].Compression != "gzip" {
			t.Errorf("KnownLayers = %+v, %v", known, err)
		}
		again := r.push(t, "a/again", zstded(t, app), gzipped(t, base))
		r.all(t) // all is known: nothing is read
		r.wantScan(t, "a/again", again, metadata.ScanReady, "")
	})
}

func TestALayerThatIsKnownInAnotherFormIsNotRead(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		base := debian(t)
		r.push(t, "a/one", gzipped(t, base))
		r.all(t)
		other := zstded(t, base)
		two := r.push(t, "a/two", other)
		check(t, "RememberLayer", r.db.RememberLayer(t.Context(), metadata.Layer{
			DiffID: digest.FromBytes(base), Digest: digest.FromBytes(other), Compression: "zstd",
		}))
		check(t, "remove the blob", os.Remove(r.blob(digest.FromBytes(other))))
		r.all(t)
		r.wantScan(t, "a/two", two, metadata.ScanReady, "")
	})
}

func TestWhatIsNoLayerIsSaidAndNotTriedAgain(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		whole := gzipped(t, debian(t))
		for name, c := range map[string]struct {
			layer  []byte
			reason string
		}{
			"text":    {[]byte(strings.Repeat("this is no tar at all\n", 100)), "there is no tar header"},
			"cut":     {whole[:len(whole)-20], "is no layer"},
			"flipped": {slices.Concat(whole[:len(whole)-8], []byte{1, 2, 3, 4}, whole[len(whole)-4:]), "checksum"},
			"longer":  {gzipped(t, append(tarOf(t, "a", "b"), []byte("behind the end")...)), "data after its end"},
		} {
			d := r.push(t, "a/"+name, gzipped(t, debian(t)), c.layer)
			r.all(t)
			r.wantScan(t, "a/"+name, d, metadata.ScanFailed, c.reason)
			if _, err := r.Contents(t.Context(), "a/"+name, d); tarport.ErrorCode(err) != tarport.Conflict {
				t.Errorf("%s: Contents = %v", name, err)
			}
		}
		r.clock.advance(24 * time.Hour)
		if found, err := r.scanner(t, Options{}).next(t.Context()); found || err != nil {
			t.Errorf("a layer was tried again: %v", err)
		}
	})
}

func TestABlobThatIsMissingIsTriedAgainUntilItIsBack(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		layer := gzipped(t, debian(t))
		d := r.push(t, "a/b", layer)
		file := r.blob(digest.FromBytes(layer))
		check(t, "take the blob away", os.Rename(file, file+".away"))
		s := r.scanner(t, Options{})
		for i := range attempts {
			found, err := s.next(t.Context())
			if !found || err != nil {
				t.Fatalf("attempt %d: found %v, %v", i+1, found, err)
			}
			if found, err = s.next(t.Context()); found || err != nil {
				t.Fatalf("attempt %d came at once: %v", i+2, err)
			}
			r.clock.advance(backoff << i)
		}
		r.wantScan(t, "a/b", d, metadata.ScanFailed, "damaged in the registry's storage")
		check(t, "bring the blob back", os.Rename(file+".away", file))
		check(t, "ResumeLayers", r.db.ResumeLayers(t.Context(), attempts, scan.Prefix))
		r.all(t)
		r.wantScan(t, "a/b", d, metadata.ScanReady, "")
	})
}

func TestALayerOverWhichTheProcessEndsIsGivenUp(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		d := r.push(t, "a/b", gzipped(t, debian(t)))
		for range attempts { // claimed, and never finished: kill -9
			_, found, err := r.db.ClaimLayer(t.Context(), "gone", r.clock.now().Add(lease))
			if !found || err != nil {
				t.Fatalf("ClaimLayer = %v, %v", found, err)
			}
			r.clock.advance(lease + time.Second)
		}
		r.all(t)
		r.wantScan(t, "a/b", d, metadata.ScanFailed, "the registry ended 8 times")
	})
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// run runs a scanner until the test ends it.
func (r *registry) run(t *testing.T, o Options) (stop func()) {
	t.Helper()
	s := r.scanner(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		check(t, "Run", <-done)
	}
}

func TestAPushWakesTheScanner(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		before := r.push(t, "a/before", gzipped(t, debian(t)))
		stop := r.run(t, Options{Poll: time.Hour, Workers: 2})
		defer stop()
		ready := func(repository string, d digest.Digest) func() bool {
			return func() bool { return r.image(t, repository, d).Scan == metadata.ScanReady }
		}
		waitFor(t, "the image that was there", ready("a/before", before))
		after := r.push(t, "a/after", zstded(t, debian(t)))
		waitFor(t, "the image that was pushed", ready("a/after", after))
		same := r.push(t, "a/same", zstded(t, debian(t)))
		waitFor(t, "an image of known layers", ready("a/same", same))
	})
}

func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	r := open(t, metadatatest.Postgres(t), t.TempDir(), &clock{})
	other := open(t, r.dsn, r.root, r.clock)
	var images []digest.Digest
	for i := range 10 {
		images = append(images, r.push(t, "a/b", gzipped(t, tarOf(t, "n", fmt.Sprint(i))), gzipped(t, debian(t))))
	}
	for _, x := range []*registry{r, other} {
		stop := x.run(t, Options{Poll: 50 * time.Millisecond, Workers: 2})
		defer stop()
	}
	for _, d := range images {
		waitFor(t, "all images", func() bool { return r.image(t, "a/b", d).Scan == metadata.ScanReady })
	}
}

// A layer that is being read when the registry ends is given back, at once.
func TestAStopGivesBackWhatIsBeingRead(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, r *registry) {
		large := tarOf(t, "large", string(make([]byte, 4<<20)))
		d := r.push(t, "a/b", large)
		stop := r.run(t, Options{Poll: time.Hour, Rate: 1 << 10})
		staged := func() bool { // the index that is being made
			files, err := filepath.Glob(filepath.Join(r.root, "tarport/uploads/*"))
			return err == nil && len(files) > 0
		}
		waitFor(t, "the scanner to begin", staged)
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > time.Minute { // the layer would take more than an hour
			t.Errorf("the stop took %s", took)
		}
		c, found, err := r.db.ClaimLayer(t.Context(), "next", r.clock.now().Add(lease))
		if !found || err != nil {
			t.Fatalf("the layer was not given back: %v", err)
		}
		if c.Attempts != 1 {
			t.Errorf("an attempt that was broken off counts: %d", c.Attempts)
		}
		check(t, "ReleaseLayer", r.db.ReleaseLayer(t.Context(), c))
		if staged() {
			t.Error("an index that was begun is left")
		}
		r.all(t)
		r.wantScan(t, "a/b", d, metadata.ScanReady, "")
	})
}

func TestThePaceIsKept(t *testing.T) {
	t.Parallel()
	p := &pace{ctx: t.Context(), rate: 1 << 20}
	begun := time.Now()
	for range 20 {
		if n, err := p.Write(make([]byte, 10<<10)); n != 10<<10 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if took := time.Since(begun); took < 180*time.Millisecond {
		t.Errorf("200 KiB at 1 MiB/s took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&pace{ctx: ctx, rate: 1}).Write(make([]byte, 10)); err == nil {
		t.Error("a write whose context had ended went on")
	}
}
