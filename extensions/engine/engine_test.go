package engine

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		want name
		code tarport.Code
	}{
		{in: "app", want: name{repository: "team/app"}},
		{in: "app:1", want: name{repository: "team/app", tag: "1"}},
		{in: "a/b/c:1", want: name{repository: "team/a/b/c", tag: "1"}},
		{in: "team/app:1", want: name{repository: "team/app", tag: "1"}},
		{in: "library/app:1", want: name{repository: "team/app", tag: "1"}},
		{in: "docker.io/library/app:1", want: name{repository: "team/app", tag: "1"}},
		{in: "127.0.0.1:5000/team/app:1", want: name{repository: "team/app", tag: "1"}},
		{in: "localhost/app", want: name{repository: "team/app"}},
		{in: "app@sha256:" + hex64, want: name{repository: "team/app", digest: "sha256:" + hex64}},
		{in: "app:1@sha256:" + hex64, want: name{repository: "team/app", tag: "1", digest: "sha256:" + hex64}},
		{in: hex64, want: name{id: "sha256:" + hex64}},
		{in: "sha256:" + hex64, want: name{id: "sha256:" + hex64}},
		{in: "e3b0c44298fc", want: name{repository: "team/e3b0c44298fc", id: "sha256:e3b0c44298fc"}},
		{in: "sha256:e3b0c4", want: name{repository: "team/sha256", tag: "e3b0c4", id: "sha256:e3b0c4"}},
		{in: "", code: tarport.Invalid},
		{in: "App", code: tarport.Invalid},
		{in: "app:", code: tarport.Invalid},
		{in: "app@sha256:12", code: tarport.Invalid},
		{in: "../etc/passwd", code: tarport.Invalid},
		{in: "a//b", code: tarport.Invalid},
	} {
		got, err := parseName("team", c.in)
		if tarport.ErrorCode(err) != c.code {
			t.Errorf("parseName(%q): %v, want %q", c.in, err, c.code)
		}
		if c.want.raw = c.in; err == nil && got != c.want {
			t.Errorf("parseName(%q) = %+v, want %+v", c.in, got, c.want)
		}
	}
}

// TestListedNamesCanBeUsedAgain is what docker images is for.
func TestListedNamesCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ns, repository, want string }{
		{"team", "team/app", "app"},
		{"team", "team/a/b", "a/b"},
		{"team", "team/team/app", "team/team/app"},
		{"team", "team/a.b/c", "team/a.b/c"},             // a.b would be a host
		{"team", "team/localhost/c", "team/localhost/c"}, // so would localhost
		{"team", "team/library/c", "team/library/c"},
		{"team", "team/" + hex64, "team/" + hex64}, // an ID
		{"team", "team/e3b0c4", "e3b0c4"},          // a name counts more
		{"my.team", "my.team/app", "app"},
		{"my.team", "my.team/a.b/c", "my.team/a.b/c"},
		{"my.team", "my.team/library/c", "docker.io/my.team/library/c"},
		{"localhost", "localhost/app", "app"},
		{"library", "library/app", "app"},
	} {
		got := repositoryName(c.ns, c.repository)
		if got != c.want {
			t.Errorf("repositoryName(%q, %q) = %q, want %q", c.ns, c.repository, got, c.want)
		}
		if n, err := parseName(c.ns, got+":1"); err != nil || n.repository != c.repository || n.tag != "1" {
			t.Errorf("%s:1 in %s means %+v (%v), want %s", got, c.ns, n, err, c.repository)
		}
	}
}

func TestVersionsOfTheAPI(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want string
	}{
		{in: ""},
		{in: "/v1.24"},
		{in: "/v1.41"},
		{in: "/v1.51"},
		{in: "/v1.23", want: "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{in: "/v1.52", want: "client version 1.52 is too new. Maximum supported API version is 1.51"},
		{in: "/v2.0", want: "v2.0 is no version of the Engine API"},
		{in: "/v1.1.1", want: "v1.1.1 is no version of the Engine API"},
		{in: "/v1.99999999999999999999", want: "v1.99999999999999999999 is no version of the Engine API"},
	} {
		err := checkVersion(c.in)
		got := ""
		if err != nil {
			got = messageOf(err)
		}
		if got != c.want {
			t.Errorf("checkVersion(%q) says %q, want %q", c.in, got, c.want)
		}
	}
}

// messageOf is the message for the user.
func messageOf(err error) string {
	e, _ := err.(*tarport.Error) //nolint:errorlint // made here
	if e == nil {
		return err.Error()
	}
	return e.Message
}

func request(t *testing.T, version string, query url.Values) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?"+query.Encode(), nil)
	return mux.SetURLVars(r, map[string]string{"ns": "team", "version": version})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	h := &Handler{now: func() time.Time { return now }}
	images := []metadata.TaggedImage{
		{Repository: "team/app", Tag: "1", Created: now.Add(-time.Hour), Config: `{"labels":{"tier":"web","x":""}}`},
		{Repository: "team/app", Tag: "2", Created: now.Add(-2 * time.Hour), Config: `{"labels":{"tier":"db"}}`},
		{Repository: "team/web/front", Tag: "1", Created: now.Add(-3 * time.Hour), Config: `{}`},
		{Repository: "team/old", Tag: "latest"},
	}
	for _, c := range []struct {
		filters string
		want    []string
		bad     bool
	}{
		{filters: "", want: []string{"app:1", "app:2", "web/front:1", "old:latest"}},
		{filters: `{"reference":{"app":true}}`, want: []string{"app:1", "app:2"}},
		{filters: `{"reference":{"app:2":true}}`, want: []string{"app:2"}},
		{filters: `{"reference":{"team/app:1":true}}`, want: []string{"app:1"}},
		{filters: `{"reference":{"*":true}}`, want: []string{"app:1", "app:2", "old:latest"}},
		{filters: `{"reference":{"*/*":true}}`, want: []string{"app:1", "app:2", "web/front:1", "old:latest"}},
		{filters: `{"reference":{"web/*":true,"old":true,"app":false}}`, want: []string{"web/front:1", "old:latest"}},
		{filters: `{"reference":["app:*"]}`, want: []string{"app:1", "app:2"}},
		{filters: `{"label":{"tier":true}}`, want: []string{"app:1", "app:2"}},
		{filters: `{"label":{"tier=web":true}}`, want: []string{"app:1"}},
		{filters: `{"label":{"tier":true,"x":true}}`, want: []string{"app:1"}},
		{filters: `{"until":{"90m":true}}`, want: []string{"app:2", "web/front:1", "old:latest"}},
		{filters: `{"until":{"90m":true,"2.5h":true}}`, want: []string{"web/front:1", "old:latest"}},
		{filters: `{"until":{"2026-11-23T09:30:00":true}}`, want: []string{"web/front:1", "old:latest"}},
		{filters: `{"dangling":{"true":true}}`},
		{filters: `{"dangling":{"false":true}}`, want: []string{"app:1", "app:2", "web/front:1", "old:latest"}},
		{filters: `{"dangling":{"perhaps":true}}`, bad: true},
		{filters: `{"reference":{"[":true}}`, bad: true},
		{filters: `{"until":{"soon":true}}`, bad: true},
		{filters: `{"is-official":{"true":true}}`, bad: true},
		{filters: `{"label":3}`, bad: true},
		{filters: `nonsense`, bad: true},
	} {
		r := request(t, "", url.Values{"filters": {c.filters}})
		f, err := parseFilters(r)
		if err == nil {
			err = f.resolve(h, r)
		}
		if c.bad {
			if tarport.ErrorCode(err) != tarport.Invalid {
				t.Errorf("%s: %v, want it to be invalid", c.filters, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.filters, err)
			continue
		}
		var got []string
		for i, im := range images {
			if f.named("team", im.Repository, im.Tag) && f.keeps(&images[i]) {
				got = append(got, repositoryName("team", im.Repository)+":"+im.Tag)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.filters, diff)
		}
	}
}

func TestOldClientsFilterByOneName(t *testing.T) {
	t.Parallel()
	for version, want := range map[string][]string{"/v1.24": {"app"}, "/v1.41": nil} {
		f, err := parseFilters(request(t, version, url.Values{"filter": {"app"}}))
		if err != nil || !slices.Equal(f.reference, want) {
			t.Errorf("filter=app of %s = %v, %v, want %v", version, f, err, want)
		}
	}
}

func TestHistoryGivesEachStepItsLayer(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	none := time.Time{}.Unix()
	for _, c := range []struct {
		name  string
		steps []ocispec.History
		sizes []int64
		want  []historyItem
	}{
		{name: "nothing", want: []historyItem{}},
		{
			name:  "the last step first",
			steps: []ocispec.History{{CreatedBy: "ADD", Created: &at}, {CreatedBy: "ENV", EmptyLayer: true, Created: &at}, {CreatedBy: "RUN", Comment: "why"}},
			sizes: []int64{10, 20},
			want: []historyItem{
				{ID: "<missing>", CreatedBy: "RUN", Comment: "why", Size: 20, Created: none},
				{ID: "<missing>", CreatedBy: "ENV", Created: at.Unix()},
				{ID: "<missing>", CreatedBy: "ADD", Size: 10, Created: at.Unix()},
			},
		},
		{
			name: "layers without a history", sizes: []int64{1, 2},
			want: []historyItem{{ID: "<missing>", Size: 2, Created: none}, {ID: "<missing>", Size: 1, Created: none}},
		},
		{
			name: "more steps than layers", steps: []ocispec.History{{CreatedBy: "A", Created: &at}, {CreatedBy: "B", Created: &at}}, sizes: []int64{1},
			want: []historyItem{{ID: "<missing>", CreatedBy: "B", Created: at.Unix()}, {ID: "<missing>", CreatedBy: "A", Size: 1, Created: at.Unix()}},
		},
	} {
		if diff := cmp.Diff(c.want, newHistory(c.steps, c.sizes)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestOneImageStandsForAnIndex(t *testing.T) {
	t.Parallel()
	image := func(os, arch, variant, d string) metadata.TaggedImage {
		return metadata.TaggedImage{OS: os, Architecture: arch, Variant: variant, Digest: digest.Digest(d)}
	}
	index := &tagged{images: []metadata.TaggedImage{
		image("windows", "amd64", "", "w"), image("linux", "arm", "v6", "6"), image("linux", "arm", "v7", "7"), image("linux", "amd64", "", "a"),
	}}
	if got := index.chosen().Digest; got != "a" {
		t.Errorf("chosen = %s, want linux/amd64", got)
	}
	if got := (&tagged{images: index.images[:2]}).chosen().Digest; got != "w" {
		t.Errorf("chosen without linux/amd64 = %s, want the first", got)
	}
	for want, p := range map[digest.Digest]string{
		"7": `{"os":"linux","architecture":"arm","variant":"v7"}`, "6": `{"os":"linux","architecture":"arm"}`, "": `{"os":"linux","architecture":"s390x"}`,
	} {
		parsed, err := parsePlatform(p)
		if err != nil {
			t.Fatal(err)
		}
		got := index.platform(*parsed)
		if (got == nil) != (want == "") || got != nil && got.Digest != want {
			t.Errorf("platform %s = %v, want %q", p, got, want)
		}
	}
	for _, bad := range []string{"linux/amd64", `{"os":"linux"}`, `[]`} {
		if _, err := parsePlatform(bad); tarport.ErrorCode(err) != tarport.Invalid {
			t.Errorf("parsePlatform(%s): %v, want it to be invalid", bad, err)
		}
	}
}

// manyImages has a tag for each row.
type manyImages struct {
	n      int
	config string
}

func (m manyImages) TaggedImages(_ context.Context, q metadata.ImageQuery, each func(metadata.TaggedImage) error) error {
	for i := range m.n {
		im := metadata.TaggedImage{Repository: q.Namespace + "/app", Tag: strconv.Itoa(i), Config: m.config, Digest: digest.FromString(strconv.Itoa(i))}
		if err := each(im); err != nil {
			return err
		}
	}
	return nil
}

type everybody struct{}

func (everybody) Authorize(context.Context, tarport.Principal, tarport.Action, string) error {
	return nil
}

func TestAListIsBounded(t *testing.T) {
	t.Parallel()
	q := metadata.ImageQuery{Namespace: "team"}
	for _, c := range []struct {
		name string
		has  manyImages
		keep func(repository, tag string) bool
		want int
		code tarport.Code
	}{
		{name: "as many as can be", has: manyImages{n: maxImages}, want: maxImages},
		{name: "one more", has: manyImages{n: maxImages + 1}, want: maxImages, code: tarport.TooLarge},
		{
			name: "more, of which few are asked for", has: manyImages{n: 2 * maxImages},
			keep: func(_, tag string) bool { return tag == "5" || tag == "15000" }, want: 2,
		},
		{name: "large configs", has: manyImages{n: 3000, config: strings.Repeat("x", 16<<10)}, want: maxFacts >> 14, code: tarport.TooLarge},
	} {
		h := &Handler{o: Options{Images: c.has, Access: everybody{}}}
		list, err := h.images(t.Context(), q, c.keep)
		if tarport.ErrorCode(err) != c.code || len(list) != c.want {
			t.Errorf("%s: %d images, %v, want %d and %q", c.name, len(list), err, c.want, c.code)
		}
		im := &one{TaggedImage: &metadata.TaggedImage{Repository: "team/app", Tag: "1", ID: digest.FromString("x")}}
		if err := h.nameAll(t.Context(), "team", im); err != nil || len(im.repoTags) == 0 {
			t.Errorf("%s: an image with so many names has %d (%v)", c.name, len(im.repoTags), err)
		}
	}
}

// TestAClientThatReadsLateIsToldLittle, so that neither waits for the other.
func TestAClientThatReadsLateIsToldLittle(t *testing.T) {
	t.Parallel()
	for agent, want := range map[string]int{"Docker-Client/20.10.24 (linux)": 2000, "docker-sdk-python/7.1.0": maxUnread, "": maxUnread} {
		w := httptest.NewRecorder()
		r := request(t, "", nil)
		r.Header.Set("User-Agent", agent)
		err := stream(w, r, func(report func(Progress), out *httpapi.Lines) error {
			for i := range 2000 {
				report(Progress{ID: "layer", Status: "Loading layer", Current: int64(i + 1), Total: 2000})
			}
			out.Write(message{Stream: "Loaded image: app:1\n"})
			return nil
		})
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if err != nil || len(lines) != want+1 || lines[want] != `{"stream":"Loaded image: app:1\n"}` {
			t.Errorf("%q got %d lines, the last is %s (%v), want %d and the image", agent, len(lines), lines[len(lines)-1], err, want)
		}
	}
}
