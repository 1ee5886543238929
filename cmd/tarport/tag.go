package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/tags"
)

func newTagCmd(a *app) *cobra.Command {
	var o apiOptions
	cmd := &cobra.Command{
		Use:   "tag SOURCE TARGET",
		Short: "Give an image another tag, also in another repository",
		Long: `Tag lets the tag TARGET point to the image SOURCE, as docker tag does, but at the registry: nothing is pulled or pushed.
SOURCE is a tag or a digest, of a repository that you may pull from; without either it is the tag latest. What a tag
pointed to before is in "tarport history --tag --no-trunc", and a digest from there sets it back.` + apiUsage,
		Example: `  tarport tag team/app:1.4.2 team/app:1.4
  tarport tag team/app:1.4.2 prod/app:1.4.2
  tarport tag team/app@sha256:… team/app:latest`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: o.complete(a, completeImages, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := o.image(a, cmd, args[0])
			if err != nil {
				return err
			}
			if !strings.ContainsAny(args[1], "/:@") {
				// docker would make a repository of this name.
				return usageError{fmt.Errorf("%[1]s is no tag by itself: write %[2]s:%[1]s, or %[1]s:latest where a repository is meant", args[1], source.repository)}
			}
			target, err := o.image(a, cmd, args[1])
			if err != nil {
				return err
			}
			if target.ref.Tag == "" {
				return usageError{fmt.Errorf("%s is a digest, which nothing can be made to be: name a tag", args[1])}
			}
			return runTag(cmd.Context(), a, &o, source, target)
		},
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	return cmd
}

func runTag(ctx context.Context, a *app, o *apiOptions, source, target imageRef) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	var t tags.Tag
	from := map[string]string{"from": source.String()}
	if err := c.Do(ctx, http.MethodPut, repositoryPath(target.repository, "tags/%s", target.ref.Tag), nil, from, &t); err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(a.out, t)
	}
	a.say("%s is %s now, as %s.", target, shortDigest(t.Digest.String()), source)
	return nil
}

// errSayWhich is for a command that does nothing to a tag that was not named.
var errSayWhich = errors.New("say which image: NAME:TAG, or NAME@DIGEST")
