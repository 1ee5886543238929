package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// savedBytes reads an archive whole, and checks what is true of every one: it
// is as long as it says, and a tar to its end, of the names that it should
// have, each once, in the same bytes again.
func (r *registry) savedBytes(tb testing.TB, q SaveRequest) []byte {
	tb.Helper()
	d, err := r.Save(tb.Context(), q)
	if err != nil {
		tb.Fatalf("Save(%v): %v", q.Images, err)
	}
	b := read(tb, d)
	if int64(len(b)) != d.Size {
		tb.Errorf("the archive of %v has %d bytes, want %d as it says", q.Images, len(b), d.Size)
	}
	again, err := r.Save(tb.Context(), q)
	if err != nil || again.ETag != d.ETag || again.Name != d.Name || !bytes.Equal(read(tb, again), b) {
		tb.Errorf("the archive of %v is another one the second time (%v)", q.Images, err)
	}
	entries(tb, b)
	return b
}

func read(tb testing.TB, d *Download) []byte {
	tb.Helper()
	c := d.Open(tb.Context())
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		tb.Fatalf("read the archive %s: %v", d.Name, err)
	}
	return b
}

// entries are the files of an archive. What lies under blobs/ is what its name
// says.
func entries(tb testing.TB, archive []byte) map[string][]byte {
	tb.Helper()
	out := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			tb.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			tb.Fatal(err)
		}
		if _, twice := out[h.Name]; twice {
			tb.Errorf("the archive has %s twice", h.Name)
		}
		if h.ModTime.Unix() != 0 || h.Uname+h.Gname != "" || h.Uid+h.Gid != 0 {
			tb.Errorf("%s has a time or an owner: %+v", h.Name, h)
		}
		out[h.Name] = b
		if p := strings.Split(h.Name, "/"); len(p) == 3 && p[2] != "" {
			want := digest.NewDigestFromEncoded(digest.Algorithm(p[1]), p[2])
			if got := want.Algorithm().FromBytes(b); got != want {
				tb.Errorf("%s holds %s", h.Name, got)
			}
		}
	}
}

func indexOf(tb testing.TB, files map[string][]byte) (index ocispec.Index) {
	tb.Helper()
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		tb.Fatal(err)
	}
	return index
}

func itemsOf(tb testing.TB, files map[string][]byte) (items []savedItem) {
	tb.Helper()
	if err := json.Unmarshal(files["manifest.json"], &items); err != nil {
		tb.Fatal(err)
	}
	return items
}

// names are what Save takes, of what Load has answered. Referrers come along.
func (r *Result) names() []string {
	var names []string
	for _, im := range r.Images {
		if !strings.Contains(im.Name, "@") {
			names = append(names, im.Name)
		}
	}
	return names
}

// TestSavedFixturesComeBack saves every fixture that was loaded and loads that
// into another registry: the same names have the same digests there, and image
// IDs, layers and referrers.
func TestSavedFixturesComeBack(t *testing.T) {
	t.Parallel()
	dir, list := fixtures(t)
	from, to := newRegistry(t), newRegistry(t)
	for i, f := range list {
		if f.refused() {
			continue
		}
		t.Run(f.File, func(t *testing.T) {
			t.Parallel()
			in := func(q *LoadRequest) {
				if q.Namespace = "team" + strconv.Itoa(i); f.nameless() {
					q.Repository = "fallback"
				}
			}
			loaded := from.mustLoad(t, f.read(t, dir), in)
			for _, format := range []string{formatDocker, formatOCI} {
				q := SaveRequest{Images: loaded.names(), Format: format}
				if format == formatDocker && f.File == "oci/oras-artifact-layout.tar" {
					if _, err := from.Save(t.Context(), q); tarport.ErrorCode(err) != tarport.Invalid {
						t.Errorf("Save of an artifact for docker = %v, want INVALID", err)
					}
					continue
				}
				back := to.mustLoad(t, from.savedBytes(t, q), func(q *LoadRequest) { q.Namespace = "team" + strconv.Itoa(i) })
				if diff := cmp.Diff(digests(loaded), digests(back)); diff != "" {
					t.Errorf("as %s (-loaded +saved and loaded):\n%s", format, diff)
				}
			}
		})
	}
}

// digests are what must be the same on both sides.
func digests(r *Result) map[string][]string {
	out := map[string][]string{}
	for _, im := range r.Images {
		var list []string
		for _, m := range append([]Manifest{im.Manifest}, im.Manifests...) {
			list = append(list, m.Digest.String()+" "+m.MediaType+" "+m.ImageID+" "+m.Platform)
			for _, l := range m.Layers {
				list = append(list, l.Digest.String()+" "+l.DiffID.String())
			}
		}
		slices.Sort(list)
		out[im.Name] = slices.Compact(list)
	}
	return out
}
