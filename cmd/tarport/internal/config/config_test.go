package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

func TestDefaultsServeWithNothingConfigured(t *testing.T) {
	t.Parallel()
	c, err := Load("", nil)
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	want := Tarport{
		Data:     "./data",
		Database: Database{DSN: "data/tarport.db"},
		Metrics:  Metrics{Addr: "127.0.0.1:5001"},
		Blobs:    Blobs{Grace: Duration(24 * time.Hour)},
		Uploads:  Uploads{Expire: Duration(24 * time.Hour), Max: 100, MaxBytes: 100 << 30},
		Archives: Archives{MaxSize: 20 << 30, MaxUnpacked: 200 << 30, MaxLayer: 20 << 30, Compression: "gzip", Concurrent: 16},

		Namespaces: Namespaces{AutoCreate: true, CreateBy: CreateByUsers},
		Tokens:     Tokens{KeyRotation: Duration(720 * time.Hour)},
		Storage:    Storage{MinFree: 1 << 30},
		Audit:      Audit{Retention: Duration(8760 * time.Hour)},
		Scan:       Scan{Enabled: true, Concurrency: 1, Rate: 64 << 20},
		Manifests:  Manifests{Sparse: false},
	}
	if diff := cmp.Diff(want, c.Tarport); diff != "" {
		t.Errorf("Load() differs (-want +got):\n%s", diff)
	}
	driver, params := c.Driver()
	if driver != "filesystem" || params["rootdirectory"] != "./data" {
		t.Errorf("Driver() = %s %v, want filesystem in ./data", driver, params)
	}
	if got := c.Distribution.HTTP.Addr; got != "127.0.0.1:5000" {
		t.Errorf("http.addr = %q, want 127.0.0.1:5000", got)
	}
	if got := c.Distribution.HTTP.DrainTimeout; got != 30*time.Second {
		t.Errorf("http.draintimeout = %v, want 30s", got)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("Load() warns about the defaults: %q", c.Warnings)
	}
}

func TestProjectConfigFileIsTheDefaults(t *testing.T) {
	t.Parallel()
	c, err := Load("../../../../config.yml", nil)
	if err != nil {
		t.Fatalf("Load(config.yml) = %v", err)
	}
	want, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.File, c.From = "", want.From
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("config.yml says something else than the defaults it documents (-defaults +file):\n%s", diff)
	}
}

// Every key under tarport: is found in config.yml, commented out or not, and
// has its variable.
func TestEveryKeyIsDocumentedAndHasAVariable(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, k := range keys {
		names[variable(k.name)] = true
	}
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, prefix string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("yaml")
			if !strings.Contains(string(doc), key+":") {
				t.Errorf("config.yml does not document %s", key)
			}
			name := prefix + "_" + strings.ToUpper(key)
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type, name)
				continue
			}
			if !names[name] {
				t.Errorf("no variable %s", name)
			}
			delete(names, name)
		}
	}
	walk(reflect.TypeFor[Tarport](), "TARPORT")
	if len(names) > 0 {
		t.Errorf("variables without a key: %v", names)
	}
}

const minimal = "version: 0.1\nstorage: {filesystem: {rootdirectory: /x}}\n"

func TestWrongConfigurationIsRefusedWithLineAndExcerpt(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string // all of them are in the error
	}{
		{"top level", minimal + "stroage: 1\n", []string{"[3:1]", `unknown key "stroage"`, ">  3 | stroage: 1"}},
		{"distribution, nested", minimal + "http:\n  tls:\n    certficate: x\n", []string{"[5:5]", `unknown key "certficate"`, ">  5 |"}},
		{"inlined struct", minimal + "redis:\n  adrs: [x]\n", []string{"[4:3]", `unknown key "adrs"`}},
		{"list of structs", minimal + "health:\n  tcp:\n  - adr: x\n", []string{"[5:5]", `unknown key "adr"`}},
		{"tarport", minimal + "tarport:\n  publicurl: x\n", []string{"[4:3]", `unknown key "publicurl"`, ">  4 |   publicurl: x"}},
		{"tarport, nested", minimal + "tarport:\n  blobs:\n    grase: 1h\n", []string{"[5:5]", `unknown key "grase"`}},
		{"storage driver", "version: 0.1\nstorage:\n  filesystem:\n    rotdirectory: x\n", []string{"[4:5]", `unknown key "rotdirectory"`}},
		{"storage section", "version: 0.1\nstorage:\n  filesystem:\n  delet:\n    enabled: true\n", []string{"delet", "exactly one storage type"}},
		{"storage delete", "version: 0.1\nstorage:\n  filesystem:\n  delete:\n    enable: true\n", []string{"[5:5]", `unknown key "enable"`}},
		{"driver of another build", "version: 0.1\nstorage:\n  gcs:\n    bucket: b\n", []string{"gcs", "no storage driver of this build", "3 |"}},
		{"driver of nobody", "version: 0.1\nstorage: tape\n", []string{"storage: tape is no storage driver"}},
		{"duplicate key", minimal + "log: {}\nlog: {}\n", []string{"[4:1]", "already defined"}},
		{"two documents", minimal + "---\nversion: 0.1\n", []string{"more than one YAML document"}},
		{"tab", "version: 0.1\nhttp:\n\taddr: x\n", []string{"[3:1]", "cannot start any token"}},
		{"version", "version: 0.2\nstorage: filesystem\n", []string{"unsupported version"}},
		{"log level", minimal + "log:\n  level: loud\n", []string{"log.level", "loud", "[4:10]", ">  4 |"}},
		{"formatter", minimal + "log:\n  formatter: logstash\n", []string{"log.formatter", "neither text nor json", "[4:14]"}},
		{"bad duration", minimal + "http:\n  draintimeout: 30q\n", []string{"http.draintimeout", "30q", "[4:17]"}},
		{"bare duration", minimal + "http:\n  draintimeout: 30\n", []string{"[4:17]", "cannot unmarshal"}},
		{"tarport duration", minimal + "tarport:\n  blobs:\n    grace: 24\n", []string{"[5:12]", `"24" is no duration: write it with its unit`}},
		{"short grace", minimal + "tarport:\n  blobs:\n    grace: 3s\n", []string{"tarport.blobs.grace: 3s is too short", "[5:12]"}},
		{"size", minimal + "tarport:\n  archives:\n    max_size: 10\n", []string{"[5:15]", `"10" is no size: write it with its unit`}},
		{"no archives", minimal + "tarport:\n  archives:\n    max_size: 0\n", []string{"tarport.archives.max_size", "[5:15]"}},
		{"nothing unpacked", minimal + "tarport:\n  archives:\n    max_unpacked: 0\n", []string{"tarport.archives.max_unpacked"}},
		{"no layers", minimal + "tarport:\n  archives:\n    max_layer: 0B\n", []string{"tarport.archives.max_layer"}},
		{"compression", minimal + "tarport:\n  archives:\n    compression: lzma\n", []string{`"lzma" is none of gzip, zstd and none`, "[5:18]"}},
		{"uploads", minimal + "tarport:\n  uploads:\n    max: 0\n", []string{"tarport.uploads.max", "[5:10]"}},
		{"expire", minimal + "tarport:\n  uploads:\n    expire: 1s\n", []string{"tarport.uploads.expire", "[5:13]"}},
		{"audit", minimal + "tarport:\n  audit:\n    retention: 1m\n", []string{"tarport.audit.retention", "[5:16]"}},
		{"public url", minimal + "tarport:\n  public_url: registry.example.com\n", []string{"tarport.public_url", "https://registry.example.com", "[4:15]"}},
		{"public url with a path", minimal + "tarport:\n  public_url: https://x/y\n", []string{"more than a scheme, a host and a port"}},
		{"host", minimal + "http:\n  host: registry.example.com\n", []string{"http.host", "is no URL", "[4:9]"}},
		{"secret", minimal + "tarport:\n  secret: short\n", []string{"tarport.secret", "at least 32"}},
		{"http secret", minimal + "http:\n  secret: short\n", []string{"http.secret", "at least 32"}},
		{"address", minimal + "http:\n  addr: localhost\n", []string{"http.addr", "host:port", "[4:9]"}},
		{"port", minimal + "http:\n  addr: localhost:99999\n", []string{"http.addr", "is no port"}},
		{"net", minimal + "http:\n  net: udp\n", []string{"http.net", "neither tcp nor unix"}},
		{"metrics", minimal + "tarport:\n  metrics:\n    addr: here\n", []string{"tarport.metrics.addr", "[5:11]"}},
		{"metrics path", minimal + "http:\n  debug:\n    prometheus:\n      path: metrics\n", []string{"http.debug.prometheus.path"}},
		{"proxy network", minimal + "tarport:\n  trusted_proxies: [10.0.0.0/40]\n", []string{"tarport.trusted_proxies", "10.0.0.0/40"}},
		{"dsn", minimal + "tarport:\n  database:\n    dsn: mysql://x\n", []string{"tarport.database.dsn", "neither the path of a SQLite file"}},
		{"half of tls", minimal + "http:\n  tls:\n    certificate: x\n", []string{"http.tls", "set both or none"}},
		{"two of tls", minimal + "http:\n  tls: {certificate: x, key: y, letsencrypt: {cachefile: z, hosts: [h]}}\n", []string{"exclude each other"}},
		{"letsencrypt without hosts", minimal + "http:\n  tls:\n    letsencrypt:\n      cachefile: z\n", []string{"http.tls.letsencrypt", "hosts is empty"}},
		{"letsencrypt without cache", minimal + "http:\n  tls:\n    letsencrypt:\n      hosts: [z]\n", []string{"cachefile is missing"}},
		{"client CAs without tls", minimal + "http:\n  tls:\n    clientcas: [x]\n", []string{"http.tls.clientcas"}},
		{"client auth", minimal + "http:\n  tls:\n    clientauth: maybe\n", []string{"http.tls.clientauth", "maybe"}},
		{"minimum tls", minimal + "http:\n  tls:\n    minimumtls: tls1.0\n", []string{"http.tls.minimumtls"}},
		{"cipher suite", minimal + "http:\n  tls:\n    ciphersuites: [ROT13]\n", []string{"http.tls.ciphersuites", "ROT13"}},
		{"health interval", minimal + "health:\n  storagedriver:\n    enabled: true\n    interval: 1ns\n", []string{"health: an interval or timeout is too short"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse([]byte(tt.yaml), nil)
			if err == nil {
				t.Fatalf("parse(%q) = nil, want an error with %q", tt.yaml, tt.want)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("parse(%q) = %v, want it to hold %q", tt.yaml, err, want)
				}
			}
		})
	}
}

func TestWhatTarportDoesNotDoIsRefusedOrWarnedAbout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		yaml, refused, warned string
	}{
		{yaml: minimal + "auth:\n  htpasswd:\n    realm: x\n", refused: "[3:1] auth: Tarport has accounts of its own"},
		{yaml: minimal + "auth: none\n"},
		{yaml: minimal + "middleware:\n  storage:\n  - name: redirect\n", refused: "middleware:"},
		{yaml: minimal + "proxy:\n  remoteurl: https://x\n", refused: "proxy:"},
		{yaml: minimal + "notifications:\n  endpoints:\n  - name: x\n    url: http://x\n", refused: "notifications:"},
		{yaml: minimal + "notifications:\n  endpoints:\n  - name: x\n    disabled: true\n"},
		{yaml: minimal + "policy:\n  repository:\n    classes: [image]\n", refused: "policy:"},
		{yaml: minimal + "validation:\n  disabled: true\n", refused: "validation.disabled:"},
		{yaml: minimal + "validation:\n  manifests:\n    urls:\n      allow: [x]\n", refused: "validation.manifests.urls:"},
		{yaml: minimal + "validation:\n  manifests:\n    indexes:\n      platforms: none\n", refused: "tarport.manifests.sparse"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  maintenance:\n    readonly:\n      enabled: true\n", refused: "storage.maintenance.readonly:"},
		{yaml: minimal + "http:\n  prefix: /registry\n", refused: "http.prefix:"},
		{yaml: minimal + "http:\n  prefix: /\n"},
		{yaml: minimal + "log:\n  hooks:\n  - type: mail\n", refused: "log.hooks:"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  delete:\n    enabled: false\n", warned: "storage.delete"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  delete:\n    enabled: true\n"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  maintenance:\n    uploadpurging:\n      enabled: true\n", warned: "storage.maintenance.uploadpurging"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  cache:\n    blobdescriptor: inmemory\n", warned: "storage.cache"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  tag:\n    concurrencylimit: 8\n", warned: "storage.tag"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  redirect:\n    disable: false\n", warned: "storage.redirect"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n  redirect:\n    disable: true\n"},
		{yaml: "version: 0.1\nstorage:\n  filesystem:\n    maxthreads: 50\n", warned: "storage.filesystem.maxthreads"},
		{yaml: minimal + "redis:\n  addrs: [x:1]\n", warned: "redis has no effect"},
		{yaml: minimal + "http:\n  debug:\n    addr: :5002\n", warned: "http.debug"},
		{yaml: minimal + "catalog:\n  maxentries: 7\n", warned: "catalog.maxentries"},
		{yaml: minimal + "tags:\n  maxtags: 7\n", warned: "tags.maxtags"},
		{yaml: minimal + "tarport:\n  database:\n    dsn: postgres://u@h/d\n", warned: "tarport.secret is not set"},
	}
	for _, tt := range tests {
		c, err := parse([]byte(tt.yaml), nil)
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), ">  ") {
				t.Errorf("parse(%q) = %v, want an error with %q and an excerpt", tt.yaml, err, tt.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("parse(%q) = %v", tt.yaml, err)
			continue
		}
		if got := strings.Join(c.Warnings, "\n"); (tt.warned == "") != (got == "") || !strings.Contains(got, tt.warned) {
			t.Errorf("parse(%q) warns %q, want %q", tt.yaml, got, tt.warned)
		}
	}
}

// The configuration files of the images registry:2 and registry:3.
func TestConfigurationOfAnExistingRegistryWorks(t *testing.T) {
	t.Parallel()
	c, err := parse([]byte(`version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  tag:
    concurrencylimit: 8
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
  debug:
    addr: :5001
    prometheus:
      enabled: true
      path: /metrics
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
`), nil)
	if err != nil {
		t.Fatalf("parse() = %v", err)
	}
	if c.Tarport.Data != "/var/lib/registry" || c.Tarport.Metrics.Addr != ":5001" || c.Tarport.Database.DSN != "/var/lib/registry/tarport.db" {
		t.Errorf("got data %q, metrics %q, database %q", c.Tarport.Data, c.Tarport.Metrics.Addr, c.Tarport.Database.DSN)
	}
}

func TestDistributionKeysAreTheDefaultsOfOurs(t *testing.T) {
	t.Parallel()
	c, err := parse([]byte("http:\n  addr: 127.0.0.1:7000\n  host: https://r.example.com/\n  secret: 0123456789abcdef0123456789abcdef\ntarport:\n  metrics:\n    addr: 127.0.0.1:7000\n"), nil)
	if err != nil {
		t.Fatalf("parse() = %v", err)
	}
	if got := c.Tarport; got.PublicURL != "https://r.example.com" || got.Secret.Reveal() != "0123456789abcdef0123456789abcdef" || got.Metrics.Addr != OnMain {
		t.Errorf("got %+v", got)
	}
}

func TestTarportVariablesOverride(t *testing.T) {
	t.Parallel()
	c, err := parse([]byte(minimal+"tarport:\n  public_url: https://file\n"), []string{
		"TARPORT_DATA=/srv", "TARPORT_PUBLIC_URL=https://env:8443", "TARPORT_SECRET=0x10: yes, really, no YAML at all",
		"TARPORT_TRUSTED_PROXIES=10.0.0.0/8, 192.0.2.7", "TARPORT_DATABASE_DSN=postgres://u:p@h/d",
		"TARPORT_METRICS_ADDR=", "TARPORT_BLOBS_GRACE=2h", "TARPORT_UPLOADS_EXPIRE=90m", "TARPORT_UPLOADS_MAX=7", "TARPORT_UPLOADS_MAX_BYTES=3GiB",
		"TARPORT_MANIFESTS_SPARSE=true", "TARPORT_ARCHIVES_MAX_SIZE=1.5GiB",
		"TARPORT_ARCHIVES_MAX_UNPACKED=1TiB", "TARPORT_ARCHIVES_MAX_LAYER=512MiB", "TARPORT_ARCHIVES_REPACK=true", "TARPORT_ARCHIVES_CONCURRENT=3", "TARPORT_ARCHIVES_COMPRESSION=zstd",
		"TARPORT_ADMIN_PASSWORD=x", "TARPORT_CONFIG=y", "TARPORT_PORT_5000_TCP=tcp://1.2.3.4:5000", "TARPORT_SERVICE_HOST=1.2.3.4",
		"TARPORT_NAMESPACES_AUTO_CREATE=false", "TARPORT_NAMESPACES_CREATE_BY=admins", "TARPORT_NAMESPACES_PERSONAL=true",
		"TARPORT_TOKENS_KEY_ROTATION=2h", "TARPORT_STORAGE_MIN_FREE=0", "TARPORT_AUDIT_RETENTION=48h",
		"TARPORT_SCAN_ENABLED=false", "TARPORT_SCAN_CONCURRENCY=3", "TARPORT_SCAN_RATE=0",
		"TARPORT_PUBLICURL=typo",
	})
	if err != nil {
		t.Fatalf("parse() = %v", err)
	}
	want := Tarport{
		Data: "/srv", PublicURL: "https://env:8443", Secret: "0x10: yes, really, no YAML at all",
		TrustedProxies: []string{"10.0.0.0/8", "192.0.2.7"},
		Database:       Database{DSN: "postgres://u:p@h/d"},
		Blobs:          Blobs{Grace: Duration(2 * time.Hour)},
		Uploads:        Uploads{Expire: Duration(90 * time.Minute), Max: 7, MaxBytes: 3 << 30},
		Manifests:      Manifests{Sparse: true},
		Archives:       Archives{MaxSize: 3 << 29, MaxUnpacked: 1 << 40, MaxLayer: 512 << 20, Compression: "zstd", Repack: true, Concurrent: 3},
		Namespaces:     Namespaces{CreateBy: CreateByAdmins, Personal: true},
		Tokens:         Tokens{KeyRotation: Duration(2 * time.Hour)},
		Storage:        Storage{MinFree: 0},
		Audit:          Audit{Retention: Duration(48 * time.Hour)},
		Scan:           Scan{Concurrency: 3, Rate: 0},
	}
	if diff := cmp.Diff(want, c.Tarport, cmp.Comparer(func(a, b tarport.Secret) bool { return a == b })); diff != "" {
		t.Errorf("parse() differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"the variable TARPORT_PUBLICURL has no effect: no key is called so"}, c.Warnings); diff != "" {
		t.Errorf("warnings differ (-want +got):\n%s", diff)
	}
	if got := c.Proxies(); len(got) != 2 || got[1].String() != "192.0.2.7/32" {
		t.Errorf("Proxies() = %v", got)
	}
}

func TestWrongVariablesAreNamed(t *testing.T) {
	t.Parallel()
	tests := []struct{ variable, want string }{
		{"TARPORT_BLOBS_GRACE=24", "TARPORT_BLOBS_GRACE"},
		{"TARPORT_UPLOADS_MAX=many", "TARPORT_UPLOADS_MAX"},
		{"TARPORT_MANIFESTS_SPARSE=perhaps", "TARPORT_MANIFESTS_SPARSE"},
		{"TARPORT_ARCHIVES_MAX_SIZE=big", "TARPORT_ARCHIVES_MAX_SIZE"},
		{"REGISTRY_AUTH_PORT=tcp://1.2.3.4:5001", "enableServiceLinks"},
		{"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true", "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED"},
		{"REGISTRY_STORAGE_S3_BUCKET=b", "set REGISTRY_STORAGE=s3"},
	}
	for _, tt := range tests {
		if _, err := parse([]byte(minimal), []string{tt.variable}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parse() with %s = %v, want an error with %q", tt.variable, err, tt.want)
		}
	}
}

// Distribution's parser reads the process's own environment, so these set it
// and cannot run side by side.
func TestRegistryVariablesOverride(t *testing.T) {
	t.Setenv("REGISTRY_HTTP_ADDR", "127.0.0.1:6000")
	t.Setenv("REGISTRY_LOG_LEVEL", "debug")
	t.Setenv("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/env")
	t.Setenv("REGISTRY_HTTP_TLS_MINIMUMTLS", "tls1.3")
	c, err := Load("", os.Environ())
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	d := c.Distribution
	if d.HTTP.Addr != "127.0.0.1:6000" || d.Log.Level != "debug" || d.HTTP.TLS.MinimumTLS != "tls1.3" || c.Tarport.Data != "/env" {
		t.Errorf("got addr %q, level %q, tls %q, data %q", d.HTTP.Addr, d.Log.Level, d.HTTP.TLS.MinimumTLS, c.Tarport.Data)
	}
}

func TestRegistryVariablesCanChangeTheDriver(t *testing.T) {
	t.Setenv("REGISTRY_STORAGE", "s3")
	t.Setenv("REGISTRY_STORAGE_S3_BUCKET", "b")
	t.Setenv("REGISTRY_STORAGE_S3_REGION", "us-east-1")
	c, err := parse([]byte(minimal), os.Environ())
	if err != nil {
		t.Fatalf("parse() = %v", err)
	}
	driver, params := c.Driver()
	if driver != "s3" || params["bucket"] != "b" || c.Tarport.Data != "./data" {
		t.Errorf("Driver() = %s %v with data in %s", driver, params, c.Tarport.Data)
	}
	t.Setenv("REGISTRY_STORAGE_S3_BUCKETT", "typo")
	if _, err := parse([]byte(minimal), os.Environ()); err == nil || !strings.Contains(err.Error(), "buckett") {
		t.Errorf("parse() with a misspelt parameter = %v, want an error that names it", err)
	}
}

func TestVariablesCannotSwitchOnWhatIsRefused(t *testing.T) {
	t.Setenv("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io")
	if _, err := parse([]byte(minimal), os.Environ()); err == nil || !strings.Contains(err.Error(), "proxy: pull-through caching is not supported") {
		t.Errorf("parse() = %v, want it refused", err)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none.yml"), nil); err == nil || !strings.Contains(err.Error(), "none.yml") {
		t.Errorf("Load(none.yml) = %v", err)
	}
	name := filepath.Join(t.TempDir(), "bad.yml")
	if err := os.WriteFile(name, []byte("bogus: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name, nil); err == nil || !strings.Contains(err.Error(), "bad.yml") {
		t.Errorf("Load(bad.yml) = %v", err)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Size{
		"0": 0, "1B": 1, "4KiB": 4096, "1.5MiB": 3 << 19, "10 GiB": 10 << 30, "2TiB": 2 << 40, "1kB": 1000, "5MB": 5e6, "1GB": 1e9,
	} {
		if got, err := ParseSize(s); got != want || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "10", "GiB", "-1GiB", "1e30GiB", "NaNB", "1PiB", "1 G"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, got)
		}
	}
	for size, want := range map[Size]string{0: "0B", 1000: "1000B", 4096: "4KiB", 10 << 30: "10GiB"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d).String() = %q, want %q", int64(size), got, want)
		}
	}
}
