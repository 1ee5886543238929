package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newLogoutCmd(a *app) *cobra.Command {
	var o apiOptions
	cmd := &cobra.Command{
		Use:   "logout [registry]",
		Short: "Forget the login to a registry, for docker, too",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.registry = args[0]
			}
			return runLogout(cmd.Context(), a, o)
		},
	}
	o.flags(a, cmd)
	return cmd
}

func runLogout(ctx context.Context, a *app, o apiOptions) error {
	u, err := o.check()
	if err != nil {
		return err
	}
	logins, err := a.logins()
	if err != nil {
		return err
	}
	found, err := logins.Erase(ctx, u.Host)
	if err != nil {
		return err
	}
	if !found {
		a.say("There was no login to %s.", u.Host)
		return nil
	}
	a.say("The login to %s is forgotten.", u.Host)
	return nil
}
