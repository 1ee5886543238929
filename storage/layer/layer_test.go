package layer

import "testing"

func TestCleanPath(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a": "a", "./a": "a", "/a": "a", "//a//b/": "a/b", "../a": "a", "a/../../b": "b", "a/./b/..": "a",
		"": ".", ".": ".", "/": ".", "./": ".", "..": ".", "a/\xe4 b": "a/\xe4 b", " ": " ",
	} {
		if got := CleanPath(name); got != want {
			t.Errorf("CleanPath(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestMarkers(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]struct {
		gone, opaque string
		marker       bool
	}{
		"etc/.wh.passwd":       {gone: "etc/passwd", marker: true},
		".wh.etc":              {gone: "etc", marker: true},
		"a/.wh..hidden":        {gone: "a/.hidden", marker: true},
		"srv/.wh..wh..opq":     {opaque: "srv", marker: true},
		".wh..wh..opq":         {opaque: ".", marker: true},
		".wh..wh.plnk":         {marker: true},
		"a/.wh.":               {marker: true},
		"a/.wh..":              {marker: true},
		"a/.wh...":             {marker: true},
		"a/.wh....":            {gone: "a/...", marker: true},
		"a/b.wh.c":             {},
		".wh.a/b":              {},
		".":                    {},
		"etc/.wh..wh.aufs":     {marker: true},
		"srv/x/.wh..wh..opq/y": {},
	} {
		gone, isGone := Whiteout(p)
		opaque, isOpaque := Opaque(p)
		if gone != want.gone || isGone != (want.gone != "") || opaque != want.opaque || isOpaque != (want.opaque != "") || IsMarker(p) != want.marker {
			t.Errorf("%q: whiteout of %q %v, opaque %q %v, marker %v; want %+v", p, gone, isGone, opaque, isOpaque, IsMarker(p), want)
		}
	}
}
