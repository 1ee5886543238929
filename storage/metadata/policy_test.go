package metadata

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tarport/tarport"
)

func TestRulesCoverWhatTheirPatternsSay(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule       ImmutableRule
		repository string
		tag        string
		want       bool
	}{
		{ImmutableRule{}, "team/app", "latest", true},
		{ImmutableRule{Tag: "v*"}, "team/app", "v1.0", true},
		{ImmutableRule{Tag: "v*"}, "team/app", "dev", false},
		{ImmutableRule{Tag: "v?"}, "team/app", "v1", true},
		{ImmutableRule{Tag: "v?"}, "team/app", "v10", false},
		{ImmutableRule{Tag: "v1.0"}, "team/app", "v1x0", false},
		{ImmutableRule{Tag: "*", ExceptTag: "latest"}, "team/app", "latest", false},
		{ImmutableRule{Tag: "*", ExceptTag: "latest"}, "team/app", "latest2", true},
		{ImmutableRule{Repository: "app"}, "team/app", "x", true},
		{ImmutableRule{Repository: "app"}, "team/app/web", "x", false},
		{ImmutableRule{Repository: "app/*"}, "team/app/web", "x", true},
		{ImmutableRule{Repository: "app/*"}, "team/app/web/ui", "x", false},
		{ImmutableRule{Repository: "app/**"}, "team/app/web/ui", "x", true},
		{ImmutableRule{Repository: "**", ExceptRepository: "play/**"}, "team/play/x", "x", false},
		{ImmutableRule{}, "team", "x", true},
		{ImmutableRule{Syntax: SyntaxRE2, Tag: `v\d+\.\d+`}, "team/app", "v1.0", true},
		{ImmutableRule{Syntax: SyntaxRE2, Tag: `v\d+\.\d+`}, "team/app", "v1.0-rc", false},
		{ImmutableRule{Syntax: SyntaxRE2, Tag: `a|b`}, "team/app", "ab", false},
		{ImmutableRule{Syntax: SyntaxRE2, ExceptTag: `.*-rc\d*`}, "team/app", "v1.0-rc2", false},
	}
	for _, tt := range tests {
		r := tt.rule
		check(t, "Check", r.Check())
		if got := r.Covers(tt.repository, tt.tag); got != tt.want {
			t.Errorf("%s covers %s:%s = %v, want %v", &r, tt.repository, tt.tag, got, tt.want)
		}
	}
	for _, bad := range []ImmutableRule{
		{Syntax: "perl"},
		{Syntax: SyntaxRE2, Tag: "("},
		{Syntax: SyntaxRE2, Tag: "a)|(b"},
		{Syntax: SyntaxRE2, ExceptTag: "(?<=a)b"},
		{Tag: strings.Repeat("a", 257)},
	} {
		wantCode(t, "Check of "+bad.String(), bad.Check(), tarport.Invalid)
	}
}

func TestAnImmutableTagStays(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		child, one, two := manifest("child"), manifest("one"), manifest("two")
		index := manifest("index", "manifest:child")
		nested := manifest("nested", "manifest:index")
		db.mustPut(t, db.put("a/b", one, "v1", "latest"), db.put("a/b", two), db.put("a/b", child), db.put("a/b", index), db.put("a/b", nested, "v2"),
			db.put("other/b", one, "v1"))
		rule, err := db.CreateImmutableRule(t.Context(), "a", ImmutableRule{Tag: "v*", ExceptTag: "*-rc*"})
		check(t, "CreateImmutableRule", err)

		moved := db.PutManifests(t.Context(), []ManifestPut{db.put("a/b", two, "v1")})
		wantCode(t, "a push over it", moved, tarport.Denied)
		if !strings.Contains(moved.Error(), `rule 1 of the namespace a (glob: tags "v*"`) {
			t.Errorf("a push over it: %v, want the rule named", moved)
		}
		for what, err := range map[string]error{
			"a move":                 db.Tag(t.Context(), "a/b", "v1", two.Digest, "alice", "tag"),
			"a delete by tag":        db.DeleteTag(t.Context(), "a/b", "v1", "alice"),
			"a delete by digest":     db.DeleteManifest(t.Context(), "a/b", one.Digest, "alice", db.clock.in(grace)),
			"a delete of a child":    db.DeleteManifest(t.Context(), "a/b", child.Digest, "alice", db.clock.in(grace)),
			"a delete of an index":   db.DeleteManifest(t.Context(), "a/b", index.Digest, "alice", db.clock.in(grace)),
			"a delete of all":        db.DeleteRepository(t.Context(), "a/b", db.clock.in(grace)),
			"a load of several tags": db.PutBatch(t.Context(), "", []ManifestPut{db.put("a/b", two, "new", "v1")}),
		} {
			wantCode(t, what, err, tarport.Denied)
		}
		m, err := db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "v1"})
		check(t, "Manifest", err)
		if m.Digest != one.Digest {
			t.Errorf("v1 = %s, want %s", m.Digest, one.Digest)
		}
		_, err = db.Manifest(t.Context(), "a/b", tarport.Reference{Tag: "new"})
		wantCode(t, "the other tag of the refused load", err, tarport.ManifestUnknown)

		db.mustPut(t, db.put("a/b", one, "v1"), db.put("a/b", two, "latest", "v3", "v1-rc1"))
		db.mustPut(t, db.put("a/b", one, "v1-rc1"), db.put("other/b", two, "v1"))
		check(t, "delete of a manifest that no such tag needs", db.DeleteManifest(t.Context(), "other/b", two.Digest, "alice", db.clock.in(grace)))

		wantCode(t, "another namespace's rule", db.DeleteImmutableRule(t.Context(), "other", rule.ID), tarport.NotFound)
		check(t, "DeleteImmutableRule", db.DeleteImmutableRule(t.Context(), "a", rule.ID))
		check(t, "a delete without the rule", db.DeleteTag(t.Context(), "a/b", "v1", "alice"))
	})
}

func TestRulesAreListedAndBounded(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ctx := tarport.WithPrincipal(t.Context(), tarport.Principal{Name: "alice"})
		db.mustPut(t, db.put("a/b", manifest("m")))
		want := ImmutableRule{Syntax: "re2", Repository: "b", ExceptRepository: "c", Tag: "v.*", ExceptTag: "vx", CreatedBy: "alice", CreatedAt: db.clock.now().UTC()}
		made, err := db.CreateImmutableRule(ctx, "a", want)
		check(t, "CreateImmutableRule", err)
		list, err := db.ImmutableRules(t.Context(), "a")
		check(t, "ImmutableRules", err)
		if diff := cmp.Diff([]ImmutableRule{want}, list, cmpopts.IgnoreFields(ImmutableRule{}, "ID")); diff != "" || list[0].ID != made.ID {
			t.Errorf("ImmutableRules (-want +got), ids %d and %d:\n%s", made.ID, list[0].ID, diff)
		}
		_, err = db.CreateImmutableRule(ctx, "nowhere", ImmutableRule{})
		wantCode(t, "a rule of nothing", err, tarport.NotFound)
		for range maxRules - 1 {
			_, err := db.CreateImmutableRule(ctx, "a", ImmutableRule{})
			check(t, "CreateImmutableRule", err)
		}
		_, err = db.CreateImmutableRule(ctx, "a", ImmutableRule{})
		wantCode(t, "one rule too many", err, tarport.Denied)
	})
}

// FuzzGlob compares the patterns with a matcher that is slow and plain.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"v*|v1.0", "**|a/b", "a/*|a/b/c", "?|é", "a.b|axb", "***|", "*?*|ab"} {
		f.Add(s[:strings.Index(s, "|")], s[strings.Index(s, "|")+1:])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		r := ImmutableRule{Tag: pattern}
		if len(pattern) > 12 || len(s) > 24 || !utf8.ValidString(pattern+s) || strings.Contains(s, "\n") || r.Check() != nil {
			return
		}
		if got, want := r.matches(r.Tag, s), plainGlob(r.Tag, s); got != want {
			t.Errorf("glob %q matches %q = %v, want %v", r.Tag, s, got, want)
		}
	})
}

func plainGlob(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case strings.HasPrefix(pattern, "**"):
		return plainGlob(pattern[2:], s) || s != "" && plainGlob(pattern, s[1:])
	case pattern[0] == '*':
		return plainGlob(pattern[1:], s) || s != "" && s[0] != '/' && plainGlob(pattern, s[1:])
	case s == "":
		return false
	case pattern[0] == '?':
		_, n := utf8.DecodeRuneInString(s)
		return s[0] != '/' && plainGlob(pattern[1:], s[n:])
	}
	return s[0] == pattern[0] && plainGlob(pattern[1:], s[1:])
}
