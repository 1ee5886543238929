package scan

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// lines is a writer that gives each line, without its end, to a function. Of
// a long line it gives the beginning.
type lines struct {
	line func(b []byte)
	part []byte
}

// maxLine is far above what the databases have in the lines that are read.
const maxLine = 4 << 10

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.keep(p)
			return n, nil
		}
		if len(l.part) == 0 && i <= maxLine {
			l.line(p[:i])
		} else {
			l.keep(p[:i])
			l.end()
		}
		p = p[i+1:]
	}
	return n, nil
}

func (l *lines) keep(p []byte) {
	l.part = append(l.part, p[:min(len(p), maxLine-len(l.part))]...)
}

// end gives out what has no end of line.
func (l *lines) end() {
	if len(l.part) > 0 {
		l.line(l.part)
	} else {
		l.line(nil)
	}
	l.part = l.part[:0]
}

// field makes of bytes from a file what is kept: bounded, one line, UTF-8.
func field(b []byte) string {
	b = b[:min(len(b), maxField)]
	s := strings.ToValidUTF8(string(b), "�")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// releaseReader reads an os-release(5) or an lsb-release.
type releaseReader struct {
	lines
	keys map[string]string
}

// releaseKeys are those that a rule asks for.
var releaseKeys = map[string]bool{
	"ID": true, "ID_LIKE": true, "NAME": true, "PRETTY_NAME": true, "VERSION": true, "VERSION_ID": true,
	"VERSION_CODENAME": true, "VARIANT": true, "VARIANT_ID": true, "HOME_URL": true,
	"DISTRIB_ID": true, "DISTRIB_RELEASE": true, "DISTRIB_CODENAME": true,
}

func newReleaseReader() *releaseReader {
	r := &releaseReader{keys: map[string]string{}}
	r.line = func(b []byte) {
		key, value, ok := bytes.Cut(bytes.TrimSpace(b), []byte("="))
		if ok && releaseKeys[string(key)] { // a later one wins, as in a shell
			r.keys[string(key)] = field(unquote(value))
		}
	}
	return r
}

func (r *releaseReader) finish(m *Mark) bool {
	r.end()
	m.Release = r.keys
	return true
}

var escapes = regexp.MustCompile(`\\([$"'\\` + "`])")

// unquote takes off the quotes of a shell's assignment.
func unquote(b []byte) []byte {
	if len(b) < 2 || b[0] != b[len(b)-1] {
		return b
	}
	switch b[0] {
	case '\'':
		return b[1 : len(b)-1]
	case '"':
		return escapes.ReplaceAll(b[1:len(b)-1], []byte("$1"))
	}
	return b
}

// textReader reads the first line.
type textReader struct{ b []byte }

func (r *textReader) Write(p []byte) (int, error) {
	r.b = append(r.b, p[:min(len(p), maxField+1-len(r.b))]...)
	return len(p), nil
}

func (r *textReader) finish(m *Mark) bool {
	line, _, _ := bytes.Cut(bytes.TrimLeft(r.b, " \t\r\n"), []byte("\n"))
	m.Text = strings.TrimSpace(field(line))
	return true
}

// confReader reads a configuration of dpkg. Images called slim leave the
// documentation out, and have this so that it stays out:
//
//	path-exclude /usr/share/doc/*          debuerreotype-slimify
//	path-exclude=/usr/share/doc/*          by hand, mmdebstrap
type confReader struct {
	lines
	noDocs bool
}

var excludesDocs = regexp.MustCompile(`^\s*path-exclude[\s=]+/usr/share/doc/\*`)

func newConfReader() *confReader {
	r := &confReader{}
	r.line = func(b []byte) { r.noDocs = r.noDocs || excludesDocs.Match(b) }
	return r
}

func (r *confReader) finish(m *Mark) bool {
	r.end()
	m.NoDocs = r.noDocs
	return true
}
