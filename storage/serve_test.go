package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// serve answers a request for a blob, and returns an error from before the answer.
func (s *testStore) serve(tb testing.TB, d digest.Digest, header ...string) (*http.Response, []byte, error) {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if err := s.ServeBlob(tb.Context(), w, r, "a/b", d); err != nil {
		return nil, nil, err
	}
	return w.Result(), w.Body.Bytes(), nil
}

func TestABlobIsServedWholeWithWhatTellsAboutIt(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, n := range []int{0, 1, smallBlob - 1, smallBlob, smallBlob + 1, 300_000} {
			b := content(n)
			d := s.push(t, "a/b", b)
			resp, body, err := s.serve(t, d)
			check(t, "ServeBlob", err)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(body, b) {
				t.Errorf("%d bytes: status %d and %d bytes", n, resp.StatusCode, len(body))
			}
			got := map[string]string{}
			for _, k := range []string{"Content-Type", "Content-Length", "Docker-Content-Digest", "Etag", "Accept-Ranges", "Cache-Control"} {
				got[k] = resp.Header.Get(k)
			}
			want := map[string]string{
				"Content-Type": "application/octet-stream", "Content-Length": fmt.Sprint(n), "Docker-Content-Digest": d.String(),
				"Etag": `"` + d.String() + `"`, "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=31536000, immutable",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("header of %d bytes (-want +got):\n%s", n, diff)
			}
		}
	})
}

func TestPartsOfABlobAreServed(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, n := range []int{1000, 300_000} {
			b := content(n)
			d := s.push(t, "a/b", b)
			for _, c := range []struct {
				asked  string
				status int
				body   []byte
				told   string
			}{
				{"bytes=0-9", 206, b[:10], fmt.Sprintf("bytes 0-9/%d", n)},
				{"bytes=990-", 206, b[990:], fmt.Sprintf("bytes 990-%d/%d", n-1, n)},
				{"bytes=-10", 206, b[n-10:], fmt.Sprintf("bytes %d-%d/%d", n-10, n-1, n)},
				{"bytes=5-5", 206, b[5:6], fmt.Sprintf("bytes 5-5/%d", n)},
				{"bytes=10-99999999", 206, b[10:], fmt.Sprintf("bytes 10-%d/%d", n-1, n)},
				{fmt.Sprintf("bytes=%d-", n), 416, nil, fmt.Sprintf("bytes */%d", n)},
			} {
				resp, body, err := s.serve(t, d, "Range", c.asked)
				check(t, "ServeBlob", err)
				if resp.StatusCode != c.status || c.body != nil && !bytes.Equal(body, c.body) || resp.Header.Get("Content-Range") != c.told {
					t.Errorf("%s of %d: status %d, %d bytes, Content-Range %q; want %d, %d, %q", c.asked, n,
						resp.StatusCode, len(body), resp.Header.Get("Content-Range"), c.status, len(c.body), c.told)
				}
			}
		}
	})
}

func TestABlobThatTheClientHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		d := s.push(t, "a/b", content(1000))
		for none, want := range map[string]int{`"` + d.String() + `"`: 304, `W/"` + d.String() + `"`: 304, "*": 304, `"x"`: 200, `"x", "` + d.String() + `"`: 304} {
			resp, body, err := s.serve(t, d, "If-None-Match", none)
			check(t, "ServeBlob", err)
			if resp.StatusCode != want || want == 304 && len(body) != 0 {
				t.Errorf("If-None-Match: %s: status %d and %d bytes, want %d", none, resp.StatusCode, len(body), want)
			}
		}
	})
}

func TestABlobThatIsNotHereIsAnErrorFromBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		_, _, err := s.serve(t, digest.FromString("x"))
		wantCode(t, "ServeBlob", err, tarport.BlobUnknown)
		for name, damage := range damages {
			for _, n := range []int{1000, 100_000} {
				b := append(content(n), name...)
				d := s.push(t, "a/b", b)
				s.overwrite(t, blobPath(d), damage(b))
				_, _, err := s.serve(t, d)
				wantCode(t, "ServeBlob of a blob that "+name, err, tarport.BlobUnknown)
			}
		}
	})
}

// cutFiles lets a blob be cut after its size was looked at.
type cutFiles struct {
	files
	cut func()
}

func (f cutFiles) open(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	r, n, err := f.files.open(ctx, d)
	f.cut()
	return r, n, err
}

func TestABlobThatIsCutWhileItIsServedIsNoShortAnswer(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	d := s.push(t, "a/b", content(1000))
	s.files = cutFiles{s.files, func() { check(t, "truncate", os.Truncate(s.root+blobPath(d), 10)) }}
	resp, body, err := s.serve(t, d)
	if err == nil {
		t.Fatalf("answered %d with %d of 1000 bytes", resp.StatusCode, len(body))
	}
	if tarport.ErrorCode(err) != tarport.Internal || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error = %v, want an internal one that is not taken for a body of the client's that was cut", err)
	}
}
