package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// savedArchive is an archive that a real tool wrote, and what is in it.
type savedArchive struct {
	File   string
	Images []struct {
		Names  []string
		Config string
	} `json:"docker_images"`
}

// TestDockerPullsWhatEveryVersionSaved loads what docker save wrote in versions
// that cannot run here beside each other, and what skopeo, podman and crane
// write as a docker-archive; docker pull then gets the image IDs of the archives.
func TestDockerPullsWhatEveryVersionSaved(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	const dir = "../../extensions/archive/testdata"
	b, err := os.ReadFile(filepath.Join(dir, "fixtures.json"))
	if err != nil {
		t.Fatal(err)
	}
	var archives []savedArchive
	if err := json.Unmarshal(b, &archives); err != nil {
		t.Fatal(err)
	}
	tools := []string{"docker20", "docker28", "docker29", "docker29-overlay2", "skopeo", "podman", "crane"}
	pulled := map[string]int{}
	for _, a := range archives {
		tool, _, _ := strings.Cut(a.File, "/")
		if !slices.Contains(tools, tool) {
			continue
		}
		want := map[string]string{}
		named := true
		for _, image := range a.Images {
			named = named && len(image.Names) > 0
			for _, name := range image.Names {
				want["team/"+withoutHost(name)] = image.Config
			}
		}
		if !named || len(want) == 0 {
			continue // an image without a name needs parameters
		}
		file := filepath.Join(dir, a.File)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			file += ".zst" // kept so to save space; the server unpacks it
		}
		mustLoad(t, s, file, "namespace=team")
		for name, id := range want {
			d.must(t, "pull", s.addr+"/"+name)
			if got := d.imageID(t, s.addr+"/"+name); got != id {
				t.Errorf("%s: image ID of %s = %s, want %s as in the archive", a.File, name, got, id)
			}
			d.forget(s.addr + "/" + name)
			pulled[tool]++
		}
	}
	for _, tool := range tools {
		if pulled[tool] == 0 {
			t.Errorf("no image of %s was pulled", tool)
		}
	}
	t.Logf("images pulled: %v", pulled)
}

// withoutHost drops what the registry drops of an image's name: the host, and
// Docker Hub's library/.
func withoutHost(name string) string {
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	return strings.TrimPrefix(name, "library/")
}
