package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// maxSources is how many repositories are asked for a layer.
const maxSources = 100

// lender takes layers that an archive lacks from the registry: those that are
// linked in a repository which the sender may pull from, and no others. To know
// a diffID or a digest proves nothing, they stand in every config and manifest.
type lender struct {
	ctx         context.Context //nolint:containedctx // it lives for one call of Load or Missing
	s           *Service
	namespace   string
	compression string
	allowed     map[string]bool
}

func (s *Service) newLender(ctx context.Context, namespace, compression string) *lender {
	return &lender{ctx, s, namespace, cmp.Or(compression, s.o.Compression), map[string]bool{}}
}

// readable finds a repository that has the blob whole, and that the principal
// of ctx may pull from: one of first, or any, those of the namespace first. ""
// where there is none. allowed remembers what was asked of which repository.
func (s *Service) readable(ctx context.Context, dgst digest.Digest, namespace string, allowed map[string]bool, first ...string) (string, metadata.Blob, error) {
	none := metadata.Blob{}
	list, err := s.o.Store.BlobSources(ctx, dgst, namespace, maxSources)
	if err != nil {
		return "", none, fmt.Errorf("look up who has %s: %w", dgst, err)
	}
	for _, repository := range append(first, list...) {
		may, asked := allowed[repository]
		if !asked {
			err := s.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.Pull, repository)
			if tarport.ErrorCode(err) == tarport.Internal {
				return "", none, err
			}
			may = err == nil
			allowed[repository] = may
		}
		if !may {
			continue
		}
		b, err := s.o.Store.Blob(ctx, repository, dgst)
		if err == nil {
			return repository, b, nil
		}
		if tarport.ErrorCode(err) != tarport.BlobUnknown { // it went just now, or is damaged
			return "", none, err
		}
	}
	return "", none, nil
}

// find returns a blob that the sender may have; false where there is none.
func (l *lender) find(dgst digest.Digest) (b metadata.Blob, found bool, err error) {
	repository, b, err := l.s.readable(l.ctx, dgst, l.namespace, l.allowed)
	return b, repository != "", err
}

// form returns the stored form of a layer that the sender may have, of the
// compression that is asked for where there is one; nil where there is none.
func (l *lender) form(diffID digest.Digest) (*form, error) {
	known, err := l.s.o.Store.LayerForms(l.ctx, diffID)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(known, func(a, b metadata.Layer) int {
		return cmp.Compare(l.rank(a.Compression), l.rank(b.Compression))
	})
	for _, k := range known {
		if b, found, err := l.find(k.Digest); err != nil || found {
			return &form{k.Digest, b.Size, k.Compression}, err
		}
	}
	return nil, nil //nolint:nilnil // none is no error
}

func (l *lender) rank(compression string) int {
	if compression == l.compression {
		return 0
	}
	return 1
}

// layer is a layer of manifest.json that the archive lacks.
func (l *lender) layer(diffID digest.Digest) (blob, error) {
	f, err := l.form(diffID)
	if err != nil {
		return blob{}, err
	}
	if f == nil {
		return blob{}, lacking("diff_ids", diffID)
	}
	return blob{desc: ocispec.Descriptor{MediaType: dockerLayer, Digest: f.digest, Size: f.size}, diffID: diffID, compression: f.compression, lent: true}, nil
}

// blob is a layer of a manifest that the archive lacks. want is its diffID, ""
// where it is no layer of an image. Where nobody has looked into the blob here
// the config is believed, as it is when the image is pushed.
func (l *lender) blob(d ocispec.Descriptor, want digest.Digest, what string) (blob, error) {
	b, found, err := l.find(d.Digest)
	if err != nil {
		return blob{}, err
	}
	if !found {
		return blob{}, lacking("digests", d.Digest)
	}
	if b.Size != d.Size {
		return blob{}, wrongSize(what, d.Size, b.Size)
	}
	out := blob{desc: d, diffID: want, lent: true}
	if want == "" {
		return out, nil
	}
	out.compression = layerTypes[d.MediaType]
	k, known, err := l.s.o.Store.KnownDiffID(l.ctx, d.Digest)
	if err != nil {
		return blob{}, err
	}
	if known && k.DiffID != want {
		return blob{}, invalid("%s has the diffID %s, the config says %s", what, k.DiffID, want)
	}
	return out, nil
}

// lacking is the answer to an archive that lacks what the registry cannot lend:
// it may have had it when the sender asked.
func lacking(kind string, d digest.Digest) error {
	missing := map[string][]digest.Digest{"diff_ids": {}, "digests": {}}
	missing[kind] = append(missing[kind], d)
	return tarport.Errorf(tarport.Conflict, "neither the archive nor the registry, as far as you may pull, has %s: send it too", d).
		WithDetail(map[string]any{"missing": missing})
}

// goneSince says what became of a layer that was there when the archive was
// read, and is not any more at the commit.
func (l *lender) goneSince(err error) error {
	if e, ok := errors.AsType[*tarport.Error](err); ok && l != nil && e.Code == tarport.ManifestBlobUnknown {
		return tarport.Errorf(tarport.Conflict, "%s", e.Message).WithDetail(e.Detail).Because(err)
	}
	return err
}

// maxAsked bounds the lists of Missing, and maxAskedJSON both of them as JSON.
const (
	maxAsked     = 10_000
	maxAskedJSON = 2*maxAsked*80 + 1000
)

// lookups is how many lists are compared at once: each can be 20,000 questions to
// the database, and more where there are several forms of a layer.
const lookups = 4

// Layers are layers, by diffID (as a docker archive names them) and by the
// digest of the blob (as manifests do).
type Layers struct {
	DiffIDs []digest.Digest `json:"diff_ids"`
	Digests []digest.Digest `json:"digests"`
}

// Missing tells which of the layers an archive for the namespace must have: all
// but those that a load with Partial takes from the registry. Those stay for the
// grace period at least. need is how many bytes will come of it that are new to
// the namespace, at least; the error is CheckRoom's where they are known not to
// fit. 0 where that is not known.
func (s *Service) Missing(ctx context.Context, namespace string, asked Layers, need int64) (Layers, error) {
	out := Layers{[]digest.Digest{}, []digest.Digest{}}
	nm, err := newNaming(namespace, "", "", nil)
	if err == nil {
		err = s.authorizeEarly(ctx, nm)
	}
	if err == nil && need > 0 {
		err = s.o.Store.CheckRoom(ctx, namespace, min(need, math.MaxInt64/2)) // it is added to what is used
	}
	if err != nil {
		return out, err
	}
	if len(asked.DiffIDs) > maxAsked || len(asked.Digests) > maxAsked {
		return out, tooLarge("at most %d diffIDs and digests can be asked for", maxAsked)
	}
	leave, err := s.asking.Take(ctx)
	if err != nil {
		return out, err
	}
	defer leave()
	l := s.newLender(ctx, namespace, "")
	out.DiffIDs, err = lacked(asked.DiffIDs, func(d digest.Digest) (bool, error) {
		f, err := l.form(d)
		return f != nil, err
	})
	if err != nil {
		return out, err
	}
	out.Digests, err = lacked(asked.Digests, func(d digest.Digest) (bool, error) {
		_, found, err := l.find(d)
		return found, err
	})
	return out, err
}

// lacked are those of the list that has does not tell of, each once.
func lacked(list []digest.Digest, has func(digest.Digest) (bool, error)) ([]digest.Digest, error) {
	out := []digest.Digest{}
	seen := map[digest.Digest]bool{}
	for _, d := range list {
		if _, err := tarport.ParseDigest(d.String()); err != nil {
			return out, err
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		found, err := has(d)
		if err != nil {
			return out, err
		}
		if !found {
			out = append(out, d)
		}
	}
	return out, nil
}

// missing tells a client what it must send.
func (h *Handler) missing(w http.ResponseWriter, r *http.Request) error {
	var asked Layers
	if err := httpapi.ReadLargeJSON(w, r, &asked, maxAskedJSON); err != nil {
		return err
	}
	query := r.URL.Query()
	need, err := strconv.ParseInt(cmp.Or(query.Get("need"), "0"), 10, 64)
	if err != nil || need < 0 {
		return tarport.Errorf(tarport.Invalid, "need must be a number of bytes")
	}
	out, err := h.s.Missing(r.Context(), query.Get("namespace"), asked, need)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, out)
}
