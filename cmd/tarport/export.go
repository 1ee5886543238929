package main

import (
	"context"
	"net/url"

	"github.com/spf13/cobra"
)

func newExportCmd(a *app) *cobra.Command {
	var o fetchOptions
	cmd := &cobra.Command{
		Use:   "export [-o FILE] IMAGE",
		Short: "Write the file system of an image, as docker export does",
		Long: `Export writes what a container of the image would find: one tar of its layers, one over the other. It is what
"tarport import" and docker import take.` + apiUsage,
		Example: `  tarport export -o rootfs.tar team/app:1.4
  tarport export team/app:1.4 | tar -x -C rootfs`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.imageNames(a, cmd, &args[0]); err != nil {
				return err
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error {
				return o.fetch(ctx, a, "/archives/export", url.Values{"image": args})
			})
		},
	}
	o.flags(a, cmd)
	cmd.ValidArgsFunction = o.complete(a, completeImages)
	return cmd
}
