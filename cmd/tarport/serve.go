package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/distribution/distribution/v3/registry/listener"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // a driver that storage: can name
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"   // likewise
	"github.com/gorilla/mux"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/auth"
	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/extensions/engine"
	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/extensions/scanner"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/extensions/uploads"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/registry"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

func newServeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "serve [config.yml]",
		Short: "Run the registry",
		Long: "Serve runs the registry until SIGTERM or SIGINT, and then waits for the requests under way. " +
			"The first start makes the account admin, with the password in TARPORT_ADMIN_PASSWORD or one that is printed once. " +
			"Where the variable is set later, its password counts, too: an account that has another one gets it, and the log says so." + configUsage,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runServe(cmd.Context(), a, args) },
	}
}

func runServe(ctx context.Context, a *app, args []string) error {
	bridge := bridgeLogrus()
	c, err := a.loadConfig(args)
	if err != nil {
		return err
	}
	log := newLogger(a.err, c.Distribution.Log)
	bridge.to(log)
	for _, text := range c.Warnings {
		log.Warn("configuration", slog.String("text", text))
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	s, err := openStores(ctx, c, log)
	if err != nil {
		return err
	}
	// What the start took is not needed again: goose reads migrations with 4 MiB
	// for each, in a pool, which two collections empty.
	runtime.GC()
	debug.FreeOSMemory()
	err = errors.Join(s.serve(ctx, a, c), s.Close())
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// stores is what is opened before anything is served, and closed after.
type stores struct {
	log     *slog.Logger
	secret  tarport.Secret
	db      *metadata.DB
	content *storage.Store
	closers []func() error
}

// openStores opens the data directory, the database and the blobs.
func openStores(ctx context.Context, c *config.Config, log *slog.Logger) (s *stores, err error) {
	s = &stores{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	data, err := openData(c)
	if err != nil {
		return s, err
	}
	s.closers = append(s.closers, data.Close)
	if s.secret, err = data.secret(c.Tarport.Secret); err != nil {
		return s, err
	}
	if s.db, err = metadata.Open(ctx, metadata.Options{DSN: c.Tarport.Database.DSN, Namespaces: namespacePolicy(c)}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.db.Close)
	o := storage.Options{
		DB: s.db, Log: log,
		Grace:        c.Tarport.Blobs.Grace.Std(),
		UploadExpiry: c.Tarport.Uploads.Expire.Std(),
		MaxUploads:   c.Tarport.Uploads.Max, MaxUploadBytes: int64(c.Tarport.Uploads.MaxBytes), MaxArchive: int64(c.Tarport.Archives.MaxSize),
		AllowMissing: c.Tarport.Manifests.Sparse,
		MinFree:      int64(c.Tarport.Storage.MinFree),
		EventAge:     c.Tarport.Audit.Retention.Std(),
	}
	if c.SQLite() {
		o.DataDir = filepath.Dir(c.Tarport.Database.DSN)
	}
	switch driver, params := c.Driver(); driver {
	case "filesystem":
		o.Root = fmt.Sprint(params["rootdirectory"])
	default:
		if o.Driver, err = factory.Create(ctx, driver, params); err != nil {
			return s, fmt.Errorf("open the storage driver %s: %w", driver, err)
		}
	}
	if s.content, err = storage.New(o); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.content.Close)
	return s, nil
}

func namespacePolicy(c *config.Config) metadata.NamespacePolicy {
	n := c.Tarport.Namespaces
	return metadata.NamespacePolicy{NoAutoCreate: !n.AutoCreate, AdminsOnly: n.CreateBy == config.CreateByAdmins, Personal: n.Personal}
}

// Close closes what was opened, the last first.
func (s *stores) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// serve joins the pieces, and serves until ctx ends.
func (s *stores) serve(ctx context.Context, a *app, c *config.Config) error {
	metrics := server.NewMetrics()
	routes, err := s.newRoutes(ctx, c, newArchiveMetrics(metrics))
	if err != nil {
		return err
	}
	totals := s.newTotals(c, metrics, routes)
	scan, err := s.newScanner(c)
	if err != nil {
		return err
	}
	pace := server.DefaultPace()
	health := server.NewHealth(s.log, c.Distribution.Health,
		server.Check{Name: "storage", Func: s.content.Check},
		server.Check{Name: "database", Func: s.db.Ping})
	o := server.Options{
		Handler: routes.handler(c, s.log, metrics, pace), Log: s.log, Health: health, Metrics: metrics, Pace: pace,
		HTTP1: c.Distribution.HTTP.HTTP2.Disabled, H2C: c.Distribution.HTTP.H2C.Enabled,
		Headers: c.Distribution.HTTP.Headers, Drain: c.Distribution.HTTP.DrainTimeout,
	}
	if o.TLS, err = server.TLS(c, s.log); err != nil {
		return err
	}
	if err := listen(ctx, &o, c); err != nil {
		return err
	}
	// Only now: a start that fails shows no password that is soon forgotten.
	if err := ensureAdmin(ctx, a, routes.auth); err != nil {
		return errors.Join(err, closeListeners(o))
	}
	debug.FreeOSMemory() // a password's hash above all
	s.logStart(c, o)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.content.Run(gctx) })
	g.Go(func() error { return routes.auth.Run(gctx) })
	if c.Tarport.Metrics.Addr != "" {
		g.Go(func() error { return totals.run(gctx) })
	}
	if scan != nil {
		g.Go(func() error { return scan.Run(gctx) })
	} else {
		g.Go(func() error { s.settle(gctx); return nil })
	}
	g.Go(func() error { return server.New(gctx, o).Run(gctx) })
	return g.Wait()
}

// settle records once what images are built on that a migration has left
// pending, from what is known of their layers. A scanner does so by itself.
func (s *stores) settle(ctx context.Context) {
	if _, err := s.content.SettleImages(ctx, ""); err != nil && ctx.Err() == nil {
		s.log.LogAttrs(ctx, slog.LevelError, "what images are built on was not recorded", slog.Any("err", err))
	}
}

// newScanner returns what looks into layers; nil where nothing is to.
func (s *stores) newScanner(c *config.Config) (*scanner.Scanner, error) {
	if !c.Tarport.Scan.Enabled {
		return nil, nil
	}
	return scanner.New(scanner.Options{
		Store: s.content, DB: s.db, Log: s.log,
		Workers: c.Tarport.Scan.Concurrency,
		Rate:    int64(c.Tarport.Scan.Rate),
	})
}

// routes are all that the server has, but for the ones of its operation.
type routes struct {
	auth     *auth.Service
	registry *registry.Registry // /v2/; registry.Routes names its routes
	archives *archive.Service
	others   *mux.Router
}

// newRoutes joins the pieces that have routes.
func (s *stores) newRoutes(ctx context.Context, c *config.Config, seen archive.Observer) (*routes, error) {
	who, err := auth.New(ctx, auth.Options{
		DB: s.db, Secret: s.secret, PublicURL: c.Tarport.PublicURL, Origin: origin,
		KeyLife: c.Tarport.Tokens.KeyRotation.Std(), Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	states, err := derive(s.secret, "upload states")
	if err != nil {
		return nil, err
	}
	reg, err := registry.New(ctx, registry.Options{Store: s.content, Auth: who, Secret: states, Log: s.log})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, reg.Close)
	archives, err := archive.New(archive.Options{
		Store: archive.Storage(s.content), Uploads: s.content, Access: who, Log: s.log, Observer: seen,
		Compression: c.Tarport.Archives.Compression,
		Repack:      c.Tarport.Archives.Repack,
		Concurrent:  c.Tarport.Archives.Concurrent,
		Grace:       c.Tarport.Blobs.Grace.Std(),
		Limits: archive.Limits{
			Archive:  int64(c.Tarport.Archives.MaxSize),
			Unpacked: int64(c.Tarport.Archives.MaxUnpacked),
			Layer:    int64(c.Tarport.Archives.MaxLayer),
		},
	})
	if err != nil {
		return nil, err
	}
	access, err := namespaces.New(namespaces.Options{DB: s.db, Auth: who, Content: s.content})
	if err != nil {
		return nil, err
	}
	shown, err := images.New(images.Options{DB: s.db, Content: s.content, Access: who})
	if err != nil {
		return nil, err
	}
	choice, err := tags.New(tags.Options{DB: s.db, Content: s.content, Auth: who})
	if err != nil {
		return nil, err
	}
	others := newRouter()
	who.Routes(others)
	namespaces.OpenAPIRoute(others)
	api := others.PathPrefix("/api/v1").Subrouter()
	api.Use(loggedIn(who, challenged))
	archive.NewHandler(archives).Routes(api)
	uploads.NewHandler(uploads.Options{Store: s.content, Access: who, MaxSize: int64(c.Tarport.Archives.MaxSize)}).Routes(api)
	tags.NewHandler(choice).Routes(api)
	namespaces.NewHandler(access).Routes(api)
	daemon, err := engine.NewHandler(engine.Options{Images: s.db, Content: s.content, Archives: engineArchives{archives}, Access: who})
	if err != nil {
		return nil, err
	}
	daemon.Routes(others, loggedIn(who, unchallenged))
	shown.Routes(api)
	return &routes{auth: who, registry: reg, archives: archives, others: others}, nil
}

// handler is the routes behind what every request passes.
func (r *routes) handler(c *config.Config, log *slog.Logger, metrics *server.Metrics, pace server.Pace) http.Handler {
	return server.Proxies(c.Proxies()).Believe(
		httpapi.Middleware(httpapi.Options{Log: log, AccessLog: !c.Distribution.Log.AccessLog.Disabled, Observe: metrics.Observe})(
			pace.Bodies(split("/v2", r.registry, r.others))))
}

// loggedIn lets in who shows a good credential, and says behind it who that is.
// headers sets what belongs to the answer to an error.
func loggedIn(who *auth.Service, headers func(*auth.Service, http.ResponseWriter, *http.Request, error)) mux.MiddlewareFunc {
	set := func(w http.ResponseWriter, r *http.Request, err error) { headers(who, w, r, err) }
	return func(next http.Handler) http.Handler {
		return httpapi.Handle(func(w http.ResponseWriter, r *http.Request) error {
			httpapi.SetErrorHeaders(r.Context(), set)
			p, err := who.Authenticate(r)
			if err == nil && p.Anonymous() {
				err = tarport.Errorf(tarport.Unauthorized, "authentication required: log in first")
			}
			if err != nil {
				return err
			}
			httpapi.SetUser(r.Context(), p.Name)
			next.ServeHTTP(w, r.WithContext(tarport.WithPrincipal(r.Context(), p)))
			return nil
		})
	}
}

// challenged tells a browser and the clients of the token service how to log in.
func challenged(who *auth.Service, w http.ResponseWriter, r *http.Request, err error) {
	who.SetHeaders(w, r, err)
	if tarport.ErrorCode(err) == tarport.Unauthorized {
		w.Header().Add("WWW-Authenticate", `Basic realm="tarport"`)
	}
}

// unchallenged is for docker -H, which knows no challenge: the message of the
// error says what to do.
func unchallenged(who *auth.Service, w http.ResponseWriter, r *http.Request, err error) {
	who.SetHeaders(w, r, err)
	w.Header().Del("WWW-Authenticate")
}

// listen opens the listeners.
func listen(ctx context.Context, o *server.Options, c *config.Config) (err error) {
	h := c.Distribution.HTTP
	if o.Listener, err = listener.NewListener(h.Net, h.Addr); err != nil {
		return fmt.Errorf("http.addr: %w", err)
	}
	switch addr := c.Tarport.Metrics.Addr; addr {
	case "":
	case config.OnMain:
		o.MetricsPath = c.MetricsPath()
	default:
		o.MetricsPath = c.MetricsPath()
		if o.MetricsListener, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return errors.Join(fmt.Errorf("tarport.metrics.addr: %w", err), o.Listener.Close())
		}
	}
	return nil
}

func closeListeners(o server.Options) error {
	err := o.Listener.Close()
	if o.MetricsListener != nil {
		err = errors.Join(err, o.MetricsListener.Close())
	}
	return err
}

func (s *stores) logStart(c *config.Config, o server.Options) {
	attrs := []any{
		slog.String("version", tarport.Version), slog.String("addr", o.Listener.Addr().String()),
		slog.Bool("tls", o.TLS != nil), slog.String("data", absolute(c.Tarport.Data)),
	}
	if o.MetricsListener != nil {
		attrs = append(attrs, slog.String("metrics", o.MetricsListener.Addr().String()))
	}
	s.log.Info("serving", attrs...)
}

// split sends what is under the prefix one way, and the rest the other.
func split(prefix string, under, others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, prefix); ok && (rest == "" || rest[0] == '/') {
			under.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// origin is what Proxies.Believe has made of a request, in auth's words.
func origin(r *http.Request) auth.Origin {
	return auth.Origin{Scheme: server.Scheme(r), Host: r.Host, Address: server.Client(r)}
}

// derive makes a secret of its own for a purpose.
func derive(secret tarport.Secret, purpose string) (tarport.Secret, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret.Reveal()), nil, "tarport "+purpose, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive the secret of %s: %w", purpose, err)
	}
	return tarport.Secret(hex.EncodeToString(key)), nil
}

// ensureAdmin makes the administrator's account at the first start. A password
// that was made for it is shown this once; it goes past the log, which others
// may keep.
func ensureAdmin(ctx context.Context, a *app, who *auth.Service) error {
	password, err := who.EnsureAdmin(ctx, tarport.Secret(config.Getenv(a.environ, config.EnvAdminPassword)))
	if err != nil {
		return fmt.Errorf("make the account of the administrator: %w", err)
	}
	if password == "" {
		return nil
	}
	_, err = fmt.Fprintf(a.err, `
+------------------------------------------------------------+
|  The account of the administrator was made.                |
|                                                            |
|      user      %-42s  |
|      password  %-42s  |
|                                                            |
|  This is shown only once.                                  |
+------------------------------------------------------------+

`, "admin", password.Reveal())
	return err
}
