package scan

import (
	"bytes"
)

// list gathers the packages of a database, as many as are kept.
type list struct {
	count    int
	packages []Package
}

func (l *list) add(name, version []byte) {
	l.count++
	if len(l.packages) < maxPackages {
		l.packages = append(l.packages, Package{word(name), word(version)})
	}
}

// word is a field without blanks, which stand between the fields of a list.
func word(b []byte) string { return field(bytes.ReplaceAll(b, []byte(" "), nil)) }

func (l *list) finish(m *Mark) bool {
	m.Packages = pack(l.count, l.packages)
	return true
}

// apkReader reads lib/apk/db/installed: paragraphs of lines of a letter, a
// colon and a value, P the name and V the version.
// https://wiki.alpinelinux.org/wiki/Apk_spec
type apkReader struct {
	lines
	list
	name, version []byte
}

func newAPKReader() *apkReader {
	r := &apkReader{}
	r.line = func(b []byte) {
		switch {
		case len(b) == 0:
			r.paragraph()
		case len(b) > 2 && b[1] == ':' && b[0] == 'P':
			r.name = bytes.Clone(b[2:])
		case len(b) > 2 && b[1] == ':' && b[0] == 'V':
			r.version = bytes.Clone(b[2:])
		}
	}
	return r
}

func (r *apkReader) paragraph() {
	if len(r.name) > 0 {
		r.add(r.name, r.version)
	}
	r.name, r.version = nil, nil
}

func (r *apkReader) finish(m *Mark) bool {
	r.end()
	r.paragraph()
	return r.list.finish(m)
}

// dpkgReader reads var/lib/dpkg/status, or one of the files in status.d that
// distroless images have instead: paragraphs of "Key: value". Packages whose
// state is other than installed are not there; a file of status.d has no
// state.
type dpkgReader struct {
	lines
	list
	name, version []byte
	gone          bool
}

func newDpkgReader() *dpkgReader {
	r := &dpkgReader{}
	r.line = func(b []byte) {
		if len(bytes.TrimSpace(b)) == 0 {
			r.paragraph()
			return
		}
		key, value, ok := bytes.Cut(b, []byte(":"))
		if !ok {
			return
		}
		switch value = bytes.TrimSpace(value); string(key) {
		case "Package":
			r.name = bytes.Clone(value)
		case "Version":
			r.version = bytes.Clone(value)
		case "Status": // want, error, state
			r.gone = !bytes.HasSuffix(value, []byte(" installed"))
		}
	}
	return r
}

func (r *dpkgReader) paragraph() {
	if len(r.name) > 0 && !r.gone {
		r.add(r.name, r.version)
	}
	r.name, r.version, r.gone = nil, nil, false
}

func (r *dpkgReader) finish(m *Mark) bool {
	r.end()
	r.paragraph()
	return r.list.finish(m)
}

// listReader reads the manifest that RPM images without RPM have: lines of
// fields with tabs between, the name first and then version-release, as
// `rpm -qa --qf "%{NAME}\t%{VERSION}-%{RELEASE}\t…"` writes them.
type listReader struct {
	lines
	list
}

func newListReader() *listReader {
	r := &listReader{}
	r.line = func(b []byte) {
		name, rest, ok := bytes.Cut(b, []byte("\t"))
		version, _, _ := bytes.Cut(rest, []byte("\t"))
		if ok && len(name) > 0 {
			r.add(name, version)
		}
	}
	return r
}

func (r *listReader) finish(m *Mark) bool {
	r.end()
	return r.list.finish(m)
}
