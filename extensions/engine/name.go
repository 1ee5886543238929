package engine

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// name is what a client calls an image: a name, an ID or the beginning of one,
// or what can be either.
type name struct {
	raw        string
	repository string // with its namespace; "" where it is no name
	tag        string // "" where none was said
	digest     digest.Digest
	id         string // "" where it can be no ID; else sha256: and hex digits
}

const defaultTag = "latest"

var (
	idPattern   = regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{1,64})$`)
	errNotAName = tarport.Errorf(tarport.Invalid, "invalid reference format")
)

// parseName reads a name by the grammar of Docker's references. The registry's
// host and library/ are dropped, as on load.
func parseName(ns, s string) (name, error) {
	n := name{raw: s}
	if m := idPattern.FindStringSubmatch(s); m != nil {
		n.id = digest.SHA256.String() + ":" + m[1]
		if len(m[1]) == digest.SHA256.Size()*2 { // no name can be so
			return n, nil
		}
	}
	ref, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		if n.id != "" {
			return n, nil
		}
		return n, errNotAName.Because(err)
	}
	n.repository = tarport.Place(ns, strings.TrimPrefix(reference.Path(ref), "library/"))
	if err := tarport.CheckRepository(n.repository); err != nil {
		return n, err
	}
	if t, ok := ref.(reference.Tagged); ok {
		n.tag = t.Tag()
	}
	if d, ok := ref.(reference.Digested); ok {
		n.digest = d.Digest()
	}
	return n, nil
}

// isID tells whether a tag was found by its image's ID, and not by its name.
func (n name) isID(t tagged) bool { return n.id != "" && t.repository != n.repository }

// unknown is the daemon's answer to a name of nothing, also of what is hidden.
func (n name) unknown() error {
	s := n.raw
	if n.repository != "" && n.tag == "" && n.digest == "" {
		s += ":" + defaultTag
	}
	return tarport.Errorf(tarport.ManifestUnknown, "No such image: %s", s)
}

// repositoryName is the shortest name of a repository that means it in its
// namespace: app for team/app, but team/team/app, and docker.io/team/a.b/c for
// what a client takes for a registry's host.
func repositoryName(ns, repository string) string {
	for _, s := range []string{strings.TrimPrefix(repository, ns+"/"), repository} {
		if n, err := parseName(ns, s); err == nil && n.repository == repository && n.tag == "" {
			return s
		}
	}
	return "docker.io/" + repository
}
