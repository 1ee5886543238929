package auth

import (
	"fmt"
	"testing"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// pat makes a personal access token of the administrator.
func (w *world) pat(t testing.TB, name string, life time.Duration) (tarport.Secret, int64) {
	t.Helper()
	secret, hash := w.NewAccessToken()
	row := metadata.AccessToken{UserID: w.admin(t).ID, Name: name}
	if life != 0 {
		row.ExpiresAt = w.clock.now().Add(life)
	}
	id, err := w.db.CreateAccessToken(t.Context(), row, hash)
	if err != nil {
		t.Fatalf("CreateAccessToken: %v", err)
	}
	return secret, id
}

// robot makes the robot team+ci.
func (w *world) robot(t testing.TB) tarport.Secret {
	t.Helper()
	ctx := tarport.WithPrincipal(t.Context(), identity{user: w.admin(t)}.principal())
	err := w.db.CreateNamespace(ctx, metadata.NewNamespace{Name: "team", Visibility: metadata.Private})
	secret, hash := w.NewRobotSecret()
	if err == nil {
		err = w.db.CreateRobot(ctx, "team", metadata.Robot{Login: "team+ci", Role: tarport.Reader}, hash)
	}
	if err != nil {
		t.Fatalf("make a robot: %v", err)
	}
	return secret
}

// Whoever fails costs one hash, whatever is wrong, and so takes the same time;
// a secret that cannot be guessed costs none.
func TestEveryFailedLoginCostsOneHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.pat(t, "ci", 0)
	expired, _ := w.pat(t, "old", time.Second)
	robot := w.robot(t)
	w.user(t, "gone", "gone's password")
	w.disable(t, "gone")
	w.clock.advance(time.Minute)
	for i, c := range []struct {
		what, name string
		password   tarport.Secret
		want       tarport.Code
		hashes     int
	}{
		{"a wrong password", "admin", "wrong", tarport.Unauthorized, 1},
		{"an unknown user", "nobody", "wrong", tarport.Unauthorized, 1},
		{"a disabled user", "gone", "gone's password", tarport.Unauthorized, 1},
		{"a wrong token", "admin", token + "x", tarport.Unauthorized, 1},
		{"a token that is over", "admin", expired, tarport.Unauthorized, 1},
		{"another's token", "gone", token, tarport.Unauthorized, 1},
		{"an unknown user's token", "nobody", token, tarport.Unauthorized, 1},
		{"a robot with a wrong secret", "team+ci", robot + "x", tarport.Unauthorized, 1},
		{"a robot with a password", "team+ci", "wrong", tarport.Unauthorized, 1},
		{"an unknown robot", "team+nobody", robot, tarport.Unauthorized, 1},
		{"a name that none can have", "no+bo+dy", "wrong", tarport.Unauthorized, 1},
		{"a token", "admin", token, "", 0},
		{"a robot", "team+ci", robot, "", 0},
	} {
		address := home.Next()
		for range i {
			address = address.Next()
		}
		n := w.hash.since(func() {
			_, err := w.login(t.Context(), c.name, c.password, address)
			wantCode(t, c.what, err, c.want)
		})
		if n != c.hashes {
			t.Errorf("%s costs %d hashes, want %d", c.what, n, c.hashes)
		}
	}
}

func TestFailedLoginsAreRecordedWithoutWhatWasTyped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"admin", "hunter2-typed-as-a-name"} {
		_, err := w.login(t.Context(), name, "wrong", home)
		wantCode(t, "login", err, tarport.Unauthorized)
	}
	events, err := w.db.Events(t.Context(), metadata.EventQuery{Action: metadata.EventLoginFailed}, 10)
	if err != nil || len(events) != 2 || events[1].Actor != "admin" || events[0].Actor != "" || events[0].Target != "" {
		t.Errorf("Events = %+v, %v, want one of admin and one of nobody", events, err)
	}
}

// Guessers of passwords do not lock out what cannot be guessed.
func TestTheLimitsOfPasswordsAreNotThoseOfTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, _ := w.pat(t, "ci", 0)
	for i := range loginLimits.PerAccount {
		_, err := w.login(t.Context(), "admin", tarport.Secret(fmt.Sprint("guess ", i)), home)
		wantCode(t, "a guess", err, tarport.Unauthorized)
	}
	_, err := w.login(t.Context(), "admin", testPassword, home)
	wantCode(t, "the password", err, tarport.TooManyRequests)
	if _, err := w.login(t.Context(), "admin", token, home); err != nil {
		t.Errorf("login by token: %v", err)
	}
}

// A replica that did not make a change believes what it knows for stateAge; the
// one that made it, not any longer.
func TestARevokedTokenEndsItsBearersOnEveryReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	otherDB := openDB(t, w.path, w.clock)
	other, _ := newService(t, otherDB, w.clock)
	secret, id := w.pat(t, "ci", 0)
	who, err := w.login(t.Context(), "admin", secret, home)
	if err != nil || who.token.ID != id {
		t.Fatalf("login = %+v, %v", who, err)
	}
	text, _, err := w.issue(t.Context(), who, []tarport.Grant{})
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	r := from(t.Context(), "Bearer "+text)
	for _, s := range []*Service{w.Service, other} {
		if p, err := s.Authenticate(r); err != nil || p.TokenID != id || p.TokenName != "ci" {
			t.Errorf("Authenticate = %+v, %v", p, err)
		}
	}
	if err := w.db.RevokeAccessToken(t.Context(), who.user.ID, id); err != nil {
		t.Fatalf("RevokeAccessToken: %v", err)
	}
	_, err = w.Authenticate(r)
	wantCode(t, "the bearer where it was revoked", err, tarport.Unauthorized)
	w.clock.advance(stateAge)
	_, err = other.Authenticate(r)
	wantCode(t, "the bearer on another replica", err, tarport.Unauthorized)
}

func TestRightsEndOnEveryReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.robot(t) // makes team
	other, _ := newService(t, openDB(t, w.path, w.clock), w.clock)
	u := w.user(t, "ann", testPassword)
	p := identity{user: u}.principal()
	if _, err := w.db.SetMember(t.Context(), "team", "ann", tarport.Writer); err != nil {
		t.Fatalf("SetMember: %v", err)
	}
	for _, s := range []*Service{w.Service, other} {
		if err := s.Authorize(t.Context(), p, tarport.Push, "team/app"); err != nil {
			t.Errorf("Authorize of a writer: %v", err)
		}
	}
	if err := w.db.RemoveMember(t.Context(), "team", "ann"); err != nil {
		t.Fatalf("RemoveMember: %v", err)
	}
	wantCode(t, "Authorize where it was removed", w.Authorize(t.Context(), p, tarport.Push, "team/app"), tarport.Denied)
	w.clock.advance(stateAge)
	wantCode(t, "Authorize on another replica", other.Authorize(t.Context(), p, tarport.Push, "team/app"), tarport.Denied)
}

func TestATokenThatIsOverIsLateForADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issued := w.clock.now()
	r := from(t.Context(), "Bearer "+w.token(t, "repository:team/app:push"))
	w.clock.advance(accessLife)
	_, err := w.Authenticate(r)
	wantCode(t, "Authenticate with a token that is over", err, tarport.Unauthorized)
	p, until, err := w.AuthenticateLate(r)
	if err != nil || p.Name != "admin" || !until.Equal(issued.Add(accessLife)) || !p.InScope(tarport.Push, "team/app") {
		t.Errorf("AuthenticateLate = %+v, %s, %v", p, until, err)
	}
	w.clock.advance(uploadGrace - time.Second)
	fresh, _ := newService(t, w.db, w.clock) // which has not seen the token
	if _, _, err := fresh.AuthenticateLate(r); err != nil {
		t.Errorf("AuthenticateLate in the last second: %v", err)
	}
	w.clock.advance(time.Second)
	for _, s := range []*Service{w.Service, fresh} {
		_, _, err = s.AuthenticateLate(r)
		wantCode(t, "AuthenticateLate after a day", err, tarport.Unauthorized)
	}
	r = from(t.Context(), "Bearer "+w.token(t))
	w.disable(t, "admin")
	w.clock.advance(accessLife)
	_, _, err = w.AuthenticateLate(r)
	wantCode(t, "AuthenticateLate of a disabled user", err, tarport.Unauthorized)
	_, _, err = w.AuthenticateLate(from(t.Context(), basicAuth("admin", testPassword)))
	wantCode(t, "AuthenticateLate with a password", err, tarport.Unauthorized)
}

func TestKeysRotateByTheClockAndOldTokensAreVerifiedToTheirEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := newService(t, w.db, w.clock)
	const life = 30 * 24 * time.Hour
	rotate := func() {
		t.Helper()
		if err := w.keys.rotate(t.Context(), life); err != nil {
			t.Fatalf("rotate: %v", err)
		}
	}
	first := w.keys.set.Load().signing.kid
	rotate()
	if n := len(w.keys.set.Load().byHeader); n != 1 {
		t.Fatalf("%d keys before it is time, want 1", n)
	}
	w.clock.advance(life)
	rotate()
	if set := w.keys.set.Load(); len(set.byHeader) != 2 || set.signing.kid != first {
		t.Errorf("%d keys, %s signs, want 2 and the old one still", len(set.byHeader), set.signing.kid)
	}
	old := from(t.Context(), "Bearer "+w.token(t))
	w.clock.advance(keyDelay + time.Second)
	rotate()
	if kid := w.keys.set.Load().signing.kid; kid == first {
		t.Error("the old key still signs when everybody knows the new one")
	}
	fresh := from(t.Context(), "Bearer "+w.token(t))
	for _, s := range []*Service{w.Service, other} {
		if _, err := s.Authenticate(old); err != nil {
			t.Errorf("Authenticate with the old key: %v", err)
		}
		if _, err := s.Authenticate(fresh); err != nil {
			t.Errorf("Authenticate with the new key: %v", err)
		}
	}
	w.clock.advance(uploadGrace)
	rotate()
	if _, _, err := w.AuthenticateLate(old); err != nil {
		t.Errorf("AuthenticateLate with the old key: %v", err)
	}
	w.clock.advance(time.Hour)
	rotate()
	if n := len(w.keys.set.Load().byHeader); n != 1 {
		t.Errorf("%d keys in the end, want 1", n)
	}
}

func TestTheLastUseOfATokenIsWrittenDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, id := w.pat(t, "ci", 0)
	w.clock.advance(time.Hour)
	for range 3 {
		if _, err := w.login(t.Context(), "admin", secret, home); err != nil {
			t.Fatalf("login: %v", err)
		}
	}
	if err := w.noteUses(t.Context()); err != nil {
		t.Fatalf("noteUses: %v", err)
	}
	got, err := w.db.AccessTokenByID(t.Context(), id)
	if err != nil || !got.UsedAt.Equal(w.clock.now()) {
		t.Errorf("used at %s, %v, want %s", got.UsedAt, err, w.clock.now())
	}
}
