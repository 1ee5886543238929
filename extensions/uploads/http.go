package uploads

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// Options of NewHandler.
type Options struct {
	Store   *storage.Store // required
	Access  tarport.Access // required
	MaxSize int64          // of an archive, for Tus-Max-Size; 0: not told
}

// Handler is the package's part of the HTTP API.
type Handler struct{ o Options }

// NewHandler returns the routes. Who asks is in the request's context
// (tarport.WithPrincipal).
func NewHandler(o Options) *Handler { return &Handler{o} }

// Routes adds the routes to r, which is the router of /api/v1.
func (h *Handler) Routes(r *mux.Router) {
	for _, rt := range []struct {
		method, path string
		serve        httpapi.HandlerFunc
	}{
		{http.MethodOptions, "/uploads", h.options},
		{http.MethodGet, "/uploads", h.list},
		{http.MethodPost, "/uploads", tus(h.create)},
		{http.MethodOptions, "/uploads/{id}", h.options},
		{http.MethodGet, "/uploads/{id}", h.get},
		{http.MethodHead, "/uploads/{id}", tus(h.head)},
		{http.MethodPatch, "/uploads/{id}", tus(h.patch)},
		{http.MethodDelete, "/uploads/{id}", tus(h.delete)},
		{http.MethodPost, "/uploads/{id}", tus(h.override)},
	} {
		r.Path(rt.path).Methods(rt.method).Handler(httpapi.Handle(rt.serve))
	}
}

// tus is what all requests of the protocol have in common.
func tus(serve httpapi.HandlerFunc) httpapi.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set(hResumable, version)
		if v := r.Header.Get(hResumable); v != version {
			w.Header().Set("Tus-Version", version)
			return tarport.Errorf(tarport.PreconditionFailed, "%s is %q: this is tus %s", hResumable, v, version)
		}
		return serve(w, r)
	}
}

func (h *Handler) options(w http.ResponseWriter, _ *http.Request) error {
	head := w.Header()
	head.Set(hResumable, version)
	head.Set("Tus-Version", version)
	head.Set("Tus-Extension", extensions)
	head.Set("Tus-Checksum-Algorithm", algorithms())
	if h.o.MaxSize > 0 {
		head.Set("Tus-Max-Size", strconv.FormatInt(h.o.MaxSize, 10))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) allow(r *http.Request) error {
	return h.o.Access.Authorize(r.Context(), tarport.PrincipalFrom(r.Context()), tarport.Upload, "")
}

// create begins an upload, with its first bytes where the request has some.
func (h *Handler) create(w http.ResponseWriter, r *http.Request) error {
	if err := h.allow(r); err != nil {
		return err
	}
	length, err := newLength(r.Header)
	if err != nil {
		return err
	}
	if _, err := parseMetadata(r.Header.Get(hMetadata)); err != nil {
		return err
	}
	sum, err := parseChecksum(r.Header)
	if err != nil {
		return err
	}
	body := isOctetStream(r)
	if body && length >= 0 && r.ContentLength > length {
		return tooMuch(r.ContentLength, length)
	}
	u, err := h.o.Store.NewArchiveUpload(r.Context(), length, r.Header.Get(hMetadata))
	if err != nil {
		return err
	}
	if body {
		_, err = u.Append(r.Context(), r.Body, sum)
	}
	if err != nil { // its sender never learns where it is
		return errors.Join(err, u.Delete(r.Context()))
	}
	if err := u.Close(); err != nil { // before the answer: the next request may come at once
		return err
	}
	w.Header().Set("Location", "/api/v1/uploads/"+u.Info().ID)
	return answer(w, u.Info(), http.StatusCreated)
}

func tooMuch(has, left int64) error {
	return tarport.Errorf(tarport.TooLarge, "the body has %d bytes, %d are left of the upload's length", has, left)
}

func isOctetStream(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == octetStream
}

// answer tells how far an upload is.
func answer(w http.ResponseWriter, u metadata.ArchiveUpload, status int) error {
	head := w.Header()
	head.Set(hOffset, strconv.FormatInt(u.Size, 10))
	head.Set(hExpires, u.ExpiresAt.UTC().Format(http.TimeFormat))
	w.WriteHeader(status)
	return nil
}

func (h *Handler) head(w http.ResponseWriter, r *http.Request) error {
	u, err := h.look(r)
	if err != nil {
		return err
	}
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	if u.Length >= 0 {
		head.Set(hLength, strconv.FormatInt(u.Length, 10))
	} else {
		head.Set(hDeferLength, "1")
	}
	if u.Metadata != "" {
		head.Set(hMetadata, u.Metadata)
	}
	return answer(w, u, http.StatusOK)
}

func (h *Handler) look(r *http.Request) (metadata.ArchiveUpload, error) {
	ctx := r.Context()
	if err := h.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.List, ""); err != nil {
		return metadata.ArchiveUpload{}, err
	}
	return h.o.Store.ArchiveUpload(ctx, mux.Vars(r)["id"])
}

// patch adds bytes to an upload.
func (h *Handler) patch(w http.ResponseWriter, r *http.Request) error {
	if err := h.allow(r); err != nil {
		return err
	}
	if !isOctetStream(r) {
		return tarport.Errorf(tarport.UnsupportedMedia, "the Content-Type must be %s", octetStream)
	}
	offset, found, err := number(r.Header, hOffset)
	if err == nil && !found {
		err = invalid("%s is missing", hOffset)
	}
	if err != nil {
		return err
	}
	length, known, err := number(r.Header, hLength)
	if err != nil {
		return err
	}
	if !known {
		length = -1
	}
	sum, err := parseChecksum(r.Header)
	if err != nil {
		return err
	}
	u, err := h.o.Store.ResumeArchiveUpload(r.Context(), mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	// It is let go of before the answer: the next request may come at once.
	if err := errors.Join(add(r, u, offset, length, sum), u.Close()); err != nil {
		return err
	}
	return answer(w, u.Info(), http.StatusNoContent)
}

// add is what a PATCH does while it holds the upload.
func add(r *http.Request, u *storage.ArchiveUpload, offset, length int64, sum *storage.Checksum) error {
	if has := u.Info().Size; has != offset {
		return tarport.Errorf(tarport.Conflict, "the upload is at byte %d, not at %d", has, offset).WithDetail(map[string]any{"offset": has})
	}
	if length >= 0 {
		if err := u.SetLength(r.Context(), length); err != nil {
			return err
		}
	}
	if left := u.Info().Length - offset; u.Info().Length >= 0 && r.ContentLength > left {
		return tooMuch(r.ContentLength, left)
	}
	_, err := u.Append(r.Context(), r.Body, sum)
	return err
}

// delete cancels an upload.
func (h *Handler) delete(w http.ResponseWriter, r *http.Request) error {
	if err := h.allow(r); err != nil {
		return err
	}
	u, err := h.o.Store.ResumeArchiveUpload(r.Context(), mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	if err := u.Delete(r.Context()); err != nil {
		return errors.Join(err, u.Close())
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// override serves clients that can send nothing but GET and POST.
func (h *Handler) override(w http.ResponseWriter, r *http.Request) error {
	switch r.Header.Get(hOverride) {
	case http.MethodPatch:
		return h.patch(w, r)
	case http.MethodDelete:
		return h.delete(w, r)
	case http.MethodHead:
		return h.head(w, r)
	}
	if err := h.allow(r); err != nil {
		return err
	}
	w.Header().Set("Allow", "GET, HEAD, PATCH, DELETE")
	return tarport.Errorf(tarport.Unsupported, "POST is possible here only with %s: PATCH, DELETE or HEAD", hOverride)
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request) error {
	u, err := h.look(r)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpapi.WriteJSON(w, http.StatusOK, show(u))
}

// list shows the caller's own uploads.
func (h *Handler) list(w http.ResponseWriter, r *http.Request) error {
	n, last, err := httpapi.Page(r)
	if err == nil && last != "" && !storage.IsUploadID(last) {
		err = tarport.Errorf(tarport.PaginationInvalid, "last is no id of an upload")
	}
	if err != nil {
		return err
	}
	items, err := h.mine(r.Context(), n+1, last)
	if err != nil {
		return err
	}
	if len(items) > n {
		items = items[:n]
		q := url.Values{"n": {strconv.Itoa(n)}, "last": {items[n-1].ID}}
		w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
	}
	return httpapi.WriteJSON(w, http.StatusOK, map[string][]Upload{"items": items})
}

func (h *Handler) mine(ctx context.Context, n int, last string) ([]Upload, error) {
	if err := h.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.List, ""); err != nil {
		return nil, err
	}
	list, err := h.o.Store.ArchiveUploads(ctx, n, last)
	if err != nil {
		return nil, err
	}
	items := make([]Upload, len(list))
	for i, u := range list {
		items[i] = show(u)
	}
	return items, nil
}
