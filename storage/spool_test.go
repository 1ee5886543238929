package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/tarport/tarport"
)

// TestASpoolGivesBackWhatWasNotTakenBack writes pieces of all sizes, takes some
// back, and reads the others in any order.
func TestASpoolGivesBackWhatWasNotTakenBack(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		r := rand.New(rand.NewPCG(1, 2))
		p, err := s.NewSpool(t.Context())
		check(t, "NewSpool", err)
		defer p.Discard()
		type piece struct {
			at   int64
			want []byte
		}
		var kept []piece
		for i := range 100 {
			b := bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, []int{0, 1, 100, 10_000, spoolTail / 2}[r.IntN(5)])
			at := p.Mark()
			for rest := b; len(rest) > 0; {
				n, err := p.Write(rest[:min(len(rest), 70_000)])
				check(t, "Write", err)
				rest = rest[n:]
			}
			if r.IntN(3) > 0 {
				check(t, "Rewind", p.Rewind(at))
				continue
			}
			kept = append(kept, piece{at, b})
		}
		f, err := p.Open()
		check(t, "Open", err)
		defer func() { check(t, "close", f.Close()) }()
		r.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
		for _, k := range kept {
			_, err := f.Seek(k.at, io.SeekStart)
			check(t, "Seek", err)
			got := make([]byte, len(k.want))
			_, err = io.ReadFull(f, got)
			check(t, "read", err)
			if !bytes.Equal(got, k.want) {
				t.Fatalf("the piece at %d of %d bytes is another", k.at, len(k.want))
			}
		}
	})
}

func TestASpoolLeavesNothing(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		for _, use := range []func(p *Spool){
			func(*Spool) {},
			func(p *Spool) { _, _ = p.Write(make([]byte, 3*spoolTail)) },
			func(p *Spool) {
				r, err := p.Open() // of nothing
				check(t, "Open", err)
				b, err := io.ReadAll(r)
				if check(t, "read", errors.Join(err, r.Close())); len(b) != 0 {
					t.Errorf("%d bytes in an empty spool", len(b))
				}
			},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			p, err := s.NewSpool(ctx)
			check(t, "NewSpool", err)
			use(p)
			cancel()
			p.Discard()
		}
		s.wantNothingStaged(t)
	})
}

func TestASpoolStopsWhereTheDiskIsFull(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	p, err := s.NewSpool(t.Context())
	check(t, "NewSpool", err)
	defer p.Discard()
	s.disk.minFree, s.disk.paths = 1, []string{s.root}
	s.disk.free = func(string) (int64, bool, error) { return spoolTail, true, nil }
	_, err = p.Write(make([]byte, 2*spoolTail))
	wantCode(t, "Write", err, tarport.InsufficientStorage)
	_, err = p.Open()
	wantCode(t, "Open", err, tarport.InsufficientStorage)
}
