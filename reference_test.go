package tarport

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`) // distribution spec 1.1
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// TestNamesFollowTheSpec compares the hand-written grammars with the spec's on
// random words of the few letters that matter.
func TestNamesFollowTheSpec(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	const letters = "a0._-/A: é\x00"
	seen := map[bool]int{}
	for range 300_000 {
		b := make([]byte, r.IntN(10))
		for i := range b {
			b[i] = letters[r.IntN(min(len(letters), 6+r.IntN(len(letters)-5)))]
		}
		s := string(b)
		want := specName.MatchString(s)
		seen[want]++
		if got := CheckRepository(s) == nil; got != want {
			t.Fatalf("CheckRepository(%q) ok = %v, want %v", s, got, want)
		}
		if got, want := CheckTag(s) == nil, specTag.MatchString(s); got != want {
			t.Fatalf("CheckTag(%q) ok = %v, want %v", s, got, want)
		}
	}
	if seen[true] < 1000 || seen[false] < 1000 {
		t.Fatalf("the words prove little: %v", seen)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "a__b", "a___b", "a--b", "a.b/c-d", "-a", "a/", "A", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := CheckRepository(s) == nil, len(s) <= MaxNameLength && specName.MatchString(s); got != want {
			t.Errorf("CheckRepository(%q) ok = %v, want %v", s, got, want)
		}
		if got, want := CheckTag(s) == nil, specTag.MatchString(s); got != want {
			t.Errorf("CheckTag(%q) ok = %v, want %v", s, got, want)
		}
		d, err := ParseDigest(s)
		if err == nil && d.Validate() != nil {
			t.Errorf("ParseDigest(%q) took what go-digest refuses", s)
		}
	})
}

func TestLengthsAreBounded(t *testing.T) {
	t.Parallel()
	if err := CheckRepository(strings.Repeat("a", 255)); err != nil {
		t.Errorf("a name of 255 bytes: %v", err)
	}
	if err := CheckRepository(strings.Repeat("a", 256)); ErrorCode(err) != NameInvalid {
		t.Errorf("a name of 256 bytes: %v, want %s", err, NameInvalid)
	}
	if err := CheckTag(strings.Repeat("a", 129)); ErrorCode(err) != TagInvalid {
		t.Errorf("a tag of 129 bytes: %v, want %s", err, TagInvalid)
	}
}

func TestParseReferenceTellsTagsFromDigests(t *testing.T) {
	t.Parallel()
	d256, d512 := digest.FromString("x"), digest.SHA512.FromString("x")
	for _, tc := range []struct {
		in   string
		want Reference
		code Code
	}{
		{"latest", Reference{Tag: "latest"}, ""},
		{d256.String(), Reference{Digest: d256}, ""},
		{d512.String(), Reference{Digest: d512}, ""},
		{"sha256:" + strings.ToUpper(d256.Encoded()), Reference{}, DigestInvalid},
		{"sha384:" + strings.Repeat("a", 96), Reference{}, DigestInvalid},
		{"sha256:abc", Reference{}, DigestInvalid},
		{"sha256:", Reference{}, DigestInvalid},
		{":", Reference{}, DigestInvalid},
		{"", Reference{}, TagInvalid},
		{"../x", Reference{Tag: "../x"}, TagInvalid},
	} {
		got, err := ParseReference(tc.in)
		if ErrorCode(err) != tc.code || err == nil && got != tc.want {
			t.Errorf("ParseReference(%q) = %+v, %v, want %+v, code %q", tc.in, got, err, tc.want, tc.code)
		}
	}
}

// The grammar must not differ from the library's that reads references in
// archives.
func TestNamesAreReferences(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a/b", "a_b", "a__b/c--d", "x.y.z"} {
		if _, err := reference.WithName(s); err != nil || CheckRepository(s) != nil {
			t.Errorf("%q: reference says %v, CheckRepository %v", s, err, CheckRepository(s))
		}
	}
}

func TestParseImage(t *testing.T) {
	t.Parallel()
	const dgst = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, c := range []struct {
		in, repository string
		ref            Reference
		code           Code
	}{
		{in: "team/app:1.0", repository: "team/app", ref: Reference{Tag: "1.0"}},
		{in: "team/app", repository: "team/app", ref: Reference{Tag: "latest"}},
		{in: "team/a/b/c:V1_x.y-Z", repository: "team/a/b/c", ref: Reference{Tag: "V1_x.y-Z"}},
		{in: "team/app@" + dgst, repository: "team/app", ref: Reference{Digest: dgst}},
		{in: "team/app:1.0@" + dgst, repository: "team/app", ref: Reference{Digest: dgst}},
		{in: "app:1", repository: "app", ref: Reference{Tag: "1"}},
		{in: "", code: NameInvalid},
		{in: ":1", code: NameInvalid},
		{in: "Team/app:1", code: NameInvalid},
		{in: "registry.example.com:5000/team/app:1", code: NameInvalid},
		{in: "team/app:", code: TagInvalid},
		{in: "team/app:a b", code: TagInvalid},
		{in: "team/app@sha256:12", code: DigestInvalid},
		{in: "team/app:-@" + dgst, code: TagInvalid},
	} {
		repository, ref, err := ParseImage(c.in)
		if ErrorCode(err) != c.code || err == nil && (repository != c.repository || ref != c.ref) {
			t.Errorf("ParseImage(%q) = %q, %v, %v, want %q, %v, %q", c.in, repository, ref, err, c.repository, c.ref, c.code)
		}
	}
}
