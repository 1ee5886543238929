package engine

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// ping is asked before anything else; what it tells is in the headers.
func ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len("OK")))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte("OK"))
	}
	return nil
}

type versionInfo struct {
	Platform      struct{ Name string }
	Components    []component
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string
	BuildTime     string
}

type component struct {
	Name    string
	Version string
	Details map[string]string
}

// version is docker version: its table knows a component of the name Engine.
func (h *Handler) version(w http.ResponseWriter, r *http.Request) error {
	v := versionInfo{
		Version: tarport.Version, APIVersion: maxVersion, MinAPIVersion: minVersion,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
	v.Platform.Name = "Tarport, the namespace " + namespace(r)
	v.Components = []component{{Name: "Engine", Version: v.Version, Details: map[string]string{
		"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "GoVersion": v.GoVersion, "GitCommit": "", "BuildTime": "",
		"Os": v.Os, "Arch": v.Arch, "Experimental": "false", "KernelVersion": "",
	}}}
	return httpapi.WriteJSON(w, http.StatusOK, v)
}

// systemInfo is what of docker info there is to say; clients take the rest for
// zero.
type systemInfo struct {
	ID              string
	Name            string
	Images          int
	Driver          string
	OperatingSystem string
	OSType          string
	Architecture    string
	ServerVersion   string
	SystemTime      string
	Labels          []string
	Swarm           struct{ LocalNodeState string }
	Warnings        []string
}

func (h *Handler) info(w http.ResponseWriter, r *http.Request) error {
	images, err := h.images(r.Context(), metadata.ImageQuery{Namespace: namespace(r)}, nil)
	if err != nil {
		return err
	}
	info := systemInfo{
		ID: "tarport/" + namespace(r), Name: r.Host + "/engine/" + namespace(r), Images: len(images), Driver: "tarport",
		OperatingSystem: "Tarport", OSType: "linux", Architecture: runtime.GOARCH, ServerVersion: tarport.Version,
		SystemTime: h.now().UTC().Format(time.RFC3339Nano), Labels: []string{},
		Warnings: []string{"WARNING: " + notAnEngine + "it runs no containers"},
	}
	info.Swarm.LocalNodeState = "inactive"
	return httpapi.WriteJSON(w, http.StatusOK, info)
}

const notAnEngine = "this is a registry namespace, not a Docker engine: "

// errUnsupported is an error about what only an engine can do.
func errUnsupported(what string) error {
	return tarport.Errorf(tarport.Unsupported, "%s%s not supported", notAnEngine, what)
}

// unsupportedWords are what a user calls that of which a path begins so.
var unsupportedWords = map[string]string{
	"containers": "containers are", "exec": "containers are", "commit": "containers are",
	"networks": "networks are", "volumes": "volumes are", "plugins": "plugins are", "build": "builds are", "session": "builds are", "grpc": "builds are",
	"swarm": "Swarm is", "services": "Swarm is", "tasks": "Swarm is", "nodes": "Swarm is", "secrets": "Swarm is", "configs": "Swarm is",
	"events": "events are", "system": "this is", "auth": "docker login is", "distribution": "this is", "images": "this is",
}

// unsupported answers what only a daemon can do. docker inspect goes on to the
// next kind of object where it reads "not supported" (docker/cli, system/inspect.go).
func unsupported(_ http.ResponseWriter, r *http.Request) error {
	path := strings.TrimPrefix(r.URL.Path, "/engine/"+namespace(r)+"/")
	if first, rest, ok := strings.Cut(path, "/"); ok && strings.HasPrefix(first, "v1.") {
		path = rest
	}
	what := unsupportedWords[strings.SplitN(path, "/", 2)[0]]
	switch {
	case what == "":
		return tarport.Errorf(tarport.NotFound, "page not found")
	case strings.HasPrefix(path, "images/") && strings.HasSuffix(path, "/push"):
		what = "pushing from it, where what is tagged can be pulled already, is"
	case path == "images/search":
		what = "searching Docker Hub is"
	}
	return errUnsupported(what)
}

func (h *Handler) prune(http.ResponseWriter, *http.Request) error {
	return errUnsupported("pruning, which the registry does by itself for what nothing needs, is")
}
