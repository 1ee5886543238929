package auth

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
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
	withScope := func(p tarport.Principal, a ...tarport.Action) tarport.Principal {
		p.Scope = only("a/b", a...)
		return p
	}
	reading, elsewhere := user, user
	reading.ReadOnly, elsewhere.Namespace = true, "x"
	readingAdmin, adminElsewhere := admin, admin
	readingAdmin.ReadOnly, adminElsewhere.Namespace = true, "x"
	api := admin
	api.Scope = only("", tarport.API)

	private := func(r tarport.Role) facts { return facts{Rights: metadata.Rights{Exists: true, Role: r}} }
	public := facts{Rights: metadata.Rights{Exists: true, Public: true}}
	absent, free := facts{}, facts{mayCreate: true, mayPushNew: true}
	for _, c := range []struct {
		name string
		p    tarport.Principal
		a    tarport.Action
		on   string
		f    facts
		want tarport.Code
	}{
		{"admin pulls", admin, tarport.Pull, "a/b", private(""), ""},
		{"admin pushes", admin, tarport.Push, "a/b", private(""), ""},
		{"admin deletes", admin, tarport.Delete, "a/b", private(""), ""},
		{"admin lists", admin, Catalog, "", absent, ""},
		{"admin does what comes later", admin, "immutable", "a/b", private(""), ""},
		{"admin pushes into a new namespace", admin, tarport.Push, "a/b", free, ""},
		{"admin pushes where a push makes none", admin, tarport.Push, "a/b", absent, tarport.Denied},
		{"admin sets a quota", admin, tarport.QuotaManage, "a", private(""), ""},
		{"admin's token pulls", narrowed(only("a/b", tarport.Pull)), tarport.Pull, "a/b", private(""), ""},
		{"admin's token for another action", narrowed(only("a/b", tarport.Pull)), tarport.Push, "a/b", private(""), tarport.Unauthorized},
		{"admin's token for another repository", narrowed(only("a/b", tarport.Pull)), tarport.Pull, "a/b/c", private(""), tarport.Unauthorized},
		{"admin's token for nothing", narrowed([]tarport.Grant{}), tarport.Pull, "a/b", private(""), tarport.Unauthorized},
		{"admin's token for the catalog", narrowed(only("", Catalog)), Catalog, "", absent, ""},
		{"admin's token without the catalog", narrowed(only("a/b", tarport.Pull)), Catalog, "", absent, tarport.Unauthorized},
		{"admin's token for the API", api, tarport.UsersManage, "", absent, ""},
		{"admin's token for the API pushes", api, tarport.Push, "a/b", private(""), ""},
		{"admin's token for a repository on the API", narrowed(only("a/b", tarport.Pull)), tarport.UsersManage, "", absent, tarport.Unauthorized},
		{"admin's reading token lists users", readingAdmin, tarport.UsersRead, "", absent, ""},
		{"admin's reading token makes users", readingAdmin, tarport.UsersManage, "", absent, tarport.Denied},
		{"admin's reading token pushes", readingAdmin, tarport.Push, "a/b", private(""), tarport.Denied},
		{"admin's token for another namespace pulls", adminElsewhere, tarport.Pull, "a/b", private(""), tarport.NameUnknown},
		{"admin's token for a namespace makes users", adminElsewhere, tarport.UsersManage, "", absent, tarport.Denied},

		{"reader pulls", user, tarport.Pull, "a/b", private(tarport.Reader), ""},
		{"reader sees members", user, tarport.MembersRead, "a", private(tarport.Reader), ""},
		{"reader pushes", user, tarport.Push, "a/b", private(tarport.Reader), tarport.Denied},
		{"writer pushes", user, tarport.Push, "a/b", private(tarport.Writer), ""},
		{"writer deletes", user, tarport.Delete, "a/b", private(tarport.Writer), tarport.Denied},
		{"maintainer deletes", user, tarport.Delete, "a/b", private(tarport.Maintainer), ""},
		{"maintainer manages members", user, tarport.MembersManage, "a", private(tarport.Maintainer), tarport.Denied},
		{"owner manages members", user, tarport.MembersManage, "a", private(tarport.Owner), ""},
		{"owner sets a quota", user, tarport.QuotaManage, "a", private(tarport.Owner), tarport.Denied},
		{"owner does what nobody named", user, "unheard.of", "a", private(tarport.Owner), tarport.Denied},
		{"writer's token grants", withScope(user, tarport.Push), tarport.Push, "a/b", private(tarport.Writer), ""},
		{"writer's token for pulling", withScope(user, tarport.Pull), tarport.Push, "a/b", private(tarport.Writer), tarport.Unauthorized},
		{"writer's reading token", reading, tarport.Push, "a/b", private(tarport.Writer), tarport.Denied},
		{"writer's reading token pulls", reading, tarport.Pull, "a/b", private(tarport.Writer), ""},
		{"writer's token for another namespace", elsewhere, tarport.Push, "a/b", private(tarport.Writer), tarport.Denied},
		{"owner's token for another namespace", elsewhere, tarport.MembersManage, "a", private(tarport.Owner), tarport.NotFound},
		{"token for another namespace pulls what is public", elsewhere, tarport.Pull, "a/b", public, ""},

		{"user pulls", user, tarport.Pull, "a/b", private(""), tarport.NameUnknown},
		{"user pulls what is absent", user, tarport.Pull, "a/b", absent, tarport.NameUnknown},
		{"user pulls what is public", user, tarport.Pull, "a/b", public, ""},
		{"user pushes to what is public", user, tarport.Push, "a/b", public, tarport.Denied},
		{"user pushes", user, tarport.Push, "a/b", private(""), tarport.Denied},
		{"user deletes", user, tarport.Delete, "a/b", private(""), tarport.Denied},
		{"user reads a namespace", user, tarport.NamespaceRead, "a", private(""), tarport.NotFound},
		{"user manages an absent namespace", user, tarport.NamespaceManage, "a", free, tarport.NotFound},
		{"user pushes into a new namespace", user, tarport.Push, "a/b", free, ""},
		{"user creates a namespace", user, tarport.NamespaceCreate, "a", free, ""},
		{"user lists", user, Catalog, "", absent, ""},
		{"user makes users", user, tarport.UsersManage, "", absent, tarport.Denied},
		{"scope grants nothing", withScope(user, tarport.Pull, tarport.Push), tarport.Pull, "a/b", private(""), tarport.NameUnknown},
		{"scope grants no push", withScope(user, tarport.Pull, tarport.Push), tarport.Push, "a/b", private(""), tarport.Denied},
		{"stranger pulls", stranger, tarport.Pull, "a/b", private(""), tarport.Unauthorized},
		{"stranger pulls what is absent", stranger, tarport.Pull, "a/b", absent, tarport.Unauthorized},
		{"stranger pulls what is public", stranger, tarport.Pull, "a/b", public, ""},
		{"stranger's token pulls what is public", withScope(stranger, tarport.Pull), tarport.Pull, "a/b", public, ""},
		{"stranger pushes to what is public", stranger, tarport.Push, "a/b", public, tarport.Unauthorized},
		{"stranger lists", stranger, Catalog, "", absent, tarport.Unauthorized},
		{"stranger's scope grants nothing", withScope(stranger, tarport.Pull), tarport.Pull, "a/b", private(""), tarport.Unauthorized},
	} {
		wantCode(t, c.name, decide(c.p, c.a, c.on, c.f), c.want)
	}
}

// To who is no member, a namespace that is there and one that is not are the
// same, word for word, whatever is asked.
func TestAbsentAndForbiddenAreWordForWordTheSame(t *testing.T) {
	t.Parallel()
	forbidden, absent := facts{Rights: metadata.Rights{Exists: true}}, facts{}
	elsewhere := tarport.Principal{UserID: 2, Name: "user", Namespace: "x"}
	owned := facts{Rights: metadata.Rights{Exists: true, Role: tarport.Owner}}
	for _, a := range []tarport.Action{
		tarport.Pull, tarport.Push, tarport.Delete, tarport.RepositoryManage, tarport.NamespaceRead, tarport.NamespaceManage,
		tarport.MembersRead, tarport.MembersManage, tarport.RobotsRead, tarport.RobotsManage, tarport.ImmutableManage, tarport.AuditRead, tarport.QuotaManage,
	} {
		for name, p := range map[string]tarport.Principal{"user": {UserID: 2, Name: "user"}, "stranger": {}, "token for another namespace": elsewhere} {
			got, want := decide(p, a, "a/b", forbidden), decide(p, a, "a/b", absent)
			if got == nil || want == nil || got.Error() != want.Error() {
				t.Errorf("%s, %s: forbidden = %v, absent = %v", name, a, got, want)
			}
		}
		if got, want := decide(elsewhere, a, "a/b", owned), decide(elsewhere, a, "a/b", absent); got == nil || got.Error() != want.Error() {
			t.Errorf("a token for another namespace, %s: its owner's = %v, absent = %v", a, got, want)
		}
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
		{"user", tarport.Principal{UserID: 2}, "repository:a:pull,push registry:catalog:*"}, // it may make it, and looks at what it made
		{"robot", tarport.Principal{UserID: 2, Robot: true}, "registry:catalog:*"},
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
