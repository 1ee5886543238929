package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

// tokenOptions are the flags of the commands below token.
type tokenOptions struct {
	apiOptions
	new    namespaces.NewToken
	dryRun bool
}

func newTokenCmd(a *app) *cobra.Command {
	o := &tokenOptions{}
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Look after your access tokens",
		Long: "Token looks after your personal access tokens. Each is a password for docker login and for this program, which can be for reading only, " +
			"for one namespace only, and of an end. It cannot make others: log in with your password for that." + apiUsage,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.AddCommand(newTokenListCmd(a, o), newTokenCreateCmd(a, o), newTokenRemoveCmd(a, o))
	return cmd
}

func newTokenListCmd(a *app, o *tokenOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List your tokens",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runTokenList(cmd.Context(), a, o) },
	}
}

func runTokenList(ctx context.Context, a *app, o *tokenOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	tokens, err := collect[namespaces.Token](ctx, c, "/user/tokens", nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, tokens, "ID NAME NAMESPACE READ-ONLY EXPIRES LAST-USED", func(t namespaces.Token) []string {
		ns := t.Namespace
		if ns == "" {
			ns = "all"
		}
		return []string{strconv.FormatInt(t.ID, 10), t.Name, ns, yesNo(t.ReadOnly), expires(t.ExpiresAt), stamp(t.UsedAt)}
	})
}

func newTokenCreateCmd(a *app, o *tokenOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token, and show its secret this once",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.new.Name = args[0]
			return runTokenCreate(cmd.Context(), a, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.new.ReadOnly, "read-only", false, "it may only read")
	f.StringVar(&o.new.Namespace, "namespace", "", "it is for this namespace only")
	f.StringVar(&o.new.ExpiresIn, "expires-in", "never", "its life, such as 720h")
	return cmd
}

func runTokenCreate(ctx context.Context, a *app, o *tokenOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var t namespaces.Token
	if err := c.Do(ctx, http.MethodPost, "/user/tokens", nil, o.new, &t); err != nil {
		return err
	}
	a.say("The secret is shown only this once.")
	return showOne(a.out, o.format, t, "id", strconv.FormatInt(t.ID, 10), "name", t.Name, "secret", string(t.Secret), "expires", expires(t.ExpiresAt))
}

func newTokenRemoveCmd(a *app, o *tokenOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm ID|NAME",
		Short: "Revoke a token",
		Long:  "Rm revokes a token, and ends every login by it.",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runTokenRemove(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be revoked")
	return cmd
}

func runTokenRemove(ctx context.Context, a *app, o *tokenOptions, which string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	tokens, err := collect[namespaces.Token](ctx, c, "/user/tokens", nil, 0)
	if err != nil {
		return err
	}
	t, ok := findToken(tokens, which)
	if !ok {
		return fmt.Errorf("you have no token %s", which)
	}
	if o.dryRun {
		a.say("The token %d, %s, would be revoked.", t.ID, t.Name)
		return nil
	}
	if err := c.Do(ctx, http.MethodDelete, pathf("/user/tokens/%s", strconv.FormatInt(t.ID, 10)), nil, nil, nil); err != nil {
		return err
	}
	a.say("The token %d, %s, is revoked.", t.ID, t.Name)
	return nil
}

// findToken finds a token by its id, or else by its name.
func findToken(tokens []namespaces.Token, which string) (found namespaces.Token, ok bool) {
	for _, t := range tokens {
		if strconv.FormatInt(t.ID, 10) == which {
			return t, true
		}
		if t.Name == which {
			found, ok = t, true
		}
	}
	return found, ok
}
