package images

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// trees keeps the file systems that were read last: to make one costs a look at
// each of its files.
type trees struct {
	store interface {
		Tree(ctx context.Context, layers []storage.TreeLayer) (*layer.Tree, error)
	}
	readers *places.Set // for who reads layers
	sends   *places.Set // for who sends a large file
	room    int         // nodes that are kept

	mu    sync.Mutex
	kept  []keptTree  // the one that was used last first
	large *time.Timer // ends the keeping of what is more than there is room for
}

type keptTree struct {
	blobs []digest.Digest
	tree  *layer.Tree
}

const (
	maxReaders = 2                // of layers, at once: it costs a core each
	maxSends   = 16               // of large files, at once: each has MaxContent on the disk
	wait       = 30 * time.Second // for a place: somebody sits before it
	maxNodes   = 200_000          // of all trees that are kept: some 40 MiB
	// keepLarge is how long a tree is kept that has more, of which there is one
	// at a time: while somebody looks around in it.
	keepLarge = time.Minute
)

func newTrees(s *storage.Store) *trees {
	return &trees{
		store:   s,
		room:    maxNodes,
		readers: places.New(places.Options{Places: maxReaders, Queue: 16, Wait: wait, Busy: "layers are being read"}),
		sends:   places.New(places.Options{Places: maxSends, Wait: wait, Busy: "large files are being sent"}),
	}
}

func (t *trees) get(ctx context.Context, blobs []digest.Digest) (*layer.Tree, error) {
	if tree := t.use(blobs); tree != nil {
		return tree, nil
	}
	leave, err := t.readers.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if tree := t.use(blobs); tree != nil { // somebody made it meanwhile
		return tree, nil
	}
	layers := make([]storage.TreeLayer, len(blobs))
	for i, b := range blobs {
		layers[i].Blob = b
	}
	tree, err := t.store.Tree(ctx, layers)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
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
	t.kept = slices.Delete(t.kept, i, i+1)
	t.keep(k)
	return k.tree
}

// keep keeps a tree, and of the others as many as there is room for. One that is
// too large has no others beside it, and its time.
func (t *trees) keep(k keptTree) {
	if t.large != nil {
		t.large.Stop()
		t.large = nil
	}
	if k.tree.Len() > t.room {
		t.large = time.AfterFunc(keepLarge, func() { t.drop(k.tree) })
	}
	t.kept = slices.Insert(t.kept, 0, k)
	total := 0
	for i := range t.kept {
		if total += t.kept[i].tree.Len(); total > t.room && i > 0 {
			clear(t.kept[i:])
			t.kept = t.kept[:i]
			return
		}
	}
}

// drop ends the keeping of a tree.
func (t *trees) drop(tree *layer.Tree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = slices.DeleteFunc(t.kept, func(k keptTree) bool { return k.tree == tree })
}
