package places

import (
	"context"
	"sync"

	"github.com/tarport/tarport"
)

// Room is what requests may hold together for as long as their clients take,
// such as bytes of memory. Nobody waits for it: who holds some may take hours.
// Strangers have half of it at most.
type Room struct {
	max  int64
	busy string

	mu              sync.Mutex
	used, strangers int64
}

// NewRoom returns a Room of so many units. busy is why there is no more, for who
// gets none: "too many archives are being sent".
func NewRoom(units int64, busy string) *Room { return &Room{max: units, busy: busy} }

// Share is what one request holds of a Room. It is for one goroutine at a time.
type Share struct {
	room     *Room
	stranger bool
	held     int64
}

// Enter returns an empty Share for the principal of ctx; Leave gives it back.
func (r *Room) Enter(ctx context.Context) *Share {
	return &Share{room: r, stranger: tarport.PrincipalFrom(ctx).Anonymous()}
}

// Take takes n units more, or gives some back where n is negative. UNAVAILABLE
// where there are not so many left: then nothing is taken.
func (s *Share) Take(n int64) error {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && (n > r.max-r.used || s.stranger && n > r.max/2-r.strangers) {
		return tarport.Errorf(tarport.Unavailable, "%s: try again later", r.busy)
	}
	s.held += n
	r.used += n
	if s.stranger {
		r.strangers += n
	}
	return nil
}

// Leave gives everything back; nothing the second time, and on nil.
func (s *Share) Leave() {
	if s != nil {
		_ = s.Take(-s.held) // never refused
	}
}
