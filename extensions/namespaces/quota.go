package namespaces

import (
	"context"
	"net/http"

	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

func (h *Handler) quotaRoutes() []route {
	return []route{{http.MethodPost, "/admin/recount", h.recount}}
}

// Bytes are what a namespace uses.
type Bytes struct {
	UsedBytes     int64 `json:"used_bytes"`
	ReservedBytes int64 `json:"reserved_bytes"`
}

// Recounted is a namespace whose usage was added up anew.
type Recounted struct {
	Namespace string `json:"namespace"`
	Equal     bool   `json:"equal"`
	Stored    Bytes  `json:"stored"`    // as it was
	Recounted Bytes  `json:"recounted"` // as it is
}

func newRecounted(r metadata.Recounted) Recounted {
	return Recounted{r.Namespace, r.Equal(), Bytes{r.Stored.Used, r.Stored.Reserved}, Bytes{r.Counted.Used, r.Counted.Reserved}}
}

// recount adds up what every namespace uses, and with ?repair=true sets right
// what is stored. It names them all, and does not page.
func (h *Handler) recount(w http.ResponseWriter, r *http.Request) error {
	repair, err := httpapi.Flag(r, "repair")
	if err != nil {
		return err
	}
	items, err := h.s.Recount(r.Context(), repair)
	if err != nil {
		return err
	}
	equal := true
	for _, i := range items {
		equal = equal && i.Equal
	}
	return httpapi.WriteJSON(w, http.StatusOK, struct {
		Equal    bool        `json:"equal"`
		Repaired bool        `json:"repaired"`
		Items    []Recounted `json:"items"`
	}{equal, repair && !equal, items})
}

// Recount compares what is stored of each namespace's usage with what is there.
func (s *Service) Recount(ctx context.Context, repair bool) ([]Recounted, error) {
	if err := s.mayQuota(ctx); err != nil {
		return nil, err
	}
	rows, err := s.db.Recount(ctx, repair)
	return convert(rows, newRecounted), err
}
