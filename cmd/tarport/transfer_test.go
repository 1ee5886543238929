package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

// cutter is a line to a server that breaks: each connection ends after as many
// bytes as the next of the cuts says, of those that go to the server or of those
// that come; those after the last one hold.
type cutter struct {
	addr     string // to connect to
	up, down direction
}

type direction struct {
	mu    sync.Mutex
	cuts  []int64
	bytes int64
	cut   func() // called at each break; may be nil
	hold  bool   // nothing more comes then, but the connection stays
}

func newCutter(t *testing.T, to string, up ...int64) *cutter {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String(), up: direction{cuts: up}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.carry(t.Context(), conn, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return c
}

func (c *cutter) carry(ctx context.Context, conn net.Conn, to string) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		_ = conn.Close()
		return
	}
	over := make(chan struct{})
	end := sync.OnceFunc(func() {
		_, _ = conn.Close(), server.Close()
		close(over)
	})
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	both.Go(func() { c.down.carry(conn, server, end, over) })
	both.Go(func() { c.up.carry(server, conn, end, over) })
	both.Wait()
}

var errCut = errors.New("cut")

// carry copies until the line breaks or ends.
func (d *direction) carry(to io.Writer, from io.Reader, end func(), over <-chan struct{}) {
	d.mu.Lock()
	left := int64(-1)
	if len(d.cuts) > 0 {
		left = d.cuts[0]
	}
	d.mu.Unlock()
	_, err := io.Copy(struct{ io.Writer }{to}, &cutReader{d, from, left})
	isCut := errors.Is(err, errCut)
	d.mu.Lock()
	cut, hold := d.cut, d.hold
	d.mu.Unlock()
	if isCut && hold {
		<-over
	}
	end()
	if isCut && cut != nil {
		cut()
	}
}

type cutReader struct {
	d    *direction
	r    io.Reader
	left int64 // less than 0 for all
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		r.d.mu.Lock()
		r.d.cuts = r.d.cuts[1:]
		r.d.mu.Unlock()
		return 0, errCut
	}
	if r.left > 0 {
		p = p[:min(int64(len(p)), r.left)]
	}
	n, err := r.r.Read(p)
	if r.left > 0 {
		r.left -= int64(n)
	}
	r.d.mu.Lock()
	r.d.bytes += int64(n)
	r.d.mu.Unlock()
	return n, err
}

// count is how many bytes have gone this way.
func (d *direction) count() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

// noise is an archive of one layer of so many bytes, in a file.
func noise(t *testing.T, size int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(file, []byte(dockerArchive(t, size)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// kept are the notes of transfers that can be gone on with.
func (d *desk) kept() []string {
	d.t.Helper()
	home := strings.TrimPrefix(d.environ[0], "HOME=")
	list, err := filepath.Glob(filepath.Join(home, ".cache", "tarport", "transfers", "*.json"))
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// uploads are those that the server has.
func (d *desk) uploads() string {
	d.t.Helper()
	return d.server.do(d.t, http.MethodGet, "/api/v1/uploads", nil).body
}

// interrupted runs a command that a signal ends: when the line breaks, or where
// the line holds, when the file that it writes has grown to so many bytes.
func (d *desk) interrupted(way *direction, line, file string, size int64) (stderr string) {
	d.t.Helper()
	ctx, interrupt := context.WithCancel(d.t.Context())
	defer interrupt()
	hold := file != ""
	set := func(hold bool, cut func()) {
		way.mu.Lock()
		defer way.mu.Unlock()
		way.hold, way.cut = hold, cut
	}
	defer set(false, nil)
	set(hold, nil)
	if hold {
		go func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if fi, err := os.Stat(file); err == nil && fi.Size() >= size {
					interrupt()
				}
				<-tick.C
			}
		}()
	} else {
		set(false, interrupt)
	}
	var stdout, words bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &stdout, err: &words, environ: d.environ}
	code := run(ctx, a, strings.Fields(line))
	if code != exitInterrupted || stdout.String() != "" || !strings.Contains(words.String(), "interrupted") {
		d.t.Fatalf("interrupted: tarport %s = %d, stdout %q, stderr\n%s", line, code, stdout.String(), words.String())
	}
	return words.String()
}

const mib = 1 << 20

func TestAnUploadOutlivesItsConnections(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	file := noise(t, 4*mib)
	line := newCutter(t, d.server.addr, 1*mib, 700_000, 1*mib)
	out := d.outcome("", "load -n a --resume --part-size=3MiB --registry="+line.addr+" "+file)
	if got := names(out); !slices.Equal(got, []string{"a/app:1"}) {
		t.Errorf("load over a line that breaks = %v", got)
	}
	// What the line has taken is not sent again, but for what the server had not
	// yet written.
	if sent := line.up.count(); sent > 6*mib || sent < 4*mib {
		t.Errorf("%d bytes were sent of 4 MiB", sent)
	}
	if !strings.Contains(d.script.String(), "trying again in") {
		t.Errorf("nothing is said of the breaks:\n%s", d.script)
	}
	if kept, left := d.kept(), d.uploads(); len(kept) != 0 || strings.TrimSpace(left) != `{"items":[]}` {
		t.Errorf("left behind: %v, %s", kept, left)
	}
}

func TestTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	file := noise(t, 4*mib)
	command := "load -n a --resume=always --part-size=1MiB "

	// Interrupted by Ctrl-C, as soon as the line has taken half of it.
	line := newCutter(t, d.server.addr, 2_500_000)
	if said := d.interrupted(&line.up, command+"--registry="+line.addr+" "+file, "", 0); !strings.Contains(said, "the same command goes on from there: interrupted") {
		t.Errorf("the interrupted load says\n%s", said)
	}
	if kept := d.kept(); len(kept) != 1 {
		t.Fatalf("kept: %v, want one", kept)
	}

	// Over the same address, since the upload is at that registry.
	before := line.up.count()
	out := d.outcome("", command+"--registry="+line.addr+" "+file)
	if got := names(out); !slices.Equal(got, []string{"a/app:1"}) {
		t.Errorf("load that goes on = %v", got)
	}
	if sent := line.up.count() - before; sent > 3*mib || out.BytesSent > 3*mib || out.BytesSent < mib {
		t.Errorf("%d bytes were sent (%d by its own count), want half of 4 MiB", sent, out.BytesSent)
	}
	if !strings.Contains(d.script.String(), "going on where it stopped") {
		t.Errorf("nothing is said of it:\n%s", d.script)
	}
	if kept, left := d.kept(), d.uploads(); len(kept) != 0 || strings.TrimSpace(left) != `{"items":[]}` {
		t.Errorf("left behind: %v, %s", kept, left)
	}
}

func TestWhatWasSentIsKeptForTheNextTry(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	file := noise(t, 2*mib)
	command := "load --resume --part-size=1MiB -n "
	d.do("", "ns create other")
	robot := d.secret("robot create other ci --role=writer")
	ci := newDesk(t, d.server, "TARPORT_USER=other+ci", "TARPORT_PASSWORD="+robot)

	// Who may not push is told before anything is sent.
	line := newCutter(t, d.server.addr)
	ci.fail(exitFailure, "", command+"team --registry="+line.addr+" "+file, "team")
	ci.fail(exitFailure, "", "import --resume --registry="+line.addr+" "+file+" team/x", "team")
	if sent := line.up.count(); sent > mib/10 || len(ci.kept()) != 0 {
		t.Errorf("%d bytes were sent, and %v is kept", sent, ci.kept())
	}

	// All of it is sent, and refused for a reason that can be mended.
	ci.fail(exitFailure, "", command+"other --rename=none=x "+file, "the archive has no image")
	if kept := ci.kept(); len(kept) != 1 || !strings.Contains(ci.script.String(), "it need not be sent again") {
		t.Fatalf("kept: %v, want one\n%s", kept, ci.script)
	}
	if out := ci.outcome("", command+"other "+file); out.BytesSent != 0 {
		t.Errorf("%d bytes were sent again", out.BytesSent)
	}

	// Another file by now.
	if err := os.WriteFile(file, []byte(archiveNamed(t, "new:1", 2*mib+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ci.fail(exitFailure, "", command+"other --rename=none=x "+file, "the archive has no image")
	if err := os.WriteFile(file, []byte(archiveNamed(t, "newer:1", 2*mib+2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := ci.outcome("", command+"other "+file); out.BytesSent < 2*mib {
		t.Errorf("%d bytes of another file were sent, want it all", out.BytesSent)
	}
	if !strings.Contains(ci.script.String(), "has changed since it was sent in part") {
		t.Errorf("nothing is said of it:\n%s", ci.script)
	}

	// What is no image is not kept.
	if err := os.WriteFile(file, bytes.Repeat([]byte("no tar"), mib), 0o600); err != nil {
		t.Fatal(err)
	}
	ci.fail(exitFailure, "", command+"other "+file, "this is not a tar archive")
	if kept, left := ci.kept(), d.uploads(); len(kept) != 0 || strings.TrimSpace(left) != `{"items":[]}` {
		t.Errorf("left behind: %v, %s", kept, left)
	}
}

// TestAProxyThatTakesLittle is about parts that are too large for a proxy on the
// way: they are halved.
func TestAProxyThatTakesLittle(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: d.server.addr})
	refused := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 1_500_000 {
			refused++
			http.Error(w, "<html>413 Request Entity Too Large", http.StatusRequestEntityTooLarge)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	out := d.outcome("", "load -n a --resume --part-size=4MiB --registry="+srv.URL+" "+noise(t, 4*mib))
	if got := names(out); !slices.Equal(got, []string{"a/app:1"}) || refused != 2 {
		t.Errorf("load through a proxy = %v, %d parts were too large, want 2", got, refused)
	}
}

// TestSmallFilesAreSentAgainWhole is about those that are not sent in parts.
func TestSmallFilesAreSentAgainWhole(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	line := newCutter(t, d.server.addr, 300_000, 300_000)
	out := d.outcome("", "load -n a --registry="+line.addr+" "+noise(t, 1*mib))
	if got := names(out); !slices.Equal(got, []string{"a/app:1"}) {
		t.Errorf("load over a line that breaks = %v", got)
	}
	// Standard input cannot be read again.
	line = newCutter(t, d.server.addr, 300_000)
	d.fail(exitFailure, dockerArchive(t, 1*mib), "load -n b --registry="+line.addr+" -", "")
	if left := d.uploads(); strings.TrimSpace(left) != `{"items":[]}` {
		t.Errorf("left behind: %s", left)
	}
	if transfer.DefaultThreshold <= 1*mib {
		t.Error("the test is about files that are small")
	}
}
