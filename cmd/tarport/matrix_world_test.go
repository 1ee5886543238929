package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
	"github.com/tarport/tarport/storage/metadata"
)

// matrixWorld is the whole server, without a listener, and who uses it.
type matrixWorld struct {
	t          *testing.T
	stores     *stores
	routes     *routes
	handler    http.Handler
	rows       []matrixRow
	principals []*principal
	fill       *strings.Replacer
	made       map[string]string // Location of what a row's steps made, by row and namespace
	n          int
}

// newMatrixWorld makes an empty one; createBy is who may create namespaces.
func newMatrixWorld(t *testing.T, createBy string) *matrixWorld {
	t.Helper()
	yaml := "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: " + t.TempDir() + "\n"
	if createBy != "" {
		yaml += "tarport:\n  namespaces:\n    create_by: " + createBy + "\n"
	}
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{out: io.Discard, err: io.Discard, environ: []string{"TARPORT_ADMIN_PASSWORD=" + password}}
	c, err := a.loadConfig([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	bridgeLogrus().to(log)
	w := &matrixWorld{t: t, rows: parseMatrixRoutes(t), made: map[string]string{}}
	if w.stores, err = openStores(t.Context(), c, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.stores.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.routes, err = w.stores.newRoutes(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if err := ensureAdmin(t.Context(), a, w.routes.auth); err != nil {
		t.Fatal(err)
	}
	w.handler = w.routes.handler(c, log, server.NewMetrics(), server.DefaultPace())
	const config, gone = `{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, `{"os":"gone"}`
	w.fill = strings.NewReplacer("{config}", config, "{gone}", gone, "{archive}", dockerArchive(t, 100),
		"{rootfs}", tarOf(t, "etc/hostname", []byte("x")), "{password}", password,
		"{digest}", digest.FromString(config).String(), "{gonedigest}", digest.FromString(gone).String(),
		"{manifest}", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
			manifestType, digest.FromString(config), len(config)))
	return w
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// send makes a request from an address of its own: the limits of failed logins
// are not what is asked about.
func (w *matrixWorld) send(method, target, authorization, body string) *httptest.ResponseRecorder {
	w.n++
	r := httptest.NewRequestWithContext(w.t.Context(), method, target, nil)
	if body != "" {
		r = httptest.NewRequestWithContext(w.t.Context(), method, target, strings.NewReader(body))
	}
	r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", w.n>>16&255, w.n>>8&255, w.n&255)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	switch {
	case strings.Contains(target, "/manifests/"):
		r.Header.Set("Content-Type", manifestType)
	case strings.HasPrefix(target, "/auth/"):
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case strings.HasPrefix(target, "/api/v1/uploads"):
		for k, v := range map[string]string{
			"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream",
			"Upload-Length": "5", "Upload-Offset": "0", "X-HTTP-Method-Override": http.MethodDelete,
		} {
			r.Header.Set(k, v)
		}
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec
}

// admin does what must succeed: "METHOD path [body]".
func (w *matrixWorld) admin(step string) (location string) {
	w.t.Helper()
	return w.as(basicAuth("admin", password), step)
}

func (w *matrixWorld) as(authorization, step string) (location string) {
	w.t.Helper()
	f := append(strings.SplitN(step, " ", 3), "")
	rec := w.send(f[0], w.fill.Replace(f[1]), authorization, w.fill.Replace(f[2]))
	if rec.Code >= http.StatusBadRequest {
		w.t.Fatalf("%s = %d %s", step, rec.Code, rec.Body)
	}
	w.made["secret"] = rec.Body.String()
	return rec.Header().Get("Location")
}

func basicAuth(user, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// principal is one of the sixteen.
type principal struct {
	name, login, credential, public, secret string

	shows   string // the password, or the secret of its token
	refresh string
	tokens  map[string]string // by kind and scope
}

func (p *principal) dead() bool { return p.public == "dead" }

// in is what it is in the namespace; "" for nothing.
func (p *principal) in(ns string) string {
	role := map[string]string{"public": p.public, "secret": p.secret}[ns]
	if p.name == "admin" {
		role = "admin"
	}
	if role == "-" || role == "dead" {
		return ""
	}
	return role
}

// kinds are the credentials by which it can come.
func (p *principal) kinds(row matrixRow) []string {
	switch {
	case row.route() == "POST /auth/token":
		return []string{"basic"}
	case p.name == "stranger":
		return []string{"basic", "get"}
	}
	return []string{"basic", "get", "post", "refresh"}
}

// populate makes the namespaces with their content, and the principals with
// their credentials, of which all are still good.
func (w *matrixWorld) populate() {
	hash, err := w.routes.auth.HashPassword(w.t.Context(), password)
	if err != nil {
		w.t.Fatal(err)
	}
	user := func(name string) {
		if _, err := w.stores.db.CreateUser(w.t.Context(), metadata.User{Name: name, PasswordHash: hash}); err != nil {
			w.t.Fatal(err)
		}
	}
	user("target")
	for _, ns := range matrixNamespaces[:2] {
		w.admin(`POST /api/v1/namespaces {"name":"` + ns + `","visibility":"` + map[string]string{"public": "public", "secret": "private"}[ns] + `"}`)
		w.admin(`POST /v2/` + ns + `/app/blobs/uploads/?digest={digest} {config}`)
		w.admin(`PUT /v2/` + ns + `/app/manifests/v1 {manifest}`)
		w.admin(`PUT /api/v1/namespaces/` + ns + `/members/target {"role":"reader"}`)
		w.admin(`POST /api/v1/namespaces/` + ns + `/robots {"name":"target","role":"reader"}`)
	}
	for line := range strings.Lines(strings.TrimSpace(matrixPrincipals)) {
		f := strings.Fields(line)
		p := &principal{name: f[0], login: f[1], credential: f[2], public: f[3], secret: f[4], shows: password, tokens: map[string]string{}}
		w.principals = append(w.principals, p)
		if p.login == "-" || p.login == "admin" && p.credential == "password" {
			continue
		}
		if _, err := w.stores.db.UserByName(w.t.Context(), p.login); tarport.ErrorCode(err) == tarport.NotFound && p.credential != "robot" {
			user(p.login)
		}
		w.equip(p)
	}
}

// equip makes the principal's memberships and credentials.
func (w *matrixWorld) equip(p *principal) {
	role := map[bool]string{true: "writer", false: ""}[p.dead() || p.name == "lost-member"]
	for _, ns := range matrixNamespaces[:2] {
		r := max(role, p.in(ns))
		if r != "" && r != "admin" && p.credential != "robot" {
			w.admin(`PUT /api/v1/namespaces/` + ns + `/members/` + p.login + ` {"role":"` + r + `"}`)
		}
	}
	switch p.credential {
	case "password":
		return
	case "robot":
		_, name, _ := strings.Cut(p.login, "+")
		w.admin(`POST /api/v1/namespaces/secret/robots {"name":"` + name + `","role":"` + p.secret + `"}`)
	default:
		w.as(basicAuth(p.login, password), "POST /api/v1/user/tokens "+p.credential)
	}
	var made struct {
		ID     int64
		Secret string
	}
	if err := json.Unmarshal([]byte(w.made["secret"]), &made); err != nil || made.Secret == "" {
		w.t.Fatalf("the secret of %s: %s (%v)", p.name, w.made["secret"], err)
	}
	p.shows = made.Secret
	w.made[p.name] = fmt.Sprint(made.ID)
}

// bereave fetches the tokens of those that will lose their rights, and then
// takes these.
func (w *matrixWorld) bereave() {
	var dead []*principal
	for _, p := range w.principals {
		if !p.dead() && p.name != "lost-member" {
			continue
		}
		for _, row := range w.rows {
			for _, ns := range row.namespaces() {
				for _, kind := range []string{"get", "post", "refresh"} {
					w.token(p, kind, row.scope(ns))
				}
			}
		}
		if p.dead() {
			dead = append(dead, p)
		}
	}
	for _, ns := range matrixNamespaces[:2] {
		w.admin("DELETE /api/v1/namespaces/" + ns + "/members/lena")
	}
	w.as(basicAuth("rick", password), "DELETE /api/v1/user/tokens/"+w.made["revoked"])
	w.admin(`PATCH /api/v1/users/dora {"disabled":true}`)
	w.admin("DELETE /api/v1/users/dina")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, p := range dead {
		bearer := p.tokens["get registry:api:*"]
		for w.send(http.MethodGet, "/api/v1/user", bearer, "").Code != http.StatusUnauthorized {
			if p.name != "expired" {
				w.t.Fatalf("a bearer token of the %s principal is still good", p.name)
			}
			<-tick.C
		}
		for _, kind := range []string{"get", "post", "refresh"} {
			if rec := w.grant(p, kind, "registry:api:*"); rec.Code != http.StatusUnauthorized {
				w.t.Errorf("a token by %s for the %s principal = %d %s", kind, p.name, rec.Code, rec.Body)
			}
		}
	}
}

// authorization is the header that the principal sends.
func (w *matrixWorld) authorization(p *principal, kind, scope string) string {
	switch {
	case kind != "basic":
		return w.token(p, kind, scope)
	case p.name == "stranger":
		return ""
	}
	return basicAuth(p.login, p.shows)
}

// token gets a bearer token, once for each scope.
func (w *matrixWorld) token(p *principal, kind, scope string) string {
	key := kind + " " + scope
	if p.tokens[key] == "" {
		rec := w.grant(p, kind, scope)
		var answer struct {
			Token        string `json:"access_token"`
			RefreshToken string `json:"refresh_token"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK {
			w.t.Fatalf("a token by %s for %s: %d %s", kind, p.name, rec.Code, rec.Body)
		}
		p.tokens[key] = "Bearer " + answer.Token
		if answer.RefreshToken != "" {
			p.refresh = answer.RefreshToken
		}
	}
	return p.tokens[key]
}

// grant asks the token service.
func (w *matrixWorld) grant(p *principal, kind, scope string) *httptest.ResponseRecorder {
	form := url.Values{"service": {"tarport"}, "client_id": {"docker"}, "scope": {scope}}
	switch kind {
	case "get":
		return w.send(http.MethodGet, "/auth/token?"+form.Encode(), w.authorization(p, "basic", ""), "")
	case "post":
		form["grant_type"], form["access_type"] = []string{"password"}, []string{"offline"}
		form["username"], form["password"] = []string{p.login}, []string{p.shows}
	default:
		if p.refresh == "" {
			w.token(p, "post", scope)
		}
		form["grant_type"], form["refresh_token"] = []string{"refresh_token"}, []string{p.refresh}
	}
	return w.send(http.MethodPost, "/auth/token", "", form.Encode())
}

// matrixSteps are what the administrator does before a request that deletes, as
// often as it did; the path of the request is the last Location, or of what the
// step made.
var matrixSteps = map[string][]string{
	"DELETE /v2/{name}/manifests/{reference}":             {"PUT /v2/{ns}/app/manifests/gone {manifest}"},
	"DELETE /engine/{ns}{version}/images/{name}":          {"PUT /v2/{ns}/app/manifests/gone {manifest}"},
	"DELETE /api/v1/repositories/{name}/-/tags/{tag}":     {"PUT /v2/{ns}/app/manifests/gone {manifest}"},
	"DELETE /v2/{name}/blobs/{digest}":                    {"POST /v2/{ns}/app/blobs/uploads/?digest={gonedigest} {gone}"},
	"DELETE /api/v1/namespaces/{ns}/members/{user}":       {`PUT /api/v1/namespaces/{ns}/members/target {"role":"reader"}`},
	"DELETE /api/v1/namespaces/{ns}/robots/{robot}":       {`POST /api/v1/namespaces/{ns}/robots {"name":"doomed","role":"reader"}`},
	"DELETE /api/v1/namespaces/{ns}/immutable-rules/{id}": {`POST /api/v1/namespaces/{ns}/immutable-rules {"tag":"doomed"}`},
	"DELETE /api/v1/repositories/{name}": {
		"POST /v2/{ns}/gone/blobs/uploads/?digest={digest} {config}", "PUT /v2/{ns}/gone/manifests/v1 {manifest}",
	},
}

// matrixPaths are paths that are not as in any other row.
var matrixPaths = map[string]string{
	"DELETE /v2/{name}/manifests/{reference}":         "/v2/{ns}/app/manifests/gone",
	"DELETE /api/v1/repositories/{name}/-/tags/{tag}": "/api/v1/repositories/{ns}/app/-/tags/gone",
	"DELETE /v2/{name}/blobs/{digest}":                "/v2/{ns}/app/blobs/{gonedigest}",
	"DELETE /api/v1/namespaces/{ns}/robots/{robot}":   "/api/v1/namespaces/{ns}/robots/doomed",
	"DELETE /api/v1/repositories/{name}":              "/api/v1/repositories/{ns}/gone",
	"DELETE /api/v1/users/{user}":                     "/api/v1/users/nobody",
	"DELETE /engine/{ns}{version}/images/{name}":      "/engine/{ns}{version}/images/app:gone",
}

// ask makes the request of a cell; done takes back what it did.
func (w *matrixWorld) ask(row matrixRow, p *principal, kind, ns string) (rec *httptest.ResponseRecorder, done func()) {
	authorization := w.authorization(p, kind, row.scope(ns))
	path, _, _ := strings.Cut(row.path, "#")
	if other := matrixPaths[row.key()]; other != "" {
		path = other
	}
	if ns != "absent" && w.made[row.key()+ns] == "" {
		for _, step := range matrixSteps[row.key()] {
			w.made[row.key()+ns] = w.admin(strings.ReplaceAll(step, "{ns}", ns)) + " "
		}
	}
	if made := strings.TrimSpace(w.made[row.key()+ns]); strings.HasPrefix(made, "/api/") {
		path = made
	}
	session := ""
	if strings.HasSuffix(row.path, "/blobs/uploads/{id}") {
		path = "/v2/{name}/blobs/uploads/" + strings.Repeat("A", 26)
		if begun := w.send(http.MethodPost, "/v2/"+ns+"/app/blobs/uploads/", authorization, ""); begun.Code == http.StatusAccepted {
			session = begun.Header().Get("Location")
			path = session
		}
	}
	query, body := "", row.request
	if strings.HasPrefix(body, "?") {
		query, body, _ = strings.Cut(body, " ")
	}
	if strings.Contains(path, "?") {
		query = strings.Replace(query, "?", "&", 1)
	}
	name := ns + "/app"
	if row.onEngine() {
		name = "app:v1"
	}
	own := strings.NewReplacer("{ns}", ns, "{name}", name, "{version}", "/v1.41", "{reference}", "v1", "{tag}", "v1", "{user}", "target", "{robot}", "target",
		"{id}", "999999999", "{n}", fmt.Sprint(w.n), "{login}",
		url.Values{"grant_type": {"password"}, "username": {p.login}, "password": {p.shows}}.Encode())
	rec = w.send(row.method, w.fill.Replace(own.Replace(path+query)), authorization, w.fill.Replace(own.Replace(body)))
	return rec, func() { w.undo(row, ns, authorization, session, rec) }
}

// undo leaves the world as it was before a request.
func (w *matrixWorld) undo(row matrixRow, ns, authorization, session string, rec *httptest.ResponseRecorder) {
	if rec.Code < http.StatusMultipleChoices && row.method == http.MethodDelete {
		delete(w.made, row.key()+ns)
	}
	if row.key() == "POST /api/v1/uploads" || strings.HasSuffix(row.path, "/blobs/uploads/") && rec.Code == http.StatusAccepted {
		session = rec.Header().Get("Location")
	}
	if session != "" { // most are at their end already
		w.send(http.MethodDelete, session, authorization, "")
	}
	if ns == "absent" && (session != "" || row.method != http.MethodGet && rec.Code < http.StatusMultipleChoices) {
		w.send(http.MethodDelete, "/api/v1/namespaces/absent?force=true", basicAuth("admin", password), "")
	}
}
