package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/extensions/namespaces"
)

type auditOptions struct {
	apiOptions
	namespace, actor, action, since, until string
	limit                                  int
}

func newAuditCmd(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List who changed what, the newest first",
		Long: "Audit lists the changes of a namespace to its owners, and all of them to administrators. " +
			"A time is written as 2026-01-31T12:00:00Z, 2026-01-31, or 24h for so long ago." + apiUsage,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAudit(cmd.Context(), a, o) },
	}
	o.flags(a, cmd)
	o.formatFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.namespace, "namespace", "", "only what happened in it")
	f.StringVar(&o.actor, "actor", "", "only what this user or robot did")
	f.StringVar(&o.action, "action", "", "only this, such as tag.set or login.fail")
	f.StringVar(&o.since, "since", "", "not before")
	f.StringVar(&o.until, "until", "", "before")
	f.IntVar(&o.limit, "limit", 100, "at most so many; 0 for all")
	return cmd
}

func runAudit(ctx context.Context, a *app, o auditOptions) error {
	q := url.Values{}
	for name, v := range map[string]string{"actor": o.actor, "action": o.action} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, v := range map[string]string{"since": o.since, "until": o.until} {
		t, err := parseTime(v, time.Now())
		if err != nil {
			return usageError{fmt.Errorf("--%s: %w", name, err)}
		}
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339))
		}
	}
	if o.limit < 0 {
		return usageError{fmt.Errorf("--limit %d is less than nothing", o.limit)}
	}
	if o.limit > 0 {
		q.Set("n", strconv.Itoa(min(o.limit, 1000)))
	}
	path := "/events"
	if o.namespace != "" {
		path = pathf("/namespaces/%s/events", o.namespace)
	}
	c, err := o.client(ctx, a)
	if err != nil {
		return err
	}
	events, err := collect[namespaces.Event](ctx, c, path, q, o.limit)
	if err != nil {
		return err
	}
	return showList(a.out, o.format, events, "TIME ACTOR ACTION TARGET DETAIL FROM", func(e namespaces.Event) []string {
		return []string{stamp(&e.At), e.Actor, e.Action, eventTarget(e), eventDetail(e), e.Address}
	})
}

var longDigest = regexp.MustCompile(`^(sha\d+:[0-9a-f]{12})[0-9a-f]+$`)

// eventTarget is what was changed, by its whole name, but for a digest.
func eventTarget(e namespaces.Event) string {
	e.Target = longDigest.ReplaceAllString(e.Target, "$1")
	where := e.Repository
	if where == "" {
		where = e.Namespace
	}
	switch {
	case where == "" || strings.HasPrefix(e.Target, where):
		return e.Target
	case e.Target == "":
		return where
	}
	return where + " " + e.Target
}

// eventDetail is the detail in one line.
func eventDetail(e namespaces.Event) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(e.Detail)) {
		text, ok := e.Detail[key].(string)
		if ok && text == "" {
			continue
		}
		if !ok { // a number of bytes is not to be 1.07e+10
			b, err := json.Marshal(e.Detail[key])
			if err != nil {
				continue // what came as JSON encodes
			}
			text = string(b)
		}
		parts = append(parts, key+"="+text)
	}
	return strings.Join(parts, " ")
}

// parseTime reads a time or how long ago it was; the zero time for "".
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write it as 2026-01-31T12:00:00Z, 2026-01-31 or 24h", s)
}
