package main

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/extensions/tags"
)

type historyOptions struct {
	apiOptions
	platform     string
	tag, noTrunc bool
	limit        int
}

func newHistoryCmd(a *app) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history NAME[:TAG|@DIGEST]",
		Short: "Show how an image was made, or what a tag pointed to",
		Long: `History shows the steps by which an image was made, the last one first, as docker history does. With --tag it is the
history of the tag instead: what it pointed to, since when, and who changed it how. Where that can be restored, "tarport
tag NAME@DIGEST NAME:TAG" sets the tag back, by the digest in full that --no-trunc shows.` + apiUsage,
		Example: `  tarport history team/app:1.4
  tarport history --tag team/app:latest`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			if o.tag {
				return runTagHistory(cmd.Context(), a, &o, im)
			}
			return runHistory(cmd.Context(), a, &o, im)
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.platform, "platform", "", "of which platform, such as linux/arm64")
	f.BoolVar(&o.tag, "tag", false, "what the tag pointed to")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "cut nothing, however narrow the terminal is")
	f.IntVarP(&o.limit, "limit", "n", 50, "how many changes of a tag at most; 0 for all")
	return cmd
}

// step is a step with what it made.
type step struct {
	images.Step
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest,omitempty"` // of the layer
}

// instruction is the instruction for a row that has the comment in a column of
// its own: what was committed begins with it, as a Dockerfile needs it.
func (s step) instruction() string {
	comment := "# " + strings.ReplaceAll(s.Comment, "\n", "\n# ") + "\n"
	return strings.TrimPrefix(s.Instruction, comment)
}

func runHistory(ctx context.Context, a *app, o *historyOptions, im imageRef) error {
	q := url.Values{}
	set(q, "platform", o.platform)
	d, err := get[images.Detail](ctx, a, &o.apiOptions, im.manifest(""), q)
	if err != nil {
		return err
	}
	if d.Image == nil {
		return errors.New(im.String() + " is no image that is here: it has no history")
	}
	steps := []step{}
	for _, s := range slices.Backward(d.History) {
		one := step{Step: s}
		if s.Layer >= 0 && s.Layer < len(d.Layers) {
			one.Size, one.Digest = d.Layers[s.Layer].Size, d.Layers[s.Layer].Digest
		}
		steps = append(steps, one)
	}
	columns := []table.Column{{Head: "CREATED", Rank: 1}, {Head: "INSTRUCTION", Min: 20}, {Head: "SIZE"}, {Head: "COMMENT", Min: 10, Rank: 2}}
	if o.noTrunc {
		columns = table.Columns("CREATED INSTRUCTION SIZE COMMENT")
	}
	return showTable(a.out, o.format, steps, columns, func(s step) []string {
		return []string{when(a.out, s.Created), s.instruction(), bytesText(s.Size), s.Comment}
	})
}

func runTagHistory(ctx context.Context, a *app, o *historyOptions, im imageRef) error {
	if im.ref.Tag == "" || o.platform != "" {
		return usageError{errors.New("the history of a tag is for all platforms: name a tag, without --platform")}
	}
	if o.limit < 0 {
		return usageError{errors.New("--limit is less than 0")}
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	q := url.Values{}
	if o.limit > 0 {
		q.Set("n", strconv.Itoa(min(o.limit, maxPage)))
	}
	list, err := collect[tags.Change](ctx, c, repositoryPath(im.repository, "tags/%s/history", im.ref.Tag), q, o.limit)
	if err != nil {
		return err
	}
	columns := []table.Column{
		{Head: "CHANGED"}, {Head: "BY", Min: 8, Rank: 1}, {Head: "HOW"}, {Head: "DIGEST"}, {Head: "BEFORE", Rank: 3}, {Head: "RESTORABLE", Rank: 2},
	}
	return showTable(a.out, o.format, list, columns, func(c tags.Change) []string {
		restorable := "no"
		if c.Restorable {
			restorable = "yes"
		}
		return []string{when(a.out, &c.ChangedAt), c.ChangedBy, c.ChangedVia, o.digest(c.Digest), o.digest(c.Previous), restorable}
	})
}

func (o *historyOptions) digest(d *digest.Digest) string {
	switch {
	case d == nil:
		return ""
	case o.noTrunc:
		return d.String()
	}
	return shortDigest(d.String())
}
