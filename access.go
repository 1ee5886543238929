package tarport

import (
	"context"
	"slices"
)

// Action is something that can be done: to a repository, to a namespace, or to
// the registry.
type Action string

// The actions of the token protocol, on a repository.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// The actions of our own routes. Where they are done to a namespace, its name
// stands where Access wants a repository's; where to the registry, "".
const (
	RepositoryManage Action = "repository.manage" // describe a repository, delete it whole
	NamespaceRead    Action = "namespace.read"    // know that it is there, list its repositories
	NamespaceCreate  Action = "namespace.create"
	NamespaceManage  Action = "namespace.manage" // describe it, change its visibility, delete it
	MembersRead      Action = "members.read"
	MembersManage    Action = "members.manage"
	RobotsRead       Action = "robots.read"
	RobotsManage     Action = "robots.manage"
	ImmutableManage  Action = "immutable.manage"
	AuditRead        Action = "audit.read"
	QuotaManage      Action = "quota.manage"

	List         Action = "list"         // of what one may read
	Upload       Action = "upload"       // send an archive that is to be loaded: to who may push somewhere
	AccountRead  Action = "account.read" // one's own account and tokens
	AccountWrite Action = "account.write"
	UsersRead    Action = "users.read"
	UsersManage  Action = "users.manage"
	AuditReadAll Action = "audit.read_all"
)

// Role is what a member of a namespace is. Each may do what the ones before it
// may.
type Role string

// The roles; none is "".
const (
	Reader     Role = "reader"
	Writer     Role = "writer"
	Maintainer Role = "maintainer"
	Owner      Role = "owner"
)

var roles = []Role{"", Reader, Writer, Maintainer, Owner}

// CheckRole returns nil where r is one of the four roles, and else an INVALID
// error.
func CheckRole(r Role) error {
	if slices.Index(roles, r) < 1 {
		return Errorf(Invalid, "%q is no role: use reader, writer, maintainer or owner", string(r))
	}
	return nil
}

// AtLeast tells whether r may do what least may.
func (r Role) AtLeast(least Role) bool { return slices.Index(roles, r) >= slices.Index(roles, least) }

// Principal is who asks. Every kind of credential becomes one. The zero value
// is the stranger who showed none.
type Principal struct {
	UserID int64  // the user's row; 0 for the stranger
	Name   string // the login name; "" for the stranger
	Admin  bool
	Robot  bool // the account of a namespace, and not of a person

	// Scope restricts what the credential may be used for, however much its
	// owner may do: nil is no restriction, empty allows nothing. It never
	// grants anything.
	Scope []Grant

	// TokenID is the personal access token that was shown, or that a bearer
	// token comes from; 0 where none was. What follows is its name and its
	// restrictions.
	TokenID   int64
	TokenName string
	ReadOnly  bool
	Namespace string // the only namespace that the token is for; "" for all
}

// Grant allows actions on one repository.
type Grant struct {
	Repository string
	Actions    []Action
}

// API is the action of a grant, on the repository "", that makes a bearer token
// good for all that its owner may do.
const API Action = "api"

// Anonymous tells whether the principal showed no credential.
func (p Principal) Anonymous() bool { return p.UserID == 0 }

// InScope tells whether the credential may be used for a on the repository.
func (p Principal) InScope(a Action, repository string) bool {
	if p.Scope == nil {
		return true
	}
	return slices.ContainsFunc(p.Scope, func(g Grant) bool {
		return g.Repository == repository && slices.Contains(g.Actions, a) ||
			g.Repository == "" && slices.Contains(g.Actions, API)
	})
}

// Access is the one place where it is decided who may do what. Every route,
// the token service and the archive endpoints ask it before they touch
// content.
type Access interface {
	// Authorize returns nil where p may do a on the repository, or on the
	// namespace of that name. Else the error is UNAUTHORIZED for a stranger,
	// who may log in, and NAME_UNKNOWN, NOT_FOUND or DENIED for anybody else:
	// the same for what does not exist and for what p may not see. It does not
	// tell whether the repository exists.
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
