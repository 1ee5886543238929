package auth

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

const (
	tokenPath = "/auth/token"
	jwksPath  = "/.well-known/jwks.json"

	maxQuery = 8 << 10
	maxForm  = 16 << 10
)

// Routes registers the token service and its public keys.
func (s *Service) Routes(r *mux.Router) {
	r.Path(tokenPath).Handler(httpapi.Handle(s.serveToken))
	r.Path(jwksPath).Handler(httpapi.Handle(s.serveKeys))
}

// serveKeys answers with the public keys that verify access tokens, for others
// that want to.
func (s *Service) serveKeys(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wrongMethod(w, "GET, HEAD")
	}
	set, err := s.keys.current(r.Context(), keysAge)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(set.jwks) // a client that went away is no error
	return nil
}

// tokenRequest is what both forms of the token endpoint ask for.
type tokenRequest struct {
	who     identity
	refresh *tarport.Secret // else by this refresh token; nil without one
	client  string          // client_id
	scopes  []string
	// offline asks for a refresh token. It is only given for a password: with
	// one it could be made to live for ever.
	offline bool
}

type tokenResponse struct {
	Token        string    `json:"token"`
	AccessToken  string    `json:"access_token"` // the same, by OAuth 2's name
	ExpiresIn    int       `json:"expires_in"`
	IssuedAt     time.Time `json:"issued_at"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Scope        string    `json:"scope,omitempty"`
}

// serveToken is docker's token service: GET is the "Token Authentication
// Specification", POST the "OAuth2 Token Authentication" of distribution.
// Missing rights narrow the token; they are no error here.
func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) error {
	var ask func(http.ResponseWriter, *http.Request) (tokenRequest, error)
	switch r.Method {
	case http.MethodGet:
		ask = s.askedByQuery
	case http.MethodPost:
		ask = s.askedByForm
	default:
		return wrongMethod(w, "GET, POST")
	}
	rq, err := ask(w, r)
	var answer tokenResponse
	if err == nil {
		answer, err = s.answer(r.Context(), rq)
	}
	if err != nil {
		setRetryAfter(w, err)
		if tarport.ErrorCode(err) == tarport.Unauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+s.service+`"`)
		}
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpapi.WriteJSON(w, http.StatusOK, answer)
}

func (s *Service) answer(ctx context.Context, rq tokenRequest) (tokenResponse, error) {
	asked, err := parseScopes(rq.scopes)
	if err != nil {
		return tokenResponse{}, err
	}
	next := ""
	if rq.refresh != nil { // now, as it may be used up by it
		if rq.who, next, err = s.refresh(ctx, *rq.refresh); err != nil {
			return tokenResponse{}, err
		}
	}
	httpapi.SetUser(ctx, rq.who.user.Name)
	grants, err := s.granted(ctx, rq.who.principal(), asked)
	if err != nil {
		return tokenResponse{}, err
	}
	text, issuedAt, err := s.issue(ctx, rq.who, grants)
	if err != nil {
		return tokenResponse{}, err
	}
	answer := tokenResponse{
		Token: text, AccessToken: text, ExpiresIn: int(accessLife.Seconds()), IssuedAt: issuedAt, Scope: formatScopes(grants), RefreshToken: next,
	}
	if rq.offline && rq.who.user.ID != 0 {
		answer.RefreshToken, err = s.issueRefresh(ctx, rq.who, rq.client)
	}
	return answer, err
}

// askedByQuery reads a GET: who asks is in a Basic header, or nobody says.
func (s *Service) askedByQuery(_ http.ResponseWriter, r *http.Request) (rq tokenRequest, err error) {
	q, err := s.query(r)
	if err != nil {
		return rq, err
	}
	rq.scopes, rq.offline, rq.client = q["scope"], q.Get("offline_token") == "true", q.Get("client_id")
	switch len(r.Header["Authorization"]) {
	case 0:
	case 1:
		rq.who, err = s.basic(r)
	default:
		err = tarport.Errorf(tarport.Unauthorized, "more than one Authorization header")
	}
	return rq, err
}

// askedByForm reads a POST: who asks is in the body.
func (s *Service) askedByForm(w http.ResponseWriter, r *http.Request) (rq tokenRequest, err error) {
	if _, err := s.query(r); err != nil {
		return rq, err
	}
	form, err := readForm(w, r)
	if err != nil {
		return rq, err
	}
	if err := s.checkParameters(form); err != nil {
		return rq, err
	}
	rq.scopes, rq.client = form["scope"], form.Get("client_id")
	switch grant := form.Get("grant_type"); grant {
	case "password":
		rq.offline = form.Get("access_type") == "offline"
		rq.who, err = s.login(r.Context(), form.Get("username"), tarport.Secret(form.Get("password")), s.origin(r).Address)
	case "refresh_token":
		rq.refresh = new(tarport.Secret(form.Get("refresh_token")))
	default:
		err = tarport.Errorf(tarport.Invalid, "grant_type must be password or refresh_token")
	}
	return rq, err
}

func (s *Service) query(r *http.Request) (url.Values, error) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, tarport.Errorf(tarport.Invalid, "the query is longer than %d bytes", maxQuery)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, tarport.Errorf(tarport.Invalid, "the query cannot be read").Because(err)
	}
	return q, s.checkParameters(q)
}

func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	const form = "application/x-www-form-urlencoded"
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != form {
		return nil, tarport.Errorf(tarport.Invalid, "the body must be %s", form)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, err
	}
	if err != nil {
		return nil, tarport.Errorf(tarport.Invalid, "the body cannot be read as a form").Because(err)
	}
	return r.PostForm, nil
}

// checkParameters refuses what could be meant in two ways, and what is meant
// for another registry.
func (s *Service) checkParameters(v url.Values) error {
	for key, values := range v {
		if key != "scope" && len(values) > 1 {
			return tarport.Errorf(tarport.Invalid, "the parameter %q was sent more than once", key)
		}
	}
	if service := v.Get("service"); service != "" && service != s.service {
		return tarport.Errorf(tarport.Invalid, "this is the token service of %q, and not of the service that was asked for", s.service)
	}
	return nil
}

func wrongMethod(w http.ResponseWriter, allow string) error {
	w.Header().Set("Allow", allow)
	return tarport.Errorf(tarport.Unsupported, "this route takes %s", allow)
}
