package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// What is turned to gzip is compressed twice: once to learn the digest and the
// size, which stand in the archive before it, and again when it is sent. That
// takes no room anywhere, and the archive keeps an exact length and can be
// resumed like any other, because compressing the same bytes gives the same
// bytes. The first time is remembered. What goes on in the middle of such a layer
// costs all of it up to there: so few are packed at a time, and strangers have
// half of the places.

// rewriteImage turns the zstd layers of an image into gzip, where the request
// asks for it: the image gets a manifest of ours, with the same config. So it
// keeps its image ID and gets another digest.
func (v *saving) rewriteImage(ctx context.Context, m *saved) error {
	if !v.gzip || m.notImage != "" {
		return nil
	}
	changed := map[digest.Digest]ocispec.Descriptor{}
	for i, d := range m.layers {
		isZstd, err := v.s.isZstd(ctx, m.repository, d)
		if err != nil {
			return err
		}
		if isZstd {
			if m.layers[i], err = v.toGzip(ctx, m.repository, d, m.diffIDs[i]); err != nil {
				return within(err, "layer %d, %s", i+1, d.Digest)
			}
			changed[d.Digest] = m.layers[i]
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return v.rewrite(m, "layers", changed)
}

// rewriteIndex names those of the index's images that were rewritten. Their
// attestations are about what they were, and are left out.
func (v *saving) rewriteIndex(m *saved) error {
	changed := map[digest.Digest]ocispec.Descriptor{}
	for _, c := range m.children {
		if c.rewritten != "" {
			changed[c.rewritten] = c.desc
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := v.rewrite(m, "manifests", changed); err != nil {
		return err
	}
	doc, err := parseDocument(m.payload, v.s.o.Limits)
	if err != nil {
		return fmt.Errorf("read a rewritten index: %w", err)
	}
	kept := m.children[:0]
	for _, c := range m.children {
		for _, d := range doc.manifests {
			if d.Digest == c.desc.Digest {
				kept = append(kept, c)
				break
			}
		}
	}
	m.children = kept
	return nil
}

// rewrite gives m a payload in which what changed is named by its new
// descriptor. All other keys are kept.
func (v *saving) rewrite(m *saved, key string, changed map[digest.Digest]ocispec.Descriptor) error {
	payload, err := rewriteList(m.payload, key, changed)
	if err != nil {
		return fmt.Errorf("rewrite the manifest %s: %w", m.desc.Digest, err)
	}
	m.rewritten = m.desc.Digest
	m.payload, m.desc.Digest, m.desc.Size = payload, digest.FromBytes(payload), int64(len(payload))
	v.warn("zstd layers were turned to gzip, so that %s is %s in the archive; signatures and attestations of it are left out", m.rewritten, m.desc.Digest)
	return nil
}

func rewriteList(payload []byte, key string, changed map[digest.Digest]ocispec.Descriptor) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(payload, &doc); err != nil {
		return nil, err
	}
	var list, kept []map[string]json.RawMessage
	if err := json.Unmarshal(doc[key], &list); err != nil {
		return nil, err
	}
	for _, entry := range list {
		var old ocispec.Descriptor
		if err := errors.Join(json.Unmarshal(entry["digest"], &old.Digest), optional(entry["annotations"], &old.Annotations)); err != nil {
			return nil, err
		}
		if _, gone := changed[digest.Digest(old.Annotations["vnd.docker.reference.digest"])]; gone {
			continue
		}
		if d, ok := changed[old.Digest]; ok {
			for k, value := range map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size} {
				raw, err := json.Marshal(value)
				if err != nil {
					return nil, err
				}
				entry[k] = raw
			}
			delete(entry, "data")
		}
		kept = append(kept, entry)
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	doc[key] = raw
	return json.Marshal(doc)
}

func optional(raw json.RawMessage, v any) error {
	if raw == nil {
		return nil
	}
	return json.Unmarshal(raw, v)
}

// isZstd looks at the bytes: media types can lie.
func (s *Service) isZstd(ctx context.Context, repository string, d ocispec.Descriptor) (bool, error) {
	r, _, err := s.o.Store.OpenBlob(ctx, repository, d.Digest)
	if err != nil {
		return false, err
	}
	defer r.Close()
	head := make([]byte, min(layer.MagicLen, d.Size))
	if _, err := io.ReadFull(r, head); err != nil {
		return false, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	return layer.CompressionOf(head) == zstded, nil
}

// toGzip returns the gzip form of a zstd layer: one that the registry has, or
// one that is made on the way.
func (v *saving) toGzip(ctx context.Context, repository string, d ocispec.Descriptor, diffID digest.Digest) (ocispec.Descriptor, error) {
	mediaType := strings.TrimSuffix(d.MediaType, "zstd") + gzipped
	if !strings.HasSuffix(d.MediaType, "zstd") { // it lied
		mediaType = d.MediaType
	}
	known, err := v.s.o.Store.KnownLayers(ctx, diffID)
	if err != nil {
		return d, fmt.Errorf("look up layer %s: %w", diffID, err)
	}
	for _, l := range known {
		if l.Compression != gzipped {
			continue
		}
		from, err := v.readable(ctx, repository, l.Digest)
		if err != nil {
			return d, err
		}
		if from != "" {
			v.sources[l.Digest] = &blobSource{s: v.s, repository: from, digest: l.Digest}
			return ocispec.Descriptor{MediaType: mediaType, Digest: l.Digest, Size: l.Size}, nil
		}
	}
	f, err := v.s.gzipForm(ctx, repository, d)
	if err != nil {
		return d, err
	}
	v.sources[f.digest] = &blobSource{s: v.s, repository: repository, digest: d.Digest, gzip: true}
	return ocispec.Descriptor{MediaType: mediaType, Digest: f.digest, Size: f.size}, nil
}

// readable finds a repository that has the blob and that the principal may pull
// from; "" for none. A diffID is what the config of an image claims: it proves
// no right to the layer.
func (v *saving) readable(ctx context.Context, repository string, d digest.Digest) (string, error) {
	in, _, err := v.s.readable(ctx, d, tarport.Namespace(repository), map[string]bool{}, repository)
	return in, err
}

// forms remembers what the gzip form of zstd blobs is. The zero value is ready.
type forms struct {
	mu       sync.Mutex
	of       map[digest.Digest]form
	learning map[learner]chan struct{} // closed when somebody has learned it, or has given up
}

// learner is who waits for whom: a stranger may have long to wait for a place,
// and nobody else waits for him.
type learner struct {
	digest   digest.Digest
	stranger bool
}

// maxForms is a few hundred KiB.
const maxForms = 2000

func (c *forms) put(d digest.Digest, f form) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxForms {
		c.of = map[digest.Digest]form{}
	}
	c.of[d] = f
}

// learn returns what is known of a blob; where that is nothing, done is not nil,
// and no other of its kind learns it before done is called.
func (c *forms) learn(ctx context.Context, d digest.Digest) (f form, done func(), err error) {
	me := learner{d, tarport.PrincipalFrom(ctx).Anonymous()}
	for {
		c.mu.Lock()
		if f, ok := c.of[d]; ok {
			c.mu.Unlock()
			return f, nil, nil
		}
		other := c.learning[me]
		if other == nil {
			if c.learning == nil {
				c.learning = map[learner]chan struct{}{}
			}
			mine := make(chan struct{})
			c.learning[me] = mine
			c.mu.Unlock()
			return f, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.learning, me)
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return f, nil, ctx.Err()
		}
	}
}

// gzipForm tells what becomes of a zstd layer. It is found out once, however many
// ask.
func (s *Service) gzipForm(ctx context.Context, repository string, d ocispec.Descriptor) (form, error) {
	f, done, err := s.gzips.learn(ctx, d.Digest)
	if done == nil {
		return f, err
	}
	defer done()
	sum := &summing{hash: sha256.New()}
	if err := s.writeGzip(ctx, sum, repository, d.Digest); err != nil {
		return form{}, err
	}
	f = form{digest: digest.NewDigest(digest.SHA256, sum.hash), size: sum.n, compression: gzipped}
	s.gzips.put(d.Digest, f)
	return f, nil
}

// repacks is how many layers are packed anew at once: a window of Limits.Window
// each, and a processor.
const repacks = 8

// writeGzip unpacks a blob and writes it as gzip to w. The limits are those of
// an archive that comes in.
func (s *Service) writeGzip(ctx context.Context, w io.Writer, repository string, dgst digest.Digest) error {
	leave, err := s.packing.Take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	r, b, err := s.o.Store.OpenBlob(ctx, repository, dgst)
	if err != nil {
		return err
	}
	defer r.Close()
	src := &source{ctx: ctx, r: r, max: b.Size}
	z, err := layer.Decompress(src, zstded, s.o.Limits.Window)
	if err != nil {
		return broken(src, err)
	}
	defer z.Close()
	m := &meter{limits: s.o.Limits, total: new(int64), in: func() int64 { return src.n }, what: "the layer " + dgst.String(), max: s.o.Limits.Layer}
	in := &watchedReader{r: metered{z, m}}
	p := newGzipWriter(newGzipPool(), w) // w can be a client's connection
	if _, err := io.CopyBuffer(struct{ io.Writer }{p}, in, make([]byte, bufferSize)); err != nil {
		p.abort()
		if in.err != nil {
			return broken(src, in.err)
		}
		return err
	}
	return p.close()
}

// broken is the error of a layer that does not unpack.
func broken(src *source, err error) error {
	if src.err != nil {
		return src.err
	}
	if e, ok := errors.AsType[*tarport.Error](err); ok {
		return e
	}
	return tarport.Errorf(tarport.Conflict, "it cannot be turned to gzip, its zstd compression is broken: %s", plainWords(err)).Because(err)
}

// gzipReader is a zstd blob as gzip, from the byte at on.
func (s *Service) gzipReader(ctx context.Context, repository string, dgst digest.Digest, at int64) (io.ReadCloser, error) {
	pr, pw := io.Pipe()
	r := &pipeReader{PipeReader: pr}
	r.writer.Go(func() error {
		return pw.CloseWithError(s.writeGzip(ctx, pw, repository, dgst))
	})
	if _, err := io.CopyN(io.Discard, pr, at); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// pipeReader ends its writer with itself.
type pipeReader struct {
	*io.PipeReader
	writer errgroup.Group
}

func (r *pipeReader) Close() error {
	return errors.Join(r.PipeReader.Close(), r.writer.Wait())
}

// summing hashes and counts.
type summing struct {
	hash hash.Hash
	n    int64
}

func (s *summing) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.hash.Write(p)
}
