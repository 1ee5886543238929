package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/tags"
)

func newVariantsCmd(a *app) *cobra.Command {
	var o filterOptions
	cmd := &cobra.Command{
		Use:   "variants NAME",
		Short: "Show the versions of a repository by their variants, and which to take",
		Long: `Variants shows a row for each version and a column for each variant that there is, with the size of the image and how
many platforms it is for; below, which image is the newest, which one of that version the smallest, and what the tag
latest means.` + apiUsage,
		Example: `  tarport variants team/openjdk
  tarport variants team/openjdk --version '^17' --platform linux/arm64`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeRepositories),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := o.repository(a, cmd, args[0])
			if err != nil {
				return err
			}
			return runVariants(cmd.Context(), a, &o, name)
		},
	}
	o.flags(a, cmd, "versions")
	return cmd
}

func runVariants(ctx context.Context, a *app, o *filterOptions, name string) error {
	m, more, err := o.matrix(ctx, a, name)
	if err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(a.out, m)
	}
	if err := matrixTable(m).Write(a.out, width(a.out)); err != nil {
		return err
	}
	if err := showPicks(a.out, m.Recommend); err != nil {
		return err
	}
	if more {
		a.say("There are more versions: use --all, or flags that say which.")
	}
	return nil
}

// matrix reads the matrix, with all pages where all is meant; more says that
// there are others.
func (o *filterOptions) matrix(ctx context.Context, a *app, name string) (m tags.Matrix, more bool, err error) {
	q, err := o.query()
	if err != nil {
		return m, false, err
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return m, false, err
	}
	q.Set("n", strconv.Itoa(o.limit))
	if o.all {
		q.Set("n", strconv.Itoa(maxPage))
	}
	var next url.Values
	if next, err = c.Page(ctx, repositoryPath(name, "variants"), q, &m); err != nil {
		return m, false, err
	}
	for o.all && next != nil {
		var page tags.Matrix
		if next, err = c.Page(ctx, repositoryPath(name, "variants"), next, &page); err != nil {
			return m, false, err
		}
		m.Versions = append(m.Versions, page.Versions...)
		m.Cells = append(m.Cells, page.Cells...)
		m.Variants = append(m.Variants, page.Variants...)
	}
	slices.Sort(m.Variants)
	m.Variants = slices.Compact(m.Variants)
	return m, next != nil, nil
}

// matrixTable is the matrix for people. Where there is no room for all columns,
// the last ones go first: the plain one is the first.
func matrixTable(m tags.Matrix) *table.Table {
	columns := []table.Column{{Head: "VERSION"}}
	for i, v := range m.Variants {
		if v == "" {
			v = "(plain)"
		}
		columns = append(columns, table.Column{Head: table.Clean(v), Rank: i + 1})
	}
	t := table.New(columns...)
	rows := m.Versions
	if slices.ContainsFunc(m.Cells, func(c tags.Cell) bool { return c.Version == nil }) {
		rows = append(slices.Clone(rows), "")
	}
	for _, version := range rows {
		row := []string{version}
		for _, variant := range m.Variants {
			row = append(row, cellText(m.Cells, version, variant))
		}
		t.Row(row...)
	}
	return t
}

// cellText is what there is of a version and a variant: sizes, and the number of
// platforms where it is not one. An image without a version is named.
func cellText(cells []tags.Cell, version, variant string) string {
	var list []string
	for _, c := range cells {
		if c.Variant != variant || version != "" && (c.Version == nil || *c.Version != version) || version == "" && c.Version != nil {
			continue
		}
		text := bytesText(c.Size)
		if n := len(c.Platforms); n > 1 {
			text += " x" + strconv.Itoa(n)
		}
		if version == "" && len(c.Tags) > 0 {
			text = c.Tags[0] + " " + text
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// showPicks says where to begin.
func showPicks(out io.Writer, r tags.Recommend) error {
	var b strings.Builder
	for _, p := range []struct {
		what string
		pick *tags.Pick
	}{{"newest", r.Newest}, {"smallest of it", r.Smallest}, {"latest is", r.Latest}} {
		if p.pick == nil {
			continue
		}
		_, _ = fmt.Fprintf(&b, "\n%-15s %s", p.what+":", pickText(p.pick))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

func pickText(p *tags.Pick) string {
	words := []string{bytesText(p.Size)}
	var platforms, bases []string
	for _, c := range p.Platforms {
		platforms = appendNew(platforms, platformText(c.OS, c.Architecture, c.Variant))
		if c.Base != nil {
			bases = appendNew(bases, baseText(c.Base.ID, c.Base.Version, c.Base.Name, c.Base.Libc, c.Base.Slim))
		}
	}
	words = append(append(words, bases...), platforms...)
	return table.Clean(p.Tag + " (" + strings.Join(words, ", ") + ")")
}

// appendNew appends what is not there yet, and something.
func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
