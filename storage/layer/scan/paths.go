package scan

import "path"

// class is what a path is looked at for.
type class int

const (
	nothing   class = iota
	inner           // a directory above paths that are looked at
	many            // the same, of which there are many side by side
	release         // an os-release or lsb-release
	text            // one line
	apkDB           // Alpine's database of packages
	dpkgDB          // dpkg's, whole or one of distroless images' pieces
	dpkgFiles       // dpkg's list of a package's files
	dpkgConf        // dpkg's configuration
	rpmDB           // RPM's database, in one of its three forms
	rpmList         // the list of packages of an RPM image without RPM
	libc            // a C library or its dynamic linker
	program         // an executable
	doc             // all below the directory of the packages' documentation
)

// patterns is all that is looked at. A component with a * is a glob; a name
// without one goes before a glob at the same place.
var patterns = newPatterns([]pattern{
	{"etc/os-release", release},
	{"usr/lib/os-release", release},
	{"usr/lib/os.release.d/*", release},
	{"etc/lsb-release", release},
	{"etc/*-release", text},
	{"etc/debian_version", text},

	{"lib/apk/db/installed", apkDB},
	{"usr/lib/apk/db/installed", apkDB}, // the second since Alpine 3.23
	{"var/lib/dpkg/status", dpkgDB},
	{"var/lib/dpkg/status.d/*", dpkgDB},
	{"var/lib/dpkg/info/base-files.list", dpkgFiles},
	{"etc/dpkg/dpkg.cfg", dpkgConf},
	{"etc/dpkg/dpkg.cfg.d/*", dpkgConf},
	{"usr/share/doc/*", doc},
	{"var/lib/rpmmanifest/container-manifest-2", rpmList},
	{"var/lib/rpm/Packages", rpmDB},
	{"var/lib/rpm/Packages.db", rpmDB},
	{"var/lib/rpm/rpmdb.sqlite", rpmDB},
	{"usr/lib/sysimage/rpm/Packages", rpmDB},
	{"usr/lib/sysimage/rpm/Packages.db", rpmDB},
	{"usr/lib/sysimage/rpm/rpmdb.sqlite", rpmDB},
	{"usr/share/rpm/Packages", rpmDB},
	{"usr/share/rpm/Packages.db", rpmDB},
	{"usr/share/rpm/rpmdb.sqlite", rpmDB},
}, libraries("lib", "lib32", "lib64", "libx32", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32", "nix/store/*/lib", "gnu/store/*/lib"),
	programs("", "bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/local/bin/", "usr/local/sbin/", "app/", "ko-app/"))

type pattern struct {
	path  string
	class class
}

// libraries are the C libraries in these directories and in their
// subdirectories of an architecture.
func libraries(dirs ...string) (out []pattern) {
	for _, d := range dirs {
		for _, sub := range []string{"/", "/*-linux-*/"} {
			for _, name := range []string{"ld-*.so*", "ld64.so*", "libc.so.6", "libc.musl-*"} {
				out = append(out, pattern{d + sub + name, libc})
			}
		}
	}
	return out
}

func programs(dirs ...string) (out []pattern) {
	for _, d := range dirs {
		out = append(out, pattern{d + "*", program})
	}
	return out
}

// wellKnown are the programs that tell what a system is; of others a few are
// looked at.
var wellKnown = map[string]bool{
	"sh": true, "ash": true, "bash": true, "dash": true, "busybox": true, "[": true, "env": true, "ls": true, "cat": true,
	"apk": true, "dpkg": true, "rpm": true, "coreutils": true,
}

// node is a directory of the patterns.
type node struct {
	class class // of the path that ends here
	names map[string]*node
	globs []glob
}

type glob struct {
	pattern string
	*node
}

func newPatterns(lists ...[]pattern) *node {
	root := &node{class: inner}
	for _, list := range lists {
		for _, p := range list {
			root.add(p.path, p.class)
		}
	}
	return root
}

func (n *node) add(p string, c class) {
	for {
		name, rest, more := cut(p)
		next := n.child(name)
		if !more {
			if next.class == nothing {
				next.class = c
			}
			return
		}
		if next.class = inner; isGlob(name) {
			next.class = many
		}
		n, p = next, rest
	}
}

// child is the node of a component of a pattern, made where there is none.
func (n *node) child(name string) *node {
	next := &node{}
	if !isGlob(name) {
		if n.names[name] != nil {
			return n.names[name]
		}
		if n.names == nil {
			n.names = map[string]*node{}
		}
		n.names[name] = next
		return next
	}
	for _, g := range n.globs {
		if g.pattern == name {
			return g.node
		}
	}
	n.globs = append(n.globs, glob{name, next})
	return next
}

func isGlob(s string) bool {
	for i := range len(s) {
		if s[i] == '*' {
			return true
		}
	}
	return false
}

// classOf tells what a clean relative path is looked at for; "" is the root.
func classOf(p string) class {
	n := patterns
	if p == "" {
		return inner
	}
	for {
		name, rest, more := cut(p)
		if n = n.find(name, more); n == nil {
			return nothing
		}
		if !more || n.class == doc {
			return n.class
		}
		p = rest
	}
}

// find goes into a component of a path: one that has more below it, or not.
func (n *node) find(name string, more bool) *node {
	if c := n.names[name]; c != nil {
		return c
	}
	for _, g := range n.globs {
		if more && g.class != many && g.class != doc {
			continue // nothing is below it
		}
		if ok, _ := path.Match(g.pattern, name); ok {
			return g.node
		}
	}
	return nil
}

func cut(p string) (name, rest string, more bool) {
	for i := range len(p) {
		if p[i] == '/' {
			return p[:i], p[i+1:], true
		}
	}
	return p, "", false
}

// clean makes of a name in a tar the path relative to the root.
func clean(name string) string {
	if name == "" {
		return ""
	}
	return path.Clean("/" + name)[1:]
}
