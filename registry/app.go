package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// outcome is where the storage leaves the error that the App is about to
// blur, so that the client gets its true status, and the upload that it holds
// for the request: the App does not let go of one whose state it refuses.
type outcome struct {
	err    error
	upload distribution.BlobWriter
}

type outcomeKey struct{}

func (o *outcome) keep(err error) error {
	if o != nil && err != nil && o.err == nil && !errors.Is(err, io.EOF) &&
		!errors.Is(err, distribution.ErrBlobUploadUnknown) { // the App knows what that is
		o.err = err
	}
	return err
}

func outcomeFrom(ctx context.Context) *outcome {
	o, _ := ctx.Value(outcomeKey{}).(*outcome)
	return o
}

// app lets distribution's App serve the request. What it answers with a status
// of 400 or more is thrown away, and the error returned instead.
func (g *Registry) app(w http.ResponseWriter, rq *request) error {
	o := &outcome{}
	defer func() {
		if o.upload != nil {
			_ = o.upload.Close() // nothing after the App's own
		}
	}()
	ctx := context.WithValue(rq.withPrincipal(), outcomeKey{}, o)
	if rq.Method == http.MethodGet || rq.Method == http.MethodHead {
		ctx = storage.AskOnly(ctx)
	}
	aw := &appWriter{ResponseWriter: w}
	w.Header().Del("Docker-Distribution-Api-Version") // the App adds it
	g.inner.ServeHTTP(aw, rq.WithContext(ctx))
	if aw.refused == 0 {
		aw.begin()
		return nil
	}
	w.Header()["Docker-Distribution-Api-Version"] = apiVersion
	if o.err != nil {
		return o.err
	}
	return aw.error()
}

// appWriter passes on what the App answers, unless it is an error. The status
// waits for the first byte or the end: the App says 204 to a cancel, and then
// that it failed.
type appWriter struct {
	http.ResponseWriter
	status  int // of the answer, until it is passed on
	refused int // the status of the error
	body    bytes.Buffer
}

func (w *appWriter) WriteHeader(status int) {
	if w.refused != 0 {
		return
	}
	if status >= http.StatusBadRequest {
		w.refused = status
		return
	}
	w.status = status
}

// begin passes the status on.
func (w *appWriter) begin() {
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
		w.status = 0
	}
}

const maxAppError = 64 << 10

func (w *appWriter) Write(p []byte) (int, error) {
	if w.refused == 0 {
		w.begin()
		return w.ResponseWriter.Write(p)
	}
	if w.body.Len()+len(p) <= maxAppError {
		w.body.Write(p)
	}
	return len(p), nil
}

// Unwrap serves http.ResponseController.
func (w *appWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// error is an error that the App found by itself: its code stays, and the
// message where it is one of the fixed texts. Details can hold internal text.
func (w *appWriter) error() error {
	var answer struct {
		Errors []struct {
			Code    tarport.Code `json:"code"`
			Message string       `json:"message"`
		} `json:"errors"`
	}
	_ = json.Unmarshal(w.body.Bytes(), &answer) // it can be no JSON at all
	if len(answer.Errors) > 0 {
		e := answer.Errors[0]
		if e.Code == tarport.BlobUploadInvalid || e.Code.Status() == w.refused && e.Code != tarport.Internal {
			return &tarport.Error{Code: e.Code, Message: e.Message}
		}
	}
	if w.refused == http.StatusNotFound {
		return errNoRoute
	}
	return errors.New("distribution's App answered " + http.StatusText(w.refused) + ": " + strings.TrimSpace(w.body.String()))
}

// appNamespace is the namespace as the App gets it: it keeps errors for the
// front. Only uploads reach the App, so only those methods are wrapped.
type appNamespace struct{ distribution.Namespace }

func (n appNamespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	r, err := n.Namespace.Repository(ctx, name)
	return appRepository{r}, outcomeFrom(ctx).keep(err)
}

// Remove keeps the App from warning that it cannot; no route of its own asks.
func (n appNamespace) Remove(ctx context.Context, name reference.Named) error {
	r, ok := n.Namespace.(distribution.RepositoryRemover)
	if !ok {
		return distribution.ErrUnsupported
	}
	return r.Remove(ctx, name)
}

type appRepository struct{ distribution.Repository }

func (r appRepository) Blobs(ctx context.Context) distribution.BlobStore {
	return appBlobs{r.Repository.Blobs(ctx)}
}

type appBlobs struct{ distribution.BlobStore }

func (b appBlobs) Create(ctx context.Context, options ...distribution.BlobCreateOption) (distribution.BlobWriter, error) {
	return wrapUpload(ctx, func() (distribution.BlobWriter, error) { return b.BlobStore.Create(ctx, options...) })
}

func (b appBlobs) Resume(ctx context.Context, id string) (distribution.BlobWriter, error) {
	return wrapUpload(ctx, func() (distribution.BlobWriter, error) { return b.BlobStore.Resume(ctx, id) })
}

func wrapUpload(ctx context.Context, get func() (distribution.BlobWriter, error)) (distribution.BlobWriter, error) {
	o := outcomeFrom(ctx)
	u, err := get()
	if err != nil {
		return nil, o.keep(err)
	}
	if o != nil {
		o.upload = u
	}
	return appUpload{u, o}, nil
}

type appUpload struct {
	distribution.BlobWriter
	outcome *outcome
}

func (u appUpload) ReadFrom(r io.Reader) (int64, error) {
	n, err := u.BlobWriter.ReadFrom(r)
	return n, u.outcome.keep(err)
}

func (u appUpload) Commit(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	got, err := u.BlobWriter.Commit(ctx, d)
	return got, u.outcome.keep(err)
}

func (u appUpload) Cancel(ctx context.Context) error { return u.outcome.keep(u.BlobWriter.Cancel(ctx)) }

func (u appUpload) Close() error { return u.outcome.keep(u.BlobWriter.Close()) }
