package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

func newQuotaCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Look after what namespaces use",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRecountCmd(a))
	return cmd
}

type recountOptions struct {
	apiOptions
	repair bool
}

func newRecountCmd(a *app) *cobra.Command {
	var o recountOptions
	cmd := &cobra.Command{
		Use:   "recount",
		Short: "Prove that what is stored of each namespace's usage is what it uses",
		Long: "Recount asks a running server to add up what every namespace uses, and to compare it with what it has stored. " +
			"It is for administrators. The exit code is 1 where something differs and was not repaired." + apiUsage,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runRecount(cmd.Context(), a, o) },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	cmd.Flags().BoolVar(&o.repair, "repair", false, "set right what is stored where it differs")
	return cmd
}

type recountAnswer struct {
	Equal    bool                   `json:"equal"`
	Repaired bool                   `json:"repaired"`
	Items    []namespaces.Recounted `json:"items"`
}

func runRecount(ctx context.Context, a *app, o recountOptions) error {
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	q := url.Values{}
	if o.repair {
		q.Set("repair", "true")
	}
	var answer recountAnswer
	if err := c.Do(ctx, http.MethodPost, "/admin/recount", q, nil, &answer); err != nil {
		return err
	}
	if o.format == "json" {
		err = writeJSON(a.out, answer)
	} else {
		err = showList(a.out, o.format, answer.Items, "NAMESPACE USED RESERVED STORED-USED STORED-RESERVED EQUAL", recountRow)
	}
	if err == nil && !answer.Equal && !answer.Repaired {
		err = errors.New("what is stored differs from what is there: --repair sets it right")
	}
	return err
}

func recountRow(r namespaces.Recounted) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{r.Namespace, number(r.Recounted.UsedBytes), number(r.Recounted.ReservedBytes), number(r.Stored.UsedBytes), number(r.Stored.ReservedBytes), yesNo(r.Equal)}
}
