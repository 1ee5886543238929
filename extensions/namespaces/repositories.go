package namespaces

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// repositoryRoutes match whole repositories only; see wholeRepository.
func (h *Handler) repositoryRoutes() []route {
	return []route{
		{http.MethodGet, "/repositories", h.listRepositories},
		{http.MethodGet, "/repositories/{name:.+}", h.getRepository},
		{http.MethodPatch, "/repositories/{name:.+}", h.patchRepository},
		{http.MethodDelete, "/repositories/{name:.+}", h.deleteRepository},
	}
}

// wholeRepository leaves alone what is inside a repository: behind its name,
// which can have no such part, stands /-/.
func wholeRepository(r *http.Request, _ *mux.RouteMatch) bool {
	return !strings.Contains(r.URL.Path, "/-/")
}

// Repository is a repository as the API shows it. Readme is Markdown, as its
// writer sent it: what shows it must make it harmless. It is only there where
// one repository is read.
type Repository struct {
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Readme      *string    `json:"readme,omitempty"`
	Tags        int64      `json:"tags"`
	Manifests   int64      `json:"manifests"`
	CreatedAt   *time.Time `json:"created_at"`
	UpdatedAt   *time.Time `json:"updated_at"`
}

func newRepository(r metadata.Repository) Repository {
	return Repository{
		Name: r.Name, Description: r.Description, Tags: r.Tags, Manifests: r.Manifests,
		CreatedAt: stamp(r.CreatedAt), UpdatedAt: stamp(r.ChangedAt),
	}
}

func (h *Handler) listRepositories(w http.ResponseWriter, r *http.Request) error {
	return h.repositories(w, r, h.s.Repositories)
}

func (h *Handler) listNamespaceRepositories(w http.ResponseWriter, r *http.Request) error {
	ns := mux.Vars(r)["ns"]
	return h.repositories(w, r, func(ctx context.Context, q string, n int, last string) ([]Repository, error) {
		return h.s.NamespaceRepositories(ctx, ns, q, n, last)
	})
}

func (h *Handler) repositories(w http.ResponseWriter, r *http.Request,
	read func(ctx context.Context, q string, n int, last string) ([]Repository, error),
) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	q := r.URL.Query().Get("q")
	if len(q) > tarport.MaxNameLength || strings.ContainsFunc(q, unprintable) {
		return tarport.Errorf(tarport.Invalid, "q is no part of a name")
	}
	items, err := read(r.Context(), q, n+1, last)
	if err != nil {
		return err
	}
	return list(w, r, items, n, func(r Repository) string { return r.Name })
}

// Repositories lists at most n repositories that who asks may read, with q in
// their name, after last.
func (s *Service) Repositories(ctx context.Context, q string, n int, last string) ([]Repository, error) {
	if err := s.may(ctx, tarport.List, ""); err != nil {
		return nil, err
	}
	rows, err := s.db.ListRepositories(ctx, metadata.ViewerOf(tarport.PrincipalFrom(ctx)), "", q, n, last)
	return convert(rows, newRepository), err
}

// NamespaceRepositories is Repositories for those of one namespace.
func (s *Service) NamespaceRepositories(ctx context.Context, ns, q string, n int, last string) ([]Repository, error) {
	if err := s.mayIn(ctx, tarport.NamespaceRead, ns); err != nil {
		return nil, err
	}
	v := metadata.ViewerOf(tarport.PrincipalFrom(ctx))
	v.Namespace = "" // it may read this one
	rows, err := s.db.ListRepositories(ctx, v, ns, q, n, last)
	return convert(rows, newRepository), s.orAbsent(ctx, err, ns, len(rows))
}

func (h *Handler) getRepository(w http.ResponseWriter, r *http.Request) error {
	repo, err := h.s.Repository(r.Context(), mux.Vars(r)["name"])
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, repo)
}

// Repository reads a repository.
func (s *Service) Repository(ctx context.Context, name string) (Repository, error) {
	if err := s.mayRepository(ctx, tarport.Pull, name); err != nil {
		return Repository{}, err
	}
	return s.repository(ctx, name)
}

// mayRepository is may for a repository whose name comes from a path.
func (s *Service) mayRepository(ctx context.Context, a tarport.Action, name string) error {
	if err := tarport.CheckRepository(name); err != nil {
		return err
	}
	return s.may(ctx, a, name)
}

func (s *Service) repository(ctx context.Context, name string) (Repository, error) {
	row, err := s.db.Repository(ctx, name)
	repo := newRepository(row)
	repo.Readme = &row.Readme
	return repo, err
}

// RepositoryPatch is what of a repository shall change; what is left out stays.
type RepositoryPatch struct {
	Description *string `json:"description"`
	Readme      *string `json:"readme"`
}

func (h *Handler) patchRepository(w http.ResponseWriter, r *http.Request) error {
	var body RepositoryPatch
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	repo, err := h.s.UpdateRepository(r.Context(), mux.Vars(r)["name"], body)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, repo)
}

// UpdateRepository describes a repository.
func (s *Service) UpdateRepository(ctx context.Context, name string, p RepositoryPatch) (Repository, error) {
	if err := s.mayRepository(ctx, tarport.RepositoryManage, name); err != nil {
		return Repository{}, err
	}
	if p.Description != nil {
		if err := checkText("description", *p.Description, maxDescription, false); err != nil {
			return Repository{}, err
		}
	}
	if p.Readme != nil {
		if err := checkText("readme", *p.Readme, httpapi.MaxJSON, true); err != nil {
			return Repository{}, err
		}
	}
	if err := s.db.UpdateRepository(ctx, name, metadata.RepositoryPatch{Description: p.Description, Readme: p.Readme}); err != nil {
		return Repository{}, err
	}
	return s.repository(ctx, name)
}

func (h *Handler) deleteRepository(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, h.s.DeleteRepository(r.Context(), mux.Vars(r)["name"]))
}

// DeleteRepository deletes a repository with all its tags and images.
func (s *Service) DeleteRepository(ctx context.Context, name string) error {
	if err := s.mayRepository(ctx, tarport.RepositoryManage, name); err != nil {
		return err
	}
	return s.content.DeleteRepository(ctx, name)
}
