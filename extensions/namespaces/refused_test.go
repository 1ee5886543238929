package namespaces_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage/metadata"
)

// A field that is not of the route, whatever the database has, is refused.
func TestNobodySetsMoreThanTheRouteTakes(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.wantPush(201, ann, "team/app")
		s.want(201, ann, "POST", "/api/v1/namespaces/team/robots", `{"name":"ci","role":"reader"}`)
		routes := []struct{ method, path string }{
			{"POST", "/users"},
			{"PATCH", "/users/bob"},
			{"PUT", "/user/password"},
			{"POST", "/user/tokens"},
			{"POST", "/namespaces"},
			{"PATCH", "/namespaces/team"},
			{"PUT", "/namespaces/team/members/bob"},
			{"POST", "/namespaces/team/robots"},
			{"PATCH", "/namespaces/team/robots/ci"},
			{"PATCH", "/repositories/team/app"},
		}
		for _, field := range []string{"id", "user_id", "hash", "password_hash", "token_epoch", "namespace_id", "created_at", "created_by", "expires_at", "used_bytes", "is_admin"} {
			for _, rt := range routes {
				s.want(400, admin, rt.method, "/api/v1"+rt.path, fmt.Sprintf(`{%q:1}`, field))
			}
		}
		s.want(403, ann, "POST", "/api/v1/namespaces", `{"name":"big","quota_bytes":1}`)
		s.want(403, ann, "PATCH", "/api/v1/namespaces/team", `{"quota_bytes":-1}`)
		if a := s.want(200, admin, "PATCH", "/api/v1/namespaces/team", `{"quota_bytes":1000}`); a.field("quota_bytes") != "1000" {
			t.Errorf("namespace = %s", a.body)
		}
		if a := s.want(201, admin, "POST", "/api/v1/namespaces", `{"name":"big","quota_bytes":5}`); a.field("quota_bytes") != "5" {
			t.Errorf("namespace = %s", a.body)
		}
	})
}

// What is another's and what is not there answer byte for byte the same.
func TestAnothersAndAbsentAreTheSameBytes(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{AdminsOnly: true}, func(t *testing.T, s *site) {
		s.people()
		for _, ns := range []string{"secret", "public"} {
			s.want(201, admin, "POST", "/api/v1/namespaces", `{"name":"`+ns+`"}`)
			s.want(201, admin, "PUT", "/api/v1/namespaces/"+ns+"/members/ann", `{"role":"owner"}`)
			s.wantPush(201, ann, ns+"/app")
		}
		made := s.want(201, ann, "POST", "/api/v1/user/tokens", `{"name":"x","namespace":"public"}`)
		restricted := "ann:" + made.field("secret")
		d := digest.FromString("{}").String()
		for _, c := range []struct{ method, path, body string }{
			{"GET", "/v2/NS/app/manifests/latest", ""},
			{"HEAD", "/v2/NS/app/blobs/" + d, ""},
			{"GET", "/v2/NS/app/tags/list", ""},
			{"GET", "/v2/NS/app/referrers/" + d, ""},
			{"PUT", "/v2/NS/app/manifests/latest", "{}"},
			{"DELETE", "/v2/NS/app/manifests/latest", ""},
			{"DELETE", "/v2/NS/app/blobs/" + d, ""},
			{"POST", "/v2/NS/app/blobs/uploads/", ""},
			{"GET", "/v2/NS/app/blobs/uploads/AAAA", ""},
			{"GET", "/api/v1/namespaces/NS", ""},
			{"PATCH", "/api/v1/namespaces/NS", `{}`},
			{"DELETE", "/api/v1/namespaces/NS", ""},
			{"GET", "/api/v1/namespaces/NS/members", ""},
			{"PUT", "/api/v1/namespaces/NS/members/bob", `{"role":"owner"}`},
			{"DELETE", "/api/v1/namespaces/NS/members/ann", ""},
			{"GET", "/api/v1/namespaces/NS/robots", ""},
			{"POST", "/api/v1/namespaces/NS/robots", `{"name":"x","role":"reader"}`},
			{"PATCH", "/api/v1/namespaces/NS/robots/x", `{}`},
			{"DELETE", "/api/v1/namespaces/NS/robots/x", ""},
			{"GET", "/api/v1/namespaces/NS/repositories", ""},
			{"GET", "/api/v1/repositories/NS/app", ""},
			{"PATCH", "/api/v1/repositories/NS/app", `{}`},
			{"DELETE", "/api/v1/repositories/NS/app", ""},
			{"POST", "/api/v1/namespaces", `{"name":"NS"}`},
		} {
			for _, as := range []string{eve, "", restricted} {
				at := func(ns string) string {
					a := s.do(as, c.method, strings.ReplaceAll(c.path, "NS", ns), strings.ReplaceAll(c.body, "NS", ns))
					return strings.ReplaceAll(fmt.Sprint(a.status, a.header.Get("WWW-Authenticate"), a.body), ns, "NS")
				}
				if got, want := at("secret"), at("nosuch"); got != want || got[0] == '2' {
					t.Errorf("%s %s as %.5s = %s, want as absent: %s", c.method, c.path, as, got, want)
				}
			}
		}
		if a := s.wantPush(403, eve, "new/app"); !strings.Contains(a.body, "ask one of its owners") {
			t.Errorf("the refusal of a push does not say what to do: %s", a.body)
		}
	})
}

func TestMountsNeedPullOnTheSource(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.wantPush(201, ann, "secret/app")
		s.want(201, eve, "POST", "/api/v1/namespaces", `{"name":"hers"}`)
		d := digest.FromString("{}").String()
		for _, from := range []string{"&from=secret/app", "&from=nosuch/app", ""} {
			s.want(202, eve, "POST", "/v2/hers/app/blobs/uploads/?mount="+d+from, "")
		}
		s.want(201, ann, "PUT", "/api/v1/namespaces/secret/members/eve", `{"role":"reader"}`)
		s.want(201, eve, "POST", "/v2/hers/app/blobs/uploads/?mount="+d+"&from=secret/app", "")
	})
}

func TestAnUploadIsFinishedThoughItsTokenIsOver(t *testing.T) {
	t.Parallel()
	eachSite(t, metadata.NamespacePolicy{}, func(t *testing.T, s *site) {
		s.people()
		s.want(201, ann, "POST", "/api/v1/namespaces", `{"name":"team"}`)
		s.want(201, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"writer"}`)
		s.want(201, ann, "PUT", "/api/v1/namespaces/team/members/eve", `{"role":"writer"}`)
		bearer := func(as string) string {
			return "Bearer " + s.want(200, as, "GET", "/auth/token?scope=repository:team/app:pull,push", "").field("token")
		}
		bobs, eves := bearer(bob), bearer(eve)
		begin := func() string {
			t.Helper()
			return s.want(202, bobs, "POST", "/v2/team/app/blobs/uploads/", "").header.Get("Location")
		}
		first, second, third := begin(), begin(), begin()
		s.late.Store(int64(6 * time.Minute))
		s.want(401, bobs, "GET", "/v2/team/app/tags/list", "")
		s.want(401, bobs, "POST", "/v2/team/app/blobs/uploads/", "")
		s.want(401, eves, "PATCH", first, "layer") // of another
		next := s.want(202, bobs, "PATCH", first, "layer").header.Get("Location")
		s.want(201, bobs, "PUT", next+"&digest="+digest.FromString("layer").String(), "")
		s.want(401, bobs, "PUT", next+"&digest="+digest.FromString("layer").String(), "") // it is no session any more
		s.want(401, bobs, "PUT", "/v2/team/app/manifests/latest", "{}")

		s.want(200, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"reader"}`)
		s.want(403, bobs, "PATCH", second, "layer")
		s.want(200, ann, "PUT", "/api/v1/namespaces/team/members/bob", `{"role":"writer"}`)
		s.want(200, admin, "PATCH", "/api/v1/users/bob", `{"disabled":true}`)
		s.want(401, bobs, "PATCH", second, "layer")
		s.late.Store(int64(25 * time.Hour))
		s.want(401, bobs, "PATCH", third, "layer")
	})
}
