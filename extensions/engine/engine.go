// Package engine speaks the part of Docker's Engine API that is about images,
// so that the stock docker command works on a namespace as on a daemon:
//
//	docker -H tcp://registry:5000/engine/team load -i app.tar
//	      │
//	      └─ /engine/team/_ping, /engine/team/v1.41/images/load …
//	             │
//	             ├─ load, import, save ──> Archives     (extensions/archive)
//	             ├─ images, inspect, history ──> Images  one query, and a config
//	             └─ tag, rmi ──> Content
//
// The namespace is the daemon: app:1 is the repository team/app there, and so
// are team/app:1 and registry:5000/team/app:1, by the rule of every load. An
// image's ID is the digest of its config, as on a daemon without containerd's
// store; what has no tag is not shown. Containers, networks, volumes and builds
// there are none.
//
// The shapes are those of API 1.24 to 1.51 (moby: api/docs). The package decides
// no rights (tarport.Access does), and knows nothing of tarballs.
package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Options of New. All are required.
type Options struct {
	Images   Images
	Content  Content
	Archives Archives
	Access   tarport.Access
}

// Images is what is known of images; *metadata.DB knows it.
type Images interface {
	TaggedImages(ctx context.Context, q metadata.ImageQuery, each func(metadata.TaggedImage) error) error
}

// Content is where images lie. See *storage.Store.
type Content interface {
	Manifest(ctx context.Context, repository string, ref tarport.Reference) (*metadata.Manifest, error)
	OpenBlob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadSeekCloser, metadata.Blob, error)
	Tag(ctx context.Context, repository, tag string, dgst digest.Digest, by, via string) error
	// CopyImage is Tag for a manifest of another repository.
	CopyImage(ctx context.Context, from string, dgst digest.Digest, repository, tag, by, via string) error
	TagsOf(ctx context.Context, repository string, dgst digest.Digest) ([]string, error)
	DeleteTag(ctx context.Context, repository, tag, by string) error
}

// Archives turns tarballs into images and back. It asks for rights itself.
type Archives interface {
	Load(ctx context.Context, body io.Reader, q LoadRequest) ([]Loaded, error)
	Import(ctx context.Context, body io.Reader, q ImportRequest) (Loaded, error)
	Save(ctx context.Context, q SaveRequest) (Download, error)
}

// LoadRequest says where the images of an archive go.
type LoadRequest struct {
	Namespace string
	Size      int64          // of the body; -1 where it is not known
	Progress  func(Progress) // may be nil
}

// ImportRequest says what becomes of a file system.
type ImportRequest struct {
	Repository, Tag string
	Message         string
	Changes         []string // instructions of a Dockerfile
	Platform        string   // os/architecture[/variant], or ""
	Size            int64    // of the body; -1 where it is not known
	Progress        func(Progress)
}

// SaveRequest says what goes into an archive.
type SaveRequest struct {
	Images   []string // as tarport.ParseImage takes them
	Platform string   // os/architecture[/variant], or "" for all
	// Name is what the images of a repository are called in the archive.
	Name func(repository string) string
}

// Loaded is an image that was stored.
type Loaded struct {
	Repository, Tag string // the tag is "" where it has none
	ID              string // the digest of its config; of an index, its own
	Warnings        []string
}

// Progress is how far a part of an archive has come, in bytes; of neither where
// there is nothing to draw.
type Progress struct {
	ID, Status     string
	Current, Total int64
}

// Download is an archive that is made while it is sent.
type Download interface {
	// Serve answers the GET, with its exact length.
	Serve(w http.ResponseWriter, r *http.Request) error
	// Close is called in the end.
	Close()
}

// Handler is the package's part of the HTTP API.
type Handler struct {
	o   Options
	now func() time.Time
}

// NewHandler returns the routes over o.
func NewHandler(o Options) (*Handler, error) {
	if o.Images == nil || o.Content == nil || o.Archives == nil || o.Access == nil {
		return nil, errors.New("engine: images, content, archives and an access are required")
	}
	return &Handler{o: o, now: time.Now}, nil
}
