package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestKilledServerKeepsWhatItAcknowledged kills the server with SIGKILL in the
// middle of concurrent pushes and loads, again and again over one data
// directory, and compares what it then has with the client's journal: nothing
// acknowledged is lost, no tag dangles, and no image is visible in part.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		killRepeatedly(t, serve(t, manyUploads), 20)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		tarport(t)
		killRepeatedly(t, serve(t, manyUploads, "TARPORT_DATABASE_DSN="+pgtest.DSN(t)), 8)
	})
}

// manyUploads lets the sessions be that the killed server has left open.
const manyUploads = "TARPORT_UPLOADS_MAX=10000"

func killRepeatedly(t *testing.T, s *server, points int) {
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
			killAt: 5 + rng.IntN(500), kill: s.kill,
		}}
		c.run(t)
		s.reap()
		s.start(t)
		v.check(t, j.all, since)
		if t.Failed() {
			t.Fatalf("point %d of %d, at unit %d of traffic", point+1, points, c.traffic.killAt)
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
	t.Logf("%d kills, %d entries, %d of them acknowledged", points, len(j.all), acked)
	if acked < 5*points {
		t.Errorf("acknowledged entries = %d: the server was killed before it did anything", acked)
	}
}

// crash is one run of the workers up to the kill.
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
		t.Fatalf("before the kill: %v", err)
	}
}

// repeat has a worker work until the server is killed; any error before that is one.
func (c *crash) repeat(ctx context.Context, id int, work func(context.Context, *worker) error) error {
	w := &worker{crash: c, id: id, rng: mathrand.New(mathrand.NewPCG(c.seed, uint64(id)))}
	for {
		w.n++
		err := work(ctx, w)
		switch {
		case c.traffic.wasKilled():
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

// verifier reads through the registry's API and believes nothing but hashes.
type verifier struct {
	server *server
	client *client
	seen   map[string][]byte // repository/kind/digest that was read whole; manifests with their bytes
}

func newVerifier(s *server) *verifier { return &verifier{server: s, seen: map[string][]byte{}} }

// check compares the server with the journal, as far as its entries from the
// index since on tell something new.
func (v *verifier) check(t *testing.T, entries []entry, since int) {
	t.Helper()
	v.client = v.server.client(t)
	// What each tag may be now: what was acknowledged last, or asked for since.
	allowed := map[string][]entry{}
	touched := map[string]bool{}
	for i, e := range entries {
		if e.Acked && e.Digest != "" && i >= since {
			v.content(t, e)
		}
		if e.Tag == "" {
			continue
		}
		key := e.Repo + ":" + e.Tag
		if e.Acked {
			allowed[key] = nil
		}
		allowed[key] = append(allowed[key], e)
		touched[key] = touched[key] || i >= since
	}
	for key, candidates := range allowed {
		if touched[key] {
			v.tag(t, key, candidates)
		}
	}
	v.listed(t, allowed)
}

func (v *verifier) get(t *testing.T, repo, path string) response {
	t.Helper()
	return v.client.do(t, http.MethodGet, "/v2/"+repo+path, "repository:"+repo+":pull", nil,
		"Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "+
			"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json")
}

// content expects a blob or manifest to be there whole, and returns a manifest.
func (v *verifier) content(t *testing.T, e entry) []byte {
	t.Helper()
	kind := "/manifests/"
	if e.Blob {
		kind = "/blobs/"
	}
	key := e.Repo + kind + e.Digest
	if b, ok := v.seen[key]; ok {
		return b
	}
	r := v.get(t, e.Repo, kind+e.Digest)
	if r.status != http.StatusOK || digestOf(r.body) != e.Digest {
		t.Errorf("%s = %d with %d bytes of digest %s, want it whole", key, r.status, len(r.body), digestOf(r.body))
		return nil
	}
	v.seen[key] = nil
	if !e.Blob {
		v.seen[key] = r.body
	}
	return r.body
}

// tag expects the tag to be one of the candidates; the first of them is what was
// acknowledged last, or else nothing was and it may be absent.
func (v *verifier) tag(t *testing.T, key string, candidates []entry) {
	t.Helper()
	repo, tag, _ := strings.Cut(key, ":")
	r := v.get(t, repo, "/manifests/"+tag)
	if r.status == http.StatusNotFound {
		if candidates[0].Acked {
			t.Errorf("%s is lost, though it was acknowledged", key)
		}
		return
	}
	if r.status != http.StatusOK {
		t.Errorf("%s = %d %s, want 200", key, r.status, r.body)
		return
	}
	var m struct{ Config struct{ Digest string } }
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Errorf("%s: %v", key, err)
	}
	got := digestOf(r.body)
	if !slices.ContainsFunc(candidates, func(e entry) bool { return e.Digest == got || (e.Digest == "" && e.ImageID == m.Config.Digest) }) {
		t.Errorf("%s points at %s (config %s), want one of %+v", key, got, m.Config.Digest, candidates)
	}
	v.whole(t, repo, got)
}

// whole expects all that a manifest names, at any depth.
func (v *verifier) whole(t *testing.T, repo, digest string) {
	t.Helper()
	var m struct {
		Manifests []struct{ Digest string }
		Config    struct{ Digest string }
		Layers    []struct{ Digest string }
	}
	b := v.content(t, entry{Repo: repo, Digest: digest})
	if b == nil {
		return // told already
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Errorf("manifest %s: %v", digest, err)
	}
	for _, child := range m.Manifests {
		v.whole(t, repo, child.Digest)
	}
	if m.Config.Digest != "" {
		v.content(t, entry{Repo: repo, Digest: m.Config.Digest, Blob: true})
	}
	for _, layer := range m.Layers {
		v.content(t, entry{Repo: repo, Digest: layer.Digest, Blob: true})
	}
}

// listed expects each tag that the registry lists to be one that was asked for,
// and to be whole.
func (v *verifier) listed(t *testing.T, asked map[string][]entry) {
	t.Helper()
	repos := map[string]bool{}
	for key := range asked {
		repo, _, _ := strings.Cut(key, ":")
		repos[repo] = true
	}
	for repo := range repos {
		r := v.get(t, repo, "/tags/list?n=1000")
		if r.status == http.StatusNotFound {
			continue // nothing of it was acknowledged, or tag has told
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(r.body, &list); err != nil || r.status != http.StatusOK {
			t.Errorf("tags of %s = %d %s (%v)", repo, r.status, r.body, err)
		}
		for _, tag := range list.Tags {
			if asked[repo+":"+tag] == nil {
				t.Errorf("the registry lists %s:%s, which nobody pushed", repo, tag)
			}
			m := v.get(t, repo, "/manifests/"+tag)
			if m.status != http.StatusOK {
				t.Errorf("listed tag %s:%s = %d, want 200", repo, tag, m.status)
				continue
			}
			v.whole(t, repo, digestOf(m.body))
		}
	}
}

// checkFiles expects every blob file to hold what its name says, referenced or not.
func checkFiles(t *testing.T, s *server) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data/docker/registry/v2/blobs/sha256/*/*/data"))
	if err != nil || len(files) == 0 {
		t.Fatalf("blob files = %d (%v), want some", len(files), err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if want := filepath.Base(filepath.Dir(file)); hex.EncodeToString(h.Sum(nil)) != want {
			t.Errorf("the file of blob %s holds %d bytes of another digest", want, n)
		}
	}
}
