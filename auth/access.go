package auth

import (
	"context"

	"github.com/tarport/tarport"
)

var _ tarport.Access = (*Service)(nil)

// Authorize implements tarport.Access. Where a logged-in user may do it but
// the token that came was not made for it, the error is UNAUTHORIZED too: a
// client that asks for another token gets on.
func (s *Service) Authorize(_ context.Context, p tarport.Principal, a tarport.Action, repository string) error {
	return decide(p, a, repository)
}

// decide is the one place that says who may do what. It does not know whether
// the repository exists, so it cannot tell.
func decide(p tarport.Principal, a tarport.Action, repository string) error {
	switch {
	case p.Anonymous():
		return tarport.Errorf(tarport.Unauthorized, "authentication required: log in first")
	case !may(p):
		return hidden(a, repository)
	case !p.InScope(a, repository):
		return tarport.Errorf(tarport.Unauthorized, "the token that was sent is not for this: it needs the scope %s",
			formatScopes([]tarport.Grant{{Repository: repository, Actions: []tarport.Action{a}}}))
	}
	return nil
}

// may tells whether the user has the right: the administrator has every right
// on everything, and nobody else has any.
func may(p tarport.Principal) bool { return p.Admin }

// hidden is the answer to who may not, the same whether the repository is there
// or not: to reading, in the words of a repository that is not.
func hidden(a tarport.Action, repository string) error {
	if a == tarport.Pull {
		return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", repository)
	}
	return tarport.Errorf(tarport.Denied, "you are not allowed to do this")
}

// granted is the part of what is asked for that p may do.
func (s *Service) granted(ctx context.Context, p tarport.Principal, asked []tarport.Grant) ([]tarport.Grant, error) {
	grants := []tarport.Grant{}
	for _, g := range asked {
		allowed := tarport.Grant{Repository: g.Repository}
		for _, a := range g.Actions {
			err := s.Authorize(ctx, p, a, g.Repository)
			switch tarport.ErrorCode(err) {
			case "":
				allowed.Actions = append(allowed.Actions, a)
			case tarport.Unauthorized, tarport.Denied, tarport.NameUnknown:
			default:
				return nil, err
			}
		}
		if len(allowed.Actions) > 0 {
			grants = append(grants, allowed)
		}
	}
	return grants, nil
}
