package namespaces

import (
	"context"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

func (h *Handler) namespaceRoutes() []route {
	return []route{
		{http.MethodGet, "/namespaces", h.listNamespaces},
		{http.MethodPost, "/namespaces", h.postNamespace},
		{http.MethodGet, "/namespaces/{ns}", h.getNamespace},
		{http.MethodPatch, "/namespaces/{ns}", h.patchNamespace},
		{http.MethodDelete, "/namespaces/{ns}", h.deleteNamespace},
		{http.MethodGet, "/namespaces/{ns}/repositories", h.listNamespaceRepositories},
	}
}

// Namespace is a namespace as the API shows it. What it uses is for its members
// and for administrators.
type Namespace struct {
	Name         string       `json:"name"`
	Visibility   string       `json:"visibility"`
	Description  string       `json:"description"`
	Role         tarport.Role `json:"role"` // of who asks; "" for none
	Repositories int64        `json:"repositories"`
	CreatedAt    *time.Time   `json:"created_at"`
	CreatedBy    string       `json:"created_by,omitempty"`
	*NamespaceUsage
}

// NamespaceUsage is what a namespace may use, and does.
type NamespaceUsage struct {
	Members       int64 `json:"members"`
	QuotaBytes    int64 `json:"quota_bytes"` // -1: no limit
	UsedBytes     int64 `json:"used_bytes"`
	ReservedBytes int64 `json:"reserved_bytes"` // by uploads that are under way
}

func newNamespace(p tarport.Principal) func(metadata.Namespace) Namespace {
	return func(n metadata.Namespace) Namespace {
		out := Namespace{
			Name: n.Name, Visibility: n.Visibility, Description: n.Description, Role: n.Role,
			Repositories: n.Repositories, CreatedAt: stamp(n.CreatedAt),
		}
		if n.Role != "" || p.Admin {
			out.CreatedBy = n.CreatedBy
			out.NamespaceUsage = &NamespaceUsage{n.Members, n.Usage.Quota, n.Usage.Used, n.Usage.Reserved}
		}
		return out
	}
}

func (h *Handler) listNamespaces(w http.ResponseWriter, r *http.Request) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	items, err := h.s.Namespaces(r.Context(), n+1, last)
	if err != nil {
		return err
	}
	return list(w, r, items, n, func(ns Namespace) string { return ns.Name })
}

// Namespaces lists at most n namespaces that who asks may see, after last.
func (s *Service) Namespaces(ctx context.Context, n int, last string) ([]Namespace, error) {
	if err := s.may(ctx, tarport.List, ""); err != nil {
		return nil, err
	}
	p := tarport.PrincipalFrom(ctx)
	rows, err := s.db.Namespaces(ctx, metadata.ViewerOf(p), n, last)
	return convert(rows, newNamespace(p)), err
}

// NewNamespace is what a namespace shall be.
type NewNamespace struct {
	Name        string `json:"name"`
	Visibility  string `json:"visibility"`
	QuotaBytes  *int64 `json:"quota_bytes"`
	Description string `json:"description"`
}

func (h *Handler) postNamespace(w http.ResponseWriter, r *http.Request) error {
	var body NewNamespace
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	ns, err := h.s.CreateNamespace(r.Context(), body)
	if err != nil {
		return err
	}
	location(w, "/namespaces/%s", ns.Name)
	return httpapi.WriteJSON(w, http.StatusCreated, ns)
}

// CreateNamespace makes a namespace that belongs to who asks.
func (s *Service) CreateNamespace(ctx context.Context, n NewNamespace) (Namespace, error) {
	if err := tarport.CheckNamespace(n.Name); err != nil {
		return Namespace{}, err
	}
	if err := s.may(ctx, tarport.NamespaceCreate, n.Name); err != nil {
		return Namespace{}, err
	}
	if n.QuotaBytes != nil {
		if err := s.mayQuota(ctx); err != nil {
			return Namespace{}, err
		}
	}
	if n.Visibility == "" {
		n.Visibility = metadata.Private
	}
	if err := checkNamespaceTexts(&n.Visibility, &n.Description); err != nil {
		return Namespace{}, err
	}
	err := s.db.CreateNamespace(ctx, metadata.NewNamespace{Name: n.Name, Visibility: n.Visibility, Description: n.Description, Quota: n.QuotaBytes})
	if err != nil {
		return Namespace{}, err
	}
	return s.namespace(ctx, n.Name)
}

// mayQuota asks about quotas as such: the namespace need not be there yet.
func (s *Service) mayQuota(ctx context.Context) error {
	return s.may(ctx, tarport.QuotaManage, "")
}

const maxDescription = 1000

func checkNamespaceTexts(visibility, description *string) error {
	if visibility != nil && *visibility != metadata.Private && *visibility != metadata.Public {
		return tarport.Errorf(tarport.Invalid, "the visibility %q is neither private nor public", *visibility)
	}
	if description != nil {
		return checkText("description", *description, maxDescription, false)
	}
	return nil
}

func (s *Service) namespace(ctx context.Context, name string) (Namespace, error) {
	p := tarport.PrincipalFrom(ctx)
	row, err := s.db.Namespace(ctx, metadata.ViewerOf(p), name)
	return newNamespace(p)(row), err
}

func (h *Handler) getNamespace(w http.ResponseWriter, r *http.Request) error {
	ns, err := h.s.Namespace(r.Context(), mux.Vars(r)["ns"])
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, ns)
}

// Namespace reads a namespace.
func (s *Service) Namespace(ctx context.Context, name string) (Namespace, error) {
	if err := s.mayIn(ctx, tarport.NamespaceRead, name); err != nil {
		return Namespace{}, err
	}
	return s.namespace(ctx, name)
}

// mayIn is may for a namespace whose name comes from a path: one that cannot be
// there is not there.
func (s *Service) mayIn(ctx context.Context, a tarport.Action, name string) error {
	if tarport.CheckNamespace(name) != nil {
		return tarport.Errorf(tarport.NotFound, "there is no such namespace")
	}
	return s.may(ctx, a, name)
}

// orAbsent is the error of a list of what a namespace has. An administrator is
// let in also where there is none, and an empty list would say that there is.
func (s *Service) orAbsent(ctx context.Context, err error, name string, items int) error {
	if err != nil || items > 0 {
		return err
	}
	_, err = s.db.Namespace(ctx, metadata.ViewerOf(tarport.PrincipalFrom(ctx)), name)
	return err
}

// NamespacePatch is what of a namespace shall change; what is left out stays.
type NamespacePatch struct {
	Visibility  *string `json:"visibility"`
	QuotaBytes  *int64  `json:"quota_bytes"`
	Description *string `json:"description"`
}

func (h *Handler) patchNamespace(w http.ResponseWriter, r *http.Request) error {
	var body NamespacePatch
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	ns, err := h.s.UpdateNamespace(r.Context(), mux.Vars(r)["ns"], body)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, ns)
}

// UpdateNamespace changes a namespace. Its quota is not its owners' to change.
func (s *Service) UpdateNamespace(ctx context.Context, name string, p NamespacePatch) (Namespace, error) {
	if err := s.mayIn(ctx, tarport.NamespaceManage, name); err != nil {
		return Namespace{}, err
	}
	if p.QuotaBytes != nil {
		if err := s.mayIn(ctx, tarport.QuotaManage, name); err != nil {
			return Namespace{}, err
		}
	}
	if err := checkNamespaceTexts(p.Visibility, p.Description); err != nil {
		return Namespace{}, err
	}
	err := s.db.UpdateNamespace(ctx, name, metadata.NamespacePatch{Visibility: p.Visibility, Description: p.Description, Quota: p.QuotaBytes})
	if err != nil {
		return Namespace{}, err
	}
	return s.namespace(ctx, name)
}

func (h *Handler) deleteNamespace(w http.ResponseWriter, r *http.Request) error {
	force, err := httpapi.Flag(r, "force")
	if err != nil {
		return err
	}
	return noContent(w, h.s.DeleteNamespace(r.Context(), mux.Vars(r)["ns"], force))
}

// DeleteNamespace deletes a namespace that is empty, or with force all that it
// holds; without it the error says what that is.
func (s *Service) DeleteNamespace(ctx context.Context, name string, force bool) error {
	if err := s.mayIn(ctx, tarport.NamespaceManage, name); err != nil {
		return err
	}
	_, err := s.content.DeleteNamespace(ctx, name, force)
	return err
}
