package tags

import (
	"context"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/internal/version"
	"github.com/tarport/tarport/storage/metadata"
)

func (h *Handler) list(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	page, err := h.s.Tags(r.Context(), q)
	if err != nil {
		return err
	}
	if page.More {
		httpapi.SetNext(w, r, q.N, encodeCursor(&q, page.Next))
	}
	size := 64
	for i := range page.Tags {
		size += 1024
		for k := range page.Tags[i].Platforms {
			size += 768 + len(page.Tags[i].Platforms[k].Image.Config)
		}
	}
	body := append(make([]byte, 0, size), `{"items":[`...)
	for i := range page.Tags {
		if i > 0 {
			body = append(body, ',')
		}
		if body, err = appendTag(body, &page.Tags[i]); err != nil {
			return err
		}
	}
	httpapi.WriteEncoded(w, http.StatusOK, append(body, "]}"...))
	return nil
}

// Tags lists a page of tags. NAME_UNKNOWN where the caller may not pull from
// the repository, or there is none.
func (s *Service) Tags(ctx context.Context, q metadata.TagQuery) (metadata.TagPage, error) {
	if err := s.may(ctx, tarport.Pull, q.Repository); err != nil {
		return metadata.TagPage{}, err
	}
	return s.db.ListTags(ctx, q)
}

var (
	sorts        = []metadata.TagSort{metadata.SortName, metadata.SortVersion, metadata.SortPushed, metadata.SortPulled, metadata.SortSize}
	platformName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}(?:/[A-Za-z0-9._-]{1,64}){0,2}$`)
	filterWord   = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	filterGlob   = regexp.MustCompile(`^[A-Za-z0-9._*?-]{1,128}$`)
)

// Bounds of a query.
const (
	maxVariants = 8
	maxRange    = 256
)

// parseQuery reads the parameters of a list.
func parseQuery(r *http.Request) (q metadata.TagQuery, err error) {
	if q, err = parseFilters(r); err != nil {
		return q, err
	}
	params := r.URL.Query()
	if q.Sort, q.Descending, err = parseSort(params.Get("sort")); err != nil {
		return q, err
	}
	var last string
	if q.N, last, err = httpapi.Page(r); err != nil {
		return q, err
	}
	q.After, err = decodeCursor(&q, last)
	return q, err
}

func parseSort(s string) (sort metadata.TagSort, descending bool, err error) {
	name, descending := strings.CutPrefix(s, "-")
	if s == "" {
		name = string(metadata.SortName)
	}
	if sort = metadata.TagSort(name); !slices.Contains(sorts, sort) {
		return "", false, tarport.Errorf(tarport.Invalid, "sort %q is none: use name, version, pushed, pulled or size, with - before it for the other direction", s)
	}
	return sort, descending, nil
}

// parseFilters reads the repository and what of it is meant.
func parseFilters(r *http.Request) (q metadata.TagQuery, err error) {
	params := r.URL.Query()
	q.Repository = mux.Vars(r)["name"]
	if q.Name = params.Get("q"); q.Name != "" && !filterGlob.MatchString(q.Name) {
		return q, tarport.Errorf(tarport.Invalid, "q %q is no pattern for the name of a tag: use its letters, * and ?", q.Name)
	}
	if q.Platform, err = parsePlatform(params.Get("platform")); err != nil {
		return q, err
	}
	if q.Base = params.Get("base"); q.Base != "" && !filterWord.MatchString(q.Base) {
		return q, tarport.Errorf(tarport.Invalid, "base %q is none: use alpine or debian:12", q.Base)
	}
	for _, list := range params["variant"] {
		for v := range strings.SplitSeq(list, ",") {
			if !filterWord.MatchString(v) || len(q.Variants) == maxVariants {
				return q, tarport.Errorf(tarport.Invalid, "variant %q is no word of a tag's name, or one of more than %d", v, maxVariants)
			}
			q.Variants = append(q.Variants, v)
		}
	}
	if s := params.Get("version"); s != "" {
		if len(s) > maxRange {
			return q, tarport.Errorf(tarport.Invalid, "version is longer than %d bytes", maxRange)
		}
		rng, err := version.ParseRange(s)
		if err != nil {
			return q, tarport.Errorf(tarport.Invalid, "version %q is no range of versions: %s", s, err)
		}
		q.Range = &rng
	}
	return q, nil
}

// machines are other names of architectures.
var machines = map[string]string{"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm", "armel": "arm"}

func parsePlatform(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if !platformName.MatchString(s) {
		return "", tarport.Errorf(tarport.Invalid, "platform %q is none: use linux/amd64, or linux/arm/v7", s)
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for i, p := range parts[:min(len(parts), 2)] {
		if m := machines[p]; m != "" {
			parts[i] = m
		}
	}
	return strings.Join(parts, "/"), nil
}

// encodeCursor makes of a place in a list what a client gives back. It is of
// this order only.
func encodeCursor(q *metadata.TagQuery, c metadata.TagCursor) string {
	return base64.RawURLEncoding.EncodeToString([]byte(orderName(q) + "\x00" + c.Key + "\x00" + c.Name))
}

func orderName(q *metadata.TagQuery) string {
	if q.Descending {
		return "-" + string(q.Sort)
	}
	return string(q.Sort)
}

func decodeCursor(q *metadata.TagQuery, last string) (c metadata.TagCursor, err error) {
	if last == "" {
		return c, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(last)
	f := strings.Split(string(b), "\x00")
	if err != nil || len(f) != 3 || f[0] != orderName(q) || f[2] == "" {
		return c, tarport.Errorf(tarport.PaginationInvalid, "last is not where a list of this order goes on: use the link of the page before")
	}
	c = metadata.TagCursor{Key: f[1], Name: f[2]}
	return c, c.Check(q.Sort)
}
