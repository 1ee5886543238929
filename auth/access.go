package auth

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

var _ tarport.Access = (*Service)(nil)

// Authorize implements tarport.Access. Where a logged-in user may do it but
// the token that came was not made for it, the error is UNAUTHORIZED too: a
// client that asks for another token gets on.
func (s *Service) Authorize(ctx context.Context, p tarport.Principal, a tarport.Action, repository string) error {
	var f facts
	if repository != "" {
		ns := tarport.Namespace(repository)
		r, err := s.rightsIn(ctx, p.UserID, ns)
		if err != nil {
			return err
		}
		policy := s.db.NamespacePolicy()
		f = facts{Rights: r, mayCreate: policy.MayCreate(p, ns), mayPushNew: policy.MayPushNew(p, ns)}
	} else if a == tarport.Upload {
		var err error
		if f.mayPush, err = s.mayPushSomewhere(ctx, p); err != nil {
			return err
		}
	}
	return decide(p, a, repository, f)
}

// facts are what the database and the configuration say of a namespace.
type facts struct {
	metadata.Rights
	mayCreate  bool // p may create it, if it is not there
	mayPushNew bool // also by a push
	mayPush    bool // p may push somewhere; looked up for Upload only
}

// mayPushSomewhere tells whether there is a namespace that p may push to, or
// could make by a push.
func (s *Service) mayPushSomewhere(ctx context.Context, p tarport.Principal) (bool, error) {
	if p.Admin || s.db.NamespacePolicy().MayPushNew(p, cmp.Or(p.Namespace, p.Name)) {
		return true, nil
	}
	return s.db.Writes(ctx, p.UserID, p.Namespace)
}

// decide is the one place that says who may do what. It does not know whether
// the repository exists, so it cannot tell.
func decide(p tarport.Principal, a tarport.Action, on string, f facts) error {
	switch {
	case !may(p, a, on, f):
		return refused(p, a, on, f)
	case !p.InScope(a, on):
		return tarport.Errorf(tarport.Unauthorized, "the token that was sent is not for this: it needs the scope %s", formatScopes(Needs(a, on)))
	}
	return nil
}

// may tells whether the user has the right, and the credential is for it.
func may(p tarport.Principal, a tarport.Action, on string, f facts) bool {
	switch {
	case f.Public && (a == tarport.Pull || a == tarport.NamespaceRead):
		return true // to anybody
	case p.Anonymous(), p.ReadOnly && !reads(a):
		return false
	case a == tarport.Upload:
		return f.mayPush
	case on == "":
		return mayInRegistry(p, a)
	case p.Namespace != "" && p.Namespace != tarport.Namespace(on):
		return false
	case a == tarport.NamespaceCreate:
		return f.mayCreate
	case a == tarport.Push && !f.Exists:
		return f.mayPushNew
	case p.Admin:
		return true
	}
	least := leastRole(a)
	return least != "" && f.Role.AtLeast(least)
}

// leastRole is the role in a namespace that an action needs; "" where none is
// enough.
func leastRole(a tarport.Action) tarport.Role {
	switch a {
	case tarport.Pull, tarport.NamespaceRead, tarport.MembersRead:
		return tarport.Reader
	case tarport.Push:
		return tarport.Writer
	case tarport.Delete, tarport.RepositoryManage, tarport.ImmutableManage:
		return tarport.Maintainer
	case tarport.NamespaceManage, tarport.MembersManage, tarport.RobotsRead, tarport.RobotsManage, tarport.AuditRead:
		return tarport.Owner
	}
	return ""
}

// mayInRegistry is may for what belongs to no namespace.
func mayInRegistry(p tarport.Principal, a tarport.Action) bool {
	switch a {
	case Catalog, tarport.List, tarport.AccountRead:
		return true
	case tarport.AccountWrite: // not by a token: it could make itself an heir
		return !p.Robot && p.TokenID == 0
	}
	return p.Admin && p.Namespace == ""
}

// reads tells whether an action changes nothing.
func reads(a tarport.Action) bool {
	return slices.Contains([]tarport.Action{
		tarport.Pull, tarport.NamespaceRead, tarport.MembersRead, tarport.RobotsRead, tarport.AuditRead,
		Catalog, tarport.List, tarport.AccountRead, tarport.UsersRead, tarport.AuditReadAll,
	}, a)
}

// refused is the answer to who may not: the same whether it is there or not,
// to who may not know that.
func refused(p tarport.Principal, a tarport.Action, on string, f facts) error {
	ns := tarport.Namespace(on)
	inside := p.Namespace == "" || p.Namespace == ns
	least := leastRole(a)
	switch {
	case p.Anonymous():
		return tarport.Errorf(tarport.Unauthorized, "authentication required: log in first")
	case p.ReadOnly && !reads(a):
		return tarport.Errorf(tarport.Denied, "the token %q is for reading only", p.TokenName)
	case a == tarport.AccountWrite && !p.Robot:
		return tarport.Errorf(tarport.Denied, "this needs your password, and not an access token")
	case a == tarport.Upload:
		return tarport.Errorf(tarport.Denied, "there is no namespace that you may push to, so nothing that you upload could be loaded")
	case on == "":
		return tarport.Errorf(tarport.Denied, "only an administrator may do this")
	case a == tarport.NamespaceCreate:
		return tarport.Errorf(tarport.Denied, "you may not create the namespace %s: ask an administrator to do it", ns)
	case a == tarport.Pull:
		return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", on)
	case f.Exists && inside && f.Role != "" && least != "":
		return tarport.Errorf(tarport.Denied, "this needs the role %s in the namespace %s, and you are a %s: ask one of its owners", least, ns, f.Role)
	case a == tarport.Push:
		return metadata.ErrMayNotPush(ns)
	case f.Public, f.Exists && inside && f.Role != "", a == tarport.Delete:
		return tarport.Errorf(tarport.Denied, "you are not allowed to do this")
	case a == tarport.RepositoryManage:
		return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", on)
	}
	return metadata.ErrNoNamespace(ns)
}

// Needs is what a bearer token must grant for the action, in the words of the
// token protocol.
func Needs(a tarport.Action, on string) []tarport.Grant {
	switch {
	case slices.Contains(actions[:], a):
		return []tarport.Grant{{Repository: on, Actions: []tarport.Action{a}}}
	case a == Catalog:
		return []tarport.Grant{{Actions: []tarport.Action{Catalog}}}
	}
	return []tarport.Grant{{Actions: []tarport.Action{tarport.API}}}
}

// granted is the part of what is asked for that p may do.
func (s *Service) granted(ctx context.Context, p tarport.Principal, asked []tarport.Grant) ([]tarport.Grant, error) {
	grants := []tarport.Grant{}
	for _, g := range asked {
		allowed := tarport.Grant{Repository: g.Repository}
		for _, a := range g.Actions {
			if a == tarport.API { // each use of it is asked about by its own action
				a = tarport.AccountRead
			}
			err := s.Authorize(ctx, p, a, g.Repository)
			if a == tarport.Pull && tarport.ErrorCode(err) == tarport.NameUnknown && slices.Contains(g.Actions, tarport.Push) {
				// The push may make the namespace, and docker (20.10) then looks
				// at what it pushed with the same token.
				err = s.Authorize(ctx, p, tarport.Push, g.Repository)
			}
			switch tarport.ErrorCode(err) {
			case "":
				if a == tarport.AccountRead {
					a = tarport.API
				}
				allowed.Actions = append(allowed.Actions, a)
			case tarport.Unauthorized, tarport.Denied, tarport.NameUnknown:
			default:
				return nil, fmt.Errorf("decide what to grant: %w", err)
			}
		}
		if len(allowed.Actions) > 0 {
			grants = append(grants, allowed)
		}
	}
	return grants, nil
}
