package archive

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
)

// Store is where images go; Storage makes one of *storage.Store.
type Store interface {
	// NewBatch begins what becomes visible together or not at all.
	NewBatch(ctx context.Context) (Batch, error)
	Known
	// CheckRoom refuses what is known not to fit into the namespace, or on the
	// disk, before it comes.
	CheckRoom(ctx context.Context, namespace string, n int64) error
	Images
	Unpacked
}

// Known is which layers there are, whoever may know of them. See storage.Store.
type Known interface {
	// KnownLayers returns the stored forms of the layer with this diffID.
	KnownLayers(ctx context.Context, diffID digest.Digest) ([]metadata.Layer, error)
	// SimilarLayers returns stored forms of layers of that plain size and first
	// prefix, at most 16.
	SimilarLayers(ctx context.Context, first layer.Prefixes, size int64, compression string) ([]storage.SimilarLayer, error)
	// ForgetPrefixes takes a blob out of what SimilarLayers returns.
	ForgetPrefixes(ctx context.Context, dgst digest.Digest) error
}

// Images is what is read of images, each in its repository. See storage.Store.
type Images interface {
	Manifest(ctx context.Context, repository string, ref tarport.Reference) (*metadata.Manifest, error)
	// Referrers returns at most n descriptors, as JSON, of manifests whose
	// subject is the digest, in the order of their digests, after last.
	Referrers(ctx context.Context, repository string, subject digest.Digest, artifactType string, n int, last string) (list []string, more bool, err error)
	// Blob tells of a blob and keeps it for the grace period at least.
	Blob(ctx context.Context, repository string, dgst digest.Digest) (metadata.Blob, error)
	// OpenBlob opens a blob. It is an *os.File where the bytes lie on a file
	// system.
	OpenBlob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadSeekCloser, metadata.Blob, error)
	// BlobSources lists at most n repositories that have a blob, whoever may
	// know of them, those of the namespace first.
	BlobSources(ctx context.Context, dgst digest.Digest, namespace string, n int) ([]string, error)
	// LayerForms is KnownLayers without a look at their bytes; it does not keep
	// them.
	LayerForms(ctx context.Context, diffID digest.Digest) ([]metadata.Layer, error)
	// KnownDiffID returns the layer that a blob is, where that is known.
	KnownDiffID(ctx context.Context, dgst digest.Digest) (metadata.Layer, bool, error)
}

// Unpacked is what is read in layers, whoever may read them. See storage.Store.
type Unpacked interface {
	// Tree is the file system that layers make, the lowest first.
	Tree(ctx context.Context, layers []storage.TreeLayer) (*layer.Tree, error)
	// OpenLayer opens a blob for reading what it is unpacked.
	OpenLayer(ctx context.Context, blob digest.Digest) (io.ReadCloser, error)
	// NewSpool makes a temporary file.
	NewSpool(ctx context.Context) (*storage.Spool, error)
}

// Batch is what one archive brings. See storage.Batch.
type Batch interface {
	// Create opens a blob for writing. Several may be open at once.
	Create(ctx context.Context) (StagedBlob, error)
	// Commit makes the manifests visible with their tags, or nothing.
	Commit(ctx context.Context, puts []storage.ManifestPut) (storage.CommitResult, error)
	// Close drops all that was not committed.
	Close() error
}

// charger is a Batch that can refuse what is over a namespace's quota before
// the commit. See storage.Batch.
type charger interface {
	Charge(namespace string)
}

// indexBatch is a Batch that keeps the indexes of its layers.
type indexBatch interface {
	// CreateIndex begins one; nil where it keeps none after all.
	CreateIndex(ctx context.Context) (*storage.StagedIndex, error)
}

// StagedBlob is a blob that is being written. See storage.StagedBlob.
type StagedBlob interface {
	io.Writer
	// Finish makes the bytes durable and returns their digest and size.
	Finish() (ocispec.Descriptor, error)
	// Prefixes are those of the bytes, after Finish.
	Prefixes() layer.Prefixes
	// Discard drops the blob, also after Finish.
	Discard()
}

// Storage returns s as a Store.
func Storage(s *storage.Store) Store { return stored{s} }

type stored struct{ *storage.Store }

func (s stored) NewBatch(ctx context.Context) (Batch, error) {
	b, err := s.Store.NewBatch(ctx)
	if err != nil {
		return nil, err
	}
	return storedBatch{b}, nil
}

func (s stored) OpenLayer(ctx context.Context, blob digest.Digest) (io.ReadCloser, error) {
	r, err := s.Store.OpenLayer(ctx, blob)
	if err != nil {
		return nil, err
	}
	return r, nil
}

type storedBatch struct{ *storage.Batch }

func (b storedBatch) Create(ctx context.Context) (StagedBlob, error) {
	w, err := b.Batch.Create(ctx)
	if err != nil {
		return nil, err
	}
	return w, nil
}
