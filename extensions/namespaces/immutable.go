package namespaces

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

func (h *Handler) immutableRoutes() []route {
	return []route{
		{http.MethodGet, "/namespaces/{ns}/immutable-rules", h.listRules},
		{http.MethodPost, "/namespaces/{ns}/immutable-rules", h.postRule},
		{http.MethodDelete, "/namespaces/{ns}/immutable-rules/{id}", h.deleteRule},
	}
}

// Rule makes tags of a namespace immutable. Patterns are on the repository's
// name behind the namespace, and on the tag.
type Rule struct {
	ID               int64      `json:"id"`
	Syntax           string     `json:"syntax"` // glob or re2
	Repository       string     `json:"repository"`
	ExceptRepository string     `json:"except_repository"`
	Tag              string     `json:"tag"`
	ExceptTag        string     `json:"except_tag"`
	CreatedAt        *time.Time `json:"created_at"`
	CreatedBy        string     `json:"created_by"`
}

func newRule(r metadata.ImmutableRule) Rule {
	return Rule{r.ID, r.Syntax, r.Repository, r.ExceptRepository, r.Tag, r.ExceptTag, stamp(r.CreatedAt), r.CreatedBy}
}

func (h *Handler) listRules(w http.ResponseWriter, r *http.Request) error {
	n, last, err := pageByID(r)
	if err != nil {
		return err
	}
	items, err := h.s.Rules(r.Context(), mux.Vars(r)["ns"])
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(rule Rule) bool { return rule.ID <= last })
	return list(w, r, items, n, func(rule Rule) string { return strconv.FormatInt(rule.ID, 10) })
}

// pageByID is page for a list whose last is an id; 0 where none was sent.
func pageByID(r *http.Request) (n int, last int64, err error) {
	n, text, err := httpapi.Page(r)
	if err == nil && text != "" {
		if last, err = parseID(text); err != nil {
			err = tarport.Errorf(tarport.PaginationInvalid, "last is no id")
		}
	}
	return n, last, err
}

func parseID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 1 {
		return 0, tarport.Errorf(tarport.NotFound, "%q is no id", s)
	}
	return id, nil
}

// Rules lists the immutable rules of a namespace, the oldest first; there are
// not many.
func (s *Service) Rules(ctx context.Context, ns string) ([]Rule, error) {
	if err := s.mayIn(ctx, tarport.NamespaceRead, ns); err != nil {
		return nil, err
	}
	rows, err := s.db.ImmutableRules(ctx, ns)
	return convert(rows, newRule), s.orAbsent(ctx, err, ns, len(rows))
}

// NewRule is what a rule shall be. An empty pattern matches everything, an
// empty exception excepts nothing.
type NewRule struct {
	Syntax           string `json:"syntax"`
	Repository       string `json:"repository"`
	ExceptRepository string `json:"except_repository"`
	Tag              string `json:"tag"`
	ExceptTag        string `json:"except_tag"`
}

func (h *Handler) postRule(w http.ResponseWriter, r *http.Request) error {
	var body NewRule
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	ns := mux.Vars(r)["ns"]
	rule, err := h.s.CreateRule(r.Context(), ns, body)
	if err != nil {
		return err
	}
	location(w, "/namespaces/%s/immutable-rules/%d", ns, rule.ID)
	return httpapi.WriteJSON(w, http.StatusCreated, rule)
}

// CreateRule adds a rule, which counts from now on.
func (s *Service) CreateRule(ctx context.Context, ns string, n NewRule) (Rule, error) {
	if err := s.mayIn(ctx, tarport.ImmutableManage, ns); err != nil {
		return Rule{}, err
	}
	for _, p := range []string{n.Repository, n.ExceptRepository, n.Tag, n.ExceptTag} {
		if err := checkText("pattern", p, maxDescription, false); err != nil {
			return Rule{}, err
		}
	}
	row, err := s.db.CreateImmutableRule(ctx, ns, metadata.ImmutableRule{
		Syntax: n.Syntax, Repository: n.Repository,
		ExceptRepository: n.ExceptRepository, Tag: n.Tag, ExceptTag: n.ExceptTag,
	})
	return newRule(row), err
}

func (h *Handler) deleteRule(w http.ResponseWriter, r *http.Request) error {
	v := mux.Vars(r)
	return noContent(w, h.s.DeleteRule(r.Context(), v["ns"], v["id"]))
}

// DeleteRule takes a rule of the namespace away, and of no other.
func (s *Service) DeleteRule(ctx context.Context, ns, id string) error {
	if err := s.mayIn(ctx, tarport.ImmutableManage, ns); err != nil {
		return err
	}
	n, err := parseID(id)
	if err != nil {
		return err
	}
	return s.db.DeleteImmutableRule(ctx, ns, n)
}
