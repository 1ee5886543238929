// Package tags is the part of the API, /api/v1, by which one chooses an image:
// the tags of a repository with what is known of their images, sorted, filtered
// and in pages, and the matrix of versions and variants.
//
//	request ── handler: parse, call, encode ── Service: may they (tarport.Access) ──> metadata.DB
//
// Whatever it tells was recorded when the image became visible, or found in its
// layers since; nothing is read from manifests or blobs.
package tags

import (
	"context"
	"errors"
	"net/http"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Auth decides who may do what. *auth.Service is one.
type Auth interface {
	tarport.Access
	// SetHeaders sets the challenge that belongs to the answer to err.
	SetHeaders(w http.ResponseWriter, r *http.Request, err error, needs ...tarport.Grant)
}

// Options of New. All are required.
type Options struct {
	DB   *metadata.DB
	Auth Auth
}

// Service is what the API does. Who asks is the principal of each context.
type Service struct {
	db   *metadata.DB
	auth Auth
}

// New returns a Service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Auth == nil {
		return nil, errors.New("tags: database and auth are required")
	}
	return &Service{db: o.DB, auth: o.Auth}, nil
}

// may asks whether the principal of ctx may do a on a repository whose name
// comes from a path.
func (s *Service) may(ctx context.Context, a tarport.Action, repository string) error {
	if err := tarport.CheckRepository(repository); err != nil {
		return err
	}
	return s.auth.Authorize(ctx, tarport.PrincipalFrom(ctx), a, repository)
}
