package auth

import (
	"slices"
	"strings"

	"github.com/tarport/tarport"
)

// Catalog is the action of listing the repositories. It is done to the
// registry, so the repository of its grant is "".
const Catalog tarport.Action = "catalog"

// actions of the token protocol, in the order in which they are written.
var actions = [...]tarport.Action{tarport.Pull, tarport.Push, tarport.Delete}

const (
	maxScopes = 50
	// The scopes that are not a repository's: the one that distribution and
	// crane write, and ours for all that the owner may do over /api/v1.
	catalogScope = "registry:catalog:*"
	apiScope     = "registry:api:*"
)

// parseScopes reads the values of scope parameters, each of scopes with spaces
// between them, into what is asked for: one grant a repository, in the order in
// which they came. This is the only place that understands scopes.
//
// A scope is "repository:NAME:ACTION[,ACTION…]". What is not exactly that, or
// has a name that is no repository's, is left out and not repaired: else two
// readers could see two names. Actions that do not exist are left out; "*" is
// all three. More than maxScopes is an error.
func parseScopes(values []string) ([]tarport.Grant, error) {
	asked := []tarport.Grant{}
	n := 0
	for _, v := range values {
		for s := range strings.SplitSeq(v, " ") {
			if s == "" {
				continue
			}
			if n++; n > maxScopes {
				return nil, tarport.Errorf(tarport.Invalid, "more than %d scopes in one request", maxScopes)
			}
			if g, ok := parseScope(s); ok {
				asked = merge(asked, g)
			}
		}
	}
	return asked, nil
}

func parseScope(s string) (tarport.Grant, bool) {
	switch s {
	case catalogScope:
		return tarport.Grant{Actions: []tarport.Action{Catalog}}, true
	case apiScope:
		return tarport.Grant{Actions: []tarport.Action{tarport.API}}, true
	}
	rest, ok := strings.CutPrefix(s, "repository:")
	name, list, two := strings.Cut(rest, ":")
	if !ok || !two || tarport.CheckRepository(name) != nil {
		return tarport.Grant{}, false
	}
	words := strings.Split(list, ",")
	g := tarport.Grant{Repository: name}
	for _, a := range actions {
		if slices.Contains(words, string(a)) || slices.Contains(words, "*") {
			g.Actions = append(g.Actions, a)
		}
	}
	return g, len(g.Actions) > 0
}

// merge adds a grant to the list, to the one of its repository where there is
// one.
func merge(list []tarport.Grant, g tarport.Grant) []tarport.Grant {
	i := slices.IndexFunc(list, func(have tarport.Grant) bool { return have.Repository == g.Repository })
	if i < 0 {
		return append(list, g)
	}
	both := tarport.Grant{Repository: g.Repository}
	for _, a := range append(actions[:], Catalog, tarport.API) {
		if slices.Contains(list[i].Actions, a) || slices.Contains(g.Actions, a) {
			both.Actions = append(both.Actions, a)
		}
	}
	list[i] = both
	return list
}

// formatScopes is the inverse of parseScopes.
func formatScopes(grants []tarport.Grant) string {
	var b strings.Builder
	for _, g := range grants {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if g.Repository == "" {
			b.WriteString(strings.Join(registryScopes(g), " "))
			continue
		}
		b.WriteString("repository:" + g.Repository + ":")
		for i, a := range g.Actions {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(string(a))
		}
	}
	return b.String()
}

// registryScopes are the scopes of a grant that is on no repository.
func registryScopes(g tarport.Grant) (scopes []string) {
	if slices.Contains(g.Actions, Catalog) {
		scopes = append(scopes, catalogScope)
	}
	if slices.Contains(g.Actions, tarport.API) {
		scopes = append(scopes, apiScope)
	}
	return scopes
}

// access is an entry of a token's access list, as docker's token specification
// has it.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func accessOf(grants []tarport.Grant) []access {
	list := make([]access, 0, len(grants))
	for _, g := range grants {
		if g.Repository == "" {
			for _, scope := range registryScopes(g) {
				name := strings.Split(scope, ":")[1]
				list = append(list, access{Type: "registry", Name: name, Actions: []string{"*"}})
			}
			continue
		}
		a := access{Type: "repository", Name: g.Repository}
		for _, action := range g.Actions {
			a.Actions = append(a.Actions, string(action))
		}
		list = append(list, a)
	}
	return list
}

// grantsOf is the inverse of accessOf, by the same parser that reads requests;
// it is never nil.
func grantsOf(list []access) []tarport.Grant {
	grants := []tarport.Grant{}
	for _, a := range list {
		if g, ok := parseScope(a.Type + ":" + a.Name + ":" + strings.Join(a.Actions, ",")); ok {
			grants = merge(grants, g)
		}
	}
	return grants
}
