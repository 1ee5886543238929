package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/extensions/namespaces"
)

// nsOptions are the flags of the commands below ns.
type nsOptions struct {
	apiOptions
	visibility, description, quota string
	force, dryRun                  bool
}

var errNothingToSet = errors.New("there is nothing to set: use a flag that says what")

func newNamespaceCmd(a *app) *cobra.Command {
	o := &nsOptions{}
	cmd := &cobra.Command{
		Use:   "ns",
		Short: "Look after namespaces, their members and rules",
		Long: "Ns looks after namespaces. Each holds repositories, is private or public, and has members: a reader pulls, a writer pushes, " +
			"a maintainer deletes, an owner says who is one of them." + apiUsage,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.AddCommand(
		newNamespaceListCmd(a, o), newNamespaceCreateCmd(a, o), newNamespaceShowCmd(a, o), newNamespaceSetCmd(a, o), newNamespaceRemoveCmd(a, o),
		newMemberListCmd(a, o), newMemberAddCmd(a, o), newMemberRemoveCmd(a, o),
		newRuleListCmd(a, o), newRuleAddCmd(a, o), newRuleRemoveCmd(a, o),
	)
	return cmd
}

func newNamespaceListCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the namespaces that you may see",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNamespaceList(cmd.Context(), a, o) },
	}
}

func runNamespaceList(ctx context.Context, a *app, o *nsOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	list, err := collect[namespaces.Namespace](ctx, c, "/namespaces", nil, 0)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, list, "NAME VISIBILITY ROLE REPOSITORIES USED QUOTA", func(n namespaces.Namespace) []string {
		used, quota, _ := usage3(n)
		return []string{n.Name, n.Visibility, string(n.Role), strconv.FormatInt(n.Repositories, 10), used, quota}
	})
}

// usage3 are what a namespace uses, may use, and how many members it has; ""
// where that is not for who asks.
func usage3(n namespaces.Namespace) (used, quota, members string) {
	u := n.NamespaceUsage
	if u == nil {
		return "", "", ""
	}
	used, quota = bytesText(u.UsedBytes), "none"
	if u.QuotaBytes >= 0 {
		quota = bytesText(u.QuotaBytes)
	}
	if u.ReservedBytes > 0 {
		used += " (" + bytesText(u.ReservedBytes) + " more under way)"
	}
	return used, quota, strconv.FormatInt(u.Members, 10)
}

func showNamespace(a *app, o *nsOptions, n namespaces.Namespace) error {
	used, quota, members := usage3(n)
	return showOne(a.out, o.format, n,
		"name", n.Name, "visibility", n.Visibility, "description", n.Description, "your role", string(n.Role),
		"repositories", strconv.FormatInt(n.Repositories, 10), "members", members, "used", used, "quota", quota,
		"created", stamp(n.CreatedAt), "created by", n.CreatedBy)
}

func (o *nsOptions) describeFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.visibility, "visibility", "private", "private, or public: anybody may pull")
	f.StringVar(&o.description, "description", "", "one line about it")
	f.StringVar(&o.quota, "quota", "none", "what it may hold, such as 10GiB, or none; for administrators")
}

// patch is what the flags that were given say.
func (o *nsOptions) patch(cmd *cobra.Command) (p namespaces.NamespacePatch, err error) {
	if cmd.Flags().Changed("visibility") {
		p.Visibility = &o.visibility
	}
	if cmd.Flags().Changed("description") {
		p.Description = &o.description
	}
	if !cmd.Flags().Changed("quota") {
		return p, nil
	}
	quota := int64(-1)
	if o.quota != "none" {
		size, err := config.ParseSize(o.quota)
		if err != nil {
			return p, usageError{fmt.Errorf("--quota: %w", err)}
		}
		quota = int64(size)
	}
	p.QuotaBytes = &quota
	return p, nil
}

func newNamespaceCreateCmd(a *app, o *nsOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a namespace, of which you are the owner",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := o.patch(cmd)
			if err != nil {
				return err
			}
			return runNamespaceCreate(cmd.Context(), a, o, namespaces.NewNamespace{
				Name: args[0], Visibility: o.visibility, Description: o.description, QuotaBytes: p.QuotaBytes,
			})
		},
	}
	o.describeFlags(cmd)
	return cmd
}

func runNamespaceCreate(ctx context.Context, a *app, o *nsOptions, n namespaces.NewNamespace) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var made namespaces.Namespace
	if err := c.Do(ctx, http.MethodPost, "/namespaces", nil, n, &made); err != nil {
		return err
	}
	return showNamespace(a, o, made)
}

func newNamespaceShowCmd(a *app, o *nsOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a namespace",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runNamespaceShow(cmd.Context(), a, o, args[0]) },
	}
}

func runNamespaceShow(ctx context.Context, a *app, o *nsOptions, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var n namespaces.Namespace
	if err := c.Do(ctx, http.MethodGet, pathf("/namespaces/%s", name), nil, nil, &n); err != nil {
		return err
	}
	return showNamespace(a, o, n)
}

func newNamespaceSetCmd(a *app, o *nsOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a namespace: --visibility, --description, --quota",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := o.patch(cmd)
			if err != nil {
				return err
			}
			if p == (namespaces.NamespacePatch{}) {
				return usageError{errNothingToSet}
			}
			return runNamespaceSet(cmd.Context(), a, o, args[0], p)
		},
	}
	o.describeFlags(cmd)
	return cmd
}

func runNamespaceSet(ctx context.Context, a *app, o *nsOptions, name string, p namespaces.NamespacePatch) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var n namespaces.Namespace
	if err := c.Do(ctx, http.MethodPatch, pathf("/namespaces/%s", name), nil, p, &n); err != nil {
		return err
	}
	return showNamespace(a, o, n)
}

func newNamespaceRemoveCmd(a *app, o *nsOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete a namespace",
		Long:  "Rm deletes a namespace that holds no images, with its members, robots and rules; with --force also one that does.",
		Args:  usage(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return runNamespaceRemove(cmd.Context(), a, o, args[0]) },
	}
	cmd.Flags().BoolVar(&o.force, "force", false, "delete also what it holds")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func runNamespaceRemove(ctx context.Context, a *app, o *nsOptions, name string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	path := pathf("/namespaces/%s", name)
	var n namespaces.Namespace
	if err := c.Do(ctx, http.MethodGet, path, nil, nil, &n); err != nil {
		return err
	}
	repositories, err := collect[namespaces.Repository](ctx, c, path+"/repositories", nil, 0)
	if err != nil {
		return err
	}
	var images int64
	for _, r := range repositories {
		images += r.Manifests
	}
	holds := fmt.Sprintf("%d images in %d repositories", images, len(repositories))
	if o.dryRun {
		a.say("The namespace %s would be deleted, with %s.", name, holds)
		if images > 0 && !o.force {
			a.say("It is not empty, so that needs --force.")
		}
		return nil
	}
	q := url.Values{}
	if o.force {
		q.Set("force", "true")
	}
	if err := c.Do(ctx, http.MethodDelete, path, q, nil, nil); err != nil {
		return err
	}
	a.say("The namespace %s is deleted, with %s.", name, holds)
	return nil
}
