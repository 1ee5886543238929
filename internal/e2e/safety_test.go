package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// hooked calls hook once so many bytes of it were read.
type hooked struct {
	r    io.Reader
	left int
	hook func()
}

func (h *hooked) Read(p []byte) (int, error) {
	if h.left == 0 && h.hook != nil {
		h.hook()
		h.hook = nil
	}
	if h.hook != nil {
		p = p[:min(len(p), h.left)]
	}
	n, err := h.r.Read(p)
	h.left -= n
	return n, err
}

// stream sends a body whose length is not told, and returns the status; 0 where
// there was no answer.
func (s *server) stream(ctx context.Context, path string, body io.Reader) (int, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url("/api/v1/"+path), body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	req.SetBasicAuth("admin", adminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, b
}

// mustStream is stream for what has to be answered with the status.
func (s *server) mustStream(t *testing.T, status int, path string, body []byte) []byte {
	t.Helper()
	got, answer := s.stream(t.Context(), path, bytes.NewReader(body))
	if got != status {
		t.Fatalf("POST %s = %d %s, want %d", path, got, answer, status)
	}
	return answer
}

// contentFiles are dataFiles but for what is made of layers when there is time,
// and can be made again.
func (s *server) contentFiles(t *testing.T) map[string]int64 {
	t.Helper()
	files := s.dataFiles(t)
	maps.DeleteFunc(files, func(name string, _ int64) bool { return strings.HasPrefix(name, "tarport/layers/") })
	return files
}

// awaitFiles waits until the data directory holds what it held before: what a
// killed server leaves is taken away when it has started again.
func (s *server) awaitFiles(t *testing.T, want map[string]int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		diff := cmp.Diff(want, s.contentFiles(t))
		if diff == "" {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("files that are left (-before +after):\n%s", diff)
		}
	}
}

// usage returns what a namespace uses and has reserved, and checks that it is
// what adding up gives.
func (s *server) usage(t *testing.T, namespace string) (used, reserved int64) {
	t.Helper()
	c := s.client(t)
	get := func(method, path string, into any) {
		t.Helper()
		r, err := c.raw(t.Context(), method, "/api/v1"+path, nil, "Authorization", basicAuth("admin", adminPassword))
		if err == nil {
			err = json.Unmarshal(r.body, into)
		}
		if err != nil || r.status != http.StatusOK {
			t.Fatalf("%s %s = %d %s (%v)", method, path, r.status, r.body, err)
		}
	}
	var ns struct {
		Used     int64 `json:"used_bytes"`
		Reserved int64 `json:"reserved_bytes"`
	}
	get(http.MethodGet, "/namespaces/"+namespace, &ns)
	var counted struct {
		Items []struct {
			Namespace         string
			Equal             bool
			Stored, Recounted map[string]int64
		}
	}
	get(http.MethodPost, "/admin/recount", &counted)
	for _, i := range counted.Items {
		if !i.Equal {
			t.Errorf("the usage of %s is stored as %v, and is %v", i.Namespace, i.Stored, i.Recounted)
		}
	}
	return ns.Used, ns.Reserved
}

// manyArchives is an archive of two images with layers of some MiB, and the
// export of a container of the image base.
func manyArchives(t *testing.T, base string) (archive, export []byte) {
	t.Helper()
	archive, _, err := dockerSave(map[string]string{"one:new": unique() + incompressible(1<<20), "two:new": unique() + strings.Repeat("compressible ", 200_000)})
	if err == nil {
		export, err = packTar(map[string]string{"file": "content of " + base, "new": incompressible(2 << 20), "other": strings.Repeat("compressible ", 200_000)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return archive, export
}

// TestKilledInTheMiddleOfAnArchive ends the server at twenty points of a load,
// and of a commit: nothing is visible, nothing is left, and it works afterwards.
func TestKilledInTheMiddleOfAnArchive(t *testing.T) {
	t.Parallel()
	archive, export := manyArchives(t, "base")
	for name, k := range map[string]struct {
		path string
		body []byte
	}{
		"load":   {"archives/load?namespace=crash", archive},
		"commit": {"archives/commit?repo=crash/one&tag=new&base=crash/base:1", export},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			first, _, err := dockerSave(map[string]string{"base:1": "base"})
			if err != nil {
				t.Fatal(err)
			}
			s.mustStream(t, http.StatusCreated, "archives/load?namespace=crash", first)
			before := s.contentFiles(t)
			used, _ := s.usage(t, "crash")
			for point := range 20 {
				at := len(k.body) * point / 19 // the last one is behind the last byte
				s.killedAt(t, k.path, k.body, at)
				s.start(t)
				if s.tagged(t, "crash/one", "new") { // it was committed, and the answer lost
					if at < len(k.body) {
						t.Fatalf("killed at byte %d of %d, the image is there", at, len(k.body))
					}
					break
				}
				if at < len(k.body) {
					s.awaitFiles(t, before)
				}
				if u, r := s.usage(t, "crash"); u != used || r != 0 && at < len(k.body) {
					t.Fatalf("killed at byte %d of %d: %d bytes used, %d reserved, want %d and 0", at, len(k.body), u, r, used)
				}
			}
			s.mustStream(t, http.StatusCreated, k.path, k.body)
			if !s.tagged(t, "crash/one", "new") {
				t.Error("the image that was made at last is not there")
			}
			if _, r := s.usage(t, "crash"); r != 0 {
				t.Errorf("%d bytes are reserved, want none", r)
			}
			checkFiles(t, s)
		})
	}
}

// killedAt sends a body and ends the server when so much of it is on its way.
func (s *server) killedAt(t *testing.T, path string, body []byte, at int) {
	t.Helper()
	sent := make(chan struct{})
	r := &hooked{r: bytes.NewReader(body), left: at, hook: func() { close(sent) }}
	if at < len(body) {
		r.hook = func() { close(sent); _ = s.cmd.Process.Kill() }
	}
	done := make(chan struct{})
	go func() { defer close(done); s.stream(context.WithoutCancel(t.Context()), path, r) }()
	select {
	case <-sent:
	case <-done: // it was answered before; who asks what is there will tell
	}
	if at == len(body) { // while the blobs are put into place, or the transaction runs
		<-time.After(time.Duration(mathrand.Int64N(int64(60 * time.Millisecond)))) // a point in time is what is drawn
		_ = s.cmd.Process.Kill()
	}
	<-done
	_ = s.reap()
}

// tagged tells whether a tag is there, and whether its image is whole.
func (s *server) tagged(t *testing.T, repository, tag string) bool {
	t.Helper()
	v := newVerifier(s)
	v.client = s.client(t)
	r := v.get(t, repository, "/manifests/"+tag)
	if r.status == http.StatusOK {
		v.whole(t, repository, digestOf(r.body))
	}
	return r.status == http.StatusOK
}

func TestTwoLoadsOfOneFileAtOnce(t *testing.T) {
	t.Parallel()
	s := serve(t)
	archive, _ := manyArchives(t, "base")
	var g errgroup.Group
	for i := range 6 {
		g.Go(func() error {
			status, answer := s.stream(t.Context(), fmt.Sprintf("archives/load?namespace=n%d", i%2), bytes.NewReader(archive))
			if status != http.StatusCreated {
				return fmt.Errorf("load = %d %s", status, answer)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"n0", "n1"} {
		for _, name := range []string{"one", "two"} {
			if !s.tagged(t, ns+"/"+name, "new") {
				t.Errorf("%s/%s:new is not there", ns, name)
			}
		}
		if _, r := s.usage(t, ns); r != 0 {
			t.Errorf("%d bytes are reserved in %s, want none", r, ns)
		}
	}
	checkFiles(t, s)
	for file := range s.dataFiles(t) {
		if strings.HasPrefix(file, "tarport/uploads/") {
			t.Errorf("%s is left", file)
		}
	}
}

func TestAClientThatGoesInTheMiddleLeavesNothing(t *testing.T) {
	t.Parallel()
	s := serve(t)
	archive, export := manyArchives(t, "base")
	first, _, err := dockerSave(map[string]string{"base:1": "base"})
	if err != nil {
		t.Fatal(err)
	}
	s.mustStream(t, http.StatusCreated, "archives/load?namespace=team", first)
	before := s.contentFiles(t)
	for path, body := range map[string][]byte{
		"archives/load?namespace=team": archive, "archives/commit?repo=team/new&base=team/base:1": export, "archives/import?repo=team/flat": export,
	} {
		for _, part := range []int{1, 3, 7} {
			ctx, cancel := context.WithCancel(t.Context())
			status, answer := s.stream(ctx, path, &hooked{r: bytes.NewReader(body), left: len(body) * part / 8, hook: cancel})
			if status != 0 {
				t.Errorf("%s that was cut at %d/8 = %d %s", path, part, status, answer)
			}
			cancel()
		}
	}
	s.awaitFiles(t, before)
	if _, r := s.usage(t, "team"); r != 0 {
		t.Errorf("%d bytes are reserved, want none", r)
	}
}

func TestAQuotaThatIsReachedInTheMiddleLeavesNothing(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c := s.client(t)
	api := func(status int, method, path, body string, headers ...string) response {
		t.Helper()
		r, err := c.raw(t.Context(), method, "/api/v1"+path, []byte(body), append(headers, "Authorization", basicAuth("admin", adminPassword))...)
		if err != nil || r.status != status {
			t.Fatalf("%s %s = %d %s (%v), want %d", method, path, r.status, r.body, err, status)
		}
		return r
	}
	archive, export := manyArchives(t, "base")
	first, _, err := dockerSave(map[string]string{"base:1": "base"})
	if err != nil {
		t.Fatal(err)
	}
	s.mustStream(t, http.StatusCreated, "archives/load?namespace=team", first)
	api(http.StatusOK, http.MethodPatch, "/namespaces/team", `{"quota_bytes":500000}`)
	before := s.contentFiles(t)
	used, _ := s.usage(t, "team")
	for path, body := range map[string][]byte{
		"archives/load?namespace=team": archive, "archives/commit?repo=team/new&base=team/base:1": export, "archives/import?repo=team/flat": export,
	} {
		s.mustStream(t, http.StatusForbidden, path, body)
		s.awaitFiles(t, before)
		if u, r := s.usage(t, "team"); u != used || r != 0 {
			t.Errorf("after %s: %d bytes used, %d reserved, want %d and 0", path, u, r, used)
		}
	}
	// What was sent in parts is not to be sent again.
	tus := []string{"Tus-Resumable", "1.0.0", "Upload-Length", strconv.Itoa(len(archive)), "Content-Type", "application/offset+octet-stream"}
	id := filepath.Base(api(http.StatusCreated, http.MethodPost, "/uploads", string(archive), tus...).header.Get("Location"))
	api(http.StatusForbidden, http.MethodPost, "/archives/load?namespace=team&upload="+id, "")
	api(http.StatusOK, http.MethodPatch, "/namespaces/team", `{"quota_bytes":-1}`)
	api(http.StatusCreated, http.MethodPost, "/archives/load?namespace=team&upload="+id, "")
	api(http.StatusNotFound, http.MethodPost, "/archives/load?namespace=team&upload="+id, "")
}

// TestAFullDiskLeavesNothing fills a small file system: as it is, with the
// database elsewhere, and with a floor that keeps some of it free.
func TestAFullDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	archive, export := manyArchives(t, "base")
	first, _, err := dockerSave(map[string]string{"base:1": "base"})
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{"no floor": "TARPORT_STORAGE_MIN_FREE=0", "a floor": "TARPORT_STORAGE_MIN_FREE=2MiB"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			small := smallDisk(t, "4m")
			s := serve(t, errorsAreLogged, env, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="+small, "TARPORT_DATA="+t.TempDir())
			s.mustStream(t, http.StatusCreated, "archives/load?namespace=team", first)
			free := freeBytes(t, small)
			for path, body := range map[string][]byte{
				"archives/load?namespace=team": archive, "archives/commit?repo=team/new&base=team/base:1": append(bytes.Clone(export[:len(export)-1024]), bigEntry(t)...),
			} {
				status, answer := s.stream(t.Context(), path+"&compression=none", bytes.NewReader(body))
				if status != http.StatusInsufficientStorage {
					t.Errorf("%s on a full disk = %d %s, want 507", path, status, answer)
				}
				awaitFree(t, small, free)
				if _, r := s.usage(t, "team"); r != 0 {
					t.Errorf("%d bytes are reserved, want none", r)
				}
			}
			if !s.tagged(t, "team/base", "1") {
				t.Error("the image from before is gone")
			}
			second, _, err := dockerSave(map[string]string{"base:2": "other"})
			if err != nil {
				t.Fatal(err)
			}
			s.mustStream(t, http.StatusCreated, "archives/load?namespace=team", second)
		})
	}
}

// bigEntry is a file of 6 MiB at the end of a tar.
func bigEntry(t *testing.T) []byte {
	t.Helper()
	b, err := packTar(map[string]string{"big": incompressible(6 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("needs the right to mount")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// awaitFree waits until the disk has as much room as before.
func awaitFree(t *testing.T, dir string, want int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	const indexes = 64 << 10 // made of the layers that are there, meanwhile
	for freeBytes(t, dir) < want-indexes {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d bytes are free on the disk, before there were %d", freeBytes(t, dir), want)
		}
	}
}

// TestMemoryOfManyLoads looks at the peak of what the server ever held, without
// the pages of its binary: those are the page cache's, some 35 MiB, and how many
// of them are mapped is up to the kernel and the linker.
func TestMemoryOfManyLoads(t *testing.T) {
	t.Parallel()
	if os.Getenv("GOCOVERDIR") != "" {
		t.Skip("a binary that counts its coverage is larger")
	}
	s := serve(t)
	layer := strings.Repeat(incompressible(1<<20), 12)
	archive, _, err := dockerSave(map[string]string{"app:1": layer})
	if err != nil {
		t.Fatal(err)
	}
	s.mustStream(t, http.StatusCreated, "archives/load?namespace=first", archive)
	if peak := s.peakMemory(t); peak > 40<<20 {
		t.Errorf("one load took %d MiB, want at most 40", peak>>20)
	}
	var g errgroup.Group
	for i := range 16 {
		g.Go(func() error {
			status, answer := s.stream(t.Context(), fmt.Sprintf("archives/load?namespace=n%d", i), bytes.NewReader(archive))
			if status != http.StatusCreated {
				return fmt.Errorf("load = %d %s", status, answer)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if peak := s.peakMemory(t); peak > 80<<20 {
		t.Errorf("16 loads took %d MiB, want at most 80", peak>>20)
	}
}

// peakMemory is the most that the process had in memory beside pages of files,
// in bytes.
func (s *server) peakMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	kib := func(name string) int64 {
		_, rest, _ := strings.Cut(string(status), name+":")
		n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	peak, files := kib("VmHWM"), kib("RssFile")
	t.Logf("peak: %d MiB, of which %d are files", peak>>10, files>>10)
	return (peak - files) << 10
}
