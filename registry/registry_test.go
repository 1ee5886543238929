package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// distribution logs to logrus' standard logger; what is of interest comes back
// as an error.
func TestMain(m *testing.M) {
	logrus.SetLevel(logrus.FatalLevel)
	m.Run()
}

// fakeAuth lets the user in who names itself, and asks may.
type fakeAuth struct {
	may func(p tarport.Principal, a tarport.Action, repository string) error
}

func (f fakeAuth) Authenticate(r *http.Request) (tarport.Principal, error) {
	switch user := r.Header.Get("X-User"); user {
	case "":
		return tarport.Principal{UserID: 1, Name: "admin", Admin: true}, nil
	case "stranger":
		return tarport.Principal{}, nil
	case "wrong":
		return tarport.Principal{}, tarport.Errorf(tarport.Unauthorized, "wrong password")
	default:
		return tarport.Principal{UserID: 2, Name: user}, nil
	}
}

// AuthenticateLate knows no token that was good once.
func (f fakeAuth) AuthenticateLate(r *http.Request) (tarport.Principal, time.Time, error) {
	p, err := f.Authenticate(r)
	return p, time.Time{}, err
}

func (f fakeAuth) Authorize(_ context.Context, p tarport.Principal, a tarport.Action, repository string) error {
	switch {
	case p.Anonymous():
		return tarport.Errorf(tarport.Unauthorized, "log in first")
	case f.may != nil:
		return f.may(p, a, repository)
	}
	return nil
}

func (fakeAuth) SetHeaders(w http.ResponseWriter, _ *http.Request, err error, needs ...tarport.Grant) {
	if tarport.ErrorCode(err) == tarport.Unauthorized {
		w.Header().Set("WWW-Authenticate", fmt.Sprint("Bearer ", needs))
	}
}

// server is a registry behind a real HTTP server.
type server struct {
	testing.TB
	url   string
	store *storage.Store
	db    *metadata.DB
	root  string // "" on a driver
}

// newServer is a registry on SQLite and a folder.
func newServer(tb testing.TB, auth fakeAuth) *server {
	tb.Helper()
	dir := tb.TempDir()
	return newServerOn(tb, auth, dir+"/tarport.db", storage.Options{Root: dir})
}

// eachServer runs a test on each database and on each kind of files.
func eachServer(t *testing.T, auth fakeAuth, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Run("sqlite and a file system", func(t *testing.T) {
		t.Parallel()
		test(t, newServer(t, auth))
	})
	t.Run("postgres and a driver", func(t *testing.T) {
		t.Parallel()
		test(t, newServerOn(t, auth, metadatatest.Postgres(t), storage.Options{Driver: inmemory.New()}))
	})
}

func newServerOn(tb testing.TB, auth fakeAuth, dsn string, o storage.Options) *server {
	tb.Helper()
	db := metadatatest.Open(tb, metadata.Options{DSN: dsn})
	for _, name := range []string{"admin", "ada"} { // the rows of fakeAuth's users 1 and 2
		if _, err := db.CreateUser(tb.Context(), metadata.User{Name: name, PasswordHash: "-", Admin: true}); err != nil {
			tb.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	o.DB, o.Log = db, log
	store, err := storage.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	g, err := New(tb.Context(), Options{Store: store, Auth: auth, Secret: "0123456789abcdef0123456789abcdef", Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = g.Close() })
	srv := httptest.NewServer(httpapi.Middleware(httpapi.Options{Log: log})(g))
	tb.Cleanup(srv.Close)
	return &server{tb, srv.URL, store, db, o.Root}
}

type answer struct {
	*http.Response
	body []byte
}

// do sends a request; header are names and values in turn. No redirect is
// followed.
func (s *server) do(method, path string, body io.Reader, header ...string) answer {
	s.Helper()
	if strings.HasPrefix(path, "/") {
		path = s.url + path
	}
	r, err := http.NewRequestWithContext(s.Context(), method, path, body)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp, b}
}

// code is the code of an error, whose form it checks.
func (s *server) code(a answer) tarport.Code {
	s.Helper()
	var e struct {
		Errors []struct {
			Code    tarport.Code
			Message string
		}
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
		s.Fatalf("%s %s: %d with %q is not one OCI error", a.Request.Method, a.Request.URL, a.StatusCode, a.body)
	}
	return e.Errors[0].Code
}

// want fails where the answer is not of the status and, for errors, the code.
func (s *server) want(a answer, status int, code tarport.Code) answer {
	s.Helper()
	if a.StatusCode != status {
		s.Fatalf("%s %s: %d %s, want %d", a.Request.Method, a.Request.URL, a.StatusCode, a.body, status)
	}
	if code != "" && a.Request.Method != http.MethodHead {
		if got := s.code(a); got != code {
			s.Fatalf("%s %s: %s, want %s", a.Request.Method, a.Request.URL, got, code)
		}
	}
	return a
}

func (s *server) location(a answer) string {
	s.Helper()
	l := a.Header.Get("Location")
	if !strings.HasPrefix(l, "/v2/") {
		s.Fatalf("%s %s: Location %q is not relative", a.Request.Method, a.Request.URL, l)
	}
	return s.url + l
}

func (s *server) begin(repository string) string {
	s.Helper()
	return s.location(s.want(s.do("POST", "/v2/"+repository+"/blobs/uploads/", nil), 202, ""))
}

func finishing(location string, d digest.Digest) string { return location + "&digest=" + d.String() }

func (s *server) pushBlob(repository string, b []byte) digest.Digest {
	s.Helper()
	d := digest.FromBytes(b)
	s.want(s.do("PUT", finishing(s.begin(repository), d), bytes.NewReader(b)), 201, "")
	return d
}

// image pushes an image of one layer and returns its manifest.
func (s *server) image(repository, tag string, seed uint64, annotations map[string]string, subject *ocispec.Descriptor) (digest.Digest, []byte) {
	s.Helper()
	layer := randomBytes(1000, seed)
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Annotations: annotations, Subject: subject,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: s.pushBlob(repository, config), Size: int64(len(config))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: s.pushBlob(repository, layer), Size: int64(len(layer))}},
	}
	m.SchemaVersion = 2
	if subject != nil {
		m.ArtifactType = "application/vnd.example.sbom"
	}
	b, err := json.Marshal(m)
	if err != nil {
		s.Fatal(err)
	}
	ref := tag
	if ref == "" {
		ref = digest.FromBytes(b).String()
	}
	a := s.want(s.do("PUT", "/v2/"+repository+"/manifests/"+ref, bytes.NewReader(b), "Content-Type", m.MediaType), 201, "")
	if subject != nil && a.Header.Get("OCI-Subject") != subject.Digest.String() {
		s.Fatalf("OCI-Subject = %q", a.Header.Get("OCI-Subject"))
	}
	return digest.FromBytes(b), b
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

func TestOnlyTheMethodsOfARouteAreServed(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for path, allow := range map[string]string{
		"/v2/": "GET, HEAD", "/v2/_catalog": "GET", "/v2/a/tags/list": "GET", "/v2/a/manifests/1": "DELETE, GET, HEAD, PUT",
		"/v2/a/blobs/uploads/": "POST", "/v2/a/blobs/uploads/x": "DELETE, GET, HEAD, PATCH, PUT",
		"/v2/a/blobs/sha256:x": "DELETE, GET, HEAD", "/v2/a/referrers/sha256:x": "GET",
	} {
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			if strings.Contains(", "+allow+",", ", "+m+",") {
				continue
			}
			a := s.want(s.do(m, path, nil), 405, tarport.Unsupported)
			if got := a.Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow = %q, want %q", m, path, got, allow)
			}
		}
	}
}

func TestAStrangerLearnsOnlyWhereToLogIn(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	s.image("a/b", "1", 1, nil, nil)
	for _, user := range []string{"stranger", "wrong"} {
		for _, path := range []string{"/v2/", "/v2/_catalog", "/v2/a/b/manifests/1", "/v2/no/such/manifests/1", "/v2/UPPER/manifests/1", "/v2/a/b/manifests/-x"} {
			a := s.want(s.do("GET", path, nil, "X-User", user), 401, tarport.Unauthorized)
			if a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("GET %s: no challenge", path)
			}
		}
	}
	a := s.do("PUT", "/v2/a/b/manifests/1", nil, "X-User", "stranger")
	if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, "{a/b [pull push]}") {
		t.Errorf("the challenge of a push asks for %q", got)
	}
}

func TestBadInputIsRefusedWithItsCode(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	s.image("a/b", "1", 1, nil, nil)
	big := bytes.Repeat([]byte(" "), storage.MaxManifest+1)
	manifest := "application/vnd.oci.image.manifest.v1+json"
	for _, tc := range []struct {
		method, path string
		body         io.Reader
		contentType  string
		status       int
		code         tarport.Code
	}{
		{"GET", "/v2/a/b/manifests/-x", nil, "", 400, tarport.TagInvalid},
		{"GET", "/v2/a/b/manifests/sha256:abc", nil, "", 400, tarport.DigestInvalid},
		{"GET", "/v2/a/b/manifests/2", nil, "", 404, tarport.ManifestUnknown},
		{"GET", "/v2/A/manifests/2", nil, "", 400, tarport.NameInvalid},
		{"GET", "/v2/no/such/tags/list", nil, "", 404, tarport.NameUnknown},
		{"GET", "/v2/a/b/tags/list?n=-1", nil, "", 400, tarport.PaginationInvalid},
		{"GET", "/v2/a/b/tags/list?n=x", nil, "", 400, tarport.PaginationInvalid},
		{"GET", "/v2/_catalog?n=99999999999999999999", nil, "", 400, tarport.PaginationInvalid},
		{"GET", "/v2/a/b/tags/list?last=" + strings.Repeat("a", 300), nil, "", 400, tarport.PaginationInvalid},
		{"GET", "/v2/a/b/tags/list?x=" + strings.Repeat("a", 9000), nil, "", 400, tarport.Invalid},
		{"GET", "/v2/a/b/blobs/sha256:" + strings.Repeat("a", 64), nil, "", 404, tarport.BlobUnknown},
		{"GET", "/v2/a/b/blobs/md5:" + strings.Repeat("a", 32), nil, "", 400, tarport.DigestInvalid},
		{"GET", "/v2/a/b/blobs/uploads/nope", nil, "", 404, tarport.BlobUploadUnknown},
		{"DELETE", "/v2/a/b/manifests/2", nil, "", 404, tarport.ManifestUnknown},
		{"PUT", "/v2/a/b/manifests/2", strings.NewReader("{}"), "", 400, tarport.ManifestInvalid},
		{"PUT", "/v2/a/b/manifests/2", strings.NewReader("{}"), manifest, 400, tarport.ManifestInvalid},
		{"PUT", "/v2/a/b/manifests/2", strings.NewReader("{}"), "text/html", 400, tarport.ManifestInvalid},
		{"PUT", "/v2/a/b/manifests/-x", strings.NewReader("{}"), manifest, 400, tarport.TagInvalid},
		{"PUT", "/v2/a/b/manifests/2", bytes.NewReader(big), manifest, 413, tarport.TooLarge},
		{"PUT", "/v2/a/b/manifests/2", io.MultiReader(bytes.NewReader(big)), manifest, 413, tarport.TooLarge},
		{"PUT", "/v2/a/b/manifests/2?" + strings.Repeat("tag=a&", 101), strings.NewReader("{}"), manifest, 400, tarport.TagInvalid},
		{"POST", "/v2/a/b/blobs/uploads/?mount=nonsense", nil, "", 400, tarport.DigestInvalid},
		{"POST", "/v2/a/b/blobs/uploads/?digest=nonsense", nil, "", 400, tarport.DigestInvalid},
		{"GET", "/v2/nothing", nil, "", 404, tarport.NotFound},
	} {
		header := []string{}
		if tc.contentType != "" {
			header = []string{"Content-Type", tc.contentType}
		}
		a := s.want(s.do(tc.method, tc.path, tc.body, header...), tc.status, tc.code)
		if bytes.Contains(a.body, []byte("/tmp")) || bytes.Contains(a.body, []byte("SELECT")) {
			t.Errorf("%s %.60s: internal text in %s", tc.method, tc.path, a.body)
		}
	}
}

func TestForwardedHeadersMoveNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	a := s.want(s.do("POST", "/v2/a/b/blobs/uploads/", nil, "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
		"Forwarded", "host=evil.example;proto=https"), 202, "")
	s.location(a)
}

func TestAnUploadInPiecesGoesOnWhereItIs(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	b := randomBytes(3000, 1)
	first := s.begin("a/b")
	a := s.want(s.do("PATCH", first, bytes.NewReader(b[:1000]), "Content-Range", "0-999", "Content-Type", "application/x-www-form-urlencoded"), 202, "")
	at := s.location(a)
	if got := a.Header.Get("Range"); got != "0-999" {
		t.Errorf("Range = %q", got)
	}
	s.want(s.do("PATCH", at, bytes.NewReader(b[2000:]), "Content-Range", "2000-2999"), 416, tarport.RangeInvalid)
	s.want(s.do("PATCH", at, bytes.NewReader(b[1000:2000]), "Content-Range", "bytes 1000-1999/3000"), 416, tarport.RangeInvalid)
	s.want(s.do("PATCH", at, bytes.NewReader(b[1000:2000]), "Content-Range", "1000-1998"), 400, tarport.SizeInvalid)
	s.want(s.do("PATCH", at, io.MultiReader(bytes.NewReader(b[2000:])), "Content-Range", "2000-2999"), 416, tarport.RangeInvalid)
	status := s.want(s.do("GET", at, nil), 204, "")
	if got := status.Header.Get("Range"); got != "0-999" {
		t.Errorf("the status says %q", got)
	}
	at = s.location(s.want(s.do("PATCH", s.location(status), io.MultiReader(bytes.NewReader(b[1000:2000]))), 202, ""))
	d := digest.FromBytes(b)
	s.want(s.do("PUT", finishing(at, d), bytes.NewReader(b[2000:])), 201, "")
	if got := s.want(s.do("GET", "/v2/a/b/blobs/"+d.String(), nil), 200, ""); !bytes.Equal(got.body, b) {
		t.Error("the blob is not what was sent")
	}
	s.want(s.do("PUT", finishing(at, d), nil), 404, tarport.BlobUploadUnknown)
}

func TestAWrongDigestEndsTheUploadAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	at := s.begin("a/b")
	wrong := digest.FromString("something else")
	s.want(s.do("PUT", finishing(at, wrong), strings.NewReader("abc")), 400, tarport.DigestInvalid)
	s.want(s.do("HEAD", "/v2/a/b/blobs/"+wrong.String(), nil), 404, tarport.BlobUnknown)
	s.want(s.do("GET", at, nil), 404, tarport.BlobUploadUnknown)
}

func TestASessionIsFinishedOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for _, k := range []int{2, 16} {
		for round := range 20 {
			b := randomBytes(100_000, uint64(k*100+round))
			d := digest.FromBytes(b)
			at := s.location(s.want(s.do("PATCH", s.begin("a/b"), bytes.NewReader(b)), 202, ""))
			got := make([]int, k)
			var wg sync.WaitGroup
			for i := range got {
				wg.Go(func() { got[i] = s.do("PUT", finishing(at, d), nil).StatusCode })
			}
			wg.Wait()
			count := map[int]int{}
			for _, status := range got {
				count[status]++
			}
			if count[201] != 1 || count[201]+count[404]+count[409] != k {
				t.Fatalf("%d finishes were answered %v", k, count)
			}
			if a := s.want(s.do("GET", "/v2/a/b/blobs/"+d.String(), nil), 200, ""); !bytes.Equal(a.body, b) {
				t.Fatalf("after %d finishes the blob has %d bytes", k, len(a.body))
			}
		}
	}
}

func TestWholeBlobsInOnePost(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for _, d := range []digest.Digest{digest.FromString("abc"), digest.SHA512.FromString("abc")} {
		a := s.want(s.do("POST", "/v2/a/b/blobs/uploads/?digest="+d.String(), strings.NewReader("abc")), 201, "")
		if got := s.want(s.do("GET", s.location(a), nil), 200, ""); string(got.body) != "abc" {
			t.Errorf("%s: the blob is %q", d, got.body)
		}
	}
	s.want(s.do("POST", "/v2/a/b/blobs/uploads/?digest="+digest.FromString("x").String(), strings.NewReader("abc")), 400, tarport.DigestInvalid)
}

func TestAMountNeedsTheRightToPullFromItsSource(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{may: func(p tarport.Principal, a tarport.Action, repository string) error {
		if !p.Admin && repository == "secret/a" {
			return tarport.Errorf(tarport.NameUnknown, "not known")
		}
		return nil
	}})
	secret, open := s.pushBlob("secret/a", []byte("secret")), s.pushBlob("open/a", []byte("open"))
	for _, tc := range []struct {
		query  string
		status int
	}{
		{"mount=" + open.String() + "&from=open/a", 201},
		{"mount=" + open.String(), 201},
		{"mount=" + secret.String() + "&from=secret/a", 202},
		{"mount=" + secret.String() + "&from=no/such", 202},
		{"mount=" + secret.String() + "&from=../x", 202},
		{"mount=" + secret.String(), 202},
	} {
		s.want(s.do("POST", "/v2/mine/a/blobs/uploads/?"+tc.query, nil, "X-User", "ada"), tc.status, "")
	}
	s.want(s.do("GET", "/v2/mine/a/blobs/"+secret.String(), nil, "X-User", "ada"), 404, tarport.BlobUnknown)
	s.want(s.do("POST", "/v2/mine/b/blobs/uploads/?mount="+secret.String(), nil), 201, "")
}

func TestReadsOfBlobs(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for _, n := range []int{0, 10, 32 << 10, 32<<10 + 1, 1 << 20} {
		b := randomBytes(n, uint64(n))
		path := "/v2/a/b/blobs/" + s.pushBlob("a/b", b).String()
		a := s.want(s.do("GET", path, nil), 200, "")
		head := s.want(s.do("HEAD", path, nil), 200, "")
		if !bytes.Equal(a.body, b) || a.ContentLength != int64(n) || head.ContentLength != int64(n) {
			t.Errorf("%d bytes: GET has %d, HEAD says %d", n, len(a.body), head.ContentLength)
		}
		if a.Header.Get("Accept-Ranges") != "bytes" || a.Header.Get("Docker-Content-Digest") != digest.FromBytes(b).String() {
			t.Errorf("%d bytes: headers %v", n, a.Header)
		}
		s.want(s.do("GET", path, nil, "If-None-Match", a.Header.Get("Etag")), 304, "")
		if n < 10 {
			continue
		}
		part := s.want(s.do("GET", path, nil, "Range", "bytes=3-6"), 206, "")
		if !bytes.Equal(part.body, b[3:7]) {
			t.Errorf("%d bytes: the range is %x, want %x", n, part.body, b[3:7])
		}
		tail := s.want(s.do("GET", path, nil, "Range", "bytes=-2"), 206, "")
		if !bytes.Equal(tail.body, b[n-2:]) {
			t.Errorf("%d bytes: the last two are %x", n, tail.body)
		}
		s.want(s.do("GET", path, nil, "Range", fmt.Sprintf("bytes=%d-", n)), 416, "")
	}
}

func TestReadsOfManifests(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	d, b := s.image("a/b", "1.0", 1, nil, nil)
	for _, ref := range []string{"1.0", d.String()} {
		a := s.want(s.do("GET", "/v2/a/b/manifests/"+ref, nil, "Accept", "text/plain"), 200, "")
		if !bytes.Equal(a.body, b) || a.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest || a.Header.Get("Docker-Content-Digest") != d.String() {
			t.Errorf("GET %s: %v %s", ref, a.Header, a.body)
		}
		head := s.want(s.do("HEAD", "/v2/a/b/manifests/"+ref, nil), 200, "")
		if head.ContentLength != int64(len(b)) || len(head.body) != 0 {
			t.Errorf("HEAD %s: length %d", ref, head.ContentLength)
		}
		s.want(s.do("GET", "/v2/a/b/manifests/"+ref, nil, "If-None-Match", a.Header.Get("Etag")), 304, "")
	}
	s.want(s.do("DELETE", "/v2/a/b/blobs/"+digest.FromBytes(randomBytes(1000, 1)).String(), nil), 409, tarport.Conflict)
	s.want(s.do("DELETE", "/v2/a/b/manifests/1.0", nil), 202, "")
	s.want(s.do("GET", "/v2/a/b/manifests/1.0", nil), 404, tarport.ManifestUnknown)
	s.want(s.do("GET", "/v2/a/b/manifests/"+d.String(), nil), 200, "")
	s.want(s.do("DELETE", "/v2/a/b/manifests/"+d.String(), nil), 202, "")
	s.want(s.do("GET", "/v2/a/b/manifests/"+d.String(), nil), 404, tarport.ManifestUnknown)
}

func TestTagsCanComeWithAManifest(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	_, b := s.image("a/b", "1.0", 1, nil, nil)
	d := digest.SHA512.FromBytes(b)
	a := s.want(s.do("PUT", "/v2/a/b/manifests/"+d.String()+"?tag=x&tag=y", bytes.NewReader(b), "Content-Type", ocispec.MediaTypeImageManifest), 201, "")
	if got := a.Header.Values("OCI-Tag"); len(got) != 2 {
		t.Errorf("OCI-Tag = %v", got)
	}
	if got := s.want(s.do("HEAD", "/v2/a/b/manifests/y", nil), 200, "").Header.Get("Docker-Content-Digest"); got != d.String() {
		t.Errorf("the tag points to %s, want %s", got, d)
	}
	wrong := "/v2/a/b/manifests/" + digest.FromString("no").String() + "?tag=z"
	s.want(s.do("PUT", wrong, bytes.NewReader(b), "Content-Type", ocispec.MediaTypeImageManifest), 400, tarport.DigestInvalid)
	s.want(s.do("HEAD", "/v2/a/b/manifests/z", nil), 404, tarport.ManifestUnknown)
}

func TestReferrersAreListedAndFiltered(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	d, b := s.image("a/b", "1.0", 1, nil, nil)
	subject := &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(b))}
	s.image("a/b", "", 2, map[string]string{"n": "1"}, subject)
	list := func(query string, want int) answer {
		t.Helper()
		a := s.want(s.do("GET", "/v2/a/b/referrers/"+d.String()+query, nil), 200, "")
		var ix ocispec.Index
		if err := json.Unmarshal(a.body, &ix); err != nil || ix.MediaType != ocispec.MediaTypeImageIndex || ix.Manifests == nil || len(ix.Manifests) != want {
			t.Errorf("referrers%s: %s, %v", query, a.body, err)
		}
		if want > 0 && (ix.Manifests[0].ArtifactType != "application/vnd.example.sbom" || ix.Manifests[0].Annotations["n"] != "1") {
			t.Errorf("referrers%s: %s", query, a.body)
		}
		return a
	}
	list("", 1)
	list("?artifactType=application/vnd.example.sbom", 1)
	if a := list("?artifactType=other", 0); a.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("OCI-Filters-Applied = %q", a.Header.Get("OCI-Filters-Applied"))
	}
	s.want(s.do("GET", "/v2/no/such/referrers/"+d.String(), nil), 200, "")
}

func TestListsPageByLink(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for i := range 4 {
		s.image(fmt.Sprintf("r/%d", i), fmt.Sprintf("t%d", i), uint64(i), nil, nil)
	}
	_, b := s.image("r/0", "T4", 9, nil, nil)
	_ = b
	a := s.want(s.do("GET", "/v2/r/0/tags/list", nil), 200, "")
	if got, want := string(a.body), `{"name":"r/0","tags":["T4","t0"]}`+"\n"; got != want {
		t.Errorf("tags = %s, want %s", got, want)
	}
	a = s.want(s.do("GET", "/v2/r/0/tags/list?n=1", nil), 200, "")
	if got, want := a.Header.Get("Link"), `</v2/r/0/tags/list?last=T4&n=1>; rel="next"`; got != want {
		t.Errorf("Link = %s, want %s", got, want)
	}
	a = s.want(s.do("GET", "/v2/r/0/tags/list?n=1&last=T4", nil), 200, "")
	if a.Header.Get("Link") != "" || !strings.Contains(string(a.body), `["t0"]`) {
		t.Errorf("the last page is %s with Link %q", a.body, a.Header.Get("Link"))
	}
	if a := s.want(s.do("GET", "/v2/r/0/tags/list?n=0", nil), 200, ""); !strings.Contains(string(a.body), `"tags":[]`) {
		t.Errorf("n=0: %s", a.body)
	}
	if a := s.want(s.do("GET", "/v2/_catalog?n=5000", nil), 200, ""); string(a.body) != `{"repositories":["r/0","r/1","r/2","r/3"]}`+"\n" {
		t.Errorf("the catalog is %s", a.body)
	}
	if a := s.want(s.do("GET", "/v2/_catalog", nil, "X-User", "ada"), 200, ""); string(a.body) != `{"repositories":[]}`+"\n" {
		t.Errorf("the catalog of who is no member is %s", a.body)
	}
}
