package scan

import (
	"cmp"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Image is what the layers of an image make together.
type Image struct {
	Base Base `json:"base"`
	// PackageManager is apk, dpkg, rpm or none.
	PackageManager string `json:"package_manager"`
	// Count is how many packages are installed, -1 where it is unknown.
	Count int `json:"count"`
	// Packages are those that are known by name, by name; there may be fewer
	// than Count.
	Packages []Package `json:"packages,omitempty"`
}

// Base is what an image is built on.
type Base struct {
	// ID is the ID of os-release(5): alpine, debian, ubuntu, rhel, fedora,
	// openeuler, anolis, … Besides: distroless for images of Debian's packages
	// without a package manager, busybox for BusyBox alone, nixos and guix by
	// their stores, scratch where no operating system is there, and linux (os-release's own default) where one
	// is that does not say its name.
	ID string `json:"id"`
	// Version is as os-release says it, 12 or 22.04 or 3.19.4; "" where it is
	// not said, as in testing distributions.
	Version string `json:"version"`
	// Name is the code name, bookworm or jammy or LTS-SP3; "" where there is
	// none.
	Name string `json:"name"`
	// Libc is musl, glibc or none: what programs that are linked dynamically
	// find.
	Libc string `json:"libc"`
	// Slim tells that it is a Debian without its documentation, as the images
	// of Debian that are called slim.
	Slim bool `json:"slim"`
}

// Merge tells what the layers make, the lowest first.
func Merge(layers []Layer) Image {
	var m Merger
	for i := range layers {
		m.Add(&layers[i])
	}
	return m.Image()
}

// Merger is Merge for one layer at a time, so that not all of them are in
// memory at once. Its zero value is an image without layers.
type Merger struct {
	root dir
	size int
}

// maxMerged is how much of all layers together is looked at: no real image has
// a hundredth of it.
const maxMerged = 64 << 20

// Add lays a layer over those that were added before. The Merger keeps it.
func (m *Merger) Add(l *Layer) {
	for i := range l.Marks {
		m.size += l.Marks[i].size()
	}
	if m.size <= maxMerged {
		m.root.apply(l)
	}
}

// Image tells what the layers make.
func (m *Merger) Image() Image {
	s := system{&m.root}
	managers := s.managers()
	var img Image
	img.Base = s.base(managers)
	img.Base.Libc = s.libc(managers)
	img.PackageManager = pick(managers, img.Base.ID)
	if p := managers[img.PackageManager]; p != nil {
		img.Count = p.count
		img.Packages = sorted(p.packages)
	}
	img.Base.Slim = img.Base.ID == "debian" && managers["dpkg"] != nil && s.withoutDocs()
	return img
}

// system is a merged file system that questions are asked of.
type system struct{ root *dir }

// at is the mark of the file at a path, through links; nil where there is none.
func (s system) at(p string) *Mark {
	if d := s.root.lookup(p); d != nil && !d.isDir() {
		return d.mark
	}
	return nil
}

// under are the marks of the files in a directory, by name.
func (s system) under(p string) map[string]*Mark {
	out := map[string]*Mark{}
	if d := s.root.lookup(p); d != nil && d.isDir() {
		for name := range d.names {
			if m := s.at(p + "/" + name); m != nil {
				out[name] = m
			}
		}
	}
	return out
}

const (
	apk  = "apk"
	dpkg = "dpkg"
	rpm  = "rpm"
	none = "none"
)

// managers are the packages by the manager that installed them.
func (s system) managers() map[string]*list {
	found := map[string]*list{}
	add := func(manager string, m *Mark) {
		if m == nil || m.Packages == nil {
			return
		}
		l := found[manager]
		if l == nil {
			l = &list{}
			found[manager] = l
		}
		if m.Packages.Count < 0 || l.count < 0 {
			l.count = -1
		} else {
			l.count += m.Packages.Count
		}
		if len(l.packages) < maxPackages {
			l.packages = append(l.packages, m.Packages.List()...)
		}
	}
	add(apk, firstOf(s.at("lib/apk/db/installed"), s.at("usr/lib/apk/db/installed")))
	add(dpkg, s.at("var/lib/dpkg/status"))
	if found[dpkg] == nil || found[dpkg].count == 0 {
		pieces := s.under("var/lib/dpkg/status.d")
		for _, name := range slices.Sorted(maps.Keys(pieces)) {
			add(dpkg, pieces[name])
		}
	}
	var db *Mark
	for _, d := range []string{"usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"} {
		for _, name := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			db = firstOf(db, s.at(d+"/"+name))
		}
	}
	add(rpm, firstOf(db, s.at("var/lib/rpmmanifest/container-manifest-2")))
	return found
}

func firstOf(a, b *Mark) *Mark {
	if a != nil {
		return a
	}
	return b
}

// families are the distributions of a package manager, where an image has the
// database of another one too.
var families = map[string]string{
	"alpine": apk, "wolfi": apk, "chainguard": apk, "postmarketos": apk,
	"debian": dpkg, "ubuntu": dpkg, "distroless": dpkg, "raspbian": dpkg, "kali": dpkg,
}

// pick tells which of the managers is the system's own.
func pick(managers map[string]*list, id string) string {
	own := cmp.Or(families[id], rpm)
	for _, name := range []string{own, dpkg, apk, rpm} {
		if managers[name] != nil {
			return name
		}
	}
	return none
}

// base tells what the distribution is, by what says so best: os-release, the
// older release files, the package manager, BusyBox.
func (s system) base(managers map[string]*list) Base {
	b, ok := s.byRelease()
	if !ok {
		b, ok = s.byOldRelease()
	}
	if !ok {
		b = s.byContent(managers)
	}
	if s.distroless(b.ID) {
		b.ID = "distroless"
	}
	return b
}

// distroless tells that Debian's packages are there, and that dpkg itself is
// not: each has a file of its own in status.d.
func (s system) distroless(id string) bool {
	if id != "debian" && id != "linux" && id != "scratch" && id != "busybox" {
		return false
	}
	if status := s.at("var/lib/dpkg/status"); status != nil && status.Packages != nil && status.Packages.Count > 0 {
		return false
	}
	for _, m := range s.under("var/lib/dpkg/status.d") {
		if m.Packages != nil && m.Packages.Count > 0 {
			return true
		}
	}
	return strings.Contains(s.release()["HOME_URL"], "/distroless")
}

// release is the os-release: etc before usr/lib, as os-release(5) says.
func (s system) release() map[string]string {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		if m := s.at(p); m != nil && m.Release != nil {
			return m.Release
		}
	}
	return nil
}

var validID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (s system) byRelease() (Base, bool) {
	r := s.release()
	id := strings.ToLower(r["ID"])
	if !validID.MatchString(id) {
		return Base{}, false
	}
	b := Base{ID: id, Version: r["VERSION_ID"], Name: cmp.Or(r["VERSION_CODENAME"], codename(r))}
	if id == "debian" && b.Version == "" { // a testing one has only its name
		if m := s.at("etc/debian_version"); m != nil && b.Name == "" {
			b.Name, _, _ = strings.Cut(m.Text, "/")
		}
	}
	return b, true
}

var inParentheses = regexp.MustCompile(`\(([^()]+)\)`)

// codename finds the code name in what older os-release files, and those of
// other families, have as their version:
//
//	8 (jessie)                       Debian
//	14.04.6 LTS, Trusty Tahr         Ubuntu
//	22.03 (LTS-SP3)                  openEuler
//	39 (Container Image)             Fedora: no name, but the variant
func codename(r map[string]string) string {
	id, name := strings.ToLower(r["ID"]), ""
	if m := inParentheses.FindStringSubmatch(r["VERSION"]); m != nil {
		name = m[1]
	} else if _, after, ok := strings.Cut(r["VERSION"], ", "); ok {
		name = after
	}
	switch {
	case name == r["VARIANT"], id == "fedora":
		return ""
	case id == "ubuntu":
		name, _, _ = strings.Cut(name, " ")
		return strings.ToLower(name)
	case id == "debian":
		return strings.ToLower(name)
	}
	return name
}

// oldName is how the release files of the Red Hat family begin.
var oldNames = []struct{ prefix, id string }{
	{"CentOS", "centos"},
	{"Red Hat", "rhel"},
	{"Fedora", "fedora"},
	{"Rocky Linux", "rocky"},
	{"AlmaLinux", "almalinux"},
	{"Oracle Linux", "ol"},
	{"openEuler", "openeuler"},
	{"Anolis OS", "anolis"},
	{"Amazon Linux", "amzn"},
	{"Scientific Linux", "scientific"},
}

// CentOS release 6.10 (Final)
var oldRelease = regexp.MustCompile(`release (\d[\w.]*)(?: \(([^()]+)\))?`)

// byOldRelease reads what was there before os-release.
func (s system) byOldRelease() (Base, bool) {
	if m := s.at("etc/alpine-release"); m != nil && m.Text != "" {
		return Base{ID: "alpine", Version: m.Text}, true
	}
	if m := s.at("etc/lsb-release"); m != nil && validID.MatchString(strings.ToLower(m.Release["DISTRIB_ID"])) {
		return Base{ID: strings.ToLower(m.Release["DISTRIB_ID"]), Version: m.Release["DISTRIB_RELEASE"], Name: m.Release["DISTRIB_CODENAME"]}, true
	}
	releases := s.under("etc")
	for _, name := range slices.Sorted(maps.Keys(releases)) {
		for _, old := range oldNames {
			if m := releases[name]; strings.HasPrefix(m.Text, old.prefix) {
				b := Base{ID: old.id}
				if v := oldRelease.FindStringSubmatch(m.Text); v != nil {
					b.Version, b.Name = v[1], v[2]
				}
				return b, true
			}
		}
	}
	if m := s.at("etc/debian_version"); m != nil && m.Text != "" {
		if name, _, testing := strings.Cut(m.Text, "/"); testing {
			return Base{ID: "debian", Name: name}, true
		}
		version, _, _ := strings.Cut(m.Text, ".")
		return Base{ID: "debian", Version: version}, true
	}
	return Base{}, false
}

// byContent tells what a file system is that has no release file.
func (s system) byContent(managers map[string]*list) Base {
	switch box, found := s.busybox(); {
	case s.root.lookup("nix/store") != nil:
		return Base{ID: "nixos"}
	case s.root.lookup("gnu/store") != nil:
		return Base{ID: "guix"}
	case managers[apk] != nil:
		return Base{ID: "alpine"}
	case managers[dpkg] != nil:
		return Base{ID: "debian"}
	case managers[rpm] != nil:
		return Base{ID: "linux"}
	case found:
		return Base{ID: "busybox", Version: box}
	case s.libc(managers) != none, s.at("bin/sh") != nil:
		return Base{ID: "linux"}
	}
	return Base{ID: "scratch"}
}

// busybox tells whether the shell, or else whatever is called so, is BusyBox.
func (s system) busybox() (version string, found bool) {
	for _, p := range []string{"bin/sh", "usr/bin/sh", "bin/busybox", "usr/bin/busybox"} {
		m := s.at(p)
		if m == nil || m.Program == nil || m.Program.BusyBox == "" {
			continue
		}
		return m.Program.BusyBox, true
	}
	return "", false
}

// programDirs is where the programs are that tell which C library is in use.
var programDirs = []string{"bin", "usr/bin", "sbin", "usr/sbin"}

// libc tells which C library there is: by its files, or else by its package,
// where the files are elsewhere than usual. Where there are two (Debian's package
// musl, Alpine's gcompat) it is the one that the shell and its like ask for.
func (s system) libc(managers map[string]*list) string {
	musl, glibc := s.libraries()
	if !musl && !glibc {
		musl, glibc = installed(managers, "musl"), installed(managers, "libc6", "libc6.1", "glibc")
	}
	switch {
	case musl && !glibc:
		return "musl"
	case glibc && !musl:
		return "glibc"
	case !musl:
		return none
	}
	for _, name := range []string{"sh", "bash", "dash", "busybox", "ls", "cat", "env", apk, dpkg, rpm, "coreutils"} {
		for _, d := range programDirs {
			m := s.at(d + "/" + name)
			if m == nil || m.Program == nil || m.Program.Interpreter == "" {
				continue
			}
			if strings.HasPrefix(path.Base(m.Program.Interpreter), "ld-musl-") {
				return "musl"
			}
			return "glibc"
		}
	}
	if managers[apk] != nil && managers[dpkg] == nil {
		return "musl"
	}
	return "glibc"
}

// installed tells whether there is a package of one of the names.
func installed(managers map[string]*list, names ...string) bool {
	for _, l := range managers {
		if slices.ContainsFunc(l.packages, func(p Package) bool { return slices.Contains(names, p.Name) }) {
			return true
		}
	}
	return false
}

// libraries tells which C libraries lie where they are looked for.
func (s system) libraries() (musl, glibc bool) {
	s.walk(s.root, func(name string, m *Mark) {
		switch {
		case m.Kind != File:
		case strings.HasPrefix(name, "ld-musl-"), strings.HasPrefix(name, "libc.musl-"):
			musl = true
		case strings.HasPrefix(name, "ld-linux"), strings.HasPrefix(name, "ld64.so"), name == "libc.so.6", strings.HasPrefix(name, "ld-2."):
			glibc = true
		}
	})
	return musl, glibc
}

func (s system) walk(d *dir, fn func(name string, m *Mark)) {
	for name, c := range d.names {
		if !c.isDir() {
			fn(name, c.mark)
			continue
		}
		s.walk(c, fn)
	}
}

// withoutDocs tells whether dpkg leaves documentation out, or it was taken
// away although dpkg's own lists show that there were packages to have some.
func (s system) withoutDocs() bool {
	if m := s.at("etc/dpkg/dpkg.cfg"); m != nil && m.NoDocs {
		return true
	}
	for _, m := range s.under("etc/dpkg/dpkg.cfg.d") {
		if m.NoDocs {
			return true
		}
	}
	return s.at("var/lib/dpkg/info/base-files.list") != nil && s.at(docs) == nil
}
