package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// Kinds of manifests.
const (
	KindImage    = "image"
	KindIndex    = "index"
	KindArtifact = "artifact" // a chart, a signature, an attestation, …
)

// NoPlatform is the platform of an entry of an index that is none's: an
// attestation, or a layer of a build cache.
const NoPlatform = "-"

// MaxSize bounds the size of a manifest: what layers that are elsewhere are
// said to have is anybody's claim, and sizes are added up.
const MaxSize = 1 << 50

// Image is what the config of an image says. All text is free of control
// characters.
type Image struct {
	OS, Architecture, Variant, OSVersion string

	Created time.Time // zero where it does not say
	Author  string
	Message string // of the commit
	Config  string // JSON of what a list of tags shows

	Chains []digest.Digest // the chain ID at each layer, the lowest first
}

// States of the scan of an image's layers.
const (
	ScanPending = "pending"
	ScanReady   = "ready"
	ScanFailed  = "failed"
	ScanNone    = "none" // not all layers are here
)

// ImageRow is all that is recorded of an image of a repository. Base and what
// follows are known when Scan is ScanReady. Config is "" where the config was
// not here.
type ImageRow struct {
	Image
	Size             int64 // of its layers
	Scan, ScanReason string
	Base             Base
}

// Base is what an image stands on, read from its layers.
type Base struct {
	ID             string // the distribution, as in os-release
	Version        string
	Name           string // a code name, or what people call it
	Libc           string
	PackageManager string
	Packages       int64 // -1: unknown
	Slim           bool  // a Debian without its documentation
}

// UnreadManifest is a manifest whose facts are not all recorded.
type UnreadManifest struct {
	Repository string
	Digest     digest.Digest
	MediaType  string
	Payload    []byte

	repositoryID int64
}

const (
	// Layers that are not here can come later, with the same manifest again.
	upsertImage = `INSERT INTO images (repository_id, digest, os, architecture, variant, os_version, created_at, author, message, size, config, scan)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
			CASE WHEN EXISTS (SELECT 1 FROM manifest_references r WHERE r.repository_id = $1 AND r.manifest = $2 AND r.kind = 'layer'
				AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = r.digest)) THEN 'none' ELSE 'pending' END)
		ON CONFLICT (repository_id, digest) DO UPDATE SET os = excluded.os, architecture = excluded.architecture, variant = excluded.variant,
			os_version = excluded.os_version, created_at = excluded.created_at, author = excluded.author, message = excluded.message,
			config = excluded.config, scan = CASE WHEN images.scan = 'none' THEN excluded.scan ELSE images.scan END`
	// In one order, so that two transactions do not wait for each other's rows.
	insertLayers = `INSERT INTO layers (digest, changed_at)
		SELECT b.digest, $3 FROM blobs b WHERE b.digest IN (SELECT digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2 AND kind = 'layer')
		AND NOT EXISTS (SELECT 1 FROM layers l WHERE l.digest = b.digest) ORDER BY b.digest
		ON CONFLICT (digest) DO NOTHING`
	isDescribed = `SELECT 1 FROM manifests m LEFT JOIN images i ON i.repository_id = m.repository_id AND i.digest = m.digest
		WHERE m.repository_id = $1 AND m.digest = $2 AND m.kind IS NOT NULL AND (m.kind <> 'image' OR i.config IS NOT NULL AND i.scan <> 'none')`

	setKind     = `UPDATE manifests SET kind = $3, size = $4 WHERE repository_id = $1 AND digest = $2`
	setPlatform = `UPDATE manifest_references SET platform = $4 WHERE repository_id = $1 AND manifest = $2 AND position = $3`
	setTagSizes = `UPDATE tags SET size = $3 WHERE repository_id = $1 AND digest = $2 AND size <> $3`

	selectParents = `SELECT DISTINCT manifest FROM manifest_references WHERE repository_id = $1 AND digest = $2 AND kind = 'manifest' ORDER BY manifest`
	// The images of an index that are here, each once.
	measureIndex = `UPDATE manifests SET size = (SELECT COALESCE(CAST(SUM(CASE WHEN c.size > $3 THEN $3 ELSE c.size END) AS BIGINT), 0)
			FROM manifests c WHERE c.repository_id = $1 AND c.kind = 'image' AND c.digest IN (
				SELECT digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2 AND kind = 'manifest' AND platform <> '-'))
		WHERE repository_id = $1 AND digest = $2 AND kind = 'index' RETURNING size`

	selectImage = `SELECT i.os, i.architecture, i.variant, i.os_version, i.created_at, i.author, i.message, COALESCE(i.config, ''), i.size,
		i.scan, i.scan_reason, i.base_id, i.base_version, i.base_name, i.libc, i.package_manager, i.packages, i.slim
		FROM repositories r JOIN images i ON i.repository_id = r.id AND i.digest = $2 WHERE r.name = $1`

	selectUnread = `SELECT r.id, r.name, m.digest, m.media_type, m.payload FROM manifests m JOIN repositories r ON r.id = m.repository_id
		WHERE m.kind IS NULL AND (m.repository_id, m.digest) > ($1, $2) ORDER BY m.repository_id, m.digest LIMIT $3`
	// Those whose config came after them.
	selectConfigless = `SELECT r.id, r.name, m.digest, m.media_type, m.payload FROM images i
		JOIN manifests m ON m.repository_id = i.repository_id AND m.digest = i.digest JOIN repositories r ON r.id = m.repository_id
		WHERE i.config IS NULL AND (i.repository_id, i.digest) > ($1, $2)
		AND EXISTS (SELECT 1 FROM manifest_references c JOIN blob_links l ON l.repository_id = c.repository_id AND l.digest = c.digest
			WHERE c.repository_id = i.repository_id AND c.manifest = i.digest AND c.kind = 'config')
		ORDER BY i.repository_id, i.digest LIMIT $3`
)

// describe records what a manifest is, in the transaction that makes it
// visible. Its row and its references are there, with kind, size and platforms.
func (tx *Tx) describe(ctx context.Context, repo int64, m *Manifest, img *Image) error {
	switch m.Kind {
	case KindImage:
		if err := tx.putImage(ctx, repo, m, img); err != nil {
			return err
		}
		return tx.measureParents(ctx, repo, m.Digest.String())
	case KindIndex:
		return tx.measure(ctx, repo, m.Digest.String())
	}
	return nil
}

func (tx *Tx) putImage(ctx context.Context, repo int64, m *Manifest, img *Image) error {
	var config any
	if img == nil {
		img = &Image{}
	} else {
		config = img.Config
	}
	_, err := tx.exec(ctx, upsertImage, repo, m.Digest.String(), img.OS, img.Architecture, img.Variant, img.OSVersion,
		orNull(img.Created), img.Author, img.Message, m.Size, config)
	if err != nil {
		return fmt.Errorf("record the image: %w", err)
	}
	if _, err := tx.exec(ctx, insertLayers, repo, m.Digest.String(), tx.now); err != nil {
		return fmt.Errorf("record the layers: %w", err)
	}
	return tx.putChains(ctx, repo, m.Digest, img.Chains)
}

// describeAgain is describe for a manifest that was there already: its config or
// its layers may have come since.
func (tx *Tx) describeAgain(ctx context.Context, repo int64, m *Manifest, img *Image) error {
	var one int
	done, err := tx.row(ctx, isDescribed, []any{repo, m.Digest.String()}, &one)
	if err != nil || done || m.Kind == "" {
		return err
	}
	if _, err := tx.exec(ctx, setKind, repo, m.Digest.String(), m.Kind, m.Size); err != nil {
		return err
	}
	for i, r := range m.References {
		if r.Platform == "" {
			continue
		}
		if _, err := tx.exec(ctx, setPlatform, repo, m.Digest.String(), i, r.Platform); err != nil {
			return err
		}
	}
	if _, err := tx.exec(ctx, setTagSizes, repo, m.Digest.String(), m.Size); err != nil {
		return err
	}
	return tx.describe(ctx, repo, m, img)
}

// measure adds up the size of an index: of the images that are its own entries,
// so that what a manifest changes ends with its parents.
func (tx *Tx) measure(ctx context.Context, repo int64, index string) error {
	var size int64
	found, err := tx.row(ctx, measureIndex, []any{repo, index, int64(MaxSize)}, &size)
	if err != nil {
		return fmt.Errorf("measure an index: %w", err)
	}
	if found {
		_, err = tx.exec(ctx, setTagSizes, repo, index, size)
	}
	return err
}

// measureParents measures the indexes that have a manifest as an entry.
func (tx *Tx) measureParents(ctx context.Context, repo int64, manifest string) error {
	parents, err := all(ctx, tx, scanOne[string], selectParents, repo, manifest)
	if err != nil {
		return err
	}
	for _, p := range parents {
		if err := tx.measure(ctx, repo, p); err != nil {
			return err
		}
	}
	return nil
}

// Image returns what is recorded of an image; MANIFEST_UNKNOWN where the
// repository has no image of this digest.
func (db *DB) Image(ctx context.Context, repository string, dgst digest.Digest) (ImageRow, error) {
	var i ImageRow
	var created *int64 // 1970 is a time
	found, err := db.view().row(ctx, selectImage, []any{repository, dgst.String()},
		&i.OS, &i.Architecture, &i.Variant, &i.OSVersion, &created, &i.Author, &i.Message, &i.Config, &i.Size,
		&i.Scan, &i.ScanReason, &i.Base.ID, &i.Base.Version, &i.Base.Name, &i.Base.Libc, &i.Base.PackageManager, &i.Base.Packages, &i.Base.Slim)
	if err != nil {
		return i, fmt.Errorf("look up image %s: %w", dgst, err)
	}
	if !found {
		return i, tarport.Errorf(tarport.ManifestUnknown, "the repository has no image %s", dgst)
	}
	if created != nil {
		i.Created = time.UnixMicro(*created).UTC()
	}
	return i, nil
}

// UnreadManifests returns at most n manifests that were put before their facts
// were recorded, and then those whose config came after them, after last; its
// zero value begins.
func (db *DB) UnreadManifests(ctx context.Context, n int, last UnreadManifest, configless bool) ([]UnreadManifest, error) {
	query := selectUnread
	if configless {
		query = selectConfigless
	}
	list, err := all(ctx, db.view(), func(m *UnreadManifest, scan func(...any) error) error {
		return scan(&m.repositoryID, &m.Repository, &m.Digest, &m.MediaType, &m.Payload)
	}, query, last.repositoryID, last.Digest.String(), n)
	if err != nil {
		return nil, fmt.Errorf("list manifests to read: %w", err)
	}
	return list, nil
}

// DescribeManifest records what a manifest is that is there: parsed, and its
// image where it is one and its config is here. Nothing happens where the
// manifest is gone, or is described.
func (db *DB) DescribeManifest(ctx context.Context, repository string, m *Manifest, img *Image) error {
	err := db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		repo, found, err := tx.repository(ctx, repository)
		if err != nil || !found {
			return err
		}
		// The row's lock, so that nobody deletes the manifest meanwhile.
		if _, err := tx.exec(ctx, lockRepository, repo); err != nil {
			return err
		}
		var d, mediaType string
		var payload []byte
		if found, err = tx.row(ctx, selectManifest, []any{repository, m.Digest.String()}, &d, &mediaType, &payload); err != nil || !found {
			return err
		}
		return tx.describeAgain(ctx, repo, m, img)
	})
	if err != nil {
		return fmt.Errorf("describe manifest %s: %w", m.Digest, err)
	}
	return nil
}

const lockRepository = `UPDATE repositories SET changed_at = changed_at WHERE id = $1`
