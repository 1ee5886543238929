package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

type loadOptions struct {
	sendOptions
	namespace, repo, tag string
	rename               []string
	whole                bool
	in                   io.Reader
}

func newLoadCmd(a *app) *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load FILE... | -",
		Short: "Make images of archives, as docker save writes them",
		Long: `Load makes images of the archives that docker save, podman, skopeo, buildx, crane and others write, compressed or not;
- is standard input. Of a file only the layers are sent that the registry does not have: an image that is there takes no
time. A large file is sent in parts, and when the connection breaks, or the command is interrupted, the same command
goes on from where it stopped.

An image app:1.4 becomes NAMESPACE/app:1.4. Its namespace is the one of --namespace; or that of the names in the
archive, where they are of this registry; or the only one that you may push to.` + apiUsage,
		Example: `  docker save app:1.4 worker:1.4 | tarport load -n team -
  tarport load -n team app.tar.gz tools.tar
  tarport load -n team --repo app --tag 1.4 nameless.tar
  tarport load -n team --rename app:1.4=web/app:1.4.1 app.tar`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			return interruptible(cmd.Context(), func(ctx context.Context) error { return runLoad(ctx, a, &o, args) })
		},
	}
	o.flags(a, cmd)
	o.resumeFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "where the images go")
	f.StringVar(&o.repo, "repo", "", "the name of an image that has none, or of the only one")
	f.StringVar(&o.tag, "tag", "", "its tag")
	f.StringArrayVar(&o.rename, "rename", nil, "OLD=NEW: another name for the image OLD, or for the one of that ID; can be repeated")
	f.BoolVar(&o.whole, "whole", false, "send also the layers that the registry has")
	return cmd
}

func (o *loadOptions) check(files []string) error {
	if err := o.checkSend(); err != nil {
		return err
	}
	if len(files) > 1 && (o.repo != "" || o.tag != "") {
		return usageError{errors.New("--repo and --tag name one image, of one file")}
	}
	if len(o.rename) > 0 && (o.repo != "" || o.tag != "") {
		return usageError{errors.New("--rename cannot be used together with --repo or --tag")}
	}
	stdin := 0
	for _, name := range files {
		if name == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return usageError{errors.New("standard input can be read once")}
	}
	return nil
}

func runLoad(ctx context.Context, a *app, o *loadOptions, files []string) error {
	if err := o.check(files); err != nil {
		return err
	}
	m, err := o.sender(ctx, a)
	if err != nil {
		return err
	}
	defer m.d.Close()
	l := &loads{o: o, m: m, begun: time.Now()}
	failed, bad := error(nil), 0
	for _, name := range files {
		err := l.load(ctx, name)
		_, misused := errors.AsType[usageError](err)
		if err != nil && (misused || len(files) == 1 || ctx.Err() != nil) {
			failed = err
			break
		}
		if err != nil {
			bad++
			m.d.Warn("tarport: %s: %s", name, explain(err))
			failed = fmt.Errorf("%d of %d files were not loaded", bad, len(files))
		}
	}
	if err := l.show(a); err != nil {
		return err
	}
	return failed
}

// loads are the files of one command.
type loads struct {
	o     *loadOptions
	m     *mover
	begun time.Time
	all   transfer.Outcome
}

// load loads one file.
func (l *loads) load(ctx context.Context, name string) error {
	out, err := sendOne(ctx, l.m, name, l.o.in, func(f *transfer.File) (transfer.Job, error) { return l.job(ctx, f) })
	if err != nil {
		return err
	}
	l.all.Images = append(l.all.Images, out.Images...)
	l.all.BytesRead += out.BytesRead
	l.all.BytesStored += out.BytesStored
	l.all.BytesSent += out.BytesSent
	warnings(l.m.d, out)
	return nil
}

// job is what the registry is to do with an archive.
func (l *loads) job(ctx context.Context, f *transfer.File) (transfer.Job, error) {
	var names []string
	if f != nil && !l.o.whole {
		f.Look(ctx, l.m.d)
	}
	if err := ctx.Err(); err != nil {
		return transfer.Job{}, err
	}
	if f != nil && f.Archive != nil {
		names = f.Archive.Names
	}
	ns := l.o.namespace
	if first, _, ok := strings.Cut(l.o.repo, "/"); ns == "" && ok {
		ns = first
	}
	if ns == "" {
		var err error
		if ns, err = defaultNamespace(ctx, l.m.c, names); err != nil {
			return transfer.Job{}, err
		}
	}
	q := url.Values{"namespace": {ns}}
	for key, value := range map[string]string{"repo": l.o.repo, "tag": l.o.tag, "compression": l.o.compression} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if len(l.o.rename) > 0 {
		q["rename"] = l.o.rename
	}
	return transfer.Job{Route: "load", Query: q, Whole: l.o.whole}, nil
}

// show prints what was loaded.
func (l *loads) show(a *app) error {
	if len(l.all.Images) == 0 {
		return nil
	}
	l.m.d.Say("%s sent, %s stored, in %s", bytesText(l.all.BytesSent), bytesText(l.all.BytesStored), time.Since(l.begun).Round(10*time.Millisecond))
	l.m.d.Close()
	return showOutcome(a, &l.o.sendOptions, l.all)
}
