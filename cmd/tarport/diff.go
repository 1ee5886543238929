package main

import (
	"context"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/images"
)

type diffOptions struct {
	apiOptions
	platform string
}

func newDiffCmd(a *app) *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff IMAGE OTHER",
		Short: "Show how two images differ: config, layers, packages",
		Long: `Diff shows what is different in the image OTHER: its config, the layers that it has more or less, and the packages, where
the layers of both could be read. It ends with 0 whether they differ or not.` + apiUsage,
		Example: `  tarport diff team/app:1.4 team/app:1.5
  tarport diff --platform linux/arm64 team/app:1.4 prod/app:1.4`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: o.complete(a, completeImages, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			to, err := o.image(a, cmd, args[1])
			if err != nil {
				return err
			}
			return runDiff(cmd.Context(), a, &o, from, to)
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().StringVar(&o.platform, "platform", "", "which platform of both, such as linux/arm64")
	return cmd
}

func runDiff(ctx context.Context, a *app, o *diffOptions, from, to imageRef) error {
	q := url.Values{"with": {to.String()}}
	set(q, "platform", o.platform)
	d, err := get[images.Diff](ctx, a, &o.apiOptions, from.manifest("/diff"), q)
	if err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(a.out, d)
	}
	r := newReport(a.out)
	r.table("Images", table.Columns("CHANGE NAME DIGEST PLATFORM SIZE"), [][]string{sideRow("-", d.From), sideRow("+", d.To)})
	diffConfig(r, &d)
	diffLayers(r, &d)
	diffPackages(r, &d)
	return r.print()
}

func sideRow(sign string, s images.Side) []string {
	return []string{sign, s.Name, shortDigest(s.Digest.String()), s.Platform, bytesText(s.Size)}
}

func diffConfig(r *report, d *images.Diff) {
	var rows [][]string
	for _, c := range d.Config {
		if c.From != nil {
			rows = append(rows, []string{"-", c.Name, *c.From})
		}
		if c.To != nil {
			rows = append(rows, []string{"+", c.Name, *c.To})
		}
	}
	r.tableOr("Config", []table.Column{{Head: "CHANGE"}, {Head: "NAME"}, {Head: "VALUE", Min: 20}}, rows, "no difference")
}

func diffLayers(r *report, d *images.Diff) {
	var rows [][]string
	add := func(sign string, list []images.Layer) {
		for _, l := range list {
			rows = append(rows, []string{sign, shortDigest(l.Digest.String()), bytesText(l.Size)})
		}
	}
	add("-", d.Layers.Removed)
	add("+", d.Layers.Added)
	r.tableOr("Layers, over "+layersWord(d.Layers.Common)+" in common", table.Columns("CHANGE DIGEST SIZE"), rows, "no difference")
}

func diffPackages(r *report, d *images.Diff) {
	if !d.Packages.Known {
		r.text("Packages", "cannot be compared: "+d.Packages.Reason)
		return
	}
	var rows [][]string
	for _, p := range d.Packages.Removed {
		rows = append(rows, []string{"-", p.Name, p.Version, ""})
	}
	for _, p := range d.Packages.Changed {
		rows = append(rows, []string{"~", p.Name, p.From, p.To})
	}
	for _, p := range d.Packages.Added {
		rows = append(rows, []string{"+", p.Name, "", p.Version})
	}
	head := "Packages"
	if n := len(rows); n > 0 {
		head += ": " + strconv.Itoa(n) + " differ"
	}
	r.tableOr(head, table.Columns("CHANGE NAME FROM TO"), rows, "no difference")
}
