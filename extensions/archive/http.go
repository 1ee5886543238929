package archive

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// Handler is the package's part of the HTTP API.
type Handler struct{ s *Service }

// NewHandler returns the routes of a Service. Who asks is in the request's
// context (tarport.WithPrincipal).
func NewHandler(s *Service) *Handler { return &Handler{s} }

// Routes adds the routes to r, which is the router of /api/v1.
func (h *Handler) Routes(r *mux.Router) {
	r.Path("/archives/missing").Methods(http.MethodPost).Handler(httpapi.Handle(h.missing))
	// PUT is there so that `curl -T image.tar` works.
	r.Path("/archives/load").Methods(http.MethodPut, http.MethodPost).Handler(httpapi.Handle(h.load))
	r.Path("/archives/save").Methods(http.MethodGet, http.MethodHead).Handler(httpapi.Handle(h.save))
	r.Path("/archives/import").Methods(http.MethodPut, http.MethodPost).Handler(httpapi.Handle(h.importRootFS))
	r.Path("/archives/commit").Methods(http.MethodPut, http.MethodPost).Handler(httpapi.Handle(h.commit))
	r.Path("/archives/export").Methods(http.MethodGet, http.MethodHead).Handler(httpapi.Handle(h.export))
}

// load is docker load: the body is an archive.
func (h *Handler) load(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	partial, err := strconv.ParseBool(cmp.Or(query.Get("partial"), "false"))
	if err != nil {
		return tarport.Errorf(tarport.Invalid, "partial must be true or false")
	}
	return h.receive(w, r, func(ctx context.Context, in incoming) (*Result, error) {
		return h.s.Load(ctx, in.body, LoadRequest{
			Namespace: query.Get("namespace"), Repository: query.Get("repo"), Tag: query.Get("tag"), Rename: query["rename"],
			Compression: query.Get("compression"), Partial: partial, Size: in.size, Encodings: in.encodings, Progress: in.progress,
		})
	})
}

// save is docker save: the answer is an archive.
func (h *Handler) save(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	d, err := h.s.Save(r.Context(), SaveRequest{
		Images: query["image"], Format: query.Get("format"), Platform: query.Get("platform"), Compression: query.Get("compression"),
	})
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Serve(w, r)
}

// importRootFS is docker import: the body is a root file system. The parameters
// are those of Docker's POST /images/create?fromSrc=-.
func (h *Handler) importRootFS(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	return h.receive(w, r, func(ctx context.Context, in incoming) (*Result, error) {
		return h.s.Import(ctx, in.body, ImportRequest{
			Repository: query.Get("repo"), Tag: query.Get("tag"), Message: query.Get("message"), Author: query.Get("author"),
			Changes: query["changes"], Platform: query.Get("platform"),
			Compression: query.Get("compression"), Size: in.size, Encodings: in.encodings, Progress: in.progress,
		})
	})
}

// export is docker export, of an image: the answer is its file system.
func (h *Handler) export(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	x, err := h.s.newExport(r.Context(), ExportRequest{Image: query.Get("image"), Platform: query.Get("platform")})
	if err != nil {
		return err
	}
	defer x.close()
	head := w.Header()
	head.Set("Content-Type", mediaTar)
	head.Set("Content-Disposition", attachment(x.name))
	head.Set("Content-Length", strconv.FormatInt(x.size, 10))
	head.Set("Cache-Control", "private, no-cache")
	head.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	client, end := &watchedWriter{w: w}, h.s.o.Observer.Begin(KindExport)
	defer func() {
		end(Done{Outcome: outcomeOf(r.Context(), err, client.err != nil), Sent: client.n})
	}()
	if err = x.writeTo(r.Context(), client); err != nil && client.err == nil {
		head.Del("Content-Disposition") // for an error from before the answer
		return err
	}
	return nil // a client that went away is no error
}

const mediaTar = "application/x-tar"

// attachment is a Content-Disposition. The name has nothing to be quoted.
func attachment(name string) string { return `attachment; filename="` + name + `"` }

// watchedWriter counts, and remembers its error, so that it can be told from a
// reader's.
type watchedWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	if err != nil {
		w.err = err
	}
	return n, err
}

// commit is docker commit: the body is the file system of a container. The
// parameters are those of Docker's POST /commit, and the base.
func (h *Handler) commit(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	force, err := boolean(query, "force")
	if err != nil {
		return err
	}
	return h.receive(w, r, func(ctx context.Context, in incoming) (*Result, error) {
		return h.s.Commit(ctx, in.body, CommitRequest{
			ImportRequest: ImportRequest{
				Repository: query.Get("repo"), Tag: query.Get("tag"), Message: cmp.Or(query.Get("message"), query.Get("comment")),
				Author: query.Get("author"), Changes: query["changes"], Platform: query.Get("platform"),
				Compression: query.Get("compression"), Size: in.size, Encodings: in.encodings, Progress: in.progress,
			},
			Base: query.Get("base"), CreatedBy: query.Get("created_by"), Force: force,
		})
	})
}

// boolean reads a parameter that is true or false, as Docker's are: 1 and 0 too.
func boolean(query url.Values, name string) (bool, error) {
	v := query.Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, tarport.Errorf(tarport.Invalid, "%s must be true or false, not %s", name, quoted(v))
	}
	return b, nil
}

// incoming is what a request brings.
type incoming struct {
	body      io.Reader
	size      int64         // -1 where it is not known
	encodings int           // compressions that the transport added
	progress  func(Message) // nil where the client did not ask for it
}

// receive is what all routes have in common whose body becomes images: take
// does the work, and its result is answered as one JSON object, or behind the
// messages of its progress. The body is not touched before take reads it, so
// that a client that waits for 100-continue learns first what speaks against it.
// (The server sees to it that a body which does not come ends the request.)
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, take func(context.Context, incoming) (*Result, error)) error {
	body, size, encodings, err := h.body(w, r)
	if err != nil {
		return err
	}
	defer body.Close()
	in := incoming{body: body, size: size, encodings: encodings}
	if u, ok := body.(*upload); ok {
		takeAny := take
		take = func(ctx context.Context, in incoming) (*Result, error) {
			res, err := takeAny(ctx, in)
			u.done(ctx, h.s.o.Log, err == nil)
			return res, err
		}
	}
	if accepts(r, mediaNDJSON) {
		return h.stream(w, r, in, take)
	}
	res, err := take(r.Context(), in)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusCreated, res)
}

// body is where the archive comes from, with its size (-1 where it is not
// known) and the number of compressions that the transport added: the request's
// body, or what was sent before.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) (io.ReadCloser, int64, int, error) {
	if q := r.URL.Query(); q.Has("upload") {
		u, err := h.openUpload(r, q.Get("upload"))
		if err != nil {
			return nil, 0, 0, err
		}
		return u, u.session.Info().Size, 0, nil
	}
	encodings, err := contentEncodings(r)
	if err != nil {
		return nil, 0, 0, err
	}
	// To close a request's own body would read on in it.
	return io.NopCloser(http.MaxBytesReader(w, r.Body, h.s.o.Limits.Archive)), r.ContentLength, encodings, nil
}

const mediaNDJSON = "application/x-ndjson"

// stream tells the progress while the body is read. The status is sent with
// the first line: what fails before it has a status of its own, what fails
// later ends the stream with an error, as Docker's daemon does it.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request, in incoming, take func(context.Context, incoming) (*Result, error)) error {
	out := httpapi.NewLines(w, http.StatusCreated, mediaNDJSON)
	in.progress = func(m Message) { out.Write(m) }
	res, err := take(r.Context(), in)
	if err == nil {
		out.Write(res)
		return nil
	}
	if !out.Begun() {
		return err
	}
	e := httpapi.Failed(w, r, err)
	out.Write(Message{
		Error: e.Message, ErrorDetail: &MessageError{Code: e.Code.Status(), Message: e.Message},
		Errors: []CodedMessage{{e.Code, e.Message}},
	})
	return nil
}

// accepts tells whether the client asked for a media type by its name.
func accepts(r *http.Request, mediaType string) bool {
	for _, v := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(v, ",") {
			t, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(t), mediaType) {
				return true
			}
		}
	}
	return false
}

// contentEncodings counts the compressions that the client added for the
// transport. Which they are is found out by their magic numbers.
func contentEncodings(r *http.Request) (int, error) {
	n := 0
	for _, v := range r.Header.Values("Content-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			switch e := strings.ToLower(strings.TrimSpace(part)); e {
			case "", "identity":
			case "gzip", "x-gzip", "zstd":
				n++
			default:
				return 0, tarport.Errorf(tarport.Invalid, "the Content-Encoding %s is not supported: use gzip, zstd or none", quoted(e))
			}
		}
	}
	if n > 1 {
		return 0, tarport.Errorf(tarport.Invalid, "there is more than one Content-Encoding")
	}
	return n, nil
}
