package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/tags"
)

// filterOptions are the flags of the commands that show tags.
type filterOptions struct {
	apiOptions
	name, platform, base, version string
	variants                      []string
	limit                         int
	all                           bool
}

func (o *filterOptions) flags(a *app, cmd *cobra.Command, what string) {
	o.apiOptions.flags(a, cmd)
	o.formatFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.name, "query", "q", "", "only tags with this in their names, or with such a name: '17*', with * and ?")
	f.StringSliceVar(&o.variants, "variant", nil, "only with all of these words in their names, such as alpine")
	f.StringVar(&o.platform, "platform", "", "only what there is for it, such as linux/arm64")
	f.StringVar(&o.base, "base", "", "only what stands on it, such as alpine or debian:12")
	f.StringVar(&o.version, "version", "", "only versions of this range, such as '^17' or '>=1.2 <2'")
	f.IntVarP(&o.limit, "limit", "n", 50, "how many "+what+" at most")
	f.BoolVar(&o.all, "all", false, "all "+what)
}

func (o *filterOptions) query() (url.Values, error) {
	if o.limit < 1 || o.limit > maxPage {
		return nil, usageError{fmt.Errorf("--limit %d is not from 1 to %d: there is --all", o.limit, maxPage)}
	}
	q := url.Values{}
	set(q, "q", o.name)
	set(q, "platform", o.platform)
	set(q, "base", o.base)
	set(q, "version", o.version)
	if len(o.variants) > 0 {
		q["variant"] = o.variants
	}
	return q, nil
}

// maxPage is how much of a list the server gives at once.
const maxPage = 1000

type tagsOptions struct {
	filterOptions
	sort string
}

func newTagsCmd(a *app) *cobra.Command {
	var o tagsOptions
	cmd := &cobra.Command{
		Use:   "tags NAME",
		Short: "List the tags of a repository, with what is in them",
		Long: `Tags lists the tags of a repository: version and variant as their names say, what the images stand on as their layers
say, platforms, size of the layers as they are stored, when they were pushed, other tags of the same image, and the
message of a commit. On a terminal the columns that do not fit are cut or left out; --format json has all of it.` + apiUsage,
		Example: `  tarport tags team/openjdk
  tarport tags team/openjdk --variant alpine --platform linux/arm64
  tarport tags team/openjdk --base debian --version '^17' --sort -pushed
  tarport tags team/openjdk -q '17*' --all --format json`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeRepositories),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := o.repository(a, cmd, args[0])
			if err != nil {
				return err
			}
			return runTags(cmd.Context(), a, &o, name)
		},
	}
	o.flags(a, cmd, "tags")
	cmd.Flags().StringVar(&o.sort, "sort", "-version", "name, version, pushed, pulled or size; with - before it the other way round")
	return cmd
}

func runTags(ctx context.Context, a *app, o *tagsOptions, name string) error {
	q, err := o.query()
	if err != nil {
		return err
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	set(q, "sort", o.sort)
	most := 0
	if !o.all {
		most = o.limit + 1
		q.Set("n", strconv.Itoa(min(most, maxPage)))
	}
	list, err := collect[tags.Tag](ctx, c, repositoryPath(name, "tags"), q, most)
	if err != nil {
		return err
	}
	more := !o.all && len(list) > o.limit
	if more {
		list = list[:o.limit]
	}
	if err := showTable(a.out, o.format, list, tagColumns, func(t tags.Tag) []string { return tagRow(a, &t) }); err != nil {
		return err
	}
	switch {
	case more:
		a.say("There are more tags: use --all, or flags that say which.")
	case len(list) == 0:
		a.say("%s has no such tags.", name)
	}
	return nil
}

var tagColumns = []table.Column{
	{Head: "TAG"},
	{Head: "VERSION", Min: 7, Rank: 1},
	{Head: "VARIANT", Min: 8, Rank: 2},
	{Head: "BASE", Min: 14, Rank: 4},
	{Head: "PLATFORMS", Min: 12, Rank: 5},
	{Head: "SIZE"},
	{Head: "PUSHED", Rank: 3},
	{Head: "ALIASES", Min: 10, Rank: 6},
	{Head: "MESSAGE", Min: 10, Rank: 7},
}

func tagRow(a *app, t *tags.Tag) []string {
	version := ""
	if t.Version != nil {
		version = *t.Version
	}
	aliases := strings.Join(t.Aliases, ",")
	if t.MoreAliases {
		aliases += ",…"
	}
	return []string{
		t.Name, version, strings.Join(t.Variant, "-"), tagBase(t), tagPlatforms(t), bytesText(t.Size), when(a.out, &t.PushedAt), aliases, tagMessage(t),
	}
}

// tagBase is what the images of a tag stand on.
func tagBase(t *tags.Tag) string {
	if t.Kind == "artifact" {
		return "(no image)"
	}
	var list []string
	for _, p := range t.Platforms {
		text := ""
		switch {
		case p.Base != nil:
			text = baseText(p.Base.ID, p.Base.Version, p.Base.Name, p.Base.Libc, p.Base.Slim)
		case p.Scan == "pending":
			text = "(not known yet)"
		case p.Scan == "failed":
			text = "(" + p.ScanReason + ")"
		}
		list = appendNew(list, text)
	}
	return strings.Join(list, ", ")
}

// tagPlatforms are the platforms that are here.
func tagPlatforms(t *tags.Tag) string {
	var list []string
	for _, p := range t.Platforms {
		if !p.Missing {
			list = appendNew(list, platformText(p.OS, p.Architecture, p.Variant))
		}
	}
	if t.MorePlatforms {
		list = append(list, "…")
	}
	return strings.Join(list, ",")
}

// tagMessage is the first message of a commit.
func tagMessage(t *tags.Tag) string {
	for _, p := range t.Platforms {
		if p.Message != "" {
			return p.Message
		}
	}
	return t.ArtifactType
}
