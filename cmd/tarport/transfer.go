package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/internal/client"
)

// transferOptions are the flags of the commands that move archives.
type transferOptions struct {
	apiOptions
	quiet bool
}

func (o *transferOptions) flags(a *app, cmd *cobra.Command) {
	o.apiOptions.flags(a, cmd)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
}

// sendOptions are those of the ones that send.
type sendOptions struct {
	transferOptions
	resume      string
	partSize    string
	compression string
}

func (o *sendOptions) flags(a *app, cmd *cobra.Command) {
	o.transferOptions.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().StringVar(&o.compression, "compression", "", "of layers that come uncompressed: gzip, zstd or none; the registry's default where not given")
}

// resumeFlag is for those that send files.
func (o *sendOptions) resumeFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.resume, "resume", string(transfer.ResumeAuto),
		"send in parts, so that it can be gone on with: auto (files of "+bytesText(transfer.DefaultThreshold)+" and more), always or never")
	cmd.Flags().Lookup("resume").NoOptDefVal = string(transfer.ResumeAlways)
	cmd.Flags().StringVar(&o.partSize, "part-size", "64MiB", "how much is sent at once, in parts; less where a proxy on the way takes less")
}

func (o *sendOptions) checkSend() error {
	switch transfer.Resume(o.resume) {
	case "", transfer.ResumeAuto, transfer.ResumeAlways, transfer.ResumeNever:
	default:
		return usageError{fmt.Errorf("--resume %q is none of auto, always and never", o.resume)}
	}
	switch o.compression {
	case "", "gzip", "zstd", "none":
		return nil
	}
	return usageError{fmt.Errorf("--compression %q is none of gzip, zstd and none", o.compression)}
}

// mover is what moves archives for one command.
type mover struct {
	*transfer.Mover
	c *client.Client
	d *progress.Display // to be closed
}

func (o *transferOptions) mover(ctx context.Context, a *app, t transfer.Options) (*mover, error) {
	c, err := o.client(ctx, a)
	if err != nil {
		return nil, err
	}
	d := progress.New(progress.Options{Out: a.err, Quiet: o.quiet})
	t.Client, t.Display = c, d
	if dir := a.cacheDir(); dir != "" {
		t.States = transfer.NewStates(filepath.Join(dir, "tarport", "transfers"))
	}
	return &mover{transfer.New(t), c, d}, nil
}

// sender is a mover that does as the flags say.
func (o *sendOptions) sender(ctx context.Context, a *app) (*mover, error) {
	t := transfer.Options{Resume: transfer.Resume(o.resume)}
	if o.partSize != "" {
		size, err := config.ParseSize(o.partSize)
		if err != nil || size <= 0 {
			return nil, usageError{fmt.Errorf("--part-size %q is no size, such as 64MiB", o.partSize)}
		}
		t.Part = int64(size)
	}
	return o.mover(ctx, a, t)
}

// cacheDir is where the user's programs keep what they can do without; "" where
// there is no such place.
func (a *app) cacheDir() string {
	if dir := config.Getenv(a.environ, "XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := config.Getenv(a.environ, "HOME"); home != "" {
		return filepath.Join(home, ".cache")
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return dir
}

// interruptedError is the end by a signal.
type interruptedError struct{ error }

func (e interruptedError) Unwrap() error { return e.error }

// interruptible runs what Ctrl-C is to end in order: connections are closed, so
// that the registry drops what it was sent, containers go on, and it is said
// what stays. A second signal ends the process at once.
func interruptible(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := f(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	if e, ok := errors.AsType[*transfer.InterruptedError](err); ok {
		e.Err = errors.New("interrupted")
		return interruptedError{e}
	}
	if e, ok := errors.AsType[*transfer.StoppedError](err); ok {
		e.Err = errors.New("interrupted")
		return interruptedError{e}
	}
	return interruptedError{errors.New("interrupted: nothing is left of it")}
}

// imageNames takes the registry's host off names of images, as docker writes
// them, and makes it the registry to ask where none was named.
func (o *apiOptions) imageNames(a *app, cmd *cobra.Command, names ...*string) error {
	named := cmd.Flags().Changed("registry") || config.Getenv(a.environ, config.EnvRegistry) != ""
	for _, name := range names {
		host, rest := splitHost(*name)
		if host == "" {
			continue
		}
		if !named {
			o.registry, named = host, true
		}
		if u, err := client.ParseRegistry(o.registry, o.plain); err != nil || u.Host != host {
			return usageError{fmt.Errorf("%s is at another registry than %s: leave out --registry, or the host in the name", *name, o.registry)}
		}
		*name = rest
	}
	return nil
}

// splitHost splits the name of an image as docker does: its first part is a
// host where it has a dot or a colon, or is localhost.
func splitHost(name string) (host, rest string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, rest
	}
	return "", name
}

// splitTag splits repository[:tag].
func splitTag(name string) (repository, tag string) {
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		return name[:at], name[at+1:]
	}
	return name, ""
}

// target is the name that something gets: NAMESPACE/NAME[:TAG].
func target(name string) (url.Values, error) {
	repository, tag := splitTag(name)
	if strings.Contains(name, "@") {
		return nil, usageError{fmt.Errorf("%s has a digest, which nothing can be named", name)}
	}
	if !strings.Contains(repository, "/") {
		return nil, usageError{fmt.Errorf("%s has no namespace: write it as NAMESPACE/%s", name, name)}
	}
	q := url.Values{"repo": {repository}}
	if tag != "" {
		q.Set("tag", tag)
	}
	return q, nil
}

// defaultNamespace is where images go of which nobody says it: where names of
// the archive say it with this registry's host, or else the only one there is
// to push to.
func defaultNamespace(ctx context.Context, c *client.Client, names []string) (string, error) {
	var found []string
	for _, name := range names {
		host, rest := splitHost(name)
		if ns, _, ok := strings.Cut(rest, "/"); ok && host == c.Host() && !slices.Contains(found, ns) {
			found = append(found, ns)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var me namespaces.Me
	if err := c.Do(ctx, http.MethodGet, "/user", nil, nil, &me); err != nil {
		return "", err
	}
	if ns, _, ok := strings.Cut(me.Name, "+"); ok && me.Robot {
		return ns, nil
	}
	if me.Token != nil && me.Token.Namespace != "" {
		return me.Token.Namespace, nil
	}
	list, err := collect[namespaces.Namespace](ctx, c, "/namespaces", nil, 0)
	if err != nil {
		return "", err
	}
	found = nil
	for _, n := range list {
		if n.Role.AtLeast(tarport.Writer) {
			found = append(found, n.Name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return "", usageError{errors.New("say into which namespace the images go: --namespace NAME; it is made where there is none")}
	}
	const most = 10
	more := ""
	if len(found) > most {
		found, more = found[:most], " …"
	}
	return "", usageError{fmt.Errorf("say into which namespace the images go: --namespace NAME; you may push to %s%s", strings.Join(found, ", "), more)}
}

// showOutcome prints what came of archives.
func showOutcome(a *app, o *sendOptions, out transfer.Outcome) error {
	if o.format != "json" && o.quiet {
		for _, im := range out.Images {
			if _, err := fmt.Fprintln(a.out, im.Name); err != nil {
				return err
			}
		}
		return nil
	}
	if o.format == "json" {
		return writeJSON(a.out, out)
	}
	return showList(a.out, o.format, out.Images, "NAME PLATFORM DIGEST SIZE LAYERS", func(im archive.Image) []string {
		return []string{im.Name, platforms(im), longDigest.ReplaceAllString(im.Digest.String(), "$1"), bytesText(im.Size), layersText(im)}
	})
}

func platforms(im archive.Image) string {
	list := []string{}
	for _, m := range append([]archive.Manifest{im.Manifest}, im.Manifests...) {
		if m.Platform != "" && !slices.Contains(list, m.Platform) {
			list = append(list, m.Platform)
		}
	}
	return strings.Join(list, ",")
}

// layersText says how many layers an image has, and how many of them are new.
func layersText(im archive.Image) string {
	all, stored := 0, 0
	for _, m := range append([]archive.Manifest{im.Manifest}, im.Manifests...) {
		for _, l := range m.Layers {
			if all++; l.Status == "stored" {
				stored++
			}
		}
	}
	return strconv.Itoa(all) + " (" + strconv.Itoa(stored) + " new)"
}

// warnings says what of an archive is not as it might be thought.
func warnings(d *progress.Display, out *transfer.Outcome) {
	for _, im := range out.Images {
		for _, w := range im.Warnings {
			d.Warn("warning: %s: %s", im.Name, w)
		}
	}
}

// isTerminal tells whether r or w is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// sendOne sends a file, or standard input for "-". Job is asked what to do with
// it; the file is nil where it can be read only once.
func sendOne(ctx context.Context, m *mover, name string, stdin io.Reader, job func(*transfer.File) (transfer.Job, error)) (*transfer.Outcome, error) {
	if name == "-" {
		if isTerminal(stdin) {
			return nil, usageError{errors.New("standard input is a terminal: name a file, or pipe an archive in")}
		}
		return sendStream(ctx, m, stdin, job)
	}
	f, err := transfer.OpenFile(name)
	if errors.Is(err, transfer.ErrNotRegular) {
		pipe, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = pipe.Close() }()
		return sendStream(ctx, m, pipe, job)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	j, err := job(f)
	if err != nil {
		return nil, err
	}
	return m.File(ctx, j, f)
}

func sendStream(ctx context.Context, m *mover, r io.Reader, job func(*transfer.File) (transfer.Job, error)) (*transfer.Outcome, error) {
	j, err := job(nil)
	if err != nil {
		return nil, err
	}
	return m.Stream(ctx, j, r)
}
