package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loaded is what the load endpoint answers.
type loaded struct {
	Images []struct {
		Name    string
		Digest  string
		ImageID string `json:"image_id"`
	}
}

// curlLoad uploads an archive as the README says and returns status and body.
func curlLoad(t testing.TB, s *server, archive, query string) (status string, body []byte) {
	t.Helper()
	answer := filepath.Join(t.TempDir(), "answer")
	status = mustRun(t, nil, program(t, "curl"), "--silent", "--show-error", "--user", "admin:"+adminPassword,
		"--upload-file", archive, "--output", answer, "--write-out", "%{http_code}", s.url("/api/v1/archives/load?"+query))
	body, err := os.ReadFile(answer)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// mustLoad is curlLoad for a good archive.
func mustLoad(t testing.TB, s *server, archive, query string) loaded {
	t.Helper()
	status, body := curlLoad(t, s, archive, query)
	if status != "201" {
		t.Fatalf("load of %s = %s, want 201\n%s", filepath.Base(archive), status, body)
	}
	var l loaded
	if err := json.Unmarshal(body, &l); err != nil {
		t.Fatalf("answer of load: %v\n%s", err, body)
	}
	return l
}

// save is docker save into a file.
func (d *docker) save(t testing.TB, images ...string) string {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "images.tar")
	d.must(t, append([]string{"save", "--output", archive}, images...)...)
	return archive
}

func TestDockerPullsWhatDockerSaveWrote(t *testing.T) {
	t.Parallel()
	word := unique()
	for _, tc := range []struct {
		name   string
		images []string          // as saved
		want   map[string]string // repository:tag in the registry -> image as saved
	}{
		{
			name:   "one image",
			images: []string{word + "/app:1.0"},
			want:   map[string]string{"team/" + word + "/app:1.0": word + "/app:1.0"},
		},
		{
			name:   "name begins with the namespace",
			images: []string{"team/" + word + "-own:1.0"},
			want:   map[string]string{"team/" + word + "-own:1.0": "team/" + word + "-own:1.0"},
		},
		{
			name:   "several images",
			images: []string{word + "-web:1", word + "-api:2.3-rc.1", "registry.example.com:5000/" + word + "/worker:latest"},
			want: map[string]string{
				"team/" + word + "-web:1":         word + "-web:1",
				"team/" + word + "-api:2.3-rc.1":  word + "-api:2.3-rc.1",
				"team/" + word + "/worker:latest": "registry.example.com:5000/" + word + "/worker:latest",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d, s := newDocker(t), serve(t)
			ids := map[string]string{}
			for _, image := range tc.images {
				ids[image] = d.appImage(t, image)
			}
			archive := d.save(t, tc.images...)
			d.forgetAll(t, tc.images...)
			got := map[string]string{}
			for _, image := range mustLoad(t, s, archive, "namespace=team").Images {
				got[image.Name] = image.ImageID
			}
			want := map[string]string{}
			for name, image := range tc.want {
				want[name] = ids[image]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("images of the answer (-want +got):\n%s", diff)
			}
			d.mustLogin(t, s)
			for name, id := range want {
				d.must(t, "pull", s.addr+"/"+name)
				t.Cleanup(func() { d.forget(s.addr + "/" + name) })
				if got := d.imageID(t, s.addr+"/"+name); got != id {
					t.Errorf("image ID of %s after load and docker pull = %s, want %s as in the archive", name, got, id)
				}
			}
		})
	}
}

// TestLoadAgainStoresNothing loads an archive in which images share layers and
// one image has two names, then loads it again: nothing may be stored twice.
func TestLoadAgainStoresNothing(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	word := unique()
	one, alias, child := word+":1", word+":latest", word+"-child:1"
	id := d.appImage(t, one)
	d.must(t, "tag", one, alias)
	t.Cleanup(func() { d.forget(alias) })
	childID := d.build(t, child, "FROM "+one+"\nADD extra /extra\n", map[string]string{"extra": unique()})
	archive := d.save(t, one, alias, child)
	want := map[string]string{"team/" + one: id, "team/" + alias: id, "team/" + child: childID}
	var before map[string]int64
	for range 2 {
		got := map[string]string{}
		for _, image := range mustLoad(t, s, archive, "namespace=team").Images {
			got[image.Name] = image.ImageID
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("images of the answer (-want +got):\n%s", diff)
		}
		files := s.dataFiles(t)
		if before != nil {
			if diff := cmp.Diff(before, files); diff != "" {
				t.Errorf("files after the second load (-first +second):\n%s", diff)
			}
		}
		before = files
	}
	if len(before) == 0 {
		t.Errorf("no blob is in the data directory")
	}
}

// TestBrokenArchiveLeavesNothing cuts and damages a good archive in many ways.
func TestBrokenArchiveLeavesNothing(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c := s.client(t)
	// One good load first, so that the list of repositories can be asked for.
	mustLoad(t, s, archiveOf(t, map[string]string{"good:1": "good"}), "namespace=team")
	before := s.dataFiles(t)

	whole, err := os.ReadFile(archiveOf(t, map[string]string{"one:1": unique(), "two:1": unique()}))
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	at := strings.Index(string(whole), "content of ") // inside an uncompressed layer
	if at < 0 {
		t.Fatal("no layer content found in the archive")
	}
	flipped[at] ^= 0x20
	broken := map[string][]byte{
		"empty":                    {},
		"not a tar":                []byte(strings.Repeat("no archive ", 200)),
		"cut in a header":          whole[:700],
		"cut in the middle":        whole[:len(whole)/2],
		"cut before manifest":      whole[:strings.LastIndex(string(whole), "manifest.json")-100],
		"one bit of a layer flips": flipped,
		"no manifest":              tarball(t, map[string]string{"layer.tar": "x"}),
		"manifest is no JSON":      tarball(t, map[string]string{"manifest.json": "{"}),
		"manifest names nothing": tarball(t, map[string]string{
			"manifest.json": `[{"Config":"absent.json","RepoTags":["one:1"],"Layers":["absent.tar"]}]`,
		}),
		"gzip of nothing": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3},
	}
	for _, name := range slices.Sorted(maps.Keys(broken)) {
		file := filepath.Join(t.TempDir(), "broken.tar")
		if err := os.WriteFile(file, broken[name], 0o600); err != nil {
			t.Fatal(err)
		}
		status, body := curlLoad(t, s, file, "namespace=team")
		if status != "400" && status != "422" {
			t.Errorf("load of an archive that is broken (%s) = %s, want 400 or 422\n%s", name, status, body)
		}
		var answer struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(body, &answer); err != nil || len(answer.Errors) == 0 || answer.Errors[0].Message == "" {
			t.Errorf("answer to an archive that is broken (%s) = %s (%v), want an error with a message", name, body, err)
		}
		if diff := cmp.Diff(before, s.dataFiles(t)); diff != "" {
			t.Errorf("files after an archive that is broken (%s) (-before +after):\n%s", name, diff)
		}
		for _, repo := range []string{"team/one", "team/two"} {
			r := c.do(t, http.MethodGet, "/v2/"+repo+"/tags/list", "repository:"+repo+":pull", nil)
			if r.status != http.StatusNotFound {
				t.Errorf("tags of %s after an archive that is broken (%s) = %d %s, want 404", repo, name, r.status, r.body)
			}
		}
	}
	catalog := c.must(t, http.StatusOK, http.MethodGet, "/v2/_catalog", "registry:catalog:*", nil)
	if got, want := strings.TrimSpace(string(catalog.body)), `{"repositories":["team/good"]}`; got != want {
		t.Errorf("catalog = %s, want %s", got, want)
	}
}

func TestLoadRefusesStrangers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c := s.client(t)
	archive, err := os.ReadFile(archiveOf(t, map[string]string{"app:1": unique()}))
	if err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string]string{
		"nobody":            "",
		"wrong password":    basicAuth("admin", "wrong"),
		"unknown user":      basicAuth("nobody", adminPassword),
		"an invented token": "Bearer eyJhbGciOiJub25lIn0.e30.",
	} {
		r, err := c.raw(t.Context(), http.MethodPut, "/api/v1/archives/load?namespace=team", archive, "Authorization", header)
		if err != nil {
			t.Errorf("load by %s: %v", name, err)
			continue
		}
		if r.status != http.StatusUnauthorized {
			t.Errorf("load by %s = %d, want 401\n%s", name, r.status, r.body)
		}
	}
	if files := s.dataFiles(t); len(files) != 0 {
		t.Errorf("files after refused loads = %v, want none", files)
	}
}

// archiveOf writes dockerSave's archive into a file.
func archiveOf(t testing.TB, images map[string]string) string {
	t.Helper()
	archive, _, err := dockerSave(images)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// dockerSave makes an archive as docker save before 25 does, of one image per
// name; the value is what the image's only layer holds. It returns the image IDs
// by name too.
func dockerSave(images map[string]string) (archive []byte, ids map[string]string, err error) {
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []item
	files := map[string]string{}
	ids = map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(images)) {
		layer, err := packTar(map[string]string{"file": "content of " + images[name]})
		if err != nil {
			return nil, nil, err
		}
		config, err := json.Marshal(map[string]any{
			"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/file"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
		})
		if err != nil {
			return nil, nil, err
		}
		ids[name] = digestOf(config)
		it := item{Config: digestOf(config)[len("sha256:"):] + ".json", RepoTags: []string{name}, Layers: []string{fmt.Sprintf("%d/layer.tar", i)}}
		files[it.Config], files[it.Layers[0]] = string(config), string(layer)
		manifest = append(manifest, it)
	}
	list, err := json.Marshal(manifest)
	if err != nil {
		return nil, nil, err
	}
	files["manifest.json"] = string(list)
	archive, err = packTar(files)
	return archive, ids, err
}
