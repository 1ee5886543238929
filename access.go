package tarport

import (
	"context"
	"slices"
)

// Action is something that can be done to a repository.
type Action string

// The actions of the token protocol; others are asked for by routes of ours.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Principal is who asks. Every kind of credential becomes one. The zero value
// is the stranger who showed none.
type Principal struct {
	UserID int64  // the user's row; 0 for the stranger
	Name   string // the login name; "" for the stranger
	Admin  bool

	// Scope restricts what the credential may be used for, however much its
	// owner may do: nil is no restriction, empty allows nothing. It never
	// grants anything.
	Scope []Grant
}

// Grant allows actions on one repository.
type Grant struct {
	Repository string
	Actions    []Action
}

// Anonymous tells whether the principal showed no credential.
func (p Principal) Anonymous() bool { return p.UserID == 0 }

// InScope tells whether the credential may be used for a on the repository.
func (p Principal) InScope(a Action, repository string) bool {
	if p.Scope == nil {
		return true
	}
	return slices.ContainsFunc(p.Scope, func(g Grant) bool {
		return g.Repository == repository && slices.Contains(g.Actions, a)
	})
}

// Access is the one place where it is decided who may do what. Every route,
// the token service and the archive endpoints ask it before they touch
// content.
type Access interface {
	// Authorize returns nil where p may do a on the repository. Else the error
	// is UNAUTHORIZED for a stranger, who may log in, and NAME_UNKNOWN or
	// DENIED for anybody else: the same for a repository that does not exist
	// and for one that p may not see. It does not tell whether the repository
	// exists.
	Authorize(ctx context.Context, p Principal, a Action, repository string) error
}

type principalKey struct{}

// WithPrincipal returns a context that carries who asks.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns who asks; the stranger where nothing was said.
func PrincipalFrom(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
