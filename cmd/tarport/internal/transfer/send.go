package transfer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/internal/client"
	"github.com/tarport/tarport/internal/tarball"
)

// Job says what the registry is to do with what it is sent.
type Job struct {
	Route string // load, import, commit: what is below archives/
	Query url.Values
	// Whole sends everything, without asking what the registry has.
	Whole bool
}

// namespace is where the images go.
func (j Job) namespace() string {
	ns, _, _ := strings.Cut(cmp.Or(j.Query.Get("namespace"), j.Query.Get("repo")), "/")
	return ns
}

// Outcome is what came of a transfer.
type Outcome struct {
	archive.Result
	BytesSent int64 `json:"bytes_sent"` // in this run
}

// InterruptedError tells that a transfer ended early, and that the same command
// goes on from where it stopped.
type InterruptedError struct {
	Name       string
	Done, Size int64
	Err        error
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("%s: %s of %s are at the registry, the same command goes on from there: %s",
		e.Name, progress.Bytes(e.Done), progress.Bytes(e.Size), e.Err)
}

func (e *InterruptedError) Unwrap() error { return e.Err }

// Stream sends what can be read once.
func (m *Mover) Stream(ctx context.Context, job Job, r io.Reader) (*Outcome, error) {
	counted := &counter{r: r}
	res, err := m.post(ctx, job, job.Query, counted, -1)
	return outcome(res, counted.n), err
}

// File sends a file: only what the registry lacks, in parts where it is large,
// and from where an earlier run stopped.
func (m *Mover) File(ctx context.Context, job Job, f *File) (*Outcome, error) {
	u := &upload{m: m, job: job, f: f, key: key("upload", m.o.Client.Host(), f.path)}
	found, err := u.find(ctx)
	if err != nil {
		return nil, err
	}
	if !found {
		if u.p, err = m.plan(ctx, job, f); err != nil {
			return nil, err
		}
	}
	out, err := m.send(ctx, u)
	if u.p.partial && refusesPartial(err) {
		m.o.Display.Say("%s: the registry has not all that it had (%s): sending all of it", f.Name, err)
		u.forget(ctx)
		*u = upload{m: m, job: job, f: f, key: u.key, p: f.whole()}
		out, err = m.send(ctx, u)
	}
	if errors.Is(err, errAnswerLost) {
		sent := u.sent
		*u = upload{m: m, job: job, f: f, key: u.key}
		if u.p, err = m.plan(ctx, job, f); err != nil {
			return nil, err
		}
		if out, err = m.send(ctx, u); err == nil {
			out.BytesSent += sent
		}
	}
	return out, err
}

// errAnswerLost tells that the connection broke when all was sent, and the
// registry has no such upload any more: it has loaded it, in all likelihood.
var errAnswerLost = errors.New("the connection broke when all was sent: whether the images are loaded is not known")

// send sends what is planned.
func (m *Mover) send(ctx context.Context, u *upload) (*Outcome, error) {
	query := u.job.Query
	if u.p.partial {
		query = maps.Clone(query)
		query.Set("partial", "true")
	}
	if u.id == "" && (u.p.at == nil || m.o.Resume == ResumeNever || m.o.Resume == ResumeAuto && u.p.size < m.o.Threshold) {
		return m.direct(ctx, u, query)
	}
	return u.run(ctx, query)
}

// plan finds out what has to be sent.
func (m *Mover) plan(ctx context.Context, job Job, f *File) (*plan, error) {
	whole := f.whole()
	a := f.Archive
	need := int64(0)
	if job.Route != "load" {
		need = 1 // an image that is made is new
	}
	if job.Whole || job.Route != "load" || a == nil {
		a = &tarball.Archive{} // what is asked then is whether the user may push at all
	}
	missing, err := m.missing(ctx, job.namespace(), a, need)
	if err != nil || missing == nil || len(a.Layers) == 0 {
		return whole, err
	}
	// Where the request asks for a compression, manifests that pin layers by
	// their digests may be written anew: the registry needs the layers for that.
	repack := job.Query.Get("compression") != ""
	if need = needed(a, missing, repack); need > 0 {
		if _, err := m.missing(ctx, job.namespace(), &tarball.Archive{}, need); err != nil {
			return nil, err
		}
	}
	ranges, left := a.Without(
		func(d digest.Digest) bool { return !missing[d] },
		func(d digest.Digest) bool { return !missing[d] && !repack },
	)
	p := f.part(ranges, len(left))
	switch {
	case len(left) == 0:
		return whole, nil
	case p.at == nil && p.size >= min(whole.size, m.o.Threshold):
		return whole, nil // compressed: its unpacked layers may be more than the file
	}
	m.o.Display.Say("%s: the registry has %d of %d layers, sending %s of %s", f.Name, len(left), len(a.Layers),
		progress.Bytes(p.size), progress.Bytes(whole.size))
	return p, nil
}

// needed is how many bytes will be stored of the layers that the registry lacks,
// at least: those that are compressed are kept as they are, of the others nobody
// knows what is left of them.
func needed(a *tarball.Archive, missing map[digest.Digest]bool, repack bool) int64 {
	known := func(d digest.Digest) bool { return !missing[d] }
	n := int64(0)
	for _, l := range a.Layers {
		plain := func(d digest.Digest) bool { return slices.Contains(l.DiffIDs, d) }
		switch {
		case slices.ContainsFunc(l.DiffIDs, known), slices.ContainsFunc(l.Digests, known):
		case len(l.Digests) > 0 && !repack && !slices.ContainsFunc(l.Digests, plain):
			n += l.Size
		default:
			n++
		}
	}
	return n
}

// maxAsked is how many layers the registry answers about at once.
const maxAsked = 10_000

type digests struct {
	DiffIDs []digest.Digest `json:"diff_ids"`
	Digests []digest.Digest `json:"digests"`
}

// missing asks which layers the registry lacks; nil where it does not say. The
// error is the registry's where it has no room for what is needed.
func (m *Mover) missing(ctx context.Context, namespace string, a *tarball.Archive, need int64) (map[digest.Digest]bool, error) {
	ask := digests{a.DiffIDs(), a.Digests()}
	if len(ask.DiffIDs) > maxAsked || len(ask.Digests) > maxAsked {
		return nil, nil //nolint:nilnil // what the doc says
	}
	var lacks digests
	query := url.Values{"namespace": {namespace}}
	if need > 0 {
		query.Set("need", strconv.FormatInt(need, 10))
	}
	err := m.o.Client.Do(ctx, http.MethodPost, "/archives/missing", query, ask, &lacks)
	if e, ok := errors.AsType[*client.Error](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		return nil, nil //nolint:nilnil // an older server
	}
	if err != nil {
		return nil, err
	}
	out := map[digest.Digest]bool{}
	for _, list := range [][]digest.Digest{lacks.DiffIDs, lacks.Digests} {
		for _, d := range list {
			out[d] = true
		}
	}
	return out, nil
}

// refusesPartial tells whether the registry wants what was left out, after all.
func refusesPartial(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == http.StatusConflict
}

// direct sends it as one body, and again from its beginning where the
// connection breaks.
func (m *Mover) direct(ctx context.Context, u *upload, query url.Values) (*Outcome, error) {
	t := tries{m: m}
	for sent := int64(0); ; {
		body, err := u.p.open()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", u.f.Name, err)
		}
		c := &counter{r: body}
		res, err := m.post(ctx, u.job, query, c, u.p.size)
		_ = body.Close()
		sent += c.n
		if err == nil || !client.Temporary(err) {
			return outcome(res, sent), err
		}
		if err := t.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// post sends a body, or none where size is 0, and follows the progress.
func (m *Mover) post(ctx context.Context, job Job, query url.Values, body io.Reader, size int64) (*archive.Result, error) {
	resp, err := m.o.Client.Open(ctx, client.Request{
		Method: http.MethodPost, Path: "/archives/" + job.Route, Query: query, Body: body, Size: size,
		Header: http.Header{"Accept": {"application/x-ndjson"}, "Content-Type": {"application/x-tar"}},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return m.follow(resp.Body)
}

// follow shows the progress that the registry tells, to the result.
func (m *Mover) follow(r io.Reader) (res *archive.Result, err error) {
	bars := map[string]*progress.Bar{}
	defer func() {
		for _, b := range bars {
			b.Drop()
		}
	}()
	err = client.Lines(r, func(line []byte) error {
		var msg struct {
			archive.Message
			Images json.RawMessage `json:"images"`
		}
		if err := json.Unmarshal(line, &msg); err != nil {
			return fmt.Errorf("read the server's progress: %w", err)
		}
		if msg.Images != nil {
			res = &archive.Result{}
			return json.Unmarshal(line, res)
		}
		m.show(bars, msg.Message)
		return nil
	})
	if err == nil && res == nil {
		err = client.Broken(errors.New("the answer of the registry ends before its result"))
	}
	return res, err
}

// show shows one message. Of the images that are made the result tells.
func (m *Mover) show(bars map[string]*progress.Bar, msg archive.Message) {
	label, p := cmp.Or(msg.ID, msg.Status), msg.Progress
	switch {
	case p == nil && msg.ID != "":
		m.o.Display.Bar(msg.ID, 0).Done(msg.Status)
		return
	case p == nil && msg.Status != "" && !strings.HasPrefix(msg.Status, "sha256:"):
		m.o.Display.Say("%s", msg.Status)
		return
	case p == nil:
		return
	}
	b := bars[label]
	if b == nil {
		b = m.o.Display.Bar(label, p.Total)
		bars[label] = b
	}
	b.Set(p.Current)
	if p.Total > 0 && p.Current >= p.Total {
		b.Done(progress.Bytes(p.Total))
		delete(bars, label)
	}
}

func outcome(res *archive.Result, sent int64) *Outcome {
	if res == nil {
		return nil
	}
	return &Outcome{*res, sent}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
