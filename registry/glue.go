package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/distribution/v3/registry/handlers"
	registrymiddleware "github.com/distribution/distribution/v3/registry/middleware/registry"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // what the App believes its storage to be

	"github.com/tarport/tarport"
)

// distribution knows access controllers and middleware by name only, from
// registries that are global. Ours are registered once; what they work on comes
// through the parameters of each App's configuration, so that several Apps fit
// in one process.
const glueName = "tarport"

//nolint:gochecknoinits // distribution has no other way
func init() {
	must(auth.Register(glueName, func(map[string]any) (auth.AccessController, error) {
		return frontDecides{}, nil
	}))
	must(registrymiddleware.Register(glueName, func(_ context.Context, _ distribution.Namespace, _ storagedriver.StorageDriver, o map[string]any) (distribution.Namespace, error) {
		ns, ok := o["namespace"].(distribution.Namespace)
		if !ok {
			return nil, errors.New("registry middleware: no namespace given")
		}
		return ns, nil
	}))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// frontDecides lets in what the front has let in, and nothing else.
type frontDecides struct{}

func (frontDecides) Authorized(r *http.Request, _ ...auth.Access) (*auth.Grant, error) {
	p := tarport.PrincipalFrom(r.Context())
	if _, ok := r.Context().Value(outcomeKey{}).(*outcome); !ok {
		return nil, errors.New("the request did not come through the front")
	}
	return &auth.Grant{User: auth.UserInfo{Name: p.Name}}, nil
}

// appConfig is the App's whole configuration, made here and not parsed: the
// parser would let REGISTRY_ variables of the environment into it. Its storage
// is never written to, since the namespace that the middleware gives it is
// ours. Locations are relative, so no header of a client decides them.
func appConfig(o Options) *configuration.Configuration {
	c := &configuration.Configuration{
		Version: configuration.CurrentVersion,
		Storage: configuration.Storage{
			"inmemory":    configuration.Parameters{},
			"delete":      configuration.Parameters{"enabled": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
		Auth: configuration.Auth{glueName: configuration.Parameters{}},
		Middleware: map[string][]configuration.Middleware{"registry": {
			{Name: glueName, Options: configuration.Parameters{"namespace": appNamespace{o.Store.Namespace()}}},
		}},
	}
	c.HTTP.Secret = o.Secret.Reveal()
	c.HTTP.RelativeURLs = true
	return c
}

// newApp makes distribution's App over the store. It panics on a configuration
// that it does not like.
func newApp(ctx context.Context, o Options) (app *handlers.App, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("make distribution's App: %v", p)
		}
	}()
	return handlers.NewApp(ctx, appConfig(o)), nil
}
