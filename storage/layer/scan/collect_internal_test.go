package scan

import (
	"archive/tar"
	"strings"
	"testing"
)

// mistaken has the index of a list as the mistake.
type mistaken struct{}

func (mistaken) Write(p []byte) (int, error) { return int(p[len(p)]), nil }
func (mistaken) finish(*Mark) bool           { return []bool{}[len("one")] }

func TestAMistakeEndsTheCollectingAndNothingElse(t *testing.T) {
	t.Parallel()
	release := &tar.Header{Name: "etc/os-release", Typeflag: tar.TypeReg}
	for name, end := range map[string]func(*Collector){
		"while a body passes": func(c *Collector) {
			w := c.Entry(release)
			c.reader = mistaken{}
			if n, err := (guarded{c, c.reader}).Write([]byte("ID=a")); n != 4 || err != nil {
				t.Errorf("Write = %d, %v, want 4 bytes that pass", n, err)
			}
			if n, err := w.Write([]byte("ID=b")); n != 4 || err != nil {
				t.Errorf("Write after the mistake = %d, %v, want 4 bytes that pass", n, err)
			}
		},
		"at the next entry": func(c *Collector) {
			c.Entry(release)
			c.reader = mistaken{}
			if w := c.Entry(release); w != nil {
				t.Errorf("Entry = %v, want nobody who wants the body", w)
			}
		},
		"at the end": func(c *Collector) {
			c.Entry(release)
			c.reader = mistaken{}
		},
	} {
		c := NewCollector()
		c.Entry(&tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"})
		end(c)
		if got := c.Layer(); len(got.Marks) != 1 || !c.Missed() || c.Err() == nil || !strings.Contains(c.Err().Error(), "mistaken") {
			t.Errorf("%s: %+v, missed %t, error %v; want the mark from before the mistake, and where that was", name, got, c.Missed(), c.Err())
		}
	}
}
