package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

func newRepositoryCmd(a *app) *cobra.Command {
	var o removeOptions
	cmd := &cobra.Command{
		Use:   "repo",
		Short: "Look after repositories",
		Long:  "Repo looks after whole repositories. They come with the first push or load; tarport ls lists them." + apiUsage,
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.flags(a, cmd)
	cmd.AddCommand(newRepositoryRemoveCmd(a, &o))
	return cmd
}

func newRepositoryRemoveCmd(a *app, o *removeOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm NAMESPACE/NAME",
		Short: "Delete a repository with all its tags and images",
		Long: `Rm deletes a repository with all its tags and images, which needs the role maintainer in its namespace. What it was
cannot be had back. On a terminal the name is to be typed again; where there is none, it needs --yes.` + apiUsage,
		Example: `  tarport repo rm --dry-run team/app
  tarport repo rm --yes team/app`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeRepositories),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := o.repository(a, cmd, args[0])
			if err != nil {
				return err
			}
			return runRepositoryRemove(cmd.Context(), a, o, cmd.InOrStdin(), name)
		},
	}
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func runRepositoryRemove(ctx context.Context, a *app, o *removeOptions, in io.Reader, name string) error {
	if !o.yes && !o.dryRun && !isTerminal(in) {
		return usageError{errors.New("there is no terminal to ask whether all of the repository is to be deleted: use --yes if you mean it")}
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	path := "/repositories/" + escapedRepository(name)
	var r namespaces.Repository
	if err := c.Do(ctx, http.MethodGet, path, nil, nil, &r); err != nil {
		return err
	}
	holds := fmt.Sprintf("%d images and %d tags", r.Manifests, r.Tags)
	if o.dryRun || !o.yes {
		a.say("The repository %s would be deleted, with %s.", name, holds)
	}
	if o.dryRun {
		return nil
	}
	if !o.yes {
		answer, err := newAsker(a, in, false).text("Type its name to delete it")
		if err != nil {
			return err
		}
		if strings.TrimSpace(answer) != name {
			return errors.New("that is not its name: nothing is deleted")
		}
	}
	if err := c.Do(ctx, http.MethodDelete, path, nil, nil, nil); err != nil {
		return err
	}
	a.say("The repository %s is deleted, with %s.", name, holds)
	return nil
}
