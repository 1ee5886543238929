package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
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
	registry, user, format string
	passwordStdin, repair  bool
	in                     io.Reader
}

func newRecountCmd(a *app) *cobra.Command {
	var o recountOptions
	cmd := &cobra.Command{
		Use:   "recount",
		Short: "Prove that what is stored of each namespace's usage is what it uses",
		Long: "Recount asks a running server to add up what every namespace uses, and to compare it with what it has stored. " +
			"It needs an administrator, whose password or access token is in TARPORT_PASSWORD or comes by --password-stdin. " +
			"The exit code is 1 where something differs and was not repaired.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.in = cmd.InOrStdin()
			return runRecount(cmd.Context(), a, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.registry, "registry", "http://127.0.0.1:5000", "URL of the server")
	f.StringVar(&o.user, "user", "admin", "account of an administrator")
	f.BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from standard input")
	f.BoolVar(&o.repair, "repair", false, "set right what is stored where it differs")
	f.StringVar(&o.format, "format", "table", "table or json")
	return cmd
}

type usedBytes struct {
	Used     int64 `json:"used_bytes"`
	Reserved int64 `json:"reserved_bytes"`
}

type recountAnswer struct {
	Equal    bool `json:"equal"`
	Repaired bool `json:"repaired"`
	Items    []struct {
		Namespace string    `json:"namespace"`
		Equal     bool      `json:"equal"`
		Stored    usedBytes `json:"stored"`
		Recounted usedBytes `json:"recounted"`
	} `json:"items"`
}

func runRecount(ctx context.Context, a *app, o recountOptions) error {
	if o.format != "table" && o.format != "json" {
		return usageError{fmt.Errorf("--format %q is neither table nor json", o.format)}
	}
	body, err := askRecount(ctx, a, o)
	if err != nil {
		return err
	}
	var answer recountAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", o.registry, err)
	}
	if o.format == "json" {
		_, err = a.out.Write(body)
	} else {
		err = answer.table(a.out)
	}
	if err == nil && !answer.Equal && !answer.Repaired {
		err = errors.New("what is stored differs from what is there: --repair sets it right")
	}
	return err
}

func (r recountAnswer) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAMESPACE\tUSED\tRESERVED\tSTORED USED\tSTORED RESERVED\tEQUAL")
	for _, i := range r.Items {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%t\n", i.Namespace, i.Recounted.Used, i.Recounted.Reserved, i.Stored.Used, i.Stored.Reserved, i.Equal)
	}
	return w.Flush()
}

// askRecount asks the server, and returns its answer as it came.
func askRecount(ctx context.Context, a *app, o recountOptions) ([]byte, error) {
	const most = 64 << 20
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	u, err := url.Parse(o.registry)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usageError{fmt.Errorf("--registry %q is no URL: write it as https://registry.example.com", o.registry)}
	}
	u = u.JoinPath("api/v1/admin/recount")
	if o.repair {
		u.RawQuery = "repair=true"
	}
	password := config.Getenv(a.environ, "TARPORT_PASSWORD")
	if o.passwordStdin {
		b, err := io.ReadAll(io.LimitReader(o.in, 4<<10))
		if err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, usageError{err}
	}
	req.SetBasicAuth(o.user, password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = answerError(resp, body)
	}
	return body, err
}

// answerError is what the server says is wrong.
func answerError(resp *http.Response, body []byte) error {
	var e struct {
		Errors []struct{ Message string }
	}
	if json.Unmarshal(body, &e) == nil && len(e.Errors) > 0 {
		return fmt.Errorf("%s: %s", resp.Status, e.Errors[0].Message)
	}
	return errors.New(resp.Status)
}
