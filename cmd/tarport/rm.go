package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/internal/client"
)

type removeOptions struct {
	apiOptions
	yes, dryRun bool
	in          io.Reader
}

func newRemoveCmd(a *app) *cobra.Command {
	var o removeOptions
	cmd := &cobra.Command{
		Use:   "rm NAME:TAG|NAME@DIGEST...",
		Short: "Delete tags, or images with all their tags",
		Long: `Rm deletes tags; the images they point to stay, and a tag can be set again (tarport history --tag NAME:TAG). By a
digest it deletes an image, with all tags that point to it; tarport repo rm deletes a repository. On a terminal it asks first. Of several that cannot all be
deleted it deletes the others, and ends with 1.` + apiUsage,
		Example: `  tarport rm team/app:1.4-rc1 team/app:1.4-rc2
  tarport rm --dry-run team/app@sha256:…`,
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: o.completeAll(a, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			var list []imageRef
			for _, arg := range args {
				if _, tag := splitTag(arg); tag == "" && !strings.Contains(arg, "@") {
					return usageError{fmt.Errorf("%s: %w; all of a repository goes by tarport repo rm", arg, errSayWhich)}
				}
				im, err := o.image(a, cmd, arg)
				if err != nil {
					return err
				}
				list = append(list, im)
			}
			return runRemove(cmd.Context(), a, &o, list)
		},
	}
	o.flags(a, cmd)
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

func runRemove(ctx context.Context, a *app, o *removeOptions, list []imageRef) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	ask := !o.yes && isTerminal(o.in)
	if o.dryRun || ask {
		for _, im := range list {
			what, err := removal(ctx, c, im)
			if err != nil {
				return err
			}
			a.say("%s would be deleted: %s", im, what)
		}
		if o.dryRun {
			return nil
		}
		answer, err := newAsker(a, o.in, false).text("Delete? [y/N]")
		if err != nil {
			return err
		}
		if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
			return errors.New("nothing is deleted")
		}
	}
	bad := 0
	for _, im := range list {
		if err := remove(ctx, c, im); err != nil {
			if len(list) == 1 || ctx.Err() != nil {
				return err
			}
			a.say("tarport: %s: %s", im, explain(err))
			bad++
			continue
		}
		a.say("%s is deleted.", im)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d were not deleted", bad, len(list))
	}
	return nil
}

func remove(ctx context.Context, c *client.Client, im imageRef) error {
	if im.ref.Digest != "" {
		return c.DeleteManifest(ctx, im.repository, im.ref.Digest.String())
	}
	return c.Do(ctx, http.MethodDelete, repositoryPath(im.repository, "tags/%s", im.ref.Tag), nil, nil, nil)
}

// removal is what goes with an image, and what stays.
func removal(ctx context.Context, c *client.Client, im imageRef) (string, error) {
	if im.ref.Digest != "" {
		var d images.Detail
		if err := c.Do(ctx, http.MethodGet, im.manifest(""), nil, nil, &d); err != nil {
			return "", err
		}
		with := "no tag points to it"
		if len(d.Tags) > 0 {
			with = "with its tags " + strings.Join(d.Tags, ", ")
		}
		return "the image, " + bytesText(d.UniqueSize) + " of which nothing else uses; " + with, nil
	}
	var t tags.Tag
	if err := c.Do(ctx, http.MethodGet, repositoryPath(im.repository, "tags/%s", im.ref.Tag), nil, nil, &t); err != nil {
		return "", err
	}
	return "the tag; its image " + shortDigest(t.Digest.String()) + " stays", nil
}
