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

func (h *Handler) robotRoutes() []route {
	return []route{
		{http.MethodGet, "/namespaces/{ns}/robots", h.listRobots},
		{http.MethodPost, "/namespaces/{ns}/robots", h.postRobot},
		{http.MethodPatch, "/namespaces/{ns}/robots/{robot}", h.patchRobot},
		{http.MethodDelete, "/namespaces/{ns}/robots/{robot}", h.deleteRobot},
	}
}

// Robot is an account of a namespace as the API shows it. Secret is only there
// when it was made.
type Robot struct {
	Name      string       `json:"name"`
	Login     string       `json:"login"`
	Secret    tokenSecret  `json:"secret,omitempty"`
	Role      tarport.Role `json:"role"`
	Disabled  bool         `json:"disabled"`
	CreatedAt *time.Time   `json:"created_at,omitempty"`
	ExpiresAt *time.Time   `json:"expires_at"` // null: never
}

func newRobot(r metadata.Robot) Robot {
	_, name, _ := strings.Cut(r.Login, "+")
	return Robot{Name: name, Login: r.Login, Role: r.Role, Disabled: r.Disabled, CreatedAt: stamp(r.CreatedAt), ExpiresAt: stamp(r.ExpiresAt)}
}

func (h *Handler) listRobots(w http.ResponseWriter, r *http.Request) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	items, err := h.s.Robots(r.Context(), mux.Vars(r)["ns"], n+1, last)
	if err != nil {
		return err
	}
	return list(w, r, items, n, func(r Robot) string { return r.Name })
}

// Robots lists at most n robots of a namespace, after last.
func (s *Service) Robots(ctx context.Context, ns string, n int, last string) ([]Robot, error) {
	if err := s.mayIn(ctx, tarport.RobotsRead, ns); err != nil {
		return nil, err
	}
	if last != "" {
		last = ns + "+" + last
	}
	rows, err := s.db.Robots(ctx, ns, n, last)
	return convert(rows, newRobot), s.orAbsent(ctx, err, ns, len(rows))
}

// NewRobot is what a robot shall be.
type NewRobot struct {
	Name      string       `json:"name"`
	Role      tarport.Role `json:"role"`
	ExpiresIn string       `json:"expires_in"`
}

func (h *Handler) postRobot(w http.ResponseWriter, r *http.Request) error {
	var body NewRobot
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	ns := mux.Vars(r)["ns"]
	robot, err := h.s.CreateRobot(r.Context(), ns, body)
	if err != nil {
		return err
	}
	location(w, "/namespaces/%s/robots/%s", ns, robot.Name)
	w.Header().Set("Cache-Control", "no-store")
	return httpapi.WriteJSON(w, http.StatusCreated, robot)
}

// CreateRobot makes a robot. Its secret is in the answer, and nowhere else.
func (s *Service) CreateRobot(ctx context.Context, ns string, n NewRobot) (Robot, error) {
	if err := s.mayIn(ctx, tarport.RobotsManage, ns); err != nil {
		return Robot{}, err
	}
	if checkUser(n.Name) != nil {
		return Robot{}, tarport.Errorf(tarport.NameInvalid, "%q is not a name for a robot: use at most %d lower-case letters, digits, and single . _ - between them", n.Name, maxName)
	}
	if err := checkRobotRole(n.Role); err != nil {
		return Robot{}, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	expires, err := expiry(n.ExpiresIn, now)
	if err != nil {
		return Robot{}, err
	}
	secret, hash := s.auth.NewRobotSecret()
	row := metadata.Robot{Login: ns + "+" + n.Name, Role: n.Role, CreatedAt: now, ExpiresAt: expires}
	if err := s.db.CreateRobot(ctx, ns, row, hash); err != nil {
		return Robot{}, err
	}
	robot := newRobot(row)
	robot.Secret = tokenSecret(secret.Reveal())
	return robot, nil
}

// checkRobotRole keeps a robot from making others: its rights end with it.
func checkRobotRole(r tarport.Role) error {
	if r == tarport.Owner {
		return tarport.Errorf(tarport.Invalid, "a robot cannot be an owner: use reader, writer or maintainer")
	}
	return tarport.CheckRole(r)
}

// RobotPatch is what of a robot shall change; what is left out stays.
type RobotPatch struct {
	Role      *tarport.Role `json:"role"`
	Disabled  *bool         `json:"disabled"`
	ExpiresIn *string       `json:"expires_in"` // from now on
	Rotate    bool          `json:"rotate"`     // another secret
}

func (h *Handler) patchRobot(w http.ResponseWriter, r *http.Request) error {
	var body RobotPatch
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	v := mux.Vars(r)
	robot, err := h.s.UpdateRobot(r.Context(), v["ns"], v["robot"], body)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpapi.WriteJSON(w, http.StatusOK, robot)
}

// UpdateRobot changes a robot of the namespace, and of no other.
func (s *Service) UpdateRobot(ctx context.Context, ns, name string, p RobotPatch) (Robot, error) {
	if err := s.mayIn(ctx, tarport.RobotsManage, ns); err != nil {
		return Robot{}, err
	}
	patch := metadata.RobotPatch{Role: p.Role, Disabled: p.Disabled}
	if p.Role != nil {
		if err := checkRobotRole(*p.Role); err != nil {
			return Robot{}, err
		}
	}
	if p.ExpiresIn != nil {
		at, err := expiry(*p.ExpiresIn, time.Now().UTC())
		if err != nil {
			return Robot{}, err
		}
		patch.ExpiresAt = &at
	}
	var secret tarport.Secret
	if p.Rotate {
		secret, patch.Hash = s.auth.NewRobotSecret()
	}
	login, err := robotLogin(ns, name)
	if err != nil {
		return Robot{}, err
	}
	row, err := s.db.UpdateRobot(ctx, ns, login, patch)
	if err != nil {
		return Robot{}, err
	}
	robot := newRobot(row)
	robot.Secret = tokenSecret(secret.Reveal())
	return robot, nil
}

// robotLogin is the login of a robot of ns that a path names by its name, or by
// its login.
func robotLogin(ns, name string) (string, error) {
	name = strings.TrimPrefix(name, ns+"+")
	if checkUser(name) != nil {
		return "", tarport.Errorf(tarport.NotFound, "there is no such robot")
	}
	return ns + "+" + name, nil
}

func (h *Handler) deleteRobot(w http.ResponseWriter, r *http.Request) error {
	v := mux.Vars(r)
	return noContent(w, h.s.DeleteRobot(r.Context(), v["ns"], v["robot"]))
}

// DeleteRobot deletes a robot of the namespace, and of no other.
func (s *Service) DeleteRobot(ctx context.Context, ns, name string) error {
	if err := s.mayIn(ctx, tarport.RobotsManage, ns); err != nil {
		return err
	}
	login, err := robotLogin(ns, name)
	if err != nil {
		return err
	}
	return s.db.DeleteRobot(ctx, ns, login)
}
