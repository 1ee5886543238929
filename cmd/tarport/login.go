package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/internal/client"
)

type loginOptions struct {
	apiOptions
	user          string
	passwordStdin bool
	in            io.Reader
}

func newLoginCmd(a *app) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [registry]",
		Short: "Log in to a registry, for docker, too",
		Long: "Login checks a user's password, an access token, or the secret of a robot (its user is NAMESPACE+NAME), and keeps " +
			"the login where docker keeps its own: in its credential helper or its config.json. What is kept is a token of the server's, and not the password.\n\n" +
			"The registry is HOST[:PORT], over http on this machine and https elsewhere, or a URL: one on this machine that speaks TLS is https://127.0.0.1:5443.",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.registry = args[0]
			}
			o.in = cmd.InOrStdin()
			return runLogin(cmd.Context(), a, o)
		},
	}
	o.flags(a, cmd)
	cmd.Flags().StringVarP(&o.user, "user", "u", "", "who to log in as")
	cmd.Flags().BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func runLogin(ctx context.Context, a *app, o loginOptions) error {
	u, err := o.check()
	if err != nil {
		return err
	}
	logins, err := a.logins()
	if err != nil {
		return err
	}
	ask := newAsker(a, o.in, o.passwordStdin)
	if o.user == "" {
		if o.user, err = ask.text("user"); err != nil {
			return err
		}
	}
	password, err := ask.password(ctx, "password")
	if err != nil {
		return err
	}
	who, err := client.New(client.Options{Registry: u}).Login(ctx, o.user, password)
	if err != nil {
		return err
	}
	place, err := logins.Put(ctx, u.Host, who)
	if err != nil {
		return err
	}
	a.say("Logged in to %s as %s. The login is in %s, where docker finds it.", u.Host, o.user, place)
	return nil
}
