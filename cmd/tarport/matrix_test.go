package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport/registry"
)

// matrixRoutes says of every route what it takes (a class, below), what who may
// gets, and what it gets in a namespace that is not there; then the request's
// query and body. What stands behind # tells requests to one route apart. This
// table is written by hand and asks nothing of the product.
const matrixRoutes = `
GET    /v2/                                              login    200
HEAD   /v2/                                              login    200
GET    /v2/_catalog                                      login    200
GET    /v2/_oci/ext/discover                             login    200
GET    /v2/{name}/tags/list                              pull     200 404
GET    /v2/{name}/referrers/{digest}                     pull     200 200
GET    /v2/{name}/manifests/{reference}                  pull     200 404
HEAD   /v2/{name}/manifests/{reference}                  pull     200 404
PUT    /v2/{name}/manifests/{reference}                  push     201 400 {manifest}
DELETE /v2/{name}/manifests/{reference}                  delete   202 404
GET    /v2/{name}/blobs/{digest}                         pull     200 404
HEAD   /v2/{name}/blobs/{digest}                         pull     200 404
DELETE /v2/{name}/blobs/{digest}                         delete   202 404
POST   /v2/{name}/blobs/uploads/                         push     202 202
POST   /v2/{name}/blobs/uploads/#whole                   push     201 201 ?digest={digest} {config}
POST   /v2/{name}/blobs/uploads/#mount                   push     201 202 ?mount={digest}&from={name}
GET    /v2/{name}/blobs/uploads/{id}                     push     204 204
HEAD   /v2/{name}/blobs/uploads/{id}                     push     204 204
PATCH  /v2/{name}/blobs/uploads/{id}                     push     202 202 {config}
PUT    /v2/{name}/blobs/uploads/{id}                     push     201 201 ?digest={digest} {config}
DELETE /v2/{name}/blobs/uploads/{id}                     push     204 204
GET    /auth/token                                       token    200
POST   /auth/token                                       token    200 {login}
GET    /.well-known/jwks.json                            anyone   200
HEAD   /.well-known/jwks.json                            anyone   200
GET    /api/openapi.yaml                                 anyone   200
HEAD   /api/openapi.yaml                                 anyone   200
PUT    /api/v1/archives/load                             push     201 201 ?namespace={ns} {archive}
POST   /api/v1/archives/load                             push     201 201 ?namespace={ns}&repo=app&tag=v2 {archive}
POST   /api/v1/archives/missing                          push     200 200 ?namespace={ns} {"diff_ids":[],"digests":["{digest}"]}
OPTIONS /api/v1/uploads                                  login    204
GET    /api/v1/uploads                                   login    200
POST   /api/v1/uploads                                   upload   201     bytes
OPTIONS /api/v1/uploads/{id}                             login    204
GET    /api/v1/uploads/{id}                              login    404
HEAD   /api/v1/uploads/{id}                              login    404
POST   /api/v1/uploads/{id}                              upload   404
PATCH  /api/v1/uploads/{id}                              upload   404     bytes
DELETE /api/v1/uploads/{id}                              upload   404
GET    /api/v1/archives/save                             pull     200 404 ?image={name}:v1&format=oci
HEAD   /api/v1/archives/save                             pull     200 404 ?image={name}:v1&format=oci
PUT    /api/v1/archives/import                           push     201 201 ?repo={ns}/app&tag=v3 {rootfs}
POST   /api/v1/archives/import                           push     201 201 ?repo={ns}/app&tag=v3&changes=USER+x {rootfs}
PUT    /api/v1/archives/commit                           push     201 404 ?repo={ns}/app&tag=v4&base={ns}/app:v1 {rootfs}
POST   /api/v1/archives/commit                           push     201 404 ?repo={ns}/app&tag=v4&base={ns}/app:v1&comment=x {rootfs}
GET    /api/v1/archives/export                           pull     200 404 ?image={name}:v1
HEAD   /api/v1/archives/export                           pull     200 404 ?image={name}:v1
GET    /api/v1/user                                      login    200
PUT    /api/v1/user/password                             password 400     {"old_password":"{password}","password":"short"}
GET    /api/v1/user/tokens                               login    200
POST   /api/v1/user/tokens                               password 201     {"name":"t{n}"}
DELETE /api/v1/user/tokens/{id}                          password 404
GET    /api/v1/users                                     admins   200
POST   /api/v1/users                                     admins   400     {"name":"new","password":"short"}
GET    /api/v1/users/{user}                              admins   200
PATCH  /api/v1/users/{user}                              admins   200     {"admin":false}
DELETE /api/v1/users/{user}                              admins   404
GET    /api/v1/namespaces                                login    200
POST   /api/v1/namespaces                                create   409 201 {"name":"{ns}"}
GET    /api/v1/namespaces/{ns}                           see      200 404
PATCH  /api/v1/namespaces/{ns}                           own      200 404 {"description":"d{n}"}
PATCH  /api/v1/namespaces/{ns}#quota                     quota    200 404 {"quota_bytes":-1}
DELETE /api/v1/namespaces/{ns}                           own      409 404
GET    /api/v1/namespaces/{ns}/repositories              see      200 404
GET    /api/v1/namespaces/{ns}/members                   member   200 404
PUT    /api/v1/namespaces/{ns}/members/{user}            own      200 404 {"role":"reader"}
DELETE /api/v1/namespaces/{ns}/members/{user}            own      204 404
GET    /api/v1/namespaces/{ns}/robots                    audit    200 404
POST   /api/v1/namespaces/{ns}/robots                    own      201 404 {"name":"r{n}","role":"writer"}
PATCH  /api/v1/namespaces/{ns}/robots/{robot}            own      200 404 {"expires_in":"1h"}
DELETE /api/v1/namespaces/{ns}/robots/{robot}            own      204 404
GET    /api/v1/namespaces/{ns}/immutable-rules           see      200 404
POST   /api/v1/namespaces/{ns}/immutable-rules           rules    201 404 {"tag":"never-{n}"}
DELETE /api/v1/namespaces/{ns}/immutable-rules/{id}      rules    204 404
GET    /api/v1/namespaces/{ns}/events                    audit    200 200
GET    /api/v1/events                                    admins   200
POST   /api/v1/admin/recount                             admins   200
GET    /api/v1/repositories                              login    200
GET    /api/v1/search                                    login    200     ?q=app
GET    /api/v1/repositories/{name}                       pull     200 404
GET    /api/v1/repositories/{name}/-/tags                pull     200 404 ?sort=-version&platform=linux&version=*
GET    /api/v1/repositories/{name}/-/variants            pull     200 404
GET    /api/v1/repositories/{name}/-/tags/{tag}          pull     200 404
PUT    /api/v1/repositories/{name}/-/tags/{tag}          push     200 404 {"from":"v1"}
PUT    /api/v1/repositories/{name}/-/tags/{tag}#copy     push     200 404 {"from":"{ns}/app:v1"}
DELETE /api/v1/repositories/{name}/-/tags/{tag}          delete   204 404
GET    /api/v1/repositories/{name}/-/tags/{tag}/history  pull     200 404
PATCH  /api/v1/repositories/{name}                       describe 200 404 {"description":"d{n}"}
DELETE /api/v1/repositories/{name}                       describe 204 404
GET    /engine/{ns}{version}/_ping                       anyone   200
HEAD   /engine/{ns}{version}/_ping                       anyone   200
GET    /engine/{ns}{version}/version                     login    200 200
GET    /engine/{ns}{version}/info                        see      200 404
POST   /engine/{ns}{version}/images/load                 push     200 200 {archive}
POST   /engine/{ns}{version}/images/create               push     200 200 ?fromSrc=-&repo=flat:1 {rootfs}
GET    /engine/{ns}{version}/images/get                  pull     200 404 ?names=app:v1
GET    /engine/{ns}{version}/images/json                 see      200 404
POST   /engine/{ns}{version}/images/prune                login    501 501
GET    /engine/{ns}{version}/images/{name}/get           pull     200 404
GET    /engine/{ns}{version}/images/{name}/json          pull     200 404
GET    /engine/{ns}{version}/images/{name}/history       pull     200 404
POST   /engine/{ns}{version}/images/{name}/tag           push     201 404 ?repo=app&tag=v{n}
DELETE /engine/{ns}{version}/images/{name}               delete   200 404
GET    /engine/{ns}/                                     login    404 404
HEAD   /engine/{ns}/                                     login    404 404
POST   /engine/{ns}/                                     login    404 404
PUT    /engine/{ns}/                                     login    404 404
PATCH  /engine/{ns}/                                     login    404 404
DELETE /engine/{ns}/                                     login    404 404
GET    /api/v1/repositories/{name}/-/manifests/{reference}      pull 200 404
GET    /api/v1/repositories/{name}/-/manifests/{reference}/diff pull 200 404 ?with={reference}
GET    /api/v1/repositories/{name}/-/manifests/{reference}/files pull 200 404
GET    /api/v1/repositories/{name}/-/manifests/{reference}/files/content pull 400 404 ?path=/
`

// matrixClasses are what routes take: the least role in the namespace, the
// answer to whom it is hidden from, whether what is public is open to anybody,
// and whether it changes anything. The rest belong to no namespace.
const matrixClasses = `
pull     reader     404 NAME_UNKNOWN public reads
see      reader     404 NOT_FOUND    public reads
member   reader     404 NOT_FOUND    -      reads
push     writer     403 DENIED       -      writes
delete   maintainer 403 DENIED       -      writes
describe maintainer 404 NAME_UNKNOWN -      writes
rules    maintainer 404 NOT_FOUND    -      writes
own      owner      404 NOT_FOUND    -      writes
audit    owner      404 NOT_FOUND    -      reads
quota    admin      404 NOT_FOUND    -      writes
create   -          403 DENIED       -      writes
admins   -          403 DENIED       -      -
password -          403 DENIED       -      writes
upload   -          403 DENIED       -      writes
login    -          -   -            -      reads
anyone   -          -   -            -      reads
token    -          -   -            -      reads
`

// matrixPrincipals are the sixteen: the login, what it shows, and what it is in
// the namespaces public and secret. The dead ones were writers in both.
const matrixPrincipals = `
stranger     -             nothing         -          -
non-member   nina          password        -          -
reader       rita          password        reader     reader
writer       will          password        writer     writer
maintainer   mona          password        maintainer maintainer
owner        olga          password        owner      owner
admin        admin         password        admin      admin
scoped-admin admin         {"name":"p","namespace":"public"} admin -
robot-pull   secret+puller robot           -          reader
robot-push   secret+pusher robot           -          writer
read-only    olga          {"name":"r","read_only":true}     owner owner
lost-member  lena          {"name":"l"}                      -     -
expired      erna          {"name":"e","expires_in":"10s"}   dead  dead
revoked      rick          {"name":"v"}                      dead  dead
disabled     dora          {"name":"d"}                      dead  dead
deleted      dina          {"name":"x"}                      dead  dead
`

// The three namespaces have names of one length, so that answers can be compared.
var matrixNamespaces = []string{"public", "secret", "absent"}

type matrixRow struct {
	method, path, class string
	ok, absent          int
	request             string
}

type matrixClass struct {
	least          string
	hidden         int
	code           string
	public, writes bool
}

func (row matrixRow) key() string { return row.method + " " + row.path }

// route is the key without what only the table knows.
func (row matrixRow) route() string {
	route, _, _ := strings.Cut(row.key(), "#")
	return route
}

// namespaces are those in which the request is another one.
func (row matrixRow) namespaces() []string {
	if strings.Contains(row.path+row.request, "{name}") || strings.Contains(row.path+row.request, "{ns}") {
		return matrixNamespaces
	}
	return matrixNamespaces[:1]
}

// scope is what a client asks a token for, to use the route.
func (row matrixRow) scope(ns string) string {
	switch {
	case strings.HasPrefix(row.path, "/v2/{name}"):
		return "repository:" + ns + "/app:pull,push,delete"
	case strings.HasPrefix(row.path, "/v2/_catalog"):
		return "registry:catalog:*"
	}
	return "registry:api:*"
}

func parseMatrixRoutes(t *testing.T) (rows []matrixRow) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(matrixRoutes)) {
		f := strings.Fields(line)
		row := matrixRow{method: f[0], path: f[1], class: f[2]}
		row.ok, _ = strconv.Atoi(f[3])
		f = f[4:]
		if len(f) > 0 {
			if n, err := strconv.Atoi(f[0]); err == nil {
				row.absent, f = n, f[1:]
			}
		}
		row.request = strings.Join(f, " ")
		rows = append(rows, row)
	}
	return rows
}

func parseMatrixClasses() map[string]matrixClass {
	classes := map[string]matrixClass{}
	for line := range strings.Lines(strings.TrimSpace(matrixClasses)) {
		f := strings.Fields(line)
		status, _ := strconv.Atoi(f[2])
		classes[f[0]] = matrixClass{f[1], status, f[3], f[4] == "public", f[5] == "writes"}
	}
	return classes
}

// TestEveryRouteHasARow makes the table as long as the routers are.
func TestEveryRouteHasARow(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	var want []string
	for _, rt := range registry.Routes() {
		want = append(want, rt.Method+" "+rt.Path)
	}
	err := w.routes.others.Walk(func(rt *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := rt.GetPathTemplate()
		if err != nil || rt.GetHandler() == nil {
			return err // a subrouter
		}
		path = pathPattern.ReplaceAllString(path, "{$1}")
		methods, err := rt.GetMethods()
		if err != nil { // the handler looks at the method itself
			methods = w.takes(path)
		}
		for _, m := range methods {
			want = append(want, m+" "+path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range parseMatrixRoutes(t) {
		got = append(got, row.route())
	}
	for _, route := range want {
		if !slices.Contains(got, route) {
			t.Errorf("the route %s has no row: say in matrixRoutes who may use it", route)
		}
	}
	for _, route := range got {
		if !slices.Contains(want, route) {
			t.Errorf("the row %s is of no route", route)
		}
	}
}

// takes are the methods that a path without methods does not refuse.
func (w *matrixWorld) takes(path string) (methods []string) {
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if rec := w.send(m, path, "", ""); rec.Code != http.StatusMethodNotAllowed {
			methods = append(methods, m)
		}
	}
	return methods
}

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	for policy, cells := range map[string]int{"users": 8000, "admins": 2000} {
		t.Run("namespaces are created by "+policy, func(t *testing.T) {
			t.Parallel()
			m := &matrix{matrixWorld: newMatrixWorld(t, policy), classes: parseMatrixClasses(), open: policy == "users"}
			m.populate()
			m.bereave()
			for _, row := range m.rows {
				if m.open || row.class == "push" || row.class == "upload" || row.class == "create" { // nothing else depends on it
					m.row(row)
				}
			}
			t.Logf("%d cells, %d wrong", m.cells, m.wrong)
			if m.cells < cells || len(m.principals) != 16 {
				t.Errorf("only %d cells of %d principals were asked", m.cells, len(m.principals))
			}
		})
	}
}

// matrix asks every cell.
type matrix struct {
	*matrixWorld
	classes map[string]matrixClass
	open    bool // everybody may create namespaces

	cells, wrong int
}

func (m *matrix) row(row matrixRow) {
	for _, p := range m.principals {
		for _, kind := range p.kinds(row) {
			answers := map[string]string{} // by namespace, of what was refused
			for _, ns := range row.namespaces() {
				if p.dead() && kind == "basic" && (ns != "public" || !m.open) {
					continue // a hash each: once is enough
				}
				m.cell(row, p, kind, ns, answers)
			}
			if a, b := answers["secret"], answers["absent"]; p.in("secret") == "" && a != "" && b != "" && a != b {
				m.report("%s as %s by %s tells what is hidden from what is not there:\n%s\n%s", row.key(), p.name, kind, a, b)
			}
		}
	}
}

// cell asks once, and notes what was refused.
func (m *matrix) cell(row matrixRow, p *principal, kind, ns string, answers map[string]string) {
	m.cells++
	status, code := m.want(row, p, kind, ns)
	rec, done := m.ask(row, p, kind, ns)
	body := rec.Body.String()
	if rec.Code != status || code != "" && body != "" && !strings.Contains(body, row.errorWith(code)) {
		m.report("%s as %s by %s in %s = %d %s, want %d %s", row.key(), p.name, kind, ns, rec.Code, strings.TrimSpace(body), status, code)
	}
	if code != "" {
		h := rec.Header().Clone()
		h.Del("X-Request-Id")
		answers[ns] = strings.ReplaceAll(fmt.Sprint(rec.Code, h, body), ns, "******")
	}
	done()
}

func (m *matrix) report(format string, args ...any) {
	m.t.Helper()
	if m.wrong++; m.wrong <= 50 {
		m.t.Errorf(format, args...)
	}
}

// want is the status of a cell, and the code where it is refused.
func (m *matrix) want(row matrixRow, p *principal, kind, ns string) (status int, code string) {
	c, role := m.classes[row.class], p.in(ns)
	ok := row.ok
	if ns == "absent" {
		ok = row.absent
	}
	visible := role != "" || ns == "public"
	switch {
	case row.class == "anyone", c.public && ns == "public" && !p.dead() && (p.name != "stranger" || row.onV2()):
		return row.ok, ""
	case row.class == "token":
		return m.wantToken(row, p, kind)
	case p.dead(), p.name == "stranger":
		return http.StatusUnauthorized, "UNAUTHORIZED"
	case row.class == "login":
		return ok, ""
	case row.class == "admins" && p.name == "admin", row.class == "password" && p.credential == "password":
		return ok, ""
	case row.class == "create" || row.class == "push" && ns == "absent":
		if m.mayCreate(p, ns) {
			return ok, ""
		}
		return http.StatusForbidden, "DENIED"
	case row.class == "upload": // who may push somewhere
		if p.name == "admin" || p.name == "scoped-admin" || p.name != "read-only" && (rank(p.public) > rank("reader") || rank(p.secret) > rank("reader")) || m.mayCreate(p, "absent") {
			return ok, ""
		}
		return http.StatusForbidden, "DENIED"
	case p.name == "read-only" && c.writes:
		return http.StatusForbidden, "DENIED"
	case c.least != "-" && rank(role) >= rank(c.least):
		return ok, ""
	case visible && ns != "absent" || c.least == "-":
		return http.StatusForbidden, "DENIED"
	}
	return c.hidden, c.code
}

// wantToken: the token service takes no bearer tokens, and nothing of a stranger
// who says to have a password.
func (m *matrix) wantToken(row matrixRow, p *principal, kind string) (status int, code string) {
	if p.dead() || kind != "basic" && row.method == http.MethodGet || p.name == "stranger" && row.method == http.MethodPost {
		return http.StatusUnauthorized, "UNAUTHORIZED"
	}
	return row.ok, ""
}

func (m *matrix) mayCreate(p *principal, ns string) bool {
	switch p.name {
	case "admin":
		return true
	case "scoped-admin":
		return ns == "public"
	case "robot-pull", "robot-push", "read-only":
		return false
	}
	return m.open
}

// errorWith is what the body of an error has in it.
func (row matrixRow) errorWith(code string) string {
	if row.onEngine() {
		return `{"message":"`
	}
	return `"code":"` + code + `"`
}

func (row matrixRow) onEngine() bool { return strings.HasPrefix(row.path, "/engine/") }

func (row matrixRow) onV2() bool { return strings.HasPrefix(row.path, "/v2/") }

// rank compares roles; "" is none.
func rank(role string) int {
	return slices.Index([]string{"", "reader", "writer", "maintainer", "owner", "admin"}, role)
}
