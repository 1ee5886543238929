package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// screen is a terminal.
type screen struct {
	t             *testing.T
	master, slave *os.File
}

func newScreen(t *testing.T, columns uint16) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal can be had here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be had here: %v", err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	if _, err := term.MakeRaw(int(slave.Fd())); err != nil { // what is written is what is read
		t.Fatal(err)
	}
	return &screen{t, master, slave}
}

// run runs a command line on the terminal, at which somebody types, and returns
// what is on it then.
func (s *screen) run(d *desk, typed, line string) (code int, shown string) {
	s.t.Helper()
	const end = "\x04"
	if _, err := s.master.WriteString(typed); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan string)
	go func() {
		var b bytes.Buffer
		part := make([]byte, 4096)
		for !bytes.HasSuffix(b.Bytes(), []byte(end)) {
			n, err := s.master.Read(part)
			if b.Write(part[:n]); err != nil {
				break
			}
		}
		done <- strings.TrimSuffix(b.String(), end)
	}()
	a := &app{in: s.slave, out: s.slave, err: s.slave, environ: d.environ}
	code = run(s.t.Context(), a, strings.Fields(line))
	if _, err := s.slave.WriteString(end); err != nil {
		s.t.Error(err)
		_ = s.slave.Close()
	}
	return code, <-done
}

func TestTerminals(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	binary := imageArchive(t, imageSpec{[]string{"bin:1"}, "amd64", []string{tarOf(t, "bin", []byte("\x00\x01"), "esc", []byte("a\x1b[31mb\u009bc\nd\té"))}, nil})
	d.do("", "load -q -n team "+binary)
	screen := newScreen(t, 80)
	for line, want := range map[string]string{
		"cat team/bin:1 /esc": "a\uFFFD[31mb\uFFFDc\nd\té",
		"tags team/openjdk -q nightly": "" +
			"TAG      VERSION  VARIANT  BASE                  PLATFORMS    SIZE      PUSHED\n" +
			"nightly  -        -        debian 12 bookworm …  linux/amd64  86.0 KiB  just now\n",
		"ls -q openjdk": "" +
			"NAME          TAGS  IMAGES  CHANGED   DESCRIPTION\n" +
			"team/openjdk  8     5       just now  -\n",
	} {
		if code, got := screen.run(d, "", line); code != exitOK || got != want {
			t.Errorf("tarport %s on a terminal = %d\n%q\nwant\n%q", line, code, got, want)
		}
	}
	if code, got := screen.run(d, "", "cat team/bin:1 /bin"); code != exitUsage || !strings.Contains(got, "redirect the output") {
		t.Errorf("cat of no text to a terminal = %d, %q", code, got)
	}
	if code, got := screen.run(d, "n\n", "rm team/bin:1"); code != exitFailure || !strings.Contains(got, "Delete? [y/N]: ") || !strings.Contains(got, "nothing is deleted") {
		t.Errorf("rm that is answered with no = %d, %q", code, got)
	}
	if code, got := screen.run(d, "y\n", "rm team/bin:1"); code != exitOK || !strings.Contains(got, "team/bin:1 is deleted.") {
		t.Errorf("rm that is answered with yes = %d, %q", code, got)
	}
	if code, got := screen.run(d, "team/bin\n", "repo rm team/openjdk"); code != exitFailure ||
		!strings.Contains(got, "with 5 images and 8 tags") || !strings.Contains(got, "that is not its name: nothing is deleted") {
		t.Errorf("repo rm that is answered with another name = %d, %q", code, got)
	}
	if code, got := screen.run(d, "team/openjdk\n", "repo rm team/openjdk"); code != exitOK || !strings.Contains(got, "The repository team/openjdk is deleted") {
		t.Errorf("repo rm that is answered with the name = %d, %q", code, got)
	}
	if file := filepath.Join(t.TempDir(), "x"); os.WriteFile(file, nil, 0o600) == nil {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if got := width(f); got != 0 {
			t.Errorf("the width of a file is %d", got)
		}
	}
}
