package images

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// world is the routes over a real store, into which archives are loaded.
type world struct {
	*testing.T
	db      *metadata.DB
	content *storage.Store
	load    *archive.Service
	http    http.Handler
	user    tarport.Principal
}

// access lets everybody at everything but the namespace secret, which is ada's.
type access struct{}

func (access) Authorize(_ context.Context, p tarport.Principal, _ tarport.Action, repository string) error {
	if tarport.Namespace(repository) == "secret" && p.Name != "ada" {
		return tarport.Errorf(tarport.NameUnknown, "the repository is not known")
	}
	return nil
}

func newWorld(t *testing.T, dsn string) *world {
	t.Helper()
	db := metadatatest.Open(t, metadata.Options{DSN: dsn})
	w := &world{T: t, db: db}
	var ids []int64
	for _, name := range []string{"ada", "bob"} {
		u, err := db.CreateUser(t.Context(), metadata.User{Name: name, PasswordHash: "-"})
		check(t, err)
		ids = append(ids, u.ID)
	}
	w.user = tarport.Principal{UserID: ids[0], Name: "ada"}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.content, err = storage.New(storage.Options{DB: db, Root: t.TempDir(), Log: log})
	check(t, err)
	w.load, err = archive.New(archive.Options{Store: archive.Storage(w.content), Access: access{}, Log: log})
	check(t, err)
	s, err := New(Options{DB: db, Content: w.content, Access: access{}})
	check(t, err)
	r := mux.NewRouter().SkipClean(true)
	s.Routes(r)
	w.http = httpapi.Middleware(httpapi.Options{Log: log})(r)
	return w
}

// as lets another user do something.
func (w *world) as(name string, do func()) {
	w.Helper()
	before := w.user
	u, err := w.db.UserByName(w.Context(), name)
	check(w.T, err)
	w.user = tarport.Principal{UserID: u.ID, Name: name}
	do()
	w.user = before
}

func eachWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(newWorld(t, dsn))
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// loadFile loads an archive of archive's own fixtures into a namespace.
func (w *world) loadFile(namespace, name string) *archive.Result {
	w.Helper()
	f, err := os.Open(filepath.Join("..", "archive", "testdata", name))
	check(w.T, err)
	defer func() { _ = f.Close() }()
	res, err := w.load.Load(tarport.WithPrincipal(w.Context(), w.user), f, archive.LoadRequest{Namespace: namespace})
	check(w.T, err)
	return res
}

// get asks, and decodes the answer where it is the status.
func (w *world) get(path string, status int, into any) {
	w.Helper()
	rq := httptest.NewRequestWithContext(tarport.WithPrincipal(w.Context(), w.user), http.MethodGet, path, nil)
	rec := httptest.NewRecorder()
	w.http.ServeHTTP(rec, rq)
	if rec.Code != status {
		w.Fatalf("GET %s = %d %s, want %d", path, rec.Code, rec.Body, status)
	}
	check(w.T, json.Unmarshal(rec.Body.Bytes(), into))
}

// failure is the code and the message of an error.
func (w *world) failure(path string, status int) (code, message string) {
	w.Helper()
	var body struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	w.get(path, status, &body)
	if len(body.Errors) != 1 {
		w.Fatalf("GET %s: errors = %v, want one", path, body.Errors)
	}
	return body.Errors[0].Code, body.Errors[0].Message
}

func (w *world) detail(repository, ref, query string) Detail {
	w.Helper()
	var d Detail
	w.get("/repositories/"+repository+"/-/manifests/"+ref+query, http.StatusOK, &d)
	return d
}

func TestAnImageInFull(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		res := w.loadFile("team", "docker20/kitchen-sink.tar.zst")
		name, tag, _ := strings.Cut(res.Images[0].Name, ":")
		d := w.detail(name, tag, "")
		if d.Digest != res.Images[0].Digest || d.Name != name || d.Kind != "image" || d.PushedBy != "ada" || d.PushedVia != "load" || !slices.Contains(d.Tags, tag) {
			t.Errorf("detail = %+v, want that of %+v", d, res.Images[0])
		}
		if string(d.ImageID) != res.Images[0].ImageID || d.Platform != "linux/amd64" || len(d.Platforms) != 1 || d.Platforms[0].Digest != d.Digest {
			t.Errorf("image %s for %s of %+v", d.ImageID, d.Platform, d.Platforms)
		}
		if d.Size != res.Images[0].Size || d.UniqueSize <= d.Size {
			t.Errorf("size %d, unique %d; want %d and the config too", d.Size, d.UniqueSize, res.Images[0].Size)
		}
		c := d.Config
		if !slices.Contains(c.Env, "B=two words") || !slices.Contains(c.ExposedPorts, "443/tcp") || c.User != "1000:1000" || c.StopSignal != "SIGQUIT" ||
			c.Healthcheck == nil || c.Healthcheck.Interval != "5s" || len(c.OnBuild) != 2 || len(c.Shell) != 2 || c.Labels["org.opencontainers.image.title"] != "kitchen sink" {
			t.Errorf("config = %+v", c)
		}
		made := 0
		for i, l := range d.Layers {
			if l.DiffID != res.Images[0].Layers[i].DiffID || l.Digest != res.Images[0].Layers[i].Digest || d.History[l.History].Layer != i || d.History[l.History].EmptyLayer {
				t.Errorf("layer %d = %+v of step %+v", i, l, d.History[l.History])
			}
			made++
		}
		if made == 0 || len(d.History) <= made {
			t.Errorf("%d layers, %d steps: want steps without a layer, too", made, len(d.History))
		}
		for _, want := range []string{"MAINTAINER Fixture Maker", "EXPOSE 443/tcp 53/udp 7000-7003/tcp 80\n", "HEALTHCHECK --interval=5s", "\nUSER 1000:1000\n"} {
			if !strings.Contains(d.Dockerfile, want) {
				t.Errorf("the Dockerfile has no %q:\n%s", want, d.Dockerfile)
			}
		}
	})
}

func TestAnIndexShowsItsPlatforms(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		res := w.loadFile("team", "docker29/save-multiarch.tar")
		name, tag, _ := strings.Cut(res.Images[0].Name, ":")
		d := w.detail(name, tag, "")
		if d.Kind != "index" || d.Platform != "linux/amd64" || len(d.Platforms) != 3 {
			t.Fatalf("kind %s, shown %q of %+v", d.Kind, d.Platform, d.Platforms)
		}
		for _, p := range d.Platforms {
			if p.Missing {
				continue
			}
			one := w.detail(name, tag, "?platform="+url.QueryEscape(p.Platform))
			if one.Platform != p.Platform || one.Image == nil || len(one.Layers) == 0 {
				t.Errorf("platform %s shows %s %+v", p.Platform, one.Platform, one.Image)
			}
			if alone := w.detail(name, p.Digest.String(), ""); alone.Kind != "image" || alone.ImageID != one.ImageID {
				t.Errorf("the entry for %s is the %s %s, want the image %s", p.Platform, alone.Kind, alone.ImageID, one.ImageID)
			}
		}
		code, message := w.failure("/repositories/"+name+"/-/manifests/"+tag+"?platform=plan9/mips", http.StatusBadRequest)
		if code != string(tarport.Invalid) || !strings.Contains(message, "linux/amd64") {
			t.Errorf("a platform that is not there: %s %s, want INVALID with those that are", code, message)
		}
		code, _ = w.failure("/repositories/"+name+"/-/manifests/"+tag+"?platform=linux", http.StatusBadRequest)
		if code != string(tarport.Invalid) {
			t.Errorf("a bad platform: %s, want INVALID", code)
		}
	})
}

func TestWhatAnImageStandsOnAndWhatStandsOnIt(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t := w.T
		one, two, three, other := w.tar("one"), w.tar("two"), w.tar("three"), w.tar("other")
		base := w.push("team/base", "1.0", []string{one, two}, "PATH=/bin", "A=1")
		app := w.push("team/app", "2.0", []string{one, two, three}, "PATH=/bin", "A=2", "B=3")
		w.push("team/lower", "1.0", []string{one}, "PATH=/bin")
		w.as("bob", func() { w.push("secret/base", "1.0", []string{one, two}, "PATH=/bin") }) // bob's own
		// Configs that claim the layers of others.
		w.pushAs("team/a-base", "1.0", []string{other, two}, []string{one, two}, "PATH=/evil")
		w.pushAs("team/a-base", "2.0", []string{one}, []string{one, two}, "PATH=/evil")
		w.pushAs("team/a-app", "1.0", []string{other, two, w.tar("four")}, []string{one, two, three}, "PATH=/evil")
		if d := w.detail("team/app", "2.0", ""); d.BaseImage != nil || len(d.BuiltOn) > 0 {
			t.Errorf("before its layers were looked into it stands on %+v", d.BaseImage)
		}
		w.scan()
		if d := w.detail("team/a-app", "1.0", ""); d.BaseImage != nil {
			t.Errorf("an image of other layers than it says stands on %+v", d.BaseImage)
		}
		d := w.detail("team/app", "2.0", "")
		want := &Related{Name: "team/base:1.0", Digest: base, Layers: 2}
		if diff := cmp.Diff(want, d.BaseImage); diff != "" {
			t.Errorf("base image (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"PATH"}, d.Config.EnvInherited); diff != "" {
			t.Errorf("inherited variables (-want +got):\n%s", diff)
		}
		var inherited []bool
		for _, l := range d.Layers {
			inherited = append(inherited, l.Inherited)
		}
		if diff := cmp.Diff([]bool{true, true, false}, inherited); diff != "" {
			t.Errorf("inherited layers (-want +got):\n%s", diff)
		}
		b := w.detail("team/base", "1.0", "")
		if diff := cmp.Diff([]Related{{Name: "team/app:2.0", Digest: app, Layers: 2}}, b.BuiltOn); diff != "" {
			t.Errorf("images on the base (-want +got):\n%s", diff)
		}
		if b.BaseImage == nil || b.BaseImage.Name != "team/lower:1.0" {
			t.Errorf("the base stands on %+v, want team/lower:1.0", b.BaseImage)
		}
		// A token for one repository tells of no other.
		w.user.Scope = []tarport.Grant{{Repository: "team/base", Actions: []tarport.Action{tarport.Pull}}}
		if scoped := w.detail("team/base", "1.0", ""); scoped.BaseImage != nil || len(scoped.BuiltOn) > 0 {
			w.Errorf("a token of one repository is shown %+v and %+v", scoped.BaseImage, scoped.BuiltOn)
		}
		w.user.Scope = nil
		// Layers that others in the namespace need are not freed.
		if all := d.Layers[2].Size; d.UniqueSize >= d.Size+1000 || d.UniqueSize < all {
			t.Errorf("unique size = %d, want that of the last layer and the config", d.UniqueSize)
		}
	})
}

// tar is a layer of one file.
func (w *world) tar(name string) string { return string(tarOf(w.T, nil, entries{file(name)})) }

// scan looks into the layers, as far as the related images need it.
func (w *world) scan() {
	w.Helper()
	for {
		c, found, err := w.db.ClaimLayer(w.Context(), "test", time.Now().Add(time.Minute))
		if check(w.T, err); !found {
			break
		}
		diffID, err := w.content.IndexLayer(w.Context(), c.Digest, nil)
		check(w.T, err)
		_, err = w.db.FinishLayer(w.Context(), c, diffID, scan.Prefix+"}")
		check(w.T, err)
	}
	_, err := w.content.SettleImages(w.Context(), "")
	check(w.T, err)
}

// push pushes an image with layers of these contents.
func (w *world) push(repository, tag string, layers []string, env ...string) digest.Digest {
	w.Helper()
	return w.pushAs(repository, tag, layers, layers, env...)
}

// pushAs is push with a config that claims to have other layers.
func (w *world) pushAs(repository, tag string, layers, claimed []string, env ...string) digest.Digest {
	w.Helper()
	var c ocispec.Image
	c.OS, c.Architecture, c.Config.Env, c.RootFS.Type = "linux", "amd64", env, "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range claimed {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString(l))
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, w.blob(repository, ocispec.MediaTypeImageLayer, []byte(l)))
	}
	b, err := json.Marshal(c)
	check(w.T, err)
	m.Config = w.blob(repository, ocispec.MediaTypeImageConfig, b)
	return w.manifest(repository, tag, m)
}

func (w *world) manifest(repository, tag string, m ocispec.Manifest) digest.Digest {
	w.Helper()
	b, err := json.Marshal(m)
	check(w.T, err)
	put := storage.ManifestPut{Repository: repository, MediaType: m.MediaType, Payload: b, By: "ada", Via: storage.ViaPush}
	if tag != "" {
		put.Tags = []string{tag}
	}
	row, err := w.content.PutManifest(tarport.WithPrincipal(w.Context(), w.user), put, "")
	check(w.T, err)
	return row.Digest
}

func (w *world) blob(repository, mediaType string, b []byte) ocispec.Descriptor {
	w.Helper()
	ctx := tarport.WithPrincipal(w.Context(), w.user)
	u, err := w.content.NewUpload(ctx, repository)
	check(w.T, err)
	_, err = u.ReadFrom(strings.NewReader(string(b)))
	check(w.T, err)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	_, err = u.Commit(ctx, desc)
	check(w.T, err)
	return desc
}

func TestReferrersAreSortedByWhatTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	d := w.push("team/app", "1.0", []string{"one"})
	m, err := w.content.Manifest(t.Context(), "team/app", tarport.Reference{Digest: d})
	check(t, err)
	subject := &ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(m.Payload))}
	want := map[string]string{}
	refer := func(tag, artifactType, kind string, subject *ocispec.Descriptor) {
		r := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Subject: subject,
			Config: w.blob("team/app", ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{w.blob("team/app", "text/plain", []byte(artifactType+tag))},
		}
		want[w.manifest("team/app", tag, r).String()] = kind
	}
	refer("", "application/vnd.dev.cosign.artifact.sig.v1+json", "signature", subject)
	refer("", "application/vnd.cncf.notary.signature", "signature", subject)
	refer("", "application/vnd.dev.sigstore.bundle.v0.3+json", "signature", subject)
	refer("", "application/spdx+json", "sbom", subject)
	refer("", "application/vnd.cyclonedx+json", "sbom", subject)
	refer("", "application/vnd.in-toto+json", "attestation", subject)
	refer("", "application/vnd.example.scan", "other", subject)
	refer("sha256-"+d.Encoded()+".sig", "application/vnd.oci.image.config.v1+json", "signature", nil)
	got := map[string]string{}
	for _, r := range w.detail("team/app", "1.0", "").Referrers {
		got[r.Digest.String()] = r.Kind
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
}

func TestAttestationsOfAnIndexAreReferrers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	res := w.loadFile("team", "docker29/save-attested.tar")
	name, tag, _ := strings.Cut(res.Images[0].Name, ":")
	d := w.detail(name, tag, "")
	if len(d.Platforms) != 1 || len(d.Referrers) != 1 || d.Referrers[0].Kind != "attestation" {
		t.Errorf("platforms %+v, referrers %+v; want one of each", d.Platforms, d.Referrers)
	}
}

func TestAnArtifactIsShownWithoutAnImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.chart",
		Config: w.blob("team/chart", ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{}, Annotations: map[string]string{"a": "b"},
	}
	w.manifest("team/chart", "1.0", m)
	d := w.detail("team/chart", "1.0", "")
	if d.Kind != "artifact" || d.Image != nil || len(d.Platforms) != 0 || d.Annotations["a"] != "b" || d.ArtifactType != m.ArtifactType {
		t.Errorf("detail = %+v", d)
	}
}

func TestWhatIsHiddenIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	w.push("secret/app", "1.0", []string{"one"})
	w.push("team/app", "1.0", []string{"one", "two"})
	w.user = tarport.Principal{UserID: -1, Name: "eve"}
	for _, path := range []string{"secret/app/-/manifests/1.0", "secret/none/-/manifests/1.0", "team/app/-/manifests/1.0/diff?with=secret/app:1.0"} {
		if code, _ := w.failure("/repositories/"+path, http.StatusNotFound); code != string(tarport.NameUnknown) {
			t.Errorf("%s: %s, want NAME_UNKNOWN", path, code)
		}
	}
	if code, _ := w.failure("/repositories/team/app/-/manifests/2.0", http.StatusNotFound); code != string(tarport.ManifestUnknown) {
		t.Errorf("no tag: %s, want MANIFEST_UNKNOWN", code)
	}
	for _, path := range []string{"team/app/-/manifests/-x", "team/app/-/manifests/1.0/diff", "team/app/-/manifests/1.0/diff?with=UPPER:1"} {
		w.failure("/repositories/"+path, http.StatusBadRequest)
	}
}

func TestTwoImagesAreCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	w.push("team/app", "1.0", []string{"one", "two"}, "PATH=/bin", "A=1")
	w.push("team/app", "2.0", []string{"one", "three", "four"}, "PATH=/bin", "B=2")
	var d Diff
	w.get("/repositories/team/app/-/manifests/1.0/diff?with=2.0", http.StatusOK, &d)
	text := func(s string) *string { return &s }
	if diff := cmp.Diff([]Change{{Name: "env.A", From: text("1")}, {Name: "env.B", To: text("2")}}, d.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if d.Layers.Common != 1 || len(d.Layers.Removed) != 1 || len(d.Layers.Added) != 2 || d.From.Name != "team/app:1.0" || d.To.Size != int64(len("onethreefour")) {
		t.Errorf("diff = %+v", d)
	}
	if d.Packages.Known || d.Packages.Reason == "" {
		t.Errorf("packages = %+v, want a reason why they are not known", d.Packages)
	}
}

func TestFewImagesAreComparedAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	s, err := New(Options{DB: w.db, Content: w.content, Access: access{}})
	check(t, err)
	w.push("team/app", "1.0", []string{"one"})
	s.comparing = places.New(places.Options{Places: 1, Queue: 2, Wait: time.Millisecond, Busy: "images are being compared"})
	leave, err := s.comparing.Take(t.Context())
	check(t, err)
	q := Query{Repository: "team/app", Reference: tarport.Reference{Tag: "1.0"}}
	ctx := tarport.WithPrincipal(t.Context(), w.user)
	if _, err := s.Diff(ctx, q, q); tarport.ErrorCode(err) != tarport.Unavailable {
		t.Errorf("Diff while others compare = %v, want UNAVAILABLE", err)
	}
	leave()
	_, err = s.Diff(ctx, q, q)
	check(t, err)
}

func TestOfAnIndexSoManyEntriesAreLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(t.TempDir(), "tarport.db"))
	one := w.push("team/app", "", []string{"one"})
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i := range maxEntries + 1 {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(strconv.Itoa(i)), Size: 10, Platform: &ocispec.Platform{OS: "linux", Architecture: "a" + strconv.Itoa(i)}}
		if i == 0 {
			d.Digest = one
			m, err := w.content.Manifest(t.Context(), "team/app", tarport.Reference{Digest: one})
			check(t, err)
			d.Size = int64(len(m.Payload))
		}
		index.Manifests = append(index.Manifests, d)
	}
	b, err := json.Marshal(index)
	check(t, err)
	_, err = w.content.PutManifest(tarport.WithPrincipal(t.Context(), w.user),
		storage.ManifestPut{Repository: "team/app", MediaType: index.MediaType, Payload: b, By: "ada", Via: storage.ViaPush, Tags: []string{"many"}}, "")
	check(t, err)
	d := w.detail("team/app", "many", "")
	if len(d.Platforms) != maxEntries || !d.MorePlatforms || d.Platform != "linux/amd64" {
		t.Errorf("%d platforms, more %t, shown %s; want %d, more, and linux/amd64", len(d.Platforms), d.MorePlatforms, d.Platform, maxEntries)
	}
}
