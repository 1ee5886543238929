package metadata

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/version"
)

// seedTags puts tags of some images into a/b, at different times and of
// different sizes, and pulls some of them.
func (db *testDB) seedTags(t *testing.T, names []string) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 8))
	arch := []string{"amd64", "arm64"}
	for i := range 12 {
		layer := strings.Repeat("x", 10*(i%5)) + fmt.Sprint(i)
		db.pushBlob(t, "a/b", layer, grace)
		p := db.put("a/b", image(fmt.Sprint("image ", i), layer))
		p.Image = &Image{OS: "linux", Architecture: arch[i%2], Config: fmt.Sprintf(`{"env":["N=%d"]}`, i)}
		if i%4 == 1 {
			p.Image.Variant = "v8"
		}
		db.mustPut(t, p)
	}
	db.mustPut(t, db.put("a/b", index("index", "image 2", "image 3", "absent")))
	db.sql(t, `UPDATE images SET base_id = 'alpine', base_version = '3.19.1', base_name = 'Alpine' WHERE architecture = 'arm64'`)
	db.sql(t, `UPDATE images SET base_id = 'debian', base_version = '12', base_name = 'bookworm', scan = 'ready' WHERE architecture = 'amd64'`)
	for i, name := range names {
		db.clock.advance(time.Duration(r.IntN(3)) * time.Second)
		target := fmt.Sprint("image ", r.IntN(12))
		if i%10 == 0 {
			target = "index"
		}
		check(t, "Tag", db.Tag(t.Context(), "a/b", name, digestOf(target), "ann", "push"))
		if r.IntN(2) == 0 {
			check(t, "CountPulls", db.CountPulls(t.Context(), []PullCount{{
				Repository: "a/b", Reference: tarport.Reference{Tag: name}, Pulls: 2, Robots: 1,
				Last: db.clock.now().Add(time.Duration(r.IntN(5)) * time.Minute),
			}}))
		}
	}
}

var listedNames = []string{
	"latest", "stable", "edge", "alpine", "bookworm-slim", "17", "17-jdk", "17-jdk-alpine", "17.0", "17.0.9", "17.0.9-alpine3.19", "17.0.10",
	"17.0.10-jdk-slim", "17-ea", "17.0.2_8", "8u392", "8", "11.0.1-rc1", "11.0.1", "20240115", "2024-02-01", "v1.2.3", "V1.10", "a_b", "axb",
	"1.0-Alpine3.18", "21", "21-ea-3", "21.0.1-windowsservercore-ltsc2022", "3f2a9c1", "A", "Z", "z",
}

func (db *testDB) listAll(t *testing.T, q TagQuery) []TagRow {
	t.Helper()
	list := []TagRow{}
	q.Repository = "a/b"
	for {
		check(t, "cursor", q.After.Check(q.Sort))
		p, err := db.ListTags(t.Context(), q)
		check(t, "ListTags", err)
		if len(p.Tags) > q.N {
			t.Fatalf("a page of %d has %d tags", q.N, len(p.Tags))
		}
		list = append(list, p.Tags...)
		if !p.More {
			return list
		}
		q.After = p.Next
	}
}

func namesOf(list []TagRow) []string {
	names := []string{}
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names
}

// compareTags is the order of a list, as Go has it.
func compareTags(sort TagSort) func(a, b TagRow) int {
	return func(a, b TagRow) int {
		byName := cmp.Compare(a.Name, b.Name)
		switch sort {
		case SortVersion:
			return cmp.Or(cmp.Compare(a.VersionKey, b.VersionKey), byName)
		case SortPushed:
			return cmp.Or(a.PushedAt.Compare(b.PushedAt), byName)
		case SortPulled:
			return cmp.Or(a.PulledAt.Compare(b.PulledAt), byName)
		case SortSize:
			return cmp.Or(cmp.Compare(a.Size, b.Size), byName)
		}
		return byName
	}
}

func TestTagsAreListedInEveryOrder(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.seedTags(t, listedNames)
		tags := db.listAll(t, TagQuery{Sort: SortName, N: 1000})
		if len(tags) != len(listedNames) {
			t.Fatalf("%d tags, want %d", len(tags), len(listedNames))
		}
		for _, sort := range []TagSort{SortName, SortVersion, SortPushed, SortPulled, SortSize} {
			for _, desc := range []bool{false, true} {
				want := slices.Clone(tags)
				slices.SortFunc(want, compareTags(sort))
				if desc {
					slices.Reverse(want)
				}
				if sort == SortPulled { // never pulled: behind, in the order of names
					pulled := slices.DeleteFunc(slices.Clone(want), func(t TagRow) bool { return t.PulledAt.IsZero() })
					want = append(pulled, slices.DeleteFunc(want, func(t TagRow) bool { return !t.PulledAt.IsZero() })...)
				}
				for _, n := range []int{1, 4, 7, len(tags), 1000} {
					got := db.listAll(t, TagQuery{Sort: sort, Descending: desc, N: n})
					if diff := gocmp.Diff(namesOf(want), namesOf(got)); diff != "" {
						t.Errorf("by %s, descending %v, in pages of %d (-want +got):\n%s", sort, desc, n, diff)
					}
				}
			}
		}
		versions := namesOf(db.listAll(t, TagQuery{Sort: SortVersion, N: 100}))
		for _, pair := range [][2]string{{"17.0.9", "17.0.10"}, {"17-ea", "17"}, {"8u392", "11.0.1"}, {"11.0.1-rc1", "11.0.1"}, {"stable", "8"}, {"21.0.1-windowsservercore-ltsc2022", "20240115"}} {
			if slices.Index(versions, pair[0]) >= slices.Index(versions, pair[1]) {
				t.Errorf("%s is not before %s: %v", pair[0], pair[1], versions)
			}
		}
	})
}

func TestTagsAreFiltered(t *testing.T) {
	t.Parallel()
	inRange := func(s string) *version.Range {
		r, err := version.ParseRange(s)
		check(t, "ParseRange", err)
		return &r
	}
	has := func(test func(TagPlatform) bool) func(TagRow) bool {
		return func(t TagRow) bool { return slices.ContainsFunc(t.Platforms, test) }
	}
	eachDB(t, func(t *testing.T, db *testDB) {
		db.seedTags(t, listedNames)
		all := db.listAll(t, TagQuery{Sort: SortName, N: 1000})
		for name, c := range map[string]struct {
			q    TagQuery
			want func(TagRow) bool
		}{
			"part of the name":        {TagQuery{Name: "ALP"}, func(t TagRow) bool { return strings.Contains(strings.ToLower(t.Name), "alp") }},
			"glob":                    {TagQuery{Name: "17*"}, func(t TagRow) bool { return strings.HasPrefix(t.Name, "17") }},
			"glob of one letter":      {TagQuery{Name: "?"}, func(t TagRow) bool { return len(t.Name) == 1 }},
			"underscore is a letter":  {TagQuery{Name: "a_b"}, func(t TagRow) bool { return t.Name == "a_b" }},
			"percent is none":         {TagQuery{Name: "%"}, func(TagRow) bool { return false }},
			"a variant":               {TagQuery{Variants: []string{"Alpine"}}, func(t TagRow) bool { return strings.Contains(strings.Join(t.Variants, " "), "alpine") }},
			"a variant with number":   {TagQuery{Variants: []string{"alpine3.19"}}, func(t TagRow) bool { return t.Name == "17.0.9-alpine3.19" }},
			"two variants":            {TagQuery{Variants: []string{"jdk", "slim"}}, func(t TagRow) bool { return t.Name == "17.0.10-jdk-slim" }},
			"a part of a variant":     {TagQuery{Variants: []string{"alp"}}, func(TagRow) bool { return false }},
			"a range":                 {TagQuery{Range: inRange("^17")}, func(t TagRow) bool { return strings.HasPrefix(t.Name, "17") && t.Name != "17-ea" }},
			"ranges":                  {TagQuery{Range: inRange("8 || >=21-ea <22")}, func(t TagRow) bool { return t.Version != "" && (t.Name[0] == '8' || t.Name[:2] == "21") }},
			"no range":                {TagQuery{Range: inRange(">5 <4")}, func(TagRow) bool { return false }},
			"a platform":              {TagQuery{Platform: "linux/arm64"}, has(func(p TagPlatform) bool { return p.Image.Architecture == "arm64" })},
			"with its variant":        {TagQuery{Platform: "linux/arm64/v8"}, has(func(p TagPlatform) bool { return p.Image.Architecture == "arm64" && p.Image.Variant == "v8" })},
			"an architecture":         {TagQuery{Platform: "AMD64"}, has(func(p TagPlatform) bool { return p.Image.Architecture == "amd64" })},
			"a platform nobody has":   {TagQuery{Platform: "linux/absent"}, func(TagRow) bool { return false }},
			"a base":                  {TagQuery{Base: "alpine"}, has(func(p TagPlatform) bool { return p.Image.Base.ID == "alpine" })},
			"a base's version":        {TagQuery{Base: "alpine:3.19"}, has(func(p TagPlatform) bool { return p.Image.Base.ID == "alpine" })},
			"a base's other version":  {TagQuery{Base: "alpine:3.1"}, func(TagRow) bool { return false }},
			"a base's name":           {TagQuery{Base: "debian:Bookworm"}, has(func(p TagPlatform) bool { return p.Image.Base.ID == "debian" })},
			"base and platform":       {TagQuery{Base: "debian", Platform: "linux/amd64"}, has(func(p TagPlatform) bool { return p.Image.Base.ID == "debian" })},
			"of two platforms one":    {TagQuery{Base: "debian", Platform: "linux/arm64"}, func(TagRow) bool { return false }},
			"everything of one thing": {TagQuery{Name: "17*", Variants: []string{"alpine"}, Range: inRange(">=17"), Platform: "linux"}, func(t TagRow) bool { return strings.HasPrefix(t.Name, "17") && strings.Contains(t.Name, "alpine") }},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(t TagRow) bool { return !c.want(t) })
			if matches := c.q.NameMatcher(); c.q.Platform == "" && c.q.Base == "" {
				for _, t2 := range all {
					if got := matches(t2.Name); got != c.want(t2) {
						t.Errorf("%s: NameMatcher of %s is %v", name, t2.Name, got)
					}
				}
			}
			for _, sort := range []TagSort{SortName, SortVersion, SortPulled} {
				slices.SortFunc(want, compareTags(sort))
				c.q.Sort, c.q.N = sort, 3
				got := db.listAll(t, c.q)
				if sort == SortPulled {
					slices.SortFunc(got, compareTags(sort))
				}
				if diff := gocmp.Diff(namesOf(want), namesOf(got)); diff != "" {
					t.Errorf("%s, by %s (-want +got):\n%s", name, sort, diff)
				}
			}
		}
	})
}

func TestATagIsListedWithAllThatIsKnown(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.pushBlob(t, "a/b", "layer", grace)
		one := image("one", "layer")
		one.ArtifactType = "application/vnd.oci.image.config.v1+json"
		p := db.put("a/b", one, "17.0.2-slim-bookworm", "17")
		p.Image = &Image{OS: "linux", Architecture: "arm64", Variant: "v8", OSVersion: "1", Created: time.UnixMicro(0).UTC(), Author: "Ann", Message: "two\nlines", Config: `{"env":["A=\u001f\u001e"]}`}
		db.mustPut(t, p)
		db.sql(t, `UPDATE images SET scan = 'ready', base_id = 'debian', base_version = '12', base_name = $1, libc = 'glibc', package_manager = 'dpkg', packages = 88, slim = TRUE`, "a\x1fb\x1ec")
		several := index("index", "one", "artifact", "absent", "inner", "plain artifact")
		several.References[4].Platform = ""
		artifact, plain := manifest("artifact"), manifest("plain artifact")
		artifact.Kind, plain.Kind = KindArtifact, KindArtifact
		inner := index("inner")
		db.mustPut(t, db.put("a/b", artifact, "artifact"), db.put("a/b", plain), db.put("a/b", inner), db.put("a/b", several, "index"))
		_, err := db.CreateImmutableRule(t.Context(), "a", ImmutableRule{Tag: "17*", ExceptTag: "17"})
		check(t, "CreateImmutableRule", err)
		_, err = db.CreateImmutableRule(t.Context(), "a", ImmutableRule{Repository: "other", Tag: "*"})
		check(t, "CreateImmutableRule", err)

		img := ImageRow{Image: *p.Image, Size: 5, Scan: ScanReady, Base: Base{ID: "debian", Version: "12", Name: "a b c", Libc: "glibc", PackageManager: "dpkg", Packages: 88, Slim: true}}
		now := db.clock.now().UTC()
		want := []TagRow{
			{
				Name: "17", Digest: one.Digest, MediaType: one.MediaType, ArtifactType: one.ArtifactType, Kind: KindImage, Size: 5, Version: "17",
				Aliases: []string{"17.0.2-slim-bookworm"}, Platforms: []TagPlatform{{Digest: one.Digest, Image: img}},
			},
			{
				Name: "17.0.2-slim-bookworm", Digest: one.Digest, MediaType: one.MediaType, ArtifactType: one.ArtifactType, Kind: KindImage, Size: 5, Version: "17.0.2",
				Variants: []string{"slim", "bookworm"}, Aliases: []string{"17"}, Immutable: true, Platforms: []TagPlatform{{Digest: one.Digest, Image: img}},
			},
			{Name: "artifact", Digest: artifact.Digest, MediaType: artifact.MediaType, Kind: KindArtifact, Platforms: []TagPlatform{}},
			{Name: "index", Digest: several.Digest, MediaType: several.MediaType, Kind: KindIndex, Size: 5, Platforms: []TagPlatform{
				{Platform: "linux/one", Digest: one.Digest, Image: img},
				{Platform: "linux/artifact", Digest: artifact.Digest, MediaType: artifact.MediaType},
				{Platform: "linux/absent", Digest: digestOf("absent"), Missing: true},
				{Platform: "linux/inner", Digest: inner.Digest, MediaType: inner.MediaType},
			}},
		}
		for i := range want {
			w := &want[i]
			w.CreatedAt, w.PushedAt, w.PushedBy, w.PushedVia = now, now, "alice", "push"
			if w.Variants == nil {
				w.Variants = []string{}
			}
			if w.Aliases == nil {
				w.Aliases = []string{}
			}
			parsed := version.Parse(w.Name)
			w.VersionKey = parsed.Key
		}
		got := db.listAll(t, TagQuery{Sort: SortName, N: 10})
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("ListTags (-want +got):\n%s", diff)
		}
	})
}

func TestWhatAListShowsIsBounded(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		config := `{"env":["` + strings.Repeat("x", 16<<10) + `"]}`
		var children []string
		for i := range MaxPlatforms + 5 {
			m := manifest(fmt.Sprint("child ", i))
			m.Kind = KindImage
			p := db.put("a/b", m)
			p.Image = &Image{Config: config}
			db.mustPut(t, p)
			children = append(children, fmt.Sprint("child ", i))
		}
		m := index("index", children...)
		m.MediaType = mediaTypeList
		tags := make([]string, MaxAliases+10)
		for i := range tags {
			tags[i] = fmt.Sprintf("t%03d", i)
		}
		db.mustPut(t, db.put("a/b", m, tags...))
		page, err := db.ListTags(t.Context(), TagQuery{Repository: "a/b", Sort: SortName, N: 1000})
		check(t, "ListTags", err)
		if !page.More || len(page.Tags) < 2 || len(page.Tags) > 10 {
			t.Errorf("a page of %d tags, more: %v", len(page.Tags), page.More)
		}
		one := page.Tags[0]
		if len(one.Platforms) != MaxPlatforms || !one.MorePlatforms || len(one.Aliases) != MaxAliases || !one.MoreAliases {
			t.Errorf("%d platforms, more: %v; %d aliases, more: %v", len(one.Platforms), one.MorePlatforms, len(one.Aliases), one.MoreAliases)
		}
		if got := namesOf(db.listAll(t, TagQuery{Sort: SortName, N: 1000})); !slices.Equal(got, tags) {
			t.Errorf("all pages: %v", got)
		}
	})
}

func TestTagsOfNoRepository(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.mustPut(t, db.put("a/b", manifest("m")))
		p, err := db.ListTags(t.Context(), TagQuery{Repository: "a/b", N: 10})
		if err != nil || p.More || p.Tags == nil || len(p.Tags) != 0 {
			t.Errorf("without tags: %+v, %v", p, err)
		}
		_, err = db.ListTags(t.Context(), TagQuery{Repository: "a/c", N: 10})
		wantCode(t, "ListTags of nothing", err, tarport.NameUnknown)
	})
}

func TestCursorsThatNoListGave(t *testing.T) {
	t.Parallel()
	for sort, bad := range map[TagSort][]TagCursor{
		SortName:    {{Name: "a b"}, {Key: "x", Name: "a"}},
		SortVersion: {{Name: ""}, {Key: "\x00", Name: "a"}, {Key: strings.Repeat("1", 2000), Name: "a"}},
		SortPushed:  {{Name: "a"}, {Key: "x", Name: "a"}, {Key: "99999999999999999999", Name: "a"}, {Key: "1", Name: ""}},
	} {
		for _, c := range bad {
			if c != (TagCursor{}) {
				wantCode(t, fmt.Sprintf("%s %q", sort, c), c.Check(sort), tarport.PaginationInvalid)
			}
		}
	}
}

func TestNamesOfAnOlderVersionAreReadAtTheStart(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		tags := make([]string, 2500)
		for i := range tags {
			tags[i] = fmt.Sprintf("1.%d-alpine3.19", i)
		}
		db.mustPut(t, db.put("a/b", manifest("m"), tags...))
		const sum = `SELECT COUNT(*) FROM tags WHERE version LIKE '1.%' AND version_key LIKE '1%' AND variants = 'alpine3.19' AND variant_words = ' alpine3.19 alpine '`
		db.sql(t, `UPDATE tags SET version = '', version_key = '', variants = '', variant_words = ''`)
		check(t, "readTagNames", db.readTagNames(t.Context()))
		if got := db.count(t, sum); got != int64(len(tags)) {
			t.Errorf("%d of %d names were read", got, len(tags))
		}
	})
}
