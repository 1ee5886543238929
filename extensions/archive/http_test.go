package archive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
)

// serve is the API over a registry, with the middleware of the server.
func serve(tb testing.TB, s *Service) string {
	tb.Helper()
	r := mux.NewRouter()
	NewHandler(s).Routes(r.PathPrefix("/api/v1").Subrouter())
	h := httpapi.Middleware(httpapi.Options{Log: slog.New(slog.DiscardHandler)})(r)
	srv := httptest.NewServer(h)
	tb.Cleanup(srv.Close)
	return srv.URL + "/api/v1/archives/load"
}

// call sends a request and returns status and body.
func call(tb testing.TB, method, target string, body io.Reader, header ...string) (int, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, target, body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatalf("read the answer: %v, after %q", err, b)
	}
	return resp.StatusCode, string(b)
}

func TestHTTPLoad(t *testing.T) {
	t.Parallel()
	layer := layerOf("x")
	body := docker("a/b:1", layer).pack()
	for _, method := range []string{http.MethodPut, http.MethodPost} {
		reg := newRegistry(t)
		status, answer := call(t, method, serve(t, reg.Service)+"?namespace=team", bytes.NewReader(body))
		var got map[string]any
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusCreated {
			t.Fatalf("%s = %d %s", method, status, answer)
		}
		m, err := reg.store.Manifest(t.Context(), "team/a/b", tagRef("1"))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := parseDocument(m.Payload, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		size := float64(doc.layers[0].Size)
		want := map[string]any{
			"images": []any{map[string]any{
				"name": "team/a/b:1", "digest": m.Digest.String(), "image_id": sum(configOf("amd64", layer)).String(),
				"media_type": m.MediaType, "platform": "linux/amd64", "size": size, "warnings": []any{},
				"layers": []any{map[string]any{"digest": doc.layers[0].Digest.String(), "diff_id": sum(layer).String(), "size": size, "status": "stored"}},
			}},
			"bytes_read": float64(len(body)), "bytes_stored": size + float64(doc.config.Size),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", method, diff)
		}
	}
}

func TestHTTPImport(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	target := strings.Replace(serve(t, reg.Service), "/load", "/import", 1)
	rootFS := layerOf("x")
	q := url.Values{
		"repo": {"team/app"}, "tag": {"2"}, "message": {"as of today"}, "author": {"A <a@b>"}, "platform": {"linux/aarch64"},
		"compression": {"none"}, "changes": {"CMD run", "ENV A=1\nUSER u"},
	}
	for _, method := range []string{http.MethodPut, http.MethodPost} {
		status, answer := call(t, method, target+"?"+q.Encode(), bytes.NewReader(gz(rootFS)), "Content-Encoding", "gzip")
		var got Result
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusCreated || len(got.Images) != 1 {
			t.Fatalf("%s = %d %s", method, status, answer)
		}
		im := got.Images[0]
		if im.Name != "team/app:2" || im.Platform != "linux/arm64" || im.Layers[0].Digest != sum(rootFS) || im.Layers[0].DiffID != sum(rootFS) || im.Warnings == nil {
			t.Errorf("%s = %s", method, answer)
		}
		config := string(reg.config(t, "team/app", im))
		for _, want := range []string{`"config":{"User":"u","Env":["A=1"],"Cmd":["/bin/sh","-c","run"]}`, `"comment":"as of today"`, `"author":"A \u003ca@b\u003e"`} {
			if !strings.Contains(config, want) {
				t.Errorf("config = %s, want %s", config, want)
			}
		}
	}
	status, answer := call(t, http.MethodPut, target+"?repo=team/app", bytes.NewReader(rootFS), "Accept", "application/x-ndjson")
	lines := strings.Split(strings.TrimSpace(answer), "\n")
	var last Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || status != http.StatusCreated || len(last.Images) != 1 {
		t.Fatalf("import = %d %s", status, answer)
	}
	if want := `{"status":"` + last.Images[0].ImageID + `"}`; lines[len(lines)-2] != want {
		t.Errorf("line before the last = %s, want %s", lines[len(lines)-2], want)
	}
	status, answer = call(t, http.MethodPut, target+"?repo=team/app", bytes.NewReader(docker("a/b:1", rootFS).pack()))
	if status != http.StatusUnprocessableEntity || !strings.Contains(answer, "use archives/load") {
		t.Errorf("import of an archive = %d %s, want 422", status, answer)
	}
}

func TestHTTPCommit(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	target := strings.Replace(serve(t, reg.Service), "/load", "/commit", 1)
	base := pack(text("a", "1"), text("b", "2"))
	reg.loadBase(t, base)
	q := url.Values{
		"repo": {"team/app"}, "tag": {"2"}, "base": {"team/base:1"}, "comment": {"fix"}, "author": {"A <a@b>"}, "created_by": {"sleep 1"},
		"platform": {"amd64"}, "compression": {"none"}, "changes": {"CMD run", "ENV A=1\nUSER u"},
	}
	export := pack(text("a", "1"), text("b", "3"))
	for _, method := range []string{http.MethodPut, http.MethodPost} {
		status, answer := call(t, method, target+"?"+q.Encode(), bytes.NewReader(gz(export)), "Content-Encoding", "gzip")
		var got Result
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusCreated || len(got.Images) != 1 {
			t.Fatalf("%s = %d %s", method, status, answer)
		}
		im := got.Images[0]
		if im.Name != "team/app:2" || len(im.Layers) != 2 || im.Layers[0].DiffID != sum(base) || im.Layers[1].Digest != im.Layers[1].DiffID || got.BytesStored == 0 || im.Warnings == nil {
			t.Errorf("%s = %s", method, answer)
		}
		config := string(reg.config(t, "team/app", im))
		for _, want := range []string{
			`"config":{"User":"u","Env":["A=1"],"Cmd":["/bin/sh","-c","run"]}`, `"author":"A \u003ca@b\u003e"`, `"created_by":"sleep 1"`, `"comment":"fix"`,
		} {
			if !strings.Contains(config, want) {
				t.Errorf("config = %s, want %s", config, want)
			}
		}
	}
	q.Set("message", "counts more")
	status, answer := call(t, http.MethodPut, target+"?"+q.Encode(), bytes.NewReader(export), "Accept", "application/x-ndjson")
	lines := strings.Split(strings.TrimSpace(answer), "\n")
	var last Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || status != http.StatusCreated || len(last.Images) != 1 {
		t.Fatalf("commit = %d %s", status, answer)
	}
	if want := `{"status":"` + last.Images[0].ImageID + `"}`; lines[len(lines)-2] != want {
		t.Errorf("line before the last = %s, want %s", lines[len(lines)-2], want)
	}
	if config := string(reg.config(t, "team/app", last.Images[0])); !strings.Contains(config, `"comment":"counts more"`) {
		t.Errorf("config = %s, want the message", config)
	}
	other := pack(text("x", "1"), text("y", "2"))
	for more, want := range map[string]int{"": http.StatusConflict, "&force=0": http.StatusConflict, "&force=yes": http.StatusBadRequest, "&force=1": http.StatusCreated} {
		if status, answer := call(t, http.MethodPut, target+"?"+q.Encode()+more, bytes.NewReader(other)); status != want {
			t.Errorf("commit over another base with %q = %d %s, want %d", more, status, answer, want)
		}
	}
}

func TestHTTPParameters(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	target := serve(t, reg.Service)
	two := docker("a/b:1", layerOf("x")).add("a/c:1", layerOf("y")).pack()
	q := url.Values{"namespace": {"team"}, "rename": {"a/b:1=n/b:2", "a/c=n/c"}, "compression": {"zstd"}}
	status, answer := call(t, http.MethodPut, target+"?"+q.Encode(), bytes.NewReader(gz(two)), "Content-Encoding", "gzip")
	if status != http.StatusCreated || !strings.Contains(answer, `"team/n/b:2"`) || !strings.Contains(answer, `"team/n/c:1"`) || !strings.Contains(answer, "oci.image.manifest") {
		t.Errorf("load with rename and zstd = %d %s", status, answer)
	}
	one := docker("", layerOf("x")).pack()
	status, answer = call(t, http.MethodPut, target+"?namespace=team&repo=app&tag=7", bytes.NewReader(gz(gz(one))), "Content-Encoding", "gzip")
	if status != http.StatusCreated || !strings.Contains(answer, `"team/app:7"`) {
		t.Errorf("load of a gzip with Content-Encoding: gzip = %d %s", status, answer)
	}
}

func TestHTTPErrors(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, small)
	target := serve(t, reg.Service)
	good := docker("a/b:1", layerOf("x")).pack()
	for _, c := range []struct {
		name, query, code string
		body              []byte
		header            []string
		status            int
	}{
		{"no namespace", "", "INVALID", good, nil, 400},
		{"bad name", "?namespace=Team", "NAME_INVALID", good, nil, 400},
		{"bad tag", "?namespace=team&repo=x&tag=-", "TAG_INVALID", good, nil, 400},
		{"nothing", "?namespace=team", "ARCHIVE_INVALID", nil, nil, 422},
		{"text", "?namespace=team", "ARCHIVE_INVALID", []byte(noise(1000)), nil, 422},
		{"too large", "?namespace=team", "TOO_LARGE", make([]byte, 9<<20), nil, 413},
		{"encoding", "?namespace=team", "INVALID", good, []string{"Content-Encoding", "br"}, 400},
		{"encodings", "?namespace=team", "INVALID", good, []string{"Content-Encoding", "gzip, gzip"}, 400},
		{"progress of what cannot begin", "?namespace=team", "ARCHIVE_INVALID", []byte("x"), []string{"Accept", "application/x-ndjson"}, 422},
	} {
		status, answer := call(t, http.MethodPut, target+c.query, bytes.NewReader(c.body), c.header...)
		var got struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || len(got.Errors) != 1 || got.Errors[0].Code != c.code || status != c.status {
			t.Errorf("%s = %d %s, want %d %s", c.name, status, answer, c.status, c.code)
		}
	}
	// The length is not known: the limit is found while reading.
	status, answer := call(t, http.MethodPut, target+"?namespace=team", io.MultiReader(bytes.NewReader(pack(text("a", noise(9<<20))))))
	if status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large without a length = %d %s, want 413", status, answer)
	}
}

func TestHTTPProgress(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	target := serve(t, reg.Service) + "?namespace=team"
	layer := pack(text("a", noise(700<<10)))
	status, answer := call(t, http.MethodPut, target, bytes.NewReader(docker("a/b:1", layer).pack()), "Accept", "application/x-ndjson; q=1, */*")
	if status != http.StatusCreated {
		t.Fatalf("load = %d %s", status, answer)
	}
	lines := strings.Split(strings.TrimSpace(answer), "\n")
	var last Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(last.Images) != 1 || last.Images[0].Name != "team/a/b:1" {
		t.Errorf("last line = %s, want the result", lines[len(lines)-1])
	}
	if want := `{"stream":"Loaded image: team/a/b:1\n"}`; lines[len(lines)-2] != want {
		t.Errorf("line before the last = %s, want %s", lines[len(lines)-2], want)
	}
	whole := fmt.Sprintf(`{"status":"Loading layer","progressDetail":{"current":%d,"total":%d},"id":`, len(layer), len(layer))
	if !strings.Contains(answer, whole) {
		t.Errorf("answer = %s, want a line %s", answer, whole)
	}
	// What breaks later ends the stream with an error.
	d := docker("a/c:1", layer)
	d.setConfig(configOf("amd64", layerOf("another")))
	status, answer = call(t, http.MethodPut, target, bytes.NewReader(d.pack()), "Accept", "application/x-ndjson")
	lines = strings.Split(strings.TrimSpace(answer), "\n")
	var broken Message
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &broken); err != nil || status != http.StatusCreated {
		t.Fatalf("broken load = %d %s", status, answer)
	}
	if broken.ErrorDetail == nil || broken.ErrorDetail.Code != 422 || !strings.Contains(broken.Error, "diffID") || broken.Errors[0].Code != tarport.ArchiveInvalid {
		t.Errorf("last line = %+v, want an error about the diffID", broken)
	}
}

// TestHTTPProgressComesWhileTheBodyIsSent reads the first lines before the
// rest of the body is there.
func TestHTTPProgressComesWhileTheBodyIsSent(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	d := docker("a/b:1", layerOf("first"), layerOf("second"))
	d.order = []string{d.layer(0)}
	body := d.pack()
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, serve(t, reg.Service)+"?namespace=team", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	go func() { _, _ = pw.Write(body[:3072]) }() // ended by the pipe's reader
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := bufio.NewReader(resp.Body)
	if line, err := answer.ReadString('\n'); err != nil || !strings.Contains(line, "Loading layer") {
		t.Fatalf("first line = %q, %v", line, err)
	}
	if _, err := pw.Write(body[3072:]); err != nil {
		t.Fatal(err)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(answer)
	if err != nil || !strings.Contains(string(rest), `"team/a/b:1"`) {
		t.Errorf("rest = %q, %v", rest, err)
	}
}

// dial opens a connection of which the test controls every byte.
func dial(t *testing.T, target string) (net.Conn, string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, u.Path + "?namespace=team"
}

func TestHTTPExpectContinueIsRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	denied := newRegistry(t, func(o *Options) {
		o.Access = access(func(tarport.Principal, tarport.Action, string) error { return tarport.Errorf(tarport.Denied, "no") })
	})
	tight := newRegistry(t, small)
	for _, c := range []struct {
		s    *Service
		want string
	}{{denied.Service, "403"}, {tight.Service, "413"}} {
		for _, route := range []string{"/load?namespace=team", "/import?repo=team/app", "/commit?repo=team/app&base=team/base:1"} {
			conn, path := dial(t, serve(t, c.s))
			path = strings.Replace(path, "/load?namespace=team", route, 1)
			_, _ = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n", path)
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, c.want) {
				t.Errorf("%s: answer = %q, %v, want %s and no 100", route, line, err, c.want)
			}
		}
	}
}

func TestHTTPClientThatGoesAwayLeavesNothing(t *testing.T) {
	t.Parallel()
	done := make(chan error)
	reg := newRegistry(t)
	before := reg.state(t)
	body := sample(t, blocks)
	r := mux.NewRouter()
	r.HandleFunc("/archives/load", func(w http.ResponseWriter, r *http.Request) {
		done <- NewHandler(reg.Service).load(w, r)
	})
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	for i := range 5 {
		conn, path := dial(t, srv.URL+"/archives/load")
		_, _ = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, len(body))
		_, _ = conn.Write(body[:len(body)*i/5])
		_ = conn.Close()
		if err := <-done; err == nil {
			t.Errorf("load of %d of 5 parts = nil, want an error", i)
		}
	}
	if diff := cmp.Diff(before, reg.state(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}

// TestBodyThatIsTooSlowIsATimeout has the body that the server gives to
// handlers: it ends with an error of its own where nothing comes.
func TestBodyThatIsTooSlowIsATimeout(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	slow := io.MultiReader(bytes.NewReader(docker("a/b:1", layerOf("x")).pack()[:2000]), iotest.ErrReader(tarport.Errorf(tarport.Timeout, "too slow")))
	if _, err := reg.Load(t.Context(), slow, request()); tarport.ErrorCode(err) != tarport.Timeout {
		t.Errorf("Load = %v, want TIMEOUT", err)
	}
}
