package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
)

// imageRef is an image as an argument names it.
type imageRef struct {
	repository string
	ref        tarport.Reference
}

func (r imageRef) String() string {
	if r.ref.Digest != "" {
		return r.repository + "@" + r.ref.Digest.String()
	}
	return r.repository + ":" + r.ref.Tag
}

// manifest is where the API has it.
func (r imageRef) manifest(below string) string {
	return repositoryPath(r.repository, "manifests/%s"+below, r.ref.String())
}

// repositoryPath is a path of the API below a repository, whose name keeps its
// slashes.
func repositoryPath(repository, format string, parts ...string) string {
	return "/repositories/" + escapedRepository(repository) + "/-/" + pathf(format, parts...)
}

// escapedRepository is the name of a repository in a path.
func escapedRepository(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// image reads the name of an image: NAMESPACE/NAME, with a tag, a digest or
// neither, and this registry's host before it where somebody likes.
func (o *apiOptions) image(a *app, cmd *cobra.Command, name string) (imageRef, error) {
	if err := o.imageNames(a, cmd, &name); err != nil {
		return imageRef{}, err
	}
	repository, ref, err := tarport.ParseImage(name)
	if err != nil {
		return imageRef{}, usageError{err}
	}
	return imageRef{repository, ref}, nil
}

// repository reads the name of a repository.
func (o *apiOptions) repository(a *app, cmd *cobra.Command, name string) (string, error) {
	if err := o.imageNames(a, cmd, &name); err != nil {
		return "", err
	}
	if err := tarport.CheckRepository(name); err != nil {
		return "", usageError{err}
	}
	return name, nil
}

// get reads one thing of the API.
func get[T any](ctx context.Context, a *app, o *apiOptions, path string, q url.Values) (v T, err error) {
	c, err := o.client(ctx, a)
	if err != nil {
		return v, err
	}
	return v, c.Do(ctx, "GET", path, q, nil, &v)
}

// set sets a parameter that is not empty.
func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
