package auth

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// stateAge is how old what is known of users, tokens and rights may be: who is
// removed, disabled or deleted, and a token that is revoked, end within it on
// every replica. What this process itself changes counts at once: it begins
// another epoch (metadata.DB.RightsEpoch).
const stateAge = 5 * time.Second

// memory keeps what was read a short time ago.
type memory[K comparable, V any] struct {
	entries *lru[K, remembered[V]]
	reads   singleflight.Group
}

type remembered[V any] struct {
	value  V
	epoch  uint64
	readAt time.Time
}

func newMemory[K comparable, V any](size int) *memory[K, V] {
	return &memory[K, V]{entries: newLRU[K, remembered[V]](size)}
}

// recall returns what read returns, or what it returned in this epoch and not
// stateAge ago. Only what keep says is kept. It is a function since methods
// have no type parameters of their own.
func recall[K comparable, V any](ctx context.Context, s *Service, m *memory[K, V], key K, read func(context.Context) (v V, keep bool, err error)) (V, error) {
	// Both before the reading, or it would count as newer than it is.
	epoch, now := s.db.RightsEpoch(), s.now()
	if e, ok := m.entries.get(key); ok && e.epoch == epoch && now.Sub(e.readAt) < stateAge && !now.Before(e.readAt) {
		return e.value, nil
	}
	got, err, _ := m.reads.Do(fmt.Sprint(epoch, key), func() (any, error) {
		v, keep, err := read(context.WithoutCancel(ctx))
		if err == nil && keep {
			m.entries.put(key, remembered[V]{v, epoch, now})
		}
		return v, err
	})
	if err != nil {
		var none V
		return none, err
	}
	return got.(V), nil
}

// user returns the account of an id; without an id where there is none.
func (s *Service) user(ctx context.Context, id int64) (metadata.User, error) {
	return recall(ctx, s, s.users, id, func(ctx context.Context) (metadata.User, bool, error) {
		u, err := s.db.UserByID(ctx, id)
		if tarport.ErrorCode(err) == tarport.NotFound {
			return metadata.User{}, true, nil
		}
		return u, true, err
	})
}

// accessToken returns the personal access token of an id; without an id where
// there is none (any more).
func (s *Service) accessToken(ctx context.Context, id int64) (metadata.AccessToken, error) {
	return recall(ctx, s, s.pats, id, func(ctx context.Context) (metadata.AccessToken, bool, error) {
		t, err := s.db.AccessTokenByID(ctx, id)
		if tarport.ErrorCode(err) == tarport.NotFound {
			return metadata.AccessToken{}, true, nil
		}
		return t, true, err
	})
}

type rightsKey struct {
	user      int64
	namespace string
}

// rightsIn returns what a user is in a namespace. That there is none is not
// kept: it may come with the next push.
func (s *Service) rightsIn(ctx context.Context, user int64, namespace string) (metadata.Rights, error) {
	return recall(ctx, s, s.rights, rightsKey{user, namespace}, func(ctx context.Context) (metadata.Rights, bool, error) {
		r, err := s.db.Rights(ctx, user, namespace)
		return r, r.Exists, err
	})
}
