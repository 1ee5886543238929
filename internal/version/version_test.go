package version

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, version, variants string }{
		// numbers
		{"17", "17", ""},
		{"v1", "1", ""},
		{"V1.2", "1.2", ""},
		{"17.0.2", "17.0.2", ""},
		{"1.2.3.4", "1.2.3.4", ""},
		{"10.0.20348.2227.1", "10.0.20348.2227+1", ""},
		{"22.04", "22.04", ""},
		{"0", "0", ""},
		{"1234567890123456789", "", ""},
		{"1.1234567890123456789", "", ""},
		// with variants
		{"17-jdk-alpine", "17", "jdk alpine"},
		{"17.0.2-slim-bookworm", "17.0.2", "slim bookworm"},
		{"3.12.1-alpine3.19", "3.12.1", "alpine3.19"},
		{"3.12-windowsservercore-ltsc2022", "3.12", "windowsservercore ltsc2022"},
		{"12.2.0-base-ubuntu22.04", "12.2.0", "base ubuntu22.04"},
		{"2.1.0-cuda12.1-cudnn8-runtime", "2.1.0", "cuda12.1 cudnn8 runtime"},
		{"1.25-alpine-3.19", "1.25", "alpine3.19"},
		{"1.25-Alpine", "1.25", "alpine"},
		{"2.4.58-debian-12-r0", "2.4.58+r0", "debian12"},
		{"1.2.3-x86_64", "1.2.3", "x86_64"},
		{"8-jre8-openj9", "8", "jre8 openj9"},
		{"1.2.3_alpine", "1.2.3", "alpine"},
		{"3.11alpine", "3.11", "alpine"},
		{"1.2.3-some-words-of-ours", "1.2.3", "some words of ours"},
		{"jdk-17.0.2_8-alpine", "17.0.2+8", "jdk alpine"},
		{"jdk-17", "17", "jdk"},
		{"jdk17-alpine", "17", "jdk alpine"},
		{"python3.11-slim", "3.11", "python slim"},
		{"release-1.2.3", "1.2.3", ""},
		{"bookworm-20240110-slim", "20240110", "bookworm slim"},
		// pre-releases
		{"1.0.0-rc1", "1.0.0-rc1", ""},
		{"1.0.0-beta.2", "1.0.0-beta.2", ""},
		{"1.0.0-alpha1-alpine", "1.0.0-alpha1", "alpine"},
		{"1.0.0-alpha.beta", "1.0.0-alpha.beta", ""},
		{"17-ea", "17-ea", ""},
		{"22-ea-33-jdk-slim", "22-ea.33", "jdk slim"},
		{"3.13.0rc2-slim", "3.13.0-rc.2", "slim"},
		{"3.13.0b4", "3.13.0-b.4", ""},
		{"1.22rc1-alpine", "1.22-rc.1", "alpine"},
		{"2.0.0.RC1", "2.0.0-RC.1", ""},
		{"2.0.0-SNAPSHOT", "2.0.0-SNAPSHOT", ""},
		{"2.0.0-M3", "2.0.0-M3", ""},
		{"7.0-rc-bookworm", "7.0-rc", "bookworm"},
		{"22-jdk-rc2", "22-rc2", "jdk"},
		{"1.0.0-rc1-20240115", "1.0.0-rc1+20240115", ""},
		// builds
		{"17.0.2_8", "17.0.2+8", ""},
		{"17.0.2_8-jre-alpine", "17.0.2+8", "jre alpine"},
		{"8u392", "8.0.392", ""},
		{"8u392-b08-jdk", "8.0.392+b08", "jdk"},
		{"1.25.3-1", "1.25.3+1", ""},
		{"v1.2.3-14-g2414721", "1.2.3+14.g2414721", ""},
		{"1.2.3-3f2a9c1", "1.2.3+3f2a9c1", ""},
		{"3.12-slim-20240115", "3.12+20240115", "slim"},
		{"1.1.1w", "1.1.1+w", ""},
		{"9.3p2", "9.3+p2", ""},
		{"1.2.3_build.5", "1.2.3+build.5", ""},
		{"6.2.0.Final", "6.2.0+Final", ""},
		// dates
		{"20240115", "20240115", ""},
		{"2024.01.15", "2024.01.15", ""},
		{"2024-01-15", "2024.01.15", ""},
		{"2024-01-15-slim", "2024.01.15", "slim"},
		{"20240115.1", "20240115+1", ""},
		{"20240115-1", "20240115+1", ""},
		{"20240115123000", "20240115+123000", ""},
		{"RELEASE.2024-01-16T16-07-38Z", "2024.01.16+160738Z", ""},
		{"20241399", "20241399", ""},
		{"2024", "2024", ""},
		// no version
		{"latest", "", ""},
		{"stable", "", ""},
		{"edge", "", ""},
		{"lts", "", ""},
		{"bookworm-slim", "", "bookworm slim"},
		{"lts-alpine3.19", "", "alpine3.19"},
		{"iron-slim", "", "slim"},
		{"alpine-3.19", "", "alpine3.19"},
		{"alpine", "", "alpine"},
		{"feature-x-y", "", ""},
		{"pr-123", "", ""},
		{"3f2a9c1", "", ""},
		{"sha-3f2a9c1", "", ""},
		{"1234567", "1234567", ""},
		{"main-3f2a9c1", "", ""},
		{"1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f", "", ""},
		{"sha256-" + strings.Repeat("ab", 32) + ".sig", "", ""},
		{"2fa-support", "", ""},
		{"3scale", "", ""},
		{"_", "", ""},
		{"a--b", "", ""},
		{"", "", ""},
	} {
		got := Parse(c.name)
		if got.Version != c.version || strings.Join(got.Variants, " ") != c.variants {
			t.Errorf("Parse(%q) = version %q, variants %q; want %q, %q", c.name, got.Version, got.Variants, c.version, c.variants)
		}
		if got.Prerelease() != strings.Contains(got.Version, "-") {
			t.Errorf("Parse(%q): version %q, pre-release %v", c.name, got.Version, got.Prerelease())
		}
	}
}

func TestWordsToSearchBy(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"1.0-jdk-alpine3.19":      {"jdk", "alpine3.19", "alpine"},
		"1.0-alpine-alpine3.19":   {"alpine", "alpine3.19"},
		"1.0-nanoserver-ltsc2022": {"nanoserver", "ltsc2022", "ltsc"},
		"1.0-x86_64":              {"x86_64"},
		"latest":                  {},
	} {
		tag := Parse(name)
		if diff := cmp.Diff(want, tag.Words()); diff != "" {
			t.Errorf("Words of %q (-want +got):\n%s", name, diff)
		}
	}
}

// inOrder are names in the order of their keys, each less than the next.
var inOrder = []string{
	"", "2fa", "10fa", "alpine", "bookworm-slim", "build-9-x", "build-10-x", "edge", "lts-alpine3.9", "lts-alpine3.10", "stable",
	"0", "0.0.1", "1.0.0", "1.1.1", "1.1.1a", "1.1.1w",
	"8u51", "8u392", "9",
	"17.0.0-alpha", "17.0.0-alpha.1", "17.0.0-alpha.beta", "17.0.0-beta", "17.0.0-beta.2", "17.0.0-beta.11", "17-ea", "17-ea-2", "17-ea-10", "17.0.0-rc.1",
	"17", "17-alpine", "17-alpine3.9", "17-alpine3.19", "17-slim", "17.0", "17.0.0", "17.0.0.0", "17.0.0.1",
	"17.0.2-rc1", "17.0.2", "17.0.2-slim", "17.0.2_8", "17.0.2_8-slim", "17.0.2_10", "17.0.9", "17.0.10", "17.1", "17.10", "18-ea", "18",
	"2023.12.31", "20240115", "20240115.1", "2024.1.16", "2024-02-01", "20241399",
}

func TestKeysAreInTheOrderOfVersions(t *testing.T) {
	t.Parallel()
	for i := 1; i < len(inOrder); i++ {
		a, b := Parse(inOrder[i-1]), Parse(inOrder[i])
		if a.Key >= b.Key {
			t.Errorf("%q is not less than %q: keys %q, %q", inOrder[i-1], inOrder[i], a.Key, b.Key)
		}
	}
	for _, same := range [][2]string{{"2024.01.15", "20240115"}, {"v1.2", "1.2"}, {"01.2", "1.2"}} {
		a, b := Parse(same[0]), Parse(same[1])
		if a.Key != b.Key {
			t.Errorf("%q and %q differ: keys %q, %q", same[0], same[1], a.Key, b.Key)
		}
	}
}

// randomVersion is a version that Semantic Versioning takes, and that is no
// version with a variant to us.
func randomVersion(r *rand.Rand) string {
	num := func() string { return fmt.Sprint([]uint64{0, 1, 2, 9, 10, 11, 99, 100, 1 << 40}[r.IntN(9)]) }
	s := num() + "." + num() + "." + num()
	if r.IntN(2) == 0 {
		return s
	}
	s += "-" + []string{"alpha", "beta", "rc", "rc1", "rc2", "rc10", "RC1", "dev", "ea", "SNAPSHOT", "pre", "M1"}[r.IntN(12)]
	for range r.IntN(3) {
		s += "." + []string{num(), "beta", "x", "B", "0a", "a1"}[r.IntN(6)]
	}
	return s
}

func TestKeysAgreeWithSemanticVersioning(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		a, b := randomVersion(r), randomVersion(r)
		want := semver.MustParse(a).Compare(semver.MustParse(b))
		ta, tb := Parse(a), Parse(b)
		if got := strings.Compare(ta.Key, tb.Key); got != want {
			t.Fatalf("%s and %s compare as %d, want %d: keys %q, %q", a, b, got, want, ta.Key, tb.Key)
		}
		if v := semver.MustParse(a); ta.Version != v.String() {
			t.Fatalf("Parse(%q).Version = %q", a, ta.Version)
		}
	}
}

func TestSortingByKeySortsTags(t *testing.T) {
	t.Parallel()
	names := slices.Clone(inOrder)
	r := rand.New(rand.NewPCG(3, 4))
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	slices.SortFunc(names, func(a, b string) int {
		ta, tb := Parse(a), Parse(b)
		return strings.Compare(ta.Key+"\x00"+a, tb.Key+"\x00"+b)
	})
	if diff := cmp.Diff(inOrder, names); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, yes, no string }{
		{"^17", "17 17.0.0 17.0.2-slim v17.99 17.0.2_8", "16.9 18 18-ea 17-ea 17.0.2-rc1 latest"},
		{"17", "17 17.9.1-alpine", "18 16 170"},
		{"17.x", "17 17.0.2", "18"},
		{"17.*", "17 17.0.2", "18"},
		{"17.0.2", "17.0.2 v17.0.2-slim 17.0.2_8", "17 17.0.3 17.0.2-rc1 17.0.2.1"},
		{"=17.0", "17.0 17.0.9", "17.1"},
		{">=17.0.9 <18", "17.0.9 17.0.10-jdk 17.5", "17.0.8 17 18 18-ea 17.0.9-ea"},
		{">= 17.0.9, < 18", "17.0.9 17.5", "17.0.8 18"},
		{">17", "18 18.0.1", "17 17.0.2 17.9"},
		{">17.0.2", "17.0.3 18", "17.0.2 17.0.2_8 17"},
		{"<=17", "17 17.0.9 16", "18"},
		{"<17", "16.9 8u392", "17 17-ea 17.0.1"},
		{"~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3"},
		{"~1.2", "1.2 1.2.9", "1.3"},
		{"~1", "1 1.9", "2"},
		{"^0.2.3", "0.2.3 0.2.9", "0.3 1 0.2.2"},
		{"^0.0.3", "0.0.3", "0.0.4"},
		{"^0", "0 0.9.1", "1"},
		{"1.2 - 1.4", "1.2 1.3 1.4 1.4.9", "1.5 1.1"},
		{"1.2.3 - 1.4.5", "1.2.3 1.4.5", "1.4.6 1.2.2"},
		{"8 || 11 || ^17.0.2", "8u392 11.0.1 17.1", "9 17.0.1 latest"},
		{"*", "0 1 17 20240115", "latest 17-ea"},
		{">=1.0.0-rc1", "1.0.0-rc1 1.0.0-rc2 1.0.0 2 2-ea", "1.0.0-beta 0.9"},
		{"1.0.0-rc1", "1.0.0-rc1 1.0.0-rc1-alpine", "1.0.0-rc2 1.0.0"},
		{">=2024", "20240115 2024.01.15 2025-01-01", "20231231 17"},
		{">=20240115", "2024.01.15 20240116", "20240114"},
		{"<=20240115", "2024-01-15 1.0", "20240116"},
	} {
		r, err := ParseRange(c.in)
		if err != nil {
			t.Errorf("ParseRange(%q): %v", c.in, err)
			continue
		}
		for name, want := range both(c.yes, c.no) {
			if got := r.Contains(Parse(name)); got != want {
				t.Errorf("%q contains %q: %v, want %v (%q, key %q)", c.in, name, got, want, r.Intervals, Parse(name).Key)
			}
		}
	}
	for _, in := range []string{"", " ", "||", "a", "^", ">=", "1.2.3.4.5", "1.x.3", "x.1", "^*", "1 ||", "1||2||3||4||5", "!=1", "1.2-", strings.Repeat("9", 19)} {
		if r, err := ParseRange(in); err == nil {
			t.Errorf("ParseRange(%q) = %v, want an error", in, r)
		}
	}
}

func both(yes, no string) map[string]bool {
	m := map[string]bool{}
	for _, s := range strings.Fields(yes) {
		m[s] = true
	}
	for _, s := range strings.Fields(no) {
		m[s] = false
	}
	return m
}

func TestRangesAgreeWithMasterminds(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	num := func() string { return fmt.Sprint(r.IntN(4)) }
	for range 5000 {
		parts := make([]string, 1+r.IntN(2))
		for i := range parts {
			// Masterminds takes ~0.0.0 for everything.
			parts[i] = []string{">=", "<", "<=", ">", "^", "~", "="}[r.IntN(7)] + num() + "." + num() + "." + fmt.Sprint(1+r.IntN(3))
		}
		in := strings.Join(parts, " ")
		want, err := semver.NewConstraint(in)
		if err != nil {
			t.Fatalf("NewConstraint(%q): %v", in, err)
		}
		got, err := ParseRange(in)
		if err != nil {
			t.Fatalf("ParseRange(%q): %v", in, err)
		}
		for range 20 {
			v := num() + "." + num() + "." + num()
			if r.IntN(4) == 0 {
				v += "-rc.1"
			}
			if a, b := got.Contains(Parse(v)), want.Check(semver.MustParse(v)); a != b {
				t.Fatalf("%q contains %s: %v, Masterminds says %v", in, v, a, b)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range inOrder {
		f.Add(s, ">=1 <2")
	}
	f.Add("RELEASE.2024-01-16T16-07-38Z.fips-alpine-3.19", "^0.0.x || 1 - 2")
	f.Fuzz(func(t *testing.T, name, in string) {
		tag := Parse(name)
		if tag.Key == "" || strings.ContainsFunc(tag.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("Parse(%q).Key = %q", name, tag.Key)
		}
		if (tag.Version == "") != (tag.Key[0] == className) || tag.Prerelease() != strings.Contains(tag.Version, "-") {
			t.Errorf("Parse(%q) = %+v", name, tag)
		}
		for _, w := range tag.Words() {
			if w == "" || strings.Contains(w, "-") {
				t.Errorf("Parse(%q).Words = %q", name, tag.Words())
			}
		}
		if r, err := ParseRange(in); err == nil {
			r.Contains(tag)
		}
	})
}
