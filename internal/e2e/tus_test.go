package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// tus makes a request of the protocol; 0 where there was no answer.
func (s *server) tus(ctx context.Context, method, path string, body io.Reader, headers ...string) (int, http.Header) {
	req, err := http.NewRequestWithContext(ctx, method, s.url("/api/v1/uploads"+path), body)
	if err != nil {
		return 0, nil
	}
	req.SetBasicAuth("admin", adminPassword)
	req.Header.Set("Tus-Resumable", "1.0.0")
	req.Header.Set("Content-Type", "application/offset+octet-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, resp.Header
}

// TestAnUploadInPartsGoesOnAfterKills ends the server in the middle of parts:
// what was acknowledged is there, and what comes of it is the image.
func TestAnUploadInPartsGoesOnAfterKills(t *testing.T) {
	t.Parallel()
	s := serve(t)
	archive, _ := manyArchives(t, "base")
	status, h := s.tus(t.Context(), http.MethodPost, "", nil, "Upload-Length", strconv.Itoa(len(archive)))
	if status != http.StatusCreated {
		t.Fatalf("begin an upload = %d", status)
	}
	at, acknowledged, kills := "/"+filepath.Base(h.Get("Location")), 0, 0
	const part = 100_000
	for acknowledged < len(archive) {
		kill := mathrand.IntN(3) == 0 && kills < 12
		end := min(acknowledged+part, len(archive))
		var body io.Reader = bytes.NewReader(archive[acknowledged:end])
		if kill {
			kills++
			body = &hooked{r: body, left: mathrand.IntN(end - acknowledged), hook: func() { _ = s.cmd.Process.Kill() }}
		}
		status, h := s.tus(context.WithoutCancel(t.Context()), http.MethodPatch, at, body, "Upload-Offset", strconv.Itoa(acknowledged))
		if kill {
			_ = s.reap()
			s.start(t)
		} else if status != http.StatusNoContent || h.Get("Upload-Offset") != strconv.Itoa(end) {
			t.Fatalf("PATCH at %d = %d %v", acknowledged, status, h)
		}
		status, h = s.tus(t.Context(), http.MethodHead, at, nil)
		offset, err := strconv.Atoi(h.Get("Upload-Offset"))
		if err != nil || status != http.StatusOK || offset < acknowledged || !kill && offset != end {
			t.Fatalf("after byte %d was acknowledged, HEAD = %d at byte %d (%v)", acknowledged, status, offset, err)
		}
		acknowledged = offset
	}
	t.Logf("ended %d times", kills)
	s.loadedOnce(t, "archives/load?namespace=team&upload="+at[1:])
	for _, name := range []string{"team/one", "team/two"} {
		if !s.tagged(t, name, "new") {
			t.Errorf("%s:new is not there", name)
		}
	}
	for file := range s.dataFiles(t) {
		if strings.HasPrefix(file, "tarport/uploads/") {
			t.Errorf("%s is left", file)
		}
	}
}

// loadedOnce loads an upload in several requests at once: one gets it.
func (s *server) loadedOnce(t *testing.T, path string) {
	t.Helper()
	var wg sync.WaitGroup
	answers := make([]string, 4)
	for i := range answers {
		wg.Go(func() {
			status, body := s.stream(t.Context(), path, http.NoBody)
			answers[i] = fmt.Sprint(status, " ", string(body))
		})
	}
	wg.Wait()
	loaded := 0
	for _, a := range answers {
		switch a[:3] {
		case "201":
			loaded++
		case "409", "404": // while it is loaded, and afterwards
		default:
			t.Errorf("load of an upload = %s", a)
		}
	}
	if loaded != 1 {
		t.Errorf("%d of the answers %q are 201, want one", loaded, answers)
	}
}

// TestTheReadmesUploadInParts runs the script in README.md.
func TestTheReadmesUploadInParts(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(readme), "api=http://127.0.0.1:5000/api/v1")
	if at < 0 {
		t.Fatal("README.md has no upload in parts")
	}
	script, _, _ := strings.Cut(string(readme[at:]), "```")
	s := serve(t)
	archive, _ := manyArchives(t, "base")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.tar"), archive, 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, "curl")
	script = "set -eu; cd " + dir + "\n" + strings.NewReplacer("http://127.0.0.1:5000", s.url(""), "95000000", "700000").Replace(script)
	out := mustRun(t, []string{"PASSWORD=" + adminPassword}, program(t, "sh"), "-c", script)
	if !strings.Contains(out, `"name":"team/one:new"`) || !s.tagged(t, "team/two", "new") {
		t.Errorf("the script printed %s", out)
	}
}
