package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarport/tarport"
)

func TestArchivesWaitForAPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeService(t, &fakeStore{}, func(o *Options) { o.Concurrent = 2 })
		user := tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1})
		body := docker("a/b:1", layerOf("x")).pack()
		slow, write := io.Pipe() // the first two never get their end
		var loaded, busy atomic.Int32
		load := func(ctx context.Context, r io.Reader) {
			switch _, err := s.Load(ctx, r, request()); tarport.ErrorCode(err) {
			case "":
				loaded.Add(1)
			case tarport.Unavailable:
				busy.Add(1)
			}
		}
		for range 2 {
			go load(user, io.MultiReader(bytes.NewReader(body[:512]), slow))
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(user)
		for range 8 {
			go load(ctx, bytes.NewReader(body))
		}
		synctest.Wait()
		load(user, bytes.NewReader(body)) // more do not wait
		if busy.Load() != 1 {
			t.Errorf("%d were told at once that the registry is busy, want one", busy.Load())
		}
		cancel()
		synctest.Wait()
		began := time.Now()
		load(user, bytes.NewReader(body))
		if busy.Load() != 2 || time.Since(began) != time.Minute {
			t.Errorf("%d were told that the registry is busy, after %s; want 2 after %s", busy.Load(), time.Since(began), time.Minute)
		}
		go load(user, bytes.NewReader(body))
		synctest.Wait()
		if err := write.CloseWithError(errors.New("gone")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if loaded.Load() != 1 {
			t.Errorf("%d archives were loaded, want the one that waited", loaded.Load())
		}
	})
}
