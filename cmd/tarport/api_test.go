package main

import (
	"errors"
	"testing"

	"github.com/tarport/tarport/internal/client"
)

func TestErrorsOfTheServerNameFlags(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"the image sha256:be68 has no name: give it one with repo=NAME (and tag=TAG), or with rename=sha256:be68=NAME": "the image sha256:be68 has no name: give it one with --repo NAME (and --tag TAG), or with --rename sha256:be68=NAME",
		`namespace=: "Team!" is not a repository name`:                                                                 `--namespace: "Team!" is not a repository name`,
		"choose one with platform= (linux/amd64)":                                                                      "choose one with --platform (linux/amd64)",
		"use archives/import to make an image of it":                                                                   "use tarport import to make an image of it",
		"the label a.tag=1 is what it was":                                                                             "the label a.tag=1 is what it was",
	} {
		if got := explain(&client.Error{Status: 400, Message: message}); got.Error() != want {
			t.Errorf("explain(%q) = %q, want %q", message, got, want)
		}
	}
	own := errors.New("write tag=1: it is full")
	if got := explain(own); !errors.Is(got, own) {
		t.Errorf("explain changed an error of the command's own: %v", got)
	}
}
