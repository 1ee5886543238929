package storage

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Puller is who fetches a manifest.
type Puller struct {
	UserID  int64 // 0 for the stranger
	Address netip.Addr
	Robot   bool
}

// Resolved is told of a HEAD of a tag. It counts for nothing by itself, but
// containerd (Docker 29's store too) resolves a tag so and fetches the manifest
// by its digest: that is then a pull of the tag.
func (s *Store) Resolved(by Puller, repository, tag string, dgst digest.Digest) {
	s.pulls.resolved(by, repository, tag, dgst, s.o.Now())
}

// Pulled counts a GET of a manifest: for the manifest, and for the tag by which
// it was asked for. It only notes it; Run writes the notes down.
func (s *Store) Pulled(by Puller, repository string, ref tarport.Reference, dgst digest.Digest) {
	s.pulls.pulled(by, repository, ref, dgst, s.o.Now())
}

const (
	pullsEvery  = 10 * time.Second
	maxPulls    = 1 << 16 // that are noted at once; of more only those that are noted already are counted
	pullsAtOnce = 200     // in one transaction
	resolvedFor = 5 * time.Minute
	maxResolved = 1 << 13
)

// pulls are the pulls that are not written down yet.
type pulls struct {
	mu     sync.Mutex
	counts map[pullKey]*metadata.PullCount
	full   chan struct{} // gets a value when there is much to write down

	// What was resolved lately, in two generations: the older one goes as a
	// whole.
	young, old map[resolution]string // the tag
	since      time.Time             // when young began
}

type pullKey struct {
	repository string
	ref        tarport.Reference
}

type resolution struct {
	by         Puller
	repository string
	digest     digest.Digest
}

func newPulls() *pulls {
	return &pulls{counts: map[pullKey]*metadata.PullCount{}, full: make(chan struct{}, 1), young: map[resolution]string{}}
}

func (p *pulls) resolved(by Puller, repository, tag string, dgst digest.Digest, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age(now)
	p.young[resolution{by, repository, dgst}] = tag
}

// age lets go of what was resolved long ago.
func (p *pulls) age(now time.Time) {
	switch age := now.Sub(p.since); {
	case age >= 2*resolvedFor:
		p.old, p.young, p.since = nil, map[resolution]string{}, now
	case age >= resolvedFor || len(p.young) >= maxResolved:
		p.old, p.young, p.since = p.young, map[resolution]string{}, now
	}
}

// takeTag is the tag that led to the digest; "" where none did. A HEAD stands
// for one pull.
func (p *pulls) takeTag(r resolution) string {
	for _, m := range []map[resolution]string{p.young, p.old} {
		if tag, ok := m[r]; ok {
			delete(m, r)
			return tag
		}
	}
	return ""
}

func (p *pulls) pulled(by Puller, repository string, ref tarport.Reference, dgst digest.Digest, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age(now)
	tag := p.takeTag(resolution{by, repository, dgst})
	if ref.Tag != "" {
		tag = ref.Tag
	}
	p.add(pullKey{repository, tarport.Reference{Digest: dgst}}, by.Robot, now)
	if tag != "" {
		p.add(pullKey{repository, tarport.Reference{Tag: tag}}, by.Robot, now)
	}
}

func (p *pulls) add(key pullKey, robot bool, now time.Time) {
	c := p.counts[key]
	if c == nil {
		if len(p.counts) >= maxPulls {
			return
		}
		if len(p.counts) == maxPulls/2 {
			select {
			case p.full <- struct{}{}:
			default:
			}
		}
		c = &metadata.PullCount{Repository: key.repository, Reference: key.ref}
		p.counts[key] = c
	}
	c.Pulls++
	if robot {
		c.Robots++
	}
	c.Last = now
}

// take empties the notes.
func (p *pulls) take() []metadata.PullCount {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]metadata.PullCount, 0, len(p.counts))
	for _, c := range p.counts {
		list = append(list, *c)
	}
	clear(p.counts)
	return list
}

// giveBack notes again what could not be written down.
func (p *pulls) giveBack(list []metadata.PullCount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, old := range list {
		key := pullKey{old.Repository, old.Reference}
		c := p.counts[key]
		if c == nil && len(p.counts) >= maxPulls {
			continue
		}
		if c == nil {
			c = &metadata.PullCount{Repository: key.repository, Reference: key.ref}
			p.counts[key] = c
		}
		c.Pulls += old.Pulls
		c.Robots += old.Robots
		if c.Last.Before(old.Last) {
			c.Last = old.Last
		}
	}
}

// writePulls writes the notes down.
func (s *Store) writePulls(ctx context.Context) error {
	list := s.pulls.take()
	for len(list) > 0 {
		n := min(len(list), pullsAtOnce)
		if err := s.db.CountPulls(ctx, list[:n]); err != nil {
			s.pulls.giveBack(list)
			return err
		}
		list = list[n:]
	}
	return nil
}

// runPulls writes the notes down now and then, until ctx ends. Close writes
// the last ones: requests end after ctx.
func (s *Store) runPulls(ctx context.Context) {
	t := time.NewTicker(pullsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.pulls.full:
		}
		if err := s.writePulls(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.LogAttrs(ctx, slog.LevelWarn, "pulls were not counted yet", slog.Any("err", err))
		}
	}
}

// Close writes down what only this process knows. Nothing is asked of the Store
// after it.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.writePulls(ctx)
}
