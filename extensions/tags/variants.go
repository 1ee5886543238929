package tags

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/internal/version"
	"github.com/tarport/tarport/storage/metadata"
)

// Matrix is the images of a repository by version and variant. Each image
// stands in one cell, with all its tags.
type Matrix struct {
	Versions  []string  `json:"versions"` // the rows: the newest first
	Variants  []string  `json:"variants"` // the columns: "" for names that say none, then by name
	Cells     []Cell    `json:"cells"`
	Recommend Recommend `json:"recommend"`
}

// Cell is an image, or an index of images. Its version is the most exact one of
// its tags, and its variant the shortest.
type Cell struct {
	Version   *string        `json:"version"` // null where no tag has one
	Variant   string         `json:"variant"` // words with - between them
	Tags      []string       `json:"tags"`
	Digest    digest.Digest  `json:"digest"`
	Kind      string         `json:"kind"`
	Size      int64          `json:"size"` // as in Tag
	PushedAt  time.Time      `json:"pushed_at"`
	Platforms []CellPlatform `json:"platforms"`
}

// CellPlatform is what of a Platform is in a Matrix.
type CellPlatform struct {
	OS           string        `json:"os"`
	Architecture string        `json:"architecture"`
	Variant      string        `json:"variant"`
	Digest       digest.Digest `json:"digest"`
	Missing      bool          `json:"missing,omitempty"`
	Size         int64         `json:"size"`
	Base         *Base         `json:"base"`
}

// Recommend says where to begin. Each is null where there is none.
type Recommend struct {
	Newest   *Pick `json:"newest"`   // of the newest version that is no pre-release, the one without a variant, or with the shortest
	Smallest *Pick `json:"smallest"` // of that version
	Latest   *Pick `json:"latest"`   // what the tag latest is an alias of
}

// Pick is a cell with the tag to take it by: the one that says most.
type Pick struct {
	Tag string `json:"tag"`
	Cell
}

// Bounds of one answer.
const (
	maxMatrixTags  = 2000
	matrixPage     = 500
	maxUnversioned = 200
)

func (h *Handler) variants(w http.ResponseWriter, r *http.Request) error {
	q, err := parseFilters(r)
	if err != nil {
		return err
	}
	q.Sort, q.Descending = metadata.SortVersion, true
	rows, last, err := httpapi.Page(r)
	if err != nil {
		return err
	}
	if q.After, err = decodeCursor(&q, last); err != nil {
		return err
	}
	m, next, err := h.s.Variants(r.Context(), q, rows)
	if err != nil {
		return err
	}
	if next != (metadata.TagCursor{}) {
		httpapi.SetNext(w, r, rows, encodeCursor(&q, next))
	}
	return httpapi.WriteJSON(w, http.StatusOK, m)
}

// Variants returns at most n rows of the matrix, and where it goes on: the zero
// cursor where it does not. Images without a version are with the first rows.
func (s *Service) Variants(ctx context.Context, q metadata.TagQuery, n int) (Matrix, metadata.TagCursor, error) {
	if err := s.may(ctx, tarport.Pull, q.Repository); err != nil {
		return Matrix{}, metadata.TagCursor{}, err
	}
	q.Sort, q.Descending = metadata.SortVersion, true
	first := q.After == metadata.TagCursor{}
	b := newMatrixBuilder(n)
	next, err := s.versioned(ctx, q, b)
	if err == nil && first && q.Range == nil {
		err = s.unversioned(ctx, q, b)
	}
	m := b.matrix()
	if err == nil {
		m.Recommend, err = s.recommend(ctx, q)
	}
	return m, next, err
}

// versioned adds what has a version, the newest first.
func (s *Service) versioned(ctx context.Context, q metadata.TagQuery, b *matrixBuilder) (metadata.TagCursor, error) {
	if q.Range == nil {
		all := version.Any()
		q.Range = &all
	}
	q.N, b.matches = matrixPage, q.NameMatcher()
	for read := 0; ; {
		page, err := s.db.ListTags(ctx, q)
		if err != nil {
			return metadata.TagCursor{}, err
		}
		for i := range page.Tags {
			t := &page.Tags[i]
			if read == maxMatrixTags || !b.add(t) {
				return q.After, nil
			}
			read++
			q.After = metadata.TagCursor{Key: t.VersionKey, Name: t.Name}
		}
		if !page.More {
			return metadata.TagCursor{}, nil
		}
	}
}

func (s *Service) unversioned(ctx context.Context, q metadata.TagQuery, b *matrixBuilder) error {
	none := version.Unversioned()
	q.Range, q.After, q.Descending, q.N = &none, metadata.TagCursor{}, false, maxUnversioned
	page, err := s.db.ListTags(ctx, q)
	for i := range page.Tags {
		if c := newCell(&page.Tags[i]); c.Version == nil { // the others have rows of their own
			b.put(c)
		}
	}
	return err
}

// recommend looks through all that the filters let through, whichever rows are
// asked for.
func (s *Service) recommend(ctx context.Context, q metadata.TagQuery) (r Recommend, err error) {
	newest, found, err := s.newest(ctx, q)
	if err != nil {
		return r, err
	}
	if found {
		if r.Newest, r.Smallest, err = s.pickOf(ctx, q, newest); err != nil {
			return r, err
		}
	}
	t, err := s.db.ListedTag(ctx, q.Repository, "latest")
	if tarport.ErrorCode(err) == tarport.ManifestUnknown {
		return r, nil
	}
	if err == nil {
		c := newCell(&t)
		r.Latest = c.pick()
	}
	return r, err
}

// newest is a tag of the newest version that is no pre-release. Dates count only
// where there is nothing else: they are builds of other versions mostly.
func (s *Service) newest(ctx context.Context, q metadata.TagQuery) (t metadata.TagRow, found bool, err error) {
	ranges := []version.Range{version.Undated(), version.Any()}
	ranges[1].Prereleases = false
	if q.Range != nil {
		ranges = []version.Range{*q.Range}
	}
	q.After, q.N = metadata.TagCursor{}, 1
	for i := range ranges {
		q.Range = &ranges[i]
		page, err := s.db.ListTags(ctx, q)
		if err != nil {
			return t, false, err
		}
		if len(page.Tags) > 0 {
			return page.Tags[0], true, nil
		}
	}
	return t, false, nil
}

// pickOf picks among the images of a tag's version.
func (s *Service) pickOf(ctx context.Context, q metadata.TagQuery, of metadata.TagRow) (newest, smallest *Pick, err error) {
	same := version.Same(of.VersionKey)
	q.Range, q.After, q.N = &same, metadata.TagCursor{}, matrixPage
	page, err := s.db.ListTags(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	b := newMatrixBuilder(matrixPage)
	for i := range page.Tags {
		b.put(newCell(&page.Tags[i]))
	}
	if len(b.cells) == 0 { // deleted meanwhile
		return nil, nil, nil
	}
	first := slices.MinFunc(b.cells, func(x, y cell) int { return compareVariants(x.Variant, y.Variant) })
	platform := q.Platform
	if platform == "" {
		platform = "linux/amd64"
	}
	small := slices.MinFunc(b.cells, func(x, y cell) int {
		return cmp.Or(x.sizeFor(platform).compare(y.sizeFor(platform)), compareVariants(x.Variant, y.Variant))
	})
	return first.pick(), small.pick(), nil
}

// matrixBuilder gathers cells.
type matrixBuilder struct {
	rows    int // most of them
	matches func(name string) bool
	cells   []cell
	keys    map[string]string // of the rows: version -> key
	seen    map[digest.Digest]bool
}

func newMatrixBuilder(rows int) *matrixBuilder {
	return &matrixBuilder{rows: rows, keys: map[string]string{}, seen: map[digest.Digest]bool{}}
}

// add adds a tag's image, unless it has a tag that came before in the list,
// perhaps on another page; false where that would make one row too many.
func (b *matrixBuilder) add(t *metadata.TagRow) bool {
	for _, name := range t.Aliases {
		if p := version.Parse(name); cmp.Or(cmp.Compare(p.Key, t.VersionKey), cmp.Compare(name, t.Name)) > 0 && b.matches(name) {
			return true
		}
	}
	c := newCell(t)
	if c.Version != nil {
		if _, ok := b.keys[*c.Version]; !ok && len(b.keys) == b.rows {
			return false
		}
		b.keys[*c.Version] = c.key
	}
	b.put(c)
	return true
}

func (b *matrixBuilder) put(c cell) {
	if !b.seen[c.Digest] {
		b.seen[c.Digest] = true
		b.cells = append(b.cells, c)
	}
}

func (b *matrixBuilder) matrix() Matrix {
	m := Matrix{Versions: []string{}, Variants: []string{}, Cells: []Cell{}}
	for v := range b.keys {
		m.Versions = append(m.Versions, v)
	}
	slices.SortFunc(m.Versions, func(x, y string) int { return cmp.Or(cmp.Compare(b.keys[y], b.keys[x]), cmp.Compare(y, x)) })
	slices.SortFunc(b.cells, func(x, y cell) int { // rows, then columns
		return cmp.Or(cmp.Compare(y.key, x.key), cmp.Compare(x.Variant, y.Variant), cmp.Compare(x.Digest, y.Digest))
	})
	for _, c := range b.cells {
		m.Cells = append(m.Cells, c.Cell)
		if !slices.Contains(m.Variants, c.Variant) {
			m.Variants = append(m.Variants, c.Variant)
		}
	}
	slices.Sort(m.Variants)
	return m
}

// cell is a Cell with what it is sorted by: the key of its version.
type cell struct {
	Cell

	key string
}

func (c *cell) pick() *Pick { return &Pick{c.exactTag(), c.Cell} }

// newCell is the cell of a tag's image: its version is the one with the most
// numbers of all its tags, and of those the highest; its variant the one of the
// fewest words of those that have a version.
func newCell(t *metadata.TagRow) cell {
	c := cell{Cell: Cell{
		Digest: t.Digest, Kind: t.Kind, Size: t.Size, PushedAt: t.PushedAt,
		Tags: append([]string{t.Name}, t.Aliases...), Platforms: make([]CellPlatform, len(t.Platforms)),
	}}
	parsed := map[string]version.Tag{}
	var best version.Tag
	variants := []string{}
	for _, name := range c.Tags {
		p := version.Parse(name)
		parsed[name] = p
		if p.Version != "" && (best.Version == "" || cmp.Or(cmp.Compare(p.Precision(), best.Precision()), cmp.Compare(p.Key, best.Key)) > 0) {
			best = p
		}
	}
	for _, name := range c.Tags {
		if p := parsed[name]; p.Version != "" || best.Version == "" {
			variants = append(variants, strings.Join(p.Variants, "-"))
		}
	}
	c.Variant = slices.MinFunc(variants, compareVariants)
	if best.Version != "" {
		c.Version, c.key = &best.Version, version.Same(best.Key).Intervals[0].From
	}
	slices.SortFunc(c.Tags, func(x, y string) int { return cmp.Or(cmp.Compare(parsed[x].Key, parsed[y].Key), cmp.Compare(x, y)) })
	for i := range t.Platforms {
		p := newPlatformHead(&t.Platforms[i])
		c.Platforms[i] = CellPlatform{p.OS, p.Architecture, p.Variant, p.Digest, p.Missing, p.Size, p.Base}
	}
	return c
}

// compareVariants puts few words before many.
func compareVariants(x, y string) int {
	words := func(s string) int {
		if s == "" {
			return 0
		}
		return 1 + strings.Count(s, "-")
	}
	return cmp.Or(cmp.Compare(words(x), words(y)), cmp.Compare(x, y))
}

// exactTag is the tag of the cell that says most: its version exactly, with its
// variant where there is such a tag.
func (c *Cell) exactTag() string {
	if c.Version == nil {
		return c.Tags[0]
	}
	return slices.MaxFunc(c.Tags, func(x, y string) int {
		return cmp.Or(cmp.Compare(c.exactness(x), c.exactness(y)), -cmp.Compare(len(x), len(y)), -cmp.Compare(x, y))
	})
}

func (c *Cell) exactness(name string) int {
	p := version.Parse(name)
	n := 0
	if p.Version == *c.Version {
		n = 2
	}
	if strings.Join(p.Variants, "-") == c.Variant {
		n++
	}
	return n
}

// imageSize is a size to compare images by. What is not for the platform that
// is asked for is behind all that is.
type imageSize struct {
	other bool
	size  int64
}

func (x imageSize) compare(y imageSize) int {
	if x.other != y.other {
		return map[bool]int{true: 1, false: -1}[x.other]
	}
	return cmp.Compare(x.size, y.size)
}

// sizeFor is the size of the image for a platform, or of the smallest where
// there is none for it.
func (c *Cell) sizeFor(platform string) imageSize {
	best := imageSize{other: true, size: c.Size}
	for _, p := range c.Platforms {
		name := "/" + p.OS + "/" + p.Architecture + "/" + p.Variant + "/"
		s := imageSize{other: !strings.Contains(name, "/"+platform+"/"), size: p.Size}
		if !p.Missing && s.compare(best) < 0 {
			best = s
		}
	}
	return best
}
