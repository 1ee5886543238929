package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// notes is an Observer that remembers.
type notes struct {
	mu   sync.Mutex
	open int
	list []note
	done chan struct{} // has one for each end
}

type note struct {
	Kind Kind
	Done
}

func newNotes() *notes { return &notes{done: make(chan struct{}, 100)} }

func (n *notes) Begin(k Kind) func(Done) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open++
	return func(d Done) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open--
		n.list = append(n.list, note{k, d})
		n.done <- struct{}{}
	}
}

// last returns the note of what has ended just now.
func (n *notes) last(t *testing.T) note {
	t.Helper()
	<-n.done
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open != 0 || len(n.list) != 1 {
		t.Fatalf("%d are under way and %d have ended, want 0 and 1", n.open, len(n.list))
	}
	out := n.list[0]
	n.list = nil
	return out
}

func TestAnObserverIsToldOfEachArchive(t *testing.T) {
	t.Parallel()
	seen := newNotes()
	reg := newRegistry(t, func(o *Options) { o.Observer = seen })
	want := func(what string, k Kind, d Done) {
		t.Helper()
		if diff := cmp.Diff(note{k, d}, seen.last(t)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	// Named by their diffIDs, so that they can be looked up.
	two := docker("base:1", layerOf("one"), layerOf("two"))
	names := []string{}
	for _, l := range [][]byte{layerOf("one"), layerOf("two")} {
		names = append(names, sum(l).Encoded()+"/layer.tar")
		two.files[names[len(names)-1]] = l
	}
	delete(two.files, two.layer(0))
	delete(two.files, two.layer(1))
	two.items[0]["Layers"] = names
	body := two.pack()
	res := reg.mustLoad(t, body)
	want("a load", KindLoad, Done{Outcome: OutcomeOK, Received: int64(len(body)), Stored: res.BytesStored, Layers: LayerCounts{Compressed: 2}})
	reg.mustLoad(t, body, func(q *LoadRequest) { q.Compression = gzipped })
	want("what is known", KindLoad, Done{Outcome: OutcomeOK, Received: int64(len(body)), Layers: LayerCounts{Known: 2}})

	delete(two.files, names[1])
	partial := two.pack()
	reg.mustLoad(t, partial, func(q *LoadRequest) { q.Partial = true })
	want("what was left out", KindLoad, Done{Outcome: OutcomeOK, Received: int64(len(partial)), Layers: LayerCounts{Known: 2}})

	mixed := docker("mixed:1", readPlain(t))
	mixed.files[mixed.layer(0)] = readFile(t, "testdata/layers", "layer.tar.xz")
	body = mixed.pack()
	res = reg.mustLoad(t, body)
	want("a layer in xz", KindLoad, Done{Outcome: OutcomeOK, Received: int64(len(body)), Stored: res.BytesStored, Layers: LayerCounts{Recompressed: 1}})

	if _, err := reg.load(t, []byte("no archive at all")); err == nil {
		t.Error("text was loaded")
	}
	want("what is no archive", KindLoad, Done{Outcome: OutcomeRefused, Received: 17})

	rootFS := layerOf("a root")
	im, err := reg.importFS(t, rootFS, func(q *ImportRequest) { q.Compression = uncompressed })
	if err != nil {
		t.Fatal(err)
	}
	want("an import", KindImport, Done{Outcome: OutcomeOK, Received: int64(len(rootFS)), Stored: im.BytesStored, Layers: LayerCounts{Kept: 1}})
	rootFS = pack(text("etc/one", "one"), text("etc/two", "two"), text("new", "n"))
	im, err = reg.commitFS(t, rootFS)
	if err != nil {
		t.Fatal(err)
	}
	want("a commit", KindCommit, Done{Outcome: OutcomeOK, Received: int64(len(rootFS)), Stored: im.BytesStored, Layers: LayerCounts{Compressed: 1}})
	if _, err := reg.commitFS(t, rootFS, func(q *CommitRequest) { q.Base = "team/none:1" }); err == nil {
		t.Error("a commit over nothing was taken")
	}
	want("a commit over nothing", KindCommit, Done{Outcome: OutcomeRefused})
}

func TestAnObserverTellsWhoseFaultItIs(t *testing.T) {
	t.Parallel()
	seen := newNotes()
	st := &fakeStore{}
	s := newFakeService(t, st, func(o *Options) { o.Observer = seen })
	body := docker("a/b:1", layerOf("one")).pack()
	broken := io.MultiReader(bytes.NewReader(body[:600]), iotest.ErrReader(errors.New("connection reset by peer")))
	if _, err := s.Load(t.Context(), broken, request()); err == nil {
		t.Error("half an archive was loaded")
	}
	if n := seen.last(t); n.Outcome != OutcomeGone || n.Received != 600 {
		t.Errorf("a line that breaks = %+v", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(ctx, bytes.NewReader(body), request()); err == nil {
		t.Error("a load went on without its client")
	}
	if n := seen.last(t); n.Outcome != OutcomeGone {
		t.Errorf("a client that left = %+v", n)
	}
	for err, want := range map[error]Outcome{
		errors.New("disk"): OutcomeFailed, tarport.Errorf(tarport.InsufficientStorage, "full"): OutcomeFailed, tarport.Errorf(tarport.Denied, "quota"): OutcomeRefused,
	} {
		st.fail = func(op string) error {
			if op == "create" {
				return err
			}
			return nil
		}
		if _, got := s.Load(t.Context(), bytes.NewReader(body), request()); got == nil {
			t.Errorf("a store that says %q was loaded into", err)
		}
		if n := seen.last(t); n.Outcome != want {
			t.Errorf("a store that says %q = %s, want %s", err, n.Outcome, want)
		}
	}
}

func TestAnObserverIsToldOfWhatIsSent(t *testing.T) {
	t.Parallel()
	seen := newNotes()
	reg := newRegistry(t, func(o *Options) { o.Observer = seen })
	reg.mustLoad(t, docker("app:1", layerOf(noise(100_000))).pack())
	seen.last(t)
	base := strings.TrimSuffix(serve(t, reg.Service), "load")
	for k, target := range map[Kind]string{KindSave: "save?image=team/app:1", KindExport: "export?image=team/app:1"} {
		_, body, err := fetch(t, http.MethodGet, base+target)
		if n := seen.last(t); err != nil || n.Kind != k || n.Outcome != OutcomeOK || n.Sent != int64(len(body)) {
			t.Errorf("GET %s = %d bytes, %v; told %+v", target, len(body), err, n)
		}
		if _, _, err := fetch(t, http.MethodGet, base+target+"9"); err != nil {
			t.Fatal(err)
		}
		if n := seen.last(t); n.Kind != k || n.Outcome != OutcomeRefused || n.Sent != 0 {
			t.Errorf("GET of another = %+v", n)
		}
		h := NewHandler(reg.Service)
		answer := map[Kind]httpapi.HandlerFunc{KindSave: h.save, KindExport: h.export}[k]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, base+target, nil)
		if err := answer(&thinLine{ResponseRecorder: httptest.NewRecorder(), left: 10_000}, r); err != nil {
			t.Errorf("GET %s over a line that breaks = %v", target, err)
		}
		if n := seen.last(t); n.Kind != k || n.Outcome != OutcomeGone || n.Sent != 10_000 {
			t.Errorf("a client of %s whose line breaks = %+v", k, n)
		}
	}
}

// thinLine takes so many bytes of an answer.
type thinLine struct {
	*httptest.ResponseRecorder
	left int
}

func (l *thinLine) Write(p []byte) (int, error) {
	n, err := l.ResponseRecorder.Write(p[:min(len(p), l.left)])
	l.left -= n
	if err == nil && n < len(p) {
		err = errors.New("broken pipe")
	}
	return n, err
}
