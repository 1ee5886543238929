//go:build unix

package tags_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/internal/pgtest"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// What the load has: 100,000 tags in one repository, of 4,000 images and 1,000
// indexes of four more each, and 10,000 repositories of one tag.
const (
	loadTags         = 100_000
	loadImages       = 4_000
	loadIndexes      = 1_000
	loadPlatforms    = 4
	loadRepositories = 10_000
	loadBatch        = 500
)

// seeder puts the load through the storage's API, in batches.
type seeder struct {
	b     *testing.B
	store *storage.Store
	batch *storage.Batch
	puts  []storage.ManifestPut
	n     int
	blobs map[string]ocispec.Descriptor // that are there, or in the batch
}

func (s *seeder) begin() {
	var err error
	if s.batch, err = s.store.NewBatch(s.b.Context()); err != nil {
		s.b.Fatal(err)
	}
}

func (s *seeder) flush() {
	if _, err := s.batch.Commit(s.b.Context(), s.puts); err != nil {
		s.b.Fatal(err)
	}
	if err := s.batch.Close(); err != nil {
		s.b.Fatal(err)
	}
	s.puts = nil
	s.begin()
}

func (s *seeder) put(p storage.ManifestPut) {
	p.By, p.Via = "ann", storage.ViaPush
	if s.puts = append(s.puts, p); len(s.puts) == loadBatch {
		s.flush()
	}
}

// blob is one that several images share.
func (s *seeder) blob(p *storage.ManifestPut, mediaType, content string) ocispec.Descriptor {
	if desc, ok := s.blobs[content]; ok {
		p.Blobs = append(p.Blobs, storage.BlobLink{Descriptor: desc})
		return desc
	}
	w, err := s.batch.Create(s.b.Context())
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err != nil {
		s.b.Fatal(err)
	}
	desc, err := w.Finish()
	if err != nil {
		s.b.Fatal(err)
	}
	desc.MediaType = mediaType
	s.blobs[content] = desc
	p.Blobs = append(p.Blobs, storage.BlobLink{Descriptor: desc})
	return desc
}

// image is one of the size of what Docker Hub has: ten variables, eight labels.
func (s *seeder) image(repository, arch string, names ...string) ocispec.Descriptor {
	s.n++
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568"}
	labels := map[string]string{}
	for i := range 7 {
		env = append(env, fmt.Sprintf("APP_SETTING_%d=the value of setting %d", i, i))
		labels[fmt.Sprintf("org.opencontainers.image.label%d", i)] = "https://git.example.org/team/app/tree/main"
	}
	config, _ := json.Marshal(map[string]any{"os": "linux", "architecture": arch, "created": "2024-01-15T10:11:12Z", "author": "Ann", "comment": fmt.Sprint("build ", s.n%100), //nolint:errchkjson // strings encode
		"config": map[string]any{"Env": env, "Labels": labels, "Entrypoint": []string{"/docker-entrypoint.sh"}, "Cmd": []string{"serve"}, "ExposedPorts": map[string]any{"8080/tcp": nil}, "User": "app"}})
	p := storage.ManifestPut{Repository: repository, MediaType: ocispec.MediaTypeImageManifest, Tags: names}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: p.MediaType, Annotations: map[string]string{"n": fmt.Sprint(s.n)}, Config: s.blob(&p, ocispec.MediaTypeImageConfig, string(config))}
	for i := range 3 {
		m.Layers = append(m.Layers, s.blob(&p, ocispec.MediaTypeImageLayerGzip, fmt.Sprintf("layer %d %s", i, strings.Repeat("x", s.n%97))))
	}
	p.Payload, _ = json.Marshal(m) //nolint:errchkjson // it encodes
	s.put(p)
	return ocispec.Descriptor{MediaType: p.MediaType, Digest: digest.FromBytes(p.Payload), Size: int64(len(p.Payload))}
}

func (s *seeder) seed() {
	s.begin()
	variants := []string{"", "-slim", "-alpine3.19", "-bookworm", "-jdk-slim-bookworm"}
	name := func(i int) string {
		return fmt.Sprintf("%d.%d.%d%s", i/5000, i/50%100, i/5%10, variants[i%5])
	}
	const each = loadTags / (loadImages + loadIndexes)
	for i := range loadImages + loadIndexes {
		names := make([]string, each)
		for k := range names {
			names[k] = name(i*each + k)
		}
		if i < loadImages {
			s.image("load/many", "amd64", names...)
			continue
		}
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		for _, arch := range []string{"amd64", "arm64", "s390x", "ppc64le"}[:loadPlatforms] {
			desc := s.image("load/many", arch)
			desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
			index.Manifests = append(index.Manifests, desc)
		}
		payload, _ := json.Marshal(index) //nolint:errchkjson // it encodes
		s.put(storage.ManifestPut{Repository: "load/many", MediaType: index.MediaType, Payload: payload, Tags: names})
	}
	for i := range loadRepositories {
		s.image(fmt.Sprintf("load/r%05d", i), "amd64", "1.0.0", "latest")
	}
	s.flush()
	if err := s.batch.Close(); err != nil {
		s.b.Fatal(err)
	}
}

// loaded is the API over the load. TARPORT_LOAD is a folder that keeps that of
// SQLite from one run to the next.
func loaded(b *testing.B, dsn string) http.Handler {
	b.Helper()
	db, err := metadata.Open(b.Context(), metadata.Options{DSN: dsn})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	store, err := storage.New(storage.Options{DB: db, Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := db.ListedTag(b.Context(), "load/r09999", "latest"); err != nil {
		(&seeder{b: b, store: store, blobs: map[string]ocispec.Descriptor{}}).seed()
	}
	s, err := tags.New(tags.Options{DB: db, Content: store, Auth: members{}})
	if err != nil {
		b.Fatal(err)
	}
	r := mux.NewRouter().SkipClean(true)
	tags.NewHandler(s).Routes(r.PathPrefix("/api/v1").Subrouter())
	return r
}

// BenchmarkTags100000 is the server's time for pages of 100 tags, the first and
// one in the middle, of 100,000. It takes minutes to begin.
func BenchmarkTags100000(b *testing.B) {
	for name, dsn := range map[string]func() string{
		"sqlite": func() string {
			if dir := os.Getenv("TARPORT_LOAD"); dir != "" {
				return filepath.Join(dir, "load.db")
			}
			return filepath.Join(b.TempDir(), "load.db")
		},
		"postgres": func() string { return pgtest.DSN(b) },
	} {
		b.Run(name, func(b *testing.B) {
			api := loaded(b, dsn())
			for _, sort := range []string{"name", "-name", "version", "-version", "pushed", "-pushed", "pulled", "-pulled", "size", "-size"} {
				b.Run("first by "+sort, func(b *testing.B) { pages(b, api, "load/many/-/tags?n=100&sort="+sort, 100) })
				middle := "load/many/-/tags?n=1000&sort=" + sort
				for range 40 {
					middle = next(request(b, api, middle))
				}
				middle = strings.Replace(middle, "n=1000", "n=100", 1)
				b.Run("middle by "+sort, func(b *testing.B) { pages(b, api, middle, 100) })
			}
			for _, query := range []string{"q=7.*-slim", "version=^7.20&sort=-version", "variant=alpine&sort=-pushed", "platform=linux/arm64", "platform=linux/none", "base=alpine", "version=%5E999", "q=nothing"} {
				b.Run("filtered by "+query, func(b *testing.B) { pages(b, api, "load/many/-/tags?n=100&"+query, 0) })
			}
			b.Run("variants", func(b *testing.B) { pages(b, api, "load/many/-/variants?n=20", 0) })
			b.Run("small repository", func(b *testing.B) { pages(b, api, "load/r05000/-/tags", 0) })
		})
	}
}

func request(b *testing.B, api http.Handler, path string) *httptest.ResponseRecorder {
	b.Helper()
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/repositories/"+path, nil))
	if w.Code != http.StatusOK {
		b.Fatalf("GET %s = %d %s", path, w.Code, w.Body)
	}
	return w
}

func pages(b *testing.B, api http.Handler, path string, want int) {
	b.Helper()
	b.ReportAllocs()
	var size int
	var before time.Duration
	if w := request(b, api, path); want > 0 && strings.Count(w.Body.String(), `"pushed_via"`) != want {
		b.Fatalf("GET %s has not %d tags", path, want)
	}
	before = processorTime(b)
	for b.Loop() {
		w := &counter{header: http.Header{}}
		api.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/repositories/"+path, nil))
		if size = w.size; w.status != http.StatusOK {
			b.Fatalf("GET %s = %d", path, w.status)
		}
	}
	b.ReportMetric(float64(size), "bytes/page")
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op") // whatever else the machine does
}

// counter takes an answer and keeps nothing of it.
type counter struct {
	header       http.Header
	status, size int
}

func (c *counter) Header() http.Header    { return c.header }
func (c *counter) WriteHeader(status int) { c.status = status }
func (c *counter) Write(p []byte) (int, error) {
	c.size += len(p)
	return len(p), nil
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
