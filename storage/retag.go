package storage

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// maxCopied bounds the manifests that an index reaches, and so the transaction
// that copies them; maxCopiedBytes what they have in memory until then.
const (
	maxCopied      = 1000
	maxCopiedBytes = 64 << 20
)

// CopyImage lets a tag of one repository point to a manifest of another, as
// docker tag does: with all that the manifest reaches, as far as from has it.
// No bytes are moved. The caller may pull of from, and push to repository.
//
// MANIFEST_UNKNOWN where from has no such manifest.
func (s *Store) CopyImage(ctx context.Context, from string, dgst digest.Digest, repository, tag, by, via string) error {
	if err := tarport.CheckTag(tag); err != nil {
		return err
	}
	if err := s.disk.fits(0); err != nil {
		return err
	}
	c := &copying{s: s, from: from, to: ManifestPut{Repository: repository, By: by, Via: via, AllowMissing: true}, seen: map[digest.Digest]bool{}}
	if err := c.add(ctx, dgst); err != nil {
		return err
	}
	c.rows[len(c.rows)-1].Tags = []string{tag} // what it reaches stands before it
	if err := s.db.PutManifests(ctx, c.rows); err != nil {
		return err
	}
	s.changedRepository(repository)
	s.settle(context.WithoutCancel(ctx), c.rows)
	s.signalPushed()
	return nil
}

// copying is one call of CopyImage.
type copying struct {
	s     *Store
	from  string
	to    ManifestPut
	rows  []metadata.ManifestPut
	seen  map[digest.Digest]bool
	bytes int // of the manifests
}

func (c *copying) add(ctx context.Context, dgst digest.Digest) error {
	m, err := c.s.Manifest(ctx, c.from, tarport.Reference{Digest: dgst})
	if err != nil {
		return err
	}
	if c.seen[dgst] = true; len(c.seen) > maxCopied {
		return tarport.Errorf(tarport.TooLarge, "the index names more than %d manifests", maxCopied)
	}
	if c.bytes += len(m.Payload); c.bytes > maxCopiedBytes {
		return tarport.Errorf(tarport.TooLarge, "the manifests that the index names have more than %d bytes", maxCopiedBytes)
	}
	put := c.to
	put.MediaType, put.Payload = m.MediaType, m.Payload
	row, err := c.s.manifestRow(&put)
	if err != nil {
		return err
	}
	named(&row.Manifest, dgst)
	for _, r := range row.Manifest.References {
		err := c.reference(ctx, &row, r)
		switch tarport.ErrorCode(err) {
		case "", tarport.ManifestUnknown, tarport.BlobUnknown: // what is missing there is missing here too
		default:
			return err
		}
	}
	if err := readImage(&row, c.s.openLinked(ctx, c.from)); err != nil {
		return err
	}
	c.rows = append(c.rows, row)
	return nil
}

func (c *copying) reference(ctx context.Context, row *metadata.ManifestPut, r metadata.ManifestReference) error {
	if r.Kind != metadata.KindManifest {
		return c.link(ctx, row, r.Digest)
	}
	if c.seen[r.Digest] {
		return nil
	}
	err := c.add(ctx, r.Digest)
	if tarport.ErrorCode(err) == tarport.ManifestUnknown {
		return c.link(ctx, row, r.Digest) // BuildKit's caches are indexes of layers
	}
	return err
}

// link brings a blob along, and what is known of it as a layer stays known: that
// is the blob's and no repository's.
func (c *copying) link(ctx context.Context, row *metadata.ManifestPut, dgst digest.Digest) error {
	if _, err := c.s.Blob(ctx, c.from, dgst); err != nil {
		return err
	}
	row.Links = append(row.Links, dgst)
	return nil
}
