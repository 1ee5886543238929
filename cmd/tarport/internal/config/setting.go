package config

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"

	"github.com/tarport/tarport"
)

// Where the value of a key can be from, besides a variable and another key.
const (
	FromFile    = "file"
	FromDefault = "default"
)

// Setting is a key under tarport: with its value, as it counts. No secret is in
// it.
type Setting struct {
	Key     string `json:"key"` // such as uploads.max_bytes
	Value   string `json:"value"`
	Default string `json:"default"`
	// From is FromFile, FromDefault, the name of a variable, or that of the key of
	// which this one takes its value where nobody sets it.
	From string `json:"from"`
}

// derived are the keys that take their values of other ones; see complete.
var derived = map[string]string{
	"data": "storage.filesystem.rootdirectory", "public_url": "http.host", "secret": "http.secret",
	"metrics.addr": "http.debug.addr", "database.dsn": "tarport.data",
}

// Settings lists all keys under tarport:.
func (c *Config) Settings() []Setting {
	d := defaults()
	d.Data, d.Metrics.Addr, d.Database.DSN = defaultData, defaultMetrics, sqliteFile(defaultData)
	var list []Setting
	for _, k := range keys {
		s := Setting{Key: k.name, Value: text(k.at(&c.Tarport)), Default: text(k.at(&d)), From: cmp.Or(c.From[k.name], FromDefault)}
		if s.From == FromDefault && s.Value != s.Default {
			s.From = derived[k.name]
		}
		list = append(list, s)
	}
	return list
}

// text is the value that p points to.
func text(p any) string {
	switch p := p.(type) {
	case *string:
		return redactURL(*p)
	case *tarport.Secret:
		if *p == "" {
			return ""
		}
		return p.String()
	case *[]string:
		return strings.Join(*p, ", ")
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *Size:
		return p.String()
	case *Duration:
		return shortDuration(*p)
	}
	return ""
}

// shortDuration is the duration as one writes it: 24h and not 24h0m0s.
func shortDuration(d Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// redactURL is a URL without its password; other texts are as they are.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return s
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
