package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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
