package archive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// Uploads are archives that were sent before, in parts. See
// storage.ResumeArchiveUpload.
type Uploads interface {
	ResumeArchiveUpload(ctx context.Context, id string) (*storage.ArchiveUpload, error)
}

// upload is an archive that was sent before, held by one request.
type upload struct {
	io.ReadCloser
	session *storage.ArchiveUpload
}

// openUpload opens the upload that a request names instead of a body. CONFLICT
// where another request is at it, or where it is not complete.
func (h *Handler) openUpload(r *http.Request, id string) (*upload, error) {
	if err := emptyBody(r); err != nil {
		return nil, err
	}
	if h.s.o.Uploads == nil {
		return nil, tarport.Errorf(tarport.NotFound, "there are no uploads here")
	}
	session, err := h.s.o.Uploads.ResumeArchiveUpload(r.Context(), id)
	if err != nil {
		return nil, err
	}
	body, err := session.Open(r.Context())
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &upload{body, session}, nil
}

func emptyBody(r *http.Request) error {
	var one [1]byte
	n := 0
	if r.ContentLength < 0 {
		var err error
		if n, err = io.ReadFull(r.Body, one[:]); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if n > 0 || r.ContentLength > 0 {
		return tarport.Errorf(tarport.Invalid, "upload= says where the archive is, so the body must be empty")
	}
	return nil
}

// done is called before the answer. What became images is not needed any more;
// else it is kept until it expires, since the next request may know better: with
// another name or namespace, with room for it, or with import instead of load.
func (u *upload) done(ctx context.Context, log *slog.Logger, loaded bool) {
	err := u.ReadCloser.Close()
	if loaded {
		err = errors.Join(err, u.session.Delete(ctx))
	}
	if err = errors.Join(err, u.session.Close()); err != nil { // the images are there, or the error that counts is known
		log.LogAttrs(ctx, slog.LevelWarn, "upload was not removed", slog.String("id", u.session.Info().ID), slog.Any("err", err))
	}
}

// Close lets go of the upload.
func (u *upload) Close() error { return errors.Join(u.ReadCloser.Close(), u.session.Close()) }
