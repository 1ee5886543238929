package main

import (
	"context"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

func newRuleListCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "rules NAME",
		Short: "List the rules that make tags of a namespace immutable",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runRuleList(cmd.Context(), a, o, args[0]) },
	}
}

func runRuleList(ctx context.Context, a *app, o *nsOptions, ns string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	rules, err := collect[namespaces.Rule](ctx, c, pathf("/namespaces/%s/immutable-rules", ns), nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, rules, "ID SYNTAX REPOSITORY EXCEPT TAG EXCEPT CREATED BY", func(r namespaces.Rule) []string {
		return []string{strconv.FormatInt(r.ID, 10), r.Syntax, orAll(r.Repository), r.ExceptRepository, orAll(r.Tag), r.ExceptTag, stamp(r.CreatedAt), r.CreatedBy}
	})
}

// orAll is a pattern in a table: an empty one matches everything.
func orAll(pattern string) string {
	if pattern == "" {
		return "all"
	}
	return pattern
}

func newRuleAddCmd(a *app, o *nsOptions) *cobra.Command {
	var n namespaces.NewRule
	re2 := false
	cmd := &cobra.Command{
		Use:   "protect NAME",
		Short: "Make tags of a namespace immutable",
		Long: "Protect adds a rule: a tag that it matches can be set once, and then be neither moved nor deleted. Patterns are globs, " +
			"or regular expressions with --re2; without one all match.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Syntax = "glob"
			if re2 {
				n.Syntax = "re2"
			}
			return runRuleAdd(cmd.Context(), a, o, args[0], n)
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Tag, "tag", "", "tags that match, such as v*")
	f.StringVar(&n.ExceptTag, "except-tag", "", "but not those that match this")
	f.StringVar(&n.Repository, "repository", "", "in repositories whose name behind the namespace matches")
	f.StringVar(&n.ExceptRepository, "except-repository", "", "but not those that match this")
	f.BoolVar(&re2, "re2", false, "the patterns are regular expressions")
	return cmd
}

func runRuleAdd(ctx context.Context, a *app, o *nsOptions, ns string, n namespaces.NewRule) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var r namespaces.Rule
	if err := c.Do(ctx, http.MethodPost, pathf("/namespaces/%s/immutable-rules", ns), nil, n, &r); err != nil {
		return err
	}
	return showOne(a.out, o.format, r, "id", strconv.FormatInt(r.ID, 10), "syntax", r.Syntax,
		"repository", orAll(r.Repository), "except repository", r.ExceptRepository, "tag", orAll(r.Tag), "except tag", r.ExceptTag)
}

func newRuleRemoveCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "unprotect NAME ID",
		Short: "Take a rule of a namespace away",
		Args:  usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRuleRemove(cmd.Context(), a, o, args[0], args[1])
		},
	}
}

func runRuleRemove(ctx context.Context, a *app, o *nsOptions, ns, id string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	if err := c.Do(ctx, http.MethodDelete, pathf("/namespaces/%s/immutable-rules/%s", ns, id), nil, nil, nil); err != nil {
		return err
	}
	a.say("The rule %s of %s is taken away.", id, ns)
	return nil
}
