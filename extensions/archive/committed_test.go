package archive

import (
	"archive/tar"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/storage/layer"
)

// expectation is what docker commit made of a container, and what its export
// must become.
type expectation struct {
	Tree    map[string]expectedEntry `json:"tree_after"`
	Groups  [][]string               `json:"hardlink_groups_after"`
	Base    string                   `json:"base"`
	Config  map[string]any           `json:"config_after"`
	History map[string]any           `json:"history_last"`
	Author  string                   `json:"author"`
	Empty   bool                     `json:"empty_delta"`
}

type expectedEntry struct {
	Type   string            `json:"type"`
	Mode   string            `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	MTime  int64             `json:"mtime"` // not of directories
	Size   int64             `json:"size"`
	SHA256 string            `json:"sha256"`
	Link   string            `json:"link"`
	Dev    []int64           `json:"dev"`
	Xattrs map[string][]byte `json:"xattrs_base64"`
}

// expected is a tree in the form of an expectation.
func expected(t *layer.Tree) (map[string]expectedEntry, [][]string) {
	kinds := map[byte]string{
		tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
	}
	out, files := map[string]expectedEntry{}, map[int][]string{}
	for n := range t.Walk() {
		if n.Path == "." {
			continue
		}
		e := n.Entry
		x := expectedEntry{Type: kinds[e.Type], Mode: fmt.Sprintf("0o%o", e.Mode), UID: e.UID, GID: e.GID, MTime: e.ModTime, Size: e.Size, Link: e.Linkname}
		switch e.Type {
		case tar.TypeReg:
			x.SHA256 = hex.EncodeToString(e.SHA256[:])
		case tar.TypeDir:
			x.MTime = 0
		case tar.TypeChar, tar.TypeBlock:
			x.Dev = []int64{e.Major, e.Minor}
		}
		if e.Capability != nil {
			x.Xattrs = map[string][]byte{"security.capability": e.Capability}
		}
		out[printable(n.Path)] = x
		files[n.File] = append(files[n.File], n.Path)
	}
	groups := slices.DeleteFunc(slices.Collect(maps.Values(files)), func(names []string) bool { return len(names) == 1 })
	slices.SortFunc(groups, slices.Compare)
	return out, groups
}

// printable writes the bytes of a name that are no UTF-8 as JSON can have them.
func printable(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r == utf8.RuneError {
			fmt.Fprintf(&b, `\x%02x`, name[i])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ofImages leaves out of a config what docker writes of a container, and what is
// empty: engine 29 writes neither.
func ofImages(config map[string]any) map[string]any {
	for k, v := range config {
		m, isMap := v.(map[string]any)
		switch {
		case slices.Contains([]string{"AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "OpenStdin", "StdinOnce", "Tty"}, k),
			v == nil, v == "", isMap && len(m) == 0:
			delete(config, k)
		}
	}
	return config
}

// TestCommitMakesWhatDockerCommits has the exports of containers with the images
// that docker (20.10 and 29) committed of the same containers.
func TestCommitMakesWhatDockerCommits(t *testing.T) {
	t.Parallel()
	bases := map[string]string{"docker29": "docker29.base", "": "base-acme_tiny_1.0"}
	sleep := `CMD ["sleep","1000"]` // of docker run
	for name, changes := range map[string][]string{
		"simple": {sleep}, "nochange": {sleep},
		"exotic": {
			"ENV NEW=1 APP_HOME=/changed", `CMD ["/bin/ls","-l"]`, "EXPOSE 9090", `LABEL stage=committed who="d two"`, "USER 1000",
			"WORKDIR sub/dir", "VOLUME /more",
		},
		"docker29":    {"STOPSIGNAL SIGINT", "CMD"},
		"with-mounts": {"VOLUME /var/log/app", "CMD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want expectation
			if err := json.Unmarshal(readFile(t, "testdata", "commit/"+name+".expect.json"), &want); err != nil {
				t.Fatal(err)
			}
			if last := len(changes) - 1; changes[last] == "CMD" { // the command of docker run, as that of the history
				command, err := json.Marshal(want.Config["Cmd"])
				if err != nil {
					t.Fatal(err)
				}
				changes = append(changes[:last:last], "CMD "+string(command))
			}
			base := bases[name]
			if base == "" {
				base = bases[""]
			}
			reg := newRegistry(t)
			loaded := reg.mustLoad(t, fixture{Stored: "commit/" + base + ".tar.zst"}.read(t, "testdata")).Images[0]
			createdBy, _ := want.History["created_by"].(string)
			comment, _ := want.History["comment"].(string)
			im := reg.mustCommit(t, fixture{Stored: "commit/" + name + ".export.tar.zst"}.read(t, "testdata"), func(q *CommitRequest) {
				q.Base, q.Message, q.Author, q.CreatedBy, q.Changes = loaded.Name, comment, want.Author, createdBy, changes
			})
			reg.pull(t, "team/app", tagRef("2"), im.Manifest)
			wantCommitted(t, reg, want, loaded, im)
		})
	}
}

func wantCommitted(t *testing.T, reg *registry, want expectation, base, im Image) {
	t.Helper()
	tree, groups := expected(reg.treeOf(t, im.Manifest))
	if diff := cmp.Diff(want.Tree, tree); diff != "" {
		t.Errorf("the file system (-docker's +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Groups, groups); diff != "" {
		t.Errorf("hard links (-docker's +got):\n%s", diff)
	}
	layers := len(base.Layers)
	if !want.Empty {
		layers++
	}
	if len(im.Layers) != layers || im.MediaType != base.MediaType {
		t.Errorf("%d layers in %s, want %d in %s", len(im.Layers), im.MediaType, layers, base.MediaType)
	}
	for i, l := range base.Layers {
		if got := im.Layers[i]; got.Digest != l.Digest || got.DiffID != l.DiffID || got.Status != "exists" {
			t.Errorf("layer %d = %+v, want the base's %+v", i, got, l)
		}
	}
	config := decoded(t, reg.config(t, "team/app", im))
	if diff := cmp.Diff(ofImages(want.Config), ofImages(config["config"].(map[string]any))); diff != "" {
		t.Errorf("config (-docker's +got):\n%s", diff)
	}
	history := config["history"].([]any)
	last := history[len(history)-1].(map[string]any)
	want.History["created"] = config["created"]
	if diff := cmp.Diff(want.History, last); diff != "" {
		t.Errorf("the last of the history (-docker's +got):\n%s", diff)
	}
	if author, _ := config["author"].(string); author != want.Author {
		t.Errorf("author = %q, want %q", author, want.Author)
	}
	before := decoded(t, reg.config(t, "team/acme/tiny", base))
	if diff := cmp.Diff(before["history"], any(history[:len(history)-1])); diff != "" {
		t.Errorf("the history before (-base +got):\n%s", diff)
	}
	for _, k := range []string{"architecture", "os"} {
		if config[k] != before[k] {
			t.Errorf("%s = %v, want the base's %v", k, config[k], before[k])
		}
	}
}
