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

func (h *Handler) memberRoutes() []route {
	return []route{
		{http.MethodGet, "/namespaces/{ns}/members", h.listMembers},
		{http.MethodPut, "/namespaces/{ns}/members/{user}", h.putMember},
		{http.MethodDelete, "/namespaces/{ns}/members/{user}", h.deleteMember},
	}
}

// Member is a person in a namespace.
type Member struct {
	User    string       `json:"user"`
	Role    tarport.Role `json:"role"`
	AddedAt *time.Time   `json:"added_at,omitempty"`
}

func (h *Handler) listMembers(w http.ResponseWriter, r *http.Request) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	items, err := h.s.Members(r.Context(), mux.Vars(r)["ns"], n+1, last)
	if err != nil {
		return err
	}
	return list(w, r, items, n, func(m Member) string { return m.User })
}

// Members lists at most n members of a namespace, after last.
func (s *Service) Members(ctx context.Context, ns string, n int, last string) ([]Member, error) {
	if err := s.mayIn(ctx, tarport.MembersRead, ns); err != nil {
		return nil, err
	}
	rows, err := s.db.Members(ctx, ns, n, last)
	return convert(rows, func(m metadata.Member) Member { return Member{m.Name, m.Role, stamp(m.AddedAt)} }), s.orAbsent(ctx, err, ns, len(rows))
}

func (h *Handler) putMember(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Role tarport.Role `json:"role"`
	}
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	v := mux.Vars(r)
	added, err := h.s.SetMember(r.Context(), v["ns"], v["user"], body.Role)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if added {
		status = http.StatusCreated
	}
	return httpapi.WriteJSON(w, status, Member{User: v["user"], Role: body.Role})
}

// SetMember makes a user a member, or gives it another role.
func (s *Service) SetMember(ctx context.Context, ns, user string, role tarport.Role) (added bool, err error) {
	if err := s.mayIn(ctx, tarport.MembersManage, ns); err != nil {
		return false, err
	}
	if err := tarport.CheckRole(role); err != nil {
		return false, err
	}
	if checkUser(user) != nil {
		return false, tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	return s.db.SetMember(ctx, ns, user, role)
}

func (h *Handler) deleteMember(w http.ResponseWriter, r *http.Request) error {
	v := mux.Vars(r)
	return noContent(w, h.s.RemoveMember(r.Context(), v["ns"], v["user"]))
}

// RemoveMember ends a membership.
func (s *Service) RemoveMember(ctx context.Context, ns, user string) error {
	if err := s.mayIn(ctx, tarport.MembersManage, ns); err != nil {
		return err
	}
	if checkUser(user) != nil {
		return tarport.Errorf(tarport.NotFound, "there is no such user")
	}
	return s.db.RemoveMember(ctx, ns, user)
}
