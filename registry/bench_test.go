package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// get asks for the same path again and again, on connections that are kept.
func (s *server) get(b *testing.B, path string, header ...string) {
	b.Helper()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, s.url+path, nil)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
				b.Errorf("%d %v", resp.StatusCode, err)
			}
			_ = resp.Body.Close()
		}
	})
}

func BenchmarkManifestByTag(b *testing.B) {
	s := newServer(b, fakeAuth{})
	s.image("a/b", "1.0", 1, nil, nil)
	s.get(b, "/v2/a/b/manifests/1.0")
}

func BenchmarkBlobHead(b *testing.B) {
	s := newServer(b, fakeAuth{})
	path := "/v2/a/b/blobs/" + s.pushBlob("a/b", randomBytes(4<<10, 1)).String()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.want(s.do("HEAD", path, nil), 200, "")
		}
	})
}

func BenchmarkBlob4KiB(b *testing.B) {
	s := newServer(b, fakeAuth{})
	s.get(b, "/v2/a/b/blobs/"+s.pushBlob("a/b", randomBytes(4<<10, 1)).String())
}

func BenchmarkBlobRange1MiB(b *testing.B) {
	s := newServer(b, fakeAuth{})
	path := "/v2/a/b/blobs/" + s.pushBlob("a/b", randomBytes(16<<20, 1)).String()
	b.SetBytes(1 << 20)
	s.get(b, path, "Range", "bytes=3145728-4194303")
}

func BenchmarkTags10000(b *testing.B) {
	s := newServer(b, fakeAuth{})
	_, m := s.image("a/b", "first", 1, nil, nil)
	d := digest.FromBytes(m)
	for i := 0; i < 10_000; i += 100 {
		path := "/v2/a/b/manifests/" + d.String() + "?"
		for k := range 100 {
			path += fmt.Sprintf("tag=v1.%d&", i+k)
		}
		s.want(s.do("PUT", path, bytes.NewReader(m), "Content-Type", ocispec.MediaTypeImageManifest), 201, "")
	}
	s.get(b, "/v2/a/b/tags/list")
}

func BenchmarkReferrers100(b *testing.B) {
	s := newServer(b, fakeAuth{})
	d, m := s.image("a/b", "1.0", 1, nil, nil)
	for i := range 100 {
		s.image("a/b", "", 2, map[string]string{"n": fmt.Sprint(i)},
			&ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(m))})
	}
	s.get(b, "/v2/a/b/referrers/"+d.String())
}

func BenchmarkPushBlob(b *testing.B) {
	for _, size := range []int{4 << 10, 100 << 10} {
		for _, clients := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dKiB/%dclients", size>>10, clients), func(b *testing.B) {
				s := newServer(b, fakeAuth{})
				b.SetBytes(int64(size))
				atOnce(b, clients, func(i int64) {
					blob := randomBytes(size, 1)
					copy(blob, fmt.Sprintf("%020d", i))
					s.pushBlob("a/b", blob)
				})
			})
		}
	}
}

func BenchmarkPutManifest(b *testing.B) {
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("%dclients", clients), func(b *testing.B) {
			s := newServer(b, fakeAuth{})
			_, m := s.image("a/b", "1.0", 1, nil, nil)
			atOnce(b, clients, func(i int64) {
				s.want(s.do("PUT", fmt.Sprintf("/v2/a/b/manifests/t%d", i), bytes.NewReader(m), "Content-Type", ocispec.MediaTypeImageManifest), 201, "")
			})
		})
	}
}

// atOnce runs fn b.N times, by so many at a time, with another number each time.
func atOnce(b *testing.B, clients int, fn func(i int64)) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				fn(i)
			}
		})
	}
	wg.Wait()
}
