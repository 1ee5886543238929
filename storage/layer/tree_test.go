package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestATreeIsWhatDockerMakesOfTheLayers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		layers [][]byte
		want   string // paths, with = and the content of files
	}{
		"names of all forms":                {[][]byte{pack(dir("./"), dir("./a/"), file("/a/b", "1"), file("c//d", "2"))}, "a a/b=1 c c/d=2"},
		"the last of a layer counts":        {[][]byte{pack(file("a", "1"), file("a", "2"))}, "a=2"},
		"a file over a directory":           {[][]byte{pack(file("a/b", "1")), pack(file("a", "2"))}, "a=2"},
		"a directory over a file":           {[][]byte{pack(file("a", "1")), pack(dir("a"), file("a/b", "2"))}, "a a/b=2"},
		"a directory over a directory":      {[][]byte{pack(file("a/b", "1")), pack(dir("a"))}, "a a/b=1"},
		"a name below a symlink":            {[][]byte{pack(link(tar.TypeSymlink, "a", "c")), pack(file("a/b", "1"))}, "a a/b=1"},
		"a whiteout":                        {[][]byte{pack(file("a/b", "1"), file("a/c", "2")), pack(file("a/.wh.b", ""))}, "a a/c=2"},
		"a whiteout of a directory":         {[][]byte{pack(file("a/b/c", "1")), pack(file("a/.wh.b", ""))}, "a"},
		"a whiteout of nothing":             {[][]byte{pack(file("a", "1")), pack(file("x/.wh.b", ""), file(".wh.c", ""))}, "a=1"},
		"a whiteout before what replaces":   {[][]byte{pack(file("a/b", "1")), pack(file(".wh.a", ""), file("a/c", "2"))}, "a a/c=2"},
		"a whiteout after what replaces":    {[][]byte{pack(file("a/b", "1")), pack(file("a/c", "2"), file(".wh.a", ""))}, "a a/c=2"},
		"a whiteout of its own layer":       {[][]byte{pack(file("a", "1"), file(".wh.a", ""))}, "a=1"},
		"an opaque directory":               {[][]byte{pack(file("a/b", "1"), file("a/c/d", "2")), pack(dir("a"), file("a/.wh..wh..opq", ""), file("a/e", "3"))}, "a a/e=3"},
		"an opaque marker that comes late":  {[][]byte{pack(file("a/b", "1"), file("a/c/d", "2")), pack(file("a/c/e", "3"), file("a/.wh..wh..opq", ""))}, "a a/c a/c/e=3"},
		"two opaque markers of one layer":   {[][]byte{pack(file("a/b", "1")), pack(file("a/.wh..wh..opq", ""), file("a/c", "2"), file("a/.wh..wh..opq", ""))}, "a a/c=2"},
		"opaque markers of two layers":      {[][]byte{pack(file("a/b", "1")), pack(file("a/.wh..wh..opq", ""), file("a/c", "2")), pack(file("a/.wh..wh..opq", ""), file("a/d", "3"))}, "a a/d=3"},
		"a directory that was cached goes":  {[][]byte{pack(file("a/b", "1"), file("a", "2"), file("a/c", "3"))}, "a a/c=3"},
		"a cached directory of a layer":     {[][]byte{pack(file("a/b", "1")), pack(file("a/c", "2")), pack(file(".wh.a", "")), pack(file("a/d", "3"))}, "a a/d=3"},
		"an opaque root":                    {[][]byte{pack(file("a/b", "1")), pack(file(".wh..wh..opq", ""), file("c", "3"))}, "c=3"},
		"what aufs left":                    {[][]byte{pack(dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", ""), file("a", "1"))}, "a=1"},
		"a whiteout that is a directory":    {[][]byte{pack(file("a", "1")), pack(dir(".wh.a"), file(".wh.a/b", "2"))}, ""},
		"a whiteout of the parent":          {[][]byte{pack(file("a/b", "1")), pack(file("a/.wh...", ""), file("a/.wh..", ""))}, "a a/b=1"},
		"hard links":                        {[][]byte{pack(file("a", "1"), link(tar.TypeLink, "b", "a"), link(tar.TypeLink, "c", "./b"))}, "a=1 b=1 c=1"},
		"a hard link into a lower layer":    {[][]byte{pack(file("a", "1")), pack(link(tar.TypeLink, "b", "a")), pack(file("a", "2"))}, "a=2 b=1"},
		"a hard link to itself":             {[][]byte{pack(file("a", "1"), link(tar.TypeLink, "a", "a"))}, "a=1"},
		"a hard link over its own parent":   {[][]byte{pack(file("a/b", "1"), link(tar.TypeLink, "a", "a/b"))}, "a=1"},
		"a hard link below its own target":  {[][]byte{pack(file("a", "1"), link(tar.TypeLink, "a/b", "a"))}, "a a/b=1"},
		"a file that was linked is new":     {[][]byte{pack(file("a", "1"), link(tar.TypeLink, "b", "a"), file("a", "2"))}, "a=2 b=1"},
		"a lower file behind a new link":    {[][]byte{pack(file("a", "1")), pack(link(tar.TypeLink, "b", "a"), file(".wh.a", ""))}, "b=1"},
		"a root that is a file":             {[][]byte{pack(file(".", "1"), file("a", "2"))}, "a=2"},
		"names that are no UTF-8":           {[][]byte{pack(file("n\xe4", "1")), pack(file(".wh.n\xe4", ""), file("\xff", "2"))}, "\xff=2"},
		"nothing":                           {nil, ""},
		"a layer of nothing":                {[][]byte{{}}, ""},
		"a directory that a child is under": {[][]byte{pack(file("a/b/c", "1")), pack(file("a/.wh.b", ""), file("a/b/d", "2"))}, "a a/b a/b/d=2"},
	} {
		var got []string
		for n := range treeOf(t, c.layers...).Walk() {
			switch {
			case n.Path == ".":
			case n.Entry.Type == tar.TypeReg:
				got = append(got, n.Path+"="+string(c.layers[n.Layer][n.Entry.Offset:][:n.Entry.Size]))
			default:
				got = append(got, n.Path)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

func TestTheMetadataOfDirectories(t *testing.T) {
	t.Parallel()
	sticky := dir("tmp").with(func(h *tar.Header) { h.Mode = 0o1777 })
	mine := dir("home").with(func(h *tar.Header) { h.Mode, h.Uid = 0o700, 1000 })
	tree := treeOf(t, pack(file("tmp/x", "1"), mine, file("gone/x", "2")), pack(sticky, file("home/y", "3"), file(".wh.gone", ""), file("gone/y", "")))
	for p, want := range map[string]string{
		".": "755 0 implied", "tmp": "1777 0", "home": "700 1000", "gone": "755 0 implied",
	} {
		n, ok := tree.Lookup(p)
		got := fmt.Sprintf("%o %d", n.Entry.Mode, n.Entry.UID)
		if n.Implied {
			got += " implied"
		}
		if !ok || got != want {
			t.Errorf("%s is %v %s, want %s", p, ok, got, want)
		}
	}
	if _, ok := tree.Lookup("tmp/nothing"); ok {
		t.Error("Lookup found what is not there")
	}
	if tree.ReadDir("tmp/nothing") != nil || tree.ReadDir("tmp/x") != nil {
		t.Error("ReadDir found what is not there")
	}
	var names []string
	for _, n := range tree.ReadDir(".") {
		names = append(names, n.Path)
	}
	if want := []string{"gone", "home", "tmp"}; !slices.Equal(names, want) {
		t.Errorf("ReadDir of the root = %v, want %v", names, want)
	}
}

func TestALayerThatNoSystemCanUnpackIsRefused(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string][]byte{
		"a hard link to nothing":     pack(link(tar.TypeLink, "a", "b")),
		"a hard link to a directory": pack(dir("b"), link(tar.TypeLink, "a", "b")),
		"a hard link to the root":    pack(link(tar.TypeLink, "a", "/")),
		"a path too long":            pack(file(strings.Repeat("a/", 2050)+"b", "1")),
	} {
		r, err := NewReader(bytes.NewReader(indexOf(t, plain)))
		if err != nil {
			t.Fatal(err)
		}
		if err := NewTree().Add(r.Next); err == nil || errors.Is(err, ErrIndex) {
			t.Errorf("%s: error = %v, want one that says so", name, err)
		}
	}
}

func TestATreeIsBounded(t *testing.T) {
	t.Parallel()
	n := 0
	many := func() (Entry, error) {
		n++
		return Entry{Path: fmt.Sprintf("d%d/%d", n%1000, n), Type: tar.TypeReg}, nil
	}
	if err := NewTree().Add(many); !errors.Is(err, ErrTooLarge) {
		t.Errorf("layers without end: error = %v, want ErrTooLarge", err)
	}
	if n > maxNodes {
		t.Errorf("%d entries were read", n)
	}
	n = 0
	long := func() (Entry, error) {
		n++
		return Entry{Path: fmt.Sprint(n), Type: tar.TypeSymlink, Linkname: strings.Repeat("x", 1<<20)}, nil
	}
	if err := NewTree().Add(long); !errors.Is(err, ErrTooLarge) {
		t.Errorf("targets without end: error = %v, want ErrTooLarge", err)
	}
	n = 0
	again := func() (Entry, error) {
		n++
		switch {
		case n > 3_000_000:
			return Entry{}, errEnough
		case n%2 == 0:
			return Entry{Path: "a", Type: tar.TypeSymlink, Linkname: strings.Repeat("x", 1000)}, nil
		}
		return Entry{Path: fmt.Sprintf("a/%d", n), Type: tar.TypeReg}, nil
	}
	tree := NewTree()
	if err := tree.Add(again); !errors.Is(err, errEnough) || tree.Len() > 3 || len(tree.nodes) > 10 || len(tree.inodes) > 10 || len(tree.rare) > 1 {
		t.Errorf("what replaces itself: error = %v, %d paths, %d nodes, %d inodes", err, tree.Len(), len(tree.nodes), len(tree.inodes))
	}
}

// TestMarkersWithoutEndCostNoMoreThanTheirNumber: 200,000 of them over 200,000
// files would be 40 billion steps, for which the test would have no time.
func TestMarkersWithoutEndCostNoMoreThanTheirNumber(t *testing.T) {
	t.Parallel()
	const many = 200_000
	for name, marker := range map[string]func(i int) string{
		"opaque":         func(int) string { return "a/b/.wh..wh..opq" },
		"opaque in turn": func(i int) string { return []string{"a/b/", "a/", ""}[i%3] + ".wh..wh..opq" },
		"whiteout":       func(int) string { return "a/.wh.b" },
	} {
		n := 0
		tree := NewTree()
		err := tree.Add(func() (Entry, error) {
			n++
			switch {
			case n <= many:
				return Entry{Path: fmt.Sprintf("a/b/%d", n), Type: tar.TypeReg}, nil
			case n <= 2*many:
				return Entry{Path: marker(n), Type: tar.TypeReg}, nil
			}
			return Entry{}, io.EOF
		})
		if err != nil || tree.Len() != many+3 {
			t.Errorf("%s: %d paths, %v, want all of the layer's own", name, tree.Len(), err)
		}
	}
}

var errEnough = errors.New("enough")

// BenchmarkTree is of a system of 200,000 files in 6 layers.
func BenchmarkTree(b *testing.B) {
	indexes := make([][]byte, 6)
	for l := range indexes {
		var items []item
		for i := range 200_000 / len(indexes) {
			items = append(items, file(fmt.Sprintf("usr/lib/module-%d/part-%03d/file-%d.js", l, i/100, i), ""))
		}
		indexes[l] = indexOf(b, pack(items...))
	}
	b.ReportAllocs()
	for b.Loop() {
		t := NewTree()
		for _, x := range indexes {
			r, err := NewReader(bytes.NewReader(x))
			if err == nil {
				err = t.Add(r.Next)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		for n := range t.Walk() {
			_ = n.Layer
		}
	}
}
