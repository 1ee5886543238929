package engine

import (
	"cmp"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// summary is an image as docker images lists it.
type summary struct {
	ID          string `json:"Id"`
	ParentID    string `json:"ParentId"`
	RepoTags    []string
	RepoDigests []string
	Created     int64
	Size        int64
	SharedSize  int64
	VirtualSize int64 `json:",omitempty"` // up to API 1.43
	Labels      map[string]string
	Containers  int64
	Manifests   []manifestSummary `json:",omitempty"` // where asked for
}

// manifestSummary is a platform of an image, of which docker 29 shows the size,
// and with --tree the ID: here too the one that can be used again, where a
// daemon has the digest of the manifest for it.
type manifestSummary struct {
	ID         string
	Descriptor ocispec.Descriptor
	Available  bool
	Size       struct{ Content, Total int64 }
	Kind       string
	ImageData  imageData
}

type imageData struct {
	Platform   ocispec.Platform
	Size       struct{ Unpacked int64 }
	Containers []string
}

// list is docker images. All have a tag, so that -a and the filter dangling
// change nothing, or leave nothing.
func (h *Handler) list(w http.ResponseWriter, r *http.Request) error {
	ns := namespace(r)
	f, err := parseFilters(r)
	if err != nil {
		return err
	}
	if err := f.resolve(h, r); err != nil {
		return err
	}
	tags, err := h.images(r.Context(), metadata.ImageQuery{Namespace: ns}, func(repository, tag string) bool { return f.named(ns, repository, tag) })
	if err != nil {
		return err
	}
	var list []*summary
	byID := map[digest.Digest]*summary{}
	for i := range tags {
		im := tags[i].chosen()
		if !f.keeps(im) {
			continue
		}
		s := byID[im.ID]
		if s == nil {
			s = newSummary(im)
			byID[im.ID] = s
			list = append(list, s)
		}
		s.add(ns, &tags[i], boolValue(r, "manifests"))
	}
	slices.SortStableFunc(list, func(a, b *summary) int { return cmp.Compare(b.Created, a.Created) })
	if list == nil {
		list = []*summary{}
	}
	if !atLeast(r, 44) {
		for _, s := range list {
			s.VirtualSize = s.Size
		}
	}
	return httpapi.WriteJSON(w, http.StatusOK, list)
}

func newSummary(im *metadata.TaggedImage) *summary {
	return &summary{
		ID: im.ID.String(), Created: im.Created.Unix(), Size: im.Size, SharedSize: -1, Containers: -1, Labels: labels(im),
		RepoTags: []string{}, RepoDigests: []string{},
	}
}

// add gives the image another name.
func (s *summary) add(ns string, t *tagged, manifests bool) {
	name := repositoryName(ns, t.repository)
	s.RepoTags = append(s.RepoTags, name+":"+t.tag)
	if d := name + "@" + t.target.String(); !slices.Contains(s.RepoDigests, d) {
		s.RepoDigests = append(s.RepoDigests, d)
	}
	if manifests && s.Manifests == nil {
		for i := range t.images {
			s.Manifests = append(s.Manifests, newManifestSummary(&t.images[i]))
		}
	}
}

func newManifestSummary(im *metadata.TaggedImage) manifestSummary {
	p := ocispec.Platform{OS: im.OS, Architecture: im.Architecture, Variant: im.Variant}
	m := manifestSummary{
		ID: im.ID.String(), Available: true, Kind: "image",
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: im.Digest, Platform: &p},
		ImageData:  imageData{Platform: p, Containers: []string{}},
	}
	m.Size.Content, m.Size.Total = im.Size, im.Size
	return m
}

// labels are those that are kept beside the image: enough for a list.
func labels(im *metadata.TaggedImage) map[string]string {
	var c struct {
		Labels map[string]string `json:"labels"`
	}
	if json.Unmarshal([]byte(im.Config), &c) != nil || c.Labels == nil {
		return map[string]string{}
	}
	return c.Labels
}

// filters are those of docker images --filter.
type filters struct {
	reference, label, until, before, since []string
	dangling                               string // "", true or false

	after, ahead time.Time // of since and until; of before
}

// parseFilters reads {"name":{"value":true}}, or the lists that clients wrote
// before API 1.22.
func parseFilters(r *http.Request) (*filters, error) {
	q := r.URL.Query()
	f := &filters{}
	if v := q.Get("filter"); v != "" && !atLeast(r, 41) {
		f.reference = []string{v}
	}
	if q.Get("filters") == "" {
		return f, nil
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(q.Get("filters")), &raw); err != nil {
		return nil, tarport.Errorf(tarport.Invalid, "invalid filter: it is not a JSON object")
	}
	for name, values := range raw {
		list, err := filterValues(values)
		if err != nil {
			return nil, err
		}
		if err := f.set(name, list); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func filterValues(raw json.RawMessage) ([]string, error) {
	var set map[string]bool
	if json.Unmarshal(raw, &set) == nil {
		list := make([]string, 0, len(set))
		for v, on := range set {
			if on {
				list = append(list, v)
			}
		}
		return list, nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, tarport.Errorf(tarport.Invalid, "invalid filter: its values are neither an object nor a list")
	}
	return list, nil
}

func (f *filters) set(name string, values []string) error {
	switch name {
	case "reference":
		for _, p := range values {
			if _, err := path.Match(p, ""); err != nil {
				return tarport.Errorf(tarport.Invalid, "invalid filter 'reference=%.200s': it is not a pattern", p)
			}
		}
		f.reference = append(f.reference, values...)
	case "label":
		f.label = values
	case "before":
		f.before = values
	case "since":
		f.since = values
	case "until":
		f.until = values
	case "dangling":
		on, err := strconv.ParseBool(strings.Join(values, " "))
		if err != nil {
			return tarport.Errorf(tarport.Invalid, "invalid filter 'dangling=%.200s'", strings.Join(values, " "))
		}
		f.dangling = strconv.FormatBool(on)
	default:
		return tarport.Errorf(tarport.Invalid, "invalid filter '%.200s'", name)
	}
	return nil
}

// resolve finds out the times that before, since and until mean.
func (f *filters) resolve(h *Handler, r *http.Request) error {
	created := func(s string) (time.Time, error) {
		n, err := parseName(namespace(r), s)
		if err != nil {
			return time.Time{}, err
		}
		list, err := h.find(r.Context(), namespace(r), n)
		if err != nil {
			return time.Time{}, err
		}
		return list[0].chosen().Created, nil
	}
	until := func(s string) (time.Time, error) { return parseTime(s, h.now()) }
	for _, v := range []struct {
		values []string
		time   func(string) (time.Time, error)
		keep   *time.Time
		later  bool
	}{{f.before, created, &f.ahead, false}, {f.until, until, &f.ahead, false}, {f.since, created, &f.after, true}} {
		for _, s := range v.values {
			t, err := v.time(s)
			if err != nil {
				return err
			}
			if v.keep.IsZero() || t.After(*v.keep) == v.later {
				*v.keep = t
			}
		}
	}
	return nil
}

// parseTime reads a time as docker's --filter until takes it: how long ago, a
// Unix time, or one in words.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1<<40 {
		return time.Unix(int64(n), 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, tarport.Errorf(tarport.Invalid, "invalid filter 'until=%.200s'", s)
}

// named tells whether a tag is asked for, by its short name or its long one.
func (f *filters) named(ns, repository, tag string) bool {
	if len(f.reference) == 0 {
		return true
	}
	short := repositoryName(ns, repository)
	for _, p := range f.reference {
		for _, s := range []string{short, short + ":" + tag, repository, repository + ":" + tag} {
			if ok, _ := path.Match(p, s); ok {
				return true
			}
		}
	}
	return false
}

func (f *filters) keeps(im *metadata.TaggedImage) bool {
	if f.dangling == "true" || !f.after.IsZero() && !im.Created.After(f.after) || !f.ahead.IsZero() && !im.Created.Before(f.ahead) {
		return false
	}
	if len(f.label) == 0 {
		return true
	}
	have := labels(im)
	for _, l := range f.label {
		key, want, valued := strings.Cut(l, "=")
		if got, ok := have[key]; !ok || valued && got != want {
			return false
		}
	}
	return true
}
