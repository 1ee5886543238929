package archive

import (
	"context"
	"time"

	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage"
)

// newPlaces bounds how many requests do the same at once, each of which takes
// some MiB, and a processor. Who comes when all places are taken waits, with the
// body unread, and not for long: those before may be on thin lines.
func newPlaces(n int, busy string) *places.Set {
	return places.New(places.Options{Places: n, Queue: 4 * n, Wait: time.Minute, Busy: busy})
}

// newBatch begins what an archive brings, when there is a place for it.
func (s *Service) newBatch(ctx context.Context) (Batch, error) {
	leave, err := s.places.Take(ctx)
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
