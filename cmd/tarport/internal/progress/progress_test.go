package progress

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Without a terminal there is a line now and then, and one at the end.
func TestLinesWhereThereIsNoTerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := New(Options{Out: &out})
		b := d.Bar("app.tar", 100<<20)
		b.Skip(20 << 20)
		for i := range int64(50) {
			time.Sleep(time.Second) // of the bubble's clock
			b.Set(20<<20 + i*(1<<20))
		}
		b.Done("stored")
		b.Done("twice")
		b.Set(1)
		spinner := d.Bar("export", 0)
		time.Sleep(11 * time.Second)
		if _, err := io.Copy(io.Discard, spinner.Reader(strings.NewReader("12345"))); err != nil {
			t.Error(err)
		}
		spinner.Drop()
		d.Close()
		d.Say("and %s", "more")
		want := `app.tar: 29.0 MiB of 100.0 MiB, 921.6 KiB/s, 1m19s left
app.tar: 39.0 MiB of 100.0 MiB, 972.8 KiB/s, 1m4s left
app.tar: 49.0 MiB of 100.0 MiB, 989.9 KiB/s, 53s left
app.tar: 59.0 MiB of 100.0 MiB, 998.4 KiB/s, 42s left
app.tar: 69.0 MiB of 100.0 MiB, 1003.5 KiB/s, 32s left
app.tar: stored
export: 5 B
and more
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestNothingWhenItIsToBeQuiet(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := New(Options{Out: &out, Quiet: true})
	b := d.Bar("app.tar", 10)
	b.Add(5)
	b.Done("stored")
	d.Say("words")
	if out.Len() > 0 {
		t.Errorf("said: %q", out.String())
	}
	d.Warn("a warning")
	if out.String() != "a warning\n" {
		t.Errorf("said: %q, want the warning", out.String())
	}
	d.Close()
}
