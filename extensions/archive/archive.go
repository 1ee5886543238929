// Package archive turns tarballs into images: what `docker save`, podman,
// skopeo, buildx, crane, regctl, oras and the builders write is loaded as it
// is, over HTTP, and can be pulled like anything that was pushed.
//
//	body ─> stream ──> reader ──┬─ JSON and other small files ──> memory ───┐
//	        gzip zstd  one tar  │                                           ├─ at the end:
//	        xz bzip2   entry    └─ layers ─> hash, check ─┬─> StagedBlob ───┘  docker, oci
//	        none       at a time   (the diffID)           └─ gzip on all cores   │
//	                                                                            name
//	          Batch.Commit, one transaction <─ rights of each repository <───────┘
//
// The stream is read once, in its own order, and never copied to disk: no
// reader can know what a blob is when its bytes pass, because manifest.json or
// index.json usually come last. So everything that can be a layer is hashed,
// compressed and staged as it passes, the rest is kept in memory under bounds,
// and the end tells which is which. What nobody named is dropped. A layer that
// the store has, or as long as it can be one (trial.go), is only hashed.
//
// A name in an archive is a key in a map and never a path. Nothing of an
// archive is visible before all of it was verified, and nothing is left of one
// that is broken.
//
// An import is the same with one layer: the stream itself (rootfs.go looks at
// its entries as they pass), and a config that is made here (import.go,
// changes.go).
//
// The other way, an archive is a list of names, sizes and digests before it is
// bytes: Save makes the list, and Download gives out any part of it, straight
// from the blobs. Export lays the layers of an image over each other.
//
// The package decides no rights (tarport.Access does), and the images go
// through the same storage calls as a docker push.
package archive

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
)

// Options of New.
type Options struct {
	Store  Store          // required
	Access tarport.Access // required

	Uploads Uploads // what ?upload= names; nil where there are none

	Observer Observer // nil for none

	// Compression is what a plain layer gets where a request does not say it:
	// "gzip" (also where empty), "zstd" or "none".
	Compression string
	// Repack compresses plain layers also where a manifest in the archive pins
	// them, and writes that manifest anew, as if every request named its
	// compression. Where false, manifests of the archive are kept to the byte.
	Repack bool
	// Grace is how long the store keeps a blob after a positive answer about it;
	// 24 h where 0.
	Grace time.Duration
	// Concurrent is how many archives are read at once; 16 where 0. Who comes
	// then waits for up to a minute.
	Concurrent int
	Limits     Limits       // DefaultLimits for each that is 0
	Log        *slog.Logger // slog.Default where nil
}

// Limits bound what one archive may cost. The defaults are far above what real
// archives need.
type Limits struct {
	Archive  int64 // bytes of the body
	Unpacked int64 // bytes that come out of all decompression, the body's and the layers'
	Layer    int64 // bytes of one layer, decompressed
	Ratio    int64 // decompressed to compressed, of what is over RatioFrom
	// RatioFrom is how much may come out before Ratio counts: layers of zeros
	// are real.
	RatioFrom int64
	Window    int64 // of zstd, and dictionary of xz: memory that a stream can ask for

	Entries      int   // in the archive
	Layers       int   // files in the archive that are tars or compressed
	Memory       int64 // of all small files together, with their names
	JSON         int64 // of a config, a manifest or index.json
	ManifestJSON int64 // of manifest.json

	Files          int // entries of a root file system
	Images         int // in manifest.json, or manifests that index.json reaches
	LayersPerImage int
	Names          int // of all images together
	IndexDepth     int
}

// DefaultLimits are the limits of Options that set none.
func DefaultLimits() Limits {
	return Limits{
		Archive: 20 << 30, Unpacked: 200 << 30, Layer: 20 << 30, Ratio: 200, RatioFrom: 1 << 30, Window: 128 << 20,
		Entries: 100_000, Layers: 10_000, Memory: 64 << 20, JSON: 4 << 20, ManifestJSON: 20 << 20,
		Files: 2_000_000, Images: 1000, LayersPerImage: 1000, Names: 10_000, IndexDepth: 8,
	}
}

// Service does what the package is for. It may be used by many goroutines, and
// asks tarport.Access itself, so that every front end is under the same rights.
type Service struct {
	o        Options
	packers  packers
	places   *places.Set  // of archives that are read
	packing  *places.Set  // of layers that a save packs anew
	planting *places.Set  // of exports that make their tree
	asking   *places.Set  // of calls of Missing
	replays  *places.Set  // of loads that read a stored layer
	paths    atomic.Int64 // that commits and large exports have in memory
	small    *places.Room // paths of small exports
	windows  *places.Room // zstd layers that exports read
	saves    *places.Room // bytes that saves have in memory
	gzips    forms
}

// New returns a Service.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Access == nil {
		return nil, errors.New("archive: a store and an access are required")
	}
	if o.Compression == "" {
		o.Compression = gzipped
	}
	if err := checkCompression(o.Compression); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if o.Grace == 0 {
		o.Grace = 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	o.Concurrent = cmp.Or(o.Concurrent, 16)
	o.Limits = o.Limits.orDefault()
	if w := o.Limits.Window; w < 1<<10 || w > math.MaxUint32 {
		return nil, errors.New("archive: Limits.Window must be between 1 KiB and 4 GiB")
	}
	return &Service{
		o:        o,
		places:   newPlaces(o.Concurrent, "archives are being read"),
		packers:  newPackers(),
		packing:  newPlaces(repacks, "layers are being packed anew"),
		planting: newPlaces(exportTrees, "exports are being prepared"),
		asking:   newPlaces(lookups, "lists of layers are being compared"),
		replays:  newPlaces(maxReplays, "stored layers are being read for archives"),
		small:    places.NewRoom(smallPaths, "too many exports are under way"),
		windows:  places.NewRoom(exportWindows, "too many exports of zstd layers are under way"),
		saves:    places.NewRoom(savesMemory, "too many archives of many or large manifests are being sent"),
	}, nil
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{
		Archive: cmp.Or(l.Archive, d.Archive), Unpacked: cmp.Or(l.Unpacked, d.Unpacked), Layer: cmp.Or(l.Layer, d.Layer),
		Ratio: cmp.Or(l.Ratio, d.Ratio), RatioFrom: cmp.Or(l.RatioFrom, d.RatioFrom), Window: cmp.Or(l.Window, d.Window),
		Entries: cmp.Or(l.Entries, d.Entries), Layers: cmp.Or(l.Layers, d.Layers), Memory: cmp.Or(l.Memory, d.Memory),
		JSON: cmp.Or(l.JSON, d.JSON), ManifestJSON: cmp.Or(l.ManifestJSON, d.ManifestJSON),
		Files: cmp.Or(l.Files, d.Files), Images: cmp.Or(l.Images, d.Images), LayersPerImage: cmp.Or(l.LayersPerImage, d.LayersPerImage),
		Names: cmp.Or(l.Names, d.Names), IndexDepth: cmp.Or(l.IndexDepth, d.IndexDepth),
	}
}

// invalid is an error about the archive itself.
func invalid(format string, args ...any) *tarport.Error {
	return tarport.Errorf(tarport.ArchiveInvalid, format, args...)
}

func tooLarge(format string, args ...any) *tarport.Error {
	return tarport.Errorf(tarport.TooLarge, format, args...)
}

// within says in front of an error's message where it is.
func within(err error, format string, args ...any) error {
	where := fmt.Sprintf(format, args...)
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		c := *e
		c.Message = where + ": " + e.Message
		return &c
	}
	return fmt.Errorf("%s: %w", where, err)
}

// quoted is a name of the archive for a message: bounded, and without what a
// terminal would obey.
func quoted(s string) string {
	const most = 160
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
