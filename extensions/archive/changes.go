package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/tarport/tarport"
)

// changeable are the instructions that can change a config (moby:
// daemon/builder/dockerfile/builder.go, validCommitCommands).
var changeable = map[string]bool{
	"cmd": true, "entrypoint": true, "env": true, "expose": true, "healthcheck": true, "label": true, "onbuild": true,
	"stopsignal": true, "user": true, "volume": true, "workdir": true,
}

// Bounds of changes and of what comes of them.
const (
	maxChanges   = 64 << 10 // bytes of all changes together
	maxRunConfig = 2 << 20  // bytes of the config that comes of them, as JSON
)

// applyChanges is what the daemon does with the --change of docker import and
// docker commit: the changes are the lines of one Dockerfile, of instructions
// that say how containers run, and are applied to c in order. They are parsed by
// the very parser that Docker has; docs/import.md tells where engines differ and
// what is done here. system is the image's os, which decides on the shell of
// the shell form. c is not changed.
//
// Errors are INVALID, with the engine's words where it has some, and TOO_LARGE
// where the changes, or what comes of them, have too many bytes.
func applyChanges(c runConfig, changes []string, system string) (runConfig, error) {
	if len(changes) == 0 {
		return c, nil
	}
	text := strings.Join(changes, "\n")
	switch {
	case len(text) > maxChanges:
		return c, tooLarge("the changes have %d bytes, at most %d are allowed", len(text), maxChanges)
	case !utf8.ValidString(text), strings.ContainsRune(text, 0):
		return c, badChange(errors.New("they must be text in UTF-8, without zero bytes"))
	}
	file, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return c, badChange(err)
	}
	commands, err := parseChanges(file)
	if err != nil {
		return c, badChange(err)
	}
	c = c.clone()
	a := &applier{c: &c, system: system, words: newWords(file.EscapeToken, c.Env)}
	for _, cmd := range commands {
		if err := a.apply(cmd); err != nil {
			return c, badChange(err)
		}
	}
	return c, c.checkSize()
}

// badChange is an error of the changes.
func badChange(err error) error {
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e
	}
	return tarport.Errorf(tarport.Invalid, "changes: %s", bounded(err.Error())).Because(err)
}

// bounded shortens a text that holds something of a client's, and takes out
// what a terminal would obey.
func bounded(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// checkSize bounds the config that is made, also for whoever reads it later.
func (c runConfig) checkSize() error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a config: %w", err)
	}
	if len(b) > maxRunConfig {
		return tooLarge("the changes make a config of %d bytes, at most %d are allowed", len(b), maxRunConfig)
	}
	return nil
}

// parseChanges checks all instructions before the first is applied.
func parseChanges(file *parser.Result) ([]instructions.Command, error) {
	var out []instructions.Command
	for _, n := range file.AST.Children {
		if !changeable[strings.ToLower(n.Value)] {
			return nil, fmt.Errorf("%s is not a valid change command", n.Value)
		}
		cmd, err := instructions.ParseCommand(n)
		if err != nil {
			return nil, err
		}
		out = append(out, cmd)
	}
	return out, nil
}

// applier applies instructions to a config, as the daemon's dispatchers do
// (moby: daemon/builder/dockerfile/dispatchers.go).
type applier struct {
	c      *runConfig
	system string
	words  *words
	cmdSet bool // by one of the instructions: then ENTRYPOINT leaves it
	ports  int  // that EXPOSE has named so far
}

func (a *applier) apply(cmd instructions.Command) error {
	if c, ok := cmd.(instructions.PlatformSpecific); ok {
		if err := c.CheckPlatform(a.system); err != nil {
			return err
		}
	}
	if c, ok := cmd.(instructions.SupportsSingleWordExpansion); ok {
		if err := c.Expand(a.words.expand); err != nil {
			return err
		}
	}
	return a.dispatch(cmd)
}

func (a *applier) dispatch(cmd instructions.Command) error {
	switch c := cmd.(type) {
	case *instructions.CmdCommand:
		a.c.Cmd = a.commandLine(c.ShellDependantCmdLine)
		a.cmdSet = a.cmdSet || len(c.CmdLine) > 0
	case *instructions.EntrypointCommand:
		a.entrypoint(c)
	case *instructions.EnvCommand:
		a.env(c.Env)
	case *instructions.ExposeCommand:
		return a.expose(c.Ports)
	case *instructions.HealthCheckCommand:
		a.c.Healthcheck = c.Health
	case *instructions.LabelCommand:
		a.labels(c.Labels)
	case *instructions.OnbuildCommand:
		a.c.OnBuild = append(a.c.OnBuild, c.Expression)
	case *instructions.StopSignalCommand:
		return a.stopSignal(c.Signal)
	case *instructions.UserCommand:
		a.c.User = c.User
	case *instructions.VolumeCommand:
		return a.volumes(c.Volumes)
	case *instructions.WorkdirCommand:
		return a.workdir(c.Path)
	default:
		return fmt.Errorf("%s is not a valid change command", cmd.Name())
	}
	return nil
}

func (a *applier) entrypoint(c *instructions.EntrypointCommand) {
	a.c.Entrypoint = a.commandLine(c.ShellDependantCmdLine)
	if !a.cmdSet {
		a.c.Cmd = nil
	}
}

func (a *applier) env(vars instructions.KeyValuePairs) {
	for _, v := range vars {
		a.c.Env = a.words.set(a.c.Env, v.Key, v.Value)
	}
}

func (a *applier) labels(labels instructions.KeyValuePairs) {
	for _, l := range labels {
		put(&a.c.Labels, l.Key, l.Value)
	}
}

// commandLine puts the shell in front of a command in shell form.
func (a *applier) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell || c.CmdLine == nil {
		return c.CmdLine
	}
	shell := a.c.Shell
	switch {
	case len(shell) > 0:
	case a.system == "windows":
		shell = []string{"cmd", "/S", "/C"}
	default:
		shell = []string{"/bin/sh", "-c"}
	}
	return append(shell[:len(shell):len(shell)], c.CmdLine...)
}

func (a *applier) volumes(paths []string) error {
	for _, v := range paths {
		if v == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		put(&a.c.Volumes, v, struct{}{})
	}
	return nil
}

// workdir is relative to the one before; 20.10 does not clean it, later
// engines do.
func (a *applier) workdir(dir string) error {
	if dir == "" {
		return errors.New("cannot normalize nothing")
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", a.c.WorkingDir, dir)
	}
	a.c.WorkingDir = path.Clean(dir)
	return nil
}

// stopSignal takes a number or a name of Linux, with SIG or without.
func (a *applier) stopSignal(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil && !isSignal(strings.TrimPrefix(strings.ToUpper(s), "SIG")) || err == nil && n == 0 {
		return fmt.Errorf("invalid signal: %s", s)
	}
	a.c.StopSignal = s
	return nil
}

// signals of Linux (moby: sys/signal).
const signals = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP " +
	"TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX "

func isSignal(name string) bool {
	if n, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		return isNumber(n, 15)
	}
	if n, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		return isNumber(n, 14)
	}
	return name != "" && !strings.Contains(name, " ") && strings.Contains(signals, " "+name+" ")
}

// isNumber tells whether s is one of 1 to most, as they are written.
func isNumber(s string, most int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && 1 <= n && n <= most && s == strconv.Itoa(n)
}

// put sets a key of a map that may not be there yet.
func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}
