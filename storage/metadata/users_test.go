package metadata_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// onEachDatabase runs fn on SQLite and on PostgreSQL, with a clock that only
// moves when it is told to.
func onEachDatabase(t *testing.T, fn func(t *testing.T, db *metadata.DB, advance func(time.Duration))) {
	t.Helper()
	metadatatest.Each(t, func(t *testing.T, dsn string) {
		t.Helper()
		var mu sync.Mutex
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		db := metadatatest.Open(t, metadata.Options{DSN: dsn, Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}})
		fn(t, db, func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
		})
	})
}

func createUser(t *testing.T, db *metadata.DB, u metadata.User) metadata.User {
	t.Helper()
	made, err := db.CreateUser(t.Context(), u)
	if err != nil {
		t.Fatalf("CreateUser(%+v): %v", u, err)
	}
	return made
}

func TestUsers(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, db *metadata.DB, _ func(time.Duration)) {
		admin := createUser(t, db, metadata.User{Name: "admin", PasswordHash: "one", Admin: true})
		want := metadata.User{ID: admin.ID, Name: "admin", PasswordHash: "one", Admin: true, TokenEpoch: 1}
		if diff := cmp.Diff(admin, want); diff != "" || admin.ID == 0 {
			t.Errorf("CreateUser: -got +want\n%s", diff)
		}
		user := createUser(t, db, metadata.User{Name: "user", PasswordHash: "two"})
		if user.Admin || user.ID == admin.ID {
			t.Errorf("CreateUser = %+v, want another user, no administrator", user)
		}
		_, err := db.CreateUser(t.Context(), metadata.User{Name: "admin", PasswordHash: "three"})
		if tarport.ErrorCode(err) != tarport.Conflict {
			t.Errorf("CreateUser of a name that is taken = %v, want %s", err, tarport.Conflict)
		}
		if got, err := db.UserByName(t.Context(), "admin"); got != admin || err != nil {
			t.Errorf("UserByName = %+v, %v, want %+v", got, err, admin)
		}
		if got, err := db.UserByID(t.Context(), user.ID); got != user || err != nil {
			t.Errorf("UserByID = %+v, %v, want %+v", got, err, user)
		}
		if _, err := db.UserByID(t.Context(), 4711); tarport.ErrorCode(err) != tarport.NotFound {
			t.Errorf("UserByID of nobody = %v, want %s", err, tarport.NotFound)
		}
		if _, err := db.UserByName(t.Context(), "Admin"); tarport.ErrorCode(err) != tarport.NotFound {
			t.Errorf("UserByName in other letters = %v, want %s", err, tarport.NotFound)
		}
		if err := db.SetPassword(t.Context(), 4711, "x"); tarport.ErrorCode(err) != tarport.NotFound {
			t.Errorf("SetPassword of nobody = %v, want %s", err, tarport.NotFound)
		}
	})
}

func TestRefreshTokens(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, db *metadata.DB, advance func(time.Duration)) {
		u := createUser(t, db, metadata.User{Name: "admin", PasswordHash: "one"})
		add := func(hash string, u metadata.User) {
			if err := db.AddRefreshToken(t.Context(), metadata.RefreshToken{Hash: []byte(hash), User: u, Service: "here", Family: hash}, time.Hour); err != nil {
				t.Errorf("AddRefreshToken(%s): %v", hash, err)
			}
		}
		check := func(what, hash, service string, want tarport.Code) {
			t.Helper()
			got, err := db.UseRefreshToken(t.Context(), []byte(hash), service, nil)
			if tarport.ErrorCode(err) != want || want == "" && got.User.ID != u.ID {
				t.Errorf("UseRefreshToken of %s = %+v, %v, want %q", what, got, err, want)
			}
		}
		add("one", u)
		check("a token", "one", "here", "")
		check("a token for another service", "one", "there", tarport.NotFound)
		check("no token", "two", "here", tarport.NotFound)
		advance(time.Hour - time.Microsecond)
		check("a token in its last moment", "one", "here", "")
		advance(time.Microsecond)
		check("a token after its life", "one", "here", tarport.NotFound)

		add("two", u)
		if err := db.SetPassword(t.Context(), u.ID, "another"); err != nil {
			t.Fatalf("SetPassword: %v", err)
		}
		check("a token of the old password", "two", "here", tarport.NotFound)
		add("three", u) // by a login with the old password that comes late
		check("a late token of the old password", "three", "here", tarport.NotFound)
		now, err := db.UserByID(t.Context(), u.ID)
		if err != nil || now.TokenEpoch != u.TokenEpoch+1 || now.PasswordHash != "another" {
			t.Errorf("UserByID after SetPassword = %+v, %v", now, err)
		}
		add("four", now)
		check("a token of the new password", "four", "here", "")
	})
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, db *metadata.DB, advance func(time.Duration)) {
		if keys, err := db.SigningKeys(t.Context()); err != nil || len(keys) != 0 {
			t.Errorf("SigningKeys of a new database = %v, %v, want none", keys, err)
		}
		for _, kid := range []string{"old", "new"} {
			if err := db.AddSigningKey(t.Context(), kid, []byte{0, 0xff, 1}); err != nil {
				t.Fatalf("AddSigningKey: %v", err)
			}
			advance(time.Second)
		}
		keys, err := db.SigningKeys(t.Context())
		if err != nil || len(keys) != 2 || keys[0].KID != "new" || keys[1].KID != "old" {
			t.Fatalf("SigningKeys = %v, %v, want the newest first", keys, err)
		}
		if keys[0].Retired || !bytes.Equal(keys[0].Sealed, []byte{0, 0xff, 1}) {
			t.Errorf("key = %+v, want it as stored and not retired", keys[0])
		}
		if err := db.AddSigningKey(t.Context(), "new", nil); err == nil {
			t.Error("AddSigningKey of one that is there = nil, want an error")
		}
	})
}

func TestFailedLogins(t *testing.T) {
	t.Parallel()
	limits := metadata.LoginLimits{Window: time.Minute, PerAccount: 2, PerAddress: 4}
	onEachDatabase(t, func(t *testing.T, db *metadata.DB, advance func(time.Duration)) {
		try := func(account, address string, want time.Duration) (id int64) {
			t.Helper()
			got, err := db.LoginWait(t.Context(), account, address, limits)
			if got != want || err != nil {
				t.Errorf("LoginWait(%s, %s) = %s, %v, want %s", account, address, got, err, want)
			}
			id, got, err = db.BeginLogin(t.Context(), account, address, limits)
			if got != want || err != nil || (id == 0) != (want > 0) {
				t.Errorf("BeginLogin(%s, %s) = %d, %s, %v, want %s", account, address, id, got, err, want)
			}
			return id
		}
		try("a", "home", 0)
		advance(10 * time.Second)
		if err := db.EndLogin(t.Context(), try("a", "home", 0)); err != nil { // the password was right
			t.Errorf("EndLogin: %v", err)
		}
		try("a", "home", 0)
		advance(10 * time.Second)
		try("a", "home", 40*time.Second) // until the first one is a minute old
		try("a", "away", 0)
		try("b", "home", 0)
		try("c", "home", 0)
		try("d", "home", 40*time.Second)
		advance(40 * time.Second)
		try("d", "home", 0)
		try("e", "home", 10*time.Second)
		advance(time.Hour)
		try("a", "home", 0)
	})
}
