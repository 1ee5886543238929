package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestAnIDOfAnotherIsNoID asks for things by ids that are somebody else's, or
// another namespace's, as one who may do it to his own.
func TestAnIDOfAnotherIsNoID(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	w.populate()
	olga, will := basicAuth("olga", password), basicAuth("will", password)
	w.as(basicAuth("nina", password), `POST /api/v1/user/tokens {"name":"hers"}`)
	token := w.idOfLast("id")
	w.as(olga, `POST /api/v1/namespaces/public/immutable-rules {"tag":"never"}`)
	rule := w.idOfLast("id")
	begin := func() string { return w.as(will, "POST /v2/secret/app/blobs/uploads/") }
	session := begin()
	upload := w.as(will, "POST /api/v1/uploads bytes")
	for _, tt := range []struct{ name, authorization, request string }{
		{"an upload of another", olga, "GET " + upload},
		{"to ask about an upload of another", olga, "HEAD " + upload},
		{"to go on with an upload of another", olga, "PATCH " + upload + " bytes"},
		{"to cancel an upload of another", olga, "DELETE " + upload},
		{"to load an upload of another", olga, "POST /api/v1/archives/load?namespace=public&upload=" + strings.TrimPrefix(upload, "/api/v1/uploads/")},
		{"a token of another", olga, "DELETE /api/v1/user/tokens/" + token},
		{"a rule of another namespace", olga, "DELETE /api/v1/namespaces/secret/immutable-rules/" + rule},
		{"a robot of another namespace", olga, "DELETE /api/v1/namespaces/public/robots/puller"},
		{"a robot's login in another namespace", olga, "DELETE /api/v1/namespaces/public/robots/secret+puller"},
		{"a robot's new secret in another namespace", olga, `PATCH /api/v1/namespaces/public/robots/secret+puller {"rotate":true}`},
		{"a session of another", olga, "GET " + session},
		{"to write to a session of another", olga, "PATCH " + session + " {config}"},
		{"to finish a session of another", olga, "PUT " + session + "&digest={digest} {config}"},
		{"to cancel a session of another", olga, "DELETE " + session},
		{"his session in another repository", will, "GET " + strings.Replace(session, "/secret/", "/public/", 1)},
		{"to write to his session in another repository", will, "PATCH " + strings.Replace(session, "/secret/", "/public/", 1) + " {config}"},
		{"a robot as a user", basicAuth("admin", password), "DELETE /api/v1/users/secret+puller"},
		{"a robot as a member", olga, "DELETE /api/v1/namespaces/secret/members/secret+puller"},
	} {
		f := append(strings.SplitN(tt.request, " ", 3), "")
		rec := w.send(f[0], w.fill.Replace(f[1]), tt.authorization, w.fill.Replace(f[2]))
		if s := rec.Code; s != http.StatusNotFound && (s != http.StatusBadRequest || !strings.Contains(f[1], "/uploads/")) {
			t.Errorf("%s: %s = %d %s, want 404", tt.name, tt.request, s, rec.Body)
		}
	}
	w.as(will, "PUT "+session+"&digest={digest} {config}") // unharmed
	w.as(basicAuth("admin", password), "GET "+upload)
	w.as(will, "DELETE "+upload)
}

// idOfLast is a field of what was made last.
func (w *matrixWorld) idOfLast(field string) string {
	w.t.Helper()
	_, rest, ok := strings.Cut(w.made["secret"], `"`+field+`":`)
	id, _, _ := strings.Cut(rest, ",")
	if !ok || id == "" {
		w.t.Fatalf("no %s in %s", field, w.made["secret"])
	}
	return id
}

// TestAMountNeedsPullOnItsSource mounts what only the hidden namespace has.
func TestAMountNeedsPullOnItsSource(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	w.populate()
	w.admin("POST /v2/secret/app/blobs/uploads/?digest={gonedigest} {gone}")
	for _, p := range w.principals {
		rank := map[bool]int{true: http.StatusCreated, false: http.StatusAccepted}
		if p.name == "admin" || p.dead() || p.name == "stranger" || p.public == "-" || p.public == "reader" || p.name == "read-only" {
			continue // cannot tell, or may not push
		}
		for _, kind := range []string{"basic", "get", "post", "refresh"} {
			authorization := w.authorization(p, kind, "repository:public/copy:pull,push repository:secret/app:pull repository:absent/app:pull")
			for from, want := range map[string]int{
				"&from=secret/app": rank[p.in("secret") != ""], "": rank[p.in("secret") != ""], "&from=absent/app": http.StatusAccepted,
			} {
				rec := w.send(http.MethodPost, w.fill.Replace("/v2/public/copy/blobs/uploads/?mount={gonedigest}"+from), authorization, "")
				if rec.Code != want {
					t.Errorf("mount%s as %s by %s = %d %s, want %d", from, p.name, kind, rec.Code, rec.Body, want)
				}
				if rec.Code == http.StatusCreated {
					w.admin("DELETE /v2/public/copy/blobs/{gonedigest}")
				} else {
					w.send(http.MethodDelete, rec.Header().Get("Location"), authorization, "")
				}
			}
		}
	}
}
