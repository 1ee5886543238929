// Package scan tells what an image is built on, from what lies in its layers
// and not from its name: the distribution and its version, the C library, the
// package manager and the packages.
//
//	a layer's tar ─> Collector ─> Layer   facts, kept as JSON; once per layer
//	Layers, bottom to top ─> Merge ─> Image   what is true of the whole image
//
// A Layer is a list of marks, each about one path that a rule of this package
// asks for: what a release file or a package database says, a link, a
// directory, a whiteout. Merge lays the marks of the layers over each other as
// a file system would, and asks the result. So whiteouts, opaque directories,
// links, and a package database that a later layer writes anew, count as they
// do in a container.
//
// What is read comes from strangers: names, links and databases are data. No
// list grows without bound, and nothing here fails: what cannot be understood
// is not there. The package does no I/O.
package scan

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
)

// Version is the version of the rules that facts are collected by. A Layer of
// another version is to be collected anew.
const Version = 1

// Prefix is how the JSON form of a Layer of this version begins, and of no other.
const Prefix = `{"v":"1"`

// Layer is what one layer says. Its JSON form begins with its version.
type Layer struct {
	Version int    `json:"v,string"`
	Marks   []Mark `json:"marks,omitempty"`
	// Truncated tells that the layer had more marks than are kept.
	Truncated bool `json:"truncated,omitempty"`
}

// Mark is what a layer does to one path.
type Mark struct {
	// Path is clean and relative to the root, without a leading slash.
	Path string `json:"p"`
	Kind Kind   `json:"k"`
	// Target of a symbolic link as it is written, of a hard link clean.
	Target string `json:"t,omitempty"`

	// What is in a file, by what is looked for there.

	Release  map[string]string `json:"r,omitempty"` // of an os-release or lsb-release: keys and values
	Text     string            `json:"x,omitempty"` // of a file of one line
	Packages *Packages         `json:"n,omitempty"` // of a package database
	Program  *Program          `json:"e,omitempty"` // of an ELF file
	NoDocs   bool              `json:"d,omitempty"` // of a configuration of dpkg: documentation is not unpacked
}

// Kind is what a path becomes.
type Kind string

// Kinds of marks.
const (
	File      Kind = "f"
	Directory Kind = "d"
	Symlink   Kind = "l"
	Hardlink  Kind = "h"
	Whiteout  Kind = "w" // what lower layers have there is gone
	Opaque    Kind = "o" // what lower layers have in this directory is gone
)

// Program is what an executable says.
type Program struct {
	Interpreter string `json:"i,omitempty"` // the dynamic linker it asks for; "" where it is static
	BusyBox     string `json:"b,omitempty"` // the version where it is a BusyBox
}

// Package is an installed package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Packages is the content of a package database, packed. One of Plain and
// Deflated is set: lines of a name, a blank and a version.
type Packages struct {
	Count    int    `json:"c"` // -1: unknown
	Plain    string `json:"l,omitempty"`
	Deflated []byte `json:"z,omitempty"`
}

// Bounds of what is kept. Real ones are far below: a Debian desktop has 3,000
// packages.
const (
	maxMarks     = 4096
	maxFacts     = 2 << 20 // bytes of a layer's marks
	maxPackages  = 20_000  // of a database
	maxList      = 2 << 20 // bytes of a database's list
	maxField     = 160     // bytes of a name, a version, a value
	plainList    = 400     // bytes up to which a list is not worth deflating
	maxPath      = 512
	maxPrograms  = 16 // of a layer, besides those of well-known names
	maxRPMSqlite = 32 << 20
)

// size is about what a mark takes.
func (m *Mark) size() int {
	n := 64 + len(m.Path) + len(m.Target) + len(m.Text)
	for k, v := range m.Release {
		n += len(k) + len(v) + 8
	}
	if m.Packages != nil {
		n += len(m.Packages.Plain) + len(m.Packages.Deflated)*4/3
	}
	return n
}

// pack keeps count, which may be more than there are in list.
func pack(count int, list []Package) *Packages {
	var b strings.Builder
	for _, p := range list {
		if b.Len() < maxList-2*maxField-2 {
			fmt.Fprintf(&b, "%s %s\n", p.Name, p.Version)
		}
	}
	if b.Len() <= plainList {
		return &Packages{Count: count, Plain: b.String()}
	}
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = io.WriteString(w, b.String()) // a buffer takes all
	_ = w.Close()
	return &Packages{Count: count, Deflated: z.Bytes()}
}

// List returns the packages, as many as were kept, in the order of the
// database. A list that is damaged is cut short.
func (p *Packages) List() []Package {
	text := p.Plain
	if len(p.Deflated) > 0 {
		b, _ := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(p.Deflated)), maxList))
		text = string(b)
	}
	var out []Package
	for line := range strings.Lines(text) {
		name, version, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if ok && len(out) < maxPackages {
			out = append(out, Package{name, version})
		}
	}
	return out
}
