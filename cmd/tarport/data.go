package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

// dataDir is the directory of what a server keeps for itself, in use.
type dataDir struct {
	path string
	lock *os.File // nil where the database is shared
}

// openData makes the data directory where there is none. With SQLite it takes
// its lock: two processes on one database would each believe their own caches.
func openData(c *config.Config) (*dataDir, error) {
	d := &dataDir{path: c.Tarport.Data}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if !c.SQLite() {
		return d, nil
	}
	f, err := os.OpenFile(filepath.Join(d.path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("the data directory %s is in use by another tarport: stop it, or name another directory by tarport.data", absolute(d.path))
		}
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	d.lock = f
	return d, nil
}

// Close frees the directory for another process. The file stays: whoever
// removed it could remove another's.
func (d *dataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

var errLocked = errors.New("locked by another process")

func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

func secretFile(data string) string { return filepath.Join(data, "secret") }

// secret is the configured one, or the one that the first start made.
func (d *dataDir) secret(configured tarport.Secret) (tarport.Secret, error) {
	if configured != "" {
		return configured, nil
	}
	name := secretFile(d.path)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSecret(name)
	}
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if len(s) < 32 {
		return "", fmt.Errorf("%s holds no secret: put the one back that was there; without it all tokens and uploads are void", absolute(name))
	}
	return tarport.Secret(s), nil
}

// makeSecret writes a new secret, durably before it is used. It never replaces
// one: of two processes the first one's counts.
func makeSecret(name string) (tarport.Secret, error) {
	s := rand.Text() + rand.Text()                           // 260 bits
	f, err := os.CreateTemp(filepath.Dir(name), ".secret-*") // its mode is 0600
	if err != nil {
		return "", fmt.Errorf("make the secret: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(s + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("make the secret: %w", err)
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the secret: %w", err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return "", fmt.Errorf("make the secret: %w", err)
	}
	b, err := os.ReadFile(name)
	return tarport.Secret(strings.TrimSpace(string(b))), err
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
