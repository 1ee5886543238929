package registry

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// startUpload serves POST: a mount, a whole blob in one request, or the
// beginning of a session. A mount that is not possible, whether because the
// blob is not there or because the client may not read it, is the beginning of
// a session.
func (g *Registry) startUpload(w http.ResponseWriter, rq *request) error {
	q := rq.URL.Query()
	switch {
	case q.Has("mount"):
		dgst, err := tarport.ParseDigest(q.Get("mount"))
		if err != nil {
			return err
		}
		mounted, err := g.mount(rq, q.Get("from"), dgst)
		if err != nil {
			return err
		}
		if mounted {
			return created(w, rq.repository, dgst)
		}
	case q.Has("digest"):
		return g.wholeUpload(w, rq, q.Get("digest"))
	}
	r := rq.Clone(rq.Context())
	r.URL = &url.URL{Path: "/v2/" + rq.repository + "/blobs/uploads/"}
	r.Header.Del("Content-Type") // the App would read a form out of the body
	return g.app(w, &request{Request: r, route: rq.route, repository: rq.repository, principal: rq.principal})
}

// maxSources is how many repositories are asked for a blob whose place the
// client does not name.
const maxSources = 100

// mount links a blob of another repository that the client may pull from. What
// counts is its right as it is now, not the scope of its token: a client that
// does not know the source cannot name it when it asks for one.
func (g *Registry) mount(rq *request, from string, dgst digest.Digest) (bool, error) {
	owner := rq.principal
	owner.Scope = nil
	sources := []string{from}
	if from == "" { // distribution spec 1.1, "Mounting a blob from another repository": the registry may look itself
		var err error
		if sources, err = g.store.BlobSources(rq.Context(), dgst, tarport.Namespace(rq.repository), maxSources); err != nil {
			return false, err
		}
	}
	for _, source := range sources {
		if tarport.CheckRepository(source) != nil || g.auth.Authorize(rq.Context(), owner, tarport.Pull, source) != nil {
			continue
		}
		_, err := g.store.MountBlob(rq.Context(), source, rq.repository, dgst)
		if err == nil {
			return true, nil
		}
		if tarport.ErrorCode(err) != tarport.BlobUnknown {
			return false, err
		}
	}
	return false, nil
}

// wholeUpload serves POST with a digest: the body is the blob.
func (g *Registry) wholeUpload(w http.ResponseWriter, rq *request, want string) error {
	dgst, err := tarport.ParseDigest(want)
	if err != nil {
		return err
	}
	ctx := storage.WithBody(rq.withPrincipal(), storage.Body{Length: rq.ContentLength, Digest: dgst, Last: true})
	u, err := g.store.NewUpload(ctx, rq.repository)
	if err != nil {
		return err
	}
	defer func() { _ = u.Cancel(ctx) }() // nothing after the commit
	if _, err := u.ReadFrom(rq.Body); err != nil {
		return err
	}
	if _, err := u.Commit(ctx, ocispec.Descriptor{Digest: dgst}); err != nil {
		return err
	}
	return created(w, rq.repository, dgst)
}

func created(w http.ResponseWriter, repository string, dgst digest.Digest) error {
	h := w.Header()
	h.Set("Location", "/v2/"+repository+"/blobs/"+dgst.String())
	h.Set("Docker-Content-Digest", dgst.String())
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

var contentRange = regexp.MustCompile(`^([0-9]{1,18})-([0-9]{1,18})$`)

// writeUpload serves PATCH and PUT of a session: the App does, after what it
// does not look at was looked at.
func (g *Registry) writeUpload(w http.ResponseWriter, rq *request) error {
	body := storage.Body{Length: rq.ContentLength}
	if rq.Method == http.MethodPut {
		var err error
		if body.Digest, err = tarport.ParseDigest(rq.URL.Query().Get("digest")); err != nil {
			return err
		}
		body.Last = true
	}
	r := rq.WithContext(storage.WithBody(rq.Context(), body))
	if cr := rq.Header.Get("Content-Range"); cr != "" {
		n, err := g.checkRange(rq, cr)
		if err != nil {
			return err
		}
		if rq.ContentLength < 0 {
			r.Body = &exactBody{rq.Body, n}
		}
	}
	r.Header = rq.Header.Clone()
	// Whatever the client calls it (curl says it is a form), it is bytes.
	r.Header.Set("Content-Type", "application/octet-stream")
	return g.app(w, &request{Request: r, route: rq.route, repository: rq.repository, principal: rq.principal, last: rq.last})
}

// exactBody is a body of unknown length that must have so many bytes.
type exactBody struct {
	io.ReadCloser
	left int64
}

func (b *exactBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left { // one more than there may be tells whether there is more
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		b.left = 0
		return n - 1, errNotAsRange
	}
	if errors.Is(err, io.EOF) && b.left > 0 {
		return n, errNotAsRange
	}
	return n, err
}

var errNotAsRange = tarport.Errorf(tarport.SizeInvalid, "the body is not as long as its Content-Range says")

// checkRange compares a Content-Range with the session, and with the body where
// its length is known, and returns how long the body must be.
func (g *Registry) checkRange(rq *request, cr string) (int64, error) {
	m := contentRange.FindStringSubmatch(cr)
	if m == nil {
		return 0, tarport.Errorf(tarport.RangeInvalid, "the Content-Range %q is not of the form START-END", cr)
	}
	start, _ := strconv.ParseInt(m[1], 10, 64)
	end, _ := strconv.ParseInt(m[2], 10, 64)
	u, err := g.store.UploadStatus(rq.withPrincipal(), rq.repository, rq.last)
	if err != nil {
		return 0, err
	}
	switch {
	case start != u.Size() || end < start:
		return 0, tarport.Errorf(tarport.RangeInvalid, "the Content-Range %q does not go on at byte %d, where the upload is", cr, u.Size())
	case rq.ContentLength >= 0 && rq.ContentLength != end-start+1:
		return 0, tarport.Errorf(tarport.SizeInvalid, "the Content-Range %q is not as long as the body, %d bytes", cr, rq.ContentLength)
	}
	return end - start + 1, nil
}
