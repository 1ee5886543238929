package engine

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// message is a line of what a client draws: moby, api/types/jsonstream.
type message struct {
	Stream      string        `json:"stream,omitempty"`
	Status      string        `json:"status,omitempty"`
	Progress    *progress     `json:"progressDetail,omitempty"`
	ID          string        `json:"id,omitempty"`
	Error       string        `json:"error,omitempty"`
	ErrorDetail *errorMessage `json:"errorDetail,omitempty"`
}

type progress struct {
	Current int64 `json:"current"`
	Total   int64 `json:"total"`
}

// maxUnread is how many messages a client gets that may read none before it has
// sent everything (docker-py does so): they fit into what lies between the two,
// and else each would wait for the other. Docker's own client reads all along.
const maxUnread = 500

// stream answers with messages while take reads the body. What fails before the
// first of them is answered by itself.
func stream(w http.ResponseWriter, r *http.Request, take func(report func(Progress), out *httpapi.Lines) error) error {
	out := httpapi.NewLines(w, http.StatusOK, "application/json")
	unread, reads := 0, strings.HasPrefix(r.UserAgent(), "Docker-Client/")
	report := func(p Progress) {
		if unread++; unread > maxUnread && !reads {
			return
		}
		m := message{ID: p.ID, Status: p.Status}
		if p.Current > 0 || p.Total > 0 {
			m.Progress = &progress{p.Current, p.Total}
		}
		out.Write(m)
	}
	err := take(report, out)
	if err == nil || !out.Begun() {
		return err
	}
	e := httpapi.Failed(w, r, err)
	out.Write(message{Error: e.Message, ErrorDetail: &errorMessage{e.Message}})
	return nil
}

// load is docker load. A client that draws nothing says quiet.
func (h *Handler) load(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Has("platform") {
		return tarport.Errorf(tarport.Invalid, "an archive is loaded whole here: leave --platform out")
	}
	ns := namespace(r)
	return stream(w, r, func(report func(Progress), out *httpapi.Lines) error {
		q := LoadRequest{Namespace: ns, Size: r.ContentLength}
		if !boolValue(r, "quiet") {
			q.Progress = report
		}
		images, err := h.o.Archives.Load(r.Context(), r.Body, q)
		if err != nil {
			return withoutOptions(err, "PUT /api/v1/archives/load")
		}
		for _, im := range images {
			words := "Loaded image: " + repositoryName(ns, im.Repository) + ":" + im.Tag
			if im.Tag == "" {
				words = "Loaded image ID: " + im.ID
			}
			out.Write(message{Stream: words + "\n"})
			for _, text := range im.Warnings {
				out.Write(message{Stream: "Warning: " + text + "\n"})
			}
		}
		return nil
	})
}

// withoutOptions says of an archive that needs to be told more that the cure is
// elsewhere.
func withoutOptions(err error, route string) error {
	if e, ok := errors.AsType[*tarport.Error](err); ok && e.Code == tarport.Invalid {
		return tarport.Errorf(e.Code, "%s (%s takes that, the docker command has no such option)", e.Message, route).Because(err)
	}
	return err
}

// create is docker import; docker pull comes here too.
func (h *Handler) create(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	switch from := q.Get("fromSrc"); {
	case q.Get("fromImage") != "":
		return errUnsupported("pulling into it, where images come by docker load, or by docker push to " + r.Host + "/" + namespace(r) + "/NAME, is")
	case from != "-":
		return tarport.Errorf(tarport.Invalid, "nothing is downloaded here: import from standard input, curl URL | docker import - NAME:TAG")
	case q.Get("repo") == "":
		return tarport.Errorf(tarport.Invalid, "an image needs a name here: docker import FILE NAME:TAG")
	}
	to, err := parseTarget(namespace(r), q.Get("repo"), q.Get("tag"))
	if err != nil {
		return err
	}
	return stream(w, r, func(report func(Progress), out *httpapi.Lines) error {
		im, err := h.o.Archives.Import(r.Context(), r.Body, ImportRequest{
			Repository: to.repository, Tag: to.tag, Message: q.Get("message"), Changes: q["changes"], Platform: q.Get("platform"),
			Size: r.ContentLength,
			Progress: func(p Progress) {
				if p.Current > 0 { // the rest a client prints without a terminal too, and scripts take what it prints for the ID
					report(p)
				}
			},
		})
		if err == nil {
			out.Write(message{Status: im.ID})
		}
		return err
	})
}

// saveAll is docker save of the names in the query.
func (h *Handler) saveAll(w http.ResponseWriter, r *http.Request) error {
	return h.save(w, r, r.URL.Query()["names"])
}

// saveOne is what clients did before there could be several.
func (h *Handler) saveOne(w http.ResponseWriter, r *http.Request) error {
	return h.save(w, r, []string{mux.Vars(r)["name"]})
}

func (h *Handler) save(w http.ResponseWriter, r *http.Request, names []string) error {
	// As in the list of images: what is loaded elsewhere is called as it was here.
	q := SaveRequest{Name: func(repository string) string { return repositoryName(namespace(r), repository) }}
	for _, s := range names {
		images, err := h.saved(r.Context(), namespace(r), s)
		if err != nil {
			return err
		}
		q.Images = append(q.Images, images...)
	}
	switch list := r.URL.Query()["platform"]; len(list) {
	case 0:
	case 1:
		p, err := parsePlatform(list[0])
		if err != nil {
			return err
		}
		if p != nil {
			q.Platform = platformWords(*p)
		}
	default:
		return tarport.Errorf(tarport.Invalid, "one platform can be saved, or all of them: give --platform once, or leave it out")
	}
	d, err := h.o.Archives.Save(r.Context(), q)
	if err != nil {
		return withoutOptions(err, "GET /api/v1/archives/save")
	}
	defer d.Close()
	return d.Serve(w, r)
}

// saved is what a name of docker save stands for: an image under that name; all
// tags of a repository where the name has none; an image without a name where
// it is an ID.
func (h *Handler) saved(ctx context.Context, ns, s string) ([]string, error) {
	n, err := parseName(ns, s)
	if err != nil {
		return nil, err
	}
	if n.repository != "" && n.tag == "" && n.digest == "" {
		list, err := h.images(ctx, metadata.ImageQuery{Namespace: ns, Repository: n.repository}, nil)
		if err != nil && !absent(err) {
			return nil, err
		}
		var names []string
		for _, t := range list {
			names = append(names, t.repository+":"+t.tag)
		}
		if names != nil {
			return names, nil
		}
	}
	list, err := h.find(ctx, ns, n)
	if err != nil {
		return nil, err
	}
	t := list[0]
	switch {
	case n.isID(t):
		return []string{t.repository + "@" + t.images[0].Digest.String()}, nil
	case n.digest != "":
		return []string{t.repository + "@" + n.digest.String()}, nil
	}
	return []string{t.repository + ":" + t.tag}, nil
}
