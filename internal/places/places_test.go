package places

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarport/tarport"
)

func user(t *testing.T) context.Context {
	t.Helper()
	return tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1})
}

// take takes n places, or waits for them.
func take(ctx context.Context, t *testing.T, s *Set, n int) (leave []func()) {
	t.Helper()
	for range n {
		fn, err := s.Take(ctx)
		if err != nil {
			t.Fatalf("Take: %v", err)
		}
		leave = append(leave, fn)
	}
	return leave
}

func wantBusy(ctx context.Context, t *testing.T, s *Set, after time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := s.Take(ctx)
	if tarport.ErrorCode(err) != tarport.Unavailable || !strings.Contains(err.Error(), "things are done") {
		t.Errorf("Take = %v, want UNAVAILABLE", err)
	}
	if took := time.Since(began); took != after {
		t.Errorf("refused after %s, want %s", took, after)
	}
}

func TestWhoComesThenWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Places: 2, Queue: 3, Wait: time.Minute, Busy: "things are done"})
		leave := take(user(t), t, s, 2)
		wantBusy(user(t), t, s, time.Minute)
		ctx, cancel := context.WithCancel(user(t))
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				fn, err := s.Take(ctx)
				if err == nil {
					defer fn()
				}
				errs <- err
			}()
		}
		synctest.Wait()
		wantBusy(user(t), t, s, 0) // more do not wait
		if all, taken, waiting := s.Counts(); taken != all || waiting != 3 {
			t.Errorf("Counts = %d, %d, %d; want all taken and 3 waiting", all, taken, waiting)
		}
		leave[0]()
		leave[0]()
		synctest.Wait()
		for range 3 { // one after the other in the place that is free
			if err := <-errs; err != nil {
				t.Errorf("Take after another left: %v", err)
			}
		}
		leave = append(leave, take(user(t), t, s, 1)...)
		go func() {
			_, err := s.Take(ctx)
			errs <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("Take of who went away = %v", err)
		}
		for _, fn := range leave {
			fn()
		}
		if len(s.all.queue)+len(s.all.taken) != 0 {
			t.Errorf("%d wait and %d places are taken, want none", len(s.all.queue), len(s.all.taken))
		}
	})
}

func TestStrangersLeavePlacesToUsers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Places: 4, Queue: 4, Wait: time.Second, Busy: "things are done"})
		leave := take(t.Context(), t, s, 2)
		wantBusy(t.Context(), t, s, time.Second)
		more := take(user(t), t, s, 2)
		wantBusy(user(t), t, s, time.Second)
		for _, fn := range more {
			fn()
		}
		leave[0]()
		leave = append(leave, take(user(t), t, s, 3)...)
		wantBusy(t.Context(), t, s, time.Second) // a place of strangers, but none at all
		for _, fn := range leave {
			fn()
		}
		if n := len(s.all.queue) + len(s.strangers.queue) + len(s.all.taken) + len(s.strangers.taken); n != 0 {
			t.Errorf("%d are still taken", n)
		}
	})
}
