package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestStories runs testdata/*.txtar: what a user does and sees, command by
// command. Beside testscript's own commands there are
//
//	serve [VAR=value…] [args…]  start `tarport serve args` and wait until it is ready; its output goes into server.log; sets $REG
//	stop                        end it with SIGTERM; it must end well
//	archive FILE NAME…          write one image per name as docker save does; sets $ID1, $ID2 … to the image IDs
func TestStories(t *testing.T) {
	t.Parallel()
	bin := tarport(t)
	program(t, "curl")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(3 * time.Minute),
		Setup: func(env *testscript.Env) error {
			links := filepath.Join(env.WorkDir, ".bin") // the binary may have another name
			if err := os.Mkdir(links, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(bin, filepath.Join(links, "tarport")); err != nil {
				return err
			}
			env.Setenv("PATH", links+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			s := &server{bin: bin, dir: env.WorkDir}
			env.Values[storyServer{}] = s
			env.Defer(func() {
				if s.cmd != nil {
					s.kill()
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serveCommand, "stop": stopCommand, "archive": archiveCommand,
		},
	})
}

// storyServer is the key of a story's server.
type storyServer struct{}

func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(storyServer{}).(*server)
	if neg || s.cmd != nil {
		ts.Fatalf("usage: serve [VAR=value…] [args…], while none runs")
	}
	s.args, s.env = nil, nil
	for _, arg := range args {
		if name, _, ok := strings.Cut(arg, "="); ok && name == strings.ToUpper(name) {
			s.env = append(s.env, arg)
		} else {
			s.args = append(s.args, arg)
		}
	}
	ts.Check(os.WriteFile(s.logFile(), nil, 0o600))
	ts.Check(s.launch(context.Background()))
	ts.Setenv("REG", s.addr)
}

func stopCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(storyServer{}).(*server)
	if neg || len(args) != 0 || s.cmd == nil {
		ts.Fatalf("usage: stop, while a server runs")
	}
	ts.Check(s.stop())
	ts.Check(s.checkLog())
}

func archiveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: archive FILE NAME…")
	}
	images := map[string]string{}
	for _, name := range args[1:] {
		images[name] = unique()
	}
	b, ids, err := dockerSave(images)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
	for i, name := range args[1:] {
		ts.Setenv("ID"+strconv.Itoa(i+1), ids[name])
	}
}
