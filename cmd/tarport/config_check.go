package main

import (
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
	"github.com/tarport/tarport/cmd/tarport/internal/table"
)

func newConfigCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCmd(a))
	return cmd
}

func newConfigCheckCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check [config.yml]",
		Short: "Say whether the configuration is right, and what it means",
		Long: "Check validates the configuration with the environment, as serve does, and prints what serve would do: " +
			"the keys under tarport: with their values, where those are from, and their defaults where they are others. Secrets are not shown." + configUsage,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return usageError{fmt.Errorf("--format %q is neither table nor json", format)}
			}
			return runConfigCheck(a, format, args)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	return cmd
}

// checkedConfig is a configuration as JSON.
type checkedConfig struct {
	File     string            `json:"file"` // "" for none
	Summary  map[string]string `json:"summary"`
	Settings []config.Setting  `json:"settings"`
	Warnings []string          `json:"warnings"`
}

func runConfigCheck(a *app, format string, args []string) error {
	bridge := bridgeLogrus()
	c, err := a.loadConfig(args)
	if err != nil {
		return err
	}
	if _, err := server.TLS(c, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	warnings := append(bridge.take(), c.Warnings...)
	if format == "json" {
		out := checkedConfig{File: c.File, Summary: map[string]string{}, Settings: c.Settings(), Warnings: append([]string{}, warnings...)}
		for _, row := range summary(c)[1:] { // without the file
			out.Summary[row[0]] = row[1]
		}
		return writeJSON(a.out, out)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range summary(c) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	_, _ = fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	meaning := meanings(c)
	columns := []table.Column{{Head: "KEY"}, {Head: "VALUE"}, {Head: "FROM", Rank: 1}, {Head: "DEFAULT", Rank: 2}}
	err = showTable(a.out, format, c.Settings(), columns, func(s config.Setting) []string {
		otherwise := ""
		if s.Value != s.Default {
			otherwise = or(s.Default, meaning[s.Key])
		}
		return []string{"tarport." + s.Key, or(s.Value, meaning[s.Key]), s.From, otherwise}
	})
	for _, text := range warnings {
		_, _ = fmt.Fprintf(a.err, "warning: %s\n", text)
	}
	return err
}

// meanings are what keys mean that hold nothing.
func meanings(c *config.Config) map[string]string {
	return map[string]string{
		"public_url":      "(the Host of each request)",
		"secret":          "(" + secretFile(c.Tarport.Data) + ", made at the first start)",
		"trusted_proxies": "(none)",
		"metrics.addr":    "(nowhere)",
	}
}

// summary is what the keys of distribution's come to.
func summary(c *config.Config) [][2]string {
	driver, params := c.Driver()
	place := []string{driver}
	for _, key := range []string{"bucket", "rootdirectory"} {
		if v, ok := params[key]; ok {
			place = append(place, fmt.Sprintf("%s=%v", key, v))
		}
	}
	return [][2]string{
		{"file", or(c.File, "none: the defaults")},
		{"address", c.Distribution.HTTP.Addr},
		{"TLS", describeTLS(c)},
		{"metrics", describeMetrics(c)},
		{"storage", strings.Join(place, " ")},
		{"log", string(c.Distribution.Log.Level) + ", " + c.Distribution.Log.Formatter},
		{"drain timeout", c.Distribution.HTTP.DrainTimeout.String()},
	}
}

func describeTLS(c *config.Config) string {
	t := c.Distribution.HTTP.TLS
	switch {
	case !c.TLS():
		return "no"
	case t.Certificate != "":
		return "certificate " + t.Certificate
	default:
		return "Let's Encrypt for " + strings.Join(t.LetsEncrypt.Hosts, ", ")
	}
}

func describeMetrics(c *config.Config) string {
	switch a := c.Tarport.Metrics.Addr; a {
	case "":
		return "no"
	case config.OnMain:
		return "on the main address, " + c.MetricsPath()
	default:
		return a + c.MetricsPath()
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
