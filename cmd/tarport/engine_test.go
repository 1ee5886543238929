package main

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheEngineAnswersAsDockersDaemonDoes asks as docker does, and checks what
// it reads of an answer.
func TestTheEngineAnswersAsDockersDaemonDoes(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	w.admin(`POST /engine/team/images/load {archive}`)
	admin := basicAuth("admin", password)
	for _, c := range []struct {
		request, authorization string
		status                 int
		message                string // "" where there is none
	}{
		{request: "GET /engine/team/_ping", status: 200},
		{request: "HEAD /engine/absent/_ping", status: 200},
		{request: "GET /engine/team/v1.24/_ping", status: 200},
		{request: "GET /engine/Team/_ping", status: 400, message: `"Team" is not a name for a namespace`},
		{request: "GET /engine/team/v1.41/images/json", authorization: admin, status: 200},
		{request: "GET /engine/team/images/json", authorization: admin, status: 200},
		{request: "GET /engine/team/v1.51/images/app:1/json", authorization: admin, status: 200},
		{request: "GET /engine/team/v1.23/images/json", authorization: admin, status: 400, message: "client version 1.23 is too old. Minimum"},
		{request: "GET /engine/team/v1.52/images/json", authorization: admin, status: 400, message: "client version 1.52 is too new. Maximum"},
		{request: "GET /engine/team/v1.41/images/json", status: 401, message: `authentication required`},
		{request: "GET /engine/team/v1.41/images/json", authorization: basicAuth("admin", "x"), status: 401, message: `{"HttpHeaders":{"Authorization":"Basic `},
		{request: "GET /engine/absent/v1.41/images/json", authorization: admin, status: 404, message: "there is no namespace absent"},
		{request: "GET /engine/team/v1.41/images/app/json", authorization: admin, status: 404, message: "No such image: app:latest"},
		{request: "GET /engine/team/v1.41/images/APP/json", authorization: admin, status: 400, message: "invalid reference format"},
		{request: "GET /engine/team/v1.41/containers/app/json", authorization: admin, status: 501, message: "containers are not supported"},
		{request: "POST /engine/team/v1.41/images/json", authorization: admin, status: 501, message: "not supported"},
		{request: "GET /engine/team/v1.41/nonsense", authorization: admin, status: 404, message: "page not found"},
		{request: "POST /engine/team/v1.48/images/load?platform=x", authorization: admin, status: 400, message: "leave --platform out"},
		{request: "POST /engine/team/v1.41/images/load", authorization: admin, status: 422, message: "there is nothing in the archive"},
		{request: "POST /engine/team/v1.41/images/create?fromSrc=-", authorization: admin, status: 400, message: "an image needs a name here"},
		{request: "POST /engine/team/v1.41/images/create?fromSrc=-&repo=a@sha256:" + strings.Repeat("0", 64), authorization: admin, status: 400, message: "invalid reference format"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		rec := w.send(method, target, c.authorization, "")
		checkEngineAnswer(t, c.request, rec, c.status, c.message)
	}
}

func checkEngineAnswer(t *testing.T, request string, rec *httptest.ResponseRecorder, status int, message string) {
	t.Helper()
	h, body := rec.Header(), rec.Body.String()
	var e struct{ Message string }
	if message != "" {
		if err := json.Unmarshal([]byte(body), &e); err != nil || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s answers %s %q, want JSON", request, h.Get("Content-Type"), body)
		}
	}
	if rec.Code != status || !strings.Contains(e.Message, message) {
		t.Errorf("%s = %d %s, want %d %q", request, rec.Code, body, status, message)
	}
	for name, want := range map[string]string{"Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux", "Www-Authenticate": ""} {
		if got := h.Get(name); got != want {
			t.Errorf("%s has %s: %q, want %q", request, name, got, want)
		}
	}
}

// TestTheEngineTellsProgressWhileTheBodyComes sends the end of an archive after
// a line about its beginning was read.
func TestTheEngineTellsProgressWhileTheBodyComes(t *testing.T) {
	t.Parallel()
	whole := dockerArchive(t, 8<<20)
	for _, c := range []struct{ name, archive, want string }{
		{name: "good", archive: whole, want: `{"stream":"Loaded image: app:1\n"}`},
		{name: "cut", archive: whole[:len(whole)/4*3], want: `"errorDetail":{"message":"the archive ends`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
			body, send := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/engine/team/v1.41/images/load", body)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("admin", password)
			half := len(whole) / 2
			go func() { _, _ = io.WriteString(send, c.archive[:half]) }()
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			if !lines.Scan() || !strings.Contains(lines.Text(), `"status":"Loading layer","progressDetail":{"current":`) {
				t.Fatalf("the first line is %q (%v)", lines.Text(), lines.Err())
			}
			go func() {
				_, _ = io.WriteString(send, c.archive[half:])
				_ = send.Close()
			}()
			last := ""
			for lines.Scan() {
				last = lines.Text()
			}
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || !strings.Contains(last, c.want) {
				t.Errorf("answered %d %s, last %q, want %q", resp.StatusCode, resp.Header.Get("Content-Type"), last, c.want)
			}
		})
	}
}

// TestTheEngineStaysInItsNamespace whatever that is called.
func TestTheEngineStaysInItsNamespace(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	admin := basicAuth("admin", password)
	for _, ns := range []string{"team", "my.team", "library", "localhost", "engine", "v1.41"} {
		w.admin("POST /engine/" + ns + "/v1.41/images/load {archive}")
		w.admin("POST /engine/" + ns + "/v1.41/images/create?fromSrc=-&repo=flat {rootfs}")
		w.admin("POST /engine/" + ns + "/v1.41/images/app:1/tag?repo=a/b&tag=2")
		var names []string
		var list []engineImage
		rec := w.send(http.MethodGet, "/engine/"+ns+"/v1.41/images/json", admin, "")
		if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
			t.Fatalf("%s: %v\n%s", ns, err, rec.Body)
		}
		for _, im := range list {
			names = append(names, im.RepoTags...)
		}
		slices.Sort(names)
		if diff := cmp.Diff([]string{"a/b:2", "app:1", "flat:latest"}, names); diff != "" {
			t.Errorf("images of the namespace %s (-want +got):\n%s", ns, diff)
		}
		for _, name := range names {
			saved := w.send(http.MethodGet, "/engine/"+ns+"/v1.41/images/get?names="+name, admin, "").Body.String()
			full := "docker.io/" + name // Docker's normal form
			if !strings.Contains(name, "/") {
				full = "docker.io/library/" + name
			}
			if diff := cmp.Diff([]string{name, full}, namesInArchive(t, saved)); diff != "" {
				t.Errorf("names in a save of %s in %s (-want +got):\n%s", name, ns, diff)
			}
			w.admin("DELETE /engine/" + ns + "/v1.41/images/" + name)
		}
	}
	rec := w.send(http.MethodGet, "/api/v1/namespaces", admin, "")
	if n := strings.Count(rec.Body.String(), `"name":`); n != 6 {
		t.Errorf("there are %d namespaces, want 6: %s", n, rec.Body)
	}
}

// namesInArchive are those that a daemon finds: the one in manifest.json, and
// the one in index.json, which is for containerd.
func namesInArchive(t *testing.T, archive string) (names []string) {
	t.Helper()
	r := tar.NewReader(strings.NewReader(archive))
	files := map[string][]byte{}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var items []struct{ RepoTags []string }
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := errors.Join(json.Unmarshal(files["manifest.json"], &items), json.Unmarshal(files["index.json"], &index)); err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		names = append(names, it.RepoTags...)
	}
	for _, m := range index.Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"])
	}
	return names
}

// engineImage is what is read of inspect, and of a list.
type engineImage struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Architecture string
	Manifests    []struct {
		ID        string
		ImageData struct{ Platform struct{ Architecture string } }
	}
}

// TestTheEngineShowsOnePlatformOfAnIndex on what buildx wrote for two.
func TestTheEngineShowsOnePlatformOfAnIndex(t *testing.T) {
	t.Parallel()
	w := newMatrixWorld(t, "")
	admin := basicAuth("admin", password)
	archive, err := os.ReadFile("../../extensions/archive/testdata/buildx/oci-multiarch-attested.tar")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(status int, request string, into any) {
		t.Helper()
		method, target, _ := strings.Cut(request, " ")
		rec := w.send(method, "/engine/team/v1.48"+target, admin, "")
		if rec.Code != status {
			t.Fatalf("%s = %d %s, want %d", request, rec.Code, rec.Body, status)
		}
		if into != nil {
			if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
				t.Fatalf("%s: %v\n%s", request, err, rec.Body)
			}
		}
	}
	if rec := w.send(http.MethodPost, "/engine/team/images/load", admin, string(archive)); rec.Code != http.StatusOK {
		t.Fatalf("load = %d %s", rec.Code, rec.Body)
	}
	var list []engineImage
	ask(200, "GET /images/json?manifests=1", &list)
	if len(list) != 1 || len(list[0].RepoTags) != 1 || len(list[0].Manifests) != 2 {
		t.Fatalf("the list is %+v, want one image of two platforms", list)
	}
	name := list[0].RepoTags[0]
	platform := func(arch string) string {
		return "?platform=" + url.QueryEscape(fmt.Sprintf(`{"os":"linux","architecture":%q}`, arch))
	}
	var amd, arm, byID engineImage
	ask(200, "GET /images/"+name+"/json", &amd)
	ask(200, "GET /images/"+name+"/json"+platform("arm64"), &arm)
	if amd.Architecture != "amd64" || arm.Architecture != "arm64" || amd.ID == arm.ID || amd.ID != list[0].ID {
		t.Errorf("the platforms are %+v and %+v, the list has %s", amd, arm, list[0].ID)
	}
	if diff := cmp.Diff(amd.RepoDigests, arm.RepoDigests); diff != "" || len(amd.RepoDigests) != 1 {
		t.Errorf("digests of the two (-amd64 +arm64):\n%s", diff)
	}
	var ids []string
	for _, m := range list[0].Manifests {
		ids = append(ids, m.ID)
	}
	if !slices.Contains(ids, arm.ID) || !slices.Contains(ids, amd.ID) {
		t.Errorf("the list has the platforms %v, want %s and %s", ids, amd.ID, arm.ID)
	}
	ask(200, "GET /images/"+arm.ID+"/json", &byID)
	if byID.Architecture != "arm64" || !slices.Equal(byID.RepoTags, []string{name}) {
		t.Errorf("by the ID of arm64: %+v", byID)
	}
	ask(200, "GET /images/"+amd.RepoDigests[0]+"/json", &byID)
	ask(404, "GET /images/"+name+"/json"+platform("s390x"), nil)
	ask(400, "GET /images/"+name+"/json?platform=linux/arm64", nil)
	ask(200, "GET /images/"+name+"/history"+platform("arm64"), nil)
	ask(200, "GET /images/get?names="+name+"&"+platform("arm64")[1:], nil)
	ask(400, "GET /images/get?names="+name+"&"+platform("arm64")[1:]+"&"+platform("amd64")[1:], nil)

	// A tag of one platform's ID is of that platform; the index is not removed by it.
	ask(201, "POST /images/"+arm.ID+"/tag?repo=arm&tag=1", nil)
	ask(200, "GET /images/arm:1/json", &byID)
	if byID.ID != arm.ID || len(byID.RepoTags) != 2 {
		t.Errorf("the tag of arm64 is %+v", byID)
	}
	ask(200, "DELETE /images/"+arm.ID, nil)
	ask(404, "GET /images/arm:1/json", nil)
	ask(409, "DELETE /images/"+arm.ID, nil)
	ask(501, "DELETE /images/"+name+"?platforms=x", nil)
	ask(200, "GET /images/"+name+"/json", nil)
	ask(201, "POST /images/"+name+"/tag?repo=copy&tag=1", nil)
	ask(409, "DELETE /images/"+amd.ID, nil)
	ask(200, "DELETE /images/"+amd.ID+"?force=1", nil)
	ask(200, "GET /images/json", &list)
	if len(list) != 0 {
		t.Errorf("left is %+v", list)
	}
}
