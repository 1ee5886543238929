package tags

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// Change is a change of what a tag points to.
type Change struct {
	ID         int64          `json:"id"`       // the later, the higher
	Digest     *digest.Digest `json:"digest"`   // null: it was deleted
	Previous   *digest.Digest `json:"previous"` // null: it was not there
	ChangedAt  time.Time      `json:"changed_at"`
	ChangedBy  string         `json:"changed_by"`
	ChangedVia string         `json:"changed_via"` // push, load, import, commit, tag or delete
	// Restorable tells whether the repository still has the image of Digest, or
	// of Previous where the tag was deleted: the tag can be set to it again.
	Restorable bool `json:"restorable"`
}

func (h *Handler) history(w http.ResponseWriter, r *http.Request) error {
	n, last, err := httpapi.Page(r)
	if err != nil {
		return err
	}
	var before int64
	if last != "" {
		if before, err = strconv.ParseInt(last, 10, 64); err != nil || before < 1 {
			return tarport.Errorf(tarport.PaginationInvalid, "last must be the id of a change")
		}
	}
	v := mux.Vars(r)
	changes, err := h.s.History(r.Context(), v["name"], v["tag"], n+1, before)
	if err != nil {
		return err
	}
	if len(changes) > n {
		changes = changes[:n]
		httpapi.SetNext(w, r, n, strconv.FormatInt(changes[n-1].ID, 10))
	}
	items := make([]Change, len(changes))
	for i := range changes {
		items[i] = newChange(&changes[i])
	}
	return httpapi.WriteJSON(w, http.StatusOK, map[string][]Change{"items": items})
}

// History lists at most n changes of a tag, the newest first, before the one
// with the id before (0: from the newest); also of a tag that was deleted.
// NAME_UNKNOWN where the caller may not pull from the repository,
// MANIFEST_UNKNOWN where it never had such a tag.
func (s *Service) History(ctx context.Context, repository, tag string, n int, before int64) ([]metadata.TagChange, error) {
	if err := s.mayTag(ctx, tarport.Pull, repository, tag); err != nil {
		return nil, err
	}
	changes, err := s.db.TagHistory(ctx, repository, tag, n, before)
	if err == nil && len(changes) == 0 && before == 0 {
		err = tarport.Errorf(tarport.ManifestUnknown, "the repository has never had a tag %s", tag)
	}
	return changes, err
}

func newChange(c *metadata.TagChange) Change {
	return Change{ID: c.ID, Digest: orNull(c.Digest), Previous: orNull(c.Previous), ChangedAt: c.At, ChangedBy: c.By, ChangedVia: c.Via, Restorable: c.Here}
}

func orNull(d digest.Digest) *digest.Digest {
	if d == "" {
		return nil
	}
	return &d
}
