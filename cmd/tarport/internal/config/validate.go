package config

import (
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
)

// minSecret is the shortest secret that is taken, in bytes: a key is derived
// from it that seals the signing keys.
const minSecret = 32

// sqliteFile is where the SQLite database of a data directory lies.
func sqliteFile(data string) string { return filepath.Join(data, "tarport.db") }

// SQLite tells whether the metadata lies in a SQLite file, which one process
// owns, and not in PostgreSQL, which several share.
func (c *Config) SQLite() bool {
	return !strings.HasPrefix(c.Tarport.Database.DSN, "postgres://") &&
		!strings.HasPrefix(c.Tarport.Database.DSN, "postgresql://")
}

func (c *Config) validate() error {
	for _, check := range []func() error{
		c.validateHTTP, c.validateTLS, c.validateLog, c.validatePublicURL, c.validateSecrets,
		c.validateDatabase, c.validateMetrics, c.validateProxies, c.validateLimits,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateHTTP() error {
	h := c.Distribution.HTTP
	switch h.Net {
	case "", "tcp":
		if err := checkAddr("http.addr", h.Addr); err != nil {
			return err
		}
	case "unix":
	default:
		return keyErrorf("http.net", "%q is neither tcp nor unix", h.Net)
	}
	if h.DrainTimeout < time.Millisecond {
		return keyErrorf("http.draintimeout", "%s is too short; write it with its unit, as 30s", h.DrainTimeout)
	}
	return nil
}

func checkAddr(key, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return keyErrorf(key, "%q is no address: write host:port, or :port for all interfaces", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return keyErrorf(key, "%q is no port: use 0 to 65535", port)
	}
	return nil
}

func (c *Config) validateTLS() error {
	t := c.Distribution.HTTP.TLS
	if err := c.validateLetsEncrypt(); err != nil {
		return err
	}
	switch {
	case (t.Certificate == "") != (t.Key == ""):
		return keyErrorf("http.tls", "certificate and key go together: set both or none")
	case len(t.ClientCAs) > 0 && !c.TLS():
		return keyErrorf("http.tls.clientcas", "needs a certificate and key, or letsencrypt")
	case t.ClientAuth != "" && len(t.ClientCAs) == 0:
		return keyErrorf("http.tls.clientauth", "needs clientcas")
	case !slices.Contains([]string{"", "tls1.2", "tls1.3"}, t.MinimumTLS):
		return keyErrorf("http.tls.minimumtls", "%q is neither tls1.2 nor tls1.3", t.MinimumTLS)
	}
	i := slices.IndexFunc(t.CipherSuites, func(name string) bool { return CipherSuite(name) == nil })
	if i >= 0 {
		return keyErrorf("http.tls.ciphersuites", "%q is no cipher suite", t.CipherSuites[i])
	}
	return nil
}

func (c *Config) validateLetsEncrypt() error {
	le := c.Distribution.HTTP.TLS.LetsEncrypt
	switch {
	case le.CacheFile == "" && (le.Email != "" || len(le.Hosts) > 0 || le.DirectoryURL != ""):
		return keyErrorf("http.tls.letsencrypt", "cachefile is missing: name a directory for the keys and certificates")
	case le.CacheFile == "":
	case c.Distribution.HTTP.TLS.Certificate != "":
		return keyErrorf("http.tls", "certificate and letsencrypt exclude each other")
	case len(le.Hosts) == 0:
		return keyErrorf("http.tls.letsencrypt", "hosts is empty: name the hosts that may have a certificate")
	}
	return nil
}

// TLS tells whether the server speaks TLS itself.
func (c *Config) TLS() bool {
	t := c.Distribution.HTTP.TLS
	return t.Certificate != "" || t.LetsEncrypt.CacheFile != ""
}

// CipherSuite is the suite of that name, or nil.
func CipherSuite(name string) *tls.CipherSuite {
	all := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
	i := slices.IndexFunc(all, func(s *tls.CipherSuite) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return all[i]
}

func (c *Config) validateLog() error {
	switch f := c.Distribution.Log.Formatter; f {
	case "text", "json":
		return nil
	default:
		return keyErrorf("log.formatter", "%q is neither text nor json", f)
	}
}

func (c *Config) validatePublicURL() error {
	s := c.Tarport.PublicURL
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return keyErrorf(c.publicURLKey(), "%q is no URL: write it as https://registry.example.com", s)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return keyErrorf(c.publicURLKey(), "%q has more than a scheme, a host and a port", s)
	}
	c.Tarport.PublicURL = u.Scheme + "://" + u.Host
	return nil
}

func (c *Config) publicURLKey() string {
	if c.Tarport.PublicURL == c.Distribution.HTTP.Host {
		return "http.host"
	}
	return "tarport.public_url"
}

func (c *Config) validateSecrets() error {
	s := c.Tarport.Secret.Reveal()
	key := "tarport.secret"
	if s == c.Distribution.HTTP.Secret {
		key = "http.secret"
	}
	if s != "" && len(s) < minSecret {
		return keyErrorf(key, "is %d bytes long: use at least %d", len(s), minSecret)
	}
	if s == "" && !c.SQLite() {
		c.Warnings = append(c.Warnings, "tarport.secret is not set: several servers on one database must share one, or they cannot read each other's keys")
	}
	return nil
}

func (c *Config) validateDatabase() error {
	dsn := c.Tarport.Database.DSN
	if c.SQLite() {
		if strings.Contains(dsn, "://") || strings.HasPrefix(dsn, "file:") {
			return keyErrorf("tarport.database.dsn", "is neither the path of a SQLite file nor a postgres:// URL")
		}
		return nil
	}
	if _, err := url.Parse(dsn); err != nil { // the error holds the password
		return keyErrorf("tarport.database.dsn", "is no postgres:// URL")
	}
	return nil
}

func (c *Config) validateMetrics() error {
	switch a := c.Tarport.Metrics.Addr; a {
	case "", OnMain:
	default:
		if err := checkAddr("tarport.metrics.addr", a); err != nil {
			return err
		}
	}
	if p := c.MetricsPath(); !strings.HasPrefix(p, "/") {
		return keyErrorf("http.debug.prometheus.path", "%q does not begin with /", p)
	}
	return nil
}

func (c *Config) validateProxies() error {
	for _, s := range c.Tarport.TrustedProxies {
		if _, err := parsePrefix(s); err != nil {
			return keyErrorf("tarport.trusted_proxies", "%q is neither an IP address nor a network as 10.0.0.0/8", s)
		}
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

func (c *Config) validateLimits() error {
	t := c.Tarport
	switch {
	case t.Blobs.Grace < Duration(time.Minute):
		return keyErrorf("tarport.blobs.grace", "%s is too short for a push to end: use at least 1m", t.Blobs.Grace)
	case t.Uploads.Expire < Duration(time.Minute):
		return keyErrorf("tarport.uploads.expire", "%s is too short for an upload: use at least 1m", t.Uploads.Expire)
	case t.Uploads.Max < 1:
		return keyErrorf("tarport.uploads.max", "%d would let nobody push: use at least 1", t.Uploads.Max)
	case t.Archives.MaxSize == 0:
		return keyErrorf("tarport.archives.max_size", "0 would let nobody upload: name the largest tarball, as 20GiB")
	case t.Archives.MaxUnpacked == 0:
		return keyErrorf("tarport.archives.max_unpacked", "0 would let nobody upload: name a size, as 200GiB")
	case t.Archives.MaxLayer == 0:
		return keyErrorf("tarport.archives.max_layer", "0 would let nobody upload: name the largest layer, as 20GiB")
	case t.Archives.Concurrent < 1:
		return keyErrorf("tarport.archives.concurrent", "%d would let nobody upload: use at least 1", t.Archives.Concurrent)
	case t.Audit.Retention < Duration(time.Hour):
		return keyErrorf("tarport.audit.retention", "%s would forget what just happened: use at least 1h", t.Audit.Retention)
	case t.Scan.Concurrency < 1 || t.Scan.Concurrency > 64:
		return keyErrorf("tarport.scan.concurrency", "%d is out of range: use 1 to 64, or enabled: false for none", t.Scan.Concurrency)
	case !slices.Contains([]string{"gzip", "zstd", "none"}, t.Archives.Compression):
		return keyErrorf("tarport.archives.compression", "%q is none of gzip, zstd and none", t.Archives.Compression)
	}
	if err := c.validateAccess(); err != nil {
		return err
	}
	return c.validateHealth()
}

func (c *Config) validateAccess() error {
	t := c.Tarport
	switch {
	case t.Namespaces.CreateBy != CreateByUsers && t.Namespaces.CreateBy != CreateByAdmins:
		return keyErrorf("tarport.namespaces.create_by", "%q is neither users nor admins", t.Namespaces.CreateBy)
	case t.Tokens.KeyRotation < Duration(time.Hour):
		return keyErrorf("tarport.tokens.key_rotation", "%s is too short: use at least 1h", t.Tokens.KeyRotation)
	}
	return nil
}

func (c *Config) validateHealth() error {
	h := c.Distribution.Health
	bare := func(d time.Duration) bool { return d != 0 && d < time.Millisecond }
	var intervals []time.Duration
	for _, f := range h.FileCheckers {
		intervals = append(intervals, f.Interval)
	}
	for _, f := range h.HTTPCheckers {
		intervals = append(intervals, f.Interval, f.Timeout)
	}
	for _, f := range h.TCPCheckers {
		intervals = append(intervals, f.Interval, f.Timeout)
	}
	if slices.ContainsFunc(append(intervals, h.StorageDriver.Interval), bare) {
		return keyErrorf("health", "an interval or timeout is too short: write it with its unit, as 10s")
	}
	return nil
}

// Driver is the name of the storage driver and its parameters.
func (c *Config) Driver() (string, configuration.Parameters) {
	return c.Distribution.Storage.Type(), c.Distribution.Storage.Parameters()
}
