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

type searchOptions struct {
	apiOptions
	limit int
}

func newSearchCmd(a *app) *cobra.Command {
	var o searchOptions
	cmd := &cobra.Command{
		Use:   "search WORD...",
		Short: "Find images in all repositories that you may pull from",
		Long: `Search finds tags that have all of the words: in the name of the repository or the tag, in labels and variables, as the
base or as a package. A word can say where it is meant: name:, tag:, label: (also label:key=value), env:, base: (alpine
or debian:12), package:.` + apiUsage,
		Example: `  tarport search openjdk alpine
  tarport search base:debian:12 package:openssl
  tarport search label:maintainer=ann env:JAVA_VERSION`,
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return runSearch(cmd.Context(), a, &o, args) },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().IntVarP(&o.limit, "limit", "n", 50, "how many tags at most")
	return cmd
}

var foundColumns = []table.Column{
	{Head: "IMAGE"}, {Head: "BASE", Min: 14, Rank: 2}, {Head: "PLATFORMS", Min: 12, Rank: 4}, {Head: "SIZE"}, {Head: "PUSHED", Rank: 3}, {Head: "FOUND IN", Min: 16, Rank: 1},
}

func runSearch(ctx context.Context, a *app, o *searchOptions, words []string) error {
	if o.limit < 1 || o.limit >= maxPage {
		return usageError{fmt.Errorf("--limit %d is not from 1 to %d", o.limit, maxPage-1)}
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	q := url.Values{"q": {strings.Join(words, " ")}, "n": {strconv.Itoa(o.limit + 1)}}
	list, err := collect[tags.Found](ctx, c, "/search", q, o.limit+1)
	if err != nil {
		return err
	}
	more := len(list) > o.limit
	if more {
		list = list[:o.limit]
	}
	if err := showTable(a.out, o.format, list, foundColumns, func(f tags.Found) []string {
		base := ""
		if b := f.Base; b != nil {
			base = baseText(b.ID, b.Version, b.Name, b.Libc, b.Slim)
		}
		var found []string
		for _, m := range f.Matches {
			found = appendNew(found, m.Field+":"+m.Value)
		}
		return []string{f.Repository + ":" + f.Tag, base, strings.Join(f.Platforms, ","), bytesText(f.Size), when(a.out, &f.PushedAt), strings.Join(found, " ")}
	}); err != nil {
		return err
	}
	switch {
	case more:
		a.say("There are more: use more words, or --limit.")
	case len(list) == 0:
		a.say("Nothing is found.")
	}
	return nil
}
