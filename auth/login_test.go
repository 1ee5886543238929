package auth

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

func TestPasswordHashIsArgon2idWithItsParameters(t *testing.T) {
	t.Parallel()
	p := newPasswords()
	stored := p.hash(testPassword)
	want := fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonThreads)
	if !strings.HasPrefix(stored, want) {
		t.Errorf("hash = %s, want prefix %s", stored, want)
	}
	if stored == p.hash(testPassword) {
		t.Error("two hashes of one password are equal, want different salts")
	}
	for password, want := range map[tarport.Secret]bool{testPassword: true, testPassword + "x": false, "": false} {
		if got, err := p.matches(stored, password); got != want || err != nil {
			t.Errorf("matches(%q) = %v, %v, want %v", password.Reveal(), got, err, want)
		}
	}
	for _, broken := range []string{
		"", "x", stored[:len(stored)-1], stored + "=", strings.Replace(stored, "argon2id", "argon2i", 1),
		strings.Replace(stored, "m=19456", "m=8", 1), argonPrefix + "c2FsdA", argonPrefix + "c2FsdA$aGFzaA",
	} {
		if got, err := p.matches(broken, testPassword); got || err == nil {
			t.Errorf("matches of the stored hash %q = %v, %v, want an error", broken, got, err)
		}
	}
}

func TestFirstStartMakesTheAdministrator(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := openDB(t, filepath.Join(t.TempDir(), "meta.db"), c)
	s, _ := newService(t, db, c)
	generated, err := s.EnsureAdmin(t.Context(), "")
	if err != nil || len(generated) < 20 {
		t.Fatalf("EnsureAdmin = %d bytes, %v, want a random password", len(generated), err)
	}
	u, err := s.login(t.Context(), "admin", generated, home)
	if err != nil || u.user.Name != "admin" || !u.user.Admin {
		t.Errorf("login = %+v, %v, want the administrator", u, err)
	}
	again, err := s.EnsureAdmin(t.Context(), "")
	if err != nil || again != "" {
		t.Errorf("second EnsureAdmin = %d bytes, %v, want nothing", len(again), err)
	}
	if _, err := s.login(t.Context(), "admin", generated, home); err != nil {
		t.Errorf("login after the second start: %v", err)
	}
}

func TestReplicasThatStartAtOnceMakeOneAdministrator(t *testing.T) {
	t.Parallel()
	c := newClock()
	db := openDB(t, filepath.Join(t.TempDir(), "meta.db"), c)
	var wg sync.WaitGroup
	var mu sync.Mutex
	shown := []tarport.Secret{}
	var last *Service
	for range 4 {
		s, _ := newService(t, db, c)
		last = s
		wg.Go(func() {
			generated, err := s.EnsureAdmin(t.Context(), "")
			if err != nil {
				t.Errorf("EnsureAdmin: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if generated != "" {
				shown = append(shown, generated)
			}
		})
	}
	wg.Wait()
	if len(shown) != 1 {
		t.Fatalf("%d passwords were shown, want 1", len(shown))
	}
	if _, err := last.login(t.Context(), "admin", shown[0], home); err != nil {
		t.Errorf("login with the password that was shown: %v", err)
	}
}

func TestGivenPasswordWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log strings.Builder
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	access := w.token(t)
	if _, err := w.Authenticate(from(t.Context(), "Bearer "+access)); err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	refresh, err := w.issueRefresh(t.Context(), identity{user: w.admin(t)}, dockerClient)
	if err != nil {
		t.Fatalf("issueRefresh: %v", err)
	}
	before := w.admin(t)

	if generated, err := w.EnsureAdmin(t.Context(), testPassword); generated != "" || err != nil {
		t.Errorf("EnsureAdmin with the same password = %q, %v", generated, err)
	}
	if after := w.admin(t); after != before {
		t.Errorf("the same password changed the row to %+v, want %+v", after, before)
	}
	if _, _, err := w.refresh(t.Context(), tarport.Secret(refresh)); err != nil {
		t.Errorf("refresh after the same password: %v", err)
	}

	const other = "another password"
	if generated, err := w.EnsureAdmin(t.Context(), other); generated != "" || err != nil {
		t.Errorf("EnsureAdmin with another password = %q, %v", generated, err)
	}
	_, err = w.login(t.Context(), "admin", testPassword, home)
	wantCode(t, "login with the old password", err, tarport.Unauthorized)
	if _, err := w.login(t.Context(), "admin", other, home); err != nil {
		t.Errorf("login with the new password: %v", err)
	}
	_, _, err = w.refresh(t.Context(), tarport.Secret(refresh))
	wantCode(t, "refresh token of the old password", err, tarport.Unauthorized)
	_, err = w.Authenticate(from(t.Context(), "Bearer "+access))
	wantCode(t, "access token of the old password", err, tarport.Unauthorized)

	for _, line := range []string{"the password of an account was set anew", "user=admin", "TARPORT_ADMIN_PASSWORD"} {
		if n := strings.Count(log.String(), line); n != 1 {
			t.Errorf("the log has %q %d times, want once:\n%s", line, n, log.String())
		}
	}
	if strings.Contains(log.String(), other) {
		t.Errorf("the log has the password:\n%s", log.String())
	}

	if _, err := w.EnsureAdmin(t.Context(), tarport.Secret(strings.Repeat("x", maxPassword+1))); err == nil {
		t.Error("EnsureAdmin with a password that no login may send = nil, want an error")
	}
}

func TestRefreshTokenIssuedWhileThePasswordChangesIsVoid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.admin(t) // as a login read it
	if err := w.db.SetPassword(t.Context(), u.ID, w.passwords.hash("another")); err != nil {
		t.Fatalf("SetPassword: %v", err)
	}
	refresh, err := w.issueRefresh(t.Context(), identity{user: u}, dockerClient)
	if err != nil {
		t.Fatalf("issueRefresh: %v", err)
	}
	_, _, err = w.refresh(t.Context(), tarport.Secret(refresh))
	wantCode(t, "refresh", err, tarport.Unauthorized)
}

// The time of an answer is that of its hashes: each login that is refused costs
// one, whatever the reason, and has the same words.
func TestRefusedLoginsCostTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, "gone", testPassword)
	w.disable(t, "gone")
	var texts []string
	for i, c := range []struct {
		name     string
		password tarport.Secret
	}{
		{"admin", "wrong"},
		{"nobody", "wrong"},
		{"gone", "wrong"},
		{"gone", testPassword},
		{"gone", testPassword},
		{"", ""},
		{"", "wrong"},
		{"no such name", "wrong"},
		{"NUL\x00\xff", "wrong"},
		{strings.Repeat("x", 5000), "wrong"},
		{"admin'--", "wrong"},
	} {
		address := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		n := w.hash.since(func() {
			_, err := w.login(t.Context(), c.name, c.password, address)
			wantCode(t, fmt.Sprintf("login(%.20q)", c.name), err, tarport.Unauthorized)
			texts = append(texts, err.Error())
		})
		if n != 1 {
			t.Errorf("login(%.20q) took %d hashes, want 1", c.name, n)
		}
	}
	if len(slices.Compact(texts)) != 1 {
		t.Errorf("answers = %q, want all the same", texts)
	}
	n := w.hash.since(func() {
		_, err := w.login(t.Context(), "admin", tarport.Secret(strings.Repeat("x", maxPassword+1)), home)
		wantCode(t, "login with an oversized password", err, tarport.Unauthorized)
	})
	if n != 0 {
		t.Errorf("a password over the limit took %d hashes, want none", n)
	}
}

// PostgreSQL refuses texts that SQLite takes.
func TestLoginOnPostgreSQL(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _ := newService(t, openDB(t, metadatatest.Postgres(t), c), c)
	if _, err := s.EnsureAdmin(t.Context(), testPassword); err != nil {
		t.Fatalf("EnsureAdmin: %v", err)
	}
	for _, name := range []string{"nobody", "NUL\x00", "\xff", "admin "} {
		_, err := s.login(t.Context(), name, testPassword, home)
		wantCode(t, fmt.Sprintf("login(%q)", name), err, tarport.Unauthorized)
	}
	u, err := s.login(t.Context(), "admin", testPassword, home)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	refresh, err := s.issueRefresh(t.Context(), u, dockerClient)
	if err != nil {
		t.Fatalf("issueRefresh: %v", err)
	}
	if got, _, err := s.refresh(t.Context(), tarport.Secret(refresh)); err != nil || got != u {
		t.Errorf("refresh = %+v, %v, want %+v", got, err, u)
	}
	if _, err = s.EnsureAdmin(t.Context(), "another"); err != nil {
		t.Errorf("EnsureAdmin with another password: %v", err)
	}
	_, _, err = s.refresh(t.Context(), tarport.Secret(refresh))
	wantCode(t, "refresh after the password changed", err, tarport.Unauthorized)
}

func TestRightPasswordIsHashedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	login := func() {
		if _, err := w.login(t.Context(), "admin", testPassword, home); err != nil {
			t.Errorf("login: %v", err)
		}
	}
	if n := w.hash.since(func() {
		for range 50 {
			login()
		}
	}); n != 1 {
		t.Errorf("50 logins took %d hashes, want 1", n)
	}
	w.clock.advance(loginLife)
	if n := w.hash.since(login); n != 1 {
		t.Errorf("login after %s took %d hashes, want 1", loginLife, n)
	}
	if n := w.hash.since(func() {
		_, err := w.login(t.Context(), "admin", "wrong", home)
		wantCode(t, "login with a wrong password", err, tarport.Unauthorized)
	}); n != 1 {
		t.Errorf("a wrong password took %d hashes, want 1", n)
	}
	// The same password under another hash is another entry.
	if err := w.db.SetPassword(t.Context(), w.admin(t).ID, w.passwords.hash(testPassword)); err != nil {
		t.Fatalf("SetPassword: %v", err)
	}
	if n := w.hash.since(login); n != 1 {
		t.Errorf("login after the hash changed took %d hashes, want 1", n)
	}
	w.disable(t, "admin")
	_, err := w.login(t.Context(), "admin", testPassword, home)
	wantCode(t, "login of a disabled user whose password is remembered", err, tarport.Unauthorized)
}

func TestParallelLoginsHashTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 32 {
		address := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		wg.Go(func() {
			_, err := w.login(t.Context(), "admin", tarport.Secret(fmt.Sprintf("wrong %d", i)), address)
			wantCode(t, "login", err, tarport.Unauthorized)
		})
	}
	wg.Wait()
	if w.hash.max > maxHashing {
		t.Errorf("%d hashes ran at once, want at most %d", w.hash.max, maxHashing)
	}
}

func TestTheSameRightLoginAtTheSameTimeIsHashedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.hash.since(func() {
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if _, err := w.login(t.Context(), "admin", testPassword, home); err != nil {
					t.Errorf("login: %v", err)
				}
			})
		}
		wg.Wait()
	})
	if n != 1 {
		t.Errorf("32 logins took %d hashes, want 1", n)
	}
}

func TestLoginsBeyondTheQueueAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords()
		end := make(chan struct{})
		var wg sync.WaitGroup
		for range maxHashing + maxQueue {
			wg.Go(func() {
				done, err := p.turn(t.Context())
				if err != nil {
					t.Errorf("turn: %v", err)
					return
				}
				<-end
				done()
			})
		}
		synctest.Wait()
		_, err := p.turn(t.Context())
		wantCode(t, "turn with a full queue", err, tarport.TooManyRequests)
		if retryAfter(err) <= 0 {
			t.Errorf("retryAfter(%v) = 0, want a time", err)
		}
		close(end)
		wg.Wait()
		done, err := p.turn(t.Context())
		if err != nil {
			t.Fatalf("turn with an empty queue: %v", err)
		}
		done()
		if len(p.queue) != 0 || len(p.slots) != 0 {
			t.Errorf("%d in the queue, %d slots taken, want none", len(p.queue), len(p.slots))
		}
	})
}

func TestGuessingIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(t, "other", testPassword)
	elsewhere := netip.MustParseAddr("198.51.100.7")
	guess := func(i int) error {
		_, err := w.login(t.Context(), "admin", tarport.Secret(fmt.Sprintf("guess %d", i)), home)
		return err
	}
	if _, err := w.login(t.Context(), "admin", testPassword, home); err != nil {
		t.Fatalf("login: %v", err)
	}
	for i := range loginLimits.PerAccount {
		wantCode(t, fmt.Sprintf("guess %d", i), guess(i), tarport.Unauthorized)
		w.clock.advance(time.Second)
	}
	n := w.hash.since(func() {
		err := guess(99)
		wantCode(t, "guess over the limit", err, tarport.TooManyRequests)
		// The first of the ten was made 10 s ago.
		if got, want := retryAfter(err), loginLimits.Window-10*time.Second; got != want {
			t.Errorf("retryAfter = %s, want %s", got, want)
		}
		// It is remembered as right; to say so would answer a guess.
		_, err = w.login(t.Context(), "admin", testPassword, home)
		wantCode(t, "right password over the limit", err, tarport.TooManyRequests)
	})
	if n != 0 {
		t.Errorf("logins over the limit took %d hashes, want none", n)
	}
	if _, err := w.login(t.Context(), "admin", testPassword, elsewhere); err != nil {
		t.Errorf("login from elsewhere: %v", err)
	}
	if _, err := w.login(t.Context(), "other", testPassword, home); err != nil {
		t.Errorf("login of another user from there: %v", err)
	}

	again, _ := newService(t, w.db, w.clock) // a restart
	_, err := again.login(t.Context(), "admin", testPassword, home)
	wantCode(t, "login after a restart", err, tarport.TooManyRequests)

	w.clock.advance(loginLimits.Window - 10*time.Second)
	wantCode(t, "guess once the first left the window", guess(100), tarport.Unauthorized)
	wantCode(t, "the next", guess(101), tarport.TooManyRequests)
	w.clock.advance(loginLimits.Window)
	if _, err := w.login(t.Context(), "admin", testPassword, home); err != nil {
		t.Errorf("login after the window: %v", err)
	}
}

func TestGuessingManyAccountsFromOneAddressIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// One customer has a whole network of IPv6 addresses.
	address := func(i int) netip.Addr {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i+1))
	}
	for i := range loginLimits.PerAddress {
		_, err := w.login(t.Context(), fmt.Sprintf("user%d", i), "guess", address(i))
		wantCode(t, fmt.Sprintf("guess %d", i), err, tarport.Unauthorized)
	}
	_, err := w.login(t.Context(), "admin", testPassword, address(1000))
	wantCode(t, "login from the address", err, tarport.TooManyRequests)
	if _, err := w.login(t.Context(), "admin", testPassword, netip.MustParseAddr("2001:db8:1:3::1")); err != nil {
		t.Errorf("login from the next network: %v", err)
	}
}

func TestParallelGuessesCannotPassAsTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	codes := make([]tarport.Code, 32)
	w.hash.pause = make(chan struct{})
	n := w.hash.since(func() {
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() {
				_, err := w.login(t.Context(), "admin", tarport.Secret(fmt.Sprintf("guess %d", i)), home)
				codes[i] = tarport.ErrorCode(err)
			})
		}
		// All have asked whether they may before the first one is answered.
		for len(w.passwords.queue) < len(codes) && t.Context().Err() == nil {
			runtime.Gosched()
		}
		close(w.hash.pause)
		wg.Wait()
	})
	if n != loginLimits.PerAccount {
		t.Errorf("32 guesses at once took %d hashes, want %d", n, loginLimits.PerAccount)
	}
	refused := 0
	for _, c := range codes {
		if c == tarport.TooManyRequests {
			refused++
		} else if c != tarport.Unauthorized {
			t.Errorf("a guess = %q, want %q", c, tarport.Unauthorized)
		}
	}
	if want := 32 - loginLimits.PerAccount; refused != want {
		t.Errorf("%d guesses were refused with 429, want %d", refused, want)
	}
}

func TestLoginKeys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := addressKey(netip.MustParseAddr(in)); got != want {
			t.Errorf("addressKey(%s) = %s, want %s", in, got, want)
		}
	}
	if got := addressKey(netip.Addr{}); got == "" {
		t.Error("addressKey of an unknown address is empty")
	}
	if key := accountKey("my secret, typed into the wrong field"); strings.Contains(key, "secret") {
		t.Errorf("accountKey = %s, which tells the name", key)
	}
	c := newLoginCache()
	u := metadata.User{ID: 1, PasswordHash: "ab"}
	if c.of(u, "c") == c.of(metadata.User{ID: 1, PasswordHash: "a"}, "bc") || c.of(u, "c", "d") == c.of(u, "cd") {
		t.Error("different logins have the same key")
	}
}

// TestMemoryIsGivenBackNowAndThen: however many logins fail, and however long a
// collection takes, that is not what the processor is busy with.
func TestMemoryIsGivenBackNowAndThen(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := newPasswords()
			freed := 0
			p.free = func() {
				freed++
				<-time.After(took)
			}
			for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
				done, err := p.turn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				done()
			}
			if busy := time.Duration(freed) * took; freed == 0 || busy > time.Minute/25 {
				t.Errorf("a minute of logins: memory was given back %d times, which took %s", freed, busy)
			}
		})
	}
}
