package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// world makes random file systems and changes them at random.
type world struct {
	*rand.Rand
	m model
}

func (w *world) name() string {
	return []string{"a", "b", "c", "d", "etc", "dev", "x.y", "B", "n\xe4me", " ", "-", "hosts"}[w.IntN(12)]
}

func (w *world) anyDir() string {
	dirs := []string{""}
	for _, p := range w.m.sortedPaths() {
		if w.m[p].Type == tar.TypeDir && strings.Count(p, "/") < 4 {
			dirs = append(dirs, p+"/")
		}
	}
	return dirs[w.IntN(len(dirs))]
}

func (w *world) anyFile() string {
	var files []string
	for _, p := range w.m.sortedPaths() {
		if w.m[p].Type != tar.TypeDir {
			files = append(files, p)
		}
	}
	if len(files) == 0 {
		return ""
	}
	return files[w.IntN(len(files))]
}

func (w *world) thing() *thing {
	x := &thing{Type: tar.TypeReg, Mode: []int64{0o644, 0o755, 0o4755}[w.IntN(3)], UID: w.IntN(2) * 1000, MTime: int64(w.IntN(3)) * 1_000_000_000}
	switch w.IntN(12) {
	case 0, 1, 2:
		x.Type, x.Mode, x.MTime = tar.TypeDir, []int64{0o755, 0o1777}[w.IntN(2)], 0
	case 3:
		x.Type, x.Mode, x.Target = tar.TypeSymlink, 0, w.name()
	case 4:
		x.Type, x.Mode, x.Major, x.Minor = tar.TypeChar, 0o666, 1, int64(w.IntN(3))
	case 5:
		x.Type = tar.TypeFifo
	default:
		x.Content = strings.Repeat(w.name(), w.IntN(200))
		if w.IntN(8) == 0 {
			x.Capability = strings.Repeat("\x02", 20)
		}
	}
	return x
}

// change does one thing at random that can be done to a file system.
func (w *world) change() {
	p := w.anyDir() + w.name()
	f := w.anyFile()
	switch n := w.IntN(10); {
	case n < 4 || f == "":
		w.m.put(p, w.thing())
	case n == 4:
		w.m.remove(f)
	case n == 5:
		if dir := strings.TrimSuffix(w.anyDir(), "/"); dir != "" {
			w.m.remove(dir)
		}
	case n == 6: // a hard link
		if x := w.m[f]; !strings.HasPrefix(f, p+"/") && !strings.HasPrefix(p, f+"/") && p != f {
			w.m.put(p, x)
		}
	case n == 7: // in place: all its names change
		if x := w.m[f]; x.Type == tar.TypeReg && x.Content != "" {
			x.Content = strings.Repeat("z", len(x.Content))
		}
	case n == 8:
		x := w.m[f]
		x.UID, x.MTime = 5, x.MTime+1
	case n == 9: // copied up: a file of its own, otherwise the same
		x := *w.m[f]
		w.m[f] = &x
	}
}

// tar writes the file system as docker export does, or with its files in any
// order.
func (w *world) tar(shuffled bool) []byte {
	paths := w.m.sortedPaths()
	slices.SortFunc(paths, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	if shuffled {
		w.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	}
	first := map[*thing]string{}
	var items []item
	for _, p := range paths {
		x := w.m[p]
		h := tar.Header{
			Name: p, Typeflag: x.Type, Mode: x.Mode, Uid: x.UID, Gid: x.GID, ModTime: time.Unix(x.MTime, 0),
			Linkname: x.Target, Devmajor: x.Major, Devminor: x.Minor,
		}
		if x.Capability != "" {
			h.PAXRecords = map[string]string{CapabilityRecord: x.Capability}
		}
		body := x.Content
		if to, again := first[x]; again {
			h.Typeflag, h.Linkname, h.Devmajor, h.Devminor, body = tar.TypeLink, to, 0, 0, ""
		}
		first[x] = p
		items = append(items, item{h, body})
	}
	return pack(items...)
}

// clone is the file system again, with the same links.
func (m model) clone() model {
	c, files := model{}, map[*thing]*thing{}
	for p, x := range m {
		if files[x] == nil {
			y := *x
			files[x] = &y
		}
		c[p] = files[x]
	}
	return c
}

// withoutEngines is what an image of a container has: without what the engine
// adds to its export.
func withoutEngines(export, base model) model {
	m := maps.Clone(export)
	for p, x := range export {
		engines := false
		switch p {
		case ".dockerenv", "etc/hosts", "dev/console":
			engines = x.Type == tar.TypeReg && x.Content == ""
		}
		if !engines {
			continue
		}
		delete(m, p)
		if b := base[p]; b != nil {
			m[p] = b
			for _, q := range base.below(p) {
				m[q] = base[q]
			}
		}
	}
	for _, p := range []string{"dev", "etc"} {
		if x := m[p]; x != nil && x.Type == tar.TypeDir && base[p] == nil && len(m.below(p)) == 0 {
			delete(m, p)
		}
	}
	return m
}

// TestDeltasOfRandomFileSystems makes bases of several layers, each a delta of
// the one before, and checks that the trees, and the base with the delta on top,
// are what they should be, by the simple model.
func TestDeltasOfRandomFileSystems(t *testing.T) {
	t.Parallel()
	rounds := 300
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		w := &world{Rand: rand.New(rand.NewPCG(uint64(seed), 7)), m: model{}}
		var base [][]byte
		for range w.IntN(4) + 1 {
			before := modelOf(t, base...)
			w.m = before.clone()
			for range w.IntN(40) {
				w.change()
			}
			export := w.tar(w.IntN(2) == 0)
			delta, stats := mustDelta(t, export, base...)
			want := withoutEngines(modelOf(t, export), before)
			after := modelOf(t, base...)
			if delta != nil {
				after.apply(t, delta)
				base = append(base, delta)
			}
			ok := wantSame(t, fmt.Sprintf("seed %d: base and delta", seed), want, after, false)
			ok = ok && wantSame(t, fmt.Sprintf("seed %d: the tree of them", seed), after, modelOfTree(treeOf(t, base...), base...), true)
			if delta == nil && stats.Added+stats.Changed+stats.Deleted != 0 {
				t.Errorf("seed %d: %+v and no delta", seed, stats)
			}
			again, _ := mustDelta(t, export, base...)
			ok = ok && wantLinked(t, want, after, delta)
			if !ok || again != nil {
				t.Fatalf("seed %d: the delta %q, and after it %q", seed, names(t, delta), names(t, again))
			}
		}
	}
}

// wantLinked checks that what the delta writes of a file with several names is
// one file with all of them.
func wantLinked(tb testing.TB, want, got model, delta []byte) bool {
	tb.Helper()
	for _, e := range unpack(tb, delta) {
		p := CleanPath(e.h.Name)
		for _, names := range want.groups() {
			if !slices.Contains(names, p) {
				continue
			}
			for _, q := range names {
				if got[q] != got[p] {
					tb.Errorf("%s and %s are not one file any more", p, q)
					return false
				}
			}
		}
	}
	return true
}
