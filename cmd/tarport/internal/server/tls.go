package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/distribution/distribution/v3/configuration"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

// TLS makes the TLS configuration that http.tls describes, and nil where it
// describes none. The files are read now, and again when they change: a
// handshake finds out. Files that do not load leave those before in use.
func TLS(c *config.Config, log *slog.Logger) (*tls.Config, error) {
	if !c.TLS() {
		return nil, nil
	}
	t := c.Distribution.HTTP.TLS
	f := &tlsFiles{tls: t, base: baseTLS(c, log), log: log}
	if t.LetsEncrypt.CacheFile != "" {
		m := acmeManager(t.LetsEncrypt)
		f.base.GetCertificate = m.GetCertificate
		f.base.NextProtos = append(f.base.NextProtos, acme.ALPNProto)
	}
	state, err := f.state()
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	conf, err := f.load()
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	f.loaded.Store(&loadedTLS{state, conf})
	outer := f.base.Clone()
	outer.GetConfigForClient = f.forClient
	return outer, nil
}

func baseTLS(c *config.Config, log *slog.Logger) *tls.Config {
	t := c.Distribution.HTTP.TLS
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if c.Distribution.HTTP.HTTP2.Disabled {
		conf.NextProtos = []string{"http/1.1"}
	}
	if t.MinimumTLS == "tls1.3" {
		conf.MinVersion = tls.VersionTLS13
	}
	for _, name := range t.CipherSuites {
		s := config.CipherSuite(name) // validated
		if s.Insecure {
			log.Warn("insecure cipher suite", slog.String("suite", name))
		}
		conf.CipherSuites = append(conf.CipherSuites, s.ID)
	}
	if len(t.ClientCAs) > 0 {
		conf.ClientAuth = clientAuth(t.ClientAuth)
	}
	return conf
}

func clientAuth(a configuration.ClientAuth) tls.ClientAuthType {
	switch a {
	case configuration.ClientAuthRequestClientCert:
		return tls.RequestClientCert
	case configuration.ClientAuthRequireAnyClientCert:
		return tls.RequireAnyClientCert
	case configuration.ClientAuthVerifyClientCertIfGiven:
		return tls.VerifyClientCertIfGiven
	default:
		return tls.RequireAndVerifyClientCert
	}
}

func acmeManager(le configuration.LetsEncrypt) *autocert.Manager {
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(le.CacheFile),
		HostPolicy: autocert.HostWhitelist(le.Hosts...),
		Email:      le.Email,
	}
	if le.DirectoryURL != "" {
		m.Client = &acme.Client{DirectoryURL: le.DirectoryURL}
	}
	return m
}

// tlsFiles is a TLS configuration made of files that may change.
type tlsFiles struct {
	tls     configuration.TLS
	base    *tls.Config
	log     *slog.Logger
	loaded  atomic.Pointer[loadedTLS]
	refused atomic.Pointer[string] // the state that did not load, for one line in the log
}

type loadedTLS struct {
	state string // of the files that config is made of
	conf  *tls.Config
}

// forClient is the configuration for one handshake.
func (f *tlsFiles) forClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	conf := f.current()
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) && conf.ClientAuth != tls.NoClientCert {
		// Let's Encrypt has no client certificate when it looks for its answer.
		conf = conf.Clone()
		conf.ClientAuth = tls.NoClientCert
	}
	return conf, nil
}

func (f *tlsFiles) current() *tls.Config {
	have := f.loaded.Load()
	state, err := f.state()
	if err == nil && state == have.state {
		return have.conf
	}
	var conf *tls.Config
	if err == nil {
		conf, err = f.load()
	}
	if err != nil {
		// Half written, or a key that does not fit yet: the next handshake
		// tries again.
		if last := f.refused.Swap(&state); last == nil || *last != state {
			f.log.Warn("certificates changed and do not load; those before stay in use", slog.Any("err", err))
		}
		return have.conf
	}
	f.loaded.Store(&loadedTLS{state, conf})
	f.refused.Store(nil)
	f.log.Info("certificates read again")
	return conf
}

// state is what changes when the files do.
func (f *tlsFiles) state() (string, error) {
	var b strings.Builder
	for _, name := range append([]string{f.tls.Certificate, f.tls.Key}, f.tls.ClientCAs...) {
		if name == "" {
			continue
		}
		fi, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%d %d\n", fi.ModTime().UnixNano(), fi.Size())
	}
	return b.String(), nil
}

func (f *tlsFiles) load() (*tls.Config, error) {
	conf := f.base.Clone()
	if f.tls.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(f.tls.Certificate, f.tls.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate and key: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	if len(f.tls.ClientCAs) == 0 {
		return conf, nil
	}
	conf.ClientCAs = x509.NewCertPool()
	for _, name := range f.tls.ClientCAs {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("clientcas: %w", errors.New(name+" holds no certificate in PEM"))
		}
	}
	return conf, nil
}
