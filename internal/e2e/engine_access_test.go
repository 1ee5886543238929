package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStockDockerMayNot: a wrong password, a stranger, and roles.
func TestStockDockerMayNot(t *testing.T) {
	t.Parallel()
	local := newDocker(t)
	s := serve(t)
	alice, bob := s.newUser(t, "alice"), s.newUser(t, "bob")
	app := unique() + ":1"
	local.appImage(t, app)
	archive := local.save(t, app)
	big := filepath.Join(t.TempDir(), "big.tar") // does not fit into what lies between sockets
	if err := os.WriteFile(big, tarball(t, map[string]string{"big": strings.Repeat("x", 32<<20)}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cli := range dockerCLIs(t) {
		ns := "team-" + unique()
		as := func(a *account) *docker { return s.engine(t, cli, ns, a.name, a.password) }
		as(alice).must(t, "load", "-i", archive)
		const howTo = `"HttpHeaders":{"Authorization":"Basic `
		for _, args := range [][]string{{"images"}, {"load", "-i", big}, {"version"}, {"ps"}, {"rmi", app}} {
			s.engine(t, cli, ns, "", "").mustFail(t, howTo, args...)
		}
		for _, args := range [][]string{{"images"}, {"load", "-i", big}} { // more would be too many failed logins
			s.engine(t, cli, ns, "alice", "wrong").mustFail(t, howTo, args...)
		}
		// To a stranger it is not there.
		d := as(bob)
		d.mustFail(t, "there is no namespace "+ns, "images")
		d.mustFail(t, "No such image: "+app, "image", "inspect", app)
		d.mustFail(t, "No such image: "+app, "save", "-o", filepath.Join(t.TempDir(), "x"), app)
		d.mustFail(t, "you may not push into the namespace "+ns, "tag", app, "other:1")
		d.mustFail(t, "you are not allowed to do this", "rmi", app)
		d.mustFail(t, "you may not push into the namespace "+ns, "load", "-i", big)
		d.mustFail(t, "you may not push into the namespace "+ns, "import", big, "flat:1")

		alice.api(t, http.StatusCreated, http.MethodPut, "/namespaces/"+ns+"/members/bob", map[string]any{"role": "reader"})
		d.must(t, "image", "inspect", app)
		d.must(t, "save", "-o", filepath.Join(t.TempDir(), "x"), app)
		d.must(t, "history", app)
		const needs = "this needs the role writer in the namespace "
		d.mustFail(t, needs, "load", "-i", archive)
		d.mustFail(t, needs, "load", "-i", big)
		d.mustFail(t, needs, "import", big, "flat:1")
		d.mustFail(t, needs, "tag", app, "other:1")
		d.mustFail(t, "this needs the role maintainer in the namespace ", "rmi", app)
		alice.api(t, http.StatusOK, http.MethodPut, "/namespaces/"+ns+"/members/bob", map[string]any{"role": "maintainer"})
		d.must(t, "tag", app, "other:1")
		d.must(t, "rmi", "other:1")
		d.mustFail(t, "", "load", "-i", big) // a file system, and no archive
	}
}

// TestStockDockerDrawsProgress lets docker have a terminal.
func TestStockDockerDrawsProgress(t *testing.T) {
	t.Parallel()
	local := newDocker(t)
	s := serve(t)
	script := program(t, "script")
	app := unique() + ":1"
	local.appImage(t, app)
	archive := local.save(t, app)
	for i, cli := range dockerCLIs(t) {
		d := s.engine(t, cli, fmt.Sprintf("team%d", i), "admin", adminPassword)
		out := mustRun(t, d.env(), script, "-qec", "stty cols 150; "+cli+" load -i "+archive, os.DevNull)
		for _, want := range []string{"Loading layer", "[==", "Loaded image: " + app} {
			if !strings.Contains(out, want) {
				t.Errorf("%s load on a terminal shows no %q:\n%q", cli, want, out)
			}
		}
	}
}

// TestStockDockerOverTLS is as the README says: the CA beside config.json.
func TestStockDockerOverTLS(t *testing.T) {
	t.Parallel()
	local := newDocker(t)
	app := unique() + ":1"
	local.appImage(t, app)
	archive := local.save(t, app)
	caFile, pool, cert, key := certificate(t)
	s := serveTLS(t, pool, "REGISTRY_HTTP_TLS_CERTIFICATE="+cert, "REGISTRY_HTTP_TLS_KEY="+key)
	for i, cli := range dockerCLIs(t) {
		d := s.engine(t, cli, fmt.Sprintf("team%d", i), "admin", adminPassword)
		verify := func(args ...string) string {
			return mustRun(t, append(d.env(), "DOCKER_TLS_VERIFY=1"), cli, args...)
		}
		if err := os.Symlink(caFile, filepath.Join(d.config, "ca.pem")); err != nil {
			t.Fatal(err)
		}
		wantLines(t, "load over TLS", verify("load", "-i", archive), "Loaded image: "+app)
		wantLines(t, "images over TLS", verify("images", "--format", "{{.Repository}}:{{.Tag}}"), app)
		verify("save", "-o", filepath.Join(t.TempDir(), "saved.tar"), app)

		// The flags need the CA's file named.
		env := []string{"DOCKER_CONFIG=" + d.config, "DOCKER_HOST="}
		wantLines(t, "images by flags", mustRun(t, env, cli, "--tlsverify", "--tlscacert", caFile, "-H", d.host, "images", "-q"), verify("images", "-q"))
		mustRun(t, env, cli, "context", "create", "namespace", "--docker", "host="+d.host+",ca="+caFile)
		wantLines(t, "images by context", mustRun(t, env, cli, "--context", "namespace", "images", "-q"), verify("images", "-q"))
		d.mustFail(t, "Client sent an HTTP request to an HTTPS server", "images")
	}
}

// certificate makes a CA, and a certificate of it for this machine.
func certificate(t *testing.T) (caFile string, pool *x509.CertPool, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, typ string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	must := func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	root := must(x509.CreateCertificate(rand.Reader, ca, ca, priv.Public(), priv))
	signed, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(signed)
	return write("ca.pem", "CERTIFICATE", root), pool,
		write("cert.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, ca, priv.Public(), priv))),
		write("key.pem", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(priv)))
}
