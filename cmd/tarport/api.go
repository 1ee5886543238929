package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/cmd/tarport/internal/table"
	"github.com/tarport/tarport/internal/client"
)

const defaultRegistry = "http://127.0.0.1:5000"

// apiOptions are the flags of every command that asks a server.
type apiOptions struct {
	registry string
	plain    bool
	format   string // table or json; "" for a command that shows nothing
}

// apiUsage is the end of the help of a command that has others below it.
const apiUsage = `

The server is the one of --registry, or else of TARPORT_REGISTRY, or else
` + defaultRegistry + `; one on this machine that speaks TLS needs its
https:// in front. The login is the one that "tarport login" or "docker
login" has left for it, or else TARPORT_USER and TARPORT_PASSWORD, which go
first and can be an access token or a robot's secret.`

func (o *apiOptions) flags(a *app, cmd *cobra.Command) {
	registry := config.Getenv(a.environ, config.EnvRegistry)
	if registry == "" {
		registry = defaultRegistry
	}
	cmd.PersistentFlags().StringVar(&o.registry, "registry", registry, "the server: HOST[:PORT] (over http on this machine, else https) or its URL, such as https://127.0.0.1:5443")
	cmd.PersistentFlags().BoolVar(&o.plain, "plain-http", false, "speak HTTP without TLS to another machine, too")
}

func (o *apiOptions) formatFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&o.format, "format", "table", "table or json")
}

// check is for what the flags hold.
func (o *apiOptions) check() (*url.URL, error) {
	if o.format != "" && o.format != "table" && o.format != "json" {
		return nil, usageError{fmt.Errorf("--format %q is neither table nor json", o.format)}
	}
	u, err := client.ParseRegistry(o.registry, o.plain)
	if err != nil {
		return nil, usageError{err}
	}
	return u, nil
}

// client returns a client of the server with the login that there is for it.
func (o *apiOptions) client(ctx context.Context, a *app) (*client.Client, error) {
	u, err := o.check()
	if err != nil {
		return nil, err
	}
	who := client.Credential{
		User:     config.Getenv(a.environ, config.EnvUser),
		Password: tarport.Secret(config.Getenv(a.environ, config.EnvPassword)),
	}
	if who.Password != "" {
		if who.User == "" {
			who.User = "admin"
		}
		return client.New(client.Options{Registry: u, Credential: who}), nil
	}
	logins, err := a.logins()
	if err != nil {
		return nil, err
	}
	if who, err = logins.Get(ctx, u.Host); err != nil {
		return nil, err
	}
	if who.Empty() {
		return nil, fmt.Errorf("there is no login for %s: use tarport login --registry %s", u.Host, o.registry)
	}
	return client.New(client.Options{Registry: u, Credential: who, Renewed: func(ctx context.Context, c client.Credential) error {
		_, err := logins.Put(ctx, u.Host, c)
		return err
	}}), nil
}

// dockerDir is where docker keeps what it knows of the user who runs the
// command.
func (a *app) dockerDir() (string, error) {
	if dir := config.Getenv(a.environ, "DOCKER_CONFIG"); dir != "" {
		return dir, nil
	}
	home := config.Getenv(a.environ, "HOME")
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return "", fmt.Errorf("find docker's logins: %w", err)
		}
	}
	return filepath.Join(home, ".docker"), nil
}

// logins are docker's, of that user.
func (a *app) logins() (*client.Logins, error) {
	dir, err := a.dockerDir()
	if err != nil {
		return nil, err
	}
	return client.NewLogins(client.LoginsOptions{
		Dir: dir, Memory: config.Getenv(a.environ, "DOCKER_AUTH_CONFIG"), Environ: a.environ, Err: a.err,
	}), nil
}

// commandOf has the commands that do what the server calls by its routes.
var commandOf = strings.NewReplacer("archives/load", "tarport load", "archives/import", "tarport import")

// The parameters of the server's that are flags here, with and without a value.
var (
	parameterValue = regexp.MustCompile(`(^|[ (])(namespace|repo|tag|rename|platform)=(["\w])`)
	parameter      = regexp.MustCompile(`(^|[ (])(namespace|repo|tag|rename|platform)=`)
)

// explain says an error of the server's as the command line calls things, and
// adds to one of its own where its log has more.
func explain(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if ok && e.Status >= http.StatusInternalServerError && e.RequestID != "" && !strings.Contains(e.Message, e.RequestID) {
		return fmt.Errorf("%w (request id %s)", err, e.RequestID)
	}
	text := commandOf.Replace(err.Error())
	if ok {
		text = parameter.ReplaceAllString(parameterValue.ReplaceAllString(text, "$1--$2 $3"), "$1--$2")
	}
	if text != err.Error() {
		return errors.New(text)
	}
	return err
}

// collect reads a whole list, or the first of it where most is not 0.
func collect[T any](ctx context.Context, c *client.Client, path string, query url.Values, most int) ([]T, error) {
	items := []T{}
	for item, err := range client.List[T](ctx, c, path, query) {
		if err != nil {
			return nil, err
		}
		if items = append(items, item); len(items) == most {
			break
		}
	}
	return items, nil
}

// showList prints a list, as a table under the head or as a JSON array.
func showList[T any](out io.Writer, format string, items []T, head string, row func(T) []string) error {
	if format == "json" {
		return writeJSON(out, items)
	}
	t := table.New(table.Columns(head)...)
	for _, item := range items {
		t.Row(row(item)...)
	}
	return t.Write(out, 0)
}

// showOne prints one thing, as lines of names and values in turn, or as JSON.
func showOne(out io.Writer, format string, v any, cells ...string) error {
	if format == "json" {
		return writeJSON(out, v)
	}
	t := table.New(table.Column{}, table.Column{})
	for i := 0; i+1 < len(cells); i += 2 {
		t.Row(cells[i], cells[i+1])
	}
	return t.Write(out, 0)
}

// writeJSON prints a value. What JSON leaves as it is of the characters that
// steer a terminal (DEL, the C1 controls) is escaped, too.
func writeJSON(out io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	if bytes.ContainsFunc(b.Bytes(), escaped) {
		var safe bytes.Buffer
		for _, r := range b.String() {
			if escaped(r) {
				_, _ = fmt.Fprintf(&safe, `\u%04x`, r)
				continue
			}
			_, _ = safe.WriteRune(r)
		}
		b = safe
	}
	_, err := b.WriteTo(out)
	return err
}

func escaped(r rune) bool { return r != '\n' && unicode.IsControl(r) }

// say writes words for people.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, format+"\n", args...)
}

// stamp is a time in a table; "" for none.
func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// expires is the end of something in a table.
func expires(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return stamp(t)
}

// bytesText is a number of bytes as people read it.
func bytesText(n int64) string { return progress.Bytes(n) }

// pathf is a path of the API, with its parts escaped.
func pathf(format string, parts ...string) string {
	escaped := make([]any, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return fmt.Sprintf(format, escaped...)
}
