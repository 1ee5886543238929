package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

type fetchOptions struct {
	transferOptions
	output   string
	platform string
}

func (o *fetchOptions) flags(a *app, cmd *cobra.Command) {
	o.transferOptions.flags(a, cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the file to write; standard output where not given")
	cmd.Flags().StringVar(&o.platform, "platform", "", "only this platform, such as linux/arm64")
}

// fetch writes what there is at the path to where the flags say.
func (o *fetchOptions) fetch(ctx context.Context, a *app, path string, q url.Values) error {
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	if o.output == "" && isTerminal(a.out) {
		return usageError{errors.New("an archive is nothing for a terminal: use -o FILE, or redirect the output")}
	}
	m, err := o.mover(ctx, a, transfer.Options{})
	if err != nil {
		return err
	}
	defer m.d.Close()
	src := transfer.Source{Path: path, Query: q}
	if o.output == "" || o.output == "-" {
		return m.Copy(ctx, src, "standard output", a.out)
	}
	return m.Fetch(ctx, src, o.output)
}

type saveOptions struct {
	fetchOptions
	archiveFormat, compression string
}

func newSaveCmd(a *app) *cobra.Command {
	var o saveOptions
	cmd := &cobra.Command{
		Use:   "save [-o FILE] IMAGE...",
		Short: "Write images into one archive, as docker save does",
		Long: `Save writes images, NAMESPACE/NAME[:TAG] or NAMESPACE/NAME@DIGEST, into one archive that docker load, podman, skopeo and
crane take, with all their platforms. The file is there when it is whole; until then it is FILE.part, and the same
command goes on with that after a break.` + apiUsage,
		Example: `  tarport save -o shop.tar team/app:1.4 team/worker:1.4
  tarport save team/app:1.4 | docker load
  tarport save --platform linux/amd64 --compression gzip -o old-docker.tar team/app:1.4`,
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: o.completeAll(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.imageNames(a, cmd, pointers(args)...); err != nil {
				return err
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return runSave(ctx, a, &o, args) })
		},
	}
	o.flags(a, cmd)
	cmd.ValidArgsFunction = o.completeAll(a, completeImages)
	cmd.Flags().StringVar(&o.archiveFormat, "archive-format", "docker", "docker (which is an OCI layout, too), or oci: without Docker's manifest.json")
	cmd.Flags().StringVar(&o.compression, "compression", "", "gzip: turn zstd layers to gzip, for a docker before 23; as they are stored where not given")
	return cmd
}

func runSave(ctx context.Context, a *app, o *saveOptions, images []string) error {
	if o.archiveFormat != "docker" && o.archiveFormat != "oci" {
		return usageError{fmt.Errorf("--archive-format %q is neither docker nor oci", o.archiveFormat)}
	}
	q := url.Values{"image": images, "format": {o.archiveFormat}}
	if o.compression != "" {
		q.Set("compression", o.compression)
	}
	return o.fetch(ctx, a, "/archives/save", q)
}

func pointers(list []string) []*string {
	out := make([]*string, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}
