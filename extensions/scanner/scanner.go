// Package scanner looks into the layers of images in the background, so that
// lists of tags can say what an image is built on.
//
//	a push, a load ──> rows of layers, pending ──┐
//	Store.Pushed, or now and then ─> claim ──────┴─> Store.IndexLayer ─> diffID, index, facts
//	                                                       │
//	images none of whose layers is pending  <── Store.SettleImages ──> base, packages
//
// A layer is read once, whichever images have it, and not at all where the
// facts of another blob of its diffID are known. One worker of one replica has
// it at a time: the claim is a row with a time limit, so what a crash leaves is
// taken up again. What is wrong with a layer is recorded and not tried again;
// trouble with the storage is, a bounded number of times.
package scanner

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
)

// Options of New.
type Options struct {
	Store *storage.Store // required
	DB    *metadata.DB   // required

	// Workers is how many layers are read at once; 1 where 0.
	Workers int
	// Rate is how many plain bytes a second a worker reads; 0 is no limit.
	Rate int64
	// Poll is how often to look for what other replicas took in, and for what
	// is to be tried again; 15 s where 0.
	Poll time.Duration
	Log  *slog.Logger     // slog.Default where nil
	Now  func() time.Time // time.Now where nil; the database's
}

const (
	// lease is how long a claim counts that nobody prolongs.
	lease = time.Minute
	// attempts is how often a layer is tried that the storage does not give
	// out, or over which the process ended. In the first case it is tried again
	// when the process starts anew.
	attempts = 8
	// backoff is the pause after the first try, doubled with each: about an
	// hour in all.
	backoff = 30 * time.Second
)

// Scanner looks into layers.
type Scanner struct {
	o    Options
	wake chan struct{} // one value for each worker that may sleep
}

// New returns a Scanner.
func New(o Options) (*Scanner, error) {
	if o.Store == nil || o.DB == nil {
		return nil, errors.New("scanner: a store and a database are required")
	}
	o.Workers = max(o.Workers, 1)
	if o.Poll == 0 {
		o.Poll = 15 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Scanner{o: o, wake: make(chan struct{}, o.Workers)}, nil
}

// Run works until ctx ends. Layers that are being read then are given back.
func (s *Scanner) Run(ctx context.Context) error {
	if err := s.o.DB.ResumeLayers(ctx, attempts, scan.Prefix); err != nil && ctx.Err() == nil {
		s.warn(ctx, "pending layers were not taken up", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for range s.o.Workers {
		g.Go(func() error {
			s.work(ctx)
			return nil
		})
	}
	g.Go(func() error {
		s.watch(ctx)
		return nil
	})
	return g.Wait()
}

// watch wakes the workers, and settles the images whose layers were known
// before they came.
func (s *Scanner) watch(ctx context.Context) {
	poll := time.NewTicker(s.o.Poll)
	defer poll.Stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	resting, due := true, true // rest runs; there may be something to settle
	for {
		s.wakeAll()
		if due && !resting {
			took := s.settle(ctx)
			resting, due = true, false
			rest.Reset(10 * took) // it looks at all that is pending, which can be much
		}
		select {
		case <-ctx.Done():
			return
		case <-rest.C:
			resting = false
		case <-poll.C:
			due = true
		case <-s.o.Store.Pushed():
			due = true
		}
	}
}

// settle settles images, counts layers, and tells how long that took.
func (s *Scanner) settle(ctx context.Context) time.Duration {
	begun := time.Now()
	if n, err := s.o.Store.SettleImages(ctx, ""); err != nil {
		s.warn(ctx, "what images are built on was not recorded", err)
	} else if n > 0 {
		s.o.Log.LogAttrs(ctx, slog.LevelDebug, "images settled", slog.Int("count", n))
	}
	return time.Since(begun)
}

func (s *Scanner) wakeAll() {
	for range s.o.Workers {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// work takes layers until ctx ends.
func (s *Scanner) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for ctx.Err() == nil {
			found, err := s.next(ctx)
			if err != nil {
				s.warn(ctx, "a layer was not looked into", err)
			}
			if err != nil || !found {
				break
			}
		}
	}
}

func (s *Scanner) warn(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, what, slog.Any("err", err)) //nolint:sloglint // the callers have literals
	}
}

// next looks into one layer; false where none waits.
func (s *Scanner) next(ctx context.Context) (found bool, err error) {
	short, cancel := shortly(ctx)
	c, found, err := s.o.DB.ClaimLayer(short, rand.Text(), s.o.Now().Add(lease))
	cancel()
	if err != nil || !found {
		return false, err
	}
	held, err := s.look(ctx, c)
	if err != nil || !held {
		return true, err
	}
	_, err = s.o.Store.SettleImages(ctx, c.Digest)
	return true, err
}

// shortly returns a context for what is done to the end also where the process
// is about to stop: a row of the database.
func shortly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
}

// look looks into a layer and records what came of it; false where there is
// nothing new.
func (s *Scanner) look(ctx context.Context, c metadata.LayerClaim) (recorded bool, err error) {
	if c.Attempts > attempts {
		return s.o.DB.FailLayer(ctx, c, fmt.Sprintf("the registry ended %d times while it read this layer", attempts))
	}
	diffID, facts, err := s.read(ctx, c)
	ended := ctx.Err() != nil || errors.Is(err, context.Canceled)
	ctx, cancel := shortly(ctx)
	defer cancel()
	switch {
	case err == nil:
		return s.o.DB.FinishLayer(ctx, c, diffID, facts)
	case ended:
		return false, s.o.DB.ReleaseLayer(ctx, c)
	case tarport.ErrorCode(err) == tarport.ManifestInvalid:
		return s.o.DB.FailLayer(ctx, c, message(err))
	}
	s.o.Log.LogAttrs(ctx, slog.LevelWarn, "a layer cannot be read now",
		slog.String("digest", c.Digest.String()), slog.Int("attempt", c.Attempts), slog.Any("err", err))
	if c.Attempts == attempts {
		return s.o.DB.FailLayer(ctx, c, fmt.Sprintf("given up after %d attempts: %s", attempts, message(err)))
	}
	return false, s.o.DB.RetryLayer(ctx, c, message(err), s.o.Now().Add(backoff<<(c.Attempts-1)))
}

// read returns the diffID and the facts of a layer: from where they are known,
// if its index is there as well.
func (s *Scanner) read(ctx context.Context, c metadata.LayerClaim) (digest.Digest, string, error) {
	if c.DiffID != "" {
		facts, found, err := s.o.DB.FactsOfDiffID(ctx, c.DiffID, scan.Prefix)
		if err == nil && found {
			found, err = s.indexed(ctx, c.DiffID)
		}
		if err != nil || found {
			return c.DiffID, facts, err
		}
	}
	rate := s.o.Rate
	if c.Known { // nobody waits for it
		rate /= 4
	}
	ctx, release := s.hold(ctx, c)
	defer release()
	collector := scan.NewCollector()
	diffID, err := s.o.Store.IndexLayer(ctx, c.Digest, collector, &pace{ctx: ctx, rate: rate})
	if err != nil {
		return "", "", err
	}
	layer := collector.Layer()
	if err := collector.Err(); err != nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "a layer brought the scanner to a mistake of its own; please report it",
			slog.String("digest", c.Digest.String()), slog.Any("err", err))
		return "", "", storage.ErrMistake
	}
	facts, err := json.Marshal(layer)
	if err != nil {
		return "", "", fmt.Errorf("encode the facts of layer %s: %w", c.Digest, err)
	}
	return diffID, string(facts), nil
}

// indexed tells whether there is an index of a layer.
func (s *Scanner) indexed(ctx context.Context, diffID digest.Digest) (bool, error) {
	x, err := s.o.Store.OpenIndex(ctx, diffID)
	switch {
	case tarport.ErrorCode(err) == tarport.NotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	return true, x.Close()
}

// hold prolongs a claim until release is called. The context that it returns
// ends where the claim is lost.
func (s *Scanner) hold(ctx context.Context, c metadata.LayerClaim) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(lease / 4)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			held, err := s.o.DB.HoldLayer(ctx, c, s.o.Now().Add(lease))
			if err == nil && !held {
				cancel()
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}

// message is an error for users: that of the registry's own errors, and nothing
// of others.
func message(err error) string {
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e.Message
	}
	return "the registry's storage could not give out its bytes"
}
