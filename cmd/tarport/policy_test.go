package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// policyTest is a server of which the test is the administrator.
type policyTest struct {
	*testing.T
	*process
}

func newPolicyTest(t *testing.T) *policyTest {
	t.Helper()
	return &policyTest{t, start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)}
}

// call sends a request, and fails the test where the status is another.
func (p *policyTest) call(want int, method, path, body string) string {
	p.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	a := p.do(p.T, method, path, r)
	if a.status != want {
		p.Fatalf("%s %s: %d, want %d\n%s", method, path, a.status, want, a.body)
	}
	return a.body
}

func (p *policyTest) blob(want int, repository string, content []byte) (text string) {
	p.Helper()
	a := p.do(p.T, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+digest.FromBytes(content).String(), bytes.NewReader(content))
	if a.status != want {
		p.Fatalf("push of %d bytes: %d, want %d\n%s", len(content), a.status, want, a.body)
	}
	return a.body
}

func (p *policyTest) manifest(want int, repository, tag string, config []byte) (text string) {
	p.Helper()
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
		digest.FromBytes(config), len(config))
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPut, "http://"+p.addr+"/v2/"+repository+"/manifests/"+tag, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	req.SetBasicAuth("admin", password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		p.Fatalf("push of %s:%s: %s (%v), want %d\n%s", repository, tag, resp.Status, err, want, b)
	}
	return string(b)
}

// chunked sends a body whose length is not told, to a new session.
func (p *policyTest) chunked(repository string, body io.Reader) answer {
	p.Helper()
	a := p.do(p.T, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", nil)
	if a.status != http.StatusAccepted {
		p.Fatalf("POST of an upload: %d", a.status)
	}
	return p.do(p.T, http.MethodPatch, a.header.Get("Location"), struct{ io.Reader }{body})
}

func TestAQuotaHoldsForPushesLoadsAndImports(t *testing.T) {
	t.Parallel()
	p := newPolicyTest(t)
	p.call(http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"name":"team","quota_bytes":4194304}`)
	p.blob(http.StatusCreated, "team/app", make([]byte, 3<<20))
	text := p.blob(http.StatusForbidden, "team/app", bytes.Repeat([]byte("x"), 2<<20))
	if !strings.Contains(text, "DENIED") || !strings.Contains(text, "it uses 3.0 MiB of 4.0 MiB, and this needs 2.0 MiB more") {
		t.Errorf("a blob over the quota: %s", text)
	}
	if a := p.chunked("team/app", bytes.NewReader(bytes.Repeat([]byte("y"), 2<<20))); a.status != http.StatusForbidden || !strings.Contains(a.body, "the namespace team is full") {
		t.Errorf("a chunk over the quota: %d %s", a.status, a.body)
	}
	archive := dockerArchive(t, 3<<20)
	text = p.call(http.StatusForbidden, http.MethodPut, "/api/v1/archives/load?namespace=team", archive)
	if !strings.Contains(text, "the namespace team is full") {
		t.Errorf("a load over the quota: %s", text)
	}
	text = p.call(http.StatusForbidden, http.MethodPut, "/api/v1/archives/import?repo=team/fs", tarOf(t, "usr/blob", []byte(archive)))
	if !strings.Contains(text, "the namespace team is full") {
		t.Errorf("an import over the quota: %s", text)
	}
	p.call(http.StatusCreated, http.MethodPut, "/api/v1/archives/load?namespace=roomy", archive)
	p.call(http.StatusOK, http.MethodPatch, "/api/v1/namespaces/team", `{"quota_bytes":-1}`)
	p.blob(http.StatusCreated, "team/app", bytes.Repeat([]byte("x"), 2<<20))
	p.call(http.StatusOK, http.MethodPatch, "/api/v1/namespaces/team", `{"quota_bytes":1}`)
	p.blob(http.StatusCreated, "team/other", bytes.Repeat([]byte("x"), 2<<20)) // costs nothing
	text = p.call(http.StatusForbidden, http.MethodPut, "/api/v1/archives/import?repo=team/fs", "no tar, and not looked at")
	if !strings.Contains(text, "the namespace team is full") {
		t.Errorf("an import into a full namespace: %s", text)
	}
	p.call(http.StatusAccepted, http.MethodDelete, "/v2/team/app/blobs/"+digest.FromBytes(make([]byte, 3<<20)).String(), "")
	if got := p.call(http.StatusOK, http.MethodGet, "/api/v1/namespaces/team", ""); !strings.Contains(got, `"used_bytes":2097152,"reserved_bytes":0`) {
		t.Errorf("usage: %s, want 2 MiB and nothing reserved", got)
	}
	p.recount()
}

// dockerArchive is what docker save writes of an image with one layer of so many
// bytes that nothing compresses.
func dockerArchive(tb testing.TB, size int) string {
	tb.Helper()
	return archiveNamed(tb, "app:1", size)
}

func archiveNamed(tb testing.TB, name string, size int) string {
	tb.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	layer := tarOf(tb, "file", content)
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromString(layer))
	return tarOf(tb, "layer.tar", []byte(layer), "config.json", []byte(config),
		"manifest.json", fmt.Appendf(nil, `[{"Config":"config.json","RepoTags":[%q],"Layers":["layer.tar"]}]`, name))
}

// tarOf is a tar of names and contents in turn.
func tarOf(tb testing.TB, files ...any) string {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		content := files[i+1].([]byte)
		err := w.WriteHeader(&tar.Header{Name: files[i].(string), Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// recount runs the command.
func (p *policyTest) recount() {
	p.Helper()
	var out, words bytes.Buffer
	a := &app{out: &out, err: &words, environ: []string{"TARPORT_PASSWORD=" + password}}
	if code := run(p.Context(), a, []string{"quota", "recount", "--registry", "http://" + p.addr, "--format", "json"}); code != exitOK {
		p.Fatalf("quota recount: exit code %d: %s", code, words.String())
	}
	var answer recountAnswer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || !answer.Equal || len(answer.Items) == 0 {
		p.Errorf("quota recount = %s (%v), want equal", out.String(), err)
	}
	out.Reset()
	if code := run(p.Context(), a, []string{"quota", "recount", "--registry", "http://" + p.addr}); code != exitOK || !strings.Contains(out.String(), "team") {
		p.Errorf("quota recount: exit code %d, table\n%s", code, out.String())
	}
	a.environ = nil
	if code := run(p.Context(), a, []string{"quota", "recount", "--registry", "http://" + p.addr}); code != exitFailure {
		p.Errorf("quota recount without a password: exit code %d, want %d", code, exitFailure)
	}
	for _, bad := range []string{"--registry=ftp://nowhere", "--format=xml"} {
		if code := run(p.Context(), a, []string{"quota", "recount", bad}); code != exitUsage {
			p.Errorf("quota recount %s: exit code %d, want %d", bad, code, exitUsage)
		}
	}
}

func TestImmutableRulesOverTheAPI(t *testing.T) {
	t.Parallel()
	p := newPolicyTest(t)
	one, two := []byte(`{"one":1}`), []byte(`{"two":2}`)
	p.blob(http.StatusCreated, "team/app", one)
	p.blob(http.StatusCreated, "team/app", two)
	p.manifest(http.StatusCreated, "team/app", "v1", one)
	const rules = "/api/v1/namespaces/team/immutable-rules"
	made := p.call(http.StatusCreated, http.MethodPost, rules, `{"tag":"v*","except_tag":"*-rc"}`)
	var rule struct {
		ID        int64
		CreatedBy string `json:"created_by"`
	}
	if err := json.Unmarshal([]byte(made), &rule); err != nil || rule.ID == 0 || rule.CreatedBy != "admin" {
		t.Fatalf("the rule = %s (%v)", made, err)
	}
	if text := p.manifest(http.StatusForbidden, "team/app", "v1", two); !strings.Contains(text, "the tag v1 of team/app is immutable") {
		t.Errorf("the refusal: %s", text)
	}
	p.manifest(http.StatusCreated, "team/app", "v1", one)
	p.manifest(http.StatusCreated, "team/app", "v1-rc", one)
	p.manifest(http.StatusCreated, "team/app", "v1-rc", two)
	p.call(http.StatusForbidden, http.MethodDelete, "/v2/team/app/manifests/v1", "")
	p.call(http.StatusForbidden, http.MethodDelete, "/api/v1/repositories/team/app", "")
	p.call(http.StatusBadRequest, http.MethodPost, rules, `{"syntax":"re2","tag":"("}`)
	p.call(http.StatusBadRequest, http.MethodPost, rules, `{"id":7}`)
	second := p.call(http.StatusCreated, http.MethodPost, rules, `{"syntax":"re2","repository":"app|web"}`)
	if list := p.call(http.StatusOK, http.MethodGet, rules+"?n=1", ""); !strings.Contains(list, `"tag":"v*"`) || strings.Contains(list, "app|web") {
		t.Errorf("the first page: %s", list)
	}
	if list := p.call(http.StatusOK, http.MethodGet, fmt.Sprintf("%s?last=%d", rules, rule.ID), ""); !strings.Contains(second, strings.TrimSuffix(strings.TrimPrefix(list, `{"items":[`), "]}\n")) {
		t.Errorf("the second page: %s, want %s", list, second)
	}
	p.call(http.StatusCreated, http.MethodPost, "/api/v1/namespaces", `{"name":"other"}`)
	p.call(http.StatusNotFound, http.MethodDelete, fmt.Sprintf("/api/v1/namespaces/other/immutable-rules/%d", rule.ID), "")
	p.call(http.StatusNotFound, http.MethodDelete, rules+"/x", "")
	p.call(http.StatusNoContent, http.MethodDelete, fmt.Sprintf("%s/%d", rules, rule.ID), "")
}

func TestTheAuditTellsWhoDidWhatFromWhere(t *testing.T) {
	t.Parallel()
	p := newPolicyTest(t)
	config := []byte(`{}`)
	p.blob(http.StatusCreated, "team/app", config)
	p.manifest(http.StatusCreated, "team/app", "v1", config)
	p.call(http.StatusCreated, http.MethodPost, "/v2/team/web/blobs/uploads/?from=team/app&mount="+digest.FromBytes(config).String(), "")
	p.call(http.StatusAccepted, http.MethodDelete, "/v2/team/app/manifests/v1", "")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+"/api/v1/user", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", "wrong")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("a wrong password: %s", resp.Status)
	}
	events := func(path string) (actions []string, text string) {
		text = p.call(http.StatusOK, http.MethodGet, path, "")
		var page struct {
			Items []struct {
				Action, Actor, Address, Target string
				RequestID                      string `json:"request_id"`
			}
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, e := range page.Items {
			actions = append(actions, e.Action)
			if e.Address != "127.0.0.1" || len(e.RequestID) != 26 || e.Actor != "admin" && e.Action != "login.fail" {
				t.Errorf("an event without its origin: %+v", e)
			}
		}
		return actions, text
	}
	all, _ := events("/api/v1/events?since=2020-01-01T00:00:00Z&actor=admin")
	team, text := events("/api/v1/namespaces/team/events")
	for _, want := range []string{"tag.delete", "blob.mount", "manifest.push"} {
		if !slices.Contains(team, want) || !slices.Contains(all, want) {
			t.Errorf("%s is missing in %v or %v", want, team, all)
		}
	}
	if failed, _ := events("/api/v1/events?action=login.fail"); len(failed) != 1 {
		t.Errorf("failed logins = %v, want one", failed)
	}
	if strings.Contains(text, "login.fail") {
		t.Errorf("the namespace's events have a login: %s", text)
	}
	if page, text := events("/api/v1/namespaces/team/events?n=1"); len(page) != 1 || page[0] != "tag.delete" {
		t.Errorf("the first page: %s", text)
	}
	if none, _ := events("/api/v1/events?until=2020-01-01T00:00:00Z"); len(none) != 0 {
		t.Errorf("events from before all: %v", none)
	}
	for _, bad := range []string{"since=yesterday", "n=0", "last=x", "n=1001"} {
		p.call(http.StatusBadRequest, http.MethodGet, "/api/v1/events?"+bad, "")
	}
}
