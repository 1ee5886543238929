package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

var errNotInstalled = errors.New("no initdb in /usr/lib/postgresql/*/bin or PATH (Debian: apt-get install postgresql)")

// cluster is a running PostgreSQL.
type cluster struct {
	dir string   // holds the data and the socket
	end *os.File // the watching shell stops the cluster when this is closed, at the latest by the kernel
}

// watch starts postgres, says when it answers, and clears up once its standard
// input ends. It must outlive the test process, so it ignores the terminal's
// signals and has a process group of its own.
const watch = `
trap '' INT TERM HUP
bin=$1 dir=$2
if ! "$bin/initdb" -D "$dir/data" -U ` + user + ` -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1; then
	tail -n 5 "$dir/log" | tr '\n' ' '; rm -rf "$dir"; exit 1
fi
"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=300 \
	-c fsync=off -c synchronous_commit=off -c full_page_writes=off \
	-c wal_level=minimal -c max_wal_senders=0 -c shared_buffers=64MB >>"$dir/log" 2>&1 </dev/null &
pid=$!
i=0
until "$bin/pg_isready" -q -h "$dir"; do
	i=$((i + 1))
	if [ $i -gt 600 ] || ! kill -0 $pid; then
		tail -n 5 "$dir/log" | tr '\n' ' '; kill -9 $pid; rm -rf "$dir"; exit 1
	fi
	sleep 0.05
done
echo ready
exec >&-
read -r end
kill -QUIT $pid
wait $pid
rm -rf "$dir"
`

// start makes and starts a cluster.
func start() (*cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(socketRoot(), "pgtest-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", watch, "pgtest", bin, dir)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if cmd.SysProcAttr.Credential, err = unprivileged(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stdin, end, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), os.RemoveAll(dir))
	}
	defer stdin.Close()
	cmd.Stdin = stdin
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), end.Close(), os.RemoveAll(dir))
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start shell: %w", err), end.Close(), os.RemoveAll(dir))
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		return nil, errors.Join(fmt.Errorf("postgres does not start: %s", line), end.Close(), cmd.Wait())
	}
	// Nobody waits for the shell: it ends after this process does.
	return &cluster{dir: dir, end: end}, nil
}

// binaries finds the directory of initdb and postgres, the newest version
// first. Debian keeps them out of PATH.
func binaries() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	for _, dir := range dirs {
		if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb), nil
	}
	return "", errNotInstalled
}

// major is the version in /usr/lib/postgresql/VERSION/bin; 0 if it is no number.
func major(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// socketRoot is where the cluster's directory goes: a unix socket's path may
// have about 100 bytes, so a long TMPDIR will not do.
func socketRoot() string {
	if dir := os.TempDir(); len(dir) < 60 {
		return dir
	}
	return "/tmp"
}

// unprivileged hands dir to a user that is not root and returns what the
// cluster runs as, since postgres refuses to run as root. It is nil for tests
// that are not root: they stay who they are.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return nil, fmt.Errorf("give directory to %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres does not run as root, and there is neither a user postgres nor nobody")
}
