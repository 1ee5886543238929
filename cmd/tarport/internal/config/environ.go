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

// overrides are the variables that override the keys under tarport:.
var overrides = []struct {
	name string
	at   func(*Tarport) any
}{
	{"TARPORT_DATA", func(t *Tarport) any { return &t.Data }},
	{"TARPORT_PUBLIC_URL", func(t *Tarport) any { return &t.PublicURL }},
	{"TARPORT_SECRET", func(t *Tarport) any { return &t.Secret }},
	{"TARPORT_TRUSTED_PROXIES", func(t *Tarport) any { return &t.TrustedProxies }},
	{"TARPORT_DATABASE_DSN", func(t *Tarport) any { return &t.Database.DSN }},
	{"TARPORT_METRICS_ADDR", func(t *Tarport) any { return &t.Metrics.Addr }},
	{"TARPORT_BLOBS_GRACE", func(t *Tarport) any { return &t.Blobs.Grace }},
	{"TARPORT_UPLOADS_EXPIRE", func(t *Tarport) any { return &t.Uploads.Expire }},
	{"TARPORT_UPLOADS_MAX", func(t *Tarport) any { return &t.Uploads.Max }},
	{"TARPORT_UPLOADS_MAX_BYTES", func(t *Tarport) any { return &t.Uploads.MaxBytes }},
	{"TARPORT_MANIFESTS_SPARSE", func(t *Tarport) any { return &t.Manifests.Sparse }},
	{"TARPORT_ARCHIVES_MAX_SIZE", func(t *Tarport) any { return &t.Archives.MaxSize }},
	{"TARPORT_ARCHIVES_MAX_UNPACKED", func(t *Tarport) any { return &t.Archives.MaxUnpacked }},
	{"TARPORT_ARCHIVES_MAX_LAYER", func(t *Tarport) any { return &t.Archives.MaxLayer }},
	{"TARPORT_ARCHIVES_REPACK", func(t *Tarport) any { return &t.Archives.Repack }},
	{"TARPORT_ARCHIVES_COMPRESSION", func(t *Tarport) any { return &t.Archives.Compression }},
	{"TARPORT_ARCHIVES_CONCURRENT", func(t *Tarport) any { return &t.Archives.Concurrent }},
	{"TARPORT_NAMESPACES_AUTO_CREATE", func(t *Tarport) any { return &t.Namespaces.AutoCreate }},
	{"TARPORT_NAMESPACES_CREATE_BY", func(t *Tarport) any { return &t.Namespaces.CreateBy }},
	{"TARPORT_NAMESPACES_PERSONAL", func(t *Tarport) any { return &t.Namespaces.Personal }},
	{"TARPORT_STORAGE_MIN_FREE", func(t *Tarport) any { return &t.Storage.MinFree }},
	{"TARPORT_AUDIT_RETENTION", func(t *Tarport) any { return &t.Audit.Retention }},
	{"TARPORT_SCAN_ENABLED", func(t *Tarport) any { return &t.Scan.Enabled }},
	{"TARPORT_SCAN_CONCURRENCY", func(t *Tarport) any { return &t.Scan.Concurrency }},
	{"TARPORT_SCAN_RATE", func(t *Tarport) any { return &t.Scan.Rate }},
	{"TARPORT_TOKENS_KEY_ROTATION", func(t *Tarport) any { return &t.Tokens.KeyRotation }},
}

// The variables that are no key of the configuration.
const (
	EnvFile          = "TARPORT_CONFIG"         // the file, where no argument names one
	EnvAdminPassword = "TARPORT_ADMIN_PASSWORD" //nolint:gosec // the name of the variable, not a password
	EnvRegistry      = "TARPORT_REGISTRY"       // the server of the commands that ask one; so are the next two
	EnvUser          = "TARPORT_USER"
	EnvPassword      = "TARPORT_PASSWORD" //nolint:gosec // likewise
)

// kubernetes matches what a cluster sets in every container beside a service
// called tarport.
var kubernetes = regexp.MustCompile(`^TARPORT_(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_.*)?)$`)

func (c *Config) applyEnviron(environ []string) error {
	known := []string{EnvFile, EnvAdminPassword, EnvRegistry, EnvUser, EnvPassword}
	for _, o := range overrides {
		known = append(known, o.name)
		if v, ok := lookup(environ, o.name); ok {
			if err := setValue(o.at(&c.Tarport), v); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
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
