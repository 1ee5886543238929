package scan

import (
	"path"
	"strings"
)

// dir is a path of the file system that the marks of layers make, as far as
// they tell: a directory where mark is nil or one of a directory.
type dir struct {
	mark  *Mark
	names map[string]*dir
}

func (d *dir) isDir() bool { return d.mark == nil || d.mark.Kind == Directory }

func (d *dir) child(name string) *dir {
	if d == nil || !d.isDir() {
		return nil
	}
	return d.names[name]
}

func (d *dir) set(name string, c *dir) {
	if d.names == nil {
		d.names = map[string]*dir{}
	}
	d.names[name] = c
}

// apply lays a layer over what is there. A whiteout hides what lower layers
// have, wherever in its own layer it stands.
func (d *dir) apply(l *Layer) {
	for i := range l.Marks {
		switch m := &l.Marks[i]; m.Kind {
		case Whiteout:
			above, name := split(m.Path)
			if parent := d.lookup(above); parent != nil {
				delete(parent.names, name)
			}
		case Opaque:
			if at := d.lookup(m.Path); at != nil && at.isDir() {
				at.names = nil
			}
		}
	}
	for i := range l.Marks {
		switch m := &l.Marks[i]; m.Kind {
		case Whiteout, Opaque:
		default:
			d.place(m)
		}
	}
}

func (d *dir) place(m *Mark) {
	if m.Path == "" {
		return
	}
	above, name := split(m.Path)
	mark, parent := m, d.make(above)
	switch old := parent.child(name); {
	case m.Kind == Directory && old != nil && old.isDir():
		return
	case m.Kind == Hardlink:
		above, name := split(m.Target)
		target := d.lookup(above).child(name)
		if target == nil || target.isDir() {
			return
		}
		mark = target.mark
	}
	parent.set(name, &dir{mark: mark})
}

// make returns the directory at a path, through links. What is in its way is
// replaced.
func (d *dir) make(p string) *dir {
	if at := d.lookup(p); at != nil && at.isDir() {
		return at
	}
	above, name := split(p)
	at := &dir{}
	d.make(above).set(name, at)
	return at
}

func split(p string) (above, name string) {
	above, name = path.Split(p)
	return strings.TrimSuffix(above, "/"), name
}

// maxLinks is how many symbolic links are followed, as Linux does.
const maxLinks = 40

// lookup returns what is at a path, through all symbolic links; nil where
// there is nothing.
func (d *dir) lookup(p string) *dir {
	rest, at, above := clean(p), d, []*dir{}
	for links := 0; rest != ""; {
		var c string
		c, rest, _ = cut(rest)
		switch c {
		case "", ".":
			continue
		case "..":
			if len(above) > 0 {
				at, above = above[len(above)-1], above[:len(above)-1]
			}
			continue
		}
		next := at.child(c)
		if next == nil {
			return nil
		}
		if next.mark != nil && next.mark.Kind == Symlink {
			if links++; links > maxLinks {
				return nil
			}
			target := next.mark.Target
			if strings.HasPrefix(target, "/") {
				at, above = d, nil
			}
			rest = target + "/" + rest
			continue
		}
		at, above = next, append(above, at)
	}
	return at
}
