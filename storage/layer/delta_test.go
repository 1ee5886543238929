package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// memory is a Spool of a test.
type memory struct {
	bytes.Buffer
	most int // that it has ever held
	err  error
}

func (m *memory) Write(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	defer func() { m.most = max(m.most, m.Len()) }()
	return m.Buffer.Write(p)
}

func (m *memory) Mark() int64 { return int64(m.Len()) }

func (m *memory) Rewind(at int64) error {
	m.Truncate(int(at))
	return nil
}

// deltaOf is the layer that makes export of the base; nil where nothing differs.
func deltaOf(tb testing.TB, export []byte, base ...[]byte) ([]byte, Stats, error) {
	tb.Helper()
	spool := &memory{}
	d := NewDelta(treeOf(tb, base...), spool, nil)
	defer d.Abandon()
	if _, err := io.CopyBuffer(struct{ io.Writer }{d}, struct{ io.Reader }{bytes.NewReader(export)}, make([]byte, 4096)); err != nil {
		return nil, Stats{}, err
	}
	if err := d.Close(); err != nil {
		return nil, Stats{}, err
	}
	for _, l := range d.Missing() {
		if err := d.Supply(l, bytes.NewReader(base[l])); err != nil {
			return nil, Stats{}, err
		}
	}
	if d.Empty() {
		return nil, d.Stats(), nil
	}
	var out bytes.Buffer
	err := d.WriteLayer(&out, bytes.NewReader(spool.Bytes()))
	return out.Bytes(), d.Stats(), err
}

func mustDelta(tb testing.TB, export []byte, base ...[]byte) ([]byte, Stats) {
	tb.Helper()
	delta, stats, err := deltaOf(tb, export, base...)
	if err != nil {
		tb.Fatalf("Delta: %v", err)
	}
	if delta != nil {
		checkDelta(tb, delta)
	}
	return delta, stats
}

// checkDelta checks the form of a delta: what Docker needs to unpack it by
// itself, and its order.
func checkDelta(tb testing.TB, delta []byte) {
	tb.Helper()
	seen := map[string]byte{}
	for _, e := range unpack(tb, delta) {
		p := CleanPath(e.h.Name)
		if parent := path.Dir(p); parent != "." && seen[parent] != tar.TypeDir {
			tb.Errorf("%s comes before its parent", p)
		}
		if _, twice := seen[p]; twice {
			tb.Errorf("%s comes twice", p)
		}
		seen[p] = e.h.Typeflag
		if target, there := seen[e.h.Linkname]; e.h.Typeflag == tar.TypeLink && (!there || target == tar.TypeDir) {
			tb.Errorf("%s is a hard link to %s, which is not in the delta before it", p, e.h.Linkname)
		}
		if IsMarker(p) && (e.h.Typeflag != tar.TypeReg || e.h.Size != 0) {
			tb.Errorf("the marker %s has a content", p)
		}
	}
}

// names are the entries of a layer, with the kinds of those that are no file.
func names(tb testing.TB, plain []byte) string {
	tb.Helper()
	var list []string
	for _, e := range unpack(tb, plain) {
		s := e.h.Name
		if e.h.Typeflag == tar.TypeLink {
			s += "=" + e.h.Linkname
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func later(i item) item {
	return i.with(func(h *tar.Header) { h.ModTime = h.ModTime.Add(time.Minute) })
}

func TestWhatIsInADelta(t *testing.T) {
	t.Parallel()
	plus := func(i item, d time.Duration) item {
		return i.with(func(h *tar.Header) { h.ModTime, h.Format = h.ModTime.Add(d), tar.FormatPAX })
	}
	capable := func(i item, capability string) item {
		return i.with(func(h *tar.Header) { h.PAXRecords = map[string]string{CapabilityRecord: capability} })
	}
	moded := func(i item, mode int64) item { return i.with(func(h *tar.Header) { h.Mode = mode }) }
	device := func(minor int64) item {
		return item{Header: tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: minor}}
	}
	const v2, v3 = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	hard := func(name, target string) item { return link(tar.TypeLink, name, target) }
	soft := func(name, target string) item { return link(tar.TypeSymlink, name, target) }
	for name, c := range map[string]struct {
		base, export []item
		want         string
	}{
		"nothing differs":                    {[]item{dir("d"), file("d/a", "1")}, []item{dir("d/"), file("d/a", "1")}, ""},
		"a new file":                         {[]item{dir("d")}, []item{dir("d"), file("d/a", "1")}, "d/ d/a"},
		"other content of the same size":     {[]item{file("a", "1")}, []item{file("a", "2")}, "a"},
		"only the time":                      {[]item{file("a", "1")}, []item{later(file("a", "1"))}, "a"},
		"less than a second":                 {[]item{plus(file("a", "1"), 999_999_999)}, []item{file("a", "1")}, ""},
		"less than a second on both sides":   {[]item{plus(file("a", "1"), 5)}, []item{plus(file("a", "1"), 6)}, "a"},
		"the time of a directory":            {[]item{dir("d")}, []item{later(dir("d"))}, ""},
		"the mode of a directory":            {[]item{dir("d"), file("d/a", "1")}, []item{moded(dir("d"), 0o700), file("d/a", "1")}, "d/"},
		"bits of the type in the mode":       {[]item{file("a", "1")}, []item{moded(file("a", "1"), 0o100644)}, ""},
		"setuid":                             {[]item{file("a", "1")}, []item{moded(file("a", "1"), 0o4644)}, "a"},
		"an owner's number":                  {[]item{file("a", "1")}, []item{file("a", "1").with(func(h *tar.Header) { h.Gid = 3_000_000 })}, "a"},
		"an owner's name":                    {[]item{file("a", "1")}, []item{file("a", "1").with(func(h *tar.Header) { h.Uname = "root" })}, ""},
		"the mode of a symlink":              {[]item{soft("s", "a")}, []item{moded(soft("s", "a"), 0o644)}, ""},
		"a symlink's target":                 {[]item{soft("s", "a")}, []item{soft("s", "./a")}, "s"},
		"a device's number":                  {[]item{device(3)}, []item{device(5)}, "d/ d/null"},
		"a capability":                       {[]item{file("a", "1")}, []item{capable(file("a", "1"), v2)}, "a"},
		"a capability that is gone":          {[]item{capable(file("a", "1"), v2)}, []item{file("a", "1")}, "a"},
		"a capability of two revisions":      {[]item{capable(file("a", "1"), v3)}, []item{capable(file("a", "1"), v2)}, ""},
		"another attribute":                  {[]item{file("a", "1").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "1"} })}, []item{file("a", "1")}, ""},
		"a file that is gone":                {[]item{dir("d"), file("d/a", "1"), file("d/b", "2")}, []item{dir("d"), file("d/b", "2")}, "d/ d/.wh.a"},
		"a directory that is gone":           {[]item{dir("d"), file("d/e/a", "1"), file("d/e/b", "2")}, []item{dir("d")}, "d/ d/.wh.e"},
		"a directory that is emptied":        {[]item{file("d/a", "1"), file("d/b", "2")}, []item{dir("d")}, "d/ d/.wh.a d/.wh.b"},
		"a file that is a directory":         {[]item{file("a", "1")}, []item{dir("a"), file("a/b", "2")}, "a/ a/b"},
		"a directory that is a file":         {[]item{file("a/b", "1")}, []item{file("a", "2")}, "a"},
		"a directory that is a symlink":      {[]item{file("lib/b", "1"), dir("usr/lib")}, []item{soft("lib", "usr/lib"), dir("usr/lib")}, "lib"},
		"what is gone comes first":           {[]item{file("d/b", "1")}, []item{dir("d"), file("d/a", "2")}, "d/ d/.wh.b d/a"},
		"a new empty directory":              {nil, []item{dir("srv"), dir("srv/data")}, "srv/ srv/data/"},
		"names that are no UTF-8":            {[]item{file("\xe4", "1")}, []item{file("\xe5", "1")}, ".wh.\xe4 \xe5"},
		"a hard link to an old file":         {[]item{file("bin/cat", "1")}, []item{dir("bin"), file("bin/cat", "1"), hard("bin/cat.hard", "bin/cat")}, "bin/ bin/cat bin/cat.hard=bin/cat"},
		"a hard link before an old name":     {[]item{file("b", "1")}, []item{file("a", "1"), hard("b", "a")}, "a b=a"},
		"links by other first names":         {[]item{file("a", "1"), hard("b", "a")}, []item{file("b", "1"), hard("a", "b")}, ""},
		"links that are files of their own":  {[]item{file("a", "1"), hard("b", "a")}, []item{file("a", "1"), file("b", "1")}, ""},
		"files that are links":               {[]item{file("a", "1"), file("b", "1")}, []item{file("a", "1"), hard("b", "a")}, ""},
		"one of two links is new":            {[]item{file("a", "1"), hard("b", "a")}, []item{file("a", "2"), file("b", "1")}, "a"},
		"links of which both are new":        {[]item{file("a", "1"), hard("b", "a")}, []item{file("a", "2"), hard("b", "a")}, "a b=a"},
		"two links out of one":               {[]item{file("a", "1"), hard("b", "a")}, []item{file("a", "1"), hard("a2", "a"), file("b", "1"), hard("b2", "b")}, "a a2=a b b2=b"},
		"a hard link to a symlink":           {nil, []item{soft("a", "x"), hard("b", "a")}, "a b=a"},
		"a fifo":                             {nil, []item{{Header: tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o600}}}, "p"},
		"no entries of directories":          {[]item{moded(dir("d"), 0o700), file("d/a", "1")}, []item{file("d/a", "1"), file("e/b", "1")}, "e/ e/b"},
		"a parent without an entry":          {[]item{moded(dir("d"), 0o700), file("d/a", "1")}, []item{file("d/a", "2")}, "d/ d/a"},
		"the last of two entries":            {[]item{file("a", "2")}, []item{file("a", "1"), file("a", "2")}, ""},
		"an old entry that something is for": {[]item{file("a", "1")}, []item{file("a", "1"), hard("b", "a"), file("a", "2")}, "a b"},
		"the engine's files": {nil, []item{
			file(".dockerenv", ""), dir("dev"), file("dev/console", ""), dir("dev/pts"), dir("dev/shm"), dir("etc"), file("etc/hostname", ""),
			file("etc/hosts", ""), soft("etc/mtab", "/proc/mounts"), file("etc/resolv.conf", ""), dir("proc"), dir("sys"), dir("run"), file("run/.containerenv", ""),
		}, ""},
		"the engine's files over the image's": {
			[]item{file("etc/hosts", "127.0.0.1"), soft("etc/mtab", "../proc/mounts"), file("dev/shm/x", "1"), soft("etc/resolv.conf", "x")},
			[]item{dir("etc"), file("etc/hosts", ""), soft("etc/mtab", "/proc/mounts"), dir("dev"), dir("dev/shm"), file("etc/resolv.conf", "")},
			"",
		},
		"what only has the engine's names": {nil, []item{
			dir("etc"), file("etc/hosts", "mine"), soft("etc/mtab", "/mine"), dir("dev"), dir("dev/shm"), file("dev/shm/x", "1"), dir("run"),
		}, "dev/ dev/shm/ dev/shm/x etc/ etc/hosts etc/mtab run/"},
	} {
		delta, _, err := deltaOf(t, pack(c.export...), pack(c.base...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if delta != nil {
			checkDelta(t, delta)
		}
		if got := names(t, delta); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestADirectoryWithoutAnEntryKeepsTheBasesMode(t *testing.T) {
	t.Parallel()
	base := pack(dir("d").with(func(h *tar.Header) { h.Mode, h.Uid = 0o750, 7 }), file("d/a", "1"))
	delta, _ := mustDelta(t, pack(file("d/a", "2")), base)
	if h := unpack(t, delta)[0].h; h.Name != "d/" || h.Mode != 0o750 || h.Uid != 7 {
		t.Errorf("the parent = %+v, want the base's", h)
	}
}

func TestTheFiguresOfADelta(t *testing.T) {
	t.Parallel()
	base := pack(file("etc/hosts", "x"), file("a", "1"), file("b", "2"), file("c/d", "3"), file("c/e", "4"), link(tar.TypeLink, "b2", "b"))
	export := pack(dir("etc"), file("etc/hosts", ""), later(file("a", "1")), file("b", "two"), file("n/new", "5"), file("b2", "2"))
	_, got := mustDelta(t, export, base)
	if want := (Stats{BaseFiles: 6, Kept: 3, Added: 2, Changed: 2, Deleted: 1}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestExportsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, export := range map[string][]byte{
		"a whiteout":         pack(file("etc/.wh.keep", "")),
		"an opaque marker":   pack(file("srv/.wh..wh..opq", "")),
		"below a whiteout":   pack(file("a/.wh.b/c", "")),
		"a directory as one": pack(dir(".wh.x")),
		// archive/tar writes neither of these.
		"a sparse file":            bytes.Replace(withRecord("VND.sparse.x"), []byte("VND.sparse.x"), []byte("GNU.sparse.x"), 1),
		"a number no tar can have": largeDevice(withRecord(CapabilityRecord)),
		"a tar that is cut off":    pack(file("a", noise(3000)))[:2000],
		"a tar without its end":    pack(file("a", "1"), file("b", "2"))[:2*BlockSize],
		"nothing":                  {},
		"no tar":                   []byte(noise(5000)),
		"two archives":             append(pack(file("a", "1")), pack(file("a", "1"))...),
		"a hard link to nothing":   pack(link(tar.TypeLink, "a", "b")),
		"a hard link that is late": pack(link(tar.TypeLink, "a", "b"), file("b", "1")),
		"a path too long":          pack(file(strings.Repeat("a/", 3000)+"b", "")),
	} {
		_, _, err := deltaOf(t, export)
		if _, ok := errors.AsType[*ExportError](err); !ok {
			t.Errorf("%s: error = %v, want an ExportError", name, err)
		}
	}
}

// TestABrokenExportIsNotReadOn: there can be gigabytes to come.
func TestABrokenExportIsNotReadOn(t *testing.T) {
	t.Parallel()
	for name, export := range map[string][]byte{"no tar": []byte(noise(5000)), "a whiteout": pack(file(".wh.a", ""), file("b", noise(5000)))} {
		d := NewDelta(NewTree(), &memory{}, nil)
		defer d.Abandon()
		_, err := d.Write(export[:2048])
		if _, ok := errors.AsType[*ExportError](err); !ok {
			t.Errorf("%s: Write = %v, want an ExportError", name, err)
		}
	}
}

func TestAWatcherSeesTheExport(t *testing.T) {
	t.Parallel()
	c := &tape{want: func(h *tar.Header) bool { return h.Name == "b" }, got: map[string]*bytes.Buffer{}}
	d := NewDelta(NewTree(), &memory{}, c)
	_, err := d.Write(pack(dir("a"), file("b", "content"), file("c", "x")))
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	if got := c.got["b"].String(); got != "content" || !slices.Equal(c.names, []string{"a/", "b", "c"}) && !slices.Equal(c.names, []string{"a", "b", "c"}) {
		t.Errorf("it saw %v and %q", c.names, got)
	}
}

func withRecord(key string) []byte {
	return pack(file("a", "x").with(func(h *tar.Header) { h.PAXRecords = map[string]string{key: "1"} }))
}

// largeDevice makes a device of the last entry, which is a file of one block, with
// a number as GNU tar writes large ones: no PAX record can have it.
func largeDevice(plain []byte) []byte {
	h := plain[len(plain)-4*BlockSize:][:BlockSize]
	h[156] = tar.TypeChar
	copy(h[124:136], "00000000000\x00")
	copy(h[329:337], "\x80\x00\x00\x7f\xff\xff\xff\xff")
	sum := int64(8 * ' ')
	for i, b := range h {
		if i < 148 || i >= 156 {
			sum += int64(b)
		}
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(plain[:len(plain)-3*BlockSize], make([]byte, 2*BlockSize)...)
}

func TestASpoolThatFailsEndsTheDelta(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	d := NewDelta(NewTree(), &memory{err: full}, nil)
	defer d.Abandon()
	if _, err := d.Write(pack(file("a", noise(3000)))); !errors.Is(err, full) {
		t.Errorf("Write = %v, want the spool's error", err)
	}
	if err := d.Close(); !errors.Is(err, full) {
		t.Errorf("Close = %v, want the spool's error", err)
	}
}

// TestABaseThatChangedUnderItsIndexIsNoticed: Supply compares what it copies.
func TestABaseThatChangedUnderItsIndexIsNoticed(t *testing.T) {
	t.Parallel()
	base := pack(file("a", "1"))
	for name, read := range map[string][]byte{"another": pack(file("a", "2")), "a short one": base[:512]} {
		d := NewDelta(treeOf(t, base), &memory{}, nil)
		_, err := d.Write(pack(file("a", "1"), link(tar.TypeLink, "b", "a")))
		if err = errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		if got := d.Missing(); !slices.Equal(got, []int{0}) {
			t.Fatalf("Missing = %v, want the layer", got)
		}
		if err := d.Supply(0, bytes.NewReader(read)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOnlyWhatIsNewStaysInTheSpool(t *testing.T) {
	t.Parallel()
	big := noise(100_000)
	base := pack(file("a", big), file("b", big), file("c", big))
	spool := &memory{}
	d := NewDelta(treeOf(t, base), spool, nil)
	_, err := io.CopyBuffer(struct{ io.Writer }{d}, bytes.NewReader(pack(file("a", big), file("b", "new"), file("c", big), file("d", "more"))), make([]byte, 1000))
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	if got := spool.String(); got != "newmore" {
		t.Errorf("the spool has %d bytes: %.20q", len(got), got)
	}
}

// FuzzDelta takes anything for an export: an ExportError, or a layer that makes
// the export of the base.
func FuzzDelta(f *testing.F) {
	base := pack(dir("d"), file("d/a", "1"), file("d/b", "2"), link(tar.TypeLink, "c", "d/a"), link(tar.TypeSymlink, "s", "d"))
	f.Add(base)
	f.Add(variety())
	f.Add(pack(file("d/a", "1"), link(tar.TypeLink, "e", "d/a"), file("d", "x"), file("s/x", "y"), file("d/a", "2")))
	f.Fuzz(func(t *testing.T, export []byte) {
		delta, _, err := deltaOf(t, export, base)
		if err != nil {
			if _, ok := errors.AsType[*ExportError](err); !ok {
				t.Errorf("error = %v, want an ExportError", err)
			}
			return
		}
		layers := [][]byte{base}
		if delta != nil {
			checkDelta(t, delta)
			layers = append(layers, delta)
		}
		again, _, err := deltaOf(t, export, layers...)
		if err != nil || again != nil {
			t.Errorf("a second delta has %d bytes, %v", len(again), err)
		}
	})
}

// BenchmarkDelta compares a system of 20,000 files with one in which few differ.
func BenchmarkDelta(b *testing.B) {
	var before, after []item
	for i := range 20_000 {
		name, body := fmt.Sprintf("usr/lib/module-%02d/part-%03d/file-%d", i/2000, i/50, i), noise(1000+i%50_000)
		before = append(before, file(name, body))
		switch {
		case i%1000 == 0:
			after = append(after, file(name, "new"))
		case i%1000 != 1:
			after = append(after, file(name, body))
		}
	}
	base, export := treeOf(b, pack(before...)), pack(after...)
	b.SetBytes(int64(len(export)))
	b.ReportAllocs()
	for b.Loop() {
		spool := &memory{}
		d := NewDelta(base, spool, nil)
		_, err := io.CopyBuffer(struct{ io.Writer }{d}, struct{ io.Reader }{bytes.NewReader(export)}, make([]byte, 256<<10))
		if err = errors.Join(err, d.Close()); err == nil {
			err = d.WriteLayer(io.Discard, bytes.NewReader(spool.Bytes()))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
