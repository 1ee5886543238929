package auth

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

func TestParseScopes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"repository:a:pull", "repository:a:pull"},
		{"repository:team/app:push,pull", "repository:team/app:pull,push"},
		{"repository:team/app:*", "repository:team/app:pull,push,delete"},
		{"repository:team/app:*,pull", "repository:team/app:pull,push,delete"},
		{"repository:a:pull repository:b/c:push", "repository:a:pull repository:b/c:push"},
		{"repository:a:pull|repository:b:pull", "repository:a:pull repository:b:pull"},
		{"repository:a:pull repository:a:push", "repository:a:pull,push"},
		{"repository:a:pull,pull", "repository:a:pull"},
		{"  repository:a:pull  ", "repository:a:pull"},
		{"registry:catalog:*", "registry:catalog:*"},
		{"registry:catalog:* registry:catalog:* repository:a:pull", "registry:catalog:* repository:a:pull"},
		// Left out: actions that there are not.
		{"repository:a:pull,admin", "repository:a:pull"},
		{"repository:a:PULL", ""},
		{"repository:a: pull", ""},
		{"repository:a:", ""},
		{"repository:a", ""},
		{"repository:a:pull:push", ""},
		{"repository:a:catalog", ""},
		// Left out: what is not canonical, and so could be read in two ways.
		{"repository:Team/App:pull", ""},
		{"repository:team//app:pull", ""},
		{"repository:/team/app:pull", ""},
		{"repository:team/app/:pull", ""},
		{"repository:team/../app:pull", ""},
		{"repository:./app:pull", ""},
		{"repository:team%2fapp:pull", ""},
		{"repository:team/app\x00:pull", ""},
		{"repository:team/app\n:pull", ""},
		{"repository:team/app\trepository:b:pull", ""},
		{"repository:team/äpp:pull", ""},
		{"repository:*:pull", ""},
		{"repository:team/*:pull", ""},
		{"repository::pull", ""},
		{"repository:host:5000/team/app:pull", ""},
		{"repository:" + strings.Repeat("a", 256) + ":pull", ""},
		// Left out: types that we have not.
		{"repository(plugin):team/app:pull", ""},
		{"Repository:a:pull", ""},
		{" :a:pull", ""},
		{"registry:catalog:pull", ""},
		{"registry:other:*", ""},
		{"", ""},
		{":", ""},
		{"::", ""},
		{":::", ""},
	} {
		got, err := parseScopes(strings.Split(c.in, "|"))
		if err != nil || formatScopes(got) != c.want {
			t.Errorf("parseScopes(%q) = %q, %v, want %q", c.in, formatScopes(got), err, c.want)
		}
	}
}

func TestScopesAreLimited(t *testing.T) {
	t.Parallel()
	list := make([]string, maxScopes+1)
	for i := range list {
		list[i] = fmt.Sprintf("repository:a%d:pull", i)
	}
	if got, err := parseScopes(list[:maxScopes]); err != nil || len(got) != maxScopes {
		t.Errorf("parseScopes of %d = %d, %v", maxScopes, len(got), err)
	}
	_, err := parseScopes(list)
	wantCode(t, "too many scopes", err, tarport.Invalid)
	_, err = parseScopes([]string{strings.Join(list, " ")})
	wantCode(t, "too many scopes in one parameter", err, tarport.Invalid)
	_, err = parseScopes([]string{strings.Repeat("x ", maxScopes+1)})
	wantCode(t, "too many scopes that are none", err, tarport.Invalid)
}

func FuzzParseScopes(f *testing.F) {
	for _, s := range []string{
		"repository:a:pull", "repository:team/app:pull,push repository:b:*", "registry:catalog:*", "repository::", "a b c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		grants, err := parseScopes([]string{in})
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, g := range grants {
			if g.Repository != "" && tarport.CheckRepository(g.Repository) != nil || len(g.Actions) == 0 || seen[g.Repository] {
				t.Errorf("parseScopes(%q) has the grant %+v", in, g)
			}
			if g.Repository != "" && !strings.Contains(in, "repository:"+g.Repository+":") {
				t.Errorf("parseScopes(%q) made up the name %q", in, g.Repository)
			}
			seen[g.Repository] = true
		}
		// What a token carries and what a challenge says is read as the same.
		again, err := parseScopes([]string{formatScopes(grants)})
		if diff := cmp.Diff(again, grants); diff != "" || err != nil {
			t.Errorf("parseScopes(formatScopes): %v, -got +want\n%s", err, diff)
		}
		if diff := cmp.Diff(grantsOf(accessOf(grants)), grants); diff != "" {
			t.Errorf("grantsOf(accessOf): -got +want\n%s", diff)
		}
	})
}
