package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// badImport is a root file system that must be refused.
type badImport struct {
	name string
	body []byte
	code tarport.Code // ARCHIVE_INVALID where empty
	want string       // in the message
	q    func(*ImportRequest)
}

func TestBadImportsAreRefusedAndLeaveNothing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, small, func(o *Options) { o.Limits.Files = 200 })
	before := reg.state(t)
	var cases []badImport
	for _, c := range badStreams() {
		// An empty root file system is one: docker import takes it.
		if c.name != "stream-zeros" {
			cases = append(cases, badImport{name: c.name, body: c.body, want: strings.ReplaceAll(c.want, "after the end", "after its end")})
		}
	}
	for _, class := range [][]badImport{badImportStreams(), badImportEntries(), badImportDoors(t), badImportParameters()} {
		cases = append(cases, class...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code := c.code
			if code == "" {
				code = tarport.ArchiveInvalid
			}
			q := c.q
			if q == nil {
				q = func(*ImportRequest) {}
			}
			for _, compression := range []string{gzipped, uncompressed} {
				_, err := reg.importFS(t, c.body, func(q *ImportRequest) { q.Compression = compression }, q)
				e, ok := errors.AsType[*tarport.Error](err)
				if !ok || e.Code != code || !strings.Contains(e.Message, c.want) {
					t.Errorf("Import = %v, want %s about %q", err, code, c.want)
				}
				if status := code.Status(); status < 400 || status > 499 {
					t.Errorf("status %d, want 4xx", status)
				}
			}
			after := reg.state(t)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("something is left (-before +after):\n%s", diff)
			}
			before = after // one case that fails is enough
		})
	}
	reg.mustImport(t, layerOf("good")) // the registry that saw all this still works
}

func badImportStreams() []badImport {
	zeros := make([]byte, 3<<20)
	fs := pack(text("etc/a", noise(3000)), text("etc/b", "x"))
	return []badImport{
		{name: "import-cut-in-a-file", body: fs[:1500], want: `it is cut off at byte 1500, after the entry "etc/a"`},
		{name: "import-cut-in-a-header", body: fs[:len(fs)-2048+100], want: "broken"},
		{name: "import-cut-gzip", body: gz(fs)[:900], want: "cut off"},
		{name: "import-bomb-gzip", body: gz(pack(reg("zeros", zeros))), code: tarport.TooLarge, want: "times its size"},
		{name: "import-bomb-zstd", body: zst(pack(reg("zeros", zeros))), code: tarport.TooLarge, want: "times its size"},
		{name: "import-bomb-plain", body: pack(reg("zeros", zeros)), code: tarport.TooLarge, want: "more than 1048576 bytes"},
		{name: "import-too-large", body: pack(text("a", noise(9<<20))), code: tarport.TooLarge, want: "bytes"},
		{name: "import-of-a-size-that-is-too-large", body: fs, code: tarport.TooLarge, want: "at most", q: func(q *ImportRequest) { q.Size = 1 << 40 }},
	}
}

func badImportEntries() []badImport {
	fs := func(e ...entry) []byte { return pack(append([]entry{text("etc/hostname", "x")}, e...)...) }
	var many []entry
	for i := range 201 {
		many = append(many, text(fmt.Sprintf("f%d", i), ""))
	}
	odd := func(typ byte) []byte {
		b := fs(text("odd", ""))
		h := b[1024:1536] // its header
		h[156] = typ
		copy(h[257:], "ustar  \x00") // GNU's
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	return []badImport{
		{name: "import-whiteout", body: fs(text("etc/.wh.passwd", "")), want: `"etc/.wh.passwd"`},
		{name: "import-whiteout-at-the-root", body: fs(text("./.wh.bin", "")), want: `".wh.bin"`},
		{name: "import-opaque", body: fs(text("srv/.wh..wh..opq", "")), want: `"srv/.wh..wh..opq"`},
		{name: "import-aufs", body: fs(text(".wh..wh.aufs", "")), want: `".wh..wh.aufs"`},
		{name: "import-whiteout-directory", body: fs(entry{name: "a/.wh.b/", typ: tar.TypeDir}), want: `"a/.wh.b"`},
		{name: "import-in-a-whiteout-directory", body: fs(text("a/.wh.b/c", "x")), want: `"a/.wh.b/c"`},
		{name: "import-whiteout-link", body: fs(symlink(".wh.x", "y")), want: `".wh.x"`},
		{name: "import-sparse", body: odd('S'), want: "sparse"},
		{name: "import-type-D", body: odd('D'), want: "unknown type 'D'"},
		{name: "import-type-Z", body: odd('Z'), want: "unknown type 'Z'"},
		{name: "import-type-high", body: odd(0xff), want: "unknown type"},
		{name: "import-link-to-nothing", body: fs(hardlink("a", "b")), want: `"a" is a hard link to "b"`},
		{name: "import-link-to-a-later-file", body: fs(hardlink("a", "b"), text("b", "x")), want: `"b", which is no file before it`},
		{name: "import-link-to-itself", body: fs(hardlink("a", "a")), want: "no file before it"},
		{name: "import-link-to-a-directory", body: fs(entry{name: "d/", typ: tar.TypeDir}, hardlink("a", "d")), want: "no file before it"},
		{name: "import-many-entries", body: pack(many...), code: tarport.TooLarge, want: "more than 200 entries"},
	}
}

// badImportDoors are good archives, of images.
func badImportDoors(tb testing.TB) []badImport {
	tb.Helper()
	load := "use archives/load"
	d := docker("a/b:1", layerOf("x"))
	d.files["layer"], d.items[0]["Layers"] = d.files[d.layer(0)], []string{"layer"}
	l := newLayout()
	oci := l.root(l.image("amd64", layerOf("x")), "a/b:1").pack()
	out := []badImport{
		{name: "import-docker-archive", body: docker("a/b:1", layerOf("x")).pack(), want: load},
		{name: "import-docker-archive-gzip", body: gz(docker("a/b:1", layerOf("x")).pack()), want: load},
		{name: "import-docker-archive-of-any-names", body: d.pack(), want: load},
		{name: "import-oci-archive", body: oci, want: load},
		{name: "import-large-layer", body: pack(text("blobs/sha256/"+sum(nil).Encoded(), noise(1<<20))), code: tarport.ArchiveInvalid, want: load},
	}
	for _, f := range []string{
		"docker20/names-with-registry.tar", "docker29/save-by-id.tar", "podman/docker-archive.tar", "skopeo/docker-archive.tar",
		"skopeo/oci-archive-noname.tar", "buildx/oci-single.tar", "crane/pull-by-digest.tar", "oci/oras-artifact-layout.tar", "hand/nix-stream-layered.tar",
		"hand/docker-1.7-v1-legacy.tar", "hand/rules-oci-tarball.tar",
	} {
		out = append(out, badImport{name: "import-" + f, body: fixtureNamed(tb, f), want: load})
	}
	return out
}

func badImportParameters() []badImport {
	repo := func(repo, tag string) func(*ImportRequest) {
		return func(q *ImportRequest) { q.Repository, q.Tag = repo, tag }
	}
	good := layerOf("x")
	return []badImport{
		{name: "import-no-repo", body: good, code: tarport.Invalid, want: "?repo=", q: repo("", "1")},
		{name: "import-repo-upper", body: good, code: tarport.NameInvalid, want: "lowercase", q: repo("team/App", "1")},
		{name: "import-repo-upper-namespace", body: good, code: tarport.NameInvalid, want: "lowercase", q: repo("Team/app", "1")},
		{name: "import-repo-spaces", body: good, code: tarport.NameInvalid, want: "repo=", q: repo("team/a b", "1")},
		{name: "import-repo-long", body: good, code: tarport.NameInvalid, want: "repo=", q: repo("team/"+strings.Repeat("a", 300), "1")},
		{name: "import-repo-traversal", body: good, code: tarport.NameInvalid, want: "repo=", q: repo("../etc", "1")},
		{name: "import-digest", body: good, code: tarport.NameInvalid, want: "digest", q: repo("team/app@"+sum(nil).String(), "")},
		{name: "import-half-a-digest", body: good, code: tarport.NameInvalid, want: "digest", q: repo("team/app@sha256:aaaa", "")},
		{name: "import-tag-digest", body: good, code: tarport.TagInvalid, want: "tag=", q: repo("team/app", sum(nil).String())},
		{name: "import-tag-bad", body: good, code: tarport.TagInvalid, want: "tag=", q: repo("team/app", "-x")},
		{name: "import-compression", body: good, code: tarport.Invalid, want: "compression", q: func(q *ImportRequest) { q.Compression = "lz4" }},
		{name: "import-platform", body: good, code: tarport.Invalid, want: "platform=", q: func(q *ImportRequest) { q.Platform = "a/b/c/d" }},
		{name: "import-changes", body: good, code: tarport.Invalid, want: "RUN is not a valid change command", q: func(q *ImportRequest) { q.Changes = []string{"RUN x"} }},
		{name: "import-message", body: good, code: tarport.TooLarge, want: "message", q: func(q *ImportRequest) { q.Message = noise(maxText + 1) }},
		{name: "import-message-of-bytes", body: good, code: tarport.Invalid, want: "UTF-8", q: func(q *ImportRequest) { q.Message = "\xff" }},
		{name: "import-author-of-zeros", body: good, code: tarport.Invalid, want: "UTF-8", q: func(q *ImportRequest) { q.Author = "a\x00b" }},
	}
}

// TestGoodImports is what looks odd and is taken.
func TestGoodImports(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	for name, body := range map[string][]byte{
		"without blocks of zeros":            pack(text("a", "x"))[:1024],
		"nothing but zeros":                  make([]byte, 10240),
		"one file":                           pack(text("hello", "x")),
		"a file that is called like a list":  pack(text("manifest.json", `{"name":"app"}`)),
		"a list of files that are not there": pack(text("manifest.json", `[{"Config":"c","Layers":["l"]}]`), text("c", "{}")),
		"an image archive in a directory":    pack(text("srv/manifest.json", "[]"), text("srv/"+sum(nil).Encoded()+".json", "{}")),
		"an image archive beside a system":   pack(append(docker("a:1", layerOf("x")).entries(), text("manifest.json", string(toJSON(docker("a:1", layerOf("x")).items))), text("etc/x", ""))...),
		"links by every spelling": pack(text("./usr/bin/a", "x"), hardlink("/usr/bin/b", "usr/bin/a"), hardlink("c", "./usr//bin/b"),
			symlink("bin", "usr/bin"), hardlink("d", "bin/a"), symlink("s", "nowhere"), hardlink("e", "s"), entry{name: "fifo", typ: tar.TypeFifo}, hardlink("f", "fifo")),
		"names that lead out":     pack(text("../../x", "y"), symlink("out", "../../../etc/passwd")),
		"a name twice":            pack(text("a", "1"), text("a", "2")),
		"a PAX header for all":    pack(entry{name: "g", typ: tar.TypeXGlobalHeader, pax: map[string]string{"path": ".wh.x"}}, text("a", "x")),
		"a long name":             pack(text(strings.Repeat("d/", 2000)+"x", "x")),
		"a name of any bytes":     pack(text("a\xffb", "x")),
		"whiteouts are not these": pack(text("a.wh.b", "x"), text(".whatever", "x"), text(".wh", "x")),
	} {
		res, err := reg.importFS(t, body, func(q *ImportRequest) { q.Tag = digest.FromBytes(body).Encoded()[:12] })
		if err != nil {
			t.Errorf("%s: Import: %v", name, err)
			continue
		}
		im := res.Images[0]
		if got, want := im.Layers[0].DiffID, sum(body); got != want {
			t.Errorf("%s: diffID = %s, want %s", name, got, want)
		}
		reg.pull(t, "team/app", digestRef(im.Digest), im.Manifest)
	}
}

// TestImportIsRefusedBeforeTheBody has a body that must not be read.
func TestImportIsRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	untouched := iotest.ErrReader(errors.New("the body was read"))
	denied := func(o *Options) {
		o.Access = access(func(_ tarport.Principal, a tarport.Action, repository string) error {
			return tarport.Errorf(tarport.Denied, "no %s of %s", a, repository)
		})
	}
	st := &fakeStore{}
	s := newFakeService(t, st, denied)
	if _, err := s.Import(t.Context(), untouched, importRequest()); tarport.ErrorCode(err) != tarport.Denied || !strings.Contains(err.Error(), "push of team/app") {
		t.Errorf("Import = %v, want DENIED", err)
	}
	st = &fakeStore{fail: func(op string) error {
		if op == "room" {
			return tarport.Errorf(tarport.Denied, "the namespace is full")
		}
		return nil
	}}
	s = newFakeService(t, st)
	if _, err := s.Import(t.Context(), untouched, importRequest()); tarport.ErrorCode(err) != tarport.Denied {
		t.Errorf("Import = %v, want DENIED", err)
	}
	st.checkClean(t)
}

// TestAnImportThatBreaksOffLeavesNothing lets the body, the store or the
// caller fail at many places, in a bubble that notices a goroutine that stays.
func TestAnImportThatBreaksOffLeavesNothing(t *testing.T) {
	t.Parallel()
	body := pack(text("big", noise(blocks)), text("small", "x"))
	broken := errors.New("broken")
	for i := range 20 {
		n := len(body) * i / 20
		cut := func() io.Reader { return io.MultiReader(bytes.NewReader(body[:n]), iotest.ErrReader(broken)) }
		synctest.Test(t, func(t *testing.T) {
			st := &fakeStore{}
			_, err := newFakeService(t, st).Import(t.Context(), cut(), importRequest())
			if tarport.ErrorCode(err) != tarport.Invalid || !errors.Is(err, broken) {
				t.Errorf("broken at %d: Import = %v, want INVALID because of it", n, err)
			}
			st.checkClean(t)
		})
		synctest.Test(t, func(t *testing.T) {
			st := &fakeStore{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := io.MultiReader(bytes.NewReader(body[:n]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), bytes.NewReader(body[n:]))
			if _, err := newFakeService(t, st).Import(ctx, r, importRequest()); !errors.Is(err, context.Canceled) {
				t.Errorf("given up at %d: Import = %v, want that it is canceled", n, err)
			}
			st.checkClean(t)
		})
	}
	for _, failing := range []string{"batch", "create", "write", "finish", "known", "commit", "close"} {
		for _, compression := range []string{gzipped, zstded, uncompressed} {
			synctest.Test(t, func(t *testing.T) {
				st := &fakeStore{fail: func(op string) error {
					if op == failing {
						return broken
					}
					return nil
				}}
				_, err := newFakeService(t, st).Import(t.Context(), bytes.NewReader(body), importRequest(func(q *ImportRequest) { q.Compression = compression }))
				if !errors.Is(err, broken) {
					t.Errorf("%s fails, %s: Import = %v, want that error", failing, compression, err)
				}
				st.checkClean(t)
			})
		}
	}
}

// FuzzImport sends anything. Whatever it is, the answer is an error that the
// sender can read and nothing stays, or an image whose layer is what was sent.
func FuzzImport(f *testing.F) {
	for _, fx := range rootFSFixtures(f) {
		if b := fx.read(f); len(b) < 64<<10 {
			f.Add(b)
		}
	}
	for _, c := range badImportEntries() {
		f.Add(c.body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		st := &fakeStore{}
		s := newFakeService(t, st, small)
		res, err := s.Import(t.Context(), bytes.NewReader(body), importRequest(func(q *ImportRequest) { q.Compression = uncompressed }))
		st.checkClean(t)
		if err != nil {
			if e, ok := errors.AsType[*tarport.Error](err); !ok || e.Code.Status() >= 500 {
				t.Errorf("Import = %v, want an error for the sender", err)
			}
			if len(st.puts) != 0 {
				t.Error("a manifest was put, and then there was an error")
			}
			return
		}
		l := res.Images[0].Layers[0]
		if b := st.blobs[l.Digest]; digest.FromBytes(b) != l.DiffID || int64(len(b)) != l.Size {
			t.Errorf("layer %+v was not stored as it is named", l)
		}
	})
}
