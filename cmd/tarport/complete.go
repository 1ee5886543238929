package main

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/extensions/namespaces"
	"github.com/tarport/tarport/extensions/tags"
	"github.com/tarport/tarport/internal/client"
)

const (
	// completionTime is how long somebody who has pressed Tab waits.
	completionTime = 2 * time.Second
	completionMost = 200
)

// A completer finds what begins with a word.
type completer func(ctx context.Context, c *client.Client, word string) ([]string, cobra.ShellCompDirective)

// complete makes the completion of a command's arguments from those that ask
// the registry for each of them; the last one is for all that follow. What goes
// wrong is not said: there is nothing to complete then.
func (o *apiOptions) complete(a *app, arguments ...completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(arguments) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.ask(a, cmd, arguments[len(args)], word)
	}
}

// completeAll is complete for a command that takes any number of arguments.
func (o *apiOptions) completeAll(a *app, find completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return o.ask(a, cmd, find, word)
	}
}

func (o *apiOptions) ask(a *app, cmd *cobra.Command, find completer, word string) ([]string, cobra.ShellCompDirective) {
	rest := word
	if err := o.imageNames(a, cmd, &rest); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	quiet := *a
	quiet.err = io.Discard
	c, err := o.client(ctx, &quiet)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, directive := find(ctx, c, rest)
	host := strings.TrimSuffix(word, rest)
	words := []string{}
	for _, item := range list {
		if table.Clean(item) == item { // it goes to a shell
			words = append(words, host+item)
		}
	}
	return words, directive
}

// completeRepositories finds names of repositories.
func completeRepositories(ctx context.Context, c *client.Client, word string) ([]string, cobra.ShellCompDirective) {
	var list []string
	for r, err := range client.List[namespaces.Repository](ctx, c, "/repositories", url.Values{"q": {word}}) {
		if err != nil || len(list) == completionMost {
			break
		}
		if strings.HasPrefix(r.Name, word) {
			list = append(list, r.Name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeImages finds names of repositories, and where there is one only, or
// the word goes as far, of its tags.
func completeImages(ctx context.Context, c *client.Client, word string) ([]string, cobra.ShellCompDirective) {
	repository, tag := splitTag(word)
	if repository == word {
		list, _ := completeRepositories(ctx, c, word)
		if len(list) != 1 {
			return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		repository = list[0]
	}
	if tarport.CheckRepository(repository) != nil || tag != "" && tarport.CheckTag(tag) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	q := url.Values{"q": {tag + "*"}, "n": {strconv.Itoa(completionMost)}}
	found, err := collect[tags.Tag](ctx, c, repositoryPath(repository, "tags"), q, completionMost)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	for _, t := range found {
		if strings.HasPrefix(t.Name, tag) { // the API does not mind the case
			list = append(list, repository+":"+t.Name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// noCompletion is for what the registry does not know.
func noCompletion(context.Context, *client.Client, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}
