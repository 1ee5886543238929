// Package namespaces is the part of the API, /api/v1, that says who may do
// what: accounts, personal access tokens, namespaces, their members and robots,
// and repositories as things that one lists, describes and deletes.
//
//	request ── who (the principal of its context) ── handler: parse, call, encode
//	                                                    │
//	                         Service: may they (tarport.Access) ──> metadata.DB, storage.Store
//
// Permission is the first line of each method of Service, so that whatever
// stands in front of it is under the same rights. The package knows no
// passwords and makes no secrets: auth does.
package namespaces

import (
	"context"
	"errors"
	"net/http"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Auth decides who may do what, and makes what is stored of secrets.
// *auth.Service is one.
type Auth interface {
	tarport.Access
	// HashPassword is what is stored of a password; INVALID where it will not do.
	HashPassword(ctx context.Context, password tarport.Secret) (string, error)
	// CheckPassword returns DENIED where the password is not the account's.
	CheckPassword(ctx context.Context, name string, password tarport.Secret) error
	// NewAccessToken makes a secret, and what is stored of it; so does
	// NewRobotSecret.
	NewAccessToken() (secret tarport.Secret, hash []byte)
	NewRobotSecret() (secret tarport.Secret, hash string)
	// SetHeaders sets the challenge that belongs to the answer to err.
	SetHeaders(w http.ResponseWriter, r *http.Request, err error, needs ...tarport.Grant)
}

// Content is where repositories go. *storage.Store is one.
type Content interface {
	DeleteRepository(ctx context.Context, name string) error
	DeleteNamespace(ctx context.Context, name string, force bool) (metadata.Contents, error)
}

// Options of New. All are required.
type Options struct {
	DB      *metadata.DB
	Auth    Auth
	Content Content
}

// Service is what the API does. Who asks is the principal of each context.
type Service struct {
	db      *metadata.DB
	auth    Auth
	content Content
}

// New returns a Service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Auth == nil || o.Content == nil {
		return nil, errors.New("namespaces: database, auth and content are required")
	}
	return &Service{db: o.DB, auth: o.Auth, content: o.Content}, nil
}

// may asks whether the principal of ctx may do a on a repository or namespace,
// or on the registry for "".
func (s *Service) may(ctx context.Context, a tarport.Action, on string) error {
	return s.auth.Authorize(ctx, tarport.PrincipalFrom(ctx), a, on)
}
