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

// userRoutes are for administrators.
func (h *Handler) userRoutes() []route {
	return []route{
		{http.MethodGet, "/users", h.listUsers},
		{http.MethodPost, "/users", h.postUser},
		{http.MethodGet, "/users/{user}", h.getUserByName},
		{http.MethodPatch, "/users/{user}", h.patchUser},
		{http.MethodDelete, "/users/{user}", h.deleteUser},
	}
}

// User is an account as administrators see it.
type User struct {
	Name      string     `json:"name"`
	Admin     bool       `json:"admin"`
	Disabled  bool       `json:"disabled"`
	CreatedAt *time.Time `json:"created_at"`
}

func newUser(a metadata.Account) User {
	return User{a.Name, a.Admin, a.Disabled, stamp(a.CreatedAt)}
}

func (h *Handler) listUsers(w http.ResponseWriter, r *http.Request) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	users, err := h.s.Users(r.Context(), n+1, last)
	if err != nil {
		return err
	}
	return list(w, r, users, n, func(u User) string { return u.Name })
}

// Users lists at most n users, after last.
func (s *Service) Users(ctx context.Context, n int, last string) ([]User, error) {
	if err := s.may(ctx, tarport.UsersRead, ""); err != nil {
		return nil, err
	}
	users, err := s.db.Accounts(ctx, n, last)
	return convert(users, newUser), err
}

// NewUser is what a user shall be.
type NewUser struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Admin    bool   `json:"admin"`
}

func (h *Handler) postUser(w http.ResponseWriter, r *http.Request) error {
	var body NewUser
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	u, err := h.s.CreateUser(r.Context(), body)
	if err != nil {
		return err
	}
	location(w, "/users/%s", u.Name)
	return httpapi.WriteJSON(w, http.StatusCreated, u)
}

// CreateUser makes an account.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (User, error) {
	if err := s.may(ctx, tarport.UsersManage, ""); err != nil {
		return User{}, err
	}
	if err := checkUser(n.Name); err != nil {
		return User{}, err
	}
	hash, err := s.auth.HashPassword(ctx, tarport.Secret(n.Password))
	if err != nil {
		return User{}, err
	}
	if _, err := s.db.CreateUser(ctx, metadata.User{Name: n.Name, PasswordHash: hash, Admin: n.Admin}); err != nil {
		return User{}, err
	}
	return s.account(ctx, n.Name)
}

// maxName is the longest name of a user, and of a robot in its namespace.
const maxName = 64

// checkUser is for a name that is given: a user's can be a namespace's too.
func checkUser(name string) error {
	if len(name) > maxName || tarport.CheckNamespace(name) != nil {
		return tarport.Errorf(tarport.NameInvalid, "%q is not a name for a user: use at most %d lower-case letters, digits, and single . _ - between them", name, maxName)
	}
	return nil
}

func (s *Service) account(ctx context.Context, name string) (User, error) {
	a, err := s.db.Account(ctx, name)
	return newUser(a), err
}

func (h *Handler) getUserByName(w http.ResponseWriter, r *http.Request) error {
	u, err := h.s.User(r.Context(), mux.Vars(r)["user"])
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, u)
}

// User reads an account; NOT_FOUND where there is none.
func (s *Service) User(ctx context.Context, name string) (User, error) {
	if err := s.may(ctx, tarport.UsersRead, ""); err != nil {
		return User{}, err
	}
	if checkUser(name) != nil {
		return User{}, tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	return s.account(ctx, name)
}

// UserPatch is what of a user shall change; what is left out stays.
type UserPatch struct {
	Admin    *bool   `json:"admin"`
	Disabled *bool   `json:"disabled"`
	Password *string `json:"password"`
}

func (h *Handler) patchUser(w http.ResponseWriter, r *http.Request) error {
	var body UserPatch
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	u, err := h.s.UpdateUser(r.Context(), mux.Vars(r)["user"], body)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, u)
}

// UpdateUser changes an account. Who is disabled, or gets another password, is
// logged out everywhere.
func (s *Service) UpdateUser(ctx context.Context, name string, p UserPatch) (User, error) {
	if err := s.may(ctx, tarport.UsersManage, ""); err != nil {
		return User{}, err
	}
	patch := metadata.AccountPatch{Admin: p.Admin, Disabled: p.Disabled}
	if p.Password != nil {
		var err error
		if patch.PasswordHash, err = s.auth.HashPassword(ctx, tarport.Secret(*p.Password)); err != nil {
			return User{}, err
		}
	}
	if checkUser(name) != nil {
		return User{}, tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	if err := s.db.UpdateAccount(ctx, name, patch); err != nil {
		return User{}, err
	}
	return s.account(ctx, name)
}

func (h *Handler) deleteUser(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, h.s.DeleteUser(r.Context(), mux.Vars(r)["user"]))
}

// DeleteUser deletes an account. What it did stays, under its name.
func (s *Service) DeleteUser(ctx context.Context, name string) error {
	if err := s.may(ctx, tarport.UsersManage, ""); err != nil {
		return err
	}
	if checkUser(name) != nil {
		return tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	return s.db.DeleteAccount(ctx, name)
}
