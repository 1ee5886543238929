// Package config reads what `tarport serve` is told: a distribution
// configuration with one more key, `tarport:`, and the environment on top.
//
//	config.yml ──> strict pass (unknown keys, with line and excerpt)
//	           ──> configuration.Parse (distribution's own, with REGISTRY_*)
//	           ──> what Tarport does not do: refused, or warned about
//	           ──> TARPORT_* ──> validation ──> Config
//
// The same bytes go through both passes, so that an existing config.yml of
// registry:2 or :3 works, and so that a typing error in it is found, which
// distribution's own parser lets pass. A Config does not change once it is
// loaded. Nothing here opens a file but the configuration itself.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tarport/tarport"
)

// Config is what the server is told, validated.
type Config struct {
	// Distribution is the distribution part of the configuration. Sections that
	// have no effect are as they were written; Tarport does not look at them.
	Distribution *configuration.Configuration

	// Tarport is what stands under the key `tarport:`.
	Tarport Tarport

	// File is the file that was read; "" where the defaults serve.
	File string

	// From tells of the keys under tarport: that are set where that was: FromFile,
	// or the name of a variable.
	From map[string]string

	// Warnings are for the log: what has no effect, and what is risky.
	Warnings []string
}

// Tarport is what stands under the key `tarport:` of the configuration.
// config.yml at the top of the project documents each key.
type Tarport struct {
	Data           string         `yaml:"data"`
	PublicURL      string         `yaml:"public_url"`
	Secret         tarport.Secret `yaml:"secret"`
	TrustedProxies []string       `yaml:"trusted_proxies"`
	Database       Database       `yaml:"database"`
	Metrics        Metrics        `yaml:"metrics"`
	Blobs          Blobs          `yaml:"blobs"`
	Uploads        Uploads        `yaml:"uploads"`
	Manifests      Manifests      `yaml:"manifests"`
	Archives       Archives       `yaml:"archives"`
	Namespaces     Namespaces     `yaml:"namespaces"`
	Tokens         Tokens         `yaml:"tokens"`
	Storage        Storage        `yaml:"storage"`
	Audit          Audit          `yaml:"audit"`
	Scan           Scan           `yaml:"scan"`
}

// Database says where the metadata lies.
type Database struct {
	DSN string `yaml:"dsn"` // path of a SQLite file, or postgres://…
}

// Metrics says where Prometheus finds the metrics.
type Metrics struct {
	Addr string `yaml:"addr"` // host:port, OnMain, or "" for nowhere
}

// OnMain is the Metrics.Addr that serves the metrics on the main listener.
const OnMain = "main"

// Storage says how full the disk may become.
type Storage struct {
	MinFree Size `yaml:"min_free"` // below it nothing more is taken; 0: no floor
}

// Audit says how long events are kept.
type Audit struct {
	Retention Duration `yaml:"retention"`
}

// Scan says how layers are looked into.
type Scan struct {
	Enabled     bool `yaml:"enabled"`
	Concurrency int  `yaml:"concurrency"` // layers at once
	Rate        Size `yaml:"rate"`        // plain bytes a second of each; 0: no limit
}

// Blobs says how long a blob lives that nothing refers to.
type Blobs struct {
	Grace Duration `yaml:"grace"`
}

// Uploads bounds the upload sessions.
type Uploads struct {
	Expire   Duration `yaml:"expire"`
	Max      int      `yaml:"max"`       // open sessions of one user, and as many of archives
	MaxBytes Size     `yaml:"max_bytes"` // of one user's archives that are sent in parts; 0: no limit
}

// Manifests says what manifests are taken.
type Manifests struct {
	Sparse bool `yaml:"sparse"` // images whose config or layers are not here
}

// Archives bounds the tarballs that are uploaded, and says how their layers
// are stored.
type Archives struct {
	MaxSize     Size   `yaml:"max_size"`     // of one body as it is sent
	MaxUnpacked Size   `yaml:"max_unpacked"` // of all that comes out of it
	MaxLayer    Size   `yaml:"max_layer"`    // of one layer, unpacked
	Compression string `yaml:"compression"`
	Repack      bool   `yaml:"repack"`
	Concurrent  int    `yaml:"concurrent"` // read at once
}

// Namespaces says who may create namespaces, and how.
type Namespaces struct {
	AutoCreate bool   `yaml:"auto_create"` // by a first push
	CreateBy   string `yaml:"create_by"`   // CreateByUsers or CreateByAdmins
	Personal   bool   `yaml:"personal"`    // each user has one of its own name
}

// The values of Namespaces.CreateBy.
const (
	CreateByUsers  = "users"
	CreateByAdmins = "admins"
)

// Tokens says how access tokens are signed.
type Tokens struct {
	KeyRotation Duration `yaml:"key_rotation"` // how long a key signs
}

// The data directory, and the address, of a server that is told nothing.
const (
	defaultData = "./data"
	defaultAddr = "127.0.0.1:5000"
)

// defaultDrain is how long a stop waits for requests under way where
// http.draintimeout says nothing; distribution then cuts them at once.
const defaultDrain = 30 * time.Second

func defaults() Tarport {
	return Tarport{
		Metrics:    Metrics{Addr: metricsUnset},
		Blobs:      Blobs{Grace: Duration(24 * time.Hour)},
		Uploads:    Uploads{Expire: Duration(24 * time.Hour), Max: 100, MaxBytes: 100 << 30},
		Archives:   Archives{MaxSize: 20 << 30, MaxUnpacked: 200 << 30, MaxLayer: 20 << 30, Compression: "gzip", Concurrent: 16},
		Namespaces: Namespaces{AutoCreate: true, CreateBy: CreateByUsers},
		Tokens:     Tokens{KeyRotation: Duration(720 * time.Hour)},
		Storage:    Storage{MinFree: 1 << 30},
		Audit:      Audit{Retention: Duration(365 * 24 * time.Hour)},
		Scan:       Scan{Enabled: true, Concurrency: 1, Rate: 64 << 20},
	}
}

// metricsUnset stands in Metrics.Addr until it is known whether
// http.debug.addr says something else than defaultMetrics.
const (
	metricsUnset   = "unset"
	defaultMetrics = "127.0.0.1:5001"
)

// Load reads the configuration file, or the defaults where file is "", and
// applies the environment, which has the form of os.Environ. REGISTRY_* is
// read from the process's own environment, by distribution's parser. The
// error names the key or variable, and shows its line where there is one.
func Load(file string, environ []string) (*Config, error) {
	var data []byte
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		data = b
	}
	c, err := parse(data, environ)
	if err != nil {
		if file != "" {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return nil, err
	}
	c.File = file
	return c, nil
}

func parse(data []byte, environ []string) (*Config, error) {
	f, err := decodeStrict(data)
	if err != nil {
		return nil, err
	}
	dist, err := parseDistribution(data, f, environ)
	if err != nil {
		return nil, err
	}
	c := &Config{Distribution: dist, Tarport: f.Tarport, From: map[string]string{}}
	for _, k := range keys {
		if nodeAt(data, "$.tarport."+k.name) != nil {
			c.From[k.name] = FromFile
		}
	}
	if err := c.applyEnviron(environ); err != nil {
		return nil, err
	}
	if err := c.checkSupported(); err != nil {
		return nil, excerpt(err, data)
	}
	c.complete()
	if err := c.validate(); err != nil {
		return nil, excerpt(err, data)
	}
	return c, nil
}

// complete fills in the defaults that depend on other keys.
func (c *Config) complete() {
	d, t := c.Distribution, &c.Tarport
	if d.HTTP.Addr == "" {
		d.HTTP.Addr = defaultAddr
	}
	if d.HTTP.DrainTimeout == 0 {
		d.HTTP.DrainTimeout = defaultDrain
	}
	if d.Log.Formatter == "" {
		d.Log.Formatter = "text"
	}
	if d.Storage.Type() == "filesystem" && d.Storage["filesystem"]["rootdirectory"] == nil {
		d.Storage["filesystem"]["rootdirectory"] = defaultData // checkDriver made the map
	}
	if t.Data == "" {
		t.Data = defaultData
		if root, ok := d.Storage["filesystem"]["rootdirectory"].(string); ok {
			t.Data = root
		}
	}
	if t.PublicURL == "" {
		t.PublicURL = d.HTTP.Host
	}
	if t.Secret == "" {
		t.Secret = tarport.Secret(d.HTTP.Secret)
	}
	if t.Metrics.Addr == metricsUnset {
		t.Metrics.Addr = defaultMetrics
		if d.HTTP.Debug.Addr != "" && d.HTTP.Debug.Prometheus.Enabled {
			t.Metrics.Addr = d.HTTP.Debug.Addr
		}
	}
	if t.Metrics.Addr == d.HTTP.Addr && !strings.HasSuffix(d.HTTP.Addr, ":0") { // 0 is any free port
		t.Metrics.Addr = OnMain
	}
	if t.Database.DSN == "" {
		t.Database.DSN = sqliteFile(t.Data)
	}
}

// Proxies are the networks of tarport.trusted_proxies.
func (c *Config) Proxies() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range c.Tarport.TrustedProxies {
		if p, err := parsePrefix(s); err == nil { // validate has seen them all
			out = append(out, p)
		}
	}
	return out
}

// MetricsPath is where the metrics are served.
func (c *Config) MetricsPath() string {
	if p := c.Distribution.HTTP.Debug.Prometheus.Path; p != "" {
		return p
	}
	return "/metrics"
}
