package storage

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// smallBlob is up to what size a blob is read into memory and sent with its
// header in one write. Larger ones go by http.ServeContent, which lets the
// kernel copy from the file to the socket.
const smallBlob = 32 << 10

var smallBlobs = sync.Pool{New: func() any { b := make([]byte, smallBlob); return &b }}

// ServeBlob answers a GET of a blob that the repository links: ranges,
// conditions and all. What it returns is an error from before the answer.
func (s *Store) ServeBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, repository string, dgst digest.Digest) error {
	f, b, err := s.OpenBlob(ctx, repository, dgst)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	SetBlobHeaders(w.Header(), dgst)
	if b.Size > smallBlob || r.Header.Get("Range") != "" || r.Header.Get("If-None-Match") != "" {
		http.ServeContent(w, r, "", time.Time{}, f)
		return nil
	}
	buf := smallBlobs.Get().(*[]byte)
	defer smallBlobs.Put(buf)
	n, err := fill(f, (*buf)[:b.Size])
	if int64(n) < b.Size { // it was cut since it was opened: no short answer
		return fmt.Errorf("read blob %s: got %d of %d bytes: %v", dgst, n, b.Size, err) //nolint:errorlint // it is not about the client's body
	}
	w.Header()["Content-Length"] = []string{strconv.Itoa(n)}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write((*buf)[:n]) // a client that went away is no error
	return nil
}

// SetBlobHeaders sets what every answer about a blob tells. A blob never
// changes; whether it may be read is asked each time.
func SetBlobHeaders(h http.Header, dgst digest.Digest) {
	h["Content-Type"] = octetStream
	h["Docker-Content-Digest"] = []string{string(dgst)}
	h["Etag"] = []string{`"` + string(dgst) + `"`}
	h["Accept-Ranges"] = acceptRanges
	h["Cache-Control"] = cacheControl
}

// Shared by all answers: net/http does not change what it is given.
var (
	octetStream  = []string{"application/octet-stream"}
	acceptRanges = []string{"bytes"}
	cacheControl = []string{"private, max-age=31536000, immutable"}
)
