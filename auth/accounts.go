package auth

import (
	"context"
	"strings"

	"github.com/tarport/tarport"
)

const minPassword = 8 // bytes

// HashPassword is what is stored of a password that somebody chose. INVALID
// where it is too short or too long.
func (s *Service) HashPassword(ctx context.Context, password tarport.Secret) (string, error) {
	if n := len(password); n < minPassword || n > maxPassword {
		return "", tarport.Errorf(tarport.Invalid, "the password has %d bytes: use %d to %d", n, minPassword, maxPassword)
	}
	done, err := s.passwords.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return s.passwords.hash(password), nil
}

// CheckPassword returns nil where the password is the account's own, and not
// one of its access tokens; DENIED where it is not. It is under the limits of
// logins from the address of the call.
func (s *Service) CheckPassword(ctx context.Context, name string, password tarport.Secret) error {
	_, err := s.byPassword(ctx, name, password, tarport.CallFrom(ctx).Address)
	if tarport.ErrorCode(err) == tarport.Unauthorized {
		return tarport.Errorf(tarport.Denied, "the old password is wrong")
	}
	return err
}

// isUserName and isRobotName are by the grammar of a namespace: a user may get
// one of its own name. Anything else names nobody.
func isUserName(name string) bool {
	return len(name) <= maxUserName && tarport.CheckNamespace(name) == nil
}

func isRobotName(login string) bool {
	ns, name, ok := strings.Cut(login, "+")
	return ok && tarport.CheckNamespace(ns) == nil && isUserName(name)
}
