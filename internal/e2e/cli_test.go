package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// cli is the tarport command of one test, with docker's directory and so its
// logins.
type cli struct {
	bin string
	env []string
}

func newCLI(t testing.TB, registry, dockerConfig string, env ...string) *cli {
	t.Helper()
	return &cli{bin: tarport(t), env: append([]string{
		"TARPORT_REGISTRY=" + registry, "DOCKER_CONFIG=" + dockerConfig, "XDG_CACHE_HOME=" + t.TempDir(),
	}, env...)}
}

// command is a run of it.
func (c *cli) command(ctx context.Context, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.CommandContext(ctx, c.bin, args...)
	cmd.Env = append(os.Environ(), c.env...)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// must is run for what has to succeed; it returns standard output.
func (c *cli) must(t testing.TB, args ...string) string {
	t.Helper()
	cmd, stdout, stderr := c.command(t.Context(), args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("tarport %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout.String()
}

// sent is what load and the like print with --format=json.
type sent struct {
	loaded
	BytesSent int64 `json:"bytes_sent"`
}

func (c *cli) send(t testing.TB, args ...string) sent {
	t.Helper()
	var out sent
	text := c.must(t, append(args, "--format=json")...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("tarport %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return out
}

// TestTheCommandLineCarriesImages takes images out of docker, into the registry
// and back, with the login that docker has.
func TestTheCommandLineCarriesImages(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	c := newCLI(t, s.addr, d.config)
	word := unique()
	parent, child := word+":1", word+"-child:1"
	id := d.appImage(t, parent)
	childID := d.build(t, child, "FROM "+parent+"\nADD extra /extra\n", map[string]string{"extra": unique()})

	file := d.save(t, parent)
	first := c.send(t, "load", "-n", "team", file)
	if len(first.Images) != 1 || first.Images[0].Name != "team/"+parent || first.Images[0].ImageID != id || first.BytesSent < 1<<20 {
		t.Fatalf("load of %s = %+v, want the image %s", parent, first, id)
	}
	// The child's own layer is some bytes, the rest is there.
	second := c.send(t, "load", "-n", "team", d.save(t, child))
	if second.Images[0].ImageID != childID || second.BytesSent > 100_000 {
		t.Errorf("load of %s = %+v, want the image %s, and few bytes", child, second, childID)
	}
	if again := c.send(t, "load", "-n", "team", file); again.BytesSent > 50_000 || again.Images[0].ImageID != id {
		t.Errorf("load of %s again = %+v, want hardly a byte", parent, again)
	}

	// Back, over a file and over a pipe.
	d.forgetAll(t, child, parent)
	out := filepath.Join(t.TempDir(), "both.tar")
	c.must(t, "save", "-o", out, s.addr+"/team/"+parent, "team/"+child)
	d.must(t, "load", "--input", out)
	t.Cleanup(func() { d.forget(s.addr + "/team/" + parent); d.forget("team/" + parent); d.forget("team/" + child) })
	loadedAs := d.must(t, "images", "--no-trunc", "--quiet")
	for _, want := range []string{id, childID} {
		if !strings.Contains(loadedAs, want) {
			t.Errorf("docker load of what was saved: no image %s in\n%s", want, loadedAs)
		}
	}
	reader, writer := io.Pipe()
	save, _, words := c.command(t.Context(), "save", "team/"+parent)
	save.Stdout = writer
	load := exec.CommandContext(t.Context(), d.cli, "load")
	load.Env, load.Stdin = append(os.Environ(), d.env()...), reader
	saved := make(chan error, 1)
	go func() { saved <- save.Run(); _ = writer.Close() }()
	if text, err := load.CombinedOutput(); err != nil || <-saved != nil {
		t.Errorf("tarport save | docker load: %v\n%s%s", err, text, words)
	}
}

// relay is an address that leads to a server, which can be another one later.
type relay struct {
	addr   string
	target atomic.Value // string
	passed atomic.Int64 // bytes to the server
	at     int64        // after so many
	then   func()       // is called, once
	once   sync.Once
}

func newRelay(t testing.TB, target string, at int64, then func()) *relay {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), at: at, then: then}
	r.target.Store(target)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.carry(t.Context(), conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return r
}

func (r *relay) carry(ctx context.Context, conn net.Conn) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.target.Load().(string))
	if err != nil {
		_ = conn.Close()
		return
	}
	end := func() { _, _ = conn.Close(), server.Close() }
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(conn, server); end() })
	both.Go(func() { _, _ = io.Copy(server, &passing{r, conn}); end() })
	both.Wait()
}

type passing struct {
	r *relay
	io.Reader
}

func (p *passing) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if p.r.passed.Add(int64(n)) >= p.r.at {
		p.r.once.Do(p.r.then)
	}
	return n, err
}

// TestAnUploadOutlivesTheServer kills the server when it has half of a file, and
// starts it anew: the one run of the command goes on.
func TestAnUploadOutlivesTheServer(t *testing.T) {
	t.Parallel()
	s := serve(t)
	const size = 16 << 20
	archive, _, err := dockerSave(map[string]string{"big:1": noiseText(size)})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "big.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	half := make(chan struct{})
	r := newRelay(t, s.addr, size/2, func() { close(half) })
	c := newCLI(t, r.addr, t.TempDir(), "TARPORT_PASSWORD="+adminPassword)
	cmd, stdout, stderr := c.command(t.Context(), "load", "-n", "team", "--resume", "--part-size=3MiB", "--format=json", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-half
	s.kill()
	s.start(t)
	r.target.Store(s.addr)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("tarport load: %v\n%s", err, stderr)
	}
	var out sent
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil || len(out.Images) != 1 || out.Images[0].Name != "team/big:1" {
		t.Fatalf("tarport load = %s (%v)\n%s", stdout, err, stderr)
	}
	// At most the part that was under way is sent twice.
	if out.BytesSent < size || out.BytesSent > size+6<<20 || !strings.Contains(stderr.String(), "trying again in") {
		t.Errorf("%d bytes were sent of %d\n%s", out.BytesSent, size, stderr)
	}
}

// noiseText is text that no compression makes much smaller.
func noiseText(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(unique())
	}
	return b.String()
}
