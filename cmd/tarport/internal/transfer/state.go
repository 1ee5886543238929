package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tarport/tarport/internal/tarball"
)

// States keeps, in files of a directory, what the next run needs to go on with
// a transfer that did not come to its end.
type States struct{ dir string }

// NewStates returns the states in a directory, which need not be there yet.
func NewStates(dir string) *States { return &States{dir} }

// state is one transfer. What does not fit what is found is not gone on with.
// The same file can go on with another request: in another namespace, where the
// first one was full, or as a root file system, where it was no image.
type state struct {
	// Of a file that is sent.
	Upload string         `json:"upload,omitempty"`
	Ranges tarball.Ranges `json:"ranges,omitempty"` // nil: all of it
	File   fileID         `json:"file,omitzero"`

	// Of one that is fetched: what the server said of it.
	ETag string `json:"etag,omitempty"`
	Size int64  `json:"size"`
}

// fileID is how a file is known again.
type fileID struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
}

func idOf(fi fs.FileInfo) fileID { return fileID{fi.Size(), fi.ModTime().UTC()} }

// key is the name of a transfer: all that it depends on.
func key(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

func (s *States) file(key string) string { return filepath.Join(s.dir, key+".json") }

// get returns the state of a key; nil where there is none that can be read.
func (s *States) get(key string) *state {
	if s == nil {
		return nil
	}
	b, err := os.ReadFile(s.file(key))
	if err != nil {
		return nil
	}
	var st state
	if json.Unmarshal(b, &st) != nil {
		return nil
	}
	return &st
}

// put replaces the state of a key.
func (s *States) put(key string, st *state) error {
	if s == nil {
		return nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("note how to go on: %w", err)
	}
	s.clear()
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("note how to go on: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file(key))
	}
	if err != nil {
		return fmt.Errorf("note how to go on: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (s *States) remove(key string) {
	if s != nil {
		_ = os.Remove(s.file(key)) // one that stays does not fit any more
	}
}

// keepFor is how long a state can be of use: the registry forgets uploads
// sooner.
const keepFor = 30 * 24 * time.Hour

// clear removes what nobody came back for.
func (s *States) clear() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > keepFor {
			_ = os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
}
