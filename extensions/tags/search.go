package tags

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/internal/places"
	"github.com/tarport/tarport/storage/metadata"
)

// Found is a tag that a search has found.
type Found struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Digest     digest.Digest `json:"digest"`
	Kind       string        `json:"kind"`      // image, index or artifact
	Platforms  []string      `json:"platforms"` // os/architecture[/variant]
	Base       *Base         `json:"base"`      // of the first image that was looked into
	Size       int64         `json:"size"`      // as in Tag
	PushedAt   time.Time     `json:"pushed_at"`
	Matches    []Match       `json:"matches"` // why it was found, at most maxMatches
}

// Match is what a word of a search fits.
type Match struct {
	Field string `json:"field"` // name, tag, label, base, env or package
	Value string `json:"value"` // the name; of a label key=value, of a base id:version
}

// Bounds of a search. It may have to look at all that the caller may read, so
// few run at a time.
const (
	maxSearch   = 256 // bytes
	maxWords    = 8
	maxWild     = 4 // of a word
	maxMatches  = 20
	maxValue    = 256 // bytes of a match
	maxSearches = 2
	searchTime  = 10 * time.Second
	searchQueue = 30
)

func newSearches() *places.Set {
	return places.New(places.Options{Places: maxSearches, Queue: searchQueue, Wait: searchTime, Busy: "searches are under way"})
}

func (h *Handler) search(w http.ResponseWriter, r *http.Request) error {
	n, last, err := httpapi.Page(r)
	if err != nil {
		return err
	}
	q := metadata.SearchQuery{N: n}
	if q.Words, err = parseSearch(r.URL.Query().Get("q")); err != nil {
		return err
	}
	if q.Repository, q.Tag, err = parsePlace(last); err != nil {
		return err
	}
	page, err := h.s.Search(r.Context(), q)
	if err != nil {
		return err
	}
	if page.More {
		end := page.Rows[len(page.Rows)-1]
		httpapi.SetNext(w, r, n, end.Repository+":"+end.Name)
	}
	items := []Found{}
	for i := range page.Rows {
		if matches, ok := matchAll(q.Words, &page.Rows[i]); ok {
			items = append(items, newFound(&page.Rows[i], matches))
		}
	}
	return httpapi.WriteJSON(w, http.StatusOK, map[string][]Found{"items": items})
}

// Search finds tags in what the caller may read; who that is, is put into the
// query here. Some of what it returns may not fit: see metadata.DB.Search.
// UNAVAILABLE where it takes too long, or too many search.
func (s *Service) Search(ctx context.Context, q metadata.SearchQuery) (metadata.SearchPage, error) {
	p := tarport.PrincipalFrom(ctx)
	if err := s.auth.Authorize(ctx, p, tarport.List, ""); err != nil {
		return metadata.SearchPage{}, err
	}
	q.Viewer = metadata.ViewerOf(p)
	leave, err := s.searches.Take(ctx)
	if err != nil {
		return metadata.SearchPage{}, err
	}
	defer leave()
	bounded, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	page, err := s.db.Search(bounded, q)
	if err != nil && bounded.Err() != nil {
		err = tooLong(ctx, err)
	}
	return page, err
}

// tooLong is the answer to a search that was given up, but for a caller who is
// gone.
func tooLong(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return tarport.Errorf(tarport.Unavailable, "the search took longer than %s: say more of what you look for, as in name:team tag:1.*, or try again", searchTime).Because(err)
}

// parsePlace reads where a page begins: behind repository:tag.
func parsePlace(last string) (repository, tag string, err error) {
	if last == "" {
		return "", "", nil
	}
	i := strings.LastIndexByte(last, ':')
	if i < 0 || errors.Join(tarport.CheckRepository(last[:i]), tarport.CheckTag(last[i+1:])) != nil {
		return "", "", tarport.Errorf(tarport.PaginationInvalid, "last is not where a search goes on: use the link of the page before")
	}
	return last[:i], last[i+1:], nil
}

func newFound(row *metadata.SearchRow, matches []Match) Found {
	f := Found{Repository: row.Repository, Tag: row.Name, Digest: row.Digest, Kind: row.Kind, Size: row.Size, PushedAt: row.PushedAt, Platforms: []string{}, Matches: matches}
	for i := range row.Platforms {
		p := newPlatformHead(&row.Platforms[i])
		if name := strings.TrimRight(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"); name != "" {
			f.Platforms = append(f.Platforms, name)
		}
		if f.Base == nil {
			f.Base = p.Base
		}
	}
	return f
}
