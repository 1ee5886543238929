package archive

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// placeWait is how long a request waits for others to end before it is told to
// come again, and placeQueue how many wait for each that is at work.
const (
	placeWait  = time.Minute
	placeQueue = 4
)

// places bounds how many archives are read at once, or layers are packed anew:
// each takes some MiB, and a processor. Who comes when all are taken waits, with
// the body unread, and not for long: those before may be on thin lines.
type places struct {
	busy  string        // what is done there, for who gets none: "%d archives are being read"
	taken chan struct{} // holds one for each who has a place
	queue chan struct{} // holds one for each who has or waits for one
	wait  time.Duration
}

func newPlaces(n int, busy string) *places {
	return &places{fmt.Sprintf(busy, n), make(chan struct{}, n), make(chan struct{}, n*(1+placeQueue)), placeWait}
}

// take returns when there is a place; leave gives it back. UNAVAILABLE where
// there is none for too long.
func (p *places) take(ctx context.Context) (leave func(), err error) {
	busy := tarport.Errorf(tarport.Unavailable, "%s, which is as many as the registry does at once: try again", p.busy)
	select {
	case p.queue <- struct{}{}:
	default:
		return nil, busy
	}
	t := time.NewTimer(p.wait)
	defer t.Stop()
	select {
	case p.taken <- struct{}{}:
		return sync.OnceFunc(func() { <-p.taken; <-p.queue }), nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
		err = busy
	}
	<-p.queue
	return nil, err
}

// newBatch begins what an archive brings, when there is a place for it.
func (s *Service) newBatch(ctx context.Context) (Batch, error) {
	leave, err := s.places.take(ctx)
	if err != nil {
		return nil, err
	}
	b, err := s.o.Store.NewBatch(ctx)
	if err != nil {
		leave()
		return nil, err
	}
	return placedBatch{b, leave}, nil
}

// placedBatch gives its place back when it is closed.
type placedBatch struct {
	Batch
	leave func()
}

var (
	_ charger    = placedBatch{}
	_ indexBatch = placedBatch{}
)

func (b placedBatch) Charge(namespace string) {
	if c, ok := b.Batch.(charger); ok {
		c.Charge(namespace)
	}
}

func (b placedBatch) CreateIndex(ctx context.Context) (*storage.StagedIndex, error) {
	if x, ok := b.Batch.(indexBatch); ok {
		return x.CreateIndex(ctx)
	}
	return nil, nil
}

func (b placedBatch) Close() error {
	defer b.leave()
	return b.Batch.Close()
}
