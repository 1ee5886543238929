package tags_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// user makes an account.
func (s *site) user(name string) tarport.Principal {
	s.t.Helper()
	u, err := s.db.CreateUser(s.t.Context(), metadata.User{Name: name, PasswordHash: "x"})
	check(s.t, "CreateUser", err)
	return tarport.Principal{UserID: u.ID, Name: name}
}

// ask makes a request as p.
func (s *site) ask(p tarport.Principal, method, path, body string) *httptest.ResponseRecorder {
	s.t.Helper()
	w := httptest.NewRecorder()
	ctx := tarport.WithPrincipal(s.t.Context(), p)
	s.api.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, "/api/v1/"+path, strings.NewReader(body)))
	return w
}

// set sets a tag from something, and returns the tag.
func (s *site) set(p tarport.Principal, repository, tag, from string, status int) tags.Tag {
	s.t.Helper()
	w := s.ask(p, http.MethodPut, "repositories/"+repository+"/-/tags/"+tag, fmt.Sprintf(`{"from":%q}`, from))
	if w.Code != status {
		s.t.Fatalf("PUT %s:%s from %s = %d %s, want %d", repository, tag, from, w.Code, w.Body, status)
	}
	var t tags.Tag
	check(s.t, "decode the tag", json.Unmarshal(w.Body.Bytes(), &t))
	return t
}

func (s *site) history(repository, tag string) []tags.Change {
	s.t.Helper()
	list := []tags.Change{}
	for path := repository + "/-/tags/" + tag + "/history?n=2"; path != ""; {
		var page struct{ Items []tags.Change }
		w := s.get(path, &page)
		list = append(list, page.Items...)
		path = next(w)
	}
	return list
}

func TestATagAloneIsThatOfTheList(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		s.push("team/app", map[string]any{"os": "linux", "architecture": "amd64", "config": map[string]any{"Env": []string{"A=1"}}}, 10, "1.0", "1.0-jdk", "latest")
		var list struct{ Items []tags.Tag }
		s.get("team/app/-/tags", &list)
		for _, want := range list.Items {
			var got tags.Tag
			s.get("team/app/-/tags/"+want.Name, &got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-list +alone):\n%s", want.Name, diff)
			}
		}
		for path, want := range map[string]string{
			"team/app/-/tags/2.0": "404 MANIFEST_UNKNOWN", "team/none/-/tags/1.0": "404 MANIFEST_UNKNOWN",
			"secret/app/-/tags/1.0": "404 NAME_UNKNOWN", "team/app/-/tags/-1": "400 TAG_INVALID", "team/app/-/tags/2.0/history": "404 MANIFEST_UNKNOWN",
			"team/app/-/tags/1.0/history?last=x": "400 PAGINATION_NUMBER_INVALID",
		} {
			if w := s.get(path, nil); !strings.HasPrefix(want, fmt.Sprint(w.Code)) || !strings.Contains(w.Body.String(), `"`+want[4:]+`"`) {
				t.Errorf("GET %s = %d %s, want %s", path, w.Code, w.Body, want)
			}
		}
	})
}

func TestATagIsSetDeletedAndRestored(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		ann := s.user("ann")
		check(t, "CreateNamespace", s.db.CreateNamespace(tarport.WithPrincipal(t.Context(), ann), metadata.NewNamespace{Name: "team", Visibility: metadata.Private}))
		one := s.push("team/app", map[string]any{"os": "linux"}, 10, "1").Digest
		two := s.push("team/app", map[string]any{"os": "linux"}, 20, "2").Digest

		if got := s.set(ann, "team/app", "stable", "1", http.StatusCreated); got.Name != "stable" || got.Digest != one || got.PushedBy != "ann" || got.PushedVia != storage.ViaTag {
			t.Errorf("a new tag is %+v", got)
		}
		s.set(ann, "team/app", "stable", "1", http.StatusOK) // is there, and never moved
		if got := s.set(ann, "team/app", "stable", two.String(), http.StatusOK); got.Digest != two {
			t.Errorf("a moved tag points to %s, want %s", got.Digest, two)
		}
		s.set(ann, "team/app", "stable", "team/app:2", http.StatusOK) // is there: no change
		for _, want := range []int{http.StatusNoContent, http.StatusNotFound} {
			if w := s.ask(ann, http.MethodDelete, "repositories/team/app/-/tags/stable", ""); w.Code != want {
				t.Errorf("DELETE = %d %s, want %d", w.Code, w.Body, want)
			}
		}
		gone := s.history("team/app", "stable")
		if len(gone) != 3 || gone[0].Digest != nil || gone[0].Previous == nil || !gone[0].Restorable {
			t.Fatalf("the history of a deleted tag is %+v", gone)
		}
		if got := s.set(ann, "team/app", "stable", gone[0].Previous.String(), http.StatusCreated); got.Digest != two {
			t.Errorf("the restored tag points to %s, want %s", got.Digest, two)
		}
		check(t, "DeleteManifest", s.store.DeleteManifest(t.Context(), "team/app", one, "ann"))

		type change struct {
			Digest, Previous digest.Digest
			By, Via          string
			Restorable       bool
		}
		want := []change{{two, "", "ann", "tag", true}, {"", two, "ann", "delete", true}, {two, one, "ann", "tag", true}, {one, "", "ann", "tag", false}}
		var got []change
		last := int64(1 << 62)
		for _, c := range s.history("team/app", "stable") {
			if c.ID >= last || c.ChangedAt.IsZero() {
				t.Errorf("change %d follows %d, at %s", c.ID, last, c.ChangedAt)
			}
			last = c.ID
			one := change{By: c.ChangedBy, Via: c.ChangedVia, Restorable: c.Restorable}
			if c.Digest != nil {
				one.Digest = *c.Digest
			}
			if c.Previous != nil {
				one.Previous = *c.Previous
			}
			got = append(got, one)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the history (-want +got):\n%s", diff)
		}
		events, err := s.db.Events(t.Context(), metadata.EventQuery{Actor: "ann", Action: "tag"}, 10)
		check(t, "Events", err)
		if len(events) != 4 {
			t.Errorf("%d events of tags, want 4: %+v", len(events), events)
		}
	})
}

func TestAnIndexIsCopiedAcrossNamespaces(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		ann := s.user("ann")
		arm := s.push("team/app", map[string]any{"os": "linux", "architecture": "arm64"}, 100)
		amd := s.push("team/app", map[string]any{"os": "linux", "architecture": "amd64"}, 50, "amd")
		d := s.index("team/app", []ocispec.Descriptor{arm, amd}, []string{"linux/arm64", "linux/amd64"}, "all")

		got := s.set(ann, "other/deep/app", "v1", "team/app:all", http.StatusCreated)
		if got.Digest != d || got.Kind != "index" || got.Size != 150 || len(got.Platforms) != 2 || got.Platforms[0].Missing || got.Platforms[1].Missing {
			t.Errorf("the copy is %+v", got)
		}
		ns, err := s.db.Namespace(t.Context(), metadata.ViewerOf(ann), "other")
		check(t, "Namespace", err)
		if ns.Role != tarport.Owner || ns.Usage.Used < 150 {
			t.Errorf("the namespace that was made is %+v, want ann's, with what the image takes", ns)
		}
		if got := s.set(ann, "other/deep/app", "v1", "team/app@"+amd.Digest.String(), http.StatusOK); got.Digest != amd.Digest {
			t.Errorf("the tag was moved to %s, want %s", got.Digest, amd.Digest)
		}

		full := ns.Usage.Used
		check(t, "UpdateNamespace", s.db.UpdateNamespace(t.Context(), "other", metadata.NamespacePatch{Quota: &full}))
		big := s.push("team/app", map[string]any{"os": "linux"}, 1000, "big")
		_, err = s.db.CreateImmutableRule(t.Context(), "other", metadata.ImmutableRule{Tag: "v*"})
		check(t, "CreateImmutableRule", err)
		for _, c := range []struct{ tag, from, code, names string }{
			{"big", "team/app:big", "DENIED", "quota"},
			{"v1", "team/app:all", "DENIED", "immutable"},
			{"v1", d.String(), "DENIED", "immutable"},
			{"x", big.Digest.String(), "MANIFEST_UNKNOWN", ""},
			{"x", "secret/app:1", "NAME_UNKNOWN", ""},
			{"x", "team/app:none", "MANIFEST_UNKNOWN", ""},
			{"x", "none/app:1", "MANIFEST_UNKNOWN", ""},
		} {
			w := s.ask(ann, http.MethodPut, "repositories/other/deep/app/-/tags/"+c.tag, fmt.Sprintf(`{"from":%q}`, c.from))
			if body := w.Body.String(); !strings.Contains(body, `"`+c.code+`"`) || !strings.Contains(body, c.names) {
				t.Errorf("PUT %s from %s = %d %s, want %s %s", c.tag, c.from, w.Code, body, c.code, c.names)
			}
		}
		if w := s.ask(ann, http.MethodDelete, "repositories/other/deep/app/-/tags/v1", ""); w.Code != http.StatusForbidden {
			t.Errorf("DELETE of an immutable tag = %d %s", w.Code, w.Body)
		}
		var left struct{ Items []tags.Tag }
		if s.get("other/deep/app/-/tags", &left); len(left.Items) != 1 || left.Items[0].Digest != amd.Digest {
			t.Errorf("after what was refused there is %+v", left.Items)
		}
		bob := s.user("bob") // the rights are looked at in the transaction too
		if w := s.ask(bob, http.MethodPut, "repositories/other/app/-/tags/1", `{"from":"team/app:all"}`); w.Code != http.StatusForbidden {
			t.Errorf("a push by who is no member = %d %s", w.Code, w.Body)
		}
	})
}

func TestFromIsReadStrictly(t *testing.T) {
	t.Parallel()
	s := newSite(t, t.TempDir()+"/meta.db")
	ann := s.user("ann")
	for body, want := range map[string]string{
		`{"from":""}`: "INVALID", `{}`: "INVALID", `{"from":"team/app"}`: "INVALID", `{"to":"x"}`: "INVALID", `x`: "INVALID", ``: "INVALID",
		`{"from":"localhost:5000/team/app"}`: "INVALID", `{"from":"localhost:5000/team/app:1"}`: "NAME_INVALID",
		`{"from":"-x"}`: "TAG_INVALID", `{"from":"a b"}`: "TAG_INVALID", `{"from":"team/app:"}`: "TAG_INVALID", `{"from":"sha256:abc"}`: "DIGEST_INVALID",
		`{"from":"team/app@sha256:abc"}`: "DIGEST_INVALID", `{"from":"team/app@1"}`: "DIGEST_INVALID", `{"from":"Team/app:1"}`: "NAME_INVALID", `{"from":"/:1"}`: "NAME_INVALID",
		`{"from":"@sha256:abc"}`: "NAME_INVALID", `{"from":"1"}`: "MANIFEST_UNKNOWN",
	} {
		w := s.ask(ann, http.MethodPut, "repositories/team/app/-/tags/1", body)
		if w.Code/100 != 4 || !strings.Contains(w.Body.String(), `"`+want+`"`) {
			t.Errorf("PUT %s = %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
	if w := s.ask(tarport.Principal{}, http.MethodPut, "repositories/team/app/-/tags/1", `{"from":"1"}`); w.Code != http.StatusForbidden {
		t.Errorf("PUT by a reader = %d %s", w.Code, w.Body)
	}
	if w := s.ask(tarport.Principal{}, http.MethodDelete, "repositories/team/app/-/tags/1", ""); w.Code != http.StatusForbidden {
		t.Errorf("DELETE by a reader = %d %s", w.Code, w.Body)
	}
}
