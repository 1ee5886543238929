package archive

import (
	"errors"
	"path"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/layer"
)

// contents is what an archive holds, by cleaned name.
type contents struct {
	files map[string]*file
	links map[string]link
	last  string // the entry that was read last
}

// file is a regular file of the archive. What it is as a layer is known after
// intake.wait.
type file struct {
	name        string
	size        int64
	compression string        // of its bytes, by magic
	data        []byte        // of a small one that is no layer; nil for others
	digest      digest.Digest // of its bytes; see sum

	raw    *form // its bytes as they are, in the store
	packed *form // the layer in it, compressed by us or known before
	diffID digest.Digest
	seen   seen
	// notLayer is why its bytes cannot be a layer; "" where they can.
	notLayer string
	twice    bool // the archive has two entries of this name
	shown    bool // its progress is told
}

// seen is what is known of a layer when its plain bytes have passed.
type seen struct {
	facts    string // what is in it; "" where nobody looked
	size     int64  // of the plain bytes
	prefixes layer.Prefixes
}

// form is a blob in the store, or in the batch.
type form struct {
	digest      digest.Digest
	size        int64
	compression string
}

type link struct {
	target string
	hard   bool
	twice  bool
}

func newContents() *contents {
	return &contents{files: map[string]*file{}, links: map[string]link{}}
}

// add returns the new file, or nil where the name is taken.
func (c *contents) add(name string, size int64) *file {
	if f := c.files[name]; f != nil {
		f.twice = true
		return nil
	}
	f := &file{name: name, size: size}
	_, f.twice = c.links[name]
	c.files[name] = f
	return f
}

func (c *contents) addLink(name, target string, hard bool) {
	if f := c.files[name]; f != nil {
		f.twice = true
	}
	_, again := c.links[name]
	c.links[name] = link{target, hard, again}
}

func (c *contents) lastEntry() string {
	if c.last == "" {
		return "its beginning"
	}
	return "the entry " + quoted(c.last)
}

// hasMarker tells whether a file was seen that only image archives have.
func (c *contents) hasMarker() bool {
	return c.files[manifestName] != nil || c.files[indexName] != nil || c.files[layoutName] != nil
}

// maxLinks is how many links are followed to a file.
const maxLinks = 10

// find returns the file that a name in the archive's metadata means. Links are
// followed inside the archive's own list of entries; one that leads elsewhere
// leads to nothing.
func (c *contents) find(name string) (*file, error) {
	key, ok := cleanName(name)
	for range maxLinks + 1 {
		if !ok {
			return nil, invalid("%s leads out of the archive", quoted(name))
		}
		if f := c.files[key]; f != nil {
			if f.twice {
				return nil, invalid("the archive has two entries named %s", quoted(key))
			}
			return f, nil
		}
		l, isLink := c.links[key]
		switch {
		case !isLink:
			return nil, missing(name)
		case l.twice:
			return nil, invalid("the archive has two entries named %s", quoted(key))
		case l.hard || strings.HasPrefix(l.target, "/"):
			key, ok = cleanName(l.target)
		default:
			key, ok = cleanName(path.Join(path.Dir(key), l.target))
		}
	}
	return nil, invalid("%s is a chain of more than %d links", quoted(name), maxLinks)
}

func missing(name string) error {
	return invalid("%s is not in the archive", quoted(name)).Because(errMissing)
}

var errMissing = errors.New("the archive has no such entry")

// metadata returns a file that says what is in the archive; nil where there is
// none. It must be a regular one, once.
func (c *contents) metadata(name string) ([]byte, error) {
	if _, ok := c.links[name]; ok {
		return nil, invalid("%s is a link, it must be a file", name)
	}
	f := c.files[name]
	switch {
	case f == nil:
		return nil, nil
	case f.twice:
		return nil, invalid("the archive has two entries named %q", name)
	case f.data == nil:
		return nil, invalid("%s is not JSON", name)
	}
	return f.data, nil
}

// blob returns the file of a digest in an OCI image layout; nil where it is
// not in the archive.
func (c *contents) blob(d digest.Digest) (*file, error) {
	name := "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
	_, isLink := c.links[name]
	if c.files[name] == nil && !isLink {
		return nil, nil
	}
	return c.find(name)
}

// sum is the digest of the file's bytes.
func (f *file) sum() digest.Digest {
	if f.digest == "" {
		switch {
		case f.raw != nil:
			f.digest = f.raw.digest
		case f.diffID != "" && f.compression == uncompressed:
			f.digest = f.diffID
		case f.data != nil:
			f.digest = digest.FromBytes(f.data)
		}
	}
	return f.digest
}

// layer is the form of the file that an image of ours may name.
func (f *file) layer() (*form, error) {
	switch {
	case f.notLayer != "":
		return nil, invalid("the layer %s is broken: %s", quoted(f.name), f.notLayer)
	case f.packed != nil:
		return f.packed, nil
	case f.raw != nil && f.diffID != "":
		return f.raw, nil
	}
	return nil, invalid("the layer %s is not a tar archive", quoted(f.name))
}

// use takes a stored form for what the file is.
func (f *file) use(known *form) {
	if known.compression == uncompressed {
		f.raw = known
		return
	}
	f.packed = known
}

var (
	ociBlob  = regexp.MustCompile(`^blobs/[a-z0-9]+/[0-9a-f]{64,128}$`)
	diffHint = regexp.MustCompile(`^(?:blobs/sha256/|)([0-9a-f]{64})(?:|\.tar|/layer\.tar)$`)
)

// shortID is how a layer is called in progress messages: Docker's twelve
// digits, which are the diffID's there and the name's here, since the diffID is
// known too late.
func (f *file) shortID() string {
	base := strings.TrimSuffix(strings.TrimPrefix(f.name, "blobs/sha256/"), "/"+dockerLayerFile)
	return base[:min(len(base), 12)]
}

// pinned tells whether the name is the place of a blob in an OCI image layout:
// a manifest may name these very bytes.
func (f *file) pinned() bool { return ociBlob.MatchString(f.name) }

// hint is the diffID that the file's name may be; "" where it is none. It is
// only believed after the bytes were hashed.
func (f *file) hint() digest.Digest {
	m := diffHint.FindStringSubmatch(f.name)
	if m == nil {
		return ""
	}
	return digest.NewDigestFromEncoded(digest.SHA256, m[1])
}
