package table_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
)

func sample() *table.Table {
	t := table.New(table.Column{Head: "TAG"}, table.Column{Head: "BASE", Min: 8, Rank: 1}, table.Column{Head: "SIZE"}, table.Column{Head: "MESSAGE", Min: 10, Rank: 2})
	t.Row("17-alpine", "alpine 3.19 (musl)", "85.0 MiB", "fix the\nclock\x1b[2J of \u202eeverybody")
	t.Row("17", "debian 12 bookworm (glibc)", "110.5 MiB", "修正时区")
	t.Row("x", "", "0 B")
	return t
}

func TestATableFitsTheWidth(t *testing.T) {
	t.Parallel()
	for width, want := range map[int]string{
		0: "" +
			"TAG        BASE                        SIZE       MESSAGE\n" +
			"17-alpine  alpine 3.19 (musl)          85.0 MiB   fix the clock�[2J of �everybody\n" +
			"17         debian 12 bookworm (glibc)  110.5 MiB  修正时区\n" +
			"x          -                           0 B        -\n",
		70: "" +
			"TAG        BASE                        SIZE       MESSAGE\n" +
			"17-alpine  alpine 3.19 (musl)          85.0 MiB   fix the clock�[2J o…\n" +
			"17         debian 12 bookworm (glibc)  110.5 MiB  修正时区\n" +
			"x          -                           0 B        -\n",
		50: "" +
			"TAG        BASE              SIZE       MESSAGE\n" +
			"17-alpine  alpine 3.19 (mu…  85.0 MiB   fix the c…\n" +
			"17         debian 12 bookw…  110.5 MiB  修正时区\n" +
			"x          -                 0 B        -\n",
		35: "" +
			"TAG        BASE           SIZE\n" +
			"17-alpine  alpine 3.19 …  85.0 MiB\n" +
			"17         debian 12 bo…  110.5 MiB\n" +
			"x          -              0 B\n",
		5: "" +
			"TAG        SIZE\n" +
			"17-alpine  85.0 MiB\n" +
			"17         110.5 MiB\n" +
			"x          0 B\n",
	} {
		var out strings.Builder
		if err := sample().Write(&out, width); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("in %d columns (-want +got):\n%s", width, diff)
		}
		for line := range strings.Lines(out.String()) {
			if w := table.Width(strings.TrimSuffix(line, "\n")); width >= 35 && w > width {
				t.Errorf("in %d columns: a line of %d", width, w)
			}
		}
	}
}

func TestCleanTextCannotSteerATerminal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                      "plain",
		"two\r\nlines\t and  more ":  "two lines and more",
		"\x1b]0;title\x07\x7f":       "�]0;title��",
		"\u009b31mred":               "�31mred",
		"exe\u202egpj.\u2066x\u200f": "exe�gpj.�x�",
		"日本 é":                       "日本 é",
		"bad \xff\x9b":               "bad ��",
		"zero\x00":                   "zero�",
	} {
		if got := table.Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := table.CleanLines("a\tb\r\n\x1bc"), "a\tb\n�c"; got != want {
		t.Errorf("CleanLines = %q, want %q", got, want)
	}
}
