package tarball

import (
	"io"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"
)

// Range is a part of a file.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// Ranges are parts of a tar, in order, that make a tar of their own with the
// two blocks of zeros that end one.
type Ranges []Range

const trailer = 2 * blockSize

// Size is how long the tar is that the ranges make.
func (r Ranges) Size() int64 {
	n := int64(trailer)
	for _, part := range r {
		n += part.Length
	}
	return n
}

// DiffIDs are those that manifest.json has layers of.
func (a *Archive) DiffIDs() []digest.Digest {
	return a.collect(func(l *Layer) []digest.Digest { return l.DiffIDs })
}

// Digests are the blobs that manifests have as layers.
func (a *Archive) Digests() []digest.Digest {
	return a.collect(func(l *Layer) []digest.Digest { return l.Digests })
}

func (a *Archive) collect(of func(*Layer) []digest.Digest) []digest.Digest {
	out := []digest.Digest{}
	seen := map[digest.Digest]bool{}
	for _, l := range a.Layers {
		for _, d := range of(l) {
			if !seen[d] {
				seen[d] = true
				out = append(out, d)
			}
		}
	}
	return out
}

// Without is the archive without the layers that need not be sent: those of
// which had says, for all that refers to it, that the registry has it. It
// returns the layers that are left out, too.
func (a *Archive) Without(hasDiffID, hasDigest func(digest.Digest) bool) (Ranges, []*Layer) {
	var out []*Layer
	for _, l := range a.Layers {
		if all(l.DiffIDs, hasDiffID) && all(l.Digests, hasDigest) {
			out = append(out, l)
		}
	}
	gone := slices.Clone(out)
	sort.Slice(gone, func(i, j int) bool { return gone[i].file.head < gone[j].file.head })
	var ranges Ranges
	at := int64(0)
	for _, l := range gone {
		if l.file.head > at {
			ranges = append(ranges, Range{at, l.file.head - at})
		}
		at = l.file.end
	}
	if a.end > at {
		ranges = append(ranges, Range{at, a.end - at})
	}
	return ranges, out
}

func all(list []digest.Digest, is func(digest.Digest) bool) bool {
	return !slices.ContainsFunc(list, func(d digest.Digest) bool { return !is(d) })
}

// Body is something to send, any part of it at any time. It may be used by
// several goroutines.
type Body struct {
	io.ReaderAt
	Size int64
}

// Of is the tar that the ranges make of a file.
func (r Ranges) Of(file io.ReaderAt) Body {
	return Body{&sections{r, file}, r.Size()}
}

// sections reads the ranges of a file and zeros behind them.
type sections struct {
	ranges Ranges
	file   io.ReaderAt
}

func (s *sections) ReadAt(p []byte, at int64) (n int, err error) {
	for _, part := range s.ranges {
		if at >= part.Length {
			at -= part.Length
			continue
		}
		most := min(int64(len(p)-n), part.Length-at)
		m, err := s.file.ReadAt(p[n:n+int(most)], part.Offset+at)
		n += m
		if int64(m) < most {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF // the file is shorter than it was
			}
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
		at = 0
	}
	zeros := min(int64(len(p)-n), max(trailer-at, 0))
	clear(p[n : n+int(zeros)])
	n += int(zeros)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// From is the tar that the ranges make of a stream, which is read to the end of
// the last of them.
func (r Ranges) From(stream io.Reader) io.Reader {
	return &sieve{ranges: r, in: stream, zeros: trailer}
}

type sieve struct {
	ranges Ranges
	in     io.Reader
	at     int64
	zeros  int64
}

func (s *sieve) Read(p []byte) (int, error) {
	for len(s.ranges) > 0 {
		first := s.ranges[0]
		if skip := first.Offset - s.at; skip > 0 {
			n, err := io.CopyN(io.Discard, s.in, skip)
			if s.at += n; err != nil {
				return 0, short(err)
			}
		}
		left := first.Offset + first.Length - s.at
		if left == 0 {
			s.ranges = s.ranges[1:]
			continue
		}
		n, err := s.in.Read(p[:min(int64(len(p)), left)])
		if s.at += int64(n); n > 0 || err == nil {
			return n, nil
		}
		return 0, short(err)
	}
	n := min(s.zeros, int64(len(p)))
	clear(p[:n])
	if s.zeros -= n; n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

func short(err error) error {
	if err == io.EOF { //nolint:errorlint // io.Reader's own, unwrapped
		return io.ErrUnexpectedEOF
	}
	return err
}
