package namespaces

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// accountRoutes are about who asks.
func (h *Handler) accountRoutes() []route {
	return []route{
		{http.MethodGet, "/user", h.getUser},
		{http.MethodPut, "/user/password", h.putPassword},
		{http.MethodGet, "/user/tokens", h.listTokens},
		{http.MethodPost, "/user/tokens", h.postToken},
		{http.MethodDelete, "/user/tokens/{id}", h.deleteToken},
	}
}

// Token is a personal access token as the API shows it. Secret is only there
// when it was made.
type Token struct {
	ID        int64       `json:"id"`
	Name      string      `json:"name"`
	Secret    tokenSecret `json:"secret,omitempty"`
	ReadOnly  bool        `json:"read_only"`
	Namespace string      `json:"namespace"` // "": all
	CreatedAt *time.Time  `json:"created_at"`
	ExpiresAt *time.Time  `json:"expires_at"` // null: never
	UsedAt    *time.Time  `json:"last_used_at"`
}

// tokenSecret is a secret that is shown this once.
type tokenSecret string

// Me is who asks.
type Me struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin"`
	Robot bool   `json:"robot"`
	// Token is the personal access token that was used; null for none.
	Token *MyToken `json:"token"`
}

// MyToken is what a token is restricted to.
type MyToken struct {
	Name      string `json:"name"`
	ReadOnly  bool   `json:"read_only"`
	Namespace string `json:"namespace"`
}

func (h *Handler) getUser(w http.ResponseWriter, r *http.Request) error {
	me, err := h.s.Me(r.Context())
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, me)
}

// Me tells who asks.
func (s *Service) Me(ctx context.Context) (Me, error) {
	if err := s.may(ctx, tarport.AccountRead, ""); err != nil {
		return Me{}, err
	}
	p := tarport.PrincipalFrom(ctx)
	me := Me{Name: p.Name, Admin: p.Admin, Robot: p.Robot}
	if p.TokenID != 0 {
		me.Token = &MyToken{p.TokenName, p.ReadOnly, p.Namespace}
	}
	return me, nil
}

func (h *Handler) putPassword(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Old string `json:"old_password"`
		New string `json:"password"`
	}
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	return noContent(w, h.s.ChangePassword(r.Context(), tarport.Secret(body.Old), tarport.Secret(body.New)))
}

// ChangePassword gives who asks another password, and ends every login but
// those by personal access tokens.
func (s *Service) ChangePassword(ctx context.Context, old, password tarport.Secret) error {
	if err := s.may(ctx, tarport.AccountWrite, ""); err != nil {
		return err
	}
	p := tarport.PrincipalFrom(ctx)
	if err := s.auth.CheckPassword(ctx, p.Name, old); err != nil {
		return err
	}
	hash, err := s.auth.HashPassword(ctx, password)
	if err != nil {
		return err
	}
	return s.db.SetPassword(ctx, p.UserID, hash)
}

func (h *Handler) listTokens(w http.ResponseWriter, r *http.Request) error {
	n, last, err := httpapi.Page(r)
	if err != nil {
		return err
	}
	after, err := strconv.ParseInt(last, 10, 64)
	if last != "" && err != nil {
		return tarport.Errorf(tarport.PaginationInvalid, "last is no id of a token")
	}
	tokens, err := h.s.Tokens(r.Context(), n+1, after)
	if err != nil {
		return err
	}
	return list(w, r, tokens, n, func(t Token) string { return strconv.FormatInt(t.ID, 10) })
}

// Tokens lists at most n tokens of who asks, after the id last.
func (s *Service) Tokens(ctx context.Context, n int, last int64) ([]Token, error) {
	if err := s.may(ctx, tarport.AccountRead, ""); err != nil {
		return nil, err
	}
	tokens, err := s.db.AccessTokens(ctx, tarport.PrincipalFrom(ctx).UserID, n, last)
	return convert(tokens, newToken), err
}

func newToken(t metadata.AccessToken) Token {
	return Token{
		ID: t.ID, Name: t.Name, ReadOnly: t.ReadOnly, Namespace: t.Namespace,
		CreatedAt: stamp(t.CreatedAt), ExpiresAt: stamp(t.ExpiresAt), UsedAt: stamp(t.UsedAt),
	}
}

// NewToken is what a token shall be.
type NewToken struct {
	Name      string `json:"name"`
	ExpiresIn string `json:"expires_in"`
	ReadOnly  bool   `json:"read_only"`
	Namespace string `json:"namespace"`
}

func (h *Handler) postToken(w http.ResponseWriter, r *http.Request) error {
	var body NewToken
	if err := httpapi.ReadJSON(w, r, &body); err != nil {
		return err
	}
	t, err := h.s.CreateToken(r.Context(), body)
	if err != nil {
		return err
	}
	location(w, "/user/tokens/%d", t.ID)
	w.Header().Set("Cache-Control", "no-store")
	return httpapi.WriteJSON(w, http.StatusCreated, t)
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9 ._@:/+-]{0,62}[A-Za-z0-9])?$`)

// CreateToken makes a personal access token of who asks. Its secret is in the
// answer, and nowhere else.
func (s *Service) CreateToken(ctx context.Context, n NewToken) (Token, error) {
	if err := s.may(ctx, tarport.AccountWrite, ""); err != nil {
		return Token{}, err
	}
	if !tokenName.MatchString(n.Name) {
		return Token{}, tarport.Errorf(tarport.Invalid, "%q is not a name for a token: use at most 64 letters, digits, spaces and . _ @ : / + -", n.Name)
	}
	if n.Namespace != "" {
		if err := tarport.CheckNamespace(n.Namespace); err != nil {
			return Token{}, err
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	expires, err := expiry(n.ExpiresIn, now)
	if err != nil {
		return Token{}, err
	}
	secret, hash := s.auth.NewAccessToken()
	t := metadata.AccessToken{
		UserID: tarport.PrincipalFrom(ctx).UserID, Name: n.Name, ReadOnly: n.ReadOnly, Namespace: n.Namespace,
		CreatedAt: now, ExpiresAt: expires,
	}
	if t.ID, err = s.db.CreateAccessToken(ctx, t, hash); err != nil {
		return Token{}, err
	}
	made := newToken(t)
	made.Secret = tokenSecret(secret.Reveal())
	return made, nil
}

func (h *Handler) deleteToken(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(mux.Vars(r)["id"], 10, 64)
	if err != nil || id < 1 {
		return tarport.Errorf(tarport.NotFound, "there is no such token")
	}
	return noContent(w, h.s.RevokeToken(r.Context(), id))
}

// RevokeToken ends a token of who asks. A token may end itself.
func (s *Service) RevokeToken(ctx context.Context, id int64) error {
	p, need := tarport.PrincipalFrom(ctx), tarport.AccountWrite
	if p.TokenID == id {
		need = tarport.AccountRead
	}
	if err := s.may(ctx, need, ""); err != nil {
		return err
	}
	return s.db.RevokeAccessToken(ctx, p.UserID, id)
}
