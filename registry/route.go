package registry

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tarport/tarport"
)

// route is one of the API's routes, with the action that each of its methods
// asks for. There is no method without one.
type route struct {
	path    string // behind /v2, with {name} and the like for what differs
	methods map[string]method
}

type method struct {
	action tarport.Action // "" for the routes that belong to no repository
	serve  func(*Registry, http.ResponseWriter, *request) error
}

// request is a parsed request of the API.
type request struct {
	*http.Request
	route      *route
	repository string // "" on routes that belong to none
	last       string // the last part of the path: a reference, digest or upload id
	principal  tarport.Principal
}

// The routes of the distribution spec 1.1, "Endpoints".
var (
	routeBase = &route{"/", map[string]method{
		http.MethodGet: {"", (*Registry).base}, http.MethodHead: {"", (*Registry).base},
	}}
	routeCatalog = &route{"/_catalog", map[string]method{
		http.MethodGet: {"", (*Registry).catalog},
	}}
	routeDiscover = &route{"/_oci/ext/discover", map[string]method{
		http.MethodGet: {"", (*Registry).discover},
	}}
	routeTags = &route{"/{name}/tags/list", map[string]method{
		http.MethodGet: {tarport.Pull, (*Registry).tags},
	}}
	routeReferrers = &route{"/{name}/referrers/{digest}", map[string]method{
		http.MethodGet: {tarport.Pull, (*Registry).referrers},
	}}
	routeManifest = &route{"/{name}/manifests/{reference}", map[string]method{
		http.MethodGet: {tarport.Pull, (*Registry).getManifest}, http.MethodHead: {tarport.Pull, (*Registry).getManifest},
		http.MethodPut: {tarport.Push, (*Registry).putManifest}, http.MethodDelete: {tarport.Delete, (*Registry).deleteManifest},
	}}
	routeBlob = &route{"/{name}/blobs/{digest}", map[string]method{
		http.MethodGet: {tarport.Pull, (*Registry).getBlob}, http.MethodHead: {tarport.Pull, (*Registry).headBlob},
		http.MethodDelete: {tarport.Delete, (*Registry).deleteBlob},
	}}
	routeUploads = &route{"/{name}/blobs/uploads/", map[string]method{
		http.MethodPost: {tarport.Push, (*Registry).startUpload},
	}}
	routeUpload = &route{"/{name}/blobs/uploads/{id}", map[string]method{
		http.MethodGet: {tarport.Push, (*Registry).app}, http.MethodHead: {tarport.Push, (*Registry).app},
		http.MethodPatch: {tarport.Push, (*Registry).writeUpload}, http.MethodPut: {tarport.Push, (*Registry).writeUpload},
		http.MethodDelete: {tarport.Push, (*Registry).app},
	}}
)

var routes = []*route{routeBase, routeCatalog, routeDiscover, routeTags, routeReferrers, routeManifest, routeBlob, routeUploads, routeUpload}

// Route is a route of the API with one of its methods.
type Route struct {
	Method string
	Path   string // such as /v2/{name}/tags/list
}

// Routes lists all that the registry serves, for what has to know them all.
func Routes() []Route {
	var list []Route
	for _, rt := range routes {
		for _, m := range slices.Sorted(maps.Keys(rt.methods)) {
			list = append(list, Route{Method: m, Path: "/v2" + rt.path})
		}
	}
	return list
}

var errNoRoute = tarport.Errorf(tarport.NotFound, "there is nothing here")

// parse finds the route of a path. A path that is not written in the one
// canonical way has none: nothing is decoded, cleaned or redirected, so that
// what is authorised and what is served cannot differ.
func parse(r *http.Request) (*request, error) {
	p, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if r.URL.Path == "/v2" {
		p, ok = "", true
	}
	if !ok || !canonical(r.URL) {
		return nil, errNoRoute
	}
	rq := &request{Request: r}
	switch p {
	case "":
		rq.route = routeBase
		return rq, nil
	case "_catalog":
		rq.route = routeCatalog
		return rq, nil
	case "_oci/ext/discover":
		rq.route = routeDiscover
		return rq, nil
	}
	rest, last, ok := cutLast(p)
	if !ok {
		return nil, errNoRoute
	}
	repo, kind, ok := cutLast(rest)
	if !ok {
		return nil, errNoRoute
	}
	rq.repository, rq.last = repo, last
	switch {
	case kind == "manifests":
		rq.route = routeManifest
	case kind == "blobs" && last == "uploads":
		rq.route = routeUploads
		rq.last = ""
	case kind == "blobs":
		rq.route = routeBlob
	case kind == "uploads":
		if rq.repository, kind, _ = cutLast(repo); kind != "blobs" {
			return nil, errNoRoute
		}
		rq.route = routeUpload
		if last == "" {
			rq.route = routeUploads
		}
	case kind == "tags" && last == "list":
		rq.route = routeTags
	case kind == "referrers":
		rq.route = routeReferrers
	default:
		return nil, errNoRoute
	}
	return rq, tarport.CheckRepository(rq.repository)
}

// canonical tells whether a path has no empty part and nothing that is escaped,
// or should be. (RawPath alone is not set where the escaping is the usual one.)
func canonical(u *url.URL) bool {
	return u.RawPath == "" && !strings.Contains(u.Path, "//") && !strings.Contains(u.EscapedPath(), "%")
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// allow is the Allow header of a route.
func (r *route) allow() string {
	names := make([]string, 0, len(r.methods))
	for m := range r.methods {
		names = append(names, m)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
