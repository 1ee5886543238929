package archive

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// bad is an archive that must be refused.
type bad struct {
	name string
	body []byte
	code tarport.Code // ARCHIVE_INVALID where empty
	want string       // in the message
	q    func(*LoadRequest)
}

// small are limits that make a bomb of little.
func small(o *Options) {
	o.Limits = Limits{
		Archive: 8 << 20, Unpacked: 4 << 20, Layer: 1 << 20, Ratio: 50, RatioFrom: 256 << 10, Window: 8 << 20,
		Entries: 300, Layers: 60, Memory: 1 << 20, JSON: 64 << 10, ManifestJSON: 128 << 10,
		Images: 20, LayersPerImage: 10, Names: 30, IndexDepth: 4,
	}
}

// TestBadArchivesAreRefusedAndLeaveNothing sends an archive of every class of
// abuse, and looks at files and tables after each.
func TestBadArchivesAreRefusedAndLeaveNothing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, small)
	before := reg.state(t)
	var cases []bad
	for _, class := range [][]bad{
		badStreams(), badBombs(), badHeaders(), badEntries(), badNames(), badLinks(), badDuplicates(), badManifests(),
		badTags(), badConfigs(), badLayers(), badV1(), badOCI(), badIndexes(), badPairs(), badParameters(),
	} {
		cases = append(cases, class...)
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.name] {
			t.Fatalf("two cases %s", c.name)
		}
		seen[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			code := c.code
			if code == "" {
				code = tarport.ArchiveInvalid
			}
			q := c.q
			if q == nil {
				q = func(*LoadRequest) {}
			}
			_, err := reg.load(t, c.body, q)
			e, ok := errors.AsType[*tarport.Error](err)
			if !ok || e.Code != code || !strings.Contains(e.Message, c.want) {
				t.Errorf("Load = %v, want %s about %q", err, code, c.want)
			}
			if status := code.Status(); status < 400 || status > 499 {
				t.Errorf("status %d, want 4xx", status)
			}
			after := reg.state(t)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("something is left (-before +after):\n%s", diff)
			}
			before = after // one case that fails is enough
		})
	}
	reg.mustLoad(t, docker("a/b:1", layerOf("good")).pack()) // the registry that saw all this still works
}

func badStreams() []bad {
	good := docker("a/b:1", layerOf("x")).pack()
	wrong := gz(good)
	wrong[len(wrong)-6] ^= 1 // in the CRC
	short := gz(good)
	zwrong := zst(good)
	zwrong[len(zwrong)-1] ^= 1
	two := append(bytes.Clone(good), good...)
	lone := append(bytes.Clone(good[:len(good)-1024]), make([]byte, 512)...)
	return []bad{
		{name: "stream-empty", want: "empty"},
		{name: "stream-one-byte", body: []byte{0}, want: "only 1 bytes"},
		{name: "stream-text", body: []byte("hello, this is not a tar\n"), want: "only 25 bytes"},
		{name: "stream-noise", body: []byte(noise(4096)), want: "not a tar archive"},
		{name: "stream-html", body: []byte("<html><body>502 Bad Gateway</body></html>" + strings.Repeat(" ", 600)), want: "text"},
		{name: "stream-json", body: []byte(`{"errors":[]}`), want: "text"},
		{name: "stream-zip", body: append([]byte("PK\x03\x04"), noise(2000)...), want: "zip"},
		{name: "stream-7z", body: append([]byte("7z\xbc\xaf\x27\x1c"), noise(2000)...), want: "7z"},
		{name: "stream-lz4", body: append([]byte{0x04, 0x22, 0x4d, 0x18}, noise(2000)...), want: "lz4"},
		{name: "stream-zeros", body: make([]byte, 10240), want: "no file"},
		{name: "stream-gzip-of-nothing", body: gz(nil), want: "empty"},
		{name: "stream-gzip-of-text", body: gz([]byte(noise(5000))), want: "not a tar archive"},
		{name: "stream-gzip-twice", body: gz(gz(good)), want: "compressed twice"},
		{name: "stream-gzip-in-zstd", body: zst(gz(good)), want: "compressed twice"},
		{name: "stream-gzip-magic-only", body: []byte{0x1f, 0x8b, 0x08}, want: "gzip"},
		{name: "stream-gzip-crc", body: wrong, want: "checksum"},
		{name: "stream-gzip-trailer-cut", body: short[:len(short)-4], want: "cut off"},
		{name: "stream-gzip-garbage-behind", body: append(gz(good), "garbage behind the end"...), want: "gzip header"},
		{name: "stream-gzip-name-without-end", body: append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255}, noise(100_000)...), want: "gzip"},
		{name: "stream-zstd-checksum", body: zwrong, want: "zstd"},
		{name: "stream-zstd-cut", body: zst(good)[:200], want: "cut off"},
		{name: "stream-zstd-magic-only", body: []byte{0x28, 0xb5, 0x2f, 0xfd}, want: "cut off"},
		{name: "stream-zstd-skippable-only", body: []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 'a', 'b', 'c', 'd'}, want: "empty"},
		{name: "stream-xz-magic-only", body: []byte("\xfd7zXZ\x00"), want: "xz"},
		{name: "stream-xz-noise", body: append([]byte("\xfd7zXZ\x00"), noise(3000)...), want: "xz"},
		{name: "stream-bzip2-noise", body: append([]byte("BZh9\x31\x41\x59\x26\x53\x59"), noise(3000)...), want: "bzip2"},
		{name: "stream-two-archives", body: two, want: "after the end"},
		{name: "stream-garbage-behind", body: append(bytes.Clone(good), noise(700)...), want: "after the end"},
		{name: "stream-lone-zero-block", body: append(lone, good[:512]...), want: "tar"},
	}
}

func badBombs() []bad {
	big := make([]byte, 5<<20)
	bomb := func(layer []byte) []byte { // a layer that is compressed already
		d := docker("a/b:1", layerOf("x"))
		d.files[d.layer(0)] = layer
		return d.pack()
	}
	zeroLayer := pack(reg("zeros", make([]byte, 900<<10)))
	return []bad{
		{name: "bomb-outer-gzip", body: gz(big), code: tarport.TooLarge, want: "times its size"},
		{name: "bomb-outer-zstd", body: zst(big), code: tarport.TooLarge, want: "times its size"},
		{name: "bomb-outer-total", body: zst(pack(text("n", noise(4<<20)))), code: tarport.TooLarge, want: "unpacks to more than"},
		{name: "bomb-layer-gzip-size", body: bomb(gz(pack(text("n", noise(2<<20))))), code: tarport.TooLarge, want: "unpacks to more than 1048576"},
		{name: "bomb-layer-gzip-ratio", body: bomb(gz(zeroLayer)), code: tarport.TooLarge, want: "times its size"},
		{name: "bomb-layer-zstd-ratio", body: bomb(zst(zeroLayer)), code: tarport.TooLarge, want: "times its size"},
		{name: "bomb-layer-plain", body: bomb(pack(text("n", noise(2<<20)))), code: tarport.TooLarge, want: "at most 1048576"},
		{name: "bomb-body", body: pack(text("n", noise(9<<20))), code: tarport.TooLarge, want: "larger than 8388608"},
		{name: "bomb-declared-length", body: []byte("x"), code: tarport.TooLarge, want: "at most 8388608", q: func(q *LoadRequest) { q.Size = 1 << 40 }},
		{name: "bomb-zstd-window", body: zstdWindow(1 << 30), want: "more memory"},
		{name: "bomb-layer-gzip-in-gzip", body: bomb(gz(gz(layerOf("x")))), want: "tar"},
		{name: "bomb-layer-zstd-window", body: bomb(append(zstdWindow(1<<30), make([]byte, 600)...)), want: "more memory"},
		{name: "bomb-xz-dictionary", body: xzDictionary(), want: "more memory"},
		{name: "bomb-members", body: gz(nil), want: "empty", q: func(*LoadRequest) {}},
	}
}

// zstdWindow is the header of a frame that asks for a window of n bytes
// (RFC 8878, section 3.1.1.1.2), and a block.
func zstdWindow(n int) []byte {
	exp := 0
	for 1<<(10+exp) < n {
		exp++
	}
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, byte(exp << 3)}, 0x01, 0, 0)
}

// xzDictionary is the beginning of an xz stream whose LZMA2 dictionary is
// 4 GiB (the .xz file format, section 3.1 and 5.3.1).
func xzDictionary() []byte {
	b := []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 1}
	b = binary.LittleEndian.AppendUint32(b, crc(b[6:8]))
	block := []byte{2, 0, 0x21, 1, 40, 0, 0, 0} // 12 bytes with the CRC; dictionary code 40
	block = binary.LittleEndian.AppendUint32(block, crc(block))
	return append(append(b, block...), make([]byte, 64)...)
}

func badHeaders() []bad {
	good := docker("a/b:1", layerOf("x"))
	sparse := pack(entry{name: "sparse", body: []byte("x"), pax: map[string]string{"VENDOR.x": "y"}})
	sparse = bytes.Replace(sparse, []byte("VENDOR.x=y"), []byte("GNU.sparse"), 1) // no record any more: malformed
	global := pack(append(good.entries(), entry{name: "pax_global", typ: tar.TypeXGlobalHeader, pax: map[string]string{"path": manifestName}})...)
	patch := func(fn func(header []byte)) []byte {
		b := good.pack()
		fn(b[:512])
		checksum(b[:512])
		return b
	}
	oldSparse := append([]entry{text("s", "data")}, good.entries()...)
	old := pack(oldSparse...)
	old[156] = tar.TypeGNUSparse
	copy(old[257:], "ustar  \x00")
	clear(old[386:512])
	copy(old[386:], "00000000000\x0000000000004\x00") // a map of one piece
	copy(old[483:], "00000000004\x00")                // the real size
	checksum(old[:512])
	return []bad{
		{name: "header-checksum", body: func() []byte { b := good.pack(); b[150] ^= 1; return b }(), want: "not a tar"},
		{name: "header-second-checksum", body: func() []byte { b := good.pack(); b[secondHeader(b)+150] ^= 1; return b }(), want: "tar"},
		{name: "header-size-negative", body: patch(func(h []byte) { copy(h[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }), want: "broken"},
		{name: "header-size-huge", body: patch(func(h []byte) { copy(h[124:136], "77777777777\x00") }), code: tarport.TooLarge, want: "8589934591 bytes"},
		{name: "header-size-octal", body: patch(func(h []byte) { copy(h[124:136], "zzzzzzzzzzz\x00") }), want: "tar"},
		{name: "header-size-too-long", body: patch(func(h []byte) { copy(h[124:136], "00001000000\x00") }), want: "ends early"},
		{name: "header-pax-malformed", body: sparse, want: "tar"},
		{name: "header-global-path-is-manifest", body: global, want: "manifest.json is not in the archive"},
		{name: "sparse-old-gnu", body: old, want: "sparse"},
		{name: "sparse-pax", body: paxSparse(good), want: "sparse"},
		{name: "header-pax-too-large", body: paxBomb(2 << 20), want: "tar"},
	}
}

// paxSparse is an archive whose manifest.json is a sparse file of 1 TiB. Go's
// tar.Writer does not write such records, so they are renamed behind its back.
func paxSparse(d *dockerFile) []byte {
	records := map[string]string{}
	for k, v := range map[string]string{"major": "0", "minor": "1", "size": "1099511627776", "numblocks": "1", "map": "0,2"} {
		records["XXX.sparse."+k] = v
	}
	b := pack(append(d.entries(), entry{name: manifestName, body: []byte("[]"), pax: records})...)
	return bytes.ReplaceAll(b, []byte("XXX.sparse."), []byte("GNU.sparse."))
}

// paxBomb is an entry whose PAX header is n bytes long.
func paxBomb(n int) []byte {
	b := pack(entry{name: "x", pax: map[string]string{"VENDOR.a": strings.Repeat("a", 900<<10)}})
	copy(b[124:136], fmt.Sprintf("%011o\x00", n))
	checksum(b[:512])
	return append(b, make([]byte, n)...)
}

// checksum writes the checksum of a header that was changed.
func checksum(h []byte) {
	copy(h[148:156], "        ")
	s := 0
	for _, c := range h[:512] {
		s += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", s))
}

// secondHeader is the offset of the second header of an archive.
func secondHeader(b []byte) int {
	var size int
	_, _ = fmt.Sscanf(string(b[124:135]), "%o", &size)
	return 512 + (size+511)/512*512
}

func badEntries() []bad {
	var many, layers, memory, links []entry
	for i := range 301 {
		many = append(many, entry{name: fmt.Sprintf("d%d/", i), typ: tar.TypeDir})
	}
	for i := range 61 {
		layers = append(layers, reg(fmt.Sprintf("%d.tar", i), layerOf(fmt.Sprint(i))))
	}
	for i := range 40 {
		memory = append(memory, text(fmt.Sprintf("%d.json", i), noise(60<<10)))
	}
	for i := range 299 {
		links = append(links, symlink(fmt.Sprintf("%0200d", i), strings.Repeat("x/", 2000)))
	}
	return []bad{
		{name: "entries-many", body: pack(many...), code: tarport.TooLarge, want: "entries"},
		{name: "entries-many-layers", body: pack(layers...), code: tarport.TooLarge, want: "more than 60 layers"},
		{name: "entries-memory", body: pack(memory...), code: tarport.TooLarge, want: "small files"},
		{name: "entries-links", body: pack(links...), code: tarport.TooLarge, want: "small files"},
		{name: "entries-rootfs", body: pack(text("bin/sh", "x"), text("etc/passwd", "x"), text("usr/bin/x", "x"), text("var/x", "x"), text("z", "x")), want: "use archives/import"},
		{name: "entries-only-directories", body: pack(entry{name: "blobs/", typ: tar.TypeDir}), want: "no file"},
		{name: "entries-unrelated", body: pack(text("README", "hello")), want: "neither a manifest.json nor an index.json"},
	}
}

func badNames() []bad {
	// A name that leads out is no name: the file is as if it were not there.
	at := func(path string) []byte {
		d := docker("a/b:1", layerOf("x"))
		d.files[path] = d.files[d.layer(0)]
		delete(d.files, d.layer(0))
		d.items[0]["Layers"] = []string{path}
		return d.pack()
	}
	named := func(inManifest string) []byte {
		d := docker("a/b:1", layerOf("x"))
		d.items[0]["Layers"] = []string{inManifest}
		return d.pack()
	}
	out := []bad{
		{name: "name-dotdot-entry", body: at("../../etc/cron.d/x"), want: "leads out"},
		{name: "name-dotdot-inside", body: at("a/../../x"), want: "leads out"},
		{name: "name-manifest-outside", body: pack(append(docker("a/b:1", layerOf("x")).entries(), text("../manifest.json", "[]"))...), want: "manifest.json is not"},
		{name: "name-too-long", body: at(strings.Repeat("a/", 3000) + "layer.tar"), want: "leads out"},
	}
	for i, s := range []string{"/etc/passwd", "../x", "..", ".", "", "/", "a\x00b", "blobs/sha256/../../x", "C:\\x", strings.Repeat("x", 5000)} {
		out = append(out, bad{name: fmt.Sprintf("name-in-manifest-%d", i), body: named(s), want: "layer 1 of image 1"})
	}
	return out
}

func badLinks() []bad {
	with := func(extra ...entry) []byte {
		d := docker("a/b:1", layerOf("x"))
		delete(d.files, d.layer(0))
		d.extra = extra
		return d.pack()
	}
	p := docker("a/b:1", layerOf("x")).layer(0)
	dir, _, _ := strings.Cut(p, "/")
	var chain []entry
	for i := range 12 {
		chain = append(chain, symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i+1)))
	}
	chain = append(chain, reg("l12", layerOf("x")), symlink(p, "../l0"))
	d := docker("a/b:1", layerOf("x"))
	manifest := string(toJSON(d.items))
	d.files["m.json"] = []byte(manifest)
	l := newLayout()
	l.root(l.image("amd64", layerOf("x")), "a/b:1")
	return []bad{
		{name: "link-out", body: with(symlink(p, "../../etc/passwd")), want: "leads out"},
		{name: "link-absolute", body: with(symlink(p, "/etc/passwd")), want: "is not in the archive"},
		{name: "link-hard-out", body: with(hardlink(p, "../x")), want: "leads out"},
		{name: "link-missing", body: with(symlink(p, "../gone/layer.tar")), want: "is not in the archive"},
		{name: "link-to-itself", body: with(symlink(p, "layer.tar")), want: "links"},
		{name: "link-cycle", body: with(symlink(p, "b"), symlink(dir+"/b", "layer.tar")), want: "links"},
		{name: "link-hard-cycle", body: with(hardlink(p, "b"), hardlink("b", p)), want: "links"},
		{name: "link-long-chain", body: with(chain...), want: "links"},
		{name: "link-empty", body: with(entry{name: p, typ: tar.TypeSymlink}), want: "is not in the archive"},
		{name: "link-is-manifest", body: pack(append(d.entries(), symlink(manifestName, "m.json"))...), want: "is a link"},
		{name: "link-is-index", body: pack(append(l.entries("{}")[:4], text("i.json", l.indexJSON()), symlink(indexName, "i.json"))...), want: "is a link"},
		{name: "link-is-oci-layout", body: pack(append(l.entries(l.indexJSON())[1:], symlink(layoutName, "x"))...), want: "is a link"},
		{name: "link-device-as-layer", body: with(entry{name: p, typ: tar.TypeChar}), want: "is not in the archive"},
		{name: "link-fifo-as-layer", body: with(entry{name: p, typ: tar.TypeFifo}), want: "is not in the archive"},
		{name: "link-directory-as-layer", body: with(entry{name: p + "/", typ: tar.TypeDir}), want: "is not in the archive"},
	}
}

func badDuplicates() []bad {
	d := docker("a/b:1", layerOf("x"))
	manifest := text(manifestName, string(toJSON(d.items)))
	twice := func(extra ...entry) []byte { return pack(append(d.entries(), append(extra, manifest)...)...) }
	l := newLayout()
	root := l.image("amd64", layerOf("x"))
	l.root(root, "a/b:1")
	oci := l.entries(l.indexJSON())
	return []bad{
		{name: "duplicate-manifest", body: twice(text(manifestName, "[]")), want: "two entries"},
		{name: "duplicate-manifest-dot", body: twice(text("./manifest.json", "[]")), want: "two entries"},
		{name: "duplicate-manifest-slash", body: twice(text("//manifest.json", "[]")), want: "two entries"},
		{name: "duplicate-layer", body: twice(reg(d.layer(0), layerOf("other"))), want: "two entries"},
		{name: "duplicate-layer-dot", body: twice(reg("./x/../"+d.layer(0), layerOf("other"))), want: "two entries"},
		{name: "duplicate-layer-link", body: twice(symlink(d.layer(0), "../x")), want: "two entries"},
		{name: "duplicate-link-then-layer", body: pack(append([]entry{symlink(d.layer(0), "../x")}, append(d.entries(), manifest)...)...), want: "two entries"},
		{name: "duplicate-config", body: twice(text(d.config(), "{}")), want: "two entries"},
		{name: "duplicate-link", body: func() []byte {
			d := docker("a/b:1", layerOf("x"))
			p := d.layer(0)
			d.files["l.tar"] = d.files[p]
			delete(d.files, p)
			d.extra = []entry{symlink(p, "../l.tar"), symlink(p, "../m.tar")}
			return d.pack()
		}(), want: "two entries"},
		{name: "duplicate-index", body: pack(append(oci, text(indexName, "{}"))...), want: "two entries"},
		{name: "duplicate-oci-layout", body: pack(append(oci, text(layoutName, "{}"))...), want: "two entries"},
		{name: "duplicate-blob", body: pack(append(oci, text("blobs/sha256/"+root.Digest.Encoded(), "{}"))...), want: "two entries"},
	}
}

func badManifests() []bad {
	d := docker("a/b:1", layerOf("x"))
	cfg, lay := d.config(), d.layer(0)
	raw := func(s string) []byte { return d.packWith(s) }
	var many, layers []string
	for range 21 {
		many = append(many, `{"Config":"`+cfg+`","Layers":["`+lay+`"]}`)
	}
	for range 11 {
		layers = append(layers, `"`+lay+`"`)
	}
	out := []bad{
		{name: "manifest-empty-file", body: raw(""), want: "not JSON"},
		{name: "manifest-null", body: raw("null"), want: "names no image"},
		{name: "manifest-empty-list", body: raw("[]"), want: "names no image"},
		{name: "manifest-object", body: raw("{}"), want: "not the list"},
		{name: "manifest-string", body: raw(`"x"`), want: "not the list"},
		{name: "manifest-cut", body: raw(`[{"Config":"` + cfg), want: "not JSON"},
		{name: "manifest-trailing", body: raw(string(toJSON(d.items)) + "x"), want: "not JSON"},
		{name: "manifest-bom", body: raw("\xef\xbb\xbf" + string(toJSON(d.items))), want: "not JSON"},
		{name: "manifest-null-item", body: raw("[null]"), want: "image 1"},
		{name: "manifest-empty-item", body: raw("[{}]"), want: "no Config"},
		{name: "manifest-number-item", body: raw("[1]"), want: "image 1"},
		{name: "manifest-config-number", body: raw(`[{"Config":1,"Layers":[]}]`), want: "Config"},
		{name: "manifest-config-missing", body: raw(`[{"Config":"x.json","Layers":["` + lay + `"]}]`), want: "x.json"},
		{name: "manifest-layers-string", body: raw(`[{"Config":"` + cfg + `","Layers":"` + lay + `"}]`), want: "Layers"},
		{name: "manifest-layer-missing", body: raw(`[{"Config":"` + cfg + `","Layers":["x"]}]`), want: "is not in the archive"},
		{name: "manifest-layer-empty-name", body: raw(`[{"Config":"` + cfg + `","Layers":[""]}]`), want: "layer 1"},
		{name: "manifest-too-few-layers", body: raw(`[{"Config":"` + cfg + `","Layers":[]}]`), want: "0 layers in manifest.json and 1"},
		{name: "manifest-too-many-layers", body: raw(`[{"Config":"` + cfg + `","Layers":["` + lay + `","` + lay + `"]}]`), want: "2 layers in manifest.json and 1"},
		{name: "manifest-layer-is-config", body: raw(`[{"Config":"` + cfg + `","Layers":["` + cfg + `"]}]`), want: "not a tar"},
		{name: "manifest-config-is-layer", body: raw(`[{"Config":"` + lay + `","Layers":["` + lay + `"]}]`), want: "not JSON"},
		{name: "manifest-config-is-manifest", body: raw(`[{"Config":"manifest.json","Layers":["` + lay + `"]}]`), want: "not a JSON object"},
		{name: "manifest-key-twice", body: raw(`[{"Config":"x.json","Config":"` + cfg + `","Layers":["` + lay + `"]}]`), want: "twice"},
		{name: "manifest-key-case", body: raw(`[{"config":"` + cfg + `","Layers":["` + lay + `"]}]`), want: "must be written"},
		{name: "manifest-key-kelvin", body: raw(`[{"Config":"` + cfg + `","Layer` + "ſ" + `":["` + lay + `"]}]`), want: "must be written"},
		{name: "manifest-tags-object", body: raw(`[{"Config":"` + cfg + `","RepoTags":{},"Layers":["` + lay + `"]}]`), want: "RepoTags"},
		{name: "manifest-many-images", body: raw("[" + strings.Join(many, ",") + "]"), code: tarport.TooLarge, want: "more than 20 images"},
		{name: "manifest-many-layers", body: raw(`[{"Config":"` + cfg + `","Layers":[` + strings.Join(layers, ",") + `]}]`), code: tarport.TooLarge, want: "more than 10 elements"},
		{name: "manifest-too-large", body: raw("[" + strings.Repeat(" ", 129<<10) + "]"), code: tarport.TooLarge, want: "manifest.json has"},
		{name: "manifest-deep", body: raw(strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)), want: "not JSON"},
		{name: "manifest-is-tar", body: pack(append(d.entries(), reg(manifestName, layerOf("x")))...), want: "not JSON"},
		{name: "manifest-is-gzip", body: pack(append(d.entries(), reg(manifestName, gz([]byte("[]"))))...), want: "not JSON"},
		{name: "manifest-missing", body: pack(d.entries()...), want: "was it cut off"},
		{name: "manifest-second-image-broken", body: raw(`[{"Config":"` + cfg + `","RepoTags":["a/b:1"],"Layers":["` + lay + `"]},{"Config":"` + cfg + `","RepoTags":["a/c:1"],"Layers":["gone"]}]`), want: "image 2"},
	}
	return out
}

func badTags() []bad {
	var out []bad
	for i, tag := range []string{
		"a/B:1", "a/b", "a/b:", "a/b: ", "a/b:.x", "a/b:-x", "a/b:" + strings.Repeat("x", 129), ":1", "a//b:1", "/a/b:1", "a/b/:1", "-a/b:1",
		"a/b:1:2", "a/b@sha256:x", "a b:1", "a/b:1\n", "a/b\x00:1", "ä/b:1", strings.Repeat("a", 300) + ":1", "http://a/b:1",
		strings.Repeat("0", 64) + ":1:1", strings.Repeat("f", 64), "a/b:1/../c", "a/../b:1",
	} {
		out = append(out, bad{
			name: fmt.Sprintf("tag-%02d", i), code: tarport.NameInvalid, want: "name",
			body: docker("good/one:1", layerOf("y")).add(tag, layerOf("x")).pack(),
		})
	}
	var tags []string
	for i := range 31 {
		tags = append(tags, fmt.Sprintf("a/b:%d", i))
	}
	d := docker("", layerOf("x"))
	d.items[0]["RepoTags"] = tags
	ref := newLayout()
	root := ref.image("amd64", layerOf("x"))
	root.Annotations = map[string]string{ocispec.AnnotationRefName: "v1+build"}
	return append(out,
		bad{name: "tag-too-many", body: d.pack(), code: tarport.TooLarge, want: "more than 30 elements"},
		bad{name: "tag-clash", body: docker("a/b:1", layerOf("x")).add("a/b:1", layerOf("y")).pack(), code: tarport.Invalid, want: "two images"},
		bad{name: "tag-clash-spelling", body: docker("b:1", layerOf("x")).add("docker.io/library/b:1", layerOf("y")).pack(), code: tarport.Invalid, want: "two images"},
		bad{name: "tag-clash-host", body: docker("b:1", layerOf("x")).add("reg.example.com/b:1", layerOf("y")).pack(), code: tarport.Invalid, want: "two images"},
		bad{name: "tag-clash-namespace", body: docker("team/b:1", layerOf("x")).add("b:1", layerOf("y")).pack(), code: tarport.Invalid, want: "two images"},
		bad{name: "tag-none", body: docker("", layerOf("x")).pack(), code: tarport.Invalid, want: "has no name"},
		bad{name: "tag-none-of-two", body: docker("", layerOf("x")).add("a/b:1", layerOf("y")).pack(), code: tarport.Invalid, want: "has no name"},
		bad{name: "tag-two-nameless-one-repo", body: docker("", layerOf("x")).add("", layerOf("y")).pack(), code: tarport.Invalid, want: "2 images without a name", q: func(q *LoadRequest) { q.Repository = "x" }},
		bad{name: "tag-ref-name-is-no-tag", body: ref.root(root, "").pack0(root), code: tarport.TagInvalid, want: "v1+build", q: func(q *LoadRequest) { q.Repository = "x" }},
		bad{name: "tag-name-too-long-in-namespace", body: docker(strings.Repeat("a/", 126)+"b:1", layerOf("x")).pack(), code: tarport.NameInvalid, want: "long"},
	)
}

// pack0 writes the layout with this root as it is.
func (l *layout) pack0(root ocispec.Descriptor) []byte {
	l.roots = []ocispec.Descriptor{root}
	return l.pack()
}

func badConfigs() []bad {
	layer := layerOf("x")
	id := sum(layer).String()
	rootfs := func(s string) string { return `{"os":"linux","architecture":"amd64","rootfs":` + s + `}` }
	out := []bad{{name: "config-too-large", body: docker("a/b:1", layer).setConfig([]byte(`{"a":"` + noise(70<<10) + `"}`)).pack(), want: "too large"}}
	for name, c := range map[string]struct{ body, want string }{
		"config-empty":           {"", "not JSON"},
		"config-null":            {"null", "not a JSON object"},
		"config-list":            {"[]", "not a JSON object"},
		"config-no-rootfs":       {`{"os":"linux"}`, `no "rootfs"`},
		"config-rootfs-null":     {rootfs("null"), `no "rootfs"`},
		"config-rootfs-string":   {rootfs(`"x"`), "rootfs"},
		"config-type":            {rootfs(`{"type":"other","diff_ids":["` + id + `"]}`), "not layers"},
		"config-type-missing":    {rootfs(`{"diff_ids":["` + id + `"]}`), "not layers"},
		"config-no-diff-ids":     {rootfs(`{"type":"layers"}`), "0 in its config"},
		"config-diff-ids-string": {rootfs(`{"type":"layers","diff_ids":"` + id + `"}`), "diff_ids"},
		"config-diff-id-wrong":   {rootfs(`{"type":"layers","diff_ids":["` + sum([]byte("y")).String() + `"]}`), "diffID"},
		"config-diff-id-upper":   {rootfs(`{"type":"layers","diff_ids":["` + strings.ToUpper(id) + `"]}`), "diffID 0"},
		"config-diff-id-bare":    {rootfs(`{"type":"layers","diff_ids":["` + sum(layer).Encoded() + `"]}`), "diffID 0"},
		"config-diff-id-empty":   {rootfs(`{"type":"layers","diff_ids":[""]}`), "diffID 0"},
		"config-diff-id-short":   {rootfs(`{"type":"layers","diff_ids":["sha256:abc"]}`), "diffID 0"},
		"config-diff-id-path":    {rootfs(`{"type":"layers","diff_ids":["sha256:../../etc"]}`), "diffID 0"},
		"config-diff-id-md5":     {rootfs(`{"type":"layers","diff_ids":["md5:d41d8cd98f00b204e9800998ecf8427e"]}`), "diffID 0"},
		"config-diff-id-sha512":  {rootfs(`{"type":"layers","diff_ids":["` + digest.SHA512.FromBytes(layer).String() + `"]}`), "diffID 0"},
		"config-diff-id-number":  {rootfs(`{"type":"layers","diff_ids":[1]}`), "diff_ids"},
		"config-diff-ids-many":   {rootfs(`{"type":"layers","diff_ids":["` + strings.Repeat(id+`","`, 10) + id + `"]}`), "more than 10 elements"},
		"config-rootfs-case":     {`{"os":"linux","RootFS":{"type":"layers","diff_ids":["` + id + `"]}}`, "must be written"},
		"config-rootfs-twice":    {`{"rootfs":{"type":"layers","diff_ids":["` + sum([]byte("y")).String() + `"]},"rootfs":{"type":"layers","diff_ids":["` + id + `"]}}`, "twice"},
		"config-rootfs-both":     {`{"rootfs":{"type":"layers","diff_ids":["` + id + `"]},"RootFS":{"type":"layers","diff_ids":[]}}`, "must be written"},
		"config-diff-ids-case":   {rootfs(`{"type":"layers","Diff_IDs":["` + id + `"]}`), "must be written"},
		"config-diff-ids-twice":  {rootfs(`{"type":"layers","diff_ids":[],"diff_ids":["` + id + `"]}`), "twice"},
		"config-os-number":       {`{"os":1,"rootfs":{"type":"layers","diff_ids":["` + id + `"]}}`, `"os"`},
		"config-os-twice":        {`{"os":"linux","os":"windows","rootfs":{"type":"layers","diff_ids":["` + id + `"]}}`, "twice"},
		"config-trailing":        {rootfs(`{"type":"layers","diff_ids":["`+id+`"]}`) + "{}", "after its end"},
		"config-cut":             {`{"rootfs":{"type":"layers","diff_ids":["` + id + `"]}`, "not JSON"},
		"config-deep":            {rootfs(strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001)), "not JSON"},
	} {
		out = append(out, bad{name: name, body: docker("a/b:1", layer).setConfig([]byte(c.body)).pack(), want: c.want})
	}
	d := docker("a/b:1", layer)
	cfg := d.files[d.config()]
	delete(d.files, d.config())
	p := "blobs/sha256/" + sum([]byte("another")).Encoded()
	d.files[p], d.items[0]["Config"] = cfg, p
	return append(out, bad{name: "config-blob-damaged", body: d.pack(), want: "damaged"})
}

func badLayers() []bad {
	good := pack(text("a", noise(3000)), text("b", "y"))
	with := func(stored []byte, plain []byte) []byte {
		d := docker("a/b:1", plain)
		d.files[d.layer(0)] = stored
		return d.pack()
	}
	self := func(b []byte) []byte { return with(b, b) }
	patched := bytes.Clone(good)
	patched[156] = 'Z'
	checksum(patched[:512])
	sparse := bytes.Clone(good)
	sparse[156] = tar.TypeGNUSparse
	copy(sparse[257:], "ustar  \x00")
	clear(sparse[386:512])
	copy(sparse[386:], "00000000000\x0000000000004\x00")
	copy(sparse[483:], "00000000004\x00")
	checksum(sparse[:512])
	badSum := bytes.Clone(good)
	badSum[secondHeader(badSum)+150] ^= 1
	crcWrong := gz(good)
	crcWrong[len(crcWrong)-6] ^= 1
	return []bad{
		{name: "layer-text", body: self([]byte(noise(2000))), want: "not a tar"},
		{name: "layer-short-text", body: self([]byte("x")), want: "not a tar"},
		{name: "layer-json", body: self([]byte(`{}`)), want: "not a tar"},
		{name: "layer-cut", body: self(good[:1500]), want: "cut off"},
		{name: "layer-cut-in-header", body: self(good[:secondHeader(good)+100]), want: "cut off"},
		{name: "layer-second-header", body: self(badSum), want: "no tar header"},
		{name: "layer-data-behind", body: self(append(bytes.Clone(good), "data behind the end"...)), want: "after its end"},
		{name: "layer-far-data-behind", body: self(append(append(bytes.Clone(good), make([]byte, 300<<10)...), 1)), want: "after its end"},
		{name: "layer-type-unknown", body: self(patched), want: "unknown type"},
		{name: "layer-type-sparse", body: self(sparse), want: "sparse"},
		{name: "layer-other-content", body: with(layerOf("other"), good), want: "diffID"},
		{name: "layer-one-bit", body: with(func() []byte { b := bytes.Clone(good); b[700] ^= 1; return b }(), good), want: "diffID"},
		{name: "layer-more-padding", body: with(append(bytes.Clone(good), make([]byte, 512)...), good), want: "diffID"},
		{name: "layer-gzip-cut", body: with(gz(good)[:600], good), want: "cut off"},
		{name: "layer-gzip-crc", body: with(crcWrong, good), want: "checksum"},
		{name: "layer-gzip-garbage-behind", body: with(append(gz(good), "xyz"...), good), want: "gzip"},
		{name: "layer-gzip-of-text", body: with(gz([]byte(noise(3000))), []byte(noise(3000))), want: "tar"},
		{name: "layer-gzip-twice", body: with(gz(gz(good)), good), want: "tar"},
		{name: "layer-zstd-cut", body: with(zst(good)[:600], good), want: "zstd"},
		{name: "layer-zstd-of-text", body: with(zst([]byte(noise(3000))), []byte(noise(3000))), want: "tar"},
		{name: "layer-xz-noise", body: with(append([]byte("\xfd7zXZ\x00"), noise(3000)...), good), want: "xz"},
		{name: "layer-bzip2-noise", body: with(append([]byte("BZh9\x31\x41\x59\x26\x53\x59"), noise(3000)...), good), want: "bzip2"},
	}
}

func badV1() []bad {
	id := strings.Repeat("a", 64)
	v1 := []entry{text(id+"/VERSION", "1.0"), text(id+"/json", `{"id":"`+id+`","parent":"`+id+`"}`), reg(id+"/layer.tar", layerOf("x"))}
	return []bad{
		{name: "v1", body: pack(append(v1, text("repositories", `{"a":{"1":"`+id+`"}}`))...), want: "before 1.10"},
		{name: "v1-without-repositories", body: pack(v1...), want: "before 1.10"},
		{name: "v1-only-repositories", body: pack(text("repositories", `{}`)), want: "before 1.10"},
	}
}
