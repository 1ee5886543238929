package tags_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport/extensions/tags"
)

var time0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// table is a matrix in short: a line for each cell.
func table(m tags.Matrix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q\n", m.Versions, m.Variants)
	for _, c := range m.Cells {
		v := "-"
		if c.Version != nil {
			v = *c.Version
		}
		fmt.Fprintf(&b, "%s %q: %s\n", v, c.Variant, strings.Join(c.Tags, " "))
	}
	for name, p := range map[string]*tags.Pick{"newest": m.Recommend.Newest, "smallest": m.Recommend.Smallest, "latest": m.Recommend.Latest} {
		if p != nil && (len(p.Tags) == 0 || p.Digest == "") {
			fmt.Fprintf(&b, "%s is empty", name)
		}
	}
	return b.String()
}

func pick(p *tags.Pick) string {
	if p == nil {
		return "-"
	}
	v := "-"
	if p.Version != nil {
		v = *p.Version
	}
	return p.Tag + " " + v
}

// pushAll pushes an image for each line, with its tags.
func (s *site) pushAll(repository, lines string) {
	s.t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		f := strings.Fields(line)
		var size int
		_, err := fmt.Sscan(f[0], &size)
		check(s.t, "size", err)
		s.push(repository, map[string]any{"os": "linux", "architecture": "amd64", "author": fmt.Sprint(i)}, size, f[1:]...)
	}
}

const openjdk = `
	300 17.0.2-jdk-bullseye 17.0.2-jdk 17.0.2 17-jdk-bullseye 17-jdk 17 latest
	200 17.0.2-jdk-slim-bullseye 17.0.2-jdk-slim 17.0.2-slim 17-slim
	150 17.0.2-jdk-alpine3.15 17.0.2-jdk-alpine 17-alpine
	290 17.0.1-jdk-bullseye 17.0.1-jdk 17.0.1
	190 17.0.1-jdk-slim 17.0.1-slim
	310 18-ea-11-jdk 18-ea-jdk 18-ea
	280 11.0.13 11
	 90 bullseye-slim
	 80 edge
	 70 nightly-build
`

func TestTheMatrixOfVersionsAndVariants(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		s.pushAll("team/openjdk", openjdk)
		var m tags.Matrix
		s.get("team/openjdk/-/variants", &m)
		want := `["18-ea.11" "17.0.2" "17.0.1" "11.0.13"] ["" "alpine" "bullseye-slim" "slim"]
18-ea.11 "": 18-ea 18-ea-jdk 18-ea-11-jdk
17.0.2 "": latest 17 17-jdk 17-jdk-bullseye 17.0.2 17.0.2-jdk 17.0.2-jdk-bullseye
17.0.2 "alpine": 17-alpine 17.0.2-jdk-alpine 17.0.2-jdk-alpine3.15
17.0.2 "slim": 17-slim 17.0.2-jdk-slim 17.0.2-jdk-slim-bullseye 17.0.2-slim
17.0.1 "": 17.0.1 17.0.1-jdk 17.0.1-jdk-bullseye
17.0.1 "slim": 17.0.1-jdk-slim 17.0.1-slim
11.0.13 "": 11 11.0.13
- "": edge
- "": nightly-build
- "bullseye-slim": bullseye-slim
`
		got := table(m)
		// Of two without a version the digest decides.
		got = strings.Replace(got, "- \"\": nightly-build\n- \"\": edge\n", "- \"\": edge\n- \"\": nightly-build\n", 1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("matrix (-want +got):\n%s", diff)
		}
		r := m.Recommend
		if got := [3]string{pick(r.Newest), pick(r.Smallest), pick(r.Latest)}; got != [3]string{"17.0.2 17.0.2", "17.0.2-jdk-alpine 17.0.2", "17.0.2 17.0.2"} {
			t.Errorf("recommended: %q", got)
		}
		c := m.Cells[2]
		if c.Size != 150 || c.Kind != "image" || len(c.Platforms) != 1 || c.Platforms[0].Architecture != "amd64" || c.Platforms[0].Size != 150 || c.PushedAt.IsZero() {
			t.Errorf("a cell: %+v", c)
		}
	})
}

func TestTheMatrixComesInPagesOfVersions(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		s.pushAll("team/openjdk", openjdk)
		var versions, cells []string
		path, pages := "team/openjdk/-/variants?n=2", 0
		for ; path != ""; pages++ {
			var m tags.Matrix
			w := s.get(path, &m)
			if len(m.Versions) > 2 || m.Recommend.Newest == nil {
				t.Errorf("page %d: %d versions, newest %v", pages, len(m.Versions), m.Recommend.Newest)
			}
			versions = append(versions, m.Versions...)
			for _, c := range m.Cells {
				cells = append(cells, string(c.Digest))
			}
			path = next(w)
		}
		if diff := cmp.Diff([]string{"18-ea.11", "17.0.2", "17.0.1", "11.0.13"}, versions); diff != "" || pages != 2 || len(cells) != 10 {
			t.Errorf("%d pages with %d cells; versions (-want +got):\n%s", pages, len(cells), diff)
		}
	})
}

func TestTheMatrixIsFiltered(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	s.pushAll("team/openjdk", openjdk)
	for query, want := range map[string][4]string{
		"variant=slim":          {"17.0.2 17.0.1", "17.0.2-slim 17.0.2", "17.0.2-slim 17.0.2", "17.0.2 17.0.2"},
		"version=^11":           {"11.0.13", "11.0.13 11.0.13", "11.0.13 11.0.13", "17.0.2 17.0.2"},
		"version=18-ea":         {"18-ea.11", "18-ea-11-jdk 18-ea.11", "18-ea-11-jdk 18-ea.11", "17.0.2 17.0.2"},
		"version=>=18-ea":       {"18-ea.11", "18-ea-11-jdk 18-ea.11", "18-ea-11-jdk 18-ea.11", "17.0.2 17.0.2"},
		"q=*alpine*":            {"17.0.2", "17.0.2-jdk-alpine 17.0.2", "17.0.2-jdk-alpine 17.0.2", "17.0.2 17.0.2"},
		"platform=linux/s390x":  {"", "-", "-", "17.0.2 17.0.2"},
		"platform=linux/x86_64": {"18-ea.11 17.0.2 17.0.1 11.0.13", "17.0.2 17.0.2", "17.0.2-jdk-alpine 17.0.2", "17.0.2 17.0.2"},
	} {
		var m tags.Matrix
		s.get("team/openjdk/-/variants?"+query, &m)
		r := m.Recommend
		if got := [4]string{strings.Join(m.Versions, " "), pick(r.Newest), pick(r.Smallest), pick(r.Latest)}; got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestWhatIsRecommended(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	for repository, c := range map[string]struct{ lines, newest, smallest, latest string }{
		"a/dates":       {"9 jammy-20240111\n8 22.04 jammy\n7 24.04 noble latest\n6 noble-20240201", "24.04 24.04", "24.04 24.04", "24.04 24.04"},
		"a/only-dates":  {"9 20240111\n8 2024.02.01 stable", "2024.02.01 2024.02.01", "2024.02.01 2024.02.01", "-"},
		"a/pre":         {"9 1.0.0-rc1\n8 0.9", "0.9 0.9", "0.9 0.9", "-"},
		"a/only-pre":    {"9 1.0.0-rc1", "-", "-", "-"},
		"a/nothing":     {"9 main\n8 latest dev", "-", "-", "dev -"},
		"a/floating":    {"9 2 2.1 2.1.3 latest", "2.1.3 2.1.3", "2.1.3 2.1.3", "2.1.3 2.1.3"},
		"a/builds":      {"9 17.0.2_7\n8 17.0.2_8\n7 17.0.2_10-alpine", "17.0.2_10-alpine 17.0.2+10", "17.0.2_10-alpine 17.0.2+10", "-"},
		"a/odd-latest":  {"9 3.0.0\n8 2.0.0 latest", "3.0.0 3.0.0", "3.0.0 3.0.0", "2.0.0 2.0.0"},
		"a/one-variant": {"9 1.0-alpine\n7 1.0-slim-x", "1.0-alpine 1.0", "1.0-slim-x 1.0", "-"},
	} {
		s.pushAll(repository, c.lines)
		var m tags.Matrix
		s.get(repository+"/-/variants", &m)
		if got := [3]string{pick(m.Recommend.Newest), pick(m.Recommend.Smallest), pick(m.Recommend.Latest)}; got != [3]string{c.newest, c.smallest, c.latest} {
			t.Errorf("%s: %q", repository, got)
		}
	}
}

func TestTheSmallestIsForOnePlatform(t *testing.T) {
	t.Parallel()
	s := newSite(t, filepath.Join(t.TempDir(), "meta.db"))
	image := func(arch string, size int) ocispec.Descriptor {
		return s.push("a/b", map[string]any{"os": "linux", "architecture": arch}, size)
	}
	// The index is larger in all, and smaller for amd64.
	s.index("a/b", []ocispec.Descriptor{image("amd64", 50), image("arm64", 60)}, []string{"linux/amd64", "linux/arm64"}, "1.0-slim")
	s.push("a/b", map[string]any{"os": "linux", "architecture": "amd64", "author": "x"}, 70, "1.0")
	s.push("a/b", map[string]any{"os": "linux", "architecture": "s390x"}, 10, "1.0-other")
	for query, want := range map[string]string{"": "1.0-slim 1.0", "?platform=s390x": "1.0-other 1.0", "?platform=linux/arm64": "1.0-slim 1.0"} {
		var m tags.Matrix
		s.get("a/b/-/variants"+query, &m)
		if got := pick(m.Recommend.Smallest); got != want {
			t.Errorf("smallest%s = %s, want %s", query, got, want)
		}
	}
}
