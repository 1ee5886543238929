package main

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/internal/client"
)

type listOptions struct {
	apiOptions
	name string
}

func newListCmd(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "ls [NAMESPACE]",
		Short: "List the repositories that you may pull from",
		Long:  `Ls lists repositories: those of a namespace, or all that you may pull from.` + apiUsage,
		Example: `  tarport ls
  tarport ls team
  tarport ls -q openjdk`,
		Args:              usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: o.complete(a, completeNamespaces),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return runList(cmd.Context(), a, &o, "/repositories")
			}
			if err := tarport.CheckNamespace(args[0]); err != nil {
				return usageError{err}
			}
			return runList(cmd.Context(), a, &o, pathf("/namespaces/%s/repositories", args[0]))
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().StringVarP(&o.name, "query", "q", "", "only those with this in their names")
	return cmd
}

var repositoryColumns = []table.Column{
	{Head: "NAME"}, {Head: "TAGS"}, {Head: "IMAGES", Rank: 1}, {Head: "CHANGED", Rank: 2}, {Head: "DESCRIPTION", Min: 12, Rank: 3},
}

func runList(ctx context.Context, a *app, o *listOptions, path string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "q", o.name)
	list, err := collect[namespaces.Repository](ctx, c, path, q, 0)
	if err != nil {
		return err
	}
	return showTable(a.out, o.format, list, repositoryColumns, func(r namespaces.Repository) []string {
		return []string{r.Name, strconv.FormatInt(r.Tags, 10), strconv.FormatInt(r.Manifests, 10), when(a.out, r.UpdatedAt), r.Description}
	})
}

// completeNamespaces finds names of namespaces.
func completeNamespaces(ctx context.Context, c *client.Client, word string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for n, err := range client.List[namespaces.Namespace](ctx, c, "/namespaces", nil) {
		if err != nil || len(list) == completionMost {
			break
		}
		if strings.HasPrefix(n.Name, word) {
			list = append(list, n.Name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
