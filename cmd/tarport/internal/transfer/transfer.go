// Package transfer moves archives between this machine and a registry, so that
// a connection that breaks costs little: what can be gone on with is gone on
// with, within one run and by the next one.
//
//	File ── Look ──> what is in it ── ask which layers are missing ──┐
//	                                                                 v
//	small, or a stream:  POST archives/load <── the file, or the file without known layers
//	large:               tus: POST uploads, PATCH part after part, HEAD after a break
//	                     └─> POST archives/load?upload=ID
//	States: which upload belongs to which file, for the run after a Ctrl-C
//
// The registry decides what is right; nothing is checked here.
package transfer

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/internal/client"
)

// Resume says when an upload is made in parts that can be gone on with.
type Resume string

// The values of Resume: only what is large, all files, none.
const (
	ResumeAuto   Resume = "auto"
	ResumeAlways Resume = "always"
	ResumeNever  Resume = "never"
)

// The defaults of Options. A part is smaller than what common proxies take as
// one body (100 MB), and large enough that its round trip does not matter.
const (
	DefaultThreshold = 128 << 20
	DefaultPart      = 64 << 20
	minPart          = 1 << 20
)

// Options of New.
type Options struct {
	Client  *client.Client    // required
	Display *progress.Display // required
	// States keeps what the next run needs to go on; nil where nothing is kept.
	States *States
	Resume Resume // ResumeAuto where ""
	// Threshold is from how many bytes on an upload is made in parts.
	Threshold int64
	// Part is the size of one.
	Part int64
	// Wait waits before the next try; by a timer where nil.
	Wait func(context.Context, time.Duration) error
}

// Mover sends archives, and fetches them. It may be used for one transfer after
// the other.
type Mover struct{ o Options }

// New returns a Mover.
func New(o Options) *Mover {
	if o.Resume == "" {
		o.Resume = ResumeAuto
	}
	if o.Threshold == 0 {
		o.Threshold = DefaultThreshold
	}
	if o.Part == 0 {
		o.Part = DefaultPart
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	return &Mover{o}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// tries counts the tries of something that makes no progress.
type tries struct {
	m *Mover
	n int
}

// maxTries are about three minutes: a server that is restarted, a train in a
// tunnel.
const maxTries = 10

// again waits before the next try after err; or returns the error that is to be
// given up with.
func (t *tries) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t.n++; t.n > maxTries {
		return err
	}
	delay := min(500*time.Millisecond<<(t.n-1), 30*time.Second)
	delay += time.Duration(rand.Int64N(int64(delay / 4))) //nolint:gosec // only that not all come at once
	if e, ok := errors.AsType[*client.Error](err); ok && e.Wait > delay {
		delay = min(e.Wait, time.Minute)
	}
	t.m.o.Display.Say("%s; trying again in %s", err, delay.Round(100*time.Millisecond))
	return t.m.o.Wait(ctx, delay)
}

// progressed tells that it goes on.
func (t *tries) progressed() { t.n = 0 }
