package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage/metadata"
)

// inspection is docker image inspect.
type inspection struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string
	DockerVersion string `json:",omitempty"`
	Author        string
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	OsVersion     string `json:",omitempty"`
	Size          int64
	VirtualSize   int64           `json:",omitempty"` // up to API 1.43
	Config        json.RawMessage // as the image has it
	GraphDriver   struct {
		Name string
		Data map[string]string
	}
	RootFS   rootFS
	Metadata struct{ LastTagTime time.Time }
}

type rootFS struct {
	Type   string
	Layers []string
}

// config is the part of an image's config that is read.
type config struct {
	Created       *time.Time        `json:"created"`
	Author        string            `json:"author"`
	Comment       string            `json:"comment"`
	DockerVersion string            `json:"docker_version"`
	Architecture  string            `json:"architecture"`
	Variant       string            `json:"variant"`
	OS            string            `json:"os"`
	OSVersion     string            `json:"os.version"`
	Config        json.RawMessage   `json:"config"`
	History       []ocispec.History `json:"history"`
	RootFS        struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// one is the image that a request names, with the tags that lead to it.
type one struct {
	*metadata.TaggedImage
	repoTags, repoDigests []string
	taggedAt              time.Time
}

// one finds the image of {name}, for the platform of the query where there is
// one.
func (h *Handler) one(r *http.Request) (*one, error) {
	ns := namespace(r)
	n, err := parseName(ns, mux.Vars(r)["name"])
	if err != nil {
		return nil, err
	}
	want, err := parsePlatform(r.URL.Query().Get("platform"))
	if err != nil {
		return nil, err
	}
	list, err := h.find(r.Context(), ns, n)
	if err != nil {
		return nil, err
	}
	im := &one{TaggedImage: list[0].chosen()}
	if want != nil {
		if im.TaggedImage = list[0].platform(*want); im.TaggedImage == nil {
			return nil, tarport.Errorf(tarport.ManifestUnknown, "image with reference %s was found but does not provide the specified platform (%s)", n.raw, platformWords(*want))
		}
	}
	return im, h.nameAll(r.Context(), ns, im)
}

// nameAll finds all tags of the image in the namespace, as far as who asks may
// see them.
func (h *Handler) nameAll(ctx context.Context, ns string, im *one) error {
	list, err := h.images(ctx, metadata.ImageQuery{Namespace: ns, ID: im.ID.String()}, nil)
	if tarport.ErrorCode(err) == tarport.Unauthorized { // a token that is for one repository
		list, err = h.images(ctx, metadata.ImageQuery{Namespace: ns, Repository: im.Repository, Tag: im.Tag}, nil)
	}
	if err != nil && !absent(err) && tarport.ErrorCode(err) != tarport.TooLarge {
		return err
	}
	for _, t := range list {
		name := repositoryName(ns, t.repository)
		im.repoTags = append(im.repoTags, name+":"+t.tag)
		if d := name + "@" + t.target.String(); !slices.Contains(im.repoDigests, d) {
			im.repoDigests = append(im.repoDigests, d)
		}
		if t.taggedAt.After(im.taggedAt) {
			im.taggedAt = t.taggedAt
		}
	}
	return nil
}

// maxConfig bounds a config that is read into memory.
const maxConfig = 4 << 20

func (h *Handler) config(ctx context.Context, im *one) (c config, err error) {
	f, b, err := h.o.Content.OpenBlob(ctx, im.Repository, im.ID)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if b.Size > maxConfig {
		return c, tarport.Errorf(tarport.TooLarge, "the config of %s has %d bytes, more than %d are not read", im.ID, b.Size, maxConfig)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return c, fmt.Errorf("read config %s: %w", im.ID, err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, tarport.Errorf(tarport.ManifestInvalid, "the config %s is not that of an image", im.ID).Because(err)
	}
	return c, nil
}

// layers are the sizes of an image's layers, as stored.
func (h *Handler) layers(ctx context.Context, im *one) ([]int64, error) {
	m, err := h.o.Content.Manifest(ctx, im.Repository, tarport.Reference{Digest: im.Digest})
	if err != nil {
		return nil, err
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(m.Payload, &doc); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", im.Digest, err)
	}
	sizes := make([]int64, len(doc.Layers))
	for i, l := range doc.Layers {
		sizes[i] = l.Size
	}
	return sizes, nil
}

func (h *Handler) inspect(w http.ResponseWriter, r *http.Request) error {
	im, err := h.one(r)
	if err != nil {
		return err
	}
	c, err := h.config(r.Context(), im)
	if err != nil {
		return err
	}
	out := inspection{
		ID: im.ID.String(), RepoTags: im.repoTags, RepoDigests: im.repoDigests, Comment: c.comment(), DockerVersion: c.DockerVersion,
		Author: c.Author, Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion, Size: im.Size,
		Config: c.Config, RootFS: rootFS{c.RootFS.Type, []string{}},
	}
	if len(c.Config) == 0 || c.Config[0] != '{' {
		out.Config = json.RawMessage("{}")
	}
	if c.Created != nil {
		out.Created = c.Created.Format(time.RFC3339Nano)
	}
	for _, d := range c.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	out.GraphDriver.Name, out.Metadata.LastTagTime = "tarport", im.taggedAt
	if !atLeast(r, 44) {
		out.VirtualSize = out.Size
	}
	return httpapi.WriteJSON(w, http.StatusOK, out)
}

// comment is the message of the commit, as the daemon finds it (moby:
// daemon/containerd/image_inspect.go).
func (c *config) comment() string {
	if n := len(c.History); c.Comment == "" && n > 0 {
		return c.History[n-1].Comment
	}
	return c.Comment
}

// historyItem is a line of docker history, the last step first.
type historyItem struct {
	ID        string `json:"Id"`
	Created   int64
	CreatedBy string
	Tags      []string
	Size      int64
	Comment   string
}

func (h *Handler) history(w http.ResponseWriter, r *http.Request) error {
	im, err := h.one(r)
	if err != nil {
		return err
	}
	c, err := h.config(r.Context(), im)
	if err != nil {
		return err
	}
	sizes, err := h.layers(r.Context(), im)
	if err != nil {
		return err
	}
	items := newHistory(c.History, sizes)
	if len(items) > 0 {
		items[0].ID, items[0].Tags = im.ID.String(), im.repoTags
	}
	return httpapi.WriteJSON(w, http.StatusOK, items)
}

// newHistory gives each step of a history its layer. Builders that write no
// history, or less of it than layers, get a line for each of the rest.
func newHistory(steps []ocispec.History, sizes []int64) []historyItem {
	items := []historyItem{}
	for _, s := range steps {
		it := historyItem{ID: "<missing>", CreatedBy: s.CreatedBy, Comment: s.Comment, Created: time.Time{}.Unix()}
		if s.Created != nil {
			it.Created = s.Created.Unix()
		}
		if !s.EmptyLayer && len(sizes) > 0 {
			it.Size, sizes = sizes[0], sizes[1:]
		}
		items = append(items, it)
	}
	for _, n := range sizes {
		items = append(items, historyItem{ID: "<missing>", Created: time.Time{}.Unix(), Size: n})
	}
	slices.Reverse(items)
	return items
}
