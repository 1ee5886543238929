package main

import (
	"context"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

type importOptions struct {
	sendOptions
	makeOptions
	platform string
	in       io.Reader
}

// makeOptions say what becomes part of an image that is made here.
type makeOptions struct {
	message, author string
	changes         []string
}

func (o *makeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.message, "message", "m", "", "what is new, for the image's history")
	f.StringVarP(&o.author, "author", "a", "", `who made it, such as "Ann <ann@example.com>"`)
	f.StringArrayVarP(&o.changes, "change", "c", nil,
		"a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR; can be repeated")
}

// query adds them to the query of a name.
func (o *makeOptions) query(q url.Values) {
	for key, value := range map[string]string{"message": o.message, "author": o.author} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if len(o.changes) > 0 {
		q["changes"] = o.changes
	}
}

func newImportCmd(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE|- NAME[:TAG]",
		Short: "Make an image of a root file system, as docker export writes it",
		Long: `Import makes an image of one layer of any tar of a root file system: what docker export writes, debootstrap and tar,
or a build system; compressed or not; - is standard input. NAME is NAMESPACE/REPOSITORY.` + apiUsage,
		Example: `  docker export web | tarport import -m "as it ran on Friday" - team/web:friday
  tarport import -c 'CMD ["/bin/sh"]' -c 'ENV LANG=C.UTF-8' --platform linux/arm64 rootfs.tar.xz team/base:1`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			if err := o.imageNames(a, cmd, &args[1]); err != nil {
				return err
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return runImport(ctx, a, &o, args[0], args[1]) })
		},
	}
	o.sendOptions.flags(a, cmd)
	o.resumeFlag(cmd)
	o.makeOptions.flags(cmd)
	cmd.Flags().StringVar(&o.platform, "platform", "", "the image's platform, such as linux/arm64/v8; linux on what the registry runs on where not given")
	return cmd
}

func runImport(ctx context.Context, a *app, o *importOptions, file, name string) error {
	if err := o.checkSend(); err != nil {
		return err
	}
	q, err := target(name)
	if err != nil {
		return err
	}
	o.query(q)
	for key, value := range map[string]string{"platform": o.platform, "compression": o.compression} {
		if value != "" {
			q.Set(key, value)
		}
	}
	m, err := o.sender(ctx, a)
	if err != nil {
		return err
	}
	defer m.d.Close()
	out, err := sendOne(ctx, m, file, o.in, func(*transfer.File) (transfer.Job, error) {
		return transfer.Job{Route: "import", Query: q}, nil
	})
	if err != nil {
		return err
	}
	warnings(m.d, out)
	m.d.Close()
	return showOutcome(a, &o.sendOptions, *out)
}
