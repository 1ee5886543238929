package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestOneUploadIsFinishedOnce has several clients finish one upload session at
// the same moment, as a retry does that overtakes its original. distribution
// v3.1.2 damages the blob then, for everybody and for good: in memory with two
// clients, on disk with sixteen.
func TestOneUploadIsFinishedOnce(t *testing.T) {
	t.Parallel()
	const sessions = 300
	for _, finishers := range []int{2, 16} {
		t.Run(fmt.Sprintf("%d at once", finishers), func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			c := s.client(t)
			r := race{server: s, client: c, finishers: finishers, scope: "repository:race/app:pull,push"}
			for i := range sessions {
				// Every other time the last piece of the blob comes with each of
				// the finishing requests; only one of them may be appended.
				r.run(t, i%2 == 1)
				if t.Failed() {
					t.Fatalf("session %d of %d went wrong", i+1, sessions)
				}
			}
		})
	}
}

type race struct {
	server    *server
	client    *client
	finishers int
	scope     string
}

// run makes one upload session and finishes it several times at once.
func (r *race) run(t *testing.T, withLastPiece bool) {
	t.Helper()
	blob := make([]byte, 64<<10)
	_, _ = rand.Read(blob)
	first, last := blob, []byte(nil)
	if withLastPiece {
		first, last = blob[:40<<10], blob[40<<10:]
	}
	begun := r.client.must(t, http.StatusAccepted, http.MethodPost, "/v2/race/app/blobs/uploads/", r.scope, nil)
	sent := r.client.must(t, http.StatusAccepted, http.MethodPatch, begun.header.Get("Location"), r.scope, first,
		"Content-Type", "application/octet-stream")
	dgst := digestOf(blob)
	finish := withQuery(sent.header.Get("Location"), "digest="+dgst)

	answers := make([]response, r.finishers)
	start := make(chan struct{})
	var g errgroup.Group
	for i := range answers {
		g.Go(func() (err error) {
			<-start
			answers[i], err = r.client.send(t.Context(), http.MethodPut, finish, r.scope, last, "Content-Type", "application/octet-stream")
			return err
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		t.Fatalf("finish: %v", err)
	}
	created := 0
	for _, a := range answers {
		switch a.status {
		case http.StatusCreated:
			created++
		case http.StatusNotFound, http.StatusConflict:
		default:
			t.Errorf("finishing answered %d %s, want 201, 404 or 409", a.status, a.body)
		}
	}
	if created != 1 {
		t.Errorf("requests that finished the session = %d, want 1", created)
	}
	got := r.client.do(t, http.MethodGet, "/v2/race/app/blobs/"+dgst, r.scope, nil)
	if got.status != http.StatusOK || !bytes.Equal(got.body, blob) {
		t.Errorf("GET of the blob = %d with %d bytes, want 200 with the %d that were sent", got.status, len(got.body), len(blob))
	}
	head := r.client.do(t, http.MethodHead, "/v2/race/app/blobs/"+dgst, r.scope, nil)
	if got, want := head.header.Get("Content-Length"), strconv.Itoa(len(blob)); head.status != http.StatusOK || got != want {
		t.Errorf("HEAD of the blob = %d with Content-Length %s, want 200 with %s", head.status, got, want)
	}
	stored, err := os.ReadFile(r.server.blobFile(dgst))
	if err != nil || !bytes.Equal(stored, blob) {
		t.Errorf("the blob's file has %d bytes (%v), want the %d that were sent", len(stored), err, len(blob))
	}
}

// withQuery appends a parameter to an upload's Location.
func withQuery(location, param string) string {
	if strings.Contains(location, "?") {
		return location + "&" + param
	}
	return location + "?" + param
}
