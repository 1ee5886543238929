package storage

import (
	"container/list"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cache keeps what was read from the metadata, as long as this process is the
// only one that changes them. It is never told what changed, only where: each
// repository has an epoch, every change of it begins a new one, and an entry
// counts only in the epoch in which its reading began. So a reading that a
// change overtakes is never believed, whatever the order of things.
//
// A nil *cache keeps nothing.
type cache struct {
	seed   maphash.Seed
	epochs [1 << 12]atomic.Uint64 // by hash of the repository; two that share one only lose entries
	shards [16]shard
}

type shard struct {
	mu    sync.Mutex
	items map[cacheKey]*list.Element
	order *list.List // of *cacheEntry, the newest first
	bytes int
}

type cacheKey struct {
	kind       cacheKind
	repository string
	name       string
}

type cacheKind byte

const (
	cacheManifest cacheKind = iota
	cacheBlob
	cacheTags
	cacheCatalog
	cacheReferrers
)

type cacheEntry struct {
	key   cacheKey
	epoch uint64
	value any
	bytes int
}

const (
	cacheBytes   = 24 << 20 // over all shards
	cacheMaxItem = 1 << 20
	cacheItem    = 256 // what an entry costs beside its value, about
)

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].items = map[cacheKey]*list.Element{}
		c.shards[i].order = list.New()
	}
	return c
}

func (c *cache) epoch(repository string) *atomic.Uint64 {
	return &c.epochs[maphash.String(c.seed, repository)%uint64(len(c.epochs))]
}

// changed ends what is known of a repository. It is called after the change is
// committed and before anybody is told of it.
func (c *cache) changed(repository string) {
	if c != nil {
		c.epoch(repository).Add(1)
	}
}

func (c *cache) shard(k cacheKey) *shard {
	return &c.shards[maphash.String(c.seed, k.name)%uint64(len(c.shards))]
}

func (c *cache) get(k cacheKey) (any, bool) {
	s := c.shard(k)
	epoch := c.epoch(k.repository).Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.items[k]
	if !ok {
		return nil, false
	}
	entry := e.Value.(*cacheEntry)
	if entry.epoch != epoch {
		s.drop(e)
		return nil, false
	}
	s.order.MoveToFront(e)
	return entry.value, true
}

// forget drops one entry.
func (c *cache) forget(k cacheKey) {
	if c == nil {
		return
	}
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.items[k]; ok {
		s.drop(e)
	}
}

func (c *cache) put(k cacheKey, epoch uint64, value any, size int) {
	if size > cacheMaxItem {
		return
	}
	size += cacheItem
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.items[k]; ok {
		s.drop(e)
	}
	s.items[k] = s.order.PushFront(&cacheEntry{key: k, epoch: epoch, value: value, bytes: size})
	s.bytes += size
	for s.bytes > cacheBytes/len(c.shards) {
		s.drop(s.order.Back())
	}
}

func (s *shard) drop(e *list.Element) {
	entry := s.order.Remove(e).(*cacheEntry)
	delete(s.items, entry.key)
	s.bytes -= entry.bytes
}

// cached returns what read returns, from the cache where it has it. size tells
// about how many bytes a value takes.
func cached[T any](c *cache, k cacheKey, read func() (T, error), size func(T) int) (T, error) {
	if c == nil {
		return read()
	}
	if v, ok := c.get(k); ok {
		return v.(T), nil
	}
	epoch := c.epoch(k.repository).Load()
	v, err := read()
	if err == nil {
		c.put(k, epoch, v, size(v))
	}
	return v, err
}
