package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// loginLimits bound guessing. The small number is per account and address: a
// guesser elsewhere must not lock the owner out.
var loginLimits = metadata.LoginLimits{Window: 5 * time.Minute, PerAccount: 10, PerAddress: 100}

// maxUserName is the longest name of a user, and of a robot without its
// namespace.
const maxUserName = 64

// login finds who a name and a password, access token or robot's secret belong
// to. A secret of 256 random bits that is right passes at once. Everything else
// is byPassword's.
func (s *Service) login(ctx context.Context, name string, password tarport.Secret, from netip.Addr) (_ identity, err error) {
	defer func() {
		switch tarport.ErrorCode(err) {
		case tarport.Unauthorized:
			s.wrong.Add(1)
		case tarport.TooManyRequests:
			s.limited.Add(1)
		}
	}()
	if len(password) > maxPassword {
		return identity{}, wrongLogin()
	}
	if id, found, err := s.bySecret(ctx, name, password); err != nil || found {
		return id, err
	}
	u, err := s.byPassword(ctx, name, password, from)
	return identity{user: u}, err
}

// LoginsRefused tells how many logins were refused since the start: for a wrong
// name, password, token or secret, and because too many had been wrong.
func (s *Service) LoginsRefused() (wrong, limited int64) { return s.wrong.Load(), s.limited.Load() }

// byPassword finds the user of a name and password. Unknown, disabled and wrong
// cannot be told apart, neither by the answer nor by its time: each costs one
// hash of the same parameters, a wrong secret of a robot too. The limits come
// first, also for a password that is remembered as right, or else the memory
// would answer the guesses that the limits refuse.
func (s *Service) byPassword(ctx context.Context, name string, password tarport.Secret, from netip.Addr) (metadata.User, error) {
	if len(password) > maxPassword {
		return metadata.User{}, wrongLogin()
	}
	account, address := accountKey(name), addressKey(from)
	wait, err := s.db.LoginWait(ctx, account, address, loginLimits)
	if err != nil {
		return metadata.User{}, err
	}
	if wait > 0 {
		return metadata.User{}, tooMany("too many failed logins", wait)
	}
	u, err := s.userOrDummy(ctx, name)
	if err != nil {
		return metadata.User{}, err
	}
	if err := s.checkOnce(ctx, u, password, account, address); err != nil {
		return metadata.User{}, err
	}
	if u.Disabled {
		return metadata.User{}, wrongLogin()
	}
	return u, nil
}

// checkOnce is check, but for a login that was right a short time ago, and for
// one that is being checked: the same login at the same time is one login. It
// goes on when the client who came first goes away, as others wait for it.
func (s *Service) checkOnce(ctx context.Context, u metadata.User, password tarport.Secret, account, address string) error {
	key := s.logins.of(u, password)
	if s.logins.has(key, s.now()) {
		return nil
	}
	flight := s.logins.of(u, password, account, address)
	_, err, _ := s.checks.Do(string(flight[:]), func() (any, error) {
		if s.logins.has(key, s.now()) { // by the flight that ended just now
			return nil, nil
		}
		if err := s.check(context.WithoutCancel(ctx), u, password, account, address); err != nil {
			return nil, err
		}
		s.logins.add(key, s.now())
		return nil, nil
	})
	return err
}

// check hashes the password and compares. The try is noted once it is its turn:
// until then it has learned nothing, and of tries at the same time only
// maxHashing can read the count before they raise it.
func (s *Service) check(ctx context.Context, u metadata.User, password tarport.Secret, account, address string) error {
	done, err := s.passwords.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	id, wait, err := s.db.BeginLogin(ctx, account, address, loginLimits)
	if err != nil {
		return err
	}
	if wait > 0 {
		return tooMany("too many failed logins", wait)
	}
	right, err := s.passwords.matches(u.PasswordHash, password)
	if err != nil {
		return fmt.Errorf("check the password of user %d: %w", u.ID, err)
	}
	if !right || u.ID == 0 || u.Disabled {
		return s.failed(ctx, u)
	}
	return s.db.EndLogin(ctx, id)
}

// failed records a login that failed. A name that no account has is not kept:
// people type passwords into its field.
func (s *Service) failed(ctx context.Context, u metadata.User) error {
	err := s.db.Record(ctx, metadata.Event{Action: metadata.EventLoginFailed, ActorID: u.ID, Actor: u.Name, Target: u.Name})
	if err != nil {
		return err
	}
	return wrongLogin()
}

// userOrDummy reads the user of a name; where there is none it is one without
// an id, whose password nobody knows. A robot has no password.
func (s *Service) userOrDummy(ctx context.Context, name string) (metadata.User, error) {
	if !isUserName(name) && !isRobotName(name) {
		name = "" // what a database cannot hold, it is not asked for
	}
	u, err := s.db.UserByName(ctx, name)
	switch {
	case tarport.ErrorCode(err) == tarport.NotFound:
		return metadata.User{PasswordHash: s.passwords.dummy}, nil
	case err == nil && u.Robot():
		return metadata.User{Name: u.Name, PasswordHash: s.passwords.dummy}, nil
	}
	return u, err
}

func accountKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// addressKey is the address whose failures count together: of IPv6 the network
// that one customer gets.
func addressKey(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

func wrongLogin() error {
	return tarport.Errorf(tarport.Unauthorized, "the user name or the password is wrong")
}

func tooMany(what string, wait time.Duration) error {
	wait = (wait + time.Second - 1).Truncate(time.Second) // Retry-After counts seconds
	return tarport.Errorf(tarport.TooManyRequests, "%s, try again in %s", what, wait).Because(retryError(wait))
}

// retryError is the cause of an error that passes.
type retryError time.Duration

func (e retryError) Error() string { return "may be tried again after " + time.Duration(e).String() }

// retryAfter is how long to wait after err; 0 where it does not say.
func retryAfter(err error) time.Duration {
	e, _ := errors.AsType[retryError](err)
	return time.Duration(e)
}

// adminName is the account that the first start makes.
const adminName = "admin"

// EnsureAdmin makes the account of the administrator where there is none, with
// the password, or with a random one where it is empty, which is returned to be
// shown once. Where there is one a password that is given wins: if it is not
// the account's it is set anew, which the log says, and what was handed out for
// the old one is void. What else is wrong with the account stays, and the log
// says that too.
func (s *Service) EnsureAdmin(ctx context.Context, password tarport.Secret) (generated tarport.Secret, err error) {
	if len(password) > maxPassword {
		return "", fmt.Errorf("the administrator's password is longer than %d bytes", maxPassword)
	}
	u, err := s.db.UserByName(ctx, adminName)
	switch {
	case tarport.ErrorCode(err) == tarport.NotFound:
		return s.createAdmin(ctx, password)
	case err != nil || password == "":
		return "", err
	}
	if u.Disabled || !u.Admin {
		s.log.LogAttrs(ctx, slog.LevelWarn, "an account is no administrator's", slog.String("user", adminName), slog.String("text",
			"it is disabled, or its rights were taken, which TARPORT_ADMIN_PASSWORD does not change: another administrator can"))
	}
	right, err := s.passwords.matches(u.PasswordHash, password)
	if err != nil || right {
		return "", err
	}
	if err := s.db.SetPassword(ctx, u.ID, s.passwords.hash(password)); err != nil {
		return "", err
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "the password of an account was set anew", slog.String("user", adminName), slog.String("text",
		"TARPORT_ADMIN_PASSWORD is another than the account had, and wins at each start; where the variable is not set, a password lasts that is changed by tarport user passwd"))
	return "", nil
}

func (s *Service) createAdmin(ctx context.Context, password tarport.Secret) (generated tarport.Secret, err error) {
	if password == "" {
		generated = tarport.Secret(rand.Text())
		password = generated
	}
	_, err = s.db.CreateUser(ctx, metadata.User{Name: adminName, PasswordHash: s.passwords.hash(password), Admin: true})
	switch {
	case err == nil:
		return generated, nil
	case tarport.ErrorCode(err) != tarport.Conflict:
		return "", err
	case generated != "": // another replica was first, and shows the password
		return "", nil
	}
	return s.EnsureAdmin(ctx, password)
}
