package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/namespaces"
)

// robotOptions are the flags of the commands below robot.
type robotOptions struct {
	apiOptions
	role, expiresIn  string
	disabled, dryRun bool
}

func newRobotCmd(a *app) *cobra.Command {
	o := &robotOptions{}
	cmd := &cobra.Command{
		Use:   "robot",
		Short: "Look after the accounts of machines",
		Long: "Robot looks after the robots of a namespace: accounts for machines, which log in as NAMESPACE+NAME with a secret of their own. " +
			"It is for the owners of the namespace." + apiUsage,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.AddCommand(newRobotListCmd(a, o), newRobotCreateCmd(a, o), newRobotRotateCmd(a, o), newRobotSetCmd(a, o), newRobotRemoveCmd(a, o))
	return cmd
}

func robotPath(ns, name string) string { return pathf("/namespaces/%s/robots/%s", ns, name) }

func newRobotListCmd(a *app, o *robotOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "ls NAMESPACE",
		Short: "List the robots of a namespace",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runRobotList(cmd.Context(), a, o, args[0]) },
	}
}

func runRobotList(ctx context.Context, a *app, o *robotOptions, ns string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	robots, err := collect[namespaces.Robot](ctx, c, pathf("/namespaces/%s/robots", ns), nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, robots, "LOGIN ROLE DISABLED EXPIRES CREATED", func(r namespaces.Robot) []string {
		return []string{r.Login, string(r.Role), yesNo(r.Disabled), expires(r.ExpiresAt), stamp(r.CreatedAt)}
	})
}

// showRobot prints a robot, and its secret where the server sent one.
func showRobot(a *app, o *robotOptions, r namespaces.Robot) error {
	cells := []string{"login", r.Login, "role", string(r.Role), "disabled", yesNo(r.Disabled), "expires", expires(r.ExpiresAt)}
	if r.Secret != "" {
		a.say("The secret is shown only this once.")
		cells = append(cells, "secret", string(r.Secret))
	}
	return showOne(a.out, o.format, r, cells...)
}

func newRobotCreateCmd(a *app, o *robotOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAMESPACE NAME",
		Short: "Make a robot, and show its secret this once",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := namespaces.NewRobot{Name: args[1], Role: tarport.Role(o.role), ExpiresIn: o.expiresIn}
			return runRobotCreate(cmd.Context(), a, o, args[0], n)
		},
	}
	cmd.Flags().StringVar(&o.role, "role", string(tarport.Reader), "reader, writer or maintainer")
	cmd.Flags().StringVar(&o.expiresIn, "expires-in", "never", "its life, such as 720h")
	return cmd
}

func runRobotCreate(ctx context.Context, a *app, o *robotOptions, ns string, n namespaces.NewRobot) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var r namespaces.Robot
	if err := c.Do(ctx, http.MethodPost, pathf("/namespaces/%s/robots", ns), nil, n, &r); err != nil {
		return err
	}
	return showRobot(a, o, r)
}

func newRobotRotateCmd(a *app, o *robotOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate NAMESPACE NAME",
		Short: "Give a robot another secret",
		Long:  "Rotate gives a robot another secret, which is shown this once. The old one ends at once.",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRobotSet(cmd.Context(), a, o, args[0], args[1], namespaces.RobotPatch{Rotate: true})
		},
	}
}

func newRobotSetCmd(a *app, o *robotOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAMESPACE NAME",
		Short: "Change a robot: --role, --disabled, --expires-in",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var p namespaces.RobotPatch
			if cmd.Flags().Changed("role") {
				role := tarport.Role(o.role)
				p.Role = &role
			}
			if cmd.Flags().Changed("disabled") {
				p.Disabled = &o.disabled
			}
			if cmd.Flags().Changed("expires-in") {
				p.ExpiresIn = &o.expiresIn
			}
			if p == (namespaces.RobotPatch{}) {
				return usageError{errNothingToSet}
			}
			return runRobotSet(cmd.Context(), a, o, args[0], args[1], p)
		},
	}
	cmd.Flags().StringVar(&o.role, "role", "", "reader, writer or maintainer")
	cmd.Flags().BoolVar(&o.disabled, "disabled", false, "disable it, or enable it again")
	cmd.Flags().StringVar(&o.expiresIn, "expires-in", "", "its life from now on, such as 720h, or never")
	return cmd
}

func runRobotSet(ctx context.Context, a *app, o *robotOptions, ns, name string, p namespaces.RobotPatch) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var r namespaces.Robot
	if err := c.Do(ctx, http.MethodPatch, robotPath(ns, name), nil, p, &r); err != nil {
		return err
	}
	return showRobot(a, o, r)
}

func newRobotRemoveCmd(a *app, o *robotOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm NAMESPACE NAME",
		Short: "Delete a robot",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRobotRemove(cmd.Context(), a, o, args[0], args[1])
		},
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func runRobotRemove(ctx context.Context, a *app, o *robotOptions, ns, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	if o.dryRun {
		robots, err := collect[namespaces.Robot](ctx, c, pathf("/namespaces/%s/robots", ns), nil, 0)
		if err != nil {
			return err
		}
		for _, r := range robots {
			if r.Name == name || r.Login == name {
				a.say("The robot %s would be deleted.", r.Login)
				return nil
			}
		}
		return fmt.Errorf("the namespace %s has no robot %s", ns, name)
	}
	if err := c.Do(ctx, http.MethodDelete, robotPath(ns, name), nil, nil, nil); err != nil {
		return err
	}
	a.say("The robot %s of %s is deleted.", name, ns)
	return nil
}
