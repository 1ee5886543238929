package archive

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// Kind is what is done with an archive.
type Kind string

// The kinds.
const (
	KindLoad   Kind = "load"
	KindImport Kind = "import"
	KindCommit Kind = "commit"
	KindSave   Kind = "save"
	KindExport Kind = "export"
)

// Outcome is how it ended.
type Outcome string

// The outcomes.
const (
	OutcomeOK      Outcome = "ok"
	OutcomeRefused Outcome = "refused" // what was asked for, or sent, could not be taken
	OutcomeFailed  Outcome = "failed"  // the registry could not, or had no place for it
	OutcomeGone    Outcome = "gone"    // the client went away, or its line broke
)

// Observer is told what becomes of archives. It is called by many goroutines.
type Observer interface {
	// Begin is told that an archive is at work, or waits for its place. end is
	// called once, when it is not any more.
	Begin(k Kind) (end func(Done))
}

// Done is what became of an archive.
type Done struct {
	Outcome  Outcome
	Received int64 // bytes of the archive that were read
	Sent     int64 // bytes of the archive that were sent
	Stored   int64 // bytes of blobs that the registry did not have
	Layers   LayerCounts
}

// LayerCounts tells what was done with the layers that came.
type LayerCounts struct {
	Kept         int // stored as they came
	Compressed   int // came plain
	Recompressed int // came in a compression that no client takes
	Known        int // taken from what the registry has
}

type unobserved struct{}

func (unobserved) Begin(Kind) func(Done) { return func(Done) {} }

// observed is an archive that is read.
type observed struct {
	io.Reader
	end    func(Done)
	layers LayerCounts
	n      int64
	broke  bool // the client's line, and not what was sent before
}

func (s *Service) observe(k Kind, body io.Reader) *observed {
	return &observed{Reader: body, end: s.o.Observer.Begin(k)}
}

func (o *observed) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	o.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		_, stored := o.Reader.(*upload)
		_, large := errors.AsType[*http.MaxBytesError](err)
		o.broke = !stored && !large
	}
	return n, err
}

// done tells of the end.
func (o *observed) done(ctx context.Context, res *Result, err error) {
	d := Done{Outcome: outcomeOf(ctx, err, o.broke), Received: o.n, Layers: o.layers}
	switch {
	case res != nil:
		d.Stored = res.BytesStored
	case err == nil: // a panic is on its way
		d.Outcome = OutcomeFailed
	}
	o.end(d)
}

// refused tells of what ended before there was a byte to send.
func (s *Service) refused(ctx context.Context, k Kind, err error) {
	if err != nil {
		s.o.Observer.Begin(k)(Done{Outcome: outcomeOf(ctx, err, false)})
	}
}

func outcomeOf(ctx context.Context, err error, gone bool) Outcome {
	switch {
	case err == nil:
		return OutcomeOK
	case gone, errors.Is(err, context.Canceled), ctx.Err() != nil:
		return OutcomeGone
	case tarport.ErrorCode(err).Status() >= http.StatusInternalServerError:
		return OutcomeFailed
	}
	return OutcomeRefused
}

// taken counts a layer by what became of it.
func (n *LayerCounts) taken(f *file, p plan) {
	switch {
	case f.notLayer != "": // then it is not known whether anybody named it
	case p.known != nil:
		n.Known++
	case p.packed == "":
		n.Kept++
	case f.compression == uncompressed:
		n.Compressed++
	default:
		n.Recompressed++
	}
}

// lent counts the layers that the archive left to the registry.
func (n *LayerCounts) lent(images []*image) {
	seen := map[digest.Digest]bool{}
	for _, im := range images {
		for _, m := range im.all() {
			for _, b := range m.blobs {
				if b.lent && !seen[b.desc.Digest] {
					seen[b.desc.Digest] = true
					n.Known++
				}
			}
		}
	}
}

// Places tells how many archives can be read at once, how many are, and how
// many wait for it.
func (s *Service) Places() (all, taken, waiting int) { return s.places.Counts() }
