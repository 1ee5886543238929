package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/tarport/tarport"
)

// Logins are the logins that docker keeps, in its config.json and in the
// credential helpers that this names (docker 29, cli/config).
type Logins struct {
	file    string
	memory  string   // DOCKER_AUTH_CONFIG: logins that are not in the file
	environ []string // of the helpers
	err     io.Writer
}

// LoginsOptions of NewLogins.
type LoginsOptions struct {
	Dir     string    // that has config.json; required
	Memory  string    // what DOCKER_AUTH_CONFIG holds
	Environ []string  // of the helpers
	Err     io.Writer // where the helpers write words
}

// NewLogins returns the logins of a directory, which need not be there yet.
func NewLogins(o LoginsOptions) *Logins {
	return &Logins{file: filepath.Join(o.Dir, "config.json"), memory: o.Memory, environ: o.Environ, err: o.Err}
}

// dockerConfig is config.json. What is not ours to know stays as it is.
type dockerConfig struct {
	all         map[string]json.RawMessage
	auths       map[string]json.RawMessage
	credsStore  string
	credHelpers map[string]string
}

type dockerAuth struct {
	Auth     string         `json:"auth,omitempty"`
	Username string         `json:"username,omitempty"`
	Password tarport.Secret `json:"password,omitempty"`
	Identity tarport.Secret `json:"identitytoken,omitempty"`
}

// Get returns the login for a host[:port]; the zero value where there is none.
func (l *Logins) Get(ctx context.Context, host string) (Credential, error) {
	if l.memory != "" {
		c, err := parseConfig([]byte(l.memory), "DOCKER_AUTH_CONFIG")
		if err != nil {
			return Credential{}, err
		}
		if who, err := c.login(host); err != nil || !who.Empty() {
			return who, err
		}
	}
	c, err := l.read()
	if err != nil {
		return Credential{}, err
	}
	if helper := c.helper(host); helper != "" {
		return l.fromHelper(ctx, helper, host)
	}
	return c.login(host)
}

// Put keeps a login, and returns where.
func (l *Logins) Put(ctx context.Context, host string, who Credential) (place string, err error) {
	c, err := l.read()
	if err != nil {
		return "", err
	}
	if len(c.auths) == 0 && len(c.credHelpers) == 0 && c.credsStore == "" {
		c.credsStore = platformHelper() // as docker does with an empty file
	}
	entry := dockerAuth{}
	helper := c.helper(host)
	if helper != "" {
		if err := l.toHelper(ctx, helper, host, who); err != nil {
			return "", err
		}
	} else {
		entry = dockerAuth{Auth: base64.StdEncoding.EncodeToString([]byte(who.User + ":" + who.Password.Reveal())), Identity: who.Identity}
	}
	if c.auths[host], err = json.Marshal(entry); err != nil {
		return "", err
	}
	if err := l.write(c); err != nil {
		return "", err
	}
	if helper != "" {
		return helperPrefix + helper, nil
	}
	return l.file, nil
}

// Erase forgets the login for a host, and tells whether there was one.
func (l *Logins) Erase(ctx context.Context, host string) (found bool, err error) {
	c, err := l.read()
	if err != nil {
		return false, err
	}
	if helper := c.helper(host); helper != "" {
		who, err := l.fromHelper(ctx, helper, host)
		if err != nil {
			return false, err
		}
		if found = !who.Empty(); found {
			if _, err := l.run(ctx, helper, "erase", host); err != nil {
				return false, err
			}
		}
	}
	before := len(c.auths)
	for key := range c.auths {
		if hostOf(key) == host {
			delete(c.auths, key)
		}
	}
	if len(c.auths) == before {
		return found, nil
	}
	return true, l.write(c)
}

func (l *Logins) read() (*dockerConfig, error) {
	b, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(b)) == 0 {
		return parseConfig([]byte("{}"), l.file)
	}
	if err != nil {
		return nil, fmt.Errorf("read docker's logins: %w", err)
	}
	return parseConfig(b, l.file)
}

func parseConfig(b []byte, name string) (*dockerConfig, error) {
	c := &dockerConfig{all: map[string]json.RawMessage{}, auths: map[string]json.RawMessage{}}
	err := json.Unmarshal(b, &c.all)
	for key, to := range map[string]any{"auths": &c.auths, "credsStore": &c.credsStore, "credHelpers": &c.credHelpers} {
		if raw, ok := c.all[key]; ok && err == nil {
			err = json.Unmarshal(raw, to)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not as docker writes it: %w", name, err)
	}
	if c.auths == nil { // written as null
		c.auths = map[string]json.RawMessage{}
	}
	return c, nil
}

// login is the one that the file itself holds for a host.
func (c *dockerConfig) login(host string) (Credential, error) {
	raw, ok := c.auths[host]
	if !ok {
		for key, other := range c.auths {
			if hostOf(key) == host {
				raw, ok = other, true
			}
		}
	}
	if !ok {
		return Credential{}, nil
	}
	var a dockerAuth
	if err := json.Unmarshal(raw, &a); err != nil {
		return Credential{}, fmt.Errorf("docker's login for %s cannot be read: %w", host, err)
	}
	who := Credential{User: a.Username, Password: a.Password, Identity: a.Identity}
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return Credential{}, fmt.Errorf("docker's login for %s cannot be read: its auth is not base64 of user:password", host)
		}
		who.User, who.Password = user, tarport.Secret(strings.TrimRight(password, "\x00"))
	}
	if who.Identity != "" {
		who.Password = ""
	}
	return who, nil
}

// helper is the credential helper for a host; "" where the file itself is it.
func (c *dockerConfig) helper(host string) string {
	if h, ok := c.credHelpers[host]; ok {
		return h
	}
	return c.credsStore
}

// hostOf is what docker makes of a key: older versions wrote URLs.
func hostOf(key string) string {
	if u, err := url.Parse(key); err == nil && strings.Contains(key, "://") && u.Host != "" {
		return u.Host
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

// write replaces the file whole, with the mode that it had. Where it is a link,
// what that leads to is replaced.
func (l *Logins) write(c *dockerConfig) error {
	for key, v := range map[string]any{"auths": c.auths, "credsStore": c.credsStore} {
		if key == "credsStore" && c.credsStore == "" {
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		c.all[key] = raw
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(c.all); err != nil {
		return err
	}
	if err := replaceFile(l.file, b.Bytes()); err != nil {
		return fmt.Errorf("write docker's logins: %w", err)
	}
	return nil
}

func replaceFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	mode := fs.FileMode(0o600)
	if fi, err := os.Stat(name); err == nil {
		mode = fi.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".config-*.json")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // where it was not renamed
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

const (
	helperPrefix = "docker-credential-"
	// identityUser is the name under which docker has helpers keep an identity
	// token.
	identityUser = "<token>"
	// notFound is what every helper says of a login that it does not have
	// (docker-credential-helpers, credentials/error.go).
	notFound = "credentials not found in native keychain"
)

// platformHelper is the helper that docker takes on this platform where its
// file says nothing; "" where it is not installed.
func platformHelper() string {
	helper := map[string]string{"darwin": "osxkeychain", "windows": "wincred", "linux": "secretservice"}[runtime.GOOS]
	if _, err := exec.LookPath("pass"); err == nil && helper == "secretservice" {
		helper = "pass"
	}
	if _, err := exec.LookPath(helperPrefix + helper); helper == "" || err != nil {
		return ""
	}
	return helper
}

type helperLogin struct {
	ServerURL string
	Username  string
	Secret    string
}

func (l *Logins) fromHelper(ctx context.Context, helper, host string) (Credential, error) {
	out, err := l.run(ctx, helper, "get", host)
	if err != nil {
		if strings.TrimSpace(string(out)) == notFound {
			return Credential{}, nil
		}
		return Credential{}, err
	}
	var found helperLogin
	if err := json.Unmarshal(out, &found); err != nil {
		return Credential{}, fmt.Errorf("read the answer of %s%s: %w", helperPrefix, helper, err)
	}
	if found.Username == identityUser {
		return Credential{Identity: tarport.Secret(found.Secret)}, nil
	}
	return Credential{User: found.Username, Password: tarport.Secret(found.Secret)}, nil
}

func (l *Logins) toHelper(ctx context.Context, helper, host string, who Credential) error {
	login := helperLogin{host, who.User, who.Password.Reveal()}
	if who.Identity != "" {
		login.Username, login.Secret = identityUser, who.Identity.Reveal()
	}
	b, err := json.Marshal(login)
	if err != nil {
		return err
	}
	_, err = l.run(ctx, helper, "store", string(b))
	return err
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// run runs a helper; what it wrote is there also after an error.
func (l *Logins) run(ctx context.Context, helper, action, input string) ([]byte, error) {
	name := helperPrefix + helper
	if !helperName.MatchString(helper) {
		return nil, fmt.Errorf("docker's configuration names the credential helper %q, which is no name", helper)
	}
	cmd := exec.CommandContext(ctx, name, action) //nolint:gosec // the helper that docker's configuration names
	cmd.Env, cmd.Stdin, cmd.Stderr = l.environ, strings.NewReader(input), l.err
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s, which %s names: %w: %s", name, action, l.file, err, printable(strings.TrimSpace(string(out))))
	}
	return out, err
}
