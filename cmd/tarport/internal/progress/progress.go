// Package progress shows how far a transfer has come: bars on a terminal, a
// line now and then where there is none, and nothing when it is to be quiet.
// All of it goes to standard error: standard output is for data.
package progress

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Options of New.
type Options struct {
	Out   io.Writer // required; bars where it is a terminal
	Quiet bool      // only Warn is shown
}

// Display shows progress. It is safe for concurrent use.
type Display struct {
	quiet   bool
	refresh chan any // draws
	ending  chan struct{}
	ended   sync.WaitGroup

	mu   sync.Mutex
	bars *mpb.Progress // nil where there is no terminal, or not any more
	out  io.Writer
}

// New returns a Display; Close ends it.
func New(o Options) *Display {
	d := &Display{out: o.Out, quiet: o.Quiet}
	f, ok := o.Out.(*os.File)
	if !ok || o.Quiet || !term.IsTerminal(int(f.Fd())) {
		return d
	}
	if w, h, err := term.GetSize(int(f.Fd())); err != nil || w < 20 || h < 2 {
		return d // nothing can be drawn there
	}
	d.refresh, d.ending = make(chan any), make(chan struct{})
	d.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(30), mpb.WithManualRefresh(d.refresh), mpb.PopCompletedMode())
	d.ended.Go(d.draw)
	return d
}

// drawEvery is how often bars are drawn.
const drawEvery = 150 * time.Millisecond

// draw draws the bars until Close. The library's own ticker would not draw what
// was written just before the end.
func (d *Display) draw() {
	t := time.NewTicker(drawEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.refresh <- nil
		case <-d.ending:
			// A bar that is done is drawn, moved up, and left there.
			for range 3 {
				d.refresh <- nil
			}
			return
		}
	}
}

// Close draws the last state of the bars and ends them. What is said later is
// written as it comes.
func (d *Display) Close() {
	d.mu.Lock()
	bars := d.bars
	d.bars = nil
	d.mu.Unlock()
	if bars == nil {
		return
	}
	close(d.ending)
	d.ended.Wait()
	bars.Shutdown()
}

// Say writes a line for people, above the bars.
func (d *Display) Say(format string, args ...any) {
	if !d.quiet {
		d.Warn(format, args...)
	}
}

// Warn writes a line that is shown also when it is to be quiet.
func (d *Display) Warn(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.out
	if d.bars != nil {
		out = d.bars
	}
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}

// every is how often a line tells of a transfer where there is no terminal.
const every = 10 * time.Second

// Bar is one thing that takes its time.
type Bar struct {
	d     *Display
	label string
	bar   *mpb.Bar
	begun time.Time
	words atomic.Pointer[string]

	skipped atomic.Int64

	mu    sync.Mutex
	total int64
	now   int64
	said  time.Time
	done  bool
}

// Bar begins a bar of total bytes; of an unknown number where total is 0.
func (d *Display) Bar(label string, total int64) *Bar {
	now := time.Now()
	b := &Bar{d: d, label: label, total: total, begun: now, said: now}
	d.mu.Lock()
	bars := d.bars
	d.mu.Unlock()
	if bars == nil {
		return b
	}
	numbers := decor.Any(func(s decor.Statistics) string {
		if words := b.words.Load(); words != nil {
			return *words
		}
		return b.numbers(s.Current, s.Total)
	}, decor.WC{C: decor.DindentRight})
	options := []mpb.BarOption{
		mpb.PrependDecorators(decor.Name(label, decor.WCSyncSpaceR)), mpb.AppendDecorators(numbers),
		mpb.BarFillerClearOnComplete(), mpb.BarFillerClearOnAbort(),
	}
	if total > 0 {
		b.bar = bars.AddBar(total, options...)
	} else {
		b.bar = bars.AddSpinner(0, options...)
	}
	return b
}

// numbers are what stands beside a bar.
func (b *Bar) numbers(now, total int64) string {
	if total <= 0 {
		return Bytes(now)
	}
	text := Bytes(now) + " of " + Bytes(total)
	passed, come := time.Since(b.begun), now-b.skipped.Load()
	if come <= 0 || now >= total || passed < 2*time.Second {
		return text
	}
	left := time.Duration(float64(passed) / float64(come) * float64(total-now)).Round(time.Second)
	return fmt.Sprintf("%s, %s/s, %s left", text, Bytes(int64(float64(come)/passed.Seconds())), left)
}

// Skip counts what was there before as no work of now.
func (b *Bar) Skip(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = n
	b.skipped.Store(n)
	if b.bar != nil {
		b.bar.SetRefill(n)
		b.bar.SetCurrent(n)
	}
}

// Set tells how far it has come.
func (b *Bar) Set(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = n
	switch now := time.Now(); {
	case b.done:
	case b.bar != nil:
		b.bar.SetCurrent(min(n, max(b.total-1, 0))) // the end is Done's
	case now.Sub(b.said) >= every:
		b.said = now
		b.d.Say("%s: %s", b.label, b.numbers(n, b.total))
	}
}

// Add tells that n more bytes have come.
func (b *Bar) Add(n int64) {
	b.mu.Lock()
	now := b.now + n
	b.mu.Unlock()
	b.Set(now)
}

// Done ends the bar with words, such as "stored".
func (b *Bar) Done(words string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	b.done = true
	if b.bar == nil {
		b.d.Say("%s: %s", b.label, words)
		return
	}
	b.words.Store(&words)
	if b.total > 0 {
		b.bar.SetCurrent(b.total)
	} else {
		b.bar.SetTotal(-1, true)
	}
}

// Drop ends the bar without a trace.
func (b *Bar) Drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done = true; b.bar != nil {
		b.bar.Abort(true)
	}
}

// Reader counts what is read of r.
func (b *Bar) Reader(r io.Reader) io.Reader { return &counted{b, r} }

type counted struct {
	b *Bar
	r io.Reader
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.b.Add(int64(n))
	return n, err
}

// Bytes is a number of bytes as people read it.
func Bytes(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n), "KMGTPE"
	for f >= 1<<10 && units != "" {
		f /= 1 << 10
		if f < 1<<10 {
			break
		}
		units = units[1:]
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[:1] + "iB"
}
