package uploads_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/uploads"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

type access func(a tarport.Action) error

func (f access) Authorize(_ context.Context, _ tarport.Principal, a tarport.Action, _ string) error {
	return f(a)
}

// site is the API over a store.
type site struct {
	t     *testing.T
	store *storage.Store
	url   string
	deny  tarport.Action
}

func eachSite(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(t, newSite(t, dsn))
	})
}

const maxSize = 1 << 20

func newSite(t *testing.T, dsn string) *site {
	t.Helper()
	db := metadatatest.Open(t, metadata.Options{DSN: dsn})
	s := &site{t: t}
	var err error
	if s.store, err = storage.New(storage.Options{DB: db, Root: t.TempDir(), MaxArchive: maxSize, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	may := access(func(a tarport.Action) error {
		if a == s.deny {
			return tarport.Errorf(tarport.Denied, "no")
		}
		return nil
	})
	r := mux.NewRouter()
	uploads.NewHandler(uploads.Options{Store: s.store, Access: may, MaxSize: maxSize}).Routes(r.PathPrefix("/api/v1").Subrouter())
	srv := httptest.NewServer(httpapi.Middleware(httpapi.Options{Log: slog.New(slog.DiscardHandler)})(
		http.HandlerFunc(func(w http.ResponseWriter, rq *http.Request) {
			var id int64
			_, _ = fmt.Sscan(rq.Header.Get("X-User"), &id)
			p := tarport.Principal{UserID: max(id, 1), Name: "ada"}
			r.ServeHTTP(w, rq.WithContext(tarport.WithPrincipal(rq.Context(), p)))
		})))
	t.Cleanup(func() {
		srv.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s.url = srv.URL
	return s
}

// send makes a request: "METHOD path", headers as "Name: value". It checks the
// status, and the headers that are wanted.
func (s *site) send(what string, status int, body io.Reader, headers ...string) *http.Response {
	s.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	if !strings.HasPrefix(path, "/api/") {
		path = "/api/v1/uploads" + path
	}
	rq, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	rq.Header.Set("Tus-Resumable", "1.0.0")
	rq.Header.Set("Content-Type", "application/offset+octet-stream")
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		rq.Header[http.CanonicalHeaderKey(k)] = []string{v}
	}
	rp, err := http.DefaultClient.Do(rq)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := io.ReadAll(rp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = rp.Body.Close()
	rp.Body = io.NopCloser(bytes.NewReader(b))
	if rp.StatusCode != status {
		s.t.Fatalf("%s %q = %d %s, want %d", what, headers, rp.StatusCode, b, status)
	}
	if got := rp.Header.Get("Tus-Resumable"); got != "1.0.0" && method != http.MethodGet {
		s.t.Errorf("%s: Tus-Resumable: %q", what, got)
	}
	return rp
}

func (s *site) wantHeaders(rp *http.Response, want ...string) {
	s.t.Helper()
	for i := 0; i < len(want); i += 2 {
		if got := rp.Header.Get(want[i]); got != want[i+1] {
			s.t.Errorf("%s %s: %s: %q, want %q", rp.Request.Method, rp.Request.URL.Path, want[i], got, want[i+1])
		}
	}
}

func (s *site) wantContent(location, want string) {
	s.t.Helper()
	ctx := tarport.WithPrincipal(s.t.Context(), tarport.Principal{UserID: 1})
	u, err := s.store.ResumeArchiveUpload(ctx, strings.TrimPrefix(location, "/api/v1/uploads/"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	r, err := u.Open(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		s.t.Errorf("the upload has %q (%v), want %q", got, err, want)
	}
}

func TestAnUploadInParts(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		rp := s.send("POST ", 201, nil, "Upload-Length: 11", "Upload-Metadata: filename aW1hZ2UudGFy,empty")
		at := rp.Header.Get("Location")
		s.wantHeaders(rp, "Upload-Offset", "0")
		if rp.Header.Get("Upload-Expires") == "" || !strings.HasPrefix(at, "/api/v1/uploads/") {
			t.Errorf("created: %v", rp.Header)
		}
		s.wantHeaders(s.send("PATCH "+at, 204, strings.NewReader("hello "), "Upload-Offset: 0"), "Upload-Offset", "6")
		s.wantHeaders(s.send("HEAD "+at, 200, nil), "Upload-Offset", "6", "Upload-Length", "11",
			"Upload-Metadata", "filename aW1hZ2UudGFy,empty", "Cache-Control", "no-store")
		s.send("PATCH "+at, 409, strings.NewReader("world"), "Upload-Offset: 5")
		s.send("PATCH "+at, 413, strings.NewReader("world!"), "Upload-Offset: 6")
		s.wantHeaders(s.send("POST "+at, 204, strings.NewReader("world"), "Upload-Offset: 6", "X-HTTP-Method-Override: PATCH"), "Upload-Offset", "11")
		s.wantContent(at, "hello world")
		var got uploads.Upload
		if err := json.NewDecoder(s.send("GET "+at, 200, nil).Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		length := int64(11)
		want := uploads.Upload{
			ID: strings.TrimPrefix(at, "/api/v1/uploads/"), Filename: "image.tar", Metadata: map[string]string{"filename": "image.tar", "empty": ""},
			Offset: 11, Length: &length, CreatedAt: got.CreatedAt, ExpiresAt: got.ExpiresAt,
		}
		if diff := cmp.Diff(want, got); diff != "" || !got.ExpiresAt.After(got.CreatedAt) {
			t.Errorf("GET (-want +got):\n%s", diff)
		}
		for _, method := range []string{"HEAD", "PATCH", "DELETE", "GET"} {
			s.send(method+" "+at, 404, nil, "Upload-Offset: 11", "X-User: 2")
		}
		s.send("DELETE "+at, 204, nil)
		s.send("HEAD "+at, 404, nil)
		s.send("PATCH "+at, 404, nil, "Upload-Offset: 11")
	})
}

func TestAnUploadOfWhichTheLengthComesLater(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		at := s.send("POST ", 201, strings.NewReader("abc"), "Upload-Defer-Length: 1").Header.Get("Location")
		s.wantHeaders(s.send("HEAD "+at, 200, nil), "Upload-Offset", "3", "Upload-Defer-Length", "1", "Upload-Length", "")
		s.send("PATCH "+at, 413, strings.NewReader(""), "Upload-Offset: 3", fmt.Sprintf("Upload-Length: %d", maxSize+1))
		s.send("PATCH "+at, 409, strings.NewReader(""), "Upload-Offset: 3", "Upload-Length: 2")
		chunked := iotest.OneByteReader(strings.NewReader("defg"))
		s.send("PATCH "+at, 413, chunked, "Upload-Offset: 3", "Upload-Length: 6")
		s.wantHeaders(s.send("HEAD "+at, 200, nil), "Upload-Offset", "6", "Upload-Length", "6", "Upload-Defer-Length", "")
		s.wantContent(at, "abcdef")
		empty := s.send("POST ", 201, nil, "Upload-Length: 0").Header.Get("Location")
		s.wantContent(empty, "")
	})
}

func TestChecksumsOfParts(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		sum := func(text string) string {
			b := sha1.Sum([]byte(text))
			return "Upload-Checksum: sha1 " + base64.StdEncoding.EncodeToString(b[:])
		}
		at := s.send("POST ", 201, nil, "Upload-Length: 6").Header.Get("Location")
		s.send("PATCH "+at, 460, strings.NewReader("abc"), "Upload-Offset: 0", sum("abd"))
		s.wantHeaders(s.send("HEAD "+at, 200, nil), "Upload-Offset", "0")
		s.send("PATCH "+at, 204, strings.NewReader("abc"), "Upload-Offset: 0", sum("abc"))
		s.send("PATCH "+at, 460, strings.NewReader("deg"), "Upload-Offset: 3", "Upload-Checksum: md5 "+base64.StdEncoding.EncodeToString(make([]byte, 16)))
		s.send("PATCH "+at, 400, strings.NewReader("def"), "Upload-Offset: 3", "Upload-Checksum: crc32 AAAAAA==")
		s.send("PATCH "+at, 400, strings.NewReader("def"), "Upload-Offset: 3", "Upload-Checksum: sha1 AAAAAA==")
		s.send("PATCH "+at, 204, strings.NewReader("def"), "Upload-Offset: 3", sum("def"))
		s.wantContent(at, "abcdef")
		s.send("POST ", 460, strings.NewReader("abc"), "Upload-Length: 3", sum("x"))
		var list struct{ Items []uploads.Upload }
		if err := json.NewDecoder(s.send("GET ", 200, nil).Body).Decode(&list); err != nil || len(list.Items) != 1 {
			t.Errorf("uploads after one that could not begin: %+v (%v)", list, err)
		}
	})
}

func TestWhatIsNotOfTheProtocol(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	at := s.send("POST ", 201, nil, "Upload-Length: 3").Header.Get("Location")
	s.wantHeaders(s.send("OPTIONS ", 204, nil, "Tus-Resumable: "), "Tus-Version", "1.0.0", "Tus-Max-Size", "1048576", "Tus-Checksum-Algorithm", "md5,sha1,sha256",
		"Tus-Extension", "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination")
	for _, method := range []string{"HEAD", "PATCH", "DELETE"} {
		s.wantHeaders(s.send(method+" "+at, 412, nil, "Tus-Resumable: 0.2.2", "Upload-Offset: 0"), "Tus-Version", "1.0.0")
	}
	for _, h := range [][]string{
		{},
		{"Upload-Length: -1"},
		{"Upload-Length: x"},
		{"Upload-Length: +3"},
		{"Upload-Length: 3", "Upload-Defer-Length: 1"},
		{"Upload-Defer-Length: 2"},
		{"Upload-Length: 3", "Upload-Metadata: a b"},
		{"Upload-Length: 3", "Upload-Metadata: a,a"},
		{"Upload-Length: 3", "Upload-Metadata: ,"},
		{"Upload-Length: 3", "Upload-Metadata: a " + strings.Repeat("A", 5000)},
		{"Upload-Length: 3", "Upload-Checksum: sha1"},
	} {
		s.send("POST ", 400, nil, h...)
	}
	s.send("POST ", 413, nil, fmt.Sprintf("Upload-Length: %d", maxSize+1))
	s.send("POST ", 413, strings.NewReader("abcd"), "Upload-Length: 3")
	s.send("PATCH "+at, 415, strings.NewReader("abc"), "Upload-Offset: 0", "Content-Type: application/octet-stream")
	s.send("PATCH "+at, 400, strings.NewReader("abc"))
	s.send("PATCH "+at, 400, strings.NewReader("abc"), "Upload-Offset: -0")
	s.send("POST "+at, 405, strings.NewReader("abc"), "Upload-Offset: 0")
	s.send("HEAD /nope", 404, nil)
	s.send("GET ?last=nope", 400, nil)
	s.wantHeaders(s.send("HEAD "+at, 200, nil), "Upload-Offset", "0")
	s.deny = tarport.Upload
	s.send("POST ", 403, nil, "Upload-Length: 3")
	s.send("PATCH "+at, 403, nil, "Upload-Offset: 0")
	s.send("DELETE "+at, 403, nil)
}

func TestUploadsAreListedInPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	for range 3 {
		s.send("POST ", 201, nil, "Upload-Length: 3")
	}
	s.send("POST ", 201, nil, "Upload-Length: 3", "X-User: 2")
	seen := map[string]bool{}
	for next := "?n=2"; next != ""; {
		rp := s.send("GET "+next, 200, nil)
		var list struct{ Items []uploads.Upload }
		if err := json.NewDecoder(rp.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		for _, u := range list.Items {
			seen[u.ID] = true
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(rp.Header.Get("Link"), "<"), ">")
	}
	if len(seen) != 3 {
		t.Errorf("the pages have %d uploads, want 3", len(seen))
	}
}
