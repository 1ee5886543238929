package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
)

// trial follows a plain layer, whose name does not tell its diffID, along the
// stored ones of its size: as long as its prefixes are those of one of them, its
// bytes are hashed and dropped. At its end the diffID decides. Where it turns out
// to be another one, what was dropped is taken from the stored one that begins so.
//
// A layer that the sender may not pull is none of those: nothing counts for a
// quota while one is followed, so its sender sees where the bytes differ, and
// could guess a secret MiB by MiB.
type trial struct {
	in      *intake
	want    string // the compression that a stored form must have
	size    int64
	similar []storage.SimilarLayer
	same    int // so many prefixes are those of each of similar
}

// goesOn tells whether the store can have the layer, of which p are all prefixes
// so far. It is called with each further one.
func (t *trial) goesOn(ctx context.Context, p layer.Prefixes) (bool, error) {
	all := t.similar
	if t.same == 0 {
		var err error
		if all, err = t.in.store.SimilarLayers(ctx, p, t.size, t.want); err != nil {
			return false, err
		}
	}
	var left []storage.SimilarLayer
	for _, s := range all {
		if !p.Begins(s.Prefixes) {
			continue
		}
		if t.same == 0 {
			if _, found, err := t.in.lend.find(s.Digest); err != nil {
				return false, err
			} else if !found {
				continue
			}
		}
		left = append(left, s)
	}
	if left == nil {
		return false, nil
	}
	t.similar, t.same = left, p.Len()
	return true, nil
}

// maxReplays is how many stored layers are read at a time, by all loads: one of
// zstd may need a window of 128 MiB.
const maxReplays = 4

// replay writes to w what of the layer was dropped, and returns its hash. p are
// its prefixes. Where that needs a place and there is none, the error is
// places.Set's.
func (t *trial) replay(ctx context.Context, w *staging, p layer.Prefixes) (*layer.Hasher, error) {
	h := layer.NewHasher()
	if t.same == 0 {
		return h, nil
	}
	leave, err := t.in.replays.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	from := t.similar[0].Digest
	r, err := t.in.store.OpenLayer(ctx, from)
	if err == nil {
		src := struct{ io.Reader }{io.LimitReader(r, int64(t.same)*layer.PrefixStep)}
		_, err = io.CopyBuffer(io.MultiWriter(h, w), src, make([]byte, bufferSize))
		err = errors.Join(err, r.Close())
	}
	if err == nil && string(h.Prefixes()) == string(p.Cut(t.same)) {
		return h, nil
	}
	switch code := tarport.ErrorCode(err); {
	case w.err != nil:
		return nil, w.err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && code != tarport.ManifestInvalid && code != tarport.BlobUnknown:
		return nil, fmt.Errorf("read layer %s: %w", from, err)
	}
	if err == nil {
		err = fmt.Errorf("the plain bytes of %s are not what they were", from)
	}
	return nil, tarport.Errorf(tarport.Unavailable, "a layer that the registry has cannot be read, and the archive's would be made from it: send the archive again").
		Because(errors.Join(err, t.in.store.ForgetPrefixes(ctx, from)))
}

// hold keeps what is in the intake's buffer until that is full: then it can be
// dropped, or the trial is over.
func (j *job) hold(ctx context.Context) error {
	if j.at < len(j.in.buf) {
		return nil
	}
	same, err := j.trial.goesOn(ctx, j.hash.Prefixes())
	if err == nil && !same {
		err = j.begin(ctx)
	}
	j.at = 0
	return err
}

// begin ends the trial: the layer is written, all that has passed of it first.
func (j *job) begin(ctx context.Context) error {
	t, p := j.trial, j.in.buf[:j.at]
	j.trial = nil
	if err := j.open(ctx); err != nil {
		return err
	}
	to := j.packed
	if to == nil {
		to = j.raw
	}
	h, err := t.replay(ctx, to, j.hash.Prefixes())
	if err != nil {
		return err
	}
	// What is stored is what counts from here on, and no prefixes. Of a plain
	// layer the store's own hash is that.
	_, _ = h.Write(p)
	if j.hash = h; j.packed == nil {
		j.hash = nil
	}
	_, err = to.Write(p)
	return err
}

// compare looks at the end of a good layer whether the archive or the store has
// it; then what was made of it is dropped. Else a trial is over too.
func (j *job) compare(ctx context.Context) error {
	f := j.f
	if j.plan.packed != "" {
		if f.packed = j.in.forms[f.diffID]; f.packed != nil {
			j.trial = nil
			return nil
		}
	}
	known, err := knownForm(ctx, j.in.store, f.diffID, j.plan.want())
	if err != nil {
		return err
	}
	if known != nil {
		if j.trial != nil { // else it was compressed in vain
			j.in.report.known(f)
			j.plan = plan{known: known}
		}
		j.trial = nil
		f.use(known)
		return nil
	}
	if j.trial == nil {
		return nil
	}
	if err := j.begin(ctx); err != nil || j.hash == nil {
		return err
	}
	f.diffID = diffIDOf(j.hash)
	return nil
}
