package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/internal/client"
)

type filesOptions struct {
	apiOptions
	platform string
}

func (o *filesOptions) flags(a *app, cmd *cobra.Command) {
	o.apiOptions.flags(a, cmd)
	cmd.Flags().StringVar(&o.platform, "platform", "", "of which platform, such as linux/arm64")
}

func (o *filesOptions) query(path string) url.Values {
	q := url.Values{"path": {path}}
	set(q, "platform", o.platform)
	return q
}

func newFilesCmd(a *app) *cobra.Command {
	var o filesOptions
	cmd := &cobra.Command{
		Use:   "files NAME[:TAG|@DIGEST] [PATH]",
		Short: "List the files in an image",
		Long: `Files lists a directory of an image, as a container of it would find it, in the manner of ls -l; without PATH it is the
root. LAYER is the number of the layer that a file comes from, from 0.` + apiUsage,
		Example: `  tarport files team/app:1.4 /etc
  tarport cat team/app:1.4 /etc/os-release`,
		Args:              usage(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: o.complete(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			path := "/"
			if len(args) > 1 {
				path = args[1]
			}
			return runFiles(cmd.Context(), a, &o, im, path)
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	return cmd
}

var fileColumns = []table.Column{
	{Head: "MODE"}, {Head: "LINKS", Rank: 3}, {Head: "UID", Rank: 2}, {Head: "GID", Rank: 2}, {Head: "SIZE"}, {Head: "CHANGED", Rank: 1}, {Head: "LAYER", Rank: 4}, {Head: "NAME"},
}

func runFiles(ctx context.Context, a *app, o *filesOptions, im imageRef, path string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	l, err := listing(ctx, c, im, o.query(path))
	if err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(a.out, l)
	}
	files := l.Items
	if l.Type != "directory" {
		l.Name = l.Path
		files = []images.File{l.File}
	}
	return showTable(a.out, o.format, files, fileColumns, func(f images.File) []string {
		name, layer := f.Name, ""
		if f.Target != "" {
			name += " -> " + f.Target
		}
		if f.Layer >= 0 {
			layer = strconv.Itoa(f.Layer)
		}
		return []string{
			modeText(f.Type, f.Mode), strconv.Itoa(f.Links), strconv.Itoa(f.UID), strconv.Itoa(f.GID), strconv.FormatInt(f.Size, 10), stamp(&f.ModTime), layer, name,
		}
	})
}

// listing is what is at a path, with all that is in it.
func listing(ctx context.Context, c *client.Client, im imageRef, q url.Values) (l images.Listing, err error) {
	q.Set("n", strconv.Itoa(maxPage))
	q, err = c.Page(ctx, im.manifest("/files"), q, &l)
	for err == nil && q != nil {
		var page images.Listing
		if q, err = c.Page(ctx, im.manifest("/files"), q, &page); err == nil {
			l.Items = append(l.Items, page.Items...)
		}
	}
	return l, err
}

// modeText is a file's type and permissions as ls shows them.
func modeText(kind, octal string) string {
	letter := map[string]byte{"directory": 'd', "symlink": 'l', "character-device": 'c', "block-device": 'b', "fifo": 'p'}[kind]
	if letter == 0 {
		letter = '-'
	}
	mode, err := strconv.ParseUint(octal, 8, 32)
	if err != nil {
		return octal
	}
	text := []byte{letter}
	for i, c := range []byte("rwxrwxrwx") {
		if mode&(1<<(8-i)) == 0 {
			c = '-'
		}
		text = append(text, c)
	}
	for i, special := range []byte("sst") { // setuid, setgid, sticky
		at := 3 + 3*i
		if mode&(0o4000>>i) == 0 {
			continue
		}
		if text[at] == '-' {
			special -= 'a' - 'A'
		}
		text[at] = special
	}
	return string(text)
}

func newCatCmd(a *app) *cobra.Command {
	var o filesOptions
	cmd := &cobra.Command{
		Use:   "cat NAME[:TAG|@DIGEST] PATH",
		Short: "Show a file of an image",
		Long: `Cat writes a file of an image to standard output, byte by byte as it is; but to a terminal only text, with the control
characters taken out.` + apiUsage,
		Example: `  tarport cat team/app:1.4 /docker-entrypoint.sh
  tarport cat --platform linux/arm64 team/app:1.4 /bin/app > app`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: o.complete(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return runCat(ctx, a, &o, im, args[1]) })
		},
	}
	o.flags(a, cmd)
	return cmd
}

func runCat(ctx context.Context, a *app, o *filesOptions, im imageRef, path string) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	resp, err := c.Open(ctx, client.Request{Method: http.MethodGet, Path: im.manifest("/files/content"), Query: o.query(path)})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if !isTerminal(a.out) {
		_, err = io.Copy(a.out, resp.Body)
		return err
	}
	if resp.Header.Get("Content-Type") == "application/octet-stream" {
		return usageError{fmt.Errorf("%s is no text, and nothing for a terminal: redirect the output", path)}
	}
	return copyClean(a.out, resp.Body)
}

// copyClean copies text to a terminal.
func copyClean(out io.Writer, in io.Reader) error {
	w, r := bufio.NewWriter(out), bufio.NewReader(in)
	for {
		c, _, err := r.ReadRune()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		if _, err := w.WriteString(table.CleanLines(string(c))); err != nil {
			return err
		}
	}
}
