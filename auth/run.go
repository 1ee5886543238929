package auth

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// tick is how often Run looks what there is to do.
const tick = time.Minute

// Run makes new signing keys when it is time, and writes down when tokens were
// used last, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		if err := s.keys.rotate(ctx, s.keyLife); err != nil && ctx.Err() == nil {
			s.log.LogAttrs(ctx, slog.LevelError, "rotation of the signing keys failed", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return s.noteUses(context.WithoutCancel(ctx))
		case <-t.C:
			if err := s.noteUses(ctx); err != nil && !errors.Is(err, context.Canceled) {
				s.log.LogAttrs(ctx, slog.LevelError, "the use of tokens was not noted", slog.Any("err", err))
			}
		}
	}
}
