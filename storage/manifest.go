package storage

import (
	"context"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Manifest returns a manifest by tag or digest; MANIFEST_UNKNOWN where the
// repository has none. Its payload must not be changed.
func (s *Store) Manifest(ctx context.Context, repository string, ref tarport.Reference) (*metadata.Manifest, error) {
	key := cacheKey{cacheManifest, repository, ref.Tag}
	if ref.Digest != "" {
		key.name = string(ref.Digest)
	}
	return cached(s.cache, key, func() (*metadata.Manifest, error) {
		m, err := s.db.Manifest(ctx, repository, ref)
		return &m, err
	}, func(m *metadata.Manifest) int { return len(m.Payload) })
}

// PutManifest makes a manifest and its tags visible in one transaction. dgst is
// the digest that the client named; "" for the sha256. DIGEST_INVALID where the
// bytes have another one.
func (s *Store) PutManifest(ctx context.Context, p ManifestPut, dgst digest.Digest) (metadata.Manifest, error) {
	if err := s.disk.fits(0); err != nil {
		return metadata.Manifest{}, err
	}
	row, err := s.manifestRow(&p)
	if err != nil {
		return row.Manifest, err
	}
	if dgst != "" && dgst != row.Manifest.Digest {
		if got := dgst.Algorithm().FromBytes(p.Payload); got != dgst {
			return row.Manifest, tarport.Errorf(tarport.DigestInvalid, "the manifest sent has the digest %s, not %s", got, dgst)
		}
		named(&row.Manifest, dgst)
	}
	if err := readImage(&row, s.openLinked(ctx, p.Repository)); err != nil {
		return row.Manifest, err
	}
	if err := s.db.PutManifests(ctx, []metadata.ManifestPut{row}); err != nil {
		return row.Manifest, err
	}
	s.changedRepository(p.Repository)
	s.signalPushed()
	return row.Manifest, nil
}

// named gives a manifest the digest that its client named, also where others
// read of it.
func named(m *metadata.Manifest, dgst digest.Digest) {
	m.Descriptor = strings.Replace(m.Descriptor, m.Digest.String(), dgst.String(), 1)
	m.Digest = dgst
}

// changedRepository is called after each change of manifests or tags, before
// anybody is told of it.
func (s *Store) changedRepository(repository string) {
	s.cache.changed(repository)
	s.cache.changed(catalog)
}

// DeleteManifest takes a manifest and its tags out of a repository.
func (s *Store) DeleteManifest(ctx context.Context, repository string, dgst digest.Digest, by string) error {
	defer s.changedRepository(repository)
	return s.db.DeleteManifest(ctx, repository, dgst, by, s.lease())
}

// DeleteTag takes a tag away; its manifest stays.
func (s *Store) DeleteTag(ctx context.Context, repository, tag, by string) error {
	defer s.changedRepository(repository)
	return s.db.DeleteTag(ctx, repository, tag, by)
}

// Tag lets a tag point to a manifest of the same repository.
func (s *Store) Tag(ctx context.Context, repository, tag string, dgst digest.Digest, by, via string) error {
	if err := tarport.CheckTag(tag); err != nil {
		return err
	}
	if err := s.disk.fits(0); err != nil {
		return err
	}
	defer s.changedRepository(repository)
	return s.db.Tag(ctx, repository, tag, dgst, by, via)
}

// TagsOf lists the tags that point to a manifest.
func (s *Store) TagsOf(ctx context.Context, repository string, dgst digest.Digest) ([]string, error) {
	return s.db.TagsOf(ctx, repository, dgst)
}

// catalog is the name under which the list of repositories is cached; no
// repository can be called so.
const catalog = "/"

// Tags lists at most n tags in byte order, after last; NAME_UNKNOWN where
// there is no such repository.
func (s *Store) Tags(ctx context.Context, repository string, n int, last string) (metadata.Page, error) {
	return cached(s.cache, cacheKey{cacheTags, repository, pageKey(n, last)}, func() (metadata.Page, error) {
		return s.db.Tags(ctx, repository, n, last)
	}, pageSize)
}

// Repositories lists at most n repositories that hold a manifest, in byte
// order, after last.
func (s *Store) Repositories(ctx context.Context, n int, last string) (metadata.Page, error) {
	return cached(s.cache, cacheKey{cacheCatalog, catalog, pageKey(n, last)}, func() (metadata.Page, error) {
		return s.db.Repositories(ctx, n, last)
	}, pageSize)
}

// ReadableRepositories is Repositories with only what the viewer may read.
func (s *Store) ReadableRepositories(ctx context.Context, v metadata.Viewer, n int, last string) (metadata.Page, error) {
	if v.All && v.Namespace == "" {
		return s.Repositories(ctx, n, last)
	}
	return s.db.ReadableRepositories(ctx, v, n, last)
}

// DeleteRepository deletes a repository with all that is in it; NAME_UNKNOWN
// where there is none.
func (s *Store) DeleteRepository(ctx context.Context, name string) error {
	defer s.changedRepository(name)
	return s.db.DeleteRepository(ctx, name, s.lease())
}

// DeleteNamespace deletes a namespace; see metadata.DB.DeleteNamespace.
func (s *Store) DeleteNamespace(ctx context.Context, name string, force bool) (metadata.Contents, error) {
	gone, err := s.db.DeleteNamespace(ctx, name, force, s.lease())
	for _, repository := range gone.Repositories {
		s.changedRepository(repository)
	}
	return gone, err
}

func pageKey(n int, last string) string { return strconv.Itoa(n) + " " + last }

func pageSize(p metadata.Page) int { return len(p.Joined) + len(p.Last) }

// Referrers returns a page of descriptors, as JSON, of manifests whose subject is
// the digest; see metadata.DB.Referrers.
func (s *Store) Referrers(ctx context.Context, repository string, subject digest.Digest, artifactType string, n int, last string) (list []string, more bool, err error) {
	type page struct {
		list []string
		more bool
	}
	key := cacheKey{cacheReferrers, repository, string(subject) + " " + artifactType + " " + pageKey(n, last)}
	p, err := cached(s.cache, key, func() (p page, err error) {
		p.list, p.more, err = s.db.Referrers(ctx, repository, subject, artifactType, n, last)
		return p, err
	}, func(p page) int {
		size := 0
		for _, d := range p.list {
			size += len(d) + 16
		}
		return size
	})
	return p.list, p.more, err
}
