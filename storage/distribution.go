package storage

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// The Store as distribution sees it. The embedded App runs the upload protocol
// over it; the rest is there for whoever holds a distribution.Namespace. All of
// it is the Store's own methods in other words, and errors are *tarport.Error
// but for the few that distribution's callers compare.
var (
	_ distribution.Namespace            = (*namespace)(nil)
	_ distribution.RepositoryEnumerator = (*namespace)(nil)
	_ distribution.RepositoryRemover    = (*namespace)(nil)
	_ distribution.Repository           = (*repository)(nil)
	_ distribution.BlobStore            = (*blobStore)(nil)
	_ distribution.ManifestService      = (*manifestService)(nil)
	_ distribution.TagService           = (*tagService)(nil)
)

// Namespace returns the store as a distribution.Namespace.
func (s *Store) Namespace() distribution.Namespace { return &namespace{s} }

type namespace struct{ s *Store }

func (n *namespace) Scope() distribution.Scope { return distribution.GlobalScope }

func (n *namespace) Repository(_ context.Context, name reference.Named) (distribution.Repository, error) {
	if err := tarport.CheckRepository(name.Name()); err != nil {
		return nil, distribution.ErrRepositoryNameInvalid{Name: name.Name(), Reason: err}
	}
	return &repository{n.s, name}, nil
}

// Repositories fills repos and returns io.EOF with the last of them.
func (n *namespace) Repositories(ctx context.Context, repos []string, last string) (int, error) {
	p, err := n.s.Repositories(ctx, len(repos), last)
	if err != nil {
		return 0, err
	}
	count := copy(repos, p.Names())
	if !p.More {
		return count, io.EOF
	}
	return count, nil
}

// Enumerate gives the name of each repository to ingester.
func (n *namespace) Enumerate(ctx context.Context, ingester func(string) error) error {
	for last := ""; ; {
		p, err := n.s.Repositories(ctx, 1000, last)
		if err != nil {
			return err
		}
		for _, name := range p.Names() {
			if err := ingester(name); err != nil {
				return err
			}
		}
		if last = p.Last; !p.More {
			return nil
		}
	}
}

// Remove takes a repository away with all that is in it; its blobs go when
// nobody needs them.
func (n *namespace) Remove(ctx context.Context, name reference.Named) error {
	err := n.s.DeleteRepository(ctx, name.Name())
	if tarport.ErrorCode(err) == tarport.NameUnknown {
		return distribution.ErrRepositoryUnknown{Name: name.Name()}
	}
	return err
}

func (n *namespace) Blobs() distribution.BlobEnumerator { return blobEnumerator{n.s} }

func (n *namespace) BlobStatter() distribution.BlobStatter { return blobEnumerator{n.s} }

// blobEnumerator sees the blobs of all repositories.
type blobEnumerator struct{ s *Store }

func (b blobEnumerator) Enumerate(ctx context.Context, ingester func(digest.Digest) error) error {
	for last := digest.Digest(""); ; {
		list, err := b.s.db.Blobs(ctx, 1000, last)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, d := range list {
			if err := ingester(d); err != nil {
				return err
			}
		}
		last = list[len(list)-1]
	}
}

func (b blobEnumerator) Stat(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	return describe(b.s.db.Blob(ctx, dgst))
}

func describe(b metadata.Blob, err error) (ocispec.Descriptor, error) {
	if tarport.ErrorCode(err) == tarport.BlobUnknown {
		return ocispec.Descriptor{}, distribution.ErrBlobUnknown
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: b.Digest, Size: b.Size}, err
}

type repository struct {
	s    *Store
	name reference.Named
}

func (r *repository) Named() reference.Named { return r.name }

func (r *repository) Blobs(context.Context) distribution.BlobStore {
	return &blobStore{r.s, r.name.Name()}
}

func (r *repository) Tags(context.Context) distribution.TagService {
	return &tagService{r.s, r.name.Name()}
}

func (r *repository) Manifests(context.Context, ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	return &manifestService{r.s, r.name.Name()}, nil
}

type blobStore struct {
	s    *Store
	repo string
}

func (b *blobStore) Stat(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	return describe(b.s.Blob(ctx, b.repo, dgst))
}

// Get reads a whole blob into memory: for small ones, such as configs.
func (b *blobStore) Get(ctx context.Context, dgst digest.Digest) ([]byte, error) {
	r, err := b.Open(ctx, dgst)
	if err != nil {
		return nil, err
	}
	p, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err == nil && len(p) > MaxManifest {
		err = errors.New("the blob is too large to be read whole")
	}
	return p, errors.Join(err, r.Close())
}

func (b *blobStore) Open(ctx context.Context, dgst digest.Digest) (io.ReadSeekCloser, error) {
	r, _, err := b.s.OpenBlob(ctx, b.repo, dgst)
	if tarport.ErrorCode(err) == tarport.BlobUnknown {
		return nil, distribution.ErrBlobUnknown
	}
	return r, err
}

func (b *blobStore) Put(ctx context.Context, _ string, p []byte) (ocispec.Descriptor, error) {
	u, err := b.s.NewUpload(ctx, b.repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { _ = u.Cancel(ctx) }() // nothing after the commit
	if _, err := u.Write(p); err != nil {
		return ocispec.Descriptor{}, err
	}
	return u.Commit(ctx, ocispec.Descriptor{Digest: digest.FromBytes(p)})
}

// Create begins an upload, or mounts: then the error is ErrBlobMounted. A mount
// that fails is an upload, as the distribution spec has it.
func (b *blobStore) Create(ctx context.Context, options ...distribution.BlobCreateOption) (distribution.BlobWriter, error) {
	var o distribution.CreateOptions
	for _, option := range options {
		if err := option.Apply(&o); err != nil {
			return nil, err
		}
	}
	if o.Mount.ShouldMount {
		desc, err := describe(b.s.MountBlob(ctx, o.Mount.From.Name(), b.repo, o.Mount.From.Digest()))
		if err == nil {
			return nil, distribution.ErrBlobMounted{From: o.Mount.From, Descriptor: desc}
		}
		if !errors.Is(err, distribution.ErrBlobUnknown) { // over the quota, or our own fault
			return nil, err
		}
	}
	u, err := b.s.NewUpload(ctx, b.repo)
	if err != nil {
		return nil, err // not u: a nil *Upload is no nil BlobWriter
	}
	return u, nil
}

// Resume goes on with an upload; see AskOnly for one that is only looked at.
// The error is ErrBlobUploadUnknown where there is none.
func (b *blobStore) Resume(ctx context.Context, id string) (distribution.BlobWriter, error) {
	get := b.s.ResumeUpload
	if ctx.Value(askOnly{}) != nil {
		get = b.s.UploadStatus
	}
	u, err := get(ctx, b.repo, id)
	if tarport.ErrorCode(err) == tarport.BlobUploadUnknown {
		return nil, distribution.ErrBlobUploadUnknown
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

type askOnly struct{}

// AskOnly returns a context in which Resume answers how far an upload is and
// does not take it: for GET, which must not disturb a request that writes.
func AskOnly(ctx context.Context) context.Context {
	return context.WithValue(ctx, askOnly{}, true)
}

func (b *blobStore) ServeBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, dgst digest.Digest) error {
	return b.s.ServeBlob(ctx, w, r, b.repo, dgst)
}

func (b *blobStore) Delete(ctx context.Context, dgst digest.Digest) error {
	err := b.s.DeleteBlob(ctx, b.repo, dgst)
	if tarport.ErrorCode(err) == tarport.BlobUnknown {
		return distribution.ErrBlobUnknown
	}
	return err
}

type manifestService struct {
	s    *Store
	repo string
}

func (m *manifestService) Exists(ctx context.Context, dgst digest.Digest) (bool, error) {
	_, err := m.s.Manifest(ctx, m.repo, tarport.Reference{Digest: dgst})
	if tarport.ErrorCode(err) == tarport.ManifestUnknown {
		return false, nil
	}
	return err == nil, err
}

func (m *manifestService) Get(ctx context.Context, dgst digest.Digest, _ ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	row, err := m.s.Manifest(ctx, m.repo, tarport.Reference{Digest: dgst})
	if tarport.ErrorCode(err) == tarport.ManifestUnknown {
		return nil, distribution.ErrManifestUnknownRevision{Name: m.repo, Revision: dgst}
	}
	if err != nil {
		return nil, err
	}
	return manifest{*row}, nil
}

// Put stores the manifest and, by distribution.WithTag, its tags, in one
// transaction.
func (m *manifestService) Put(ctx context.Context, man distribution.Manifest, options ...distribution.ManifestServiceOption) (digest.Digest, error) {
	mediaType, payload, err := man.Payload()
	if err != nil {
		return "", err
	}
	p := ManifestPut{Repository: m.repo, MediaType: mediaType, Payload: payload, By: tarport.PrincipalFrom(ctx).Name, Via: ViaPush}
	for _, o := range options {
		if t, ok := o.(distribution.WithTagOption); ok {
			p.Tags = append(p.Tags, t.Tag)
		}
	}
	row, err := m.s.PutManifest(ctx, p, "")
	return row.Digest, err
}

func (m *manifestService) Delete(ctx context.Context, dgst digest.Digest) error {
	err := m.s.DeleteManifest(ctx, m.repo, dgst, tarport.PrincipalFrom(ctx).Name)
	if code := tarport.ErrorCode(err); code == tarport.ManifestUnknown || code == tarport.NameUnknown {
		return distribution.ErrManifestUnknownRevision{Name: m.repo, Revision: dgst}
	}
	return err
}

// manifest is a stored manifest as distribution sees it.
type manifest struct{ row metadata.Manifest }

func (m manifest) References() []ocispec.Descriptor {
	parsed, err := ParseManifest(m.row.MediaType, m.row.Payload)
	if err != nil {
		return nil // it was parsed when it was stored
	}
	list := make([]ocispec.Descriptor, len(parsed.References))
	for i, r := range parsed.References {
		list[i] = ocispec.Descriptor{Digest: r.Digest, Size: r.Size}
	}
	return list
}

func (m manifest) Payload() (mediaType string, payload []byte, err error) {
	return m.row.MediaType, m.row.Payload, nil
}

// How content came in, as manifests and tags remember it.
const (
	ViaPush   = "push"
	ViaLoad   = "load"
	ViaImport = "import"
	ViaCommit = "commit"
	ViaTag    = "tag"
)

type tagService struct {
	s    *Store
	repo string
}

func (t *tagService) Get(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	m, err := t.s.Manifest(ctx, t.repo, tarport.Reference{Tag: tag})
	if tarport.ErrorCode(err) == tarport.ManifestUnknown {
		return ocispec.Descriptor{}, distribution.ErrTagUnknown{Tag: tag}
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Payload))}, nil
}

func (t *tagService) Tag(ctx context.Context, tag string, desc ocispec.Descriptor) error {
	return t.s.Tag(ctx, t.repo, tag, desc.Digest, tarport.PrincipalFrom(ctx).Name, ViaTag)
}

func (t *tagService) Untag(ctx context.Context, tag string) error {
	err := t.s.DeleteTag(ctx, t.repo, tag, tarport.PrincipalFrom(ctx).Name)
	if code := tarport.ErrorCode(err); code == tarport.ManifestUnknown || code == tarport.NameUnknown {
		return distribution.ErrTagUnknown{Tag: tag}
	}
	return err
}

func (t *tagService) All(ctx context.Context) ([]string, error) { return t.after(ctx, "") }

func (t *tagService) after(ctx context.Context, last string) ([]string, error) {
	tags := []string{}
	for {
		p, err := t.s.Tags(ctx, t.repo, 1000, last)
		if tarport.ErrorCode(err) == tarport.NameUnknown {
			return nil, distribution.ErrRepositoryUnknown{Name: t.repo}
		}
		if err != nil {
			return nil, err
		}
		tags = append(tags, p.Names()...)
		if last = p.Last; !p.More {
			return tags, nil
		}
	}
}

// List returns at most limit tags after last, or all for a limit below 0;
// io.EOF comes with the last of them.
func (t *tagService) List(ctx context.Context, limit int, last string) ([]string, error) {
	if limit < 0 {
		tags, err := t.after(ctx, last)
		if err == nil {
			err = io.EOF
		}
		return tags, err
	}
	p, err := t.s.Tags(ctx, t.repo, limit, last)
	if tarport.ErrorCode(err) == tarport.NameUnknown {
		return nil, distribution.ErrRepositoryUnknown{Name: t.repo}
	}
	if err == nil && !p.More {
		err = io.EOF
	}
	return p.Names(), err
}

func (t *tagService) Lookup(ctx context.Context, desc ocispec.Descriptor) ([]string, error) {
	return t.s.TagsOf(ctx, t.repo, desc.Digest)
}
