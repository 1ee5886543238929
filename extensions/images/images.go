// Package images shows what one image is, for those who have to decide whether
// to run it: its platforms and config, which variables come from its base, which
// instruction made which layer, what it stands on and what stands on it, its
// signatures and SBOMs, and how it differs from another one.
//
//	GET /repositories/{name}/-/manifests/{reference}                 ──> Detail
//	GET /repositories/{name}/-/manifests/{reference}/diff            ──> Diff
//	GET /repositories/{name}/-/manifests/{reference}/files           ──> List
//	GET /repositories/{name}/-/manifests/{reference}/files/content   ──> Content
//
// Lists of tags are extensions/tags' matter. It reads one manifest, one config
// and a few rows; lists are bounded.
package images

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// Options of New; all are required.
type Options struct {
	DB      *metadata.DB
	Content *storage.Store
	Access  tarport.Access
}

// Service reads images. It asks tarport.Access itself.
type Service struct {
	db      *metadata.DB
	content *storage.Store
	access  tarport.Access
	trees   *trees

	comparing *places.Set // for who compares images
}

// maxComparing is how many pairs of images are compared at once.
const maxComparing = 4

// New returns a Service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Content == nil || o.Access == nil {
		return nil, errors.New("images: a database, a store and an access are required")
	}
	return &Service{
		db: o.DB, content: o.Content, access: o.Access, trees: newTrees(o.Content),
		comparing: places.New(places.Options{Places: maxComparing, Queue: 16, Wait: wait, Busy: "images are being compared"}),
	}, nil
}

// Routes adds the routes to r, which is the router of /api/v1.
func (s *Service) Routes(r *mux.Router) {
	get := func(path string, h httpapi.HandlerFunc) {
		r.Path("/repositories/{name:.+}/-/manifests/{reference}" + path).Methods(http.MethodGet).Handler(httpapi.Handle(h))
	}
	get("", s.getDetail)
	get("/diff", s.getDiff)
	get("/files", s.getFiles)
	get("/files/content", s.getContent)
}

func (s *Service) getDetail(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	d, err := s.Detail(r.Context(), q)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, d)
}

func (s *Service) getDiff(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	with, err := other(q, r.URL.Query().Get("with"))
	if err != nil {
		return err
	}
	d, err := s.Diff(r.Context(), q, with)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, d)
}

// Query names an image.
type Query struct {
	Repository string
	Reference  tarport.Reference
	// Platform is which one of an index: os/architecture[/variant]. Where it is
	// "", linux/amd64 or else the first that is here.
	Platform string
}

func query(r *http.Request) (Query, error) {
	v := mux.Vars(r)
	q := Query{Repository: v["name"], Platform: r.URL.Query().Get("platform")}
	if err := tarport.CheckRepository(q.Repository); err != nil {
		return q, err
	}
	var err error
	if q.Reference, err = tarport.ParseReference(v["reference"]); err != nil {
		return q, err
	}
	return q, checkPlatform(q.Platform)
}

// checkPlatform refuses what is no platform; what is none of the image's is
// found out later.
func checkPlatform(p string) error {
	if p == "" {
		return nil
	}
	parts := strings.Split(p, "/")
	ok := len(parts) == 2 || len(parts) == 3
	for _, part := range parts {
		ok = ok && part != "" && len(part) <= 64
	}
	if !ok {
		return tarport.Errorf(tarport.Invalid, "%q is no platform: write it as linux/amd64 or linux/arm/v7", p)
	}
	return nil
}

// other reads the image that one is compared with: a tag or a digest of the same
// repository, or an image of another one. The platform is the same.
func other(q Query, with string) (Query, error) {
	to := Query{Repository: q.Repository, Platform: q.Platform}
	var err error
	switch {
	case with == "":
		return q, tarport.Errorf(tarport.Invalid, "with= must name the image to compare with: a tag, a digest, or repository:tag")
	case strings.HasPrefix(with, "sha256:"), strings.HasPrefix(with, "sha512:"), !strings.ContainsAny(with, "/:@"):
		to.Reference, err = tarport.ParseReference(with)
	default:
		to.Repository, to.Reference, err = tarport.ParseImage(with)
	}
	return to, err
}

// manifest is a manifest that the caller may read.
func (s *Service) manifest(ctx context.Context, q Query) (*metadata.Manifest, error) {
	if err := s.access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.Pull, q.Repository); err != nil {
		return nil, err
	}
	return s.content.Manifest(ctx, q.Repository, q.Reference)
}

// child is an entry of an index.
func (s *Service) child(ctx context.Context, repository string, dgst digest.Digest) (*metadata.Manifest, error) {
	return s.content.Manifest(ctx, repository, tarport.Reference{Digest: dgst})
}
