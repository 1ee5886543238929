package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/storage"
)

type inspectOptions struct {
	apiOptions
	platform   string
	dockerfile bool
}

func newInspectCmd(a *app) *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect NAME[:TAG|@DIGEST]",
		Short: "Show all that is known of an image",
		Long: `Inspect shows an image: its platforms, what it stands on, its config, with the variables that come from the base
image, its layers with the instruction that made each, images built on it, and its signatures, SBOMs and attestations.
"Size" is what its layers have, of all platforms, and "unique" what would be free if it were deleted.
Of several platforms it is linux/amd64, or the first one, unless --platform says which.` + apiUsage,
		Example: `  tarport inspect team/openjdk:17-alpine
  tarport inspect --platform linux/arm64 team/openjdk:17
  tarport inspect --dockerfile team/openjdk:17`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: o.complete(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			return runInspect(cmd.Context(), a, &o, im)
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().StringVar(&o.platform, "platform", "", "which platform, such as linux/arm64")
	cmd.Flags().BoolVar(&o.dockerfile, "dockerfile", false, "only its history in the words of a Dockerfile, which nobody can build from")
	return cmd
}

func runInspect(ctx context.Context, a *app, o *inspectOptions, im imageRef) error {
	q := url.Values{}
	set(q, "platform", o.platform)
	d, err := get[images.Detail](ctx, a, &o.apiOptions, im.manifest(""), q)
	switch {
	case err != nil:
		return err
	case o.dockerfile && d.Image == nil:
		return errors.New(im.String() + " is no image that is here: it has no history")
	case o.dockerfile:
		_, err := io.WriteString(a.out, table.CleanLines(d.Dockerfile))
		return err
	case o.format == "json":
		return writeJSON(a.out, d)
	}
	r := newReport(a.out)
	inspectManifest(r, &d)
	inspectPlatforms(r, &d)
	if d.Image != nil {
		inspectBase(r, &d)
		inspectConfig(r, d.Config)
		inspectLayers(r, d.Image)
		inspectBuiltOn(r, d.BuiltOn)
	}
	inspectReferrers(r, d.Referrers)
	return r.print()
}

func inspectManifest(r *report, d *images.Detail) {
	pulls := ""
	if d.Pulls > 0 {
		pulls = strconv.FormatInt(d.Pulls, 10)
		if d.RobotPulls > 0 {
			pulls += ", " + strconv.FormatInt(d.RobotPulls, 10) + " by robots"
		}
		pulls += ", last " + when(r.out, d.PulledAt)
	}
	kind := d.Kind
	if d.Kind == "artifact" && d.ArtifactType != "" {
		kind += " " + d.ArtifactType
	}
	cells := []string{
		"name", d.Name, "digest", d.Digest.String(), "kind", kind, "media type", d.MediaType, "about", d.Subject.String(), "tags", strings.Join(d.Tags, ", "),
		"size", bytesText(d.Size), "unique", bytesText(d.UniqueSize), "pushed", strings.Join(slices.DeleteFunc([]string{when(r.out, &d.PushedAt), words("by", d.PushedBy), words("via", d.PushedVia)}, empty), " "), "pulls", pulls,
	}
	if p := shownPlatform(d); p != nil {
		cells = append(cells, "created", when(r.out, p.Created), "author", p.Author, "message", p.Message)
	}
	if d.Image != nil {
		cells = append(cells, "image id", d.ImageID.String())
	}
	for _, name := range slices.Sorted(maps.Keys(d.Annotations)) {
		cells = append(cells, name, d.Annotations[name])
	}
	r.values("Image", cells...)
}

func empty(s string) bool { return s == "" }

// words puts a word before a value that there is.
func words(before, value string) string {
	if value == "" {
		return ""
	}
	return before + " " + value
}

// shownPlatform is the platform whose image is shown; nil for none.
func shownPlatform(d *images.Detail) *images.Platform {
	at := slices.IndexFunc(d.Platforms, func(p images.Platform) bool { return !p.Missing && p.Platform == d.Platform })
	if at < 0 {
		return nil
	}
	return &d.Platforms[at]
}

func inspectPlatforms(r *report, d *images.Detail) {
	var rows [][]string
	for _, p := range d.Platforms {
		shown, size, base := "", "not here", ""
		if !p.Missing {
			size, base = bytesText(p.Size), imageBase(&p)
		}
		if !p.Missing && p.Platform == d.Platform && len(d.Platforms) > 1 {
			shown = "yes"
		}
		rows = append(rows, []string{p.Platform, shortDigest(p.Digest.String()), size, base, shown})
	}
	columns := table.Columns("PLATFORM DIGEST SIZE BASE")
	if len(d.Platforms) > 1 {
		columns = append(columns, table.Column{Head: "SHOWN"})
	}
	r.table("Platforms", columns, rows)
}

// imageBase is what an image stands on, or why that is not known.
func imageBase(p *images.Platform) string {
	switch b := p.Base; {
	case b != nil:
		return baseText(b.ID, b.Version, b.Name, b.Libc, b.Slim)
	case p.Scan == "pending":
		return "(not known yet)"
	case p.Scan == "failed":
		return "(" + p.ScanReason + ")"
	}
	return ""
}

func inspectBase(r *report, d *images.Detail) {
	var cells []string
	if p := shownPlatform(d); p != nil {
		cells = append(cells, "system", imageBase(p))
		if p.Base != nil && p.Base.PackageManager != "" && p.Base.PackageManager != "none" {
			n := "packages"
			if p.Base.Packages >= 0 {
				n = strconv.FormatInt(p.Base.Packages, 10)
			}
			cells = append(cells, "packages", n+" ("+p.Base.PackageManager+")")
		}
	}
	if b := d.BaseImage; b != nil {
		cells = append(cells, "image", b.Name+" ("+layersWord(b.Layers)+")")
	}
	r.values("Base", cells...)
}

func layersWord(n int) string {
	if n == 1 {
		return "1 layer"
	}
	return strconv.Itoa(n) + " layers"
}

func inspectConfig(r *report, c *images.Config) {
	if c == nil {
		r.text("Config", "is not here")
		return
	}
	r.values("Config",
		"entrypoint", wordsText(c.Entrypoint), "cmd", wordsText(c.Cmd), "shell", wordsText(c.Shell), "working dir", c.WorkingDir, "user", c.User,
		"ports", strings.Join(c.ExposedPorts, ", "), "volumes", strings.Join(c.Volumes, ", "), "stop signal", c.StopSignal,
		"healthcheck", healthText(c.Healthcheck), "on build", strings.Join(c.OnBuild, "; "), "problem", c.Problem, "left out", map[bool]string{true: "what is too long to be shown"}[c.Truncated])
	var env, labels [][]string
	for _, v := range c.Env {
		name, value, _ := strings.Cut(v, "=")
		from := "this image"
		if slices.Contains(c.EnvInherited, name) {
			from = "base image"
		}
		env = append(env, []string{name, from, value})
	}
	wide := r.width
	r.width = 0 // values are shown in full
	r.table("Environment", table.Columns("NAME FROM VALUE"), env)
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		labels = append(labels, []string{name, c.Labels[name]})
	}
	r.table("Labels", table.Columns("NAME VALUE"), labels)
	r.width = wide
}

func healthText(h *storage.Healthcheck) string {
	if h == nil {
		return ""
	}
	text := wordsText(h.Test)
	for _, p := range []struct{ name, value string }{
		{"every", h.Interval}, {"timeout", h.Timeout}, {"start period", h.StartPeriod}, {"start interval", h.StartInterval},
	} {
		if p.value != "" {
			text += ", " + p.name + " " + p.value
		}
	}
	if h.Retries > 0 {
		text += ", " + strconv.Itoa(h.Retries) + " retries"
	}
	return text
}

func inspectLayers(r *report, im *images.Image) {
	var rows [][]string
	for i, l := range im.Layers {
		by, from := "", "this image"
		if l.History >= 0 && l.History < len(im.History) {
			by = im.History[l.History].Instruction
		}
		if l.Inherited {
			from = "base image"
		}
		rows = append(rows, []string{strconv.Itoa(i), bytesText(l.Size), shortDigest(l.Digest.String()), from, by})
	}
	r.table("Layers", []table.Column{{Head: "LAYER"}, {Head: "SIZE"}, {Head: "DIGEST"}, {Head: "FROM", Rank: 1}, {Head: "MADE BY", Min: 20}}, rows)
}

func inspectBuiltOn(r *report, list []images.Related) {
	var rows [][]string
	for _, im := range list {
		rows = append(rows, []string{im.Name, shortDigest(im.Digest.String())})
	}
	r.table("Images on this", table.Columns("NAME DIGEST"), rows)
}

func inspectReferrers(r *report, list []images.Referrer) {
	var rows [][]string
	for _, f := range list {
		rows = append(rows, []string{f.Kind, shortDigest(f.Digest.String()), bytesText(f.Size), f.ArtifactType})
	}
	r.table("Referrers", table.Columns("KIND DIGEST SIZE TYPE"), rows)
}
