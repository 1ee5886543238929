package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport/internal/pgtest"
)

// TestKilledServerKeepsWhatItAcknowledged ends the server in the middle of
// concurrent pushes and loads, again and again over one data directory, and
// compares what it then has with the client's journal: nothing acknowledged is
// lost, no tag dangles, and no image is visible in part.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		endRepeatedly(t, serve(t, manyUploads), syscall.SIGKILL, 20)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		tarport(t) // skips before a database is made
		s := serve(t, manyUploads, "TARPORT_DATABASE_DSN="+pgtest.DSN(t))
		endRepeatedly(t, s, syscall.SIGKILL, 8)
		if _, err := os.Stat(filepath.Join(s.dir, "data", "tarport.db")); err == nil {
			t.Error("the server on PostgreSQL has a SQLite database")
		}
	})
	t.Run("stopped by SIGTERM", func(t *testing.T) {
		t.Parallel()
		endRepeatedly(t, serve(t, manyUploads), syscall.SIGTERM, 3)
	})
}

// manyUploads lets the sessions be that the killed server has left open.
const manyUploads = "TARPORT_UPLOADS_MAX=10000"

func endRepeatedly(t *testing.T, s *server, signal syscall.Signal, points int) {
	t.Helper()
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	rng := mathrand.New(mathrand.NewPCG(seed, 0))
	j, err := newJournal(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.file.Close()
	v := newVerifier(s)
	for point := range points {
		since := len(j.all)
		c := &crash{server: s, round: point, seed: rng.Uint64(), traffic: &journalling{
			journal: j, next: &http.Transport{MaxIdleConnsPerHost: 16}, ids: map[string]string{},
			endAt: 5 + rng.IntN(500), end: func() { _ = s.cmd.Process.Signal(signal) },
		}}
		c.run(t)
		if err := s.reap(); err != nil && signal == syscall.SIGTERM {
			t.Errorf("tarport ended badly after SIGTERM: %v", err)
		}
		s.start(t)
		v.check(t, j.all, since)
		if t.Failed() {
			t.Fatalf("point %d of %d, at unit %d of traffic", point+1, points, c.traffic.endAt)
		}
	}
	newVerifier(s).check(t, j.all, 0)
	checkFiles(t, s)
	acked := 0
	for _, e := range j.all {
		if e.Acked {
			acked++
		}
	}
	t.Logf("ended %d times, %d entries, %d of them acknowledged", points, len(j.all), acked)
	if acked < points { // the points are drawn: a few can come very early
		t.Errorf("acknowledged entries = %d: the server ended before it did anything", acked)
	}
}

// crash is one run of the workers up to the server's end.
type crash struct {
	server  *server
	round   int
	seed    uint64
	traffic *journalling
}

func (c *crash) run(t *testing.T) {
	t.Helper()
	base, err := random.Layer(200<<10, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			return c.repeat(t.Context(), i, func(ctx context.Context, w *worker) error { return w.push(ctx, base) })
		})
	}
	for i := range 2 {
		g.Go(func() error {
			return c.repeat(t.Context(), 4+i, func(ctx context.Context, w *worker) error { return w.load(ctx) })
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("before the server's end: %v", err)
	}
}

// repeat has a worker work until the server ends; any error before that is one.
func (c *crash) repeat(ctx context.Context, id int, work func(context.Context, *worker) error) error {
	w := &worker{crash: c, id: id, rng: mathrand.New(mathrand.NewPCG(c.seed, uint64(id)))}
	for {
		w.n++
		err := work(ctx, w)
		switch {
		case c.traffic.wasEnded():
			return nil
		case err != nil:
			return fmt.Errorf("worker %d: %w", id, err)
		}
	}
}

// worker is one client. It alone writes its repositories, so that its journal
// tells what its tags may point at.
type worker struct {
	*crash
	id, n int
	rng   *mathrand.Rand
}

func (w *worker) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithAuth(&authn.Basic{Username: "admin", Password: adminPassword}), remote.WithContext(ctx),
		remote.WithTransport(w.traffic), remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

func (w *worker) repository(format string, args ...any) (name.Repository, error) {
	return name.NewRepository(w.server.addr+"/"+fmt.Sprintf(format, args...), name.StrictValidation)
}

// push pushes an image on the layer that all workers push at once, and moves a
// tag to it; every third time an index, every fourth time by mounts.
func (w *worker) push(ctx context.Context, base v1.Layer) error {
	repo, err := w.repository("crash/push-%d", w.id)
	if err != nil {
		return err
	}
	img, err := random.Image(1<<10+w.rng.Int64N(700<<10), 1+w.rng.Int64N(2))
	if err != nil {
		return err
	}
	if img, err = mutate.AppendLayers(img, base); err != nil {
		return err
	}
	tag := repo.Tag(fmt.Sprintf("r%d-%d", w.round, w.n))
	if w.n%3 == 0 {
		index, err := random.Index(4<<10, 2, 2)
		if err != nil {
			return err
		}
		return remote.WriteIndex(tag, mutate.AppendManifests(index, mutate.IndexAddendum{Add: img}), w.options(ctx)...)
	}
	if err := remote.Write(tag, img, w.options(ctx)...); err != nil {
		return err
	}
	if w.n%4 == 0 {
		return w.mount(ctx, tag)
	}
	return remote.Write(repo.Tag("latest"), img, w.options(ctx)...)
}

// mount copies an image to another repository, layer by layer with mounts.
func (w *worker) mount(ctx context.Context, from name.Tag) error {
	to, err := w.repository("crash/mounted/%d", w.id)
	if err != nil {
		return err
	}
	img, err := remote.Image(from, w.options(ctx)...)
	if err != nil {
		return err
	}
	return remote.Write(to.Tag("latest"), img, w.options(ctx)...)
}

// load uploads an archive of two images, one of which moves a tag.
func (w *worker) load(ctx context.Context) error {
	content := func() string {
		b := make([]byte, w.rng.IntN(600<<10))
		for i := range b {
			b[i] = byte(w.rng.Uint32())
		}
		return string(b)
	}
	moving, fresh := fmt.Sprintf("load-%d:latest", w.id), fmt.Sprintf("load-%d-b:r%d-%d", w.id, w.round, w.n)
	archive, ids, err := dockerSave(map[string]string{moving: content(), fresh: content()})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, w.server.url("/api/v1/archives/load?namespace=crash"), bytes.NewReader(archive))
	if err != nil {
		return err
	}
	req.SetBasicAuth("admin", adminPassword)
	w.traffic.mu.Lock()
	for _, image := range []string{moving, fresh} {
		w.traffic.ids["crash/"+image] = ids[image]
		req.Header.Add("X-Names", "crash/"+image)
	}
	w.traffic.mu.Unlock()
	resp, err := w.traffic.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("load answered %d %s", resp.StatusCode, body)
	}
	return nil
}
