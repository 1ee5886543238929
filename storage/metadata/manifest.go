package metadata

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// Kinds of what a manifest names.
const (
	KindConfig   = "config"
	KindLayer    = "layer"
	KindForeign  = "foreign"  // a layer that is elsewhere by design; it need not be here
	KindManifest = "manifest" // an entry of an index; it need not be here
)

// Manifest is a manifest of a repository.
type Manifest struct {
	Digest       digest.Digest
	MediaType    string
	ArtifactType string // "" where it has none
	Subject      digest.Digest
	Descriptor   string // its own descriptor as JSON, as a list of referrers shows it
	Payload      []byte // the bytes as they came; not to be changed
	Kind         string // KindImage, KindIndex, KindArtifact; "" where nobody has looked
	Size         int64  // of its layers, at most MaxSize; an index is measured by the database
	References   []ManifestReference
}

// ManifestReference is something that a manifest names.
type ManifestReference struct {
	Kind     string
	Digest   digest.Digest
	Size     int64
	Platform string // os/architecture[/variant] of an entry of an index, NoPlatform, or "" where the index does not say
}

// ManifestPut is a manifest that is to be there, with its tags.
type ManifestPut struct {
	Repository string
	Manifest   Manifest
	Tags       []string
	By, Via    string

	// Image is what the manifest's config says, of an image; nil where it is
	// not here.
	Image *Image
	// AllowMissing takes a manifest whose config or layers are not all here.
	AllowMissing bool
	// Links are blobs that the repository gets by this manifest: the caller
	// has all their bytes.
	Links []digest.Digest
	// Layers among them whose plain form the caller has hashed.
	Layers []Layer
	// Lease is what the blobs get, where theirs ends before RenewBefore.
	Lease, RenewBefore time.Time
}

const (
	insertManifest = `INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, descriptor, payload, created_at, pushed_by, pushed_via, kind, size)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (repository_id, digest) DO NOTHING`
	insertReference = `INSERT INTO manifest_references (repository_id, manifest, position, kind, digest, size, platform) VALUES ($1, $2, $3, $4, $5, $6, $7)`
	checkReferences = `SELECT r.kind, r.digest, r.size, COALESCE(b.size, -1), COALESCE(b.leased_until, 0), COALESCE(length(m.payload), -1), COALESCE(l.counted, TRUE)
		FROM manifest_references r
		LEFT JOIN blob_links l ON l.repository_id = r.repository_id AND l.digest = r.digest
		LEFT JOIN blobs b ON b.digest = l.digest AND b.state = 'live'
		LEFT JOIN manifests m ON m.repository_id = r.repository_id AND m.digest = r.digest
		WHERE r.repository_id = $1 AND r.manifest = $2 ORDER BY r.position`
	renewReferences = `UPDATE blobs SET leased_until = $3 WHERE state = 'live' AND leased_until < $3
		AND digest IN (SELECT digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2)`
	renewLink  = `UPDATE blobs SET leased_until = $2 WHERE digest = $1 AND state = 'live' AND leased_until < $2 RETURNING size`
	countAgain = `UPDATE blob_links SET counted = TRUE WHERE repository_id = $1 AND NOT counted
		AND digest IN (SELECT digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2)
		RETURNING namespace_id, digest, (SELECT size FROM blobs b WHERE b.digest = blob_links.digest)`
	// The links that nothing else in the repository needs.
	countNoMore = `UPDATE blob_links SET counted = FALSE WHERE repository_id = $1 AND counted
		AND digest IN (SELECT digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2)
		AND NOT EXISTS (SELECT 1 FROM manifest_references o WHERE o.repository_id = $1 AND o.digest = blob_links.digest AND o.manifest <> $2)
		RETURNING namespace_id, digest, (SELECT size FROM blobs b WHERE b.digest = blob_links.digest)`

	selectManifest = `SELECT m.digest, m.media_type, m.payload FROM repositories r
		JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.name = $1`
	selectTagged = `SELECT m.digest, m.media_type, m.payload FROM repositories r
		JOIN tags t ON t.repository_id = r.id AND t.name = $2
		JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest WHERE r.name = $1`
	selectReferrers = `SELECT m.descriptor FROM repositories r
		JOIN manifests m ON m.repository_id = r.id AND m.subject = $2
		WHERE r.name = $1 AND ($3 = '' OR m.artifact_type = $3) AND m.digest > $4 ORDER BY m.digest LIMIT $5`

	deleteManifest = `DELETE FROM manifests WHERE repository_id = $1 AND digest = $2`
)

// PutManifests makes manifests and their tags visible, all or none, in one
// transaction: references, tags, history, links, leases, usage and events with
// them. DENIED where that exceeds the namespace's quota, or an immutable tag
// would move.
//
// A config or layer that the repository does not link is
// MANIFEST_BLOB_UNKNOWN; a size that is not the blob's is MANIFEST_INVALID.
func (db *DB) PutManifests(ctx context.Context, puts []ManifestPut) error {
	return db.PutBatch(ctx, "", puts)
}

// PutBatch is PutManifests for what an archive brings: what ReserveBatch
// reserved under the id is given back in the same transaction.
func (db *DB) PutBatch(ctx context.Context, id string, puts []ManifestPut) error {
	// Repositories in one order, so that two transactions do not wait for each
	// other's rows.
	ordered := slices.Clone(puts)
	slices.SortStableFunc(ordered, func(a, b ManifestPut) int {
		if a.Repository < b.Repository {
			return -1
		} else if a.Repository > b.Repository {
			return 1
		}
		return 0
	})
	return db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if id != "" {
			if err := tx.release(ctx, deleteBatch, id); err != nil {
				return err
			}
		}
		for i := range ordered {
			if err := tx.putManifest(ctx, &ordered[i]); err != nil {
				return fmt.Errorf("put manifest %s: %w", ordered[i].Manifest.Digest, err)
			}
		}
		return nil
	})
}

func (tx *Tx) putManifest(ctx context.Context, p *ManifestPut) error {
	repo, err := tx.makeRepository(ctx, p.Repository)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, touchRepository, repo, tx.now); err != nil {
		return err
	}
	if err := tx.link(ctx, repo, p); err != nil {
		return err
	}
	m := &p.Manifest
	var subject any
	if m.Subject != "" {
		subject = m.Subject.String()
	}
	var kind any
	if m.Kind != "" {
		kind = m.Kind
	}
	isNew, err := tx.exec(ctx, insertManifest, repo, m.Digest.String(), m.MediaType, m.ArtifactType, subject, m.Descriptor, m.Payload,
		tx.now, p.By, p.Via, kind, m.Size)
	if err != nil {
		return err
	}
	describe := tx.describeAgain
	if isNew > 0 {
		describe = tx.describe
		for i, r := range m.References {
			if _, err := tx.exec(ctx, insertReference, repo, m.Digest.String(), i, r.Kind, r.Digest.String(), r.Size, r.Platform); err != nil {
				return err
			}
		}
	}
	if err := tx.checkReferences(ctx, repo, p); err != nil {
		return err
	}
	if err := describe(ctx, repo, m, p.Image); err != nil {
		return err
	}
	changed := isNew > 0
	for _, tag := range p.Tags {
		moved, err := tx.tag(ctx, repo, tag, m.Digest, p.By, p.Via)
		if err != nil {
			return err
		}
		changed = changed || moved
	}
	if !changed {
		return nil
	}
	return tx.manifestEvent(ctx, EventManifestPush, p.Repository, m.Digest, p.By, map[string]any{"tags": p.Tags, "via": p.Via})
}

// manifestEvent records what happened to a manifest; by is who did it where the
// context names nobody.
func (tx *Tx) manifestEvent(ctx context.Context, action, repository string, dgst digest.Digest, by string, detail map[string]any) error {
	e := Event{Action: action, Namespace: tarport.Namespace(repository), Repository: repository, Target: dgst.String(), Detail: detail}
	if tarport.PrincipalFrom(ctx).Name == "" {
		e.Actor = by
	}
	return tx.event(ctx, e)
}

// link gives the repository the blobs that come with the manifest.
func (tx *Tx) link(ctx context.Context, repo int64, p *ManifestPut) error {
	for _, d := range p.Links {
		var size, lease int64
		renewed, err := tx.row(ctx, renewLink, []any{d.String(), p.Lease.UnixMicro()}, &size)
		if err != nil {
			return err
		}
		if !renewed { // its lease is as long already, or it is going
			if found, err := tx.row(ctx, selectBlob, []any{d.String()}, &size, &lease); err != nil {
				return err
			} else if !found {
				return tarport.Errorf(tarport.ManifestBlobUnknown, "the blob %s is not in the registry any more, send it again", d)
			}
		}
		if err := tx.linkBlob(ctx, repo, d, size); err != nil {
			return err
		}
	}
	for i := range p.Layers {
		l := &p.Layers[i]
		if _, err := tx.exec(ctx, insertDiffID, l.DiffID.String(), l.Digest.String(), l.Compression); err != nil {
			return err
		}
		if err := tx.putPrefixes(ctx, l); err != nil {
			return err
		}
	}
	return tx.putFacts(ctx, p.Layers)
}

// checkReferences compares what the manifest names with what is there, and
// renews the leases that end soon. One whose lease is long cannot be marked by
// the collector while this transaction runs; of the others one may just have
// been marked by another replica, and the renewing passed it over: so it is
// looked at again.
func (tx *Tx) checkReferences(ctx context.Context, repo int64, p *ManifestPut) error {
	renew, count, err := tx.compareReferences(ctx, repo, p)
	if err == nil && count {
		err = tx.count(ctx, countAgain, 1, repo, p.Manifest.Digest.String())
	}
	if err != nil || !renew {
		return err
	}
	if _, err := tx.exec(ctx, renewReferences, repo, p.Manifest.Digest.String(), p.Lease.UnixMicro()); err != nil {
		return err
	}
	_, _, err = tx.compareReferences(ctx, repo, p)
	return err
}

// count runs a query that makes links count, or not any more.
func (tx *Tx) count(ctx context.Context, query string, made int, repo int64, manifest string) error {
	return tx.query(ctx, func(scan func(...any) error) error {
		var ns, size int64
		var dgst string
		if err := scan(&ns, &dgst, &size); err != nil {
			return err
		}
		tx.noteLink(ns, dgst, size, made)
		return nil
	}, query, repo, manifest)
}

// compareReferences tells also whether a lease ends soon, and whether a link
// does not count.
func (tx *Tx) compareReferences(ctx context.Context, repo int64, p *ManifestPut) (renew, count bool, err error) {
	var missing []digest.Digest
	var wrong error
	err = tx.query(ctx, func(scan func(...any) error) error {
		var kind string
		var d digest.Digest
		var size, blobSize, lease, manifestSize int64
		var counted bool
		if err := scan(&kind, &d, &size, &blobSize, &lease, &manifestSize, &counted); err != nil {
			return err
		}
		count = count || !counted
		have := blobSize
		if kind == KindManifest && manifestSize >= 0 {
			have = manifestSize
		}
		switch {
		case have >= 0 && have != size:
			wrong = tarport.Errorf(tarport.ManifestInvalid, "the manifest says that %s has %d bytes, it has %d", d, size, have)
		case have < 0 && (kind == KindConfig || kind == KindLayer) && !p.AllowMissing:
			missing = append(missing, d)
		}
		renew = renew || blobSize >= 0 && lease < p.RenewBefore.UnixMicro()
		return nil
	}, checkReferences, repo, p.Manifest.Digest.String())
	switch {
	case err != nil:
		return false, false, err
	case wrong != nil:
		return false, false, wrong
	case len(missing) > 0:
		return false, false, tarport.Errorf(tarport.ManifestBlobUnknown, "the manifest names %d blob(s) that this repository does not have, first %s",
			len(missing), missing[0]).WithDetail(map[string]any{"missing": missing})
	}
	return renew, count, nil
}

// Manifest returns digest, media type and payload of a manifest by tag or
// digest; MANIFEST_UNKNOWN where the repository has none.
func (db *DB) Manifest(ctx context.Context, repository string, ref tarport.Reference) (Manifest, error) {
	query, arg := selectTagged, ref.Tag
	if ref.Digest != "" {
		query, arg = selectManifest, ref.Digest.String()
	}
	var m Manifest
	found, err := db.view().row(ctx, query, []any{repository, arg}, &m.Digest, &m.MediaType, &m.Payload)
	if err != nil {
		return m, fmt.Errorf("look up manifest %s: %w", ref, err)
	}
	if !found {
		return m, tarport.Errorf(tarport.ManifestUnknown, "the repository %s has no manifest %s", repository, ref)
	}
	return m, nil
}

// Referrers returns descriptors, as JSON, of manifests whose subject is the
// digest, in the order of their digests, after last: at most n, and no more once
// they have maxPageBytes, since a descriptor has all annotations of its manifest.
// more tells whether there are others. They are of one artifact type, or of any
// for "".
func (db *DB) Referrers(ctx context.Context, repository string, subject digest.Digest, artifactType string, n int, last string) (list []string, more bool, err error) {
	list = []string{}
	size := 0
	err = db.view().query(ctx, func(scan func(...any) error) error {
		if len(list) == n || size > maxPageBytes {
			return errPageFull
		}
		var d string
		if err := scan(&d); err != nil {
			return err
		}
		size += len(d)
		list = append(list, d)
		return nil
	}, selectReferrers, repository, subject.String(), artifactType, last, n+1)
	if err == errPageFull { //nolint:errorlint // our own, as it is
		err, more = nil, true
	}
	if err != nil {
		return nil, false, fmt.Errorf("list referrers of %s: %w", subject, err)
	}
	return list, more, nil
}

// DeleteManifest takes a manifest and its tags out of a repository. The blobs
// that it named get a new lease: whoever saw them a moment ago may still push.
// Until then they can be read, but those that nothing else in the repository
// names count no more. DENIED where an immutable tag points to the manifest, or
// to an index that needs it.
func (db *DB) DeleteManifest(ctx context.Context, repository string, dgst digest.Digest, by string, lease time.Time) error {
	return db.changeRepository(ctx, repository, func(ctx context.Context, tx *Tx, repo int64) error {
		if err := tx.checkParents(ctx, repo, dgst); err != nil {
			return err
		}
		tags, err := all(ctx, tx, scanOne[string], selectTagsOf, repo, dgst.String())
		if err != nil {
			return err
		}
		for _, t := range tags {
			if err := tx.untag(ctx, repo, t, by); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, renewReferences, repo, dgst.String(), lease.UnixMicro()); err != nil {
			return err
		}
		if err := tx.count(ctx, countNoMore, -1, repo, dgst.String()); err != nil {
			return err
		}
		n, err := tx.exec(ctx, deleteManifest, repo, dgst.String())
		if err == nil && n == 0 {
			return tarport.Errorf(tarport.ManifestUnknown, "the repository has no manifest %s", dgst)
		}
		if err != nil {
			return err
		}
		if err := tx.measureParents(ctx, repo, dgst.String()); err != nil {
			return err
		}
		return tx.manifestEvent(ctx, EventManifestDelete, repository, dgst, by, map[string]any{"tags": tags})
	})
}

// changeRepository runs fn on a repository that is there, alone.
func (db *DB) changeRepository(ctx context.Context, name string, fn func(ctx context.Context, tx *Tx, repo int64) error) error {
	return db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		repo, found, err := tx.repository(ctx, name)
		if err != nil {
			return err
		}
		if !found {
			return tarport.Errorf(tarport.NameUnknown, "the repository %s is not known", name)
		}
		if _, err := tx.exec(ctx, touchRepository, repo, tx.now); err != nil {
			return err
		}
		return fn(ctx, tx, repo)
	})
}
