package archive

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// defaultTag is Docker's for a name without a tag.
const defaultTag = "latest"

// name is the name that an archive gives to an image.
type name struct {
	raw    string // as it stands there
	host   string
	path   string // without host, and without library/
	tag    string // "" where the name has none
	digest digest.Digest
}

func (n name) String() string { return n.raw }

// key is equal for two spellings of one name: hello:1 is
// docker.io/library/hello:1.
func (n name) key() string {
	k := n.host + "/" + n.path + ":" + n.tag
	if n.tag == "" {
		k += "@" + n.digest.String()
	}
	return k
}

func nameInvalid(format string, args ...any) *tarport.Error {
	return tarport.Errorf(tarport.NameInvalid, format, args...)
}

// parseName reads a name by the grammar of Docker's references.
func parseName(s string) (name, error) {
	ref, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return name{}, nameInvalid("%s is not the name of an image: %s", quoted(s), err).Because(err)
	}
	n := name{raw: s, host: reference.Domain(ref), path: strings.TrimPrefix(reference.Path(ref), "library/")}
	if t, ok := ref.(reference.Tagged); ok {
		n.tag = t.Tag()
	}
	if d, ok := ref.(reference.Digested); ok {
		n.digest = d.Digest()
	}
	return n, nil
}

// repository is the name without its host, unless the host is the namespace,
// which can have a dot in its name: my.team/app.
func (n *name) repository() string {
	full, _, _ := strings.Cut(n.raw, ":")
	if n.host != "localhost" && n.host != "docker.io" && full == n.host+"/"+n.path && !strings.Contains(n.path, "/") {
		return full
	}
	return n.path
}

// target is where an image goes: a repository, and a tag or none.
type target struct{ repository, tag string }

func (t target) String() string {
	if t.tag == "" {
		return t.repository
	}
	return t.repository + ":" + t.tag
}

// naming is what a request says about names.
type naming struct {
	namespace  string
	repository string // in the namespace; "" where not given
	tag        string
	renames    []*rename
}

// rename is one OLD=NEW.
type rename struct {
	param   string
	old     string
	oldName *name // nil where old is no name
	path    string
	tag     string // "" keeps the tag
	used    bool
}

// newNaming checks the parameters of a request before its body is read.
func newNaming(namespace, repo, tag string, renames []string) (*naming, error) {
	if namespace == "" {
		return nil, tarport.Errorf(tarport.Invalid, "say into which namespace the images go: ?namespace=NAME")
	}
	if strings.Contains(namespace, "/") {
		return nil, nameInvalid("the namespace %s must not have a /", quoted(namespace))
	}
	if err := tarport.CheckRepository(namespace); err != nil {
		return nil, within(err, "namespace=")
	}
	nm := &naming{namespace: namespace, tag: tag}
	if repo != "" {
		if err := nm.setRepository(repo); err != nil {
			return nil, err
		}
	}
	if nm.tag != "" {
		if err := tarport.CheckTag(nm.tag); err != nil {
			return nil, within(err, "tag=")
		}
	}
	if len(renames) > 0 && (repo != "" || tag != "") {
		return nil, tarport.Errorf(tarport.Invalid, "rename= cannot be used together with repo= or tag=")
	}
	for _, s := range renames {
		rn, err := parseRename(s)
		if err != nil {
			return nil, err
		}
		nm.renames = append(nm.renames, rn)
	}
	return nm, nil
}

// setRepository reads repo=, which may have a tag where tag= is not given.
func (nm *naming) setRepository(repo string) error {
	n, err := parseName(repo)
	switch {
	case err != nil:
		return within(err, "repo=")
	case n.digest != "":
		return nameInvalid("repo= must not have a digest")
	case n.tag != "" && nm.tag != "":
		return tarport.Errorf(tarport.Invalid, "repo=%s has a tag, and tag= is given too", repo)
	}
	nm.repository, nm.tag = tarport.Place(nm.namespace, n.path), cmp.Or(n.tag, nm.tag)
	if err := tarport.CheckRepository(nm.repository); err != nil {
		return within(err, "repo=")
	}
	return nil
}

func parseRename(s string) (*rename, error) {
	old, to, ok := strings.Cut(s, "=")
	if !ok || old == "" || to == "" {
		return nil, tarport.Errorf(tarport.Invalid, "rename=%s must be of the form OLD=NEW", s)
	}
	n, err := parseName(to)
	if err != nil || n.digest != "" {
		return nil, nameInvalid("rename=%s: %s is not a name that an image can get", s, quoted(to)).Because(err)
	}
	rn := &rename{param: s, old: old, path: n.path, tag: n.tag}
	if o, err := parseName(old); err == nil {
		rn.oldName = &o
	}
	return rn, nil
}

// matches tells whether the rename is about a name: the very string, another
// spelling of it, or its repository.
func (rn *rename) matches(n name) bool {
	if rn.old == n.raw {
		return true
	}
	o := rn.oldName
	return o != nil && o.path == n.path && (o.host == n.host || o.host == "docker.io") && (o.tag == n.tag || o.tag == "") && o.digest == ""
}

var shortID = regexp.MustCompile(`^(?:sha256:)?[0-9a-f]{12,64}$`)

// matchesID tells whether the rename means the image by its ID or its digest,
// in full or as Docker shortens it.
func (rn *rename) matchesID(im *image) bool {
	if !shortID.MatchString(rn.old) {
		return false
	}
	hex := strings.TrimPrefix(rn.old, "sha256:")
	return strings.HasPrefix(im.desc.Digest.Encoded(), hex) || strings.HasPrefix(strings.TrimPrefix(im.imageID, "sha256:"), hex)
}

// apply decides where every image goes. Referrers (signatures, SBOMs) without
// a name go with what they refer to.
func (nm *naming) apply(images []*image) (map[*image][]target, error) {
	holders := map[digest.Digest][]*image{} // by the digest of a manifest: the images that are it or reach it
	for _, im := range images {
		for _, m := range im.all() {
			holders[m.desc.Digest] = append(holders[m.desc.Digest], im)
		}
	}
	out := map[*image][]target{}
	var named, referrers []*image
	for _, im := range images {
		if len(im.names)+len(im.tags) == 0 && len(holders[im.subject]) > 0 {
			referrers = append(referrers, im)
		} else {
			named = append(named, im)
		}
	}
	if err := nm.checkSelection(named); err != nil {
		return nil, err
	}
	for _, im := range named {
		ts, err := nm.targets(im, len(named) == 1)
		if err != nil {
			return nil, err
		}
		out[im] = ts
	}
	for _, rn := range nm.renames {
		if !rn.used {
			return nil, tarport.Errorf(tarport.Invalid, "rename=%s: the archive has no image %s", rn.param, quoted(rn.old))
		}
	}
	for more := true; more; { // one referrer can refer to another
		more = false
		for _, ref := range referrers {
			for _, im := range holders[ref.subject] {
				more = follow(out, ref, im) || more
			}
		}
	}
	return out, checkTargets(out, images)
}

// follow puts a referrer into the repositories of its subject, untagged. It
// tells whether there was a new one.
func follow(out map[*image][]target, ref, subject *image) (changed bool) {
	for _, t := range out[subject] {
		if u := (target{repository: t.repository}); !slices.Contains(out[ref], u) {
			out[ref] = append(out[ref], u)
			changed = true
		}
	}
	return changed
}

// checkSelection refuses repo= and tag= where they do not say which image they
// mean.
func (nm *naming) checkSelection(images []*image) error {
	if len(images) == 1 || nm.repository == "" && nm.tag == "" {
		return nil
	}
	whole, part := 0, 0 // images without any name, and with a tag only
	for _, im := range images {
		switch {
		case len(im.names) > 0:
		case len(im.tags) > 0:
			part++
		default:
			whole++
		}
	}
	switch {
	case whole+part == 0:
		return tarport.Errorf(tarport.Invalid, "repo= and tag= name one image, but the archive has %d and all have names: use rename=OLD=NEW", len(images))
	case whole > 1:
		return tarport.Errorf(tarport.Invalid, "the archive has %d images without a name, repo= can name one: use rename=IMAGE_ID=NAME", whole)
	case nm.tag != "" && whole != 1:
		return tarport.Errorf(tarport.Invalid, "tag= names one image, but the archive has %d that need a name, each with its own tag: leave tag= out", part)
	}
	return nil
}

// targets decides where an image goes. only tells that it is the archive's
// only one: then repo= and tag= count more than its own names.
func (nm *naming) targets(im *image, only bool) ([]target, error) {
	var out []target
	add := func(repository, tag string) {
		if t := (target{repository, tag}); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for _, n := range im.names {
		repository, tag := tarport.Place(nm.namespace, n.path), n.tag
		if rn := nm.rename(func(rn *rename) bool { return rn.matches(n) || rn.matchesID(im) }); rn != nil {
			repository, tag = tarport.Place(nm.namespace, rn.path), cmp.Or(rn.tag, tag)
		}
		if only {
			repository, tag = cmp.Or(nm.repository, repository), cmp.Or(nm.tag, tag)
		}
		add(repository, tag)
	}
	for _, tag := range im.tags {
		repository := nm.repository
		if rn := nm.rename(func(rn *rename) bool { return rn.old == tag || rn.matchesID(im) }); rn != nil {
			repository, tag = tarport.Place(nm.namespace, rn.path), cmp.Or(rn.tag, tag)
		}
		if only {
			tag = cmp.Or(nm.tag, tag)
		}
		if repository == "" {
			return nil, needsName(im, "has only the tag "+quoted(tag))
		}
		add(repository, tag)
	}
	if len(out) > 0 {
		return out, nil
	}
	if rn := nm.rename(func(rn *rename) bool { return rn.matchesID(im) }); rn != nil {
		add(tarport.Place(nm.namespace, rn.path), cmp.Or(rn.tag, defaultTag))
		return out, nil
	}
	if nm.repository == "" {
		return nil, needsName(im, "has no name")
	}
	add(nm.repository, cmp.Or(nm.tag, defaultTag))
	return out, nil
}

func needsName(im *image, what string) error {
	id := im.imageID
	if id == "" {
		id = im.desc.Digest.String()
	}
	return tarport.Errorf(tarport.Invalid, "the image %s %s: give it one with repo=NAME (and tag=TAG), or with rename=%.19s=NAME", id, what, id)
}

// rename returns the first rename that matches, and marks all that do.
func (nm *naming) rename(match func(*rename) bool) *rename {
	var first *rename
	for _, rn := range nm.renames {
		if match(rn) {
			rn.used = true
			if first == nil {
				first = rn
			}
		}
	}
	return first
}

// checkTargets checks the names by the registry's grammar, and that no two
// images want one.
func checkTargets(out map[*image][]target, images []*image) error {
	taken := map[target]*image{}
	for _, im := range images {
		for _, t := range out[im] {
			if err := tarport.CheckRepository(t.repository); err != nil {
				return err
			}
			if t.tag == "" {
				continue
			}
			if err := tarport.CheckTag(t.tag); err != nil {
				return err
			}
			if other := taken[t]; other != nil {
				return nameClash(t.String(), other.desc.Digest, im.desc.Digest)
			}
			taken[t] = im
		}
	}
	return nil
}

// nameClash: Docker lets the later image win and the earlier one lose its name.
func nameClash(name string, a, b digest.Digest) error {
	return tarport.Errorf(tarport.Invalid, "two images of the archive are named %s: %s and %s; use rename=OLD=NEW or repack it", quoted(name), a, b)
}
