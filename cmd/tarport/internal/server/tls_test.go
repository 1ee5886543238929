package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"golang.org/x/crypto/acme"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

// certFiles is a certificate authority, and files with a certificate of its.
type certFiles struct {
	cert, key, ca string
	pool          *x509.CertPool
	parent        *x509.Certificate
	parentKey     *ecdsa.PrivateKey
	written       int64
}

func newCertFiles(t *testing.T) *certFiles {
	t.Helper()
	dir := t.TempDir()
	f := &certFiles{
		cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), ca: filepath.Join(dir, "ca.crt"),
		pool: x509.NewCertPool(),
	}
	var err error
	if f.parentKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.parentKey.Public(), f.parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if f.parent, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	f.pool.AddCert(f.parent)
	f.writePEM(t, f.ca, "CERTIFICATE", der)
	return f
}

// writePEM writes a file, always with a later time than the one before.
func (f *certFiles) writePEM(t *testing.T, name, typ string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	f.written++
	at := time.Unix(f.written, 0)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func (f *certFiles) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if cert, err = x509.CreateCertificate(rand.Reader, template, f.parent, priv.Public(), f.parentKey); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(priv); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (f *certFiles) write(t *testing.T, name string) {
	t.Helper()
	cert, key := f.issue(t, name)
	f.writePEM(t, f.cert, "CERTIFICATE", cert)
	f.writePEM(t, f.key, "PRIVATE KEY", key)
}

func (f *certFiles) config(t *testing.T, change func(*configuration.HTTP)) *config.Config {
	t.Helper()
	c, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Distribution.HTTP.TLS.Certificate, c.Distribution.HTTP.TLS.Key = f.cert, f.key
	if change != nil {
		change(&c.Distribution.HTTP)
	}
	return c
}

// handshake returns the name in the server's certificate.
func handshake(t *testing.T, server, client *tls.Config) (string, error) {
	t.Helper()
	c, s := net.Pipe()
	defer func() { _, _ = c.Close(), s.Close() }()
	served := make(chan error, 1)
	go func() {
		err := tls.Server(s, server).HandshakeContext(t.Context())
		if err != nil {
			_ = s.Close()
		}
		served <- err
	}()
	conn := tls.Client(c, client)
	err := conn.HandshakeContext(t.Context())
	if serr := <-served; serr != nil {
		return "", serr
	}
	if err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].DNSNames[0], nil
}

func TestCertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	files := newCertFiles(t)
	files.write(t, "first.example.com")
	conf, err := TLS(files.config(t, nil), quiet())
	if err != nil {
		t.Fatalf("TLS() = %v", err)
	}
	client := &tls.Config{InsecureSkipVerify: true} // the test looks at the name itself
	expect := func(want string) {
		t.Helper()
		if got, err := handshake(t, conf, client); got != want || err != nil {
			t.Errorf("handshake with %q, %v, want %q", got, err, want)
		}
	}
	expect("first.example.com")
	files.write(t, "second.example.com")
	expect("second.example.com")

	// Half of a renewal: the certificate is there, its key is not yet.
	cert, key := files.issue(t, "third.example.com")
	files.writePEM(t, files.cert, "CERTIFICATE", cert)
	expect("second.example.com")
	expect("second.example.com")
	files.writePEM(t, files.key, "PRIVATE KEY", key)
	expect("third.example.com")

	if err := os.Remove(files.cert); err != nil {
		t.Fatal(err)
	}
	expect("third.example.com")
	files.write(t, "fourth.example.com")
	expect("fourth.example.com")
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	files := newCertFiles(t)
	files.write(t, "registry.example.com")
	conf, err := TLS(files.config(t, func(h *configuration.HTTP) { h.TLS.ClientCAs = []string{files.ca} }), quiet())
	if err != nil {
		t.Fatalf("TLS() = %v", err)
	}
	cert, key := files.issue(t, "client")
	pair, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: files.pool, ServerName: "registry.example.com", MaxVersion: tls.VersionTLS12}
	if _, err := handshake(t, conf, client); err == nil || !strings.Contains(err.Error(), "client didn't provide a certificate") {
		t.Errorf("handshake without a certificate = %v, want it refused", err)
	}
	client.Certificates = []tls.Certificate{pair}
	if _, err := handshake(t, conf, client); err != nil {
		t.Errorf("handshake with a certificate = %v", err)
	}
	// Another authority takes over: its certificates count, the old ones do not.
	other := newCertFiles(t)
	files.writePEM(t, files.ca, "CERTIFICATE", other.parent.Raw)
	if _, err := handshake(t, conf, client); err == nil {
		t.Error("handshake with a certificate of the authority before succeeded")
	}
}

func TestTLSOptions(t *testing.T) {
	t.Parallel()
	files := newCertFiles(t)
	files.write(t, "registry.example.com")
	conf, err := TLS(files.config(t, func(h *configuration.HTTP) {
		h.TLS.MinimumTLS = "tls1.3"
		h.TLS.CipherSuites = []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}
	}), quiet())
	if err != nil {
		t.Fatalf("TLS() = %v", err)
	}
	if conf.MinVersion != tls.VersionTLS13 || len(conf.CipherSuites) != 1 {
		t.Errorf("got version %x and %d suites, want TLS 1.3 and one", conf.MinVersion, len(conf.CipherSuites))
	}
	client := &tls.Config{RootCAs: files.pool, ServerName: "registry.example.com", MaxVersion: tls.VersionTLS12}
	if _, err := handshake(t, conf, client); err == nil {
		t.Error("handshake with TLS 1.2 succeeded, want it refused")
	}
	if conf, err := TLS(files.config(t, func(h *configuration.HTTP) { h.TLS = configuration.TLS{} }), quiet()); conf != nil || err != nil {
		t.Errorf("TLS() without a section = %v, %v, want nil", conf, err)
	}
	for name, change := range map[string]func(*configuration.HTTP){
		"no such file":   func(h *configuration.HTTP) { h.TLS.Key = filepath.Join(t.TempDir(), "none") },
		"no certificate": func(h *configuration.HTTP) { h.TLS.ClientCAs = []string{files.key} },
		"no key":         func(h *configuration.HTTP) { h.TLS.Key = files.cert },
	} {
		if _, err := TLS(files.config(t, change), quiet()); err == nil || !strings.HasPrefix(err.Error(), "http.tls: ") {
			t.Errorf("%s: TLS() = %v, want an error of http.tls", name, err)
		}
	}
}

func TestLetsEncryptAnswersItsChallenge(t *testing.T) {
	t.Parallel()
	files := newCertFiles(t)
	conf, err := TLS(files.config(t, func(h *configuration.HTTP) {
		h.TLS = configuration.TLS{ClientCAs: []string{files.ca}, LetsEncrypt: configuration.LetsEncrypt{
			CacheFile: t.TempDir(), Hosts: []string{"registry.example.com"}, DirectoryURL: "http://127.0.0.1:1/directory",
		}}
	}), quiet())
	if err != nil {
		t.Fatalf("TLS() = %v", err)
	}
	// Nobody asked for a challenge, so there is no answer; but the question
	// came as far as autocert, without a client certificate.
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "registry.example.com", NextProtos: []string{acme.ALPNProto}}
	if _, err := handshake(t, conf, client); err == nil || !strings.Contains(err.Error(), "acme/autocert") {
		t.Errorf("challenge = %v, want autocert's answer", err)
	}
	client = &tls.Config{InsecureSkipVerify: true, ServerName: "other.example.com"}
	if _, err := handshake(t, conf, client); err == nil || !strings.Contains(err.Error(), "not configured in HostWhitelist") {
		t.Errorf("handshake for another host = %v, want it refused", err)
	}
}
