// Package tags is the part of the API, /api/v1, by which one chooses an image:
// the tags of a repository with what is known of their images, sorted, filtered
// and in pages, and the matrix of versions and variants. A tag can be set to any
// image that is here, taken away, and set back by its history; and a search looks
// over all repositories that the caller may read.
//
//	request ── handler: parse, call, encode ── Service: may they (tarport.Access) ─┬─> metadata.DB
//	                                                                   changes ────┴─> Content
//
// Whatever it tells was recorded when the image became visible, or found in its
// layers since; nothing is read from manifests or blobs.
package tags

import (
	"context"
	"errors"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage/metadata"
)

// Auth decides who may do what. *auth.Service is one.
type Auth interface {
	tarport.Access
	// SetHeaders sets the challenge that belongs to the answer to err.
	SetHeaders(w http.ResponseWriter, r *http.Request, err error, needs ...tarport.Grant)
}

// Content changes tags. *storage.Store is one.
type Content interface {
	Manifest(ctx context.Context, repository string, ref tarport.Reference) (*metadata.Manifest, error)
	Tag(ctx context.Context, repository, tag string, dgst digest.Digest, by, via string) error
	// CopyImage is Tag for a manifest of another repository.
	CopyImage(ctx context.Context, from string, dgst digest.Digest, repository, tag, by, via string) error
	DeleteTag(ctx context.Context, repository, tag, by string) error
}

// Options of New. All are required.
type Options struct {
	DB      *metadata.DB
	Content Content
	Auth    Auth
}

// Service is what the API does. Who asks is the principal of each context.
type Service struct {
	db      *metadata.DB
	content Content
	auth    Auth

	searches *places.Set
}

// New returns a Service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Content == nil || o.Auth == nil {
		return nil, errors.New("tags: database, content and auth are required")
	}
	return &Service{db: o.DB, content: o.Content, auth: o.Auth, searches: newSearches()}, nil
}

// may asks whether the principal of ctx may do a on a repository whose name
// comes from a path.
func (s *Service) may(ctx context.Context, a tarport.Action, repository string) error {
	if err := tarport.CheckRepository(repository); err != nil {
		return err
	}
	return s.auth.Authorize(ctx, tarport.PrincipalFrom(ctx), a, repository)
}
