package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
)

// Contents tells what an image of a repository is built on, and its packages,
// as far as its layers have been looked into; MANIFEST_UNKNOWN where the
// repository has no such image, CONFLICT while a layer is pending or where one
// cannot be read. It does not ask who may read the repository: callers have.
func (s *Store) Contents(ctx context.Context, repository string, dgst digest.Digest) (scan.Image, error) {
	key, found, err := s.db.ImageKeyOf(ctx, repository, dgst)
	if err != nil {
		return scan.Image{}, err
	}
	if !found {
		return scan.Image{}, tarport.Errorf(tarport.ManifestUnknown, "the repository has no image %s", dgst)
	}
	img, _, state, reason, err := s.merge(ctx, key)
	switch {
	case err != nil:
		return scan.Image{}, err
	case state == metadata.ScanFailed:
		return scan.Image{}, tarport.Errorf(tarport.Conflict, "what is in the image %s is not known: %s", dgst, reason)
	case state == metadata.ScanPending:
		return scan.Image{}, tarport.Errorf(tarport.Conflict, "the layers of the image %s have not been looked into yet: try again", dgst)
	}
	return img, nil
}

// merge lays the layers of an image over each other. diffIDs are those that they
// have.
func (s *Store) merge(ctx context.Context, key metadata.ImageKey) (img scan.Image, diffIDs []digest.Digest, state, reason string, err error) {
	var m scan.Merger
	state = metadata.ScanReady
	err = s.db.EachImageLayer(ctx, key, func(l metadata.LayerFacts) error {
		diffIDs = append(diffIDs, l.DiffID)
		switch {
		case l.Facts != "":
		case l.State == metadata.LayerFailed:
			if state != metadata.ScanFailed {
				state, reason = metadata.ScanFailed, fmt.Sprintf("layer %s: %s", l.Digest, l.Reason)
			}
			return nil
		default:
			if state == metadata.ScanReady {
				state = metadata.ScanPending
			}
			return nil
		}
		var facts scan.Layer
		if err := json.Unmarshal([]byte(l.Facts), &facts); err != nil { // nobody wrote it so; it keeps no other image waiting
			state, reason = metadata.ScanFailed, fmt.Sprintf("layer %s: its facts are damaged", l.Digest)
			s.o.Log.LogAttrs(ctx, slog.LevelError, "the facts of a layer cannot be decoded", slog.String("digest", l.Digest.String()), slog.Any("err", err))
			return nil
		}
		m.Add(&facts)
		return nil
	})
	return m.Image(), diffIDs, state, reason, err
}

// settleBatch is how many images are settled in one transaction.
const settleBatch = 50

// SettleImages records what images are built on whose layers have all been
// looked into: those that have the layer, or all that wait where it is "". It
// returns how many.
func (s *Store) SettleImages(ctx context.Context, layer digest.Digest) (n int, err error) {
	for last := (metadata.ImageKey{}); ; {
		var keys []metadata.ImageKey
		if layer == "" {
			keys, err = s.db.ImagesToScan(ctx, settleBatch, last)
		} else {
			keys, err = s.db.ImagesOfLayer(ctx, layer, settleBatch, last)
		}
		if err != nil || len(keys) == 0 {
			return n, err
		}
		settled, err := s.settleKeys(ctx, keys)
		if n += settled; err != nil {
			return n, err
		}
		last = keys[len(keys)-1]
	}
}

func (s *Store) settleKeys(ctx context.Context, keys []metadata.ImageKey) (n int, err error) {
	scans := make([]metadata.ImageScan, 0, len(keys))
	for _, k := range keys {
		img, diffIDs, state, reason, err := s.merge(ctx, k)
		if err != nil {
			return 0, err
		}
		if state == metadata.ScanPending {
			continue
		}
		row := imageScan(k, &img, state, reason)
		if chains := chainIDs(diffIDs); len(chains) > 0 {
			row.Chain = chains[len(chains)-1]
		}
		scans = append(scans, row)
	}
	return len(scans), s.db.SaveScans(ctx, scans)
}

// settle settles the images that have just become visible at once, as far as their
// layers are known. Where that fails they are pending, and settled later.
func (s *Store) settle(ctx context.Context, rows []metadata.ManifestPut) {
	var keys []metadata.ImageKey
	var err error
	for i := range rows {
		k, found, kerr := s.db.ImageKeyOf(ctx, rows[i].Repository, rows[i].Manifest.Digest)
		if err = errors.Join(err, kerr); found {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 && err == nil {
		_, err = s.settleKeys(ctx, keys)
	}
	if err != nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "what images are built on was not recorded", slog.Any("err", err))
	}
}

func imageScan(k metadata.ImageKey, img *scan.Image, state, reason string) metadata.ImageScan {
	out := metadata.ImageScan{Image: k, State: state, Reason: reason}
	if state != metadata.ScanReady {
		return out
	}
	b := img.Base
	out.Base = metadata.Base{
		ID: b.ID, Version: b.Version, Name: b.Name, Libc: b.Libc, Slim: b.Slim,
		PackageManager: img.PackageManager, Packages: int64(img.Count),
	}
	out.PackageNames = packageNames(img.Packages)
	return out
}

// maxPackageNames is how many bytes of names are kept to search by; 5,000
// packages have half of it.
const maxPackageNames = 128 << 10

func packageNames(list []scan.Package) string {
	var b strings.Builder
	last := ""
	for _, p := range list { // sorted by name
		name := strings.ToLower(p.Name)
		if name == last || b.Len()+len(name) > maxPackageNames {
			continue
		}
		if last = name; b.Len() == 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
		b.WriteByte(' ')
	}
	return b.String()
}

// Pushed returns a channel that gets a value when something has become visible
// in this process: one value for many, and for one receiver.
func (s *Store) Pushed() <-chan struct{} { return s.pushed }

func (s *Store) signalPushed() {
	select {
	case s.pushed <- struct{}{}:
	default:
	}
}
