package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// patched is a session with bytes in it: where it goes on.
func (s *server) patched(repository string, b []byte) string {
	s.Helper()
	return s.location(s.want(s.do("PATCH", s.begin(repository), bytes.NewReader(b)), 202, ""))
}

// status asks a session how far it is, and returns where it goes on.
func (s *server) status(at, wantRange string) string {
	s.Helper()
	a := s.want(s.do("GET", at, nil), 204, "")
	if got := a.Header.Get("Range"); got != wantRange {
		s.Errorf("Range = %q, want %q", got, wantRange)
	}
	return s.location(a)
}

// finish ends a session with a last piece, and reads the blob back.
func (s *server) finish(at string, last, whole []byte) {
	s.Helper()
	loc := s.location(s.want(s.do("PUT", finishing(at, digest.FromBytes(whole)), bytes.NewReader(last)), 201, ""))
	if got := s.want(s.do("GET", loc, nil), 200, ""); !bytes.Equal(got.body, whole) {
		s.Errorf("the blob has %d bytes, not the %d that were sent", len(got.body), len(whole))
	}
}

// withQuery is a location with one parameter changed.
func withQuery(tb testing.TB, location, key, value string) string {
	tb.Helper()
	u, err := url.Parse(location)
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	if value == "" {
		q.Del(key)
	} else {
		q.Set(key, value)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func TestARequestWithAnOldOrForeignStateDoesNotBlockTheSession(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		b := randomBytes(3000, 1)
		first := s.begin("a/b")
		at := s.location(s.want(s.do("PATCH", first, bytes.NewReader(b[:1000])), 202, ""))
		other := s.begin("a/b")
		d := digest.FromBytes(b)
		for _, method := range []string{"PATCH", "PUT", "DELETE"} {
			for name, c := range map[string]struct {
				location string
				status   int
				code     tarport.Code
			}{
				"an old state":       {first, 416, tarport.RangeInvalid},
				"no state":           {withQuery(t, at, "_state", ""), 400, tarport.BlobUploadInvalid},
				"a made-up state":    {withQuery(t, at, "_state", "x"), 400, tarport.BlobUploadInvalid},
				"another's state":    {withQuery(t, at, "_state", mustQuery(t, other, "_state")), 400, tarport.BlobUploadInvalid},
				"another repository": {strings.Replace(at, "/v2/a/b/", "/v2/a/c/", 1), 400, tarport.BlobUploadInvalid},
			} {
				a := s.do(method, withQuery(t, c.location, "digest", d.String()), bytes.NewReader(b[1000:]))
				if a.StatusCode != c.status || s.code(a) != c.code {
					t.Errorf("%s with %s: %d %s, want %d %s", method, name, a.StatusCode, a.body, c.status, c.code)
				}
			}
			s.status(at, "0-999")
		}
		s.finish(at, b[1000:], b)
	})
}

func mustQuery(tb testing.TB, location, key string) string {
	tb.Helper()
	u, err := url.Parse(location)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Query().Get(key)
}

func TestASessionCanBeAskedWhileARequestWritesToIt(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		b := randomBytes(3000, 1)
		at := s.patched("a/b", b[:1000])
		body, feed := io.Pipe()
		done := make(chan answer, 1)
		go func() { done <- s.do("PATCH", at, body) }()
		if _, err := feed.Write(b[1000:1500]); err != nil {
			t.Fatal(err)
		}
		// The request is served once it holds the session.
		for s.do("PATCH", at, nil).StatusCode != 409 {
			at = s.status(at, "0-999")
		}
		s.status(at, "0-999")
		s.want(s.do("HEAD", at, nil), 204, "")
		s.want(s.do("PATCH", at, strings.NewReader("x")), 409, tarport.Conflict)
		s.want(s.do("PUT", finishing(at, digest.FromBytes(b)), nil), 409, tarport.Conflict)
		s.want(s.do("DELETE", at, nil), 409, tarport.Conflict)
		if _, err := feed.Write(b[1500:2000]); err != nil {
			t.Fatal(err)
		}
		if err := feed.Close(); err != nil {
			t.Fatal(err)
		}
		at = s.location(s.want(<-done, 202, ""))
		s.status(at, "0-1999")
		s.finish(at, b[2000:], b)
	})
}

func TestACancelledSessionIsGone(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		at := s.patched("a/b", randomBytes(1000, 1))
		s.want(s.do("DELETE", at, nil), 204, "")
		for _, method := range []string{"GET", "HEAD", "PATCH", "PUT", "DELETE"} {
			s.want(s.do(method, finishing(at, digest.FromString("x")), nil), 404, tarport.BlobUploadUnknown)
		}
	})
}

func TestASessionIsOpenOnlyToWhoBeganIt(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	b := randomBytes(1000, 1)
	at := s.patched("a/b", b)
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		s.want(s.do(method, finishing(at, digest.FromBytes(b)), nil, "X-User", "eve"), 404, tarport.BlobUploadUnknown)
	}
	s.want(s.do("PATCH", at, strings.NewReader("x"), "X-User", "eve", "Content-Range", "1000-1000"), 404, tarport.BlobUploadUnknown)
	s.finish(at, nil, b)
}

func TestAUserWithTooManySessionsWaits(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	var last string
	for range 100 {
		last = s.begin("a/b")
	}
	a := s.want(s.do("POST", "/v2/a/b/blobs/uploads/", nil), 429, tarport.TooManyRequests)
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.want(s.do("POST", "/v2/a/b/blobs/uploads/?digest="+digest.FromString("x").String(), strings.NewReader("x")), 429, tarport.TooManyRequests)
	s.want(s.do("DELETE", last, nil), 204, "")
	s.begin("a/b")
}

func TestAFinishWithoutADigestIsRefusedAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	b := randomBytes(1000, 1)
	at := s.patched("a/b", b)
	for _, d := range []string{"", "x", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:abc"} {
		s.want(s.do("PUT", at+"&digest="+d, nil), 400, tarport.DigestInvalid)
	}
	s.want(s.do("PUT", at, nil), 400, tarport.DigestInvalid)
	s.finish(at, nil, b)
}

// TestABodyIsBytesWhateverItIsCalled: curl calls it a form, and distribution's
// App would read parameters out of one.
func TestABodyIsBytesWhateverItIsCalled(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		const form = "application/x-www-form-urlencoded"
		secret := s.pushBlob("secret/a", []byte("secret"))
		b := []byte("digest=" + secret.String() + "&mount=" + secret.String() + "&from=secret/a&_state=x")
		at := s.location(s.want(s.do("POST", "/v2/a/b/blobs/uploads/", bytes.NewReader(b), "Content-Type", form), 202, ""))
		for _, contentType := range []string{form, "multipart/form-data; boundary=x", "text/html", ";"} {
			loc := s.location(s.want(s.do("PATCH", at, bytes.NewReader(b), "Content-Type", contentType), 202, ""))
			whole := append(bytes.Clone(b), b...)
			d := digest.FromBytes(whole)
			got := s.location(s.want(s.do("PUT", finishing(loc, d), bytes.NewReader(b), "Content-Type", contentType), 201, ""))
			if a := s.want(s.do("GET", got, nil), 200, ""); !bytes.Equal(a.body, whole) {
				t.Errorf("%s: the blob is %q", contentType, a.body)
			}
			at = s.begin("a/b")
		}
		s.want(s.do("GET", "/v2/a/b/blobs/"+secret.String(), nil), 404, tarport.BlobUnknown)
	})
}

func TestTheContentRangeOfAPieceMustBeTrue(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		b := randomBytes(3000, 1)
		at := s.patched("a/b", b[:1000])
		piece := b[1000:2000]
		for _, c := range []struct {
			contentRange string
			status       int
			code         tarport.Code
		}{
			{"1000-", 416, tarport.RangeInvalid},
			{"-1999", 416, tarport.RangeInvalid},
			{"1999", 416, tarport.RangeInvalid},
			{"a-b", 416, tarport.RangeInvalid},
			{"+1000-1999", 416, tarport.RangeInvalid},
			{"1000 - 1999", 416, tarport.RangeInvalid},
			{"1000-1999/3000", 416, tarport.RangeInvalid},
			{"bytes 1000-1999/3000", 416, tarport.RangeInvalid},
			{"bytes=1000-1999", 416, tarport.RangeInvalid},
			{"1000-1999,2000-2999", 416, tarport.RangeInvalid},
			{"1000-99999999999999999999", 416, tarport.RangeInvalid},
			{"1999-1000", 416, tarport.RangeInvalid},
			{"0-999", 416, tarport.RangeInvalid},
			{"999-1998", 416, tarport.RangeInvalid},
			{"1001-2000", 416, tarport.RangeInvalid},
			{"1000-1998", 400, tarport.SizeInvalid},
			{"1000-2000", 400, tarport.SizeInvalid},
		} {
			for _, method := range []string{"PATCH", "PUT"} {
				s.want(s.do(method, finishing(at, digest.FromBytes(b)), bytes.NewReader(piece), "Content-Range", c.contentRange), c.status, c.code)
			}
		}
		at = s.status(at, "0-999")
		at = s.location(s.want(s.do("PATCH", at, bytes.NewReader(piece), "Content-Range", "1000-1999"), 202, ""))
		d := digest.FromBytes(b)
		s.want(s.do("PUT", finishing(at, d), bytes.NewReader(b[2000:]), "Content-Range", "2000-2999"), 201, "")
	})
}

// chunked hides how long a body is.
func chunked(b []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(b)} }

func TestAPieceOfUnknownLengthIsComparedWithItsContentRangeToo(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	b := randomBytes(3000, 1)
	for name, length := range map[string]int{"short": 999, "long": 1001, "empty": 0} {
		at := s.patched("a/b", b[:1000])
		s.want(s.do("PATCH", at, chunked(b[1000:1000+length]), "Content-Range", "1000-1999"), 400, tarport.SizeInvalid)
		s.want(s.do("GET", at, nil), 204, "")
		at = s.patched("a/b", b[:1000])
		d := digest.FromBytes(b[:1000+length])
		s.want(s.do("PUT", finishing(at, d), chunked(b[1000:1000+length]), "Content-Range", "1000-1999"), 400, tarport.SizeInvalid)
		if a := s.do("HEAD", "/v2/a/b/blobs/"+d.String(), nil); a.StatusCode != 404 {
			t.Errorf("a body that is too %s became a blob", name)
		}
	}
	at := s.patched("a/b", b[:1000])
	at = s.location(s.want(s.do("PATCH", at, chunked(b[1000:2000]), "Content-Range", "1000-1999"), 202, ""))
	s.finish(at, b[2000:], b)
}

// raw sends a request whose body ends before the length that was told, and
// returns the answer; nil where hangUp ends the connection.
func (s *server) raw(method, location string, told int, b []byte, hangUp bool, header ...string) *http.Response {
	s.Helper()
	u, err := url.Parse(location)
	if err != nil {
		s.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(s.Context(), "tcp", u.Host)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", method, u.RequestURI(), u.Host, told)
	for i := 0; i < len(header); i += 2 {
		head += header[i] + ": " + header[i+1] + "\r\n"
	}
	if _, err := conn.Write(append([]byte(head+"\r\n"), b...)); err != nil {
		s.Fatal(err)
	}
	if hangUp {
		return nil
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		s.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil // the server may end it without an answer
	}
	_ = resp.Body.Close()
	return resp
}

func TestABodyThatBreaksIsTheClientsFaultAndTheSessionGoesOnBehindIt(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		b := randomBytes(1_500_000, 1)
		for _, n := range []int{0, 1, 1000, 600_000, 1_200_000} {
			at := s.begin("a/b")
			if resp := s.raw("PATCH", at, len(b), b[:n], false); resp != nil && resp.StatusCode/100 != 4 {
				t.Errorf("a body that broke after %d bytes: status %d, want 4xx or none", n, resp.StatusCode)
			}
			want := "0-0"
			if n > 0 {
				want = fmt.Sprintf("0-%d", n-1)
			}
			at = s.settled(at, want)
			s.finish(at, b[n:], b)
		}
	})
}

// settled waits until the request that was cut has let go of its session.
func (s *server) settled(at, wantRange string) string {
	s.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		a := s.want(s.do("GET", at, nil), 204, "")
		if a.Header.Get("Range") == wantRange {
			return s.location(a)
		}
		select {
		case <-tick.C:
		case <-limit:
			s.Fatalf("the session is at %s, want %s", a.Header.Get("Range"), wantRange)
		}
	}
}

func TestClientsThatHangUpLeaveNothingVisible(t *testing.T) { //nolint:paralleltest // it counts goroutines
	s := newServer(t, fakeAuth{})
	_, m := s.image("a/b", "1.0", 1, nil, nil)
	b := randomBytes(100_000, 1)
	d := digest.FromBytes(b)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before := runtime.NumGoroutine()
	for _, hangUp := range []bool{true, false} {
		for i := range 5 {
			n := i * len(b) / 5
			s.raw("PATCH", s.begin("a/b"), len(b), b[:n], hangUp)
			s.raw("PUT", finishing(s.begin("a/b"), d), len(b), b[:n], hangUp)
			s.raw("POST", s.url+"/v2/a/b/blobs/uploads/?digest="+d.String(), len(b), b[:n], hangUp)
			s.raw("PUT", s.url+"/v2/a/b/manifests/cut", len(m), m[:i*len(m)/5], hangUp, "Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
	}
	s.want(s.do("HEAD", "/v2/a/b/blobs/"+d.String(), nil), 404, "")
	s.want(s.do("HEAD", "/v2/a/b/manifests/cut", nil), 404, "")
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > before+2 {
		select {
		case <-tick.C:
		case <-limit:
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestForwardedHeadersMoveNoLocationOfAnUpload(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	evil := []string{
		"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/evil",
		"Forwarded", "host=evil.example;proto=https", "Host", "evil.example",
	}
	b := randomBytes(1000, 1)
	at := s.location(s.want(s.do("POST", "/v2/a/b/blobs/uploads/", nil, evil...), 202, ""))
	at = s.location(s.want(s.do("PATCH", at, bytes.NewReader(b), evil...), 202, ""))
	at = s.location(s.want(s.do("GET", at, nil, evil...), 204, ""))
	s.location(s.want(s.do("PUT", finishing(at, digest.FromBytes(b)), nil, evil...), 201, ""))
	s.location(s.want(s.do("POST", "/v2/a/c/blobs/uploads/?from=a/b&mount="+digest.FromBytes(b).String(), nil, evil...), 201, ""))
	_, m := s.image("a/b", "1.0", 1, nil, nil)
	s.location(s.want(s.do("PUT", "/v2/a/b/manifests/2.0", bytes.NewReader(m), append(evil, "Content-Type", "application/vnd.oci.image.manifest.v1+json")...), 201, ""))
}

func TestUploadsOfSHA512InPieces(t *testing.T) {
	t.Parallel()
	eachServer(t, fakeAuth{}, func(t *testing.T, s *server) {
		b := randomBytes(3000, 1)
		d := digest.SHA512.FromBytes(b)
		a := s.want(s.do("PUT", finishing(s.patched("a/b", b[:1000]), d), bytes.NewReader(b[1000:])), 201, "")
		if got := a.Header.Get("Docker-Content-Digest"); got != d.String() {
			t.Errorf("Docker-Content-Digest = %s, want %s", got, d)
		}
		if got := s.want(s.do("GET", s.location(a), nil), 200, ""); !bytes.Equal(got.body, b) {
			t.Error("the blob is not what was sent")
		}
	})
}

func TestRepositoriesCalledLikeRoutesTakeUploads(t *testing.T) {
	t.Parallel()
	s := newServer(t, fakeAuth{})
	for i, name := range []string{"x/blobs", "x/manifests", "x/tags", "x/uploads", "x/blobs/uploads", "x/tags/list", "blobs", "v2/x"} {
		b := randomBytes(1000, uint64(i))
		s.finish(s.patched(name, b[:100]), b[100:], b)
		d, _ := s.image(name, "1.0", uint64(i), nil, nil)
		if a := s.want(s.do("HEAD", "/v2/"+name+"/manifests/1.0", nil), 200, ""); a.Header.Get("Docker-Content-Digest") != d.String() {
			t.Errorf("%s:1.0 is %s, want %s", name, a.Header.Get("Docker-Content-Digest"), d)
		}
		s.want(s.do("GET", "/v2/"+name+"/tags/list", nil), 200, "")
	}
}
