// Package places bounds how many requests do the same costly thing at once: a
// Set has so many places for it, a queue before them that is no longer than it
// should be, and an end to the waiting. Who gets no place is told to come again.
package places

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tarport/tarport"
)

// Set is a number of places. Strangers have half of them at most, and of the
// queue too: so many of them as may come cannot keep out who is logged in.
type Set struct {
	o         Options
	all       lane
	strangers lane
}

// Options of New; all are required.
type Options struct {
	Places int           // how many there are
	Queue  int           // how many more may wait
	Wait   time.Duration // and how long
	Busy   string        // what the places are taken by, for who gets none: "archives are being read"
}

// lane is what a request goes through to its place.
type lane struct {
	queue chan struct{} // holds one for each who has a place or waits for one
	taken chan struct{} // holds one for each who has a place
}

func newLane(places, queue int) lane {
	return lane{queue: make(chan struct{}, places+queue), taken: make(chan struct{}, places)}
}

// New returns a Set.
func New(o Options) *Set {
	return &Set{o: o, all: newLane(o.Places, o.Queue), strangers: newLane((o.Places+1)/2, o.Queue/2)}
}

// Take returns when there is a place; leave gives it back, and does nothing the
// second time. UNAVAILABLE where there is none for too long, or too many wait
// already. The principal of ctx tells who comes.
func (s *Set) Take(ctx context.Context) (leave func(), err error) {
	lanes := []lane{s.all}
	if tarport.PrincipalFrom(ctx).Anonymous() {
		lanes = []lane{s.strangers, s.all}
	}
	t := time.NewTimer(s.o.Wait)
	defer t.Stop()
	var held []chan struct{}
	leave = sync.OnceFunc(func() {
		for _, c := range held {
			<-c
		}
	})
	for _, l := range lanes {
		if err := s.enter(ctx, l, t.C); err != nil {
			leave()
			return nil, err
		}
		held = append(held, l.taken, l.queue)
	}
	return leave, nil
}

// Counts tells how many places there are, how many are taken, and how many
// wait for one.
func (s *Set) Counts() (places, taken, waiting int) {
	taken = len(s.all.taken)
	return s.o.Places, taken, max(len(s.all.queue)-taken, 0)
}

func (s *Set) enter(ctx context.Context, l lane, over <-chan time.Time) (err error) {
	select {
	case l.queue <- struct{}{}:
	default:
		return s.busy()
	}
	select {
	case l.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-over:
		err = s.busy()
	}
	<-l.queue
	return err
}

func (s *Set) busy() error {
	return tarport.Errorf(tarport.Unavailable, "%s, which is as many as the registry does at once: try again", fmt.Sprintf("%d %s", s.o.Places, s.o.Busy))
}
