package metadata

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// person makes an account and returns the context of what it does.
func (db *testDB) person(tb testing.TB, name string, admin bool) (context.Context, tarport.Principal) {
	tb.Helper()
	u, err := db.CreateUser(tb.Context(), User{Name: name, PasswordHash: "x", Admin: admin})
	check(tb, "CreateUser", err)
	p := tarport.Principal{UserID: u.ID, Name: name, Admin: admin}
	return tarport.WithPrincipal(tb.Context(), p), p
}

// push links a blob in a repository, as whom ctx says.
func (db *testDB) push(ctx context.Context, repository string) error {
	d := digestOf(repository)
	return db.PutBlob(ctx, BlobPut{Digest: d, Size: 1, Repository: repository, Lease: db.clock.in(time.Hour)})
}

func (db *testDB) role(tb testing.TB, p tarport.Principal, ns string) tarport.Role {
	tb.Helper()
	r, err := db.Rights(tb.Context(), p.UserID, ns)
	check(tb, "Rights", err)
	return r.Role
}

func TestAFirstPushMakesANamespaceThatItsPusherOwns(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, annP := db.person(t, "ann", false)
		bob, bobP := db.person(t, "bob", false)
		check(t, "the first push", db.push(ann, "team/a/b/c"))
		check(t, "a push to a repository of one component", db.push(ann, "hello"))
		if got := db.role(t, annP, "team"); got != tarport.Owner {
			t.Errorf("role of the pusher = %q, want owner", got)
		}
		if got := db.role(t, annP, "hello"); got != tarport.Owner {
			t.Errorf("role in hello = %q, want owner", got)
		}
		ns, err := db.Namespace(t.Context(), Viewer{UserID: annP.UserID}, "team")
		if err != nil || ns.Visibility != Private || ns.CreatedBy != "ann" {
			t.Errorf("Namespace = %+v, %v, want it private and made by ann", ns, err)
		}
		// Who was authorised while it was not there yet comes too late.
		wantCode(t, "a push by somebody else", db.push(bob, "team/a/b/c"), tarport.Denied)
		wantCode(t, "a push by somebody else to another repository", db.push(bob, "team/other"), tarport.Denied)
		wantCode(t, "a mount by somebody else", second(db.MountBlob(bob, "team/a/b/c", "hello", digestOf("team/a/b/c"), db.clock.in(time.Hour))), tarport.Denied)
		wantCode(t, "a manifest by somebody else", db.PutManifests(bob, []ManifestPut{db.put("team/a/b/c", manifest("m"), "latest")}), tarport.Denied)
		if got := db.role(t, bobP, "team"); got != "" {
			t.Errorf("role of who was refused = %q", got)
		}
		_, err = db.SetMember(ann, "team", "bob", tarport.Writer)
		check(t, "SetMember", err)
		check(t, "a push by a writer", db.push(bob, "team/other"))
		_, err = db.SetMember(ann, "team", "bob", tarport.Reader)
		check(t, "SetMember", err)
		wantCode(t, "a push by a reader", db.push(bob, "team/other"), tarport.Denied)
		off := true
		check(t, "UpdateAccount", func() error {
			_, _ = db.person(t, "root", true)
			return db.UpdateAccount(ann, "ann", AccountPatch{Disabled: &off})
		}())
		wantCode(t, "a push by a disabled user", db.push(ann, "team/a/b/c"), tarport.Denied)
	})
}

func second[T any](_ T, err error) error { return err }

func TestTwoFirstPushesAtOnceMakeOneOwner(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, annP := db.person(t, "ann", false)
		bob, bobP := db.person(t, "bob", false)
		var errs [2]error
		var wg sync.WaitGroup
		for i, ctx := range []context.Context{ann, bob} {
			wg.Go(func() { errs[i] = db.push(ctx, "team/app") })
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("errors = %v, want exactly one", errs)
		}
		for i, p := range []tarport.Principal{annP, bobP} {
			want := tarport.Owner
			if errs[i] != nil {
				want = ""
				wantCode(t, "the second push", errs[i], tarport.Denied)
			}
			if got := db.role(t, p, "team"); got != want {
				t.Errorf("role of %s = %q, want %q", p.Name, got, want)
			}
		}
	})
}

func TestThePolicySaysWhoMayCreate(t *testing.T) {
	t.Parallel()
	ann, admin := tarport.Principal{UserID: 1, Name: "ann"}, tarport.Principal{UserID: 2, Name: "admin", Admin: true}
	robot, reading, elsewhere := ann, ann, ann
	robot.Robot, reading.ReadOnly, elsewhere.Namespace = true, true, "x"
	for _, c := range []struct {
		name   string
		policy NamespacePolicy
		p      tarport.Principal
		ns     string
		create bool
		push   bool
	}{
		{"a user", NamespacePolicy{}, ann, "team", true, true},
		{"a user, no pushes", NamespacePolicy{NoAutoCreate: true}, ann, "team", true, false},
		{"a user, admins only", NamespacePolicy{AdminsOnly: true}, ann, "team", false, false},
		{"a user's own, admins only", NamespacePolicy{AdminsOnly: true, Personal: true}, ann, "ann", true, true},
		{"a user's other, admins only", NamespacePolicy{AdminsOnly: true, Personal: true}, ann, "team", false, false},
		{"an admin, admins only", NamespacePolicy{AdminsOnly: true}, admin, "team", true, true},
		{"an admin, no pushes", NamespacePolicy{NoAutoCreate: true}, admin, "team", true, false},
		{"a robot", NamespacePolicy{}, robot, "team", false, false},
		{"a reading token", NamespacePolicy{}, reading, "team", false, false},
		{"a token for another", NamespacePolicy{}, elsewhere, "team", false, false},
		{"a token for this one", NamespacePolicy{}, elsewhere, "x", true, true},
		{"a stranger", NamespacePolicy{}, tarport.Principal{}, "team", false, false},
	} {
		if create, push := c.policy.MayCreate(c.p, c.ns), c.policy.MayPushNew(c.p, c.ns); create != c.create || push != c.push {
			t.Errorf("%s: create %v, push %v, want %v, %v", c.name, create, push, c.create, c.push)
		}
	}
}

func TestAPersonalNamespaceIsItsUsersAlone(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		bob, _ := db.person(t, "bob", false)
		db.policy = NamespacePolicy{AdminsOnly: true, Personal: true}
		_, annP := db.person(t, "ann", false)
		if got := db.role(t, annP, "ann"); got != tarport.Owner {
			t.Errorf("role in the personal namespace = %q, want owner", got)
		}
		check(t, "a push to the own name of who was there before", db.push(bob, "bob/app"))
		wantCode(t, "a push to another's", db.push(bob, "ann/app"), tarport.Denied)
		wantCode(t, "a push to a new one", db.push(bob, "team/app"), tarport.Denied)
		db.policy.AdminsOnly = false
		_, _ = db.person(t, "eve", false)
		admin, _ := db.person(t, "admin", true)
		_, err := db.DeleteNamespace(admin, "eve", false, db.clock.now())
		check(t, "DeleteNamespace", err)
		wantCode(t, "a push to the name of another user", db.push(bob, "eve/app"), tarport.Denied)
		wantCode(t, "creation of the name of another user", db.CreateNamespace(bob, NewNamespace{Name: "eve", Visibility: Private}), tarport.Conflict)
	})
}

func TestANamespaceKeepsAnOwnerAndTheRegistryAnAdministrator(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		admin, _ := db.person(t, "admin", true)
		ann, _ := db.person(t, "ann", false)
		_, bobP := db.person(t, "bob", false)
		check(t, "CreateNamespace", db.CreateNamespace(ann, NewNamespace{Name: "team", Visibility: Private}))
		wantCode(t, "the last owner's removal", db.RemoveMember(ann, "team", "ann"), tarport.Conflict)
		_, err := db.SetMember(ann, "team", "ann", tarport.Reader)
		wantCode(t, "the last owner's demotion", err, tarport.Conflict)
		added, err := db.SetMember(ann, "team", "bob", tarport.Owner)
		if !added || err != nil {
			t.Errorf("SetMember = %v, %v, want it added", added, err)
		}
		check(t, "one of two owners' removal", db.RemoveMember(ann, "team", "ann"))
		wantCode(t, "removal of who is no member", db.RemoveMember(ann, "team", "ann"), tarport.NotFound)
		_, err = db.SetMember(ann, "team", "nobody", tarport.Reader)
		wantCode(t, "a member who is nobody", err, tarport.NotFound)
		_, err = db.SetMember(ann, "nowhere", "bob", tarport.Reader)
		wantCode(t, "a member of no namespace", err, tarport.NotFound)
		list, err := db.Members(t.Context(), "team", 10, "")
		if err != nil || len(list) != 1 || list[0].Name != "bob" || list[0].Role != tarport.Owner {
			t.Errorf("Members = %+v, %v, want bob", list, err)
		}

		no, yes := false, true
		wantCode(t, "the last administrator's demotion", db.UpdateAccount(admin, "admin", AccountPatch{Admin: &no}), tarport.Conflict)
		wantCode(t, "the last administrator's end", db.UpdateAccount(admin, "admin", AccountPatch{Disabled: &yes}), tarport.Conflict)
		wantCode(t, "the last administrator's deletion", db.DeleteAccount(admin, "admin"), tarport.Conflict)
		check(t, "another administrator", db.UpdateAccount(admin, "bob", AccountPatch{Admin: &yes}))
		check(t, "deletion of one of two", db.DeleteAccount(admin, "admin"))
		wantCode(t, "deletion of nobody", db.DeleteAccount(admin, "admin"), tarport.NotFound)
		check(t, "deletion of a user", db.DeleteAccount(admin, "ann"))
		before := bobP.UserID
		_, again := db.person(t, "ann", false)
		if again.UserID <= before {
			t.Errorf("a new user has the id %d of an old one", again.UserID)
		}
		if got := db.role(t, again, "team"); got != "" {
			t.Errorf("who has a deleted user's name is %q of its namespace", got)
		}
	})
}

func TestANamespaceIsDeletedWithAllThatItHoldsOnlyByForce(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, annP := db.person(t, "ann", false)
		check(t, "push", db.push(ann, "team/app"))
		check(t, "PutManifests", db.PutManifests(ann, []ManifestPut{db.put("team/app", manifest("one"), "latest", "v1")}))
		check(t, "CreateRobot", db.CreateRobot(ann, "team", Robot{Login: "team+ci", Role: tarport.Writer}, "sha256:x"))
		_, err := db.DeleteNamespace(ann, "team", false, db.clock.in(time.Hour))
		wantCode(t, "deletion of what is not empty", err, tarport.Conflict)
		epoch := db.RightsEpoch()
		gone, err := db.DeleteNamespace(ann, "team", true, db.clock.in(time.Hour))
		want := Contents{Repositories: []string{"team/app"}, Manifests: 1}
		if diff := cmp.Diff(gone, want); diff != "" || err != nil {
			t.Errorf("DeleteNamespace: %v, -got +want\n%s", err, diff)
		}
		if db.RightsEpoch() == epoch {
			t.Error("what was read of rights before is still believed")
		}
		for _, table := range []string{"namespaces", "repositories", "manifests", "tags", "blob_links", "members"} {
			if n := db.count(t, "SELECT COUNT(*) FROM "+table); n != 0 {
				t.Errorf("%d rows in %s, want none", n, table)
			}
		}
		if n := db.count(t, `SELECT COUNT(*) FROM users WHERE namespace_id IS NOT NULL`); n != 0 {
			t.Errorf("%d robots are left", n)
		}
		bob, _ := db.person(t, "bob", false)
		check(t, "a push by somebody else under the old name", db.push(bob, "team/app"))
		wantCode(t, "a push by who had it", db.push(ann, "team/app"), tarport.Denied)
		if got := db.role(t, annP, "team"); got != "" {
			t.Errorf("who had the namespace is %q of the new one", got)
		}
	})
}

func TestListsShowOnlyWhatTheViewerMayRead(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, annP := db.person(t, "ann", false)
		bob, bobP := db.person(t, "bob", false)
		for ctx, repos := range map[context.Context][]string{ann: {"a/x_1", "a/y", "b/x"}, bob: {"c", "d/x21"}} {
			for _, r := range repos {
				check(t, "PutManifests", db.PutManifests(ctx, []ManifestPut{db.put(r, manifest("m"), "latest")}))
			}
		}
		check(t, "push", db.push(ann, "a/no-manifest"))
		public := Public
		check(t, "UpdateNamespace", db.UpdateNamespace(bob, "c", NamespacePatch{Visibility: &public}))
		_, err := db.SetMember(ann, "b", "bob", tarport.Reader)
		check(t, "SetMember", err)
		for _, c := range []struct {
			name  string
			v     Viewer
			ns, q string
			n     int
			last  string
			want  []string
		}{
			{"ann", Viewer{UserID: annP.UserID}, "", "", 10, "", []string{"a/x_1", "a/y", "b/x", "c"}},
			{"bob", Viewer{UserID: bobP.UserID}, "", "", 10, "", []string{"b/x", "c", "d/x21"}},
			{"stranger", Viewer{}, "", "", 10, "", []string{"c"}},
			{"admin", Viewer{All: true}, "", "", 10, "", []string{"a/x_1", "a/y", "b/x", "c", "d/x21"}},
			{"a page", Viewer{UserID: annP.UserID}, "", "", 2, "a/x_1", []string{"a/y", "b/x"}},
			{"a token", Viewer{UserID: annP.UserID, Namespace: "b"}, "", "", 10, "", []string{"b/x"}},
			{"an admin's token", Viewer{All: true, Namespace: "a"}, "", "", 10, "", []string{"a/x_1", "a/y"}},
			{"one namespace", Viewer{UserID: annP.UserID}, "a", "", 10, "", []string{"a/x_1", "a/y"}},
			{"another's namespace", Viewer{UserID: annP.UserID}, "d", "", 10, "", []string{}},
			{"a search", Viewer{All: true}, "", "x_", 10, "", []string{"a/x_1"}},
			{"a search for what is special", Viewer{All: true}, "", "%", 10, "", []string{}},
		} {
			rows, err := db.ListRepositories(t.Context(), c.v, c.ns, c.q, c.n, c.last)
			check(t, "ListRepositories", err)
			got := []string{}
			for _, r := range rows {
				got = append(got, r.Name)
			}
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Errorf("ListRepositories as %s: -got +want\n%s", c.name, diff)
			}
			if c.ns != "" || c.q != "" {
				continue
			}
			page, err := db.ReadableRepositories(t.Context(), c.v, c.n, c.last)
			check(t, "ReadableRepositories", err)
			if diff := cmp.Diff(append([]string{}, page.Names()...), c.want); diff != "" {
				t.Errorf("ReadableRepositories as %s: -got +want\n%s", c.name, diff)
			}
		}
		rows, err := db.Namespaces(t.Context(), Viewer{UserID: bobP.UserID}, 10, "")
		if err != nil || len(rows) != 3 || rows[0].Name != "b" || rows[0].Role != tarport.Reader || rows[0].Members != 2 || rows[0].Repositories != 1 {
			t.Errorf("Namespaces = %+v, %v, want b, c and d", rows, err)
		}
	})
}

func TestRobotsAreFoundInTheirOwnNamespaceOnly(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, _ := db.person(t, "ann", false)
		for _, ns := range []string{"team", "other"} {
			check(t, "CreateNamespace", db.CreateNamespace(ann, NewNamespace{Name: ns, Visibility: Private}))
		}
		check(t, "CreateRobot", db.CreateRobot(ann, "team", Robot{Login: "team+ci", Role: tarport.Writer, ExpiresAt: db.clock.in(time.Hour)}, "sha256:one"))
		wantCode(t, "a robot twice", db.CreateRobot(ann, "team", Robot{Login: "team+ci", Role: tarport.Writer}, "x"), tarport.Conflict)
		wantCode(t, "deletion by another namespace", db.DeleteRobot(ann, "other", "team+ci"), tarport.NotFound)
		_, err := db.UpdateRobot(ann, "other", "team+ci", RobotPatch{})
		wantCode(t, "a change by another namespace", err, tarport.NotFound)
		wantCode(t, "deletion of a person as a robot", db.DeleteRobot(ann, "team", "ann"), tarport.NotFound)
		wantCode(t, "deletion of a robot as a person", db.DeleteAccount(ann, "team+ci"), tarport.NotFound)
		_, err = db.SetMember(ann, "other", "team+ci", tarport.Owner)
		wantCode(t, "a robot as a member elsewhere", err, tarport.NotFound)

		u, err := db.UserByName(t.Context(), "team+ci")
		check(t, "UserByName", err)
		if !u.Robot() || !u.Live(db.clock.now()) || u.Live(db.clock.in(time.Hour)) {
			t.Errorf("robot = %+v, want it to live for an hour", u)
		}
		ctx := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: u.ID, Name: u.Name, Robot: true})
		check(t, "a robot's push", db.push(ctx, "team/app"))
		wantCode(t, "a robot's push elsewhere", db.push(ctx, "other/app"), tarport.Denied)
		wantCode(t, "a robot's push to a new namespace", db.push(ctx, "new/app"), tarport.Denied)
		off, role := true, tarport.Reader
		r, err := db.UpdateRobot(ann, "team", "team+ci", RobotPatch{Disabled: &off, Role: &role, Hash: "sha256:two"})
		if err != nil || !r.Disabled || r.Role != tarport.Reader {
			t.Errorf("UpdateRobot = %+v, %v", r, err)
		}
		now, err := db.UserByName(t.Context(), "team+ci")
		if err != nil || now.TokenEpoch != u.TokenEpoch+1 || now.PasswordHash != "sha256:two" || now.Live(db.clock.now()) {
			t.Errorf("robot after the change = %+v, %v", now, err)
		}
		check(t, "DeleteRobot", db.DeleteRobot(ann, "team", "team+ci"))
		list, err := db.Robots(t.Context(), "team", 10, "")
		if err != nil || len(list) != 0 {
			t.Errorf("Robots = %v, %v, want none", list, err)
		}
	})
}

func TestAccessTokensAreTheirUsersAlone(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		ann, annP := db.person(t, "ann", false)
		_, bobP := db.person(t, "bob", false)
		id, err := db.CreateAccessToken(ann, AccessToken{UserID: annP.UserID, Name: "ci", ReadOnly: true, Namespace: "team", ExpiresAt: db.clock.in(time.Hour)}, []byte("h"))
		check(t, "CreateAccessToken", err)
		_, err = db.CreateAccessToken(ann, AccessToken{UserID: annP.UserID, Name: "ci"}, []byte("i"))
		wantCode(t, "a name twice", err, tarport.Conflict)
		want := AccessToken{
			ID: id, UserID: annP.UserID, Name: "ci", ReadOnly: true, Namespace: "team",
			CreatedAt: db.clock.now().UTC(), ExpiresAt: db.clock.in(time.Hour).UTC(),
		}
		got, err := db.AccessTokenByHash(t.Context(), "ann", []byte("h"))
		if diff := cmp.Diff(got, want); diff != "" || err != nil {
			t.Errorf("AccessTokenByHash: %v, -got +want\n%s", err, diff)
		}
		wantCode(t, "a token under another name", second(db.AccessTokenByHash(t.Context(), "bob", []byte("h"))), tarport.NotFound)
		wantCode(t, "revocation by another user", db.RevokeAccessToken(t.Context(), bobP.UserID, id), tarport.NotFound)
		check(t, "TouchAccessTokens", db.TouchAccessTokens(t.Context(), map[int64]time.Time{id: db.clock.now(), 4711: db.clock.now()}))
		list, err := db.AccessTokens(t.Context(), annP.UserID, 10, 0)
		if err != nil || len(list) != 1 || !list[0].UsedAt.Equal(db.clock.now()) {
			t.Errorf("AccessTokens = %+v, %v, want one that was used now", list, err)
		}
		u, err := db.UserByName(t.Context(), "ann")
		check(t, "UserByName", err)
		check(t, "AddRefreshToken", db.AddRefreshToken(t.Context(), RefreshToken{Hash: []byte("r"), User: u, Service: "s", Family: "f", TokenID: id}, 2*time.Hour))
		check(t, "UseRefreshToken", second(db.UseRefreshToken(t.Context(), []byte("r"), "s", nil)))
		db.clock.advance(time.Hour)
		wantCode(t, "a token that is over", second(db.AccessTokenByID(t.Context(), id)), tarport.NotFound)
		wantCode(t, "a refresh token of a token that is over", second(db.UseRefreshToken(t.Context(), []byte("r"), "s", nil)), tarport.NotFound)
		check(t, "RevokeAccessToken", db.RevokeAccessToken(t.Context(), annP.UserID, id))
		if n := db.count(t, `SELECT COUNT(*) FROM refresh_tokens`); n != 0 {
			t.Errorf("%d refresh tokens of a revoked token are left", n)
		}
	})
}

func TestOf32RefreshesAtOnceOneWinsAndTheFamilyEnds(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		u, err := db.CreateUser(t.Context(), User{Name: "ann", PasswordHash: "x"})
		check(t, "CreateUser", err)
		for _, family := range []string{"one", "two"} {
			check(t, "AddRefreshToken", db.AddRefreshToken(t.Context(), RefreshToken{Hash: []byte(family), User: u, Service: "s", Family: family, Once: true}, time.Hour))
		}
		const tries = 32
		var errs [tries]error
		var wg sync.WaitGroup
		for i := range tries {
			wg.Go(func() { _, errs[i] = db.UseRefreshToken(t.Context(), []byte("one"), "s", []byte{'n', byte(i)}) })
		}
		wg.Wait()
		won := -1
		for i, err := range errs {
			if err == nil {
				if won >= 0 {
					t.Errorf("%d and %d won", won, i)
				}
				won = i
				continue
			}
			wantCode(t, "a refresh that lost", err, tarport.NotFound)
		}
		if won < 0 {
			t.Fatal("nobody won")
		}
		wantCode(t, "the successor after the reuse", second(db.UseRefreshToken(t.Context(), []byte{'n', byte(won)}, "s", []byte("x"))), tarport.NotFound)
		next, err := db.UseRefreshToken(t.Context(), []byte("two"), "s", []byte("two2"))
		if err != nil || next.User.ID != u.ID {
			t.Errorf("UseRefreshToken of another family = %+v, %v", next, err)
		}
		check(t, "the successor", second(db.UseRefreshToken(t.Context(), []byte("two2"), "s", []byte("two3"))))
		db.clock.advance(time.Hour) // the family ends with its first token
		wantCode(t, "a successor after its family's life", second(db.UseRefreshToken(t.Context(), []byte("two3"), "s", []byte("x"))), tarport.NotFound)
	})
}

func TestSigningKeysRetireOnceANewerOneIsKnownEverywhere(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		check(t, "AddSigningKey", db.AddSigningKey(t.Context(), "old", []byte{1}))
		db.clock.advance(time.Hour)
		check(t, "AddSigningKey", db.AddSigningKey(t.Context(), "new", []byte{2}))
		retired := func(what string, want map[string]bool) {
			t.Helper()
			check(t, "RetireSigningKeys", db.RetireSigningKeys(t.Context(), db.clock.in(-time.Minute), db.clock.in(time.Hour)))
			keys, err := db.SigningKeys(t.Context())
			check(t, "SigningKeys", err)
			got := map[string]bool{}
			for _, k := range keys {
				got[k.KID] = k.Retired
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("%s: -got +want\n%s", what, diff)
			}
		}
		retired("before the new one signs", map[string]bool{"old": false, "new": false})
		db.clock.advance(time.Minute)
		retired("when it signs", map[string]bool{"old": true, "new": false})
		db.clock.advance(time.Hour)
		retired("after the last token of the old one", map[string]bool{"new": false})
	})
}
