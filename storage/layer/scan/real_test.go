package scan_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/storage/layer/scan"
)

// These tests read file systems that nobody wrote for them.

// The test's own binary is a static Go program; an image of it and nothing else
// is what FROM scratch makes.
func TestAGoProgramOnScratch(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("programs here are not ELF")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	l := layer(file{name: "server", body: string(program), mode: 0o755})
	if got, want := scan.Merge([]scan.Layer{l}).Base, (scan.Base{ID: "scratch", Libc: "none"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(l.Marks) != 1 || l.Marks[0].Program == nil {
		t.Errorf("the program was not read: %+v", l.Marks)
	}
}

// A root file system as the image of BusyBox has it: one static program with
// hard links.
func TestTheBusyBoxOfThisMachine(t *testing.T) {
	t.Parallel()
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox: install busybox-static")
	}
	program, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	got := scan.Merge([]scan.Layer{layer(
		file{name: "bin/"}, file{name: "bin/[", body: string(program), mode: 0o755},
		file{name: "bin/busybox", to: "=bin/["}, file{name: "bin/sh", to: "=bin/["}, file{name: "etc/passwd", body: "root:x:0:0:::\n"},
	)})
	out, err := exec.CommandContext(t.Context(), box).CombinedOutput() // BusyBox v1.35.0 (Debian …) multi-call binary.
	if err != nil {
		t.Fatalf("%s: %v\n%s", box, err, out)
	}
	_, version, _ := strings.Cut(string(out), "BusyBox v")
	version, _, _ = strings.Cut(version, " ")
	if want := (scan.Base{ID: "busybox", Version: version, Libc: "none"}); got.Base != want {
		t.Errorf("got %+v, want %+v", got.Base, want)
	}
}

// testdata/debian-12-slim.tar.gz is what TestDebianFromItsMirror downloads, of
// November 2026: all of etc and of dpkg's database, 1 KiB of each program, and
// of other files their names.
func TestDebianThatDebiansOwnToolMade(t *testing.T) {
	t.Parallel()
	wantSlimDebian(t, bytes.NewReader(gunzip(t, "testdata/debian-12-slim.tar.gz")))
}

// A slim Debian of today, made by Debian's own tool from its packages: some
// 60 MB, which is why it has to be asked for.
func TestDebianFromItsMirror(t *testing.T) {
	t.Parallel()
	if os.Getenv("TARPORT_TEST_MIRROR") == "" {
		t.Skip("downloads Debian's packages with TARPORT_TEST_MIRROR=1 only, as root, with mmdebstrap; TestDebianThatDebiansOwnToolMade has the same without a network")
	}
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--quiet", "--mode=root", "--variant=essential",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright", "--format=tar", "bookworm", "-")
	var root, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &root, &words
	if err := cmd.Run(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, words.String())
	}
	wantSlimDebian(t, &root)
}

func wantSlimDebian(t *testing.T, root io.Reader) {
	t.Helper()
	got := scan.Merge([]scan.Layer{scanTar(t, root)})
	if want := (scan.Base{ID: "debian", Version: "12", Name: "bookworm", Libc: "glibc", Slim: true}); got.Base != want {
		t.Errorf("got %+v, want %+v", got.Base, want)
	}
	if got.PackageManager != "dpkg" || got.Count < 50 || got.Count != len(got.Packages) {
		t.Errorf("%s with %d packages, %d of them known; want dpkg with at least 50", got.PackageManager, got.Count, len(got.Packages))
	}
	for _, name := range []string{"base-files", "bash", "dpkg", "libc6"} {
		if !slices.ContainsFunc(got.Packages, func(p scan.Package) bool { return p.Name == name && p.Version != "" }) {
			t.Errorf("%s is not among the packages", name)
		}
	}
}

// testdata/rpmdb.sqlite.gz was written by rpm 4.18: 40 packages installed and
// two of them, pack-07 and pack-30, removed.
func TestTheDatabaseOfRPM(t *testing.T) {
	t.Parallel()
	got := scan.Merge([]scan.Layer{layer(
		file{name: "etc/os-release", body: "ID=\"anolis\"\nVERSION_ID=\"23\"\n"}, file{name: "usr/lib/sysimage/rpm/rpmdb.sqlite", body: string(gunzip(t, "testdata/rpmdb.sqlite.gz"))})})
	if got.Base.ID != "anolis" || got.PackageManager != "rpm" || got.Count != 38 || len(got.Packages) != 38 {
		t.Fatalf("%s, %s with %d packages, %d of them known; want anolis, rpm with 38", got.Base.ID, got.PackageManager, got.Count, len(got.Packages))
	}
	want := []scan.Package{{Name: "pack-00", Version: "1.0-0.an8"}, {Name: "pack-01", Version: "1.1-1.an8"}, {Name: "pack-02", Version: "1.2-2.an8"}, {Name: "pack-03", Version: "3:1.3-3.an8"}}
	if diff := cmp.Diff(want, got.Packages[:4]); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if last := got.Packages[37]; last != (scan.Package{Name: "pack-39", Version: "1.39-39.an8"}) {
		t.Errorf("the last package is %+v", last)
	}
}

func gunzip(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

// TARPORT_TEST_ROOTFS names a directory of root file systems, x.tar or
// x.tar.gz each, with what they are in x.json: an Image without its packages.
// Those of real distributions are too large, or not ours, to lie here.
func TestRootFileSystems(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("TARPORT_TEST_ROOTFS")
	if dir == "" {
		t.Skip("TARPORT_TEST_ROOTFS is not set")
	}
	expectations, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(expectations) == 0 {
		t.Fatalf("no x.json in %s: %v", dir, err)
	}
	for _, name := range expectations {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var want scan.Image
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			got := scan.Merge([]scan.Layer{scanTar(t, open(t, strings.TrimSuffix(name, ".json")))})
			if got.Count != len(got.Packages) {
				t.Errorf("%d packages, %d of them known", got.Count, len(got.Packages))
			}
			got.Packages = nil
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func open(t *testing.T, name string) io.Reader {
	t.Helper()
	f, err := os.Open(name + ".tar")
	if errors.Is(err, os.ErrNotExist) {
		return bytes.NewReader(gunzip(t, name+".tar.gz"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Whatever a database is made of, reading it ends, and finds no more than a
// bound.
func FuzzCollector(f *testing.F) {
	paths := []string{
		"etc/os-release", "lib/apk/db/installed", "var/lib/dpkg/status", "var/lib/rpm/Packages", "var/lib/rpm/Packages.db",
		"var/lib/rpm/rpmdb.sqlite", "bin/sh", "etc/alpine-release", "etc/dpkg/dpkg.cfg", "var/lib/rpmmanifest/container-manifest-2",
	}
	for i, seed := range []string{bookwormRelease, apkInstalled, dpkgStatus, bdb(), ndb(), "", elf("/lib/ld-musl-x86_64.so.1"), "3.19.1\n", "path-exclude /usr/share/doc/*\n", "a\tb\tc\n"} {
		f.Add(i, []byte(seed))
	}
	f.Add(5, gunzip(f, "testdata/rpmdb.sqlite.gz")[:64<<10])
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		p := paths[uint(which)%uint(len(paths))]
		l := layer(file{name: p, body: string(body), mode: 0o755}, file{name: string(body[:min(len(body), 100)]), to: p}, file{name: "etc/.wh." + string(body[:min(len(body), 9)])})
		img := scan.Merge([]scan.Layer{l, l})
		if len(img.Packages) > 2*20_000 || img.Base.ID == "" {
			t.Errorf("%d packages, base %+v", len(img.Packages), img.Base)
		}
	})
}

func BenchmarkCollector(b *testing.B) {
	// What a layer of many small files costs: headers, nearly all of which
	// nobody wants.
	var headers []*tar.Header
	for _, dir := range []string{"usr/share/doc/package/", "usr/lib/python3/dist-packages/module/", "opt/app/node_modules/one/lib/", "usr/bin/", "var/lib/dpkg/info/"} {
		for i := range 2000 {
			headers = append(headers, &tar.Header{Name: dir + strings.Repeat("n", i%30), Typeflag: tar.TypeReg, Mode: 0o644})
		}
	}
	for b.Loop() {
		c := scan.NewCollector()
		for _, h := range headers {
			c.Entry(h)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(headers)), "ns/entry")
}
