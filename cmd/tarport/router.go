package main

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// newRouter is a router that takes a path as it is written, and answers as the
// API does where it has no route.
func newRouter() *mux.Router {
	r := mux.NewRouter().SkipClean(true)
	refuse := httpapi.Handle(func(w http.ResponseWriter, rq *http.Request) error {
		allowed := methods(r, rq)
		if len(allowed) == 0 {
			return tarport.Errorf(tarport.NotFound, "there is nothing here")
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return tarport.Errorf(tarport.Unsupported, "%s is not possible here", rq.Method)
	})
	r.NotFoundHandler, r.MethodNotAllowedHandler = refuse, refuse
	return r
}

// methods are those that the router has a route for under the request's path.
// The router itself forgets a path that a route had with another method when a
// later one has the same prefix (mux 1.8.1, Route.Match).
func methods(r *mux.Router, rq *http.Request) []string {
	var list []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := rq.Clone(rq.Context())
		other.Method = m
		var match mux.RouteMatch
		if r.Match(other, &match) && match.MatchErr == nil && match.Route != nil {
			list = append(list, m)
		}
	}
	return list
}
