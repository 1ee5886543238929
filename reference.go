package tarport

import (
	"strings"

	"github.com/opencontainers/go-digest"

	// The digest algorithms that the registry takes: go-digest knows an
	// algorithm only where its hash is linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// MaxNameLength is the longest repository name in bytes, the namespace
// included (the distribution spec names 255 for host and path together).
const MaxNameLength = 255

// CheckRepository returns nil where name is a repository name by the grammar
// of the distribution spec ("Pulling manifests", <name>) of at most
// MaxNameLength bytes, and else a NAME_INVALID error.
func CheckRepository(name string) error {
	switch {
	case len(name) > MaxNameLength:
		return Errorf(NameInvalid, "the repository name is %d bytes long, at most %d are allowed", len(name), MaxNameLength)
	case !isName(name):
		return Errorf(NameInvalid, "%q is not a repository name: use lower-case letters, digits, and single . _ - between them, in parts with / between", name)
	}
	return nil
}

// CheckNamespace returns nil where name can be a namespace's, the first
// component of a repository name, and else a NAME_INVALID error.
func CheckNamespace(name string) error {
	if len(name) > MaxNamespaceLength || !isName(name) || strings.Contains(name, "/") {
		return Errorf(NameInvalid, "%q is not a name for a namespace: use at most %d lower-case letters, digits, and single . _ - between them", name, MaxNamespaceLength)
	}
	return nil
}

// MaxNamespaceLength leaves room for the rest of a repository's name.
const MaxNamespaceLength = 128

// CheckTag returns nil where tag is a tag by the grammar of the distribution
// spec (at most 128 of letters, digits, _ . -, not beginning with . or -), and
// else a TAG_INVALID error.
func CheckTag(tag string) error {
	if !isTag(tag) {
		return Errorf(TagInvalid, "%q is not a tag: use at most 128 letters, digits, _ . -, and do not begin with . or -", tag)
	}
	return nil
}

// isName is the grammar of <name>: components of [a-z0-9]+ parts with one of
// . _ __ or any number of - between them, and / between components. By hand,
// since it stands in the way of every request; TestNames compares it with the
// spec's regular expression.
func isName(s string) bool {
	const begin, inside = 0, 1 // of a part
	state, i := begin, 0
	for i < len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			state = inside
			i++
			continue
		case state == begin:
			return false
		case c == '_' && i+1 < len(s) && s[i+1] == '_':
			i += 2
		case c == '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		case c == '/' || c == '.' || c == '_':
			i++
		default:
			return false
		}
		state = begin
	}
	return state == inside
}

// isTag is the grammar of a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// ParseDigest parses a digest of an algorithm that the registry takes, sha256
// or sha512; else the error is DIGEST_INVALID.
func ParseDigest(s string) (digest.Digest, error) {
	algorithm, hex, ok := strings.Cut(s, ":")
	length := 0
	switch digest.Algorithm(algorithm) {
	case digest.SHA256:
		length = 64
	case digest.SHA512:
		length = 128
	}
	if !ok || length == 0 || length != len(hex) || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", Errorf(DigestInvalid, "%q is not a digest of sha256 or sha512", s)
	}
	return digest.Digest(s), nil
}

// Reference is a tag or a digest of a manifest; exactly one of the two is set.
type Reference struct {
	Tag    string
	Digest digest.Digest
}

// ParseReference parses a tag or digest. What has a colon is a digest.
func ParseReference(s string) (Reference, error) {
	if strings.Contains(s, ":") {
		d, err := ParseDigest(s)
		return Reference{Digest: d}, err
	}
	return Reference{Tag: s}, CheckTag(s)
}

func (r Reference) String() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// ParseImage parses what names an image of this registry: a repository, and
// behind it a tag (team/app:1.0), a digest (team/app@sha256:…) or both, of
// which the digest counts, as with docker. Without either the tag is latest.
func ParseImage(s string) (repository string, ref Reference, err error) {
	name, dgst, byDigest := strings.Cut(s, "@")
	repository, ref.Tag = name, "latest"
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		repository, ref.Tag = name[:i], name[i+1:]
	}
	if err := CheckRepository(repository); err != nil {
		return "", Reference{}, err
	}
	if err := CheckTag(ref.Tag); err != nil {
		return "", Reference{}, err
	}
	if byDigest {
		ref.Tag = ""
		ref.Digest, err = ParseDigest(dgst)
	}
	return repository, ref, err
}

// Namespace is the first component of a repository name: the unit of
// membership, visibility and quota.
func Namespace(repository string) string {
	ns, _, _ := strings.Cut(repository, "/")
	return ns
}

// Place is the repository that the path of an image's name gets in a namespace:
// a path that already begins with the namespace keeps it, any other is put
// under it. The registry host and library/ have been dropped before.
func Place(namespace, path string) string {
	if strings.HasPrefix(path, namespace+"/") {
		return path
	}
	return namespace + "/" + path
}
