package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/docker"
	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
	"github.com/tarport/tarport/extensions/namespaces"
)

// base is an image at the registry that a container was made from.
type base struct {
	repository, digest string
	config             json.RawMessage
}

func (b base) String() string { return b.repository + "@" + b.digest }

// findBase finds the base of the container.
func (c *commit) findBase(ctx context.Context) error {
	image, err := c.engine.Image(ctx, c.container.Image)
	e, ok := errors.AsType[*docker.Error](err)
	switch gone := ok && e.Status == http.StatusNotFound; {
	case gone && c.o.base == "":
		return errors.New("the image of the container is not on this machine any more: name the base at the registry, with --base")
	case err != nil && !gone:
		return err
	}
	if c.o.base != "" {
		repository, ref, err := tarport.ParseImage(c.o.base)
		if err != nil {
			return usageError{fmt.Errorf("--base: %w", err)}
		}
		found, err := c.m.c.Image(ctx, repository, ref.String(), image.RootFS.Layers)
		if err != nil {
			return fmt.Errorf("the base %s: %w", c.o.base, err)
		}
		c.base = base{found.Repository, found.Digest, found.Config}
		if len(image.RootFS.Layers) > 0 && !slices.Equal(found.DiffIDs, image.RootFS.Layers) {
			c.m.d.Say("%s is not the image that the container was made from; what differs becomes part of the new layer", c.o.base)
		}
		return nil
	}
	refs := c.candidates(image)
	more, err := c.search(ctx, refs)
	if err != nil {
		return err
	}
	for _, ref := range append(refs, more...) {
		found, err := c.m.c.Image(ctx, ref.repository, ref.ref.String(), image.RootFS.Layers)
		switch code := tarport.ErrorCode(err); {
		case err == nil && slices.Equal(found.DiffIDs, image.RootFS.Layers):
			c.base = base{found.Repository, found.Digest, found.Config}
			c.m.d.Say("the base is %s", ref)
			return nil
		case err != nil && code != tarport.NotFound && code != tarport.NameInvalid && code != tarport.Denied:
			return fmt.Errorf("look for the base: %w", err)
		}
	}
	if c.o.pushBase {
		return c.sendBase(ctx, image)
	}
	what := c.container.Config.Image
	return fmt.Errorf("the image of the container, %s, was not found at the registry. Send it first (docker save %s | tarport load -n %s -), "+
		"let this command do it (--push-base), or name the base there (--base)", what, what, tarport.Namespace(c.repository))
}

// maxCandidates bounds how many names are looked up.
const maxCandidates = 50

// candidates are the names that the image can have at the registry: the digests
// and tags that docker has of it, those of this registry first, and the others
// where a load would have put them. None is believed: the layers decide.
func (c *commit) candidates(image docker.Image) []imageRef {
	var own, other []imageRef
	ns := tarport.Namespace(c.repository)
	add := func(name string) {
		host, rest := splitHost(name)
		isOwn := host == c.m.c.Host()
		if !isOwn {
			rest = tarport.Place(ns, strings.TrimPrefix(rest, "library/"))
		}
		repository, ref, err := tarport.ParseImage(rest)
		switch {
		case err != nil: // nothing here can be called so
		case isOwn:
			own = append(own, imageRef{repository, ref})
		default:
			other = append(other, imageRef{repository, ref})
		}
	}
	for _, name := range slices.Concat(image.RepoDigests, image.RepoTags, []string{c.container.Config.Image}) {
		if name != "" && !strings.Contains(name, "<none>") && !strings.HasPrefix(name, "sha256:") {
			add(name)
		}
	}
	var list []imageRef
	for _, ref := range slices.Concat(own, other) {
		if !slices.Contains(list, ref) {
			list = append(list, ref)
		}
	}
	return list[:min(len(list), maxCandidates)]
}

// search finds repositories that are called like the candidates, elsewhere at
// the registry.
func (c *commit) search(ctx context.Context, refs []imageRef) ([]imageRef, error) {
	const most = 20 // repositories of one name
	var found []imageRef
	for _, ref := range refs[:min(len(refs), 5)] {
		_, last := path.Split(ref.repository)
		list, err := collect[namespaces.Repository](ctx, c.m.c, "/repositories", url.Values{"q": {last}, "n": {strconv.Itoa(most)}}, most)
		if err != nil {
			return nil, fmt.Errorf("look for the base: %w", err)
		}
		for _, r := range list {
			other := imageRef{r.Name, ref.ref}
			if path.Base(r.Name) == last && !slices.Contains(refs, other) && !slices.Contains(found, other) {
				found = append(found, other)
			}
		}
	}
	return found, nil
}

// sendBase loads the container's image into the repository that gets the new
// one, under a tag that nobody else uses.
func (c *commit) sendBase(ctx context.Context, image docker.Image) error {
	id := strings.TrimPrefix(image.ID, "sha256:")
	tag := "base-" + id[:min(len(id), 12)]
	c.m.d.Say("sending the image of the container, %s, as %s:%s", c.container.Config.Image, c.repository, tag)
	archive, err := c.engine.Save(ctx, image.ID)
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	q := url.Values{"namespace": {tarport.Namespace(c.repository)}, "repo": {c.repository}, "tag": {tag}}
	if _, err := c.m.Stream(ctx, transfer.Job{Route: "load", Query: q}, io.Reader(archive)); err != nil {
		return fmt.Errorf("send the image of the container: %w", err)
	}
	found, err := c.m.c.Image(ctx, c.repository, tag, image.RootFS.Layers)
	if err != nil {
		return err
	}
	c.base = base{found.Repository, found.Digest, found.Config}
	return nil
}
