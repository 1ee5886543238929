package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

// userOptions are the flags of the commands below user.
type userOptions struct {
	apiOptions
	admin, disabled, dryRun, passwordStdin bool
	in                                     io.Reader
}

func newUserCmd(a *app) *cobra.Command {
	o := &userOptions{}
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Look after accounts",
		Long:  "User looks after the accounts of people. All but the change of one's own password is for administrators." + apiUsage,
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.AddCommand(newUserListCmd(a, o), newUserCreateCmd(a, o), newUserSetCmd(a, o), newUserRemoveCmd(a, o), newUserPasswordCmd(a, o))
	return cmd
}

func newUserListCmd(a *app, o *userOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the accounts",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runUserList(cmd.Context(), a, o) },
	}
}

func runUserList(ctx context.Context, a *app, o *userOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	users, err := collect[namespaces.User](ctx, c, "/users", nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, users, "NAME ADMIN DISABLED CREATED", func(u namespaces.User) []string {
		return []string{u.Name, yesNo(u.Admin), yesNo(u.Disabled), stamp(u.CreatedAt)}
	})
}

func showUser(a *app, o *userOptions, u namespaces.User) error {
	return showOne(a.out, o.format, u, "name", u.Name, "admin", yesNo(u.Admin), "disabled", yesNo(u.Disabled), "created", stamp(u.CreatedAt))
}

func newUserCreateCmd(a *app, o *userOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an account",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			return runUserCreate(cmd.Context(), a, o, args[0])
		},
	}
	cmd.Flags().BoolVar(&o.admin, "admin", false, "make it an administrator")
	cmd.Flags().BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func runUserCreate(ctx context.Context, a *app, o *userOptions, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	password, err := newAsker(a, o.in, o.passwordStdin).newPassword(ctx, "password of "+name)
	if err != nil {
		return err
	}
	var u namespaces.User
	if err := c.Do(ctx, http.MethodPost, "/users", nil, namespaces.NewUser{Name: name, Password: password.Reveal(), Admin: o.admin}, &u); err != nil {
		return err
	}
	return showUser(a, o, u)
}

func newUserSetCmd(a *app, o *userOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change an account: --admin=false, --disabled",
		Long:  "Set changes an account. Who is disabled is logged out everywhere, within seconds.",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var p namespaces.UserPatch
			if cmd.Flags().Changed("admin") {
				p.Admin = &o.admin
			}
			if cmd.Flags().Changed("disabled") {
				p.Disabled = &o.disabled
			}
			if p == (namespaces.UserPatch{}) {
				return usageError{errNothingToSet}
			}
			return runUserSet(cmd.Context(), a, o, args[0], p)
		},
	}
	cmd.Flags().BoolVar(&o.admin, "admin", false, "make it an administrator, or none")
	cmd.Flags().BoolVar(&o.disabled, "disabled", false, "disable it, or enable it again")
	return cmd
}

func runUserSet(ctx context.Context, a *app, o *userOptions, name string, p namespaces.UserPatch) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var u namespaces.User
	if err := c.Do(ctx, http.MethodPatch, pathf("/users/%s", name), nil, p, &u); err != nil {
		return err
	}
	return showUser(a, o, u)
}

func newUserRemoveCmd(a *app, o *userOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete an account",
		Long:  "Rm deletes an account with its tokens and memberships. What it did stays in the audit, under its name.",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runUserRemove(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func runUserRemove(ctx context.Context, a *app, o *userOptions, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	path := pathf("/users/%s", name)
	if o.dryRun {
		if err := c.Do(ctx, http.MethodGet, path, nil, nil, nil); err != nil {
			return err
		}
		a.say("The user %s would be deleted.", name)
		return nil
	}
	if err := c.Do(ctx, http.MethodDelete, path, nil, nil, nil); err != nil {
		return err
	}
	a.say("The user %s is deleted.", name)
	return nil
}

func newUserPasswordCmd(a *app, o *userOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd [NAME]",
		Short: "Change one's own password, or that of another account",
		Long: "Passwd changes one's own password, and asks for the current one first; administrators can set that of another account. " +
			"All logins of the account end, but for those by access tokens. With --password-stdin the lines are the current and the new password, or only the new one.",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			if len(args) == 0 {
				return runOwnPassword(cmd.Context(), a, o)
			}
			return runUserPassword(cmd.Context(), a, o, args[0])
		},
	}
	cmd.Flags().BoolVar(&o.passwordStdin, "password-stdin", false, "read the passwords from standard input")
	return cmd
}

func runOwnPassword(ctx context.Context, a *app, o *userOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	ask := newAsker(a, o.in, o.passwordStdin)
	old, err := ask.password(ctx, "current password")
	if err != nil {
		return err
	}
	password, err := ask.newPassword(ctx, "new password")
	if err != nil {
		return err
	}
	body := map[string]string{"old_password": old.Reveal(), "password": password.Reveal()}
	if err := c.Do(ctx, http.MethodPut, "/user/password", nil, body, nil); err != nil {
		return err
	}
	a.say("Your password is changed, and your logins have ended: use tarport login.")
	return nil
}

func runUserPassword(ctx context.Context, a *app, o *userOptions, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	password, err := newAsker(a, o.in, o.passwordStdin).newPassword(ctx, "new password of "+name)
	if err != nil {
		return err
	}
	text := password.Reveal()
	if err := c.Do(ctx, http.MethodPatch, pathf("/users/%s", name), nil, namespaces.UserPatch{Password: &text}, nil); err != nil {
		return err
	}
	a.say("The password of %s is changed, and its logins have ended.", name)
	return nil
}
