package auth

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tarport/tarport"
)

// Authenticate returns who sent the request: by Basic with a password, personal
// access token or robot's secret, or by Bearer with an access token of ours. Without a credential it is the stranger; with
// one that is not good the error is UNAUTHORIZED, and TOOMANYREQUESTS while the
// limits for failed logins are reached.
//
// The principal of a bearer token has a Scope, which is shared: it is not to be
// changed. The principal of a password has none.
func (s *Service) Authenticate(r *http.Request) (tarport.Principal, error) {
	values := r.Header["Authorization"]
	switch len(values) {
	case 0:
		return tarport.Principal{}, nil
	case 1:
	default:
		return tarport.Principal{}, tarport.Errorf(tarport.Unauthorized, "more than one Authorization header")
	}
	if token, ok := bearerToken(values[0]); ok {
		p, _, err := s.bearer(r.Context(), token, 0)
		return p, err
	}
	id, err := s.basic(r)
	return id.principal(), err
}

// uploadGrace is how long after its end a token may still finish what was begun
// with it.
const uploadGrace = 24 * time.Hour

// AuthenticateLate is Authenticate for a bearer token that is over, but for not
// longer than a day, and otherwise good: a push of a large layer must not die
// of the token that it was authorised with. The caller lets it go on only with
// an upload session of the principal's that was begun before validUntil.
func (s *Service) AuthenticateLate(r *http.Request) (p tarport.Principal, validUntil time.Time, err error) {
	if values := r.Header["Authorization"]; len(values) == 1 {
		if token, ok := bearerToken(values[0]); ok {
			return s.bearer(r.Context(), token, uploadGrace)
		}
	}
	return tarport.Principal{}, time.Time{}, tarport.Errorf(tarport.Unauthorized, "no bearer token was sent")
}

// basic logs the sender of a Basic header in.
func (s *Service) basic(r *http.Request) (identity, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return identity{}, tarport.Errorf(tarport.Unauthorized, "the Authorization header is broken, or of a scheme that is not understood here")
	}
	return s.login(r.Context(), name, tarport.Secret(password), s.origin(r).Address)
}

func bearerToken(header string) (string, bool) {
	const scheme = "bearer "
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	return header[len(scheme):], true
}

// Challenge is the WWW-Authenticate header of a 401: where to get a token, and
// for what. It says why the token that came was not enough.
func (s *Service) Challenge(r *http.Request, needs ...tarport.Grant) string {
	var b strings.Builder
	b.WriteString("Bearer")
	sep := byte(' ')
	param := func(key, value string) {
		b.WriteByte(sep)
		sep = ','
		b.WriteString(key + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`)
	}
	param("realm", s.realm(r))
	param("service", s.service)
	if len(needs) > 0 {
		param("scope", formatScopes(needs))
	}
	if values := r.Header["Authorization"]; len(values) == 1 {
		if token, ok := bearerToken(values[0]); ok {
			if _, _, err := s.bearer(r.Context(), token, 0); err != nil {
				param("error", "invalid_token")
			} else {
				param("error", "insufficient_scope")
			}
		}
	}
	return b.String()
}

// realm is the token service, on the registry's own host and port: clients
// refuse it elsewhere.
func (s *Service) realm(r *http.Request) string {
	if s.publicURL != "" {
		return s.publicURL + tokenPath
	}
	o := s.origin(r)
	return o.Scheme + "://" + o.Host + tokenPath
}

// SetHeaders sets the headers that belong to the answer to err: the challenge
// of a 401, for what the route needs, and the time to wait of a 429. It is
// called before the error is written.
func (s *Service) SetHeaders(w http.ResponseWriter, r *http.Request, err error, needs ...tarport.Grant) {
	switch tarport.ErrorCode(err) {
	case tarport.Unauthorized:
		w.Header().Set("WWW-Authenticate", s.Challenge(r, needs...))
	case tarport.TooManyRequests:
		setRetryAfter(w, err)
	}
}

func setRetryAfter(w http.ResponseWriter, err error) {
	if wait := retryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
}
