package tags_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// members lets everybody pull from what does not begin with secret/, and those
// with a name do everything there.
type members struct{}

func (members) Authorize(_ context.Context, p tarport.Principal, a tarport.Action, on string) error {
	switch {
	case a == tarport.List && on == "":
		return nil
	case strings.HasPrefix(on, "secret/"):
		return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", on)
	case a != tarport.Pull && p.Name == "":
		return tarport.Errorf(tarport.Denied, "no")
	}
	return nil
}

func (members) SetHeaders(http.ResponseWriter, *http.Request, error, ...tarport.Grant) {}

// site is the API over a store.
type site struct {
	t     *testing.T
	db    *metadata.DB
	store *storage.Store
	api   http.Handler
}

// eachSite runs a test on SQLite and on PostgreSQL.
func eachSite(t *testing.T, test func(t *testing.T, s *site)) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		test(t, newSite(t, dsn))
	})
}

func newSite(t *testing.T, dsn string) *site {
	t.Helper()
	db := metadatatest.Open(t, metadata.Options{DSN: dsn})
	store, err := storage.New(storage.Options{DB: db, Root: t.TempDir()})
	check(t, "storage.New", err)
	s, err := tags.New(tags.Options{DB: db, Content: store, Auth: members{}})
	check(t, "tags.New", err)
	r := mux.NewRouter().SkipClean(true)
	tags.NewHandler(s).Routes(r.PathPrefix("/api/v1").Subrouter())
	return &site{t: t, db: db, store: store, api: r}
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// push puts an image with a layer of so many bytes; what else its config has
// makes it another.
func (s *site) push(repository string, config map[string]any, size int, names ...string) ocispec.Descriptor {
	s.t.Helper()
	b, err := s.store.NewBatch(s.t.Context())
	check(s.t, "NewBatch", err)
	defer func() { _ = b.Close() }()
	put := storage.ManifestPut{Repository: repository, MediaType: ocispec.MediaTypeImageManifest, Tags: names, By: "ann", Via: storage.ViaPush}
	blob := func(mediaType string, content []byte) ocispec.Descriptor {
		w, err := b.Create(s.t.Context())
		check(s.t, "Create", err)
		_, err = w.Write(content)
		check(s.t, "Write", err)
		desc, err := w.Finish()
		check(s.t, "Finish", err)
		desc.MediaType = mediaType
		put.Blobs = append(put.Blobs, storage.BlobLink{Descriptor: desc})
		return desc
	}
	encoded, err := json.Marshal(config)
	check(s.t, "encode the config", err)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: put.MediaType,
		Config: blob(ocispec.MediaTypeImageConfig, encoded),
		Layers: []ocispec.Descriptor{blob(ocispec.MediaTypeImageLayerGzip, bytes.Repeat([]byte{1}, size))},
	}
	put.Payload, err = json.Marshal(m)
	check(s.t, "encode the manifest", err)
	_, err = b.Commit(s.t.Context(), []storage.ManifestPut{put})
	check(s.t, "Commit", err)
	return ocispec.Descriptor{MediaType: put.MediaType, Digest: digest.FromBytes(put.Payload), Size: int64(len(put.Payload))}
}

// index puts an index; the platforms are of its entries.
func (s *site) index(repository string, entries []ocispec.Descriptor, platforms []string, names ...string) digest.Digest {
	s.t.Helper()
	for i, p := range platforms {
		f := strings.Split(p+"//", "/")
		entries[i].Platform = &ocispec.Platform{OS: f[0], Architecture: f[1], Variant: f[2]}
	}
	payload, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
	check(s.t, "encode the index", err)
	_, err = s.store.PutManifest(s.t.Context(), storage.ManifestPut{Repository: repository, MediaType: ocispec.MediaTypeImageIndex, Payload: payload, Tags: names, By: "ann", Via: storage.ViaPush}, "")
	check(s.t, "PutManifest", err)
	return digest.FromBytes(payload)
}

// get asks, and decodes the answer into v where it is 200.
func (s *site) get(path string, v any) *httptest.ResponseRecorder {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/api/v1/repositories/"+path, nil))
	if v != nil {
		if w.Code != http.StatusOK {
			s.t.Fatalf("GET %s = %d %s", path, w.Code, w.Body)
		}
		check(s.t, "decode the answer", json.Unmarshal(w.Body.Bytes(), v))
	}
	return w
}

// names follows a list to its end.
func (s *site) names(path string) []string {
	s.t.Helper()
	names := []string{}
	for path != "" {
		var page struct{ Items []tags.Tag }
		w := s.get(path, &page)
		for _, t := range page.Items {
			names = append(names, t.Name)
		}
		path = next(w)
	}
	return names
}

// next is the path of the next page; "" where there is none.
func next(w *httptest.ResponseRecorder) string {
	link, ok := strings.CutPrefix(w.Header().Get("Link"), "</api/v1/repositories/")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(link, `>; rel="next"`)
}

func TestATagIsShownWithItsPlatforms(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		arm := s.push("team/app", map[string]any{
			"os": "linux", "architecture": "arm64", "variant": "v8", "created": "1970-01-01T00:00:00Z", "comment": "it works", "author": "Ann",
			"config": map[string]any{"Env": []string{"A=1"}, "ExposedPorts": map[string]any{"80/tcp": nil}, "User": "app", "Labels": map[string]string{"a": "b"}},
		}, 100)
		amd := s.push("team/app", map[string]any{"os": "linux", "architecture": "amd64"}, 50, "v2.1.0-slim-bookworm", "2.1")
		missing := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 7}
		d := s.index("team/app", []ocispec.Descriptor{arm, amd, missing}, []string{"linux/arm64/v8", "linux/amd64", "windows/amd64"}, "all")
		_, err := s.db.CreateImmutableRule(t.Context(), "team", metadata.ImmutableRule{Tag: "v*"})
		check(t, "CreateImmutableRule", err)
		check(t, "CountPulls", s.db.CountPulls(t.Context(), []metadata.PullCount{{Repository: "team/app", Reference: tarport.Reference{Tag: "all"}, Pulls: 3, Robots: 2, Last: time0}}))

		var got struct{ Items []map[string]any }
		s.get("team/app/-/tags", &got)
		for _, item := range got.Items {
			if item["pushed_at"] == nil || item["created_at"] == nil {
				t.Errorf("%v has no times", item["name"])
			}
			delete(item, "pushed_at")
			delete(item, "created_at")
		}
		platform := func(size int, d digest.Digest, more string) string {
			return fmt.Sprintf(`"digest":%q,"size":%d,"volumes":[],"entrypoint":[],"cmd":[],"working_dir":"","base":null,%s}`, d, size, more)
		}
		const none = `"env":[],"exposed_ports":[],"user":"","labels":{},"author":"","message":"","created":null`
		amdText := `{"os":"linux","architecture":"amd64","variant":"",` + platform(50, amd.Digest, `"scan":"pending",`+none)
		want := fmt.Sprintf(`[
			{"name":"2.1","digest":%[1]q,"media_type":%[3]q,"kind":"image","size":50,"pushed_by":"ann","pushed_via":"push","pulled_at":null,"pulls":0,"robot_pulls":0,
				"aliases":["v2.1.0-slim-bookworm"],"immutable":false,"version":"2.1","variant":[],"platforms":[%[5]s]},
			{"name":"all","digest":%[2]q,"media_type":%[4]q,"kind":"index","size":150,"pushed_by":"ann","pushed_via":"push","pulled_at":"2026-01-02T03:04:05Z","pulls":3,"robot_pulls":2,
				"aliases":[],"immutable":false,"version":null,"variant":[],"platforms":[%[6]s,%[5]s,%[7]s]},
			{"name":"v2.1.0-slim-bookworm","digest":%[1]q,"media_type":%[3]q,"kind":"image","size":50,"pushed_by":"ann","pushed_via":"push","pulled_at":null,"pulls":0,"robot_pulls":0,
				"aliases":["2.1"],"immutable":true,"version":"2.1.0","variant":["slim","bookworm"],"platforms":[%[5]s]}]`,
			amd.Digest, d, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, amdText,
			`{"os":"linux","architecture":"arm64","variant":"v8",`+platform(100, arm.Digest, `"scan":"pending","env":["A=1"],"exposed_ports":["80/tcp"],"user":"app","labels":{"a":"b"},"author":"Ann","message":"it works","created":"1970-01-01T00:00:00Z"`),
			`{"os":"windows","architecture":"amd64","variant":"","missing":true,`+platform(0, missing.Digest, `"scan":"none",`+none))
		var wanted []map[string]any
		check(t, "decode", json.Unmarshal([]byte(want), &wanted))
		if diff := cmp.Diff(wanted, got.Items); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
		var page struct{ Items []tags.Tag }
		s.get("team/app/-/tags", &page)
		for _, item := range page.Items {
			var one tags.Tag
			s.get("team/app/-/tags/"+item.Name, &one)
			if diff := cmp.Diff(item, one); diff != "" {
				t.Errorf("one tag (-in the list +by itself):\n%s", diff)
			}
		}
	})
}

func TestListsAreSortedFilteredAndPaged(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		for i, names := range []string{"17.0.9-jdk-alpine3.19", "17.0.10-jdk-alpine3.19 17-jdk-alpine", "17.0.10-jdk 17 latest", "21-ea", "8u392"} {
			s.push("team/app", map[string]any{"os": "linux", "architecture": []string{"amd64", "arm64"}[i%2]}, 100-i, strings.Fields(names)...)
		}
		for query, want := range map[string]string{
			"":                              "17 17-jdk-alpine 17.0.10-jdk 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19 21-ea 8u392 latest",
			"?sort=-name&n=3":               "latest 8u392 21-ea 17.0.9-jdk-alpine3.19 17.0.10-jdk-alpine3.19 17.0.10-jdk 17-jdk-alpine 17",
			"?sort=version&n=2":             "latest 8u392 17 17-jdk-alpine 17.0.9-jdk-alpine3.19 17.0.10-jdk 17.0.10-jdk-alpine3.19 21-ea",
			"?sort=-version&n=1":            "21-ea 17.0.10-jdk-alpine3.19 17.0.10-jdk 17.0.9-jdk-alpine3.19 17-jdk-alpine 17 8u392 latest",
			"?sort=size&q=17*&n=2":          "17 17.0.10-jdk 17-jdk-alpine 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19",
			"?variant=alpine":               "17-jdk-alpine 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19",
			"?variant=jdk,alpine3.19":       "17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19",
			"?variant=jdk&variant=alpine":   "17-jdk-alpine 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19",
			"?version=%3E%3D17.0.10":        "17.0.10-jdk 17.0.10-jdk-alpine3.19",
			"?version=17.x+||+8&n=1":        "17 17-jdk-alpine 17.0.10-jdk 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19 8u392",
			"?platform=linux/aarch64":       "17-jdk-alpine 17.0.10-jdk-alpine3.19 21-ea",
			"?platform=amd64&version=>=8<9": "8u392",
			"?sort=pulled":                  "17 17-jdk-alpine 17.0.10-jdk 17.0.10-jdk-alpine3.19 17.0.9-jdk-alpine3.19 21-ea 8u392 latest",
			"?base=alpine":                  "",
		} {
			if query == "?platform=amd64&version=>=8<9" {
				query = "?platform=amd64&version=" + url.QueryEscape(">=8 <9")
			}
			if got := strings.Join(s.names("team/app/-/tags"+query), " "); got != want {
				t.Errorf("tags%s:\n got %s\nwant %s", query, got, want)
			}
		}
	})
}

func TestWhatIsNoQueryIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	s.push("team/app", map[string]any{}, 1, "1", "2")
	var page struct{ Items []tags.Tag }
	cursor := strings.SplitN(next(s.get("team/app/-/tags?sort=version&n=1", &page)), "last=", 2)[1]
	cursor, _, _ = strings.Cut(cursor, "&")
	for query, code := range map[string]string{
		"sort=age": "INVALID", "sort=--name": "INVALID", "q=a%20b": "INVALID", "q=%25": "INVALID", "platform=a/b/c/d": "INVALID", "platform=%00": "INVALID",
		"base=a/b": "INVALID", "variant=": "INVALID", "variant=a,b,c,d,e,f,g,h,i": "INVALID", "version=latest": "INVALID", "version=1||2||3||4||5": "INVALID",
		"version=" + strings.Repeat("1", 300): "INVALID",
		"n=0":                                 "PAGINATION_NUMBER_INVALID", "n=1001": "PAGINATION_NUMBER_INVALID", "last=x": "PAGINATION_NUMBER_INVALID", "last=%00": "PAGINATION_NUMBER_INVALID",
		"sort=name&last=" + cursor: "PAGINATION_NUMBER_INVALID", "sort=-version&last=" + cursor: "PAGINATION_NUMBER_INVALID",
	} {
		for _, list := range []string{"tags", "variants"} {
			if list == "variants" && strings.Contains(query, "sort=") {
				continue // it has one order
			}
			w := s.get("team/app/-/"+list+"?"+query, nil)
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"`+code+`"`) {
				t.Errorf("%s?%s = %d %s, want 400 %s", list, query, w.Code, w.Body, code)
			}
		}
	}
	for path, code := range map[string]string{
		"secret/app/-/tags": "NAME_UNKNOWN", "secret/app/-/variants": "NAME_UNKNOWN", "team/none/-/tags": "NAME_UNKNOWN", "team/none/-/variants": "NAME_UNKNOWN",
		"Team/app/-/tags": "NAME_INVALID",
	} {
		if w := s.get(path, nil); !strings.Contains(w.Body.String(), `"`+code+`"`) {
			t.Errorf("%s = %d %s, want %s", path, w.Code, w.Body, code)
		}
	}
}
