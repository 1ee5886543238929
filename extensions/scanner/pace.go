package scanner

import (
	"context"
	"time"
)

// pace is a writer that takes no more bytes a second than its rate, and so
// holds up who reads a layer, that it leaves something of the machine to others.
type pace struct {
	ctx  context.Context //nolint:containedctx // io.Writer has no other way
	rate int64           // bytes a second; 0 is no limit
	next time.Time       // when what passed has had its time
}

func (p *pace) Write(b []byte) (int, error) {
	if p.rate <= 0 {
		return len(b), nil
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(len(b)) / float64(p.rate) * float64(time.Second)))
	d := p.next.Sub(now)
	if d < 2*time.Millisecond { // timers are no finer
		return len(b), nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	case <-t.C:
		return len(b), nil
	}
}
