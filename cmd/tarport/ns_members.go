package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

func memberPath(ns, user string) string { return pathf("/namespaces/%s/members/%s", ns, user) }

func newMemberListCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "members NAME",
		Short: "List the members of a namespace",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runMemberList(cmd.Context(), a, o, args[0]) },
	}
}

func runMemberList(ctx context.Context, a *app, o *nsOptions, ns string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	members, err := collect[namespaces.Member](ctx, c, pathf("/namespaces/%s/members", ns), nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, members, "USER ROLE ADDED", func(m namespaces.Member) []string {
		return []string{m.User, string(m.Role), stamp(m.AddedAt)}
	})
}

func newMemberAddCmd(a *app, o *nsOptions) *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:   "add NAME USER",
		Short: "Make a user a member, or give it another role",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMemberAdd(cmd.Context(), a, o, args[0], args[1], role)
		},
	}
	cmd.Flags().StringVar(&role, "role", "reader", "reader, writer, maintainer or owner")
	return cmd
}

func runMemberAdd(ctx context.Context, a *app, o *nsOptions, ns, user, role string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var m namespaces.Member
	if err := c.Do(ctx, http.MethodPut, memberPath(ns, user), nil, map[string]string{"role": role}, &m); err != nil {
		return err
	}
	return showOne(a.out, o.format, m, "user", m.User, "role", string(m.Role))
}

func newMemberRemoveCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME USER",
		Short: "End a membership",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMemberRemove(cmd.Context(), a, o, args[0], args[1])
		},
	}
}

func runMemberRemove(ctx context.Context, a *app, o *nsOptions, ns, user string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodDelete, memberPath(ns, user), nil, nil, nil); err != nil {
		return err
	}
	a.say("%s is no member of %s any more.", user, ns)
	return nil
}
