package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

type healthcheckOptions struct {
	url     string
	timeout time.Duration
}

func newHealthcheckCmd(a *app) *cobra.Command {
	var o healthcheckOptions
	cmd := &cobra.Command{
		Use:   "healthcheck [config.yml]",
		Short: "Ask the server on this machine whether it lives",
		Long: "Healthcheck asks /healthz at the address of the configuration, and fails where nothing good comes back. " +
			"It is made for a container's HEALTHCHECK." + configUsage,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return runHealthcheck(cmd.Context(), a, args, o) },
	}
	cmd.Flags().StringVar(&o.url, "url", "", "ask this URL instead")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Second, "fail after this time")
	return cmd
}

func runHealthcheck(ctx context.Context, a *app, args []string, o healthcheckOptions) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	client, url := http.DefaultClient, o.url
	if url == "" {
		c, err := a.loadConfig(args)
		if err != nil {
			return err
		}
		if client, url, err = ownHealth(c); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// ownHealth is where the configured server answers on this machine. Where it
// asks its clients for certificates, of which there is none here, the listener
// of the metrics answers.
func ownHealth(c *config.Config) (*http.Client, string, error) {
	h := c.Distribution.HTTP
	network, addr, scheme := "tcp", h.Addr, "http"
	if c.TLS() {
		scheme = "https"
	}
	if len(h.TLS.ClientCAs) > 0 {
		if c.Tarport.Metrics.Addr == "" || c.Tarport.Metrics.Addr == config.OnMain {
			return nil, "", errors.New("the server asks for client certificates: give the metrics a listener of their own (tarport.metrics.addr), or name a --url")
		}
		addr, scheme = c.Tarport.Metrics.Addr, "http"
	} else if h.Net == "unix" {
		network = "unix"
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, reachable(network, addr))
		},
		// The certificate is for the public name, and the question goes to this
		// very machine; what comes back is a status and no more.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	return &http.Client{Transport: transport}, scheme + "://localhost/healthz", nil
}

// reachable is the address at which a listener on addr can be reached.
func reachable(network, addr string) string {
	if network == "unix" {
		return addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
