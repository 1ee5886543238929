package tarport

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	// The digest algorithms that the registry takes: go-digest knows an
	// algorithm only where its hash is linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// MaxNameLength is the longest repository name in bytes, the namespace
// included (the distribution spec names 255 for host and path together).
const MaxNameLength = 255

var (
	anchoredName = regexp.MustCompile(`^` + nameComponent + `(?:/` + nameComponent + `)*$`)
	anchoredTag  = regexp.MustCompile(`^` + reference.TagRegexp.String() + `$`)
)

const nameComponent = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

// CheckRepository returns nil where name is a repository name by the grammar
// of the distribution spec ("Pulling manifests", <name>) of at most
// MaxNameLength bytes, and else a NAME_INVALID error.
func CheckRepository(name string) error {
	switch {
	case len(name) > MaxNameLength:
		return Errorf(NameInvalid, "the repository name is %d bytes long, at most %d are allowed", len(name), MaxNameLength)
	case !anchoredName.MatchString(name):
		return Errorf(NameInvalid, "%q is not a repository name: use lower-case letters, digits, and single . _ - between them, in parts with / between", name)
	}
	return nil
}

// CheckTag returns nil where tag is a tag by the grammar of the distribution
// spec (at most 128 of letters, digits, _ . -, not beginning with . or -), and
// else a TAG_INVALID error.
func CheckTag(tag string) error {
	if !anchoredTag.MatchString(tag) {
		return Errorf(TagInvalid, "%q is not a tag: use at most 128 letters, digits, _ . -, and do not begin with . or -", tag)
	}
	return nil
}

// ParseDigest parses a digest of an algorithm that the registry takes, sha256
// or sha512; else the error is DIGEST_INVALID.
func ParseDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return "", Errorf(DigestInvalid, "%q is not a digest", s).Because(err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", Errorf(DigestInvalid, "digests of %s are not supported: use sha256 or sha512", a)
	}
	return d, nil
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

// Namespace is the first component of a repository name: the unit of
// membership, visibility and quota.
func Namespace(repository string) string {
	ns, _, _ := strings.Cut(repository, "/")
	return ns
}
