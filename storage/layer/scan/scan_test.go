package scan_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/storage/layer/scan"
)

// file is an entry of a layer in a test.
type file struct {
	name string // ends in / for a directory
	body string
	to   string // of a symbolic link; of a hard link with = in front
	mode int64
}

// layer collects the facts of a layer of these entries.
func layer(files ...file) scan.Layer {
	c := scan.NewCollector()
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.body))}
		switch {
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case strings.HasPrefix(f.to, "="):
			h.Typeflag, h.Linkname = tar.TypeLink, f.to[1:]
		case f.to != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.to
		}
		if w := c.Entry(h); w != nil {
			for b := []byte(f.body); len(b) > 0; { // in pieces, as a stream brings them
				n, err := w.Write(b[:min(len(b), 61)])
				if err != nil {
					panic(err)
				}
				b = b[n:]
			}
		}
	}
	return stored(c.Layer())
}

// stored is a layer as it comes back from where it is kept.
func stored(l scan.Layer) scan.Layer {
	b, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	if !strings.HasPrefix(string(b), scan.Prefix) {
		panic("the facts do not begin with their version: " + string(b))
	}
	var back scan.Layer
	if err := json.Unmarshal(b, &back); err != nil {
		panic(err)
	}
	return back
}

// scanTar collects the facts of a layer.
func scanTar(t *testing.T, r io.Reader) scan.Layer {
	t.Helper()
	c := scan.NewCollector()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return stored(c.Layer())
		}
		if err != nil {
			t.Fatalf("read the layer: %v", err)
		}
		if w := c.Entry(h); w != nil {
			if _, err := io.Copy(w, tr); err != nil {
				t.Fatalf("read %s: %v", h.Name, err)
			}
		}
	}
}

// elf is the beginning of an ELF file for x86-64 that asks for a dynamic
// linker; "" for a static one.
func elf(interpreter string) string {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18] = 3, 62
	b[32], b[54], b[56] = 64, 56, 1
	if interpreter != "" {
		b[64] = 3
		b[64+8], b[64+32] = 120, byte(len(interpreter)+1)
	}
	return string(b) + interpreter + "\x00"
}

// The release files are those of the distributions' own images.
const (
	alpineRelease   = "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.4\nPRETTY_NAME=\"Alpine Linux v3.19\"\nHOME_URL=\"https://alpinelinux.org/\"\n"
	bookwormRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	apkInstalled    = "C:Q1abc=\nP:musl\nV:1.2.4_git20230717-r4\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\n\nC:Q1def=\nP:busybox\nV:1.36.1-r15\nA:x86_64\n\n"
	dpkgStatus      = "Package: base-files\nStatus: install ok installed\nVersion: 12.4+deb12u5\nDescription: base\n more: of it\n\n" +
		"Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b2\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
)

func TestBaseOfOneLayer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files   []file
		want    scan.Base
		manager string
		count   int
	}{
		"alpine": {
			files: []file{
				{name: "etc/os-release", to: "../usr/lib/os-release"},
				{name: "usr/lib/os-release", body: alpineRelease},
				{name: "etc/alpine-release", body: "3.19.4\n"},
				{name: "lib/apk/db/installed", body: apkInstalled},
				{name: "lib/ld-musl-x86_64.so.1", body: elf("")},
				{name: "lib/libc.musl-x86_64.so.1", to: "ld-musl-x86_64.so.1"},
			},
			want: scan.Base{ID: "alpine", Version: "3.19.4", Libc: "musl"}, manager: "apk", count: 2,
		},
		"alpine 3.23, where lib is usr/lib": {
			files: []file{
				{name: "lib", to: "usr/lib"},
				{name: "usr/lib/os-release", body: alpineRelease},
				{name: "usr/lib/apk/db/installed", body: apkInstalled},
				{name: "usr/lib/ld-musl-aarch64.so.1", body: "x"},
			},
			want: scan.Base{ID: "alpine", Version: "3.19.4", Libc: "musl"}, manager: "apk", count: 2,
		},
		"alpine with glibc's names (gcompat)": {
			files: []file{
				{name: "etc/os-release", body: alpineRelease},
				{name: "lib/apk/db/installed", body: apkInstalled},
				{name: "lib/ld-musl-x86_64.so.1", body: "x"},
				{name: "lib/ld-linux-x86-64.so.2", body: "x"},
				{name: "bin/busybox", body: elf("/lib/ld-musl-x86_64.so.1")},
				{name: "bin/sh", to: "/bin/busybox"},
			},
			want: scan.Base{ID: "alpine", Version: "3.19.4", Libc: "musl"}, manager: "apk", count: 2,
		},
		"debian, absolute names": {
			files: []file{
				{name: "/lib", to: "usr/lib"},
				{name: "/etc/os-release", to: "/usr/lib/os-release"},
				{name: "/usr/lib/os-release", body: bookwormRelease},
				{name: "/var/lib/dpkg/status", body: dpkgStatus},
				{name: "/usr/lib/x86_64-linux-gnu/libc.so.6", body: "x"},
			},
			want: scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc"}, manager: "dpkg", count: 2,
		},
		"alpine whose files are elsewhere": {
			files: []file{{name: "etc/os-release", body: alpineRelease}, {name: "lib/apk/db/installed", body: apkInstalled}},
			want:  scan.Base{ID: "alpine", Version: "3.19.4", Libc: "musl"}, manager: "apk", count: 2,
		},
		"debian with the package musl": {
			files: []file{
				{name: "./etc/os-release", body: bookwormRelease},
				{name: "./var/lib/dpkg/status", body: dpkgStatus},
				{name: "./lib/ld-musl-x86_64.so.1", body: "x"},
				{name: "./lib/x86_64-linux-gnu/libc.so.6", body: "x"},
				{name: "./bin/dash", body: elf("/lib64/ld-linux-x86-64.so.2"), mode: 0o755},
				{name: "./bin/sh", to: "dash"},
			},
			want: scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc"}, manager: "dpkg", count: 2,
		},
		"debian slim, as debuerreotype makes it": {
			files: []file{
				{name: "etc/os-release", body: bookwormRelease},
				{name: "var/lib/dpkg/status", body: dpkgStatus},
				{name: "lib/x86_64-linux-gnu/libc.so.6", body: "x"},
				{name: "etc/dpkg/dpkg.cfg.d/docker", body: "# This is the \"slim\" variant of the Debian base image.\n\n# dpkg -S '/usr/share/doc/*'\npath-exclude /usr/share/doc/*\n"},
				{name: "usr/share/doc/base-files/copyright", body: "x"},
			},
			want: scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc", Slim: true}, manager: "dpkg", count: 2,
		},
		"debian whose documentation was removed": {
			files: []file{
				{name: "etc/os-release", body: bookwormRelease},
				{name: "var/lib/dpkg/status", body: dpkgStatus},
				{name: "var/lib/dpkg/info/base-files.list", body: "/."},
				{name: "usr/share/doc/base-files/copyright", body: "x"},
			},
			want: scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "none", Slim: true}, manager: "dpkg", count: 2,
		},
		"debian with documentation": {
			files: []file{
				{name: "etc/os-release", body: bookwormRelease},
				{name: "var/lib/dpkg/status", body: dpkgStatus},
				{name: "var/lib/dpkg/info/base-files.list", body: "/."},
				{name: "usr/share/doc/base-files/README", body: "x"},
			},
			want: scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "none"}, manager: "dpkg", count: 2,
		},
		"ubuntu, whose images leave documentation out": {
			files: []file{
				{name: "etc/os-release", body: "NAME=\"Ubuntu\"\nVERSION=\"20.04.6 LTS (Focal Fossa)\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"20.04\"\nVERSION_CODENAME=focal\n"},
				{name: "etc/dpkg/dpkg.cfg.d/excludes", body: "path-exclude=/usr/share/doc/*\n"},
				{name: "var/lib/dpkg/status", body: dpkgStatus},
				{name: "usr/lib/aarch64-linux-gnu/libc.so.6", body: "x"},
			},
			want: scan.Base{ID: "ubuntu", Version: "20.04", Name: "focal", Libc: "glibc"}, manager: "dpkg", count: 2,
		},
		"distroless static": {
			files: []file{
				{name: "./etc/os-release", body: "PRETTY_NAME=\"Distroless\"\nNAME=\"Debian GNU/Linux\"\nID=\"debian\"\nVERSION_ID=\"12\"\nVERSION=\"Debian GNU/Linux 12 (bookworm)\"\nHOME_URL=\"https://github.com/GoogleContainerTools/distroless\"\n"},
				{name: "./var/lib/dpkg/status.d/base-files", body: "Package: base-files\nVersion: 12.4\n"},
				{name: "./var/lib/dpkg/status.d/base-files.md5sums", body: "x  y\n"},
				{name: "./var/lib/dpkg/status.d/tzdata", body: "Package: tzdata\nVersion: 2024a\n"},
			},
			want: scan.Base{ID: "distroless", Version: "12", Name: "bookworm", Libc: "none"}, manager: "dpkg", count: 2,
		},
		"rpm without a reader for its database": {
			files: []file{
				{name: "etc/os-release", body: "NAME=\"openEuler\"\nVERSION=\"22.03 (LTS-SP3)\"\nID=\"openEuler\"\nVERSION_ID=\"22.03\"\n"},
				{name: "var/lib/rpm/Packages", body: "not one"},
				{name: "usr/lib64/libc.so.6", body: "x"},
			},
			want: scan.Base{ID: "openeuler", Version: "22.03", Name: "LTS-SP3", Libc: "glibc"}, manager: "rpm", count: -1,
		},
		"rpm's list of an image without rpm": {
			files: []file{
				{name: "etc/os-release", body: "ID=azurelinux\nVERSION_ID=\"3.0\"\n"},
				{name: "lib64", to: "usr/lib"},
				{name: "usr/lib/libc.so.6", body: "x"},
				{name: "var/lib/rpmmanifest/container-manifest-2", body: "bash\t5.2.15-3.azl3\t1\t2\tMicrosoft\t(none)\n"},
			},
			want: scan.Base{ID: "azurelinux", Version: "3.0", Libc: "glibc"}, manager: "rpm", count: 1,
		},
		"wolfi": {
			files: []file{{name: "etc/os-release", body: "ID=wolfi\nNAME=\"Wolfi\"\nVERSION_ID=\"20230201\"\n"}, {name: "usr/lib/apk/db/installed", body: apkInstalled}, {name: "usr/lib/libc.so.6", body: "x"}},
			want:  scan.Base{ID: "wolfi", Version: "20230201", Libc: "glibc"}, manager: "apk", count: 2,
		},
		"busybox, static": {
			files: []file{{name: "bin/[", body: elf("") + "BusyBox v1.36.1 (2023-11-07)", mode: 0o755}, {name: "bin/busybox", to: "=bin/["}, {name: "bin/sh", to: "=bin/["}},
			want:  scan.Base{ID: "busybox", Version: "1.36.1", Libc: "none"}, manager: "none",
		},
		"scratch with a static program": {
			files: []file{{name: "app", body: elf(""), mode: 0o755}, {name: "etc/ssl/certs/ca-certificates.crt", body: "x"}, {name: "etc/passwd", body: "x"}},
			want:  scan.Base{ID: "scratch", Libc: "none"}, manager: "none",
		},
		"no layer": {want: scan.Base{ID: "scratch", Libc: "none"}, manager: "none"},
		"a libc and nothing else": {
			files: []file{{name: "lib64/ld-linux-x86-64.so.2", body: "x"}, {name: "lib64/libc.so.6", body: "x"}, {name: "app", body: elf("/lib64/ld-linux-x86-64.so.2"), mode: 0o755}},
			want:  scan.Base{ID: "linux", Libc: "glibc"}, manager: "none",
		},
		"nix": {
			files: []file{{name: "/nix/store/"}, {name: "/nix/store/8mc30d9-glibc-2.38/lib/ld-linux-x86-64.so.2", body: "x"}},
			want:  scan.Base{ID: "nixos", Libc: "glibc"}, manager: "none",
		},
		"centos 6, before os-release": {
			files: []file{{name: "etc/redhat-release", to: "centos-release"}, {name: "etc/centos-release", body: "CentOS release 6.10 (Final)\n"}, {name: "lib64/libc.so.6", to: "libc-2.12.so"}, {name: "lib64/ld-2.12.so", body: "x"}},
			want:  scan.Base{ID: "centos", Version: "6.10", Name: "Final", Libc: "glibc"}, manager: "none",
		},
		"old ubuntu": {
			files: []file{{name: "etc/lsb-release", body: "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_CODENAME=lucid\n"}},
			want:  scan.Base{ID: "ubuntu", Version: "10.04", Name: "lucid", Libc: "none"}, manager: "none",
		},
		"an os-release that is a hard link": {
			files: []file{{name: "usr/lib/os-release", body: bookwormRelease}, {name: "etc/os-release", to: "=./usr/lib/os-release"}},
			want:  scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "none"}, manager: "none",
		},
		"the last of two files of one name": {
			files: []file{{name: "etc/os-release", body: bookwormRelease}, {name: "/etc//os-release", body: alpineRelease}},
			want:  scan.Base{ID: "alpine", Version: "3.19.4", Libc: "none"}, manager: "none",
		},
		"hostile links and names": {
			files: []file{
				{name: "etc/os-release", to: "../../../../etc/os-release"},
				{name: "lib", to: "lib"},
				{name: "usr", to: "/usr/usr"},
				{name: "../../etc/alpine-release", body: "9.9\x1b[31m\n"},
				{name: "bin/sh", to: "=bin/sh"},
				{name: ".wh.", body: ""},
				{name: "etc/.wh..wh..wh.x"},
				{name: "/"},
				{name: ".."},
			},
			want: scan.Base{ID: "alpine", Version: "9.9[31m", Libc: "none"}, manager: "none",
		},
		"an ID that is no ID": {
			files: []file{{name: "etc/os-release", body: "ID='<b>'\nVERSION_ID=1\n"}, {name: "lib/libc.so.6", body: "x"}},
			want:  scan.Base{ID: "linux", Libc: "glibc"}, manager: "none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := scan.Merge([]scan.Layer{layer(c.files...)})
			if diff := cmp.Diff(c.want, got.Base); diff != "" {
				t.Errorf("base (-want +got):\n%s", diff)
			}
			if got.PackageManager != c.manager || got.Count != c.count {
				t.Errorf("packages: %s %d, want %s %d", got.PackageManager, got.Count, c.manager, c.count)
			}
		})
	}
}

func TestCodenames(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]scan.Base{
		"ID=ubuntu\nVERSION=\"14.04.6 LTS, Trusty Tahr\"\nVERSION_ID=\"14.04\"":                                          {ID: "ubuntu", Version: "14.04", Name: "trusty"},
		"ID=debian\nVERSION=\"8 (jessie)\"\nVERSION_ID=\"8\"":                                                            {ID: "debian", Version: "8", Name: "jessie"},
		"ID=debian\nPRETTY_NAME=\"Debian GNU/Linux trixie/sid\"\nVERSION_CODENAME=trixie":                                {ID: "debian", Name: "trixie"},
		"ID=fedora\nVERSION=\"39 (Container Image)\"\nVERSION_ID=39\nVERSION_CODENAME=\"\"\nVARIANT=\"Container Image\"": {ID: "fedora", Version: "39"},
		"ID=\"rhel\"\nVERSION=\"9.3 (Plow)\"\nVERSION_ID=\"9.3\"":                                                        {ID: "rhel", Version: "9.3", Name: "Plow"},
		"ID=\"rocky\"\nVERSION=\"9.3 (Blue Onyx)\"\nVERSION_ID=\"9.3\"":                                                  {ID: "rocky", Version: "9.3", Name: "Blue Onyx"},
		"ID=\"anolis\"\nVERSION=\"8.8\"\nVERSION_ID=\"8.8\"":                                                             {ID: "anolis", Version: "8.8"},
		"ID='ol'\nVERSION='8.9'\nVERSION_ID='8.9'":                                                                       {ID: "ol", Version: "8.9"},
	} {
		want.Libc = "none"
		got := scan.Merge([]scan.Layer{layer(file{name: "etc/os-release", body: release})}).Base
		if got != want {
			t.Errorf("%q: got %+v, want %+v", release, got, want)
		}
	}
}

func TestLayersLieOverEachOther(t *testing.T) {
	t.Parallel()
	debian := []file{
		{name: "lib", to: "usr/lib"},
		{name: "etc/"},
		{name: "etc/os-release", to: "../usr/lib/os-release"},
		{name: "usr/lib/os-release", body: bookwormRelease},
		{name: "var/lib/dpkg/status", body: dpkgStatus},
		{name: "usr/lib/x86_64-linux-gnu/libc.so.6", body: "x"},
	}
	for name, c := range map[string]struct {
		upper [][]file
		want  string // base, libc, manager, count
	}{
		"nothing that matters":               {[][]file{{{name: "srv/app", body: "x"}}}, "debian 12 bookworm glibc dpkg 2"},
		"packages removed":                   {[][]file{{{name: "var/lib/dpkg/status", body: strings.SplitAfter(dpkgStatus, "\n\n")[0]}}}, "debian 12 bookworm glibc dpkg 1"},
		"the database gone":                  {[][]file{{{name: "var/lib/dpkg/.wh.status"}}}, "debian 12 bookworm glibc none 0"},
		"its directory gone":                 {[][]file{{{name: "var/lib/.wh.dpkg"}}}, "debian 12 bookworm glibc none 0"},
		"its directory gone and made anew":   {[][]file{{{name: "var/lib/dpkg/status", body: dpkgStatus}, {name: "var/lib/.wh.dpkg"}}}, "debian 12 bookworm glibc dpkg 2"},
		"opaque":                             {[][]file{{{name: "var/lib/dpkg/"}, {name: "var/lib/dpkg/.wh..wh..opq"}}}, "debian 12 bookworm glibc none 0"},
		"the link gone":                      {[][]file{{{name: "etc/.wh.os-release"}}}, "debian 12 bookworm glibc dpkg 2"},
		"link and file gone":                 {[][]file{{{name: "etc/.wh.os-release"}, {name: "usr/lib/.wh.os-release"}}}, "debian   glibc dpkg 2"},
		"gone and back":                      {[][]file{{{name: "usr/.wh.lib"}}, {{name: "usr/lib/os-release", body: alpineRelease}}}, "alpine 3.19.4  none dpkg 2"},
		"a file in place of a directory":     {[][]file{{{name: "var/lib", body: "x"}}}, "debian 12 bookworm glibc none 0"},
		"through a link of a lower layer":    {[][]file{{{name: "lib/x86_64-linux-gnu/.wh.libc.so.6"}}}, "debian 12 bookworm none dpkg 2"},
		"all gone":                           {[][]file{{{name: ".wh..wh..opq"}}}, "scratch   none none 0"},
		"a hard link to what lies below":     {[][]file{{{name: "etc/os-release", to: "=usr/lib/os-release"}, {name: "usr/lib/.wh.os-release"}}}, "debian   glibc dpkg 2"},
		"a directory in place of the link":   {[][]file{{{name: "lib/"}, {name: "lib/ld-musl-x86_64.so.1", body: "x"}}, {{name: ".wh.usr"}}}, "debian   musl dpkg 2"},
		"whiteouts of what was never there":  {[][]file{{{name: "lib/apk/db/.wh.installed"}, {name: "nix/.wh.store"}}}, "debian 12 bookworm glibc dpkg 2"},
		"a package database of another kind": {[][]file{{{name: "lib/apk/db/installed", body: apkInstalled}}}, "debian 12 bookworm glibc dpkg 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layers := []scan.Layer{layer(debian...)}
			for _, u := range c.upper {
				layers = append(layers, layer(u...))
			}
			img := scan.Merge(layers)
			got := fmt.Sprintf("%s %s %s %s %s %d", img.Base.ID, img.Base.Version, img.Base.Name, img.Base.Libc, img.PackageManager, img.Count)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	var status strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&status, "Package: p%05d%s\nStatus: install ok installed\nVersion: %s\n\n", i, strings.Repeat("x", 100_000/(i+1)), strings.Repeat("9", 100_000/(i+1)))
	}
	files := []file{{name: "var/lib/dpkg/status", body: status.String()}, {name: "etc/os-release", body: strings.Repeat("ID=x\n", 10_000)}}
	for i := range 10_000 {
		files = append(files, file{name: fmt.Sprintf("usr/lib/x%d-linux-gnu/libc.so.6", i), body: "x"}, file{name: fmt.Sprintf("usr/bin/%d", i), body: elf("/x"), mode: 0o755})
	}
	l := layer(files...)
	b, err := json.Marshal(l)
	if err != nil || len(b) > 3<<20 {
		t.Errorf("facts of %d bytes, %v; want 3 MiB at most", len(b), err)
	}
	if !l.Truncated {
		t.Error("Truncated is false, want true")
	}
	if img := scan.Merge([]scan.Layer{l}); img.Count != 30_000 || len(img.Packages) != 20_000 || len(img.Packages[0].Name) > 160 {
		t.Errorf("%d packages, %d of them known, the first name has %d bytes; want 30000, 20000 and 160 at most", img.Count, len(img.Packages), len(img.Packages[0].Name))
	}
}

// One layer keeps no more than a bound, however many databases it has.
func TestBoundOfManyDatabases(t *testing.T) {
	t.Parallel()
	var files []file
	for i := range 3000 {
		files = append(files, file{name: fmt.Sprintf("var/lib/dpkg/status.d/%d", i), body: fmt.Sprintf("Package: %s\nVersion: 1\n\n%s", strings.Repeat("n", 900), strings.Repeat("Package: "+strings.Repeat("m", 200)+"\nVersion: 2\n\n", 40))},
			file{name: fmt.Sprintf("usr/lib/os.release.d/%d", i), body: "NAME=" + strings.Repeat("é", 900)})
	}
	l := layer(files...)
	if b, err := json.Marshal(l); err != nil || len(b) > 3<<20 {
		t.Errorf("facts of %d bytes, %v; want 3 MiB at most", len(b), err)
	}
	if !l.Truncated {
		t.Error("Truncated is false, want true")
	}
}

func TestALightCollectorSaysWhatItMissed(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"var/lib/rpm/rpmdb.sqlite": true, "var/lib/rpm/Packages": false, "etc/os-release": false} {
		c := scan.NewLightCollector()
		c.Entry(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 5})
		c.Layer()
		if got := c.Missed(); got != want {
			t.Errorf("%s: Missed() = %v, want %v", name, got, want)
		}
	}
}
