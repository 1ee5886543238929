// Package auth answers two questions: who asks, and may they. It keeps
// accounts and their passwords, hands out access tokens at /auth/token, and
// has the one decision function that every route asks.
//
//	password ──(argon2id, throttled)──┐
//	access token, robot's secret ─────┤ (SHA-256 row)
//	refresh token ────────────────────┼── /auth/token ── access token, 5 min
//	nothing ── the stranger ──────────┘                        │
//	                                                           ▼
//	Basic, any of these ──────────────────────────────── Authenticate
//	                                                           │
//	                                    tarport.Principal (rights as they are now)
//	                                                           │
//	           Authorize ── decide(principal, action, repository) ── nil or an error
//
// An access token says who its owner is and narrows what it may be used for;
// it grants nothing. The owner's rights are read from the database when the
// token is used, at most stateAge old.
//
// The package knows no content: whether a repository exists is the storage's
// business, and so decide does not tell.
package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Options of New.
type Options struct {
	// DB keeps accounts, tokens and keys. Required.
	DB *metadata.DB
	// Secret is known to every replica and not in the database; a key derived
	// from it seals the signing keys. At least 32 bytes. Required.
	Secret tarport.Secret
	// Service is the name of this registry in challenges and tokens (aud);
	// "tarport" where empty.
	Service string
	// Issuer is who signs the tokens (iss); Service where empty.
	Issuer string
	// PublicURL is where clients reach the registry, as https://host[:port].
	// Where empty, the realm is on the host that the request names.
	PublicURL string
	// Origin says where a request came from and what for. It is the front's
	// to decide which proxies it believes; where nil, only the connection
	// itself counts.
	Origin func(*http.Request) Origin
	// KeyLife is how long a key signs before Run makes another one; 30 days
	// where 0. Its tokens are verified to their end.
	KeyLife time.Duration
	Log     *slog.Logger // slog.Default where nil
	// Now is the clock; time.Now where nil. The database has its own.
	Now func() time.Time
}

// Origin is what the front believes about where a request came from.
type Origin struct {
	Scheme  string // http or https, as the client sees it
	Host    string // with the port, as the client sees it
	Address netip.Addr
}

// Service knows who may come in. It may be used by many goroutines.
type Service struct {
	db        *metadata.DB
	now       func() time.Time
	origin    func(*http.Request) Origin
	service   string
	issuer    string
	publicURL string

	keys      *keyring
	parser    *jwt.Parser
	passwords *passwords
	logins    *loginCache
	checks    singleflight.Group // of passwords: the same one at the same time is hashed once
	tokens    *lru[tokenHash, *token]
	users     *memory[int64, metadata.User]
	pats      *memory[int64, metadata.AccessToken]
	rights    *memory[rightsKey, metadata.Rights]
	uses      uses
	keyLife   time.Duration
	log       *slog.Logger

	wrong, limited atomic.Int64 // logins that were refused
}

const (
	maxTokens = 2048 // verified access tokens that are remembered
	maxUsers  = 1024 // users whose state is remembered, and access tokens
	maxRights = 8192 // users' rights in namespaces that are remembered
)

// New makes the service and, on an empty database, the first signing key.
func New(ctx context.Context, o Options) (*Service, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		db: o.DB, now: o.Now, origin: o.Origin,
		service: o.Service, issuer: o.Issuer, publicURL: o.PublicURL,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()),
		passwords: newPasswords(),
		logins:    newLoginCache(),
		tokens:    newLRU[tokenHash, *token](maxTokens),
		users:     newMemory[int64, metadata.User](maxUsers),
		pats:      newMemory[int64, metadata.AccessToken](maxUsers),
		rights:    newMemory[rightsKey, metadata.Rights](maxRights),
		keyLife:   o.KeyLife,
		log:       o.Log,
	}
	var err error
	if s.keys, err = newKeyring(ctx, o.DB, o.Secret, o.Now); err != nil {
		return nil, err
	}
	return s, nil
}

const minSecret = 32

// serviceName is what stands between quotes in a header without any care.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,255}$`)

// complete checks the options and fills in what was left out.
func (o *Options) complete() error {
	if o.DB == nil {
		return errors.New("auth needs a database")
	}
	if len(o.Secret) < minSecret {
		return fmt.Errorf("the server's secret has %d bytes, it needs at least %d", len(o.Secret), minSecret)
	}
	if o.Service == "" {
		o.Service = "tarport"
	}
	if !serviceName.MatchString(o.Service) {
		return fmt.Errorf("the service name %q may only have letters, digits and . _ : / -", o.Service)
	}
	if o.Issuer == "" {
		o.Issuer = o.Service
	}
	if o.Origin == nil {
		o.Origin = originOfConnection
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.KeyLife == 0 {
		o.KeyLife = 30 * 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o.completeURL()
}

func (o *Options) completeURL() error {
	if o.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(o.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil ||
		(u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the public URL %q is not of the form https://host[:port]", o.PublicURL)
	}
	o.PublicURL = u.Scheme + "://" + u.Host
	return nil
}

func originOfConnection(r *http.Request) Origin {
	o := Origin{Scheme: scheme(r.TLS), Host: r.Host}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		o.Address, _ = netip.ParseAddr(host)
	}
	return o
}

func scheme(state *tls.ConnectionState) string {
	if state != nil {
		return "https"
	}
	return "http"
}
