package places

import (
	"testing"

	"github.com/tarport/tarport"
)

func TestARoomIsShared(t *testing.T) {
	t.Parallel()
	r := NewRoom(10, "all is taken")
	a, b, stranger := r.Enter(user(t)), r.Enter(user(t)), r.Enter(t.Context())
	for i, c := range []struct {
		share *Share
		n     int64
		ok    bool
	}{
		{a, 6, true},
		{a, 5, false},
		{a, 4, true},
		{b, 1, false},
		{b, 0, true},
		{a, -5, true},
		{stranger, 6, false},
		{stranger, 4, true},
		{r.Enter(t.Context()), 2, false},
		{b, 1, true},
		{stranger, 1, false},
		{stranger, -1, true},
		{b, 1, true},
	} {
		if err := c.share.Take(c.n); (err == nil) != c.ok || err != nil && tarport.ErrorCode(err) != tarport.Unavailable {
			t.Errorf("%d: Take(%d) with %d of 10 used = %v, want it to be possible: %t", i, c.n, r.used, err, c.ok)
		}
	}
	for range 2 {
		for _, s := range []*Share{a, b, stranger, nil} {
			s.Leave()
		}
	}
	if r.used != 0 || r.strangers != 0 {
		t.Errorf("%d are used, %d by strangers, want none", r.used, r.strangers)
	}
}
