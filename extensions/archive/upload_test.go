package archive

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// sent is an upload of the archive, of which so many bytes came.
func (r *registry) sent(tb testing.TB, archive []byte, came int) (id string) {
	tb.Helper()
	u, err := r.store.NewArchiveUpload(tb.Context(), int64(len(archive)), "")
	if err == nil {
		_, err = u.Append(tb.Context(), bytes.NewReader(archive[:came]), nil)
	}
	if err == nil {
		err = u.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return u.Info().ID
}

func withUploads(r **registry) func(*Options) {
	return func(o *Options) { o.Uploads = later{r} }
}

// later is the store of a registry that is being made.
type later struct{ r **registry }

func (l later) ResumeArchiveUpload(ctx context.Context, id string) (*storage.ArchiveUpload, error) {
	return (*l.r).store.ResumeArchiveUpload(ctx, id)
}

func TestAnUploadIsLoadedOnceAndGone(t *testing.T) {
	t.Parallel()
	full := false
	var reg *registry
	reg = newRegistry(t, withUploads(&reg), func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			if full {
				return tarport.Errorf(tarport.Denied, "no")
			}
			return nil
		})
	})
	target := serve(t, reg.Service) + "?namespace=team&upload="
	body := docker("app:1", layerOf("x")).pack()
	id := reg.sent(t, body, len(body))
	post := func(target, body string, want int, text string) {
		t.Helper()
		if status, answer := call(t, http.MethodPost, target, strings.NewReader(body)); status != want || !strings.Contains(answer, text) {
			t.Errorf("POST %s = %d %s, want %d %s", target, status, answer, want, text)
		}
	}
	post(target+"NONE", "", 404, "NOT_FOUND")
	post(target+id, "body", 400, "INVALID")
	post(target+reg.sent(t, body, 1000), "", 409, `"detail":{"length":`)
	full = true
	post(target+id, "", 403, "DENIED")
	full = false
	post(target+id+"&compression=lzma", "", 400, "INVALID")
	held, err := reg.store.ResumeArchiveUpload(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	post(target+id, "", 409, "CONFLICT")
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	post(target+id, "", 201, `"name":"team/app:1"`)
	post(target+id, "", 404, "NOT_FOUND")
	rootFS := layerOf("y") // at the wrong door it is kept
	id = reg.sent(t, rootFS, len(rootFS))
	post(target+id, "", 422, "ARCHIVE_INVALID")
	post(strings.Replace(target, "/load?namespace=team", "/import?repo=team/fs", 1)+id, "", 201, `"name":"team/fs:latest"`)
	post(target+id, "", 404, "NOT_FOUND")
	broken := reg.sent(t, body[:1024], 1024)
	post(target+broken, "", 422, "ARCHIVE_INVALID")
	if _, err := reg.store.ArchiveUpload(t.Context(), broken); err != nil {
		t.Errorf("an upload that could not be loaded: %v", err)
	}
	status, answer := call(t, http.MethodPost, target+reg.sent(t, body, len(body)), nil, "Accept", mediaNDJSON)
	if status != 201 || !strings.Contains(answer, "Loaded image: team/app:1") {
		t.Errorf("with progress: %d %s", status, answer)
	}
}
