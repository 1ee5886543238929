package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/goccy/go-yaml"
)

// parseDistribution runs distribution's own parser over the file, completed by
// the two sections without which it refuses one. It applies REGISTRY_* of the
// process's environment.
func parseDistribution(data []byte, f *file, environ []string) (dist *configuration.Configuration, err error) {
	if err := checkRegistryEnviron(f.Storage, environ); err != nil {
		return nil, err
	}
	// The parser panics on combinations that checkRegistryEnviron does not know.
	defer func() {
		if p := recover(); p != nil {
			dist, err = nil, fmt.Errorf("the configuration and the REGISTRY_* variables do not go together: %v", p)
		}
	}()
	dist, err = configuration.Parse(bytes.NewReader(withDefaults(data, f)))
	if err != nil {
		return nil, fmt.Errorf("read as a distribution configuration: %w", err)
	}
	return dist, checkDriver(dist.Storage)
}

// withDefaults appends what distribution's parser insists on and the file does
// not say. It goes to the end, so that line numbers stay what they are.
func withDefaults(data []byte, f *file) []byte {
	out := slices.Clip(data)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	if f.Version == "" {
		out = append(out, "version: 0.1\n"...)
	}
	if f.Storage == nil {
		out = append(out, "storage:\n  filesystem:\n    rootdirectory: "+defaultData+"\n"...)
	}
	return out
}

// sharedStorage are the keys below storage: that are no driver.
var sharedStorage = []string{"cache", "delete", "maintenance", "redirect", "tag"}

// checkRegistryEnviron refuses the variables on which distribution's parser
// panics, fails without saying why, or does nothing.
func checkRegistryEnviron(s configuration.Storage, environ []string) error {
	driver := "filesystem"
	for k := range s {
		if !slices.Contains(sharedStorage, k) {
			driver = k
		}
	}
	if v, ok := lookup(environ, "REGISTRY_STORAGE"); ok {
		var named configuration.Storage
		if err := yaml.Unmarshal([]byte(v), &named); err != nil {
			return fmt.Errorf("REGISTRY_STORAGE: %w", err)
		}
		driver = named.Type()
	}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if name == "REGISTRY_AUTH" || strings.HasPrefix(name, "REGISTRY_AUTH_") {
			return fmt.Errorf("%s: Tarport has accounts of its own and does not use distribution's auth section; unset the variable "+
				"(Kubernetes sets it for a service called registry-auth, unless enableServiceLinks is false)", name)
		}
		rest, ok := strings.CutPrefix(name, "REGISTRY_STORAGE_")
		if !ok {
			continue
		}
		section := strings.ToLower(strings.SplitN(rest, "_", 2)[0])
		switch {
		case section == "maintenance":
			return fmt.Errorf("%s: distribution's parser cannot set this from the environment; unset the variable "+
				"(tarport.uploads.expire says when uploads are purged)", name)
		case section != driver && !slices.Contains(sharedStorage, section):
			return fmt.Errorf("%s: it configures the storage driver %s, but the configuration uses %s; set REGISTRY_STORAGE=%[2]s to change the driver",
				name, section, driver)
		}
	}
	return nil
}

// checkDriver checks the storage section once more, with what the environment
// has put into it.
func checkDriver(s configuration.Storage) error {
	switch driver := s.Type(); driver {
	case "filesystem", "inmemory", "s3", "s3aws":
	default:
		return keyErrorf("storage", "%s is no storage driver of this build: there are filesystem, s3 and inmemory", driver)
	}
	for name, p := range s {
		if p == nil {
			s[name] = configuration.Parameters{} // `filesystem:` with nothing below
		}
	}
	b, err := yaml.Marshal(map[string]configuration.Parameters(s))
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	err = yaml.UnmarshalWithOptions(b, new(storageSection), yaml.Strict())
	if e, ok := errors.AsType[yaml.Error](err); ok {
		return fmt.Errorf("storage, as set by REGISTRY_STORAGE_*: %s", strings.Replace(e.GetMessage(), "unknown field", "unknown key", 1))
	}
	return err
}

// unsupported are the parts of a distribution configuration that Tarport does
// not do. Where leaving them out would change who may do what, or what is
// stored, the start is refused; else there is a warning.
var unsupported = []struct {
	key    string
	used   func(*configuration.Configuration) bool
	refuse bool
	why    string
}{
	{
		"auth", func(c *configuration.Configuration) bool { return len(c.Auth) > 0 && c.Auth.Type() != "none" }, true,
		"Tarport has accounts of its own; remove the section",
	},
	{
		"middleware", func(c *configuration.Configuration) bool { return len(c.Middleware) > 0 }, true,
		"distribution's middlewares are not used; remove the section",
	},
	{
		"proxy", func(c *configuration.Configuration) bool { return c.Proxy.RemoteURL != "" }, true,
		"pull-through caching is not supported; remove the section",
	},
	{"notifications", func(c *configuration.Configuration) bool {
		return slices.ContainsFunc(c.Notifications.Endpoints, func(e configuration.Endpoint) bool { return !e.Disabled })
	}, true, "distribution's notifications are not supported; remove the endpoints"},
	{
		"policy", func(c *configuration.Configuration) bool { return len(c.Policy.Repository.Classes) > 0 }, true,
		"repository classes are not supported; remove the section",
	},
	{
		"validation.disabled", func(c *configuration.Configuration) bool { return c.Validation.Disabled }, true,
		"manifests are always validated; remove the key",
	},
	{"validation.manifests.urls", func(c *configuration.Configuration) bool {
		return len(c.Validation.Manifests.URLs.Allow)+len(c.Validation.Manifests.URLs.Deny) > 0
	}, true, "the urls of foreign layers are never fetched and not filtered; remove the section"},
	{"validation.manifests.indexes", func(c *configuration.Configuration) bool {
		p := c.Validation.Manifests.Indexes
		return (p.Platforms != "" && p.Platforms != "all") || len(p.PlatformList) > 0
	}, true, "use tarport.manifests.sparse: true to take indexes whose images are not all there"},
	{"storage.maintenance.readonly", func(c *configuration.Configuration) bool {
		ro, ok := c.Storage["maintenance"]["readonly"].(map[any]any)
		return ok && ro["enabled"] == true
	}, true, "there is no read-only mode: nothing here needs one; remove the section"},
	{
		"http.prefix", func(c *configuration.Configuration) bool { return strings.Trim(c.HTTP.Prefix, "/") != "" }, true,
		"clients ask for /v2/ at the root of the host, so Tarport serves nothing below a prefix; remove the key",
	},
	{
		"log.hooks", func(c *configuration.Configuration) bool { return len(c.Log.Hooks) > 0 }, true,
		"mail hooks are not supported; remove the section",
	},
	{"storage.delete", func(c *configuration.Configuration) bool {
		return c.Storage["delete"] != nil && c.Storage["delete"]["enabled"] != true
	}, false, "has no effect: who may delete is a matter of rights"},
	{"storage.maintenance.uploadpurging", func(c *configuration.Configuration) bool {
		return c.Storage["maintenance"]["uploadpurging"] != nil
	}, false, "has no effect: tarport.uploads.expire says when uploads are purged"},
	{
		"storage.cache", func(c *configuration.Configuration) bool { return c.Storage["cache"] != nil }, false,
		"has no effect: descriptors come from the database",
	},
	{
		"storage.tag", func(c *configuration.Configuration) bool { return c.Storage["tag"] != nil }, false,
		"has no effect: tags come from the database",
	},
	{"storage.redirect", func(c *configuration.Configuration) bool {
		return c.Storage["redirect"] != nil && c.Storage["redirect"]["disable"] != true
	}, false, "has no effect: clients get blobs from Tarport itself"},
	{"storage.filesystem.maxthreads", func(c *configuration.Configuration) bool {
		return c.Storage["filesystem"]["maxthreads"] != nil
	}, false, "has no effect"},
	{
		"redis", func(c *configuration.Configuration) bool { return len(c.Redis.Options.Addrs) > 0 }, false,
		"has no effect: Redis is not used",
	},
	{"http.debug", func(c *configuration.Configuration) bool {
		return c.HTTP.Debug.Addr != "" && !c.HTTP.Debug.Prometheus.Enabled
	}, false, "has no effect without prometheus.enabled: pprof and expvar are not served"},
	{
		"catalog.maxentries", func(c *configuration.Configuration) bool { return c.Catalog.MaxEntries != maxPage }, false,
		"has no effect: a page has at most 1000 entries",
	},
	{
		"tags.maxtags", func(c *configuration.Configuration) bool { return c.Tags.MaxTags != maxPage }, false,
		"has no effect: a page has at most 1000 tags",
	},
}

// maxPage is both the registry's longest page and what distribution's parser
// fills in for the two keys above.
const maxPage = 1000

func (c *Config) checkSupported() error {
	for _, u := range unsupported {
		switch {
		case !u.used(c.Distribution):
		case u.refuse:
			return &keyError{u.key, u.why}
		default:
			c.Warnings = append(c.Warnings, u.key+" "+u.why)
		}
	}
	return nil
}
