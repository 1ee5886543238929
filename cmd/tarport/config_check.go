package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
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
	return &cobra.Command{
		Use:   "check [config.yml]",
		Short: "Say whether the configuration is right, and what it means",
		Long:  "Check validates the configuration with the environment, as serve does, and prints what serve would do." + configUsage,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE:  func(_ *cobra.Command, args []string) error { return runConfigCheck(a, args) },
	}
}

func runConfigCheck(a *app, args []string) error {
	bridge := bridgeLogrus()
	c, err := a.loadConfig(args)
	if err != nil {
		return err
	}
	if _, err := server.TLS(c, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range summary(c) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, text := range append(bridge.take(), c.Warnings...) {
		_, _ = fmt.Fprintf(a.err, "warning: %s\n", text)
	}
	return nil
}

// summary is what the configuration comes to. It holds no secret.
func summary(c *config.Config) [][2]string {
	t, h := c.Tarport, c.Distribution.HTTP
	driver, params := c.Driver()
	place := []string{driver}
	for _, key := range []string{"bucket", "rootdirectory"} {
		if v, ok := params[key]; ok {
			place = append(place, fmt.Sprintf("%s=%v", key, v))
		}
	}
	secret := "configured"
	if t.Secret == "" {
		secret = secretFile(t.Data) + ", made at the first start"
	}
	return [][2]string{
		{"file", or(c.File, "none: the defaults")},
		{"address", h.Addr},
		{"TLS", describeTLS(c)},
		{"public URL", or(t.PublicURL, "the Host of each request")},
		{"trusted proxies", or(strings.Join(t.TrustedProxies, ", "), "none")},
		{"metrics", describeMetrics(c)},
		{"data", t.Data},
		{"database", redactDSN(t.Database.DSN)},
		{"storage", strings.Join(place, " ")},
		{"secret", secret},
		{"log", string(c.Distribution.Log.Level) + ", " + c.Distribution.Log.Formatter},
		{"drain timeout", h.DrainTimeout.String()},
		{"blobs kept for", t.Blobs.Grace.String()},
		{"uploads", fmt.Sprintf("%d for each user, expire after %s", t.Uploads.Max, t.Uploads.Expire)},
		{"sparse manifests", yesNo(t.Manifests.Sparse)},
		{"archives", fmt.Sprintf("up to %s, %s unpacked, %s a layer; layers stored as %s", t.Archives.MaxSize, t.Archives.MaxUnpacked, t.Archives.MaxLayer, t.Archives.Compression)},
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

// redactDSN is the DSN without its password.
func redactDSN(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return dsn
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
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
