package auth

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	only := func(repository string, a ...tarport.Action) []tarport.Grant {
		return []tarport.Grant{{Repository: repository, Actions: a}}
	}
	admin := tarport.Principal{UserID: 1, Name: "admin", Admin: true}
	narrowed := func(scope []tarport.Grant) tarport.Principal {
		p := admin
		p.Scope = scope
		return p
	}
	stranger, user := tarport.Principal{}, tarport.Principal{UserID: 2, Name: "user"}
	userWithScope := user
	userWithScope.Scope = only("a/b", tarport.Pull, tarport.Push, tarport.Delete)
	strangerWithScope := tarport.Principal{Scope: only("a/b", tarport.Pull)}
	for _, c := range []struct {
		name       string
		p          tarport.Principal
		a          tarport.Action
		repository string
		want       tarport.Code
	}{
		{"admin pulls", admin, tarport.Pull, "a/b", ""},
		{"admin pushes", admin, tarport.Push, "a/b", ""},
		{"admin deletes", admin, tarport.Delete, "a/b", ""},
		{"admin lists", admin, Catalog, "", ""},
		{"admin does what comes later", admin, "immutable", "a/b", ""},
		{"admin's token pulls", narrowed(only("a/b", tarport.Pull)), tarport.Pull, "a/b", ""},
		{"admin's token for another action", narrowed(only("a/b", tarport.Pull)), tarport.Push, "a/b", tarport.Unauthorized},
		{"admin's token for another repository", narrowed(only("a/b", tarport.Pull)), tarport.Pull, "a/b/c", tarport.Unauthorized},
		{"admin's token for nothing", narrowed([]tarport.Grant{}), tarport.Pull, "a/b", tarport.Unauthorized},
		{"admin's token for the catalog", narrowed(only("", Catalog)), Catalog, "", ""},
		{"admin's token without the catalog", narrowed(only("a/b", tarport.Pull)), Catalog, "", tarport.Unauthorized},
		{"user pulls", user, tarport.Pull, "a/b", tarport.NameUnknown},
		{"user pushes", user, tarport.Push, "a/b", tarport.Denied},
		{"user deletes", user, tarport.Delete, "a/b", tarport.Denied},
		{"user lists", user, Catalog, "", tarport.Denied},
		{"scope grants nothing", userWithScope, tarport.Pull, "a/b", tarport.NameUnknown},
		{"scope grants no push", userWithScope, tarport.Push, "a/b", tarport.Denied},
		{"stranger pulls", stranger, tarport.Pull, "a/b", tarport.Unauthorized},
		{"stranger pushes", stranger, tarport.Push, "a/b", tarport.Unauthorized},
		{"stranger lists", stranger, Catalog, "", tarport.Unauthorized},
		{"stranger's scope grants nothing", strangerWithScope, tarport.Pull, "a/b", tarport.Unauthorized},
	} {
		wantCode(t, c.name, decide(c.p, c.a, c.repository), c.want)
	}
}

// What is hidden answers in the very words of what is not there.
func TestForbiddenAnswersLikeAbsent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, absent := w.db.Tags(t.Context(), "team/app", 10, "")
	forbidden := w.Authorize(t.Context(), tarport.Principal{UserID: 2}, tarport.Pull, "team/app")
	if got, want := forbidden.Error(), absent.Error(); got != want {
		t.Errorf("forbidden = %q, want %q as absent", got, want)
	}
}

func TestGrantedIsWhatIsAskedAndAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked, err := parseScopes([]string{"repository:a:* registry:catalog:*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		p    tarport.Principal
		want string
	}{
		{"admin", tarport.Principal{UserID: 1, Admin: true}, "repository:a:pull,push,delete registry:catalog:*"},
		{"user", tarport.Principal{UserID: 2}, ""},
		{"stranger", tarport.Principal{}, ""},
		// A restriction survives the exchange for a token.
		{"restricted admin", tarport.Principal{UserID: 1, Admin: true, Scope: []tarport.Grant{{Repository: "a", Actions: []tarport.Action{tarport.Pull}}}}, "repository:a:pull"},
	} {
		got, err := w.granted(t.Context(), c.p, asked)
		if diff := cmp.Diff(formatScopes(got), c.want); diff != "" || err != nil {
			t.Errorf("granted(%s): %v, -got +want\n%s", c.name, err, diff)
		}
	}
}
