package images

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// trees keeps the file systems that were read last: to make one costs a look at
// each of its files.
type trees struct {
	store interface {
		Tree(ctx context.Context, layers []storage.TreeLayer) (*layer.Tree, error)
	}
	slots chan struct{} // taken by who reads layers
	sends chan struct{} // by who sends a large file

	mu   sync.Mutex
	kept []keptTree // the one that was used last first
}

type keptTree struct {
	blobs []digest.Digest
	tree  *layer.Tree
}

const (
	maxReaders = 2       // of layers, at once: it costs a core each
	maxSends   = 16      // of large files, at once: each has MaxContent on the disk
	maxNodes   = 200_000 // of all trees that are kept: some 40 MiB
)

func newTrees(s *storage.Store) *trees {
	return &trees{store: s, slots: make(chan struct{}, maxReaders), sends: make(chan struct{}, maxSends)}
}

// begin waits for a slot, which end gives back.
func (t *trees) begin(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *trees) end() { <-t.slots }

// send lets somebody send a large file, until end; false where too many do.
func (t *trees) send() (end func(), ok bool) {
	select {
	case t.sends <- struct{}{}:
		return func() { <-t.sends }, true
	default:
		return nil, false
	}
}

func (t *trees) get(ctx context.Context, blobs []digest.Digest) (*layer.Tree, error) {
	if tree := t.use(blobs); tree != nil {
		return tree, nil
	}
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	defer t.end()
	if tree := t.use(blobs); tree != nil { // somebody made it meanwhile
		return tree, nil
	}
	layers := make([]storage.TreeLayer, len(blobs))
	for i, b := range blobs {
		layers[i].Blob = b
	}
	tree, err := t.store.Tree(ctx, layers)
	if err == nil {
		t.keep(keptTree{blobs, tree})
	}
	return tree, err
}

// use returns a tree that is kept; nil where it is not.
func (t *trees) use(blobs []digest.Digest) *layer.Tree {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.kept, func(k keptTree) bool { return slices.Equal(k.blobs, blobs) })
	if i < 0 {
		return nil
	}
	k := t.kept[i]
	t.kept = slices.Insert(slices.Delete(t.kept, i, i+1), 0, k)
	return k.tree
}

func (t *trees) keep(k keptTree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = slices.Insert(t.kept, 0, k)
	total := 0
	for i := range t.kept {
		if total += t.kept[i].tree.Len(); total > maxNodes {
			clear(t.kept[i:])
			t.kept = t.kept[:i]
			return
		}
	}
}
