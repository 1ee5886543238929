package engine

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// The versions of the API that are spoken. The first is what docker 1.12 had,
// below which the client says nothing of versions; what came after the last is
// not missed by clients, which go down to it.
const (
	minMinor, maxMinor = 24, 51
	minVersion         = "1.24"
	maxVersion         = "1.51"
)

// route is a path below /engine/{ns} and the optional version.
type route struct {
	method, path string
	serve        httpapi.HandlerFunc
}

func (h *Handler) routes() []route {
	return []route{
		{http.MethodGet, "/version", h.version},
		{http.MethodGet, "/info", h.info},
		{http.MethodPost, "/images/load", h.load},
		{http.MethodPost, "/images/create", h.create},
		{http.MethodGet, "/images/get", h.saveAll},
		{http.MethodGet, "/images/json", h.list},
		{http.MethodPost, "/images/prune", h.prune},
		{http.MethodGet, "/images/{name:.+}/get", h.saveOne},
		{http.MethodGet, "/images/{name:.+}/json", h.inspect},
		{http.MethodGet, "/images/{name:.+}/history", h.history},
		{http.MethodPost, "/images/{name:.+}/tag", h.tag},
		{http.MethodDelete, "/images/{name:.+}", h.remove},
	}
}

// Routes adds the routes to r, under /engine/{ns}. login wraps those that need
// a principal in the request's context: all but the ping, by which a client
// finds out the version before it sends anything.
func (h *Handler) Routes(r *mux.Router, login mux.MiddlewareFunc) {
	const base = "/engine/{ns}{version:(?:/v[0-9.]+)?}"
	r.Path(base+"/_ping").Methods(http.MethodGet, http.MethodHead).Handler(handle(httpapi.Handle(ping)))
	for _, rt := range h.routes() {
		r.Path(base + rt.path).Methods(rt.method).Handler(handle(login(httpapi.Handle(rt.serve))))
	}
	r.PathPrefix("/engine/{ns}/").Handler(handle(login(httpapi.Handle(unsupported))))
}

// handle sets what every answer has, errors in Docker's shape among it, and
// refuses other versions of the API.
func handle(next http.Handler) http.Handler {
	return httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
		httpapi.SetErrorShape(r.Context(), errorShape)
		hd := w.Header()
		hd.Set("Api-Version", maxVersion)
		hd.Set("Docker-Experimental", "false")
		hd.Set("Ostype", "linux")
		if err := tarport.CheckNamespace(namespace(r)); err != nil {
			return err
		}
		if err := checkVersion(mux.Vars(r)["version"]); err != nil {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// checkVersion takes what stands in the path, such as /v1.41, or "".
func checkVersion(s string) error {
	if s == "" {
		return nil
	}
	minor, ok := minorVersion(s)
	switch {
	case !ok:
		return tarport.Errorf(tarport.Invalid, "%s is no version of the Engine API", strings.TrimPrefix(s, "/"))
	case minor < minMinor:
		return tarport.Errorf(tarport.Invalid, "client version 1.%d is too old. Minimum supported API version is %s, please upgrade your client to a newer version", minor, minVersion)
	case minor > maxMinor:
		return tarport.Errorf(tarport.Invalid, "client version 1.%d is too new. Maximum supported API version is %s", minor, maxVersion)
	}
	return nil
}

func minorVersion(s string) (minor int, ok bool) {
	digits, ok := strings.CutPrefix(s, "/v1.")
	minor, err := strconv.Atoi(digits)
	return minor, ok && err == nil && len(digits) < 4
}

// atLeast tells whether a request is of API 1.minor or later; one that names no
// version is of the latest.
func atLeast(r *http.Request, minor int) bool {
	v, ok := minorVersion(mux.Vars(r)["version"])
	return !ok || v >= minor
}

func namespace(r *http.Request) string { return mux.Vars(r)["ns"] }

// boolValue is a flag of the query, by the daemon's own rule.
func boolValue(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// errorMessage is what the client prints behind "Error response from daemon:".
type errorMessage struct {
	Message string `json:"message"`
}

// howToLogIn is for whoever has only the docker command before him: docker login
// does nothing for -H.
const howToLogIn = `. The docker command logs in to -H by a header only: put ` +
	`{"HttpHeaders":{"Authorization":"Basic BASE64"}}, with USER:PASSWORD in base64, into FOLDER/config.json, and set DOCKER_CONFIG=FOLDER`

func errorShape(e *tarport.Error) (int, any) {
	message := e.Message
	if e.Code == tarport.Unauthorized {
		message += howToLogIn
	}
	return status(e.Code), errorMessage{message}
}

// status is the code's own but for what the Engine API has another word for.
func status(c tarport.Code) int {
	if c == tarport.Unsupported {
		return http.StatusNotImplemented
	}
	return c.Status()
}
