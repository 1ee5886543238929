package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// pullsOnlyFrom lets push anywhere and pull from some repositories.
func pullsOnlyFrom(repositories ...string) func(*Options) {
	return func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			if a == tarport.Pull && !slices.Contains(repositories, repository) {
				return tarport.Errorf(tarport.NameUnknown, "no")
			}
			return nil
		})
	}
}

func partial(q *LoadRequest) { q.Partial = true }

// without is the archive without a layer's file.
func (d *dockerFile) without(layer []byte) *dockerFile {
	for name, b := range d.files {
		if bytes.Equal(b, layer) {
			delete(d.files, name)
			d.order = slices.DeleteFunc(d.order, func(n string) bool { return n == name })
		}
	}
	return d
}

func TestALayerThatTheRegistryHasNeedNotBeSent(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"gzip", "zstd", "none"} {
		reg := newRegistry(t, pullsOnlyFrom("team/base"))
		base, own := layerOf("the base"), layerOf("on top")
		reg.mustLoad(t, docker("base:1", base).pack(), func(q *LoadRequest) { q.Compression = "gzip" })
		reg.mustLoad(t, docker("base:1", base).pack(), func(q *LoadRequest) { q.Compression = "zstd" })
		body := docker("app:1", base, own).without(base).pack()
		before := reg.state(t)
		if _, err := reg.load(t, body); tarport.ErrorCode(err) != tarport.ArchiveInvalid {
			t.Errorf("the same archive without partial: %v", err)
		}
		if diff := cmp.Diff(before, reg.state(t)); diff != "" {
			t.Errorf("it left something (-before +after):\n%s", diff)
		}
		im := imageNamed(t, reg.mustLoad(t, body, partial, func(q *LoadRequest) { q.Compression = c }), "team/app:1")
		if im.Layers[0].Status != "exists" || im.Layers[0].DiffID != sum(base) || im.Layers[1].Status != "stored" {
			t.Errorf("%s: layers = %+v", c, im.Layers)
		}
		reg.pull(t, "team/app", tagRef("1"), im.Manifest)
	}
}

// What is lent to another namespace counts there as if it had been sent.
func TestALayerThatIsLentCountsForTheQuota(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	base := layerOf("the base")
	reg.mustLoad(t, docker("base:1", base).pack())
	used := func(namespace string) (n int64) {
		if err := reg.sql.QueryRowContext(t.Context(), `SELECT used_bytes FROM namespaces WHERE name = ?`, namespace).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	reg.mustLoad(t, docker("base:1", base).without(base).pack(), partial, func(q *LoadRequest) { q.Namespace = "other" })
	if used("other") != used("team") {
		t.Errorf("other uses %d bytes, team %d for the same image", used("other"), used("team"))
	}
	if _, err := reg.sql.ExecContext(t.Context(), `INSERT INTO namespaces (name, created_at, quota_bytes) VALUES ('small', 1, 10)`); err != nil {
		t.Fatal(err)
	}
	_, err := reg.load(t, docker("base:1", base).without(base).pack(), partial, func(q *LoadRequest) { q.Namespace = "small" })
	if tarport.ErrorCode(err) != tarport.Denied {
		t.Errorf("Load into a namespace without room: %v", err)
	}
}

func TestToKnowADiffIDIsNotToHaveTheLayer(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, pullsOnlyFrom("team/app"))
	hidden, own := layerOf("a secret"), layerOf("on top")
	blob := imageNamed(t, reg.mustLoad(t, docker("hidden:1", hidden).pack()), "team/hidden:1").Layers[0].Digest
	before := reg.state(t)
	_, err := reg.load(t, docker("app:1", hidden, own).without(hidden).pack(), partial)
	wantMissing(t, err, "diff_ids", sum(hidden))
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("the refused archive left something (-before +after):\n%s", diff)
	}
	got, err := reg.Missing(t.Context(), "team", Layers{DiffIDs: []digest.Digest{sum(hidden), sum(hidden)}, Digests: []digest.Digest{blob, sum(hidden)}}, 0)
	want := Layers{DiffIDs: []digest.Digest{sum(hidden)}, Digests: []digest.Digest{blob, sum(hidden)}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Missing (-want +got):\n%s%v", diff, err)
	}
}

func wantMissing(t *testing.T, err error, kind string, d digest.Digest) {
	t.Helper()
	var b []byte
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		b, _ = json.Marshal(e.Detail)
	}
	if tarport.ErrorCode(err) != tarport.Conflict || !strings.Contains(string(b), `"`+kind+`":["`+d.String()+`"]`) {
		t.Errorf("Load = %v, detail %s, want a conflict that names %s in %s", err, b, d, kind)
	}
}

func TestAManifestWhoseLayersAreLentKeepsItsBytes(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, pullsOnlyFrom("team/base"))
	base, own, secret := layerOf("the base"), layerOf("on top"), layerOf("a secret")
	l := newLayout()
	reg.mustLoad(t, l.root(l.image("amd64", base), "base:1").pack())
	l = newLayout()
	reg.mustLoad(t, l.root(l.image("amd64", secret), "hidden:1").pack())

	l = newLayout()
	want := l.image("amd64", base, own)
	body := l.root(want, "app:1").drop(sum(gz(base))).pack()
	if _, err := reg.load(t, body); tarport.ErrorCode(err) != tarport.ArchiveInvalid {
		t.Errorf("the same archive without partial: %v", err)
	}
	im := imageNamed(t, reg.mustLoad(t, body, partial), "team/app:1")
	if im.Digest != want.Digest || im.Layers[0].Status != "exists" {
		t.Errorf("loaded %+v, want %s", im, want.Digest)
	}
	reg.pull(t, "team/app", tagRef("1"), im.Manifest)

	before := reg.state(t)
	l = newLayout()
	_, err := reg.load(t, l.root(l.image("amd64", secret, own), "app:2").drop(sum(gz(secret))).pack(), partial)
	wantMissing(t, err, "digests", sum(gz(secret)))
	l = newLayout()
	other := l.blob("application/vnd.oci.image.layer.v1.tar+gzip", gz(base))
	config := l.blob("application/vnd.oci.image.config.v1+json", configOf("amd64", own))
	_, err = reg.load(t, l.root(l.manifest(config, other), "app:3").drop(other.Digest).pack(), partial)
	if tarport.ErrorCode(err) != tarport.ArchiveInvalid {
		t.Errorf("a layer that is known to be another one: %v", err)
	}
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("the refused archives left something (-before +after):\n%s", diff)
	}
}

func TestALayerThatIsDamagedOrGoneIsToBeSent(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	base := layerOf("the base")
	blob := imageNamed(t, reg.mustLoad(t, docker("base:1", base).pack()), "team/base:1").Layers[0].Digest
	file := filepath.Join(reg.root, "docker/registry/v2/blobs/sha256", blob.Encoded()[:2], blob.Encoded(), "data")
	if err := os.Truncate(file, 3); err != nil {
		t.Fatal(err)
	}
	asked := Layers{DiffIDs: []digest.Digest{sum(base)}, Digests: []digest.Digest{blob}}
	got, err := reg.Missing(t.Context(), "team", asked, 0)
	if diff := cmp.Diff(asked, got); diff != "" || err != nil {
		t.Errorf("Missing (-want +got):\n%s%v", diff, err)
	}
	_, err = reg.load(t, docker("app:1", base).without(base).pack(), partial)
	wantMissing(t, err, "diff_ids", sum(base))
	reg.mustLoad(t, docker("app:1", base).pack(), partial) // heals it
	if got, err = reg.Missing(t.Context(), "team", asked, 0); err != nil || len(got.DiffIDs)+len(got.Digests) != 0 {
		t.Errorf("Missing = %v, %v, want nothing", got, err)
	}
}

// A blob that goes between the reading of the archive and its commit.
func TestALayerThatGoesBeforeTheCommitIsToBeSent(t *testing.T) {
	t.Parallel()
	var reg *registry
	var blob digest.Digest
	reg = newRegistry(t, func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			if a == tarport.Push && repository == "team/app" { // asked when all is resolved
				_, err := reg.sql.ExecContext(t.Context(), `UPDATE blobs SET state = 'going' WHERE digest = ?`, blob.String())
				return err
			}
			return nil
		})
	})
	base, own := layerOf("the base"), layerOf("on top")
	blob = imageNamed(t, reg.mustLoad(t, docker("base:1", base).pack()), "team/base:1").Layers[0].Digest
	before := reg.state(t)
	_, err := reg.load(t, docker("app:1", base, own).without(base).pack(), partial)
	if tarport.ErrorCode(err) != tarport.Conflict || !strings.Contains(err.Error(), blob.String()) {
		t.Errorf("Load = %v, want a conflict about %s", err, blob)
	}
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("the refused archive left something (-before +after):\n%s", diff)
	}
}

func TestHTTPMissing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	base := layerOf("the base")
	reg.mustLoad(t, docker("base:1", base).pack())
	target := strings.Replace(serve(t, reg.Service), "/load", "/missing", 1)
	other := sum([]byte("other"))
	many := `"` + strings.Repeat(other.String()+`","`, maxAsked) + other.String() + `"`
	for _, tt := range []struct {
		query, body string
		status      int
		want        string
	}{
		{
			"?namespace=team", fmt.Sprintf(`{"diff_ids":[%q,%q],"digests":[%q]}`, sum(base), other, other), 200,
			fmt.Sprintf(`{"diff_ids":[%q],"digests":[%q]}`, other, other),
		},
		{"?namespace=team", `{}`, 200, `{"diff_ids":[],"digests":[]}`},
		{"?namespace=team", `{"diff_ids":["sha256:x"]}`, 400, "DIGEST_INVALID"},
		{"?namespace=team", `{"layers":[]}`, 400, "INVALID"},
		{"?namespace=team", `{"diff_ids":[` + many + `]}`, 413, "TOO_LARGE"},
		{"?namespace=team", `{"diff_ids":[` + many + `,` + many + `,` + many + `]}`, 413, "TOO_LARGE"},
		{"", `{}`, 400, "INVALID"},
		{"?namespace=UP", `{}`, 400, "NAME_INVALID"},
	} {
		status, answer := call(t, http.MethodPost, target+tt.query, strings.NewReader(tt.body))
		if status != tt.status || !strings.Contains(answer, tt.want) {
			t.Errorf("missing%s %.80s = %d %s, want %d %s", tt.query, tt.body, status, answer, tt.status, tt.want)
		}
	}
	status, answer := call(t, http.MethodPost, serve(t, reg.Service)+"?namespace=team&partial=maybe", nil)
	if status != 400 {
		t.Errorf("partial=maybe: %d %s", status, answer)
	}
}
