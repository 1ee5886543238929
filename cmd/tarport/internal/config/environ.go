package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/tarport/tarport"
)

// keys are the keys under tarport:, in the order in which they are shown. Each
// has a variable; see variable.
var keys = []struct {
	name string
	at   func(*Tarport) any
}{
	{"data", func(t *Tarport) any { return &t.Data }},
	{"public_url", func(t *Tarport) any { return &t.PublicURL }},
	{"secret", func(t *Tarport) any { return &t.Secret }},
	{"trusted_proxies", func(t *Tarport) any { return &t.TrustedProxies }},
	{"database.dsn", func(t *Tarport) any { return &t.Database.DSN }},
	{"metrics.addr", func(t *Tarport) any { return &t.Metrics.Addr }},
	{"blobs.grace", func(t *Tarport) any { return &t.Blobs.Grace }},
	{"uploads.expire", func(t *Tarport) any { return &t.Uploads.Expire }},
	{"uploads.max", func(t *Tarport) any { return &t.Uploads.Max }},
	{"uploads.max_bytes", func(t *Tarport) any { return &t.Uploads.MaxBytes }},
	{"manifests.sparse", func(t *Tarport) any { return &t.Manifests.Sparse }},
	{"archives.max_size", func(t *Tarport) any { return &t.Archives.MaxSize }},
	{"archives.max_unpacked", func(t *Tarport) any { return &t.Archives.MaxUnpacked }},
	{"archives.max_layer", func(t *Tarport) any { return &t.Archives.MaxLayer }},
	{"archives.repack", func(t *Tarport) any { return &t.Archives.Repack }},
	{"archives.compression", func(t *Tarport) any { return &t.Archives.Compression }},
	{"archives.concurrent", func(t *Tarport) any { return &t.Archives.Concurrent }},
	{"namespaces.auto_create", func(t *Tarport) any { return &t.Namespaces.AutoCreate }},
	{"namespaces.create_by", func(t *Tarport) any { return &t.Namespaces.CreateBy }},
	{"namespaces.personal", func(t *Tarport) any { return &t.Namespaces.Personal }},
	{"storage.min_free", func(t *Tarport) any { return &t.Storage.MinFree }},
	{"audit.retention", func(t *Tarport) any { return &t.Audit.Retention }},
	{"scan.enabled", func(t *Tarport) any { return &t.Scan.Enabled }},
	{"scan.concurrency", func(t *Tarport) any { return &t.Scan.Concurrency }},
	{"scan.rate", func(t *Tarport) any { return &t.Scan.Rate }},
	{"tokens.key_rotation", func(t *Tarport) any { return &t.Tokens.KeyRotation }},
}

// variable is the name of the variable that overrides a key.
func variable(key string) string {
	return "TARPORT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// The variables that are no key of the configuration.
const (
	EnvFile          = "TARPORT_CONFIG" // the file, where no argument names one
	EnvAdminPassword = "TARPORT_ADMIN_PASSWORD"
	EnvRegistry      = "TARPORT_REGISTRY" // the server of the commands that ask one; so are the next two
	EnvUser          = "TARPORT_USER"
	EnvPassword      = "TARPORT_PASSWORD"
)

// kubernetes matches what a cluster sets in every container beside a service
// called tarport.
var kubernetes = regexp.MustCompile(`^TARPORT_(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_.*)?)$`)

func (c *Config) applyEnviron(environ []string) error {
	known := []string{EnvFile, EnvAdminPassword, EnvRegistry, EnvUser, EnvPassword}
	for _, k := range keys {
		name := variable(k.name)
		known = append(known, name)
		if v, ok := lookup(environ, name); ok {
			if err := setValue(k.at(&c.Tarport), v); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			c.From[k.name] = name
		}
	}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "TARPORT_") && !slices.Contains(known, name) && !kubernetes.MatchString(name) {
			c.Warnings = append(c.Warnings, "the variable "+name+" has no effect: no key is called so")
		}
	}
	return nil
}

// setValue sets what to points at. A text is taken as it stands, so that a
// password may look like YAML; a list has commas between its items.
func setValue(to any, value string) error {
	switch p := to.(type) {
	case *string:
		*p = value
	case *tarport.Secret:
		*p = tarport.Secret(value)
	case *[]string:
		*p = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	default:
		err := yaml.Unmarshal([]byte(value), to)
		if e, ok := errors.AsType[yaml.Error](err); ok {
			return fmt.Errorf("%q does not fit: %s", value, e.GetMessage())
		}
		return err
	}
	return nil
}

// Getenv is the variable's value in an environment of the form of os.Environ,
// "" where it is not set.
func Getenv(environ []string, name string) string {
	v, _ := lookup(environ, name)
	return v
}

// lookup finds a variable in the form of os.Environ; the last one counts.
func lookup(environ []string, name string) (string, bool) {
	for _, kv := range slices.Backward(environ) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}
