package namespaces

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

func (h *Handler) auditRoutes() []route {
	return []route{
		{http.MethodGet, "/namespaces/{ns}/events", h.listEvents},
		{http.MethodGet, "/events", h.listEvents},
	}
}

// Event is a change as the audit shows it.
type Event struct {
	ID         int64          `json:"id"`
	At         time.Time      `json:"at"`
	Actor      string         `json:"actor"` // "" for a stranger, or the registry itself
	TokenID    int64          `json:"token_id,omitempty"`
	Action     string         `json:"action"`
	Namespace  string         `json:"namespace,omitempty"`
	Repository string         `json:"repository,omitempty"`
	Target     string         `json:"target"`
	Detail     map[string]any `json:"detail,omitempty"`
	Address    string         `json:"address,omitempty"`
	RequestID  string         `json:"request_id,omitempty"`
}

func newEvent(e metadata.Event) Event {
	return Event{
		ID: e.ID, At: e.At, Actor: e.Actor, TokenID: e.TokenID, Action: e.Action, Namespace: e.Namespace,
		Repository: e.Repository, Target: e.Target, Detail: e.Detail, Address: e.Address, RequestID: e.RequestID,
	}
}

func (h *Handler) listEvents(w http.ResponseWriter, r *http.Request) error {
	n, before, err := pageByID(r)
	if err != nil {
		return err
	}
	q, err := eventQuery(r)
	if err != nil {
		return err
	}
	q.Before = before
	items, err := h.s.Events(r.Context(), q, n+1)
	if err != nil {
		return err
	}
	return list(w, r, items, n, func(e Event) string { return strconv.FormatInt(e.ID, 10) })
}

func eventQuery(r *http.Request) (q metadata.EventQuery, err error) {
	ns, inNamespace := mux.Vars(r)["ns"]
	if inNamespace && tarport.CheckNamespace(ns) != nil {
		return q, tarport.Errorf(tarport.NotFound, "there is no such namespace")
	}
	v := r.URL.Query()
	q = metadata.EventQuery{Namespace: ns, Actor: v.Get("actor"), Action: v.Get("action")}
	for _, text := range []string{q.Actor, q.Action} {
		if err := checkText("filter", text, tarport.MaxNameLength, false); err != nil {
			return q, err
		}
	}
	if q.Since, err = timeParam(v.Get("since"), "since"); err == nil {
		q.Until, err = timeParam(v.Get("until"), "until")
	}
	return q, err
}

func timeParam(s, name string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, tarport.Errorf(tarport.Invalid, "%s is no time: write it as 2026-01-31T12:00:00Z", name)
	}
	return t, nil
}

// Events lists at most n events, the newest first: of a namespace for its
// owners, of all for administrators.
func (s *Service) Events(ctx context.Context, q metadata.EventQuery, n int) ([]Event, error) {
	a := tarport.AuditRead
	if q.Namespace == "" {
		a = tarport.AuditReadAll
	}
	if err := s.may(ctx, a, q.Namespace); err != nil {
		return nil, err
	}
	rows, err := s.db.Events(ctx, q, n)
	return convert(rows, newEvent), err
}
