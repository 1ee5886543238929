package tags

import (
	"context"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
)

func (h *Handler) getTag(w http.ResponseWriter, r *http.Request) error {
	v := mux.Vars(r)
	t, err := h.s.Tag(r.Context(), v["name"], v["tag"])
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, t)
}

// Tag is a tag as the list shows it. NAME_UNKNOWN where the caller may not pull
// from the repository, MANIFEST_UNKNOWN where it has no such tag.
func (s *Service) Tag(ctx context.Context, repository, tag string) (Tag, error) {
	if err := s.mayTag(ctx, tarport.Pull, repository, tag); err != nil {
		return Tag{}, err
	}
	row, err := s.db.ListedTag(ctx, repository, tag)
	if err != nil {
		return Tag{}, err
	}
	return newTag(&row), nil
}

func (s *Service) mayTag(ctx context.Context, a tarport.Action, repository, tag string) error {
	if err := tarport.CheckTag(tag); err != nil {
		return err
	}
	return s.may(ctx, a, repository)
}

func (h *Handler) putTag(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		From string `json:"from"`
	}
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	v := mux.Vars(r)
	t, err := h.s.SetTag(r.Context(), v["name"], v["tag"], body.From)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if t.CreatedAt.Equal(t.PushedAt) { // the transaction that set it has made it
		status = http.StatusCreated
	}
	return httpapi.WriteJSON(w, status, t)
}

// SetTag lets a tag point to an image that is here: see parseFrom. Of another
// repository, from which the caller has to have the right to pull, the image
// comes with all that it reaches and without moving bytes; else only the tag
// moves. The rest is as in a push: the repository is made where it may be, and
// quota, immutable tags and events count.
func (s *Service) SetTag(ctx context.Context, repository, tag, from string) (Tag, error) {
	if err := s.mayTag(ctx, tarport.Push, repository, tag); err != nil {
		return Tag{}, err
	}
	source, ref, err := parseFrom(repository, from)
	if err != nil {
		return Tag{}, err
	}
	if err := s.may(ctx, tarport.Pull, source); err != nil {
		return Tag{}, err
	}
	m, err := s.content.Manifest(ctx, source, ref)
	if err != nil {
		return Tag{}, err
	}
	by := tarport.PrincipalFrom(ctx).Name
	if source == repository {
		err = s.content.Tag(ctx, repository, tag, m.Digest, by, storage.ViaTag)
	} else {
		err = s.content.CopyImage(ctx, source, m.Digest, repository, tag, by, storage.ViaTag)
	}
	if err != nil {
		return Tag{}, err
	}
	row, err := s.db.ListedTag(ctx, repository, tag)
	if err != nil {
		return Tag{}, err
	}
	return newTag(&row), nil
}

// parseFrom reads what an image is taken from: a tag or a digest of the
// repository itself, or another one's as team/app:1.0 or team/app@sha256:….
// Nothing is guessed: a name alone is a tag and never latest.
func parseFrom(repository, from string) (source string, ref tarport.Reference, err error) {
	switch {
	case from == "":
		return "", ref, tarport.Errorf(tarport.Invalid, `from must name the image: a tag, a digest, or team/app:1.0`)
	case strings.HasPrefix(from, "sha256:"), strings.HasPrefix(from, "sha512:"):
		ref, err = tarport.ParseReference(from)
		return repository, ref, err
	case !strings.ContainsAny(from, "/:@"):
		return repository, tarport.Reference{Tag: from}, tarport.CheckTag(from)
	case !strings.ContainsAny(from[strings.LastIndexByte(from, '/')+1:], ":@"):
		return "", ref, tarport.Errorf(tarport.Invalid, "from %q is a repository: name its image too, as in %[1]s:1.0 or %[1]s@sha256:…", from)
	}
	return tarport.ParseImage(from)
}

func (h *Handler) deleteTag(w http.ResponseWriter, r *http.Request) error {
	v := mux.Vars(r)
	if err := h.s.DeleteTag(r.Context(), v["name"], v["tag"]); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// DeleteTag takes a tag away; its image stays, so that it can be set again. The
// caller needs the right to delete. MANIFEST_UNKNOWN where there is no such tag,
// DENIED where it is immutable.
func (s *Service) DeleteTag(ctx context.Context, repository, tag string) error {
	if err := s.mayTag(ctx, tarport.Delete, repository, tag); err != nil {
		return err
	}
	return s.content.DeleteTag(ctx, repository, tag, tarport.PrincipalFrom(ctx).Name)
}
