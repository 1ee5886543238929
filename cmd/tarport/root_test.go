package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

func runCommand(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), &app{out: &out, err: &err, environ: environ}, args)
	return code, out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"version"}, exitOK, "tarport dev", ""},
		{[]string{}, exitOK, "Available Commands:", ""},
		{[]string{"--help"}, exitOK, "Available Commands:", ""},
		{[]string{"serve", "--help"}, exitOK, "TARPORT_ADMIN_PASSWORD", ""},
		{[]string{"completion", "bash"}, exitOK, "bash completion", ""},
		{[]string{"config"}, exitOK, "check", ""},
		{[]string{"brew"}, exitUsage, "", "unknown command"},
		{[]string{"config", "brew"}, exitUsage, "", "unknown command"},
		{[]string{"version", "x"}, exitUsage, "", "tarport version"},
		{[]string{"serve", "a", "b"}, exitUsage, "", "tarport serve [config.yml]"},
		{[]string{"serve", "--brew"}, exitUsage, "", "unknown flag"},
		{[]string{"serve", "none.yml"}, exitFailure, "", "none.yml"},
		{[]string{"healthcheck", "--timeout", "soon"}, exitUsage, "", "invalid argument"},
	}
	for _, tt := range tests {
		code, stdout, stderr := runCommand(t, nil, tt.args...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("tarport %v = %d, stdout %q, stderr %q; want %d, %q, %q", tt.args, code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
		}
		if tt.code == exitUsage && (stdout != "" || strings.Count(stderr, "\n") != 3 || !strings.Contains(stderr, `--help" tells more.`)) {
			t.Errorf("tarport %v = stdout %q, stderr %q; want what is wrong, how it is written, and where more is told", tt.args, stdout, stderr)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runCommand(t, nil, "config", "check")
	if code != exitOK || stderr != "" {
		t.Errorf("config check = %d, %q, want 0 and no words", code, stderr)
	}
	for _, want := range []string{"none: the defaults", "127.0.0.1:5000", "127.0.0.1:5001/metrics", "data/tarport.db", "filesystem rootdirectory=./data"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("config check prints no %q:\n%s", want, stdout)
		}
	}
	file := filepath.Join(t.TempDir(), "config.yml")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("http:\n  adr: x\n")
	code, stdout, stderr = runCommand(t, nil, "config", "check", file)
	if code != exitFailure || stdout != "" || !strings.Contains(stderr, `[2:3] unknown key "adr"`) || !strings.Contains(stderr, ">  2 |   adr: x") {
		t.Errorf("config check = %d, %q, %q, want 1 and the line", code, stdout, stderr)
	}
	write("http:\n  tls: {certificate: /none.crt, key: /none.key}\n")
	if code, _, stderr = runCommand(t, nil, "config", "check", file); code != exitFailure || !strings.Contains(stderr, "/none.crt") {
		t.Errorf("config check = %d, %q, want 1 and the file that is not there", code, stderr)
	}
	write("redis:\n  addrs: [x:1]\n")
	code, stdout, stderr = runCommand(t, []string{
		"TARPORT_CONFIG=" + file, "TARPORT_DATABASE_DSN=postgres://user:hunter2@db/x?password=hunter2", "TARPORT_SECRET=hunter2hunter2hunter2hunter2hunter2",
	}, "config", "check")
	if code != exitOK || !strings.Contains(stderr, "warning: redis has no effect") || !strings.Contains(stdout, file) || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("config check = %d, want 0, a warning and no secret; stdout %s, stderr %s", code, stdout, stderr)
	}
}

func TestConfigCheckShowsEveryKeyAndWhereItIsFrom(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yml")
	text := "http: {host: 'https://registry.example.com'}\nstorage: {filesystem: {rootdirectory: /data}}\n" +
		"tarport:\n  secret: hunter2hunter2hunter2hunter2hunter2\n  uploads: {max_bytes: 5GiB}\n  scan: {rate: 1MiB}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"TARPORT_SCAN_RATE=2MiB", "TARPORT_NAMESPACES_AUTO_CREATE=false", "TARPORT_DATABASE_DSN=postgres:///x?host=/run&password=hunter2",
	}
	code, stdout, stderr := runCommand(t, environ, "config", "check", "--format=json", file)
	var got checkedConfig
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || stderr != "" || got.File != file || got.Summary["address"] != "127.0.0.1:5000" {
		t.Fatalf("config check = %d, %s, %s, %v", code, stdout, stderr, err)
	}
	if strings.Contains(stdout, "hunter2") {
		t.Errorf("config check shows a secret: %s", stdout)
	}
	byKey := map[string]config.Setting{}
	for _, s := range got.Settings {
		byKey[s.Key] = s
	}
	for _, want := range []config.Setting{
		{Key: "data", Value: "/data", Default: "./data", From: "storage.filesystem.rootdirectory"},
		{Key: "public_url", Value: "https://registry.example.com", From: "http.host"},
		{Key: "secret", Value: "REDACTED", From: "file"},
		{Key: "trusted_proxies", From: "default"},
		{Key: "uploads.max_bytes", Value: "5GiB", Default: "100GiB", From: "file"},
		{Key: "scan.rate", Value: "2MiB", Default: "64MiB", From: "TARPORT_SCAN_RATE"},
		{Key: "namespaces.auto_create", Value: "false", Default: "true", From: "TARPORT_NAMESPACES_AUTO_CREATE"},
		{Key: "metrics.addr", Value: "127.0.0.1:5001", Default: "127.0.0.1:5001", From: "default"},
		{Key: "storage.min_free", Value: "1GiB", Default: "1GiB", From: "default"},
		{Key: "audit.retention", Value: "8760h", Default: "8760h", From: "default"},
		{Key: "database.dsn", Value: "postgres:///x?host=%2Frun&password=xxxxx", Default: "data/tarport.db", From: "TARPORT_DATABASE_DSN"},
	} {
		if diff := cmp.Diff(want, byKey[want.Key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Key, diff)
		}
	}
	code, stdout, _ = runCommand(t, environ, "config", "check", file)
	for _, want := range []string{
		`tarport\.scan\.rate +2MiB +TARPORT_SCAN_RATE +64MiB\n`, `tarport\.trusted_proxies +\(none\) +default\s`, `tarport\.scan\.enabled +true +default\s`,
	} {
		if code != exitOK || !regexp.MustCompile(want).MatchString(stdout) || strings.Contains(stdout, "hunter2") {
			t.Errorf("config check = %d, want %s:\n%s", code, want, stdout)
		}
	}
	if code, _, stderr = runCommand(t, nil, "config", "check", "--format=xml"); code != exitUsage || !strings.Contains(stderr, "neither table nor json") {
		t.Errorf("config check --format=xml = %d, %s", code, stderr)
	}
}

// logrus has one logger in a process, so this changes it and the environment,
// and runs alone.
func TestDistributionsWarningsAreLogged(t *testing.T) {
	t.Setenv("REGISTRY_BOGUS", "1")
	code, _, stderr := runCommand(t, os.Environ(), "config", "check")
	if code != exitOK || !strings.Contains(stderr, "warning: Ignoring unrecognized environment variable REGISTRY_BOGUS") {
		t.Errorf("config check = %d, %q, want a warning of the variable", code, stderr)
	}
	b := bridgeLogrus()
	logrus.Info("not this")
	logrus.Error("before there is a logger")
	var out bytes.Buffer
	b.to(newLogger(&out, configuration.Log{Level: "info", Fields: map[string]any{"site": "a"}}))
	logrus.WithField("k", "v").Warn("with one")
	want := []string{`level=WARN msg=distribution site=a text="before there is a logger"`, `level=WARN msg=distribution site=a text="with one"`}
	for _, w := range want {
		if !strings.Contains(out.String(), w) {
			t.Errorf("the log has no %q:\n%s", w, out.String())
		}
	}
	if strings.Contains(out.String(), "not this") {
		t.Errorf("the log has what is below a warning:\n%s", out.String())
	}
}

func TestLogLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[configuration.Loglevel]slog.Level{
		"error": slog.LevelError, "warn": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug,
	} {
		log := newLogger(&bytes.Buffer{}, configuration.Log{Level: level, Formatter: "json"})
		if !log.Enabled(t.Context(), want) || log.Enabled(t.Context(), want-1) {
			t.Errorf("a logger of level %s does not log from %s on", level, want)
		}
	}
}

func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"registry.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
