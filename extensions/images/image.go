package images

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// Image is one image.
type Image struct {
	ImageID    digest.Digest `json:"image_id"` // the digest of the config
	Config     *Config       `json:"config"`   // nil where it is not here
	Layers     []Layer       `json:"layers"`   // the lowest first
	History    []Step        `json:"history"`  // the first first; with those that made no layer
	Dockerfile string        `json:"dockerfile"`
	// BaseImage is an image that the caller may read whose layers are the lower
	// ones of this one; the one with most of them.
	BaseImage *Related  `json:"base_image"`
	BuiltOn   []Related `json:"images_on_this"` // what stands on it in the same way
}

// Config is what a container of the image begins with. OCI's keys, as the API
// spells them.
type Config struct {
	storage.ImageFacts
	EnvInherited []string `json:"env_inherited"` // the names of variables that come from the base image as they are
	Shell        []string `json:"shell,omitempty"`
	OnBuild      []string `json:"on_build,omitempty"`
}

// Layer is a layer of an image.
type Layer struct {
	Digest    digest.Digest `json:"digest"`
	DiffID    digest.Digest `json:"diff_id"` // as the config says; "" where it does not
	MediaType string        `json:"media_type"`
	Size      int64         `json:"size"`      // as stored
	History   int           `json:"history"`   // the step that made it; -1 where the history does not say
	Inherited bool          `json:"inherited"` // from the base image
}

// Step is a step of how the image was made.
type Step struct {
	Created     *time.Time `json:"created"`
	CreatedBy   string     `json:"created_by"`
	Instruction string     `json:"instruction"` // in the words of a Dockerfile
	Author      string     `json:"author"`
	Comment     string     `json:"comment"` // the message of a commit
	EmptyLayer  bool       `json:"empty_layer"`
	Layer       int        `json:"layer"` // what it made; -1 for nothing
}

// Related is another image.
type Related struct {
	Name   string        `json:"name"` // repository:tag, or repository@digest
	Digest digest.Digest `json:"digest"`
	Layers int           `json:"layers"` // how many the two share
}

// image reads one image.
func (s *Service) image(ctx context.Context, repository string, m *metadata.Manifest) (*Image, error) {
	doc, err := read(m.Payload)
	if err != nil {
		return nil, err
	}
	im := &Image{ImageID: doc.Config.Digest, Layers: make([]Layer, len(doc.Layers)), History: []Step{}, BuiltOn: []Related{}}
	for i, l := range doc.Layers {
		im.Layers[i] = Layer{Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, History: -1}
	}
	row, err := s.db.Image(ctx, repository, m.Digest)
	if err != nil {
		return nil, err
	}
	config, err := s.config(ctx, repository, doc.Config)
	if err != nil {
		return nil, err
	}
	if config != nil && row.Config != "" {
		im.Config = &Config{EnvInherited: []string{}, Shell: config.Config.Shell, OnBuild: config.Config.OnBuild}
		if err := json.Unmarshal([]byte(row.Config), &im.Config.ImageFacts); err != nil {
			return nil, err
		}
		im.tell(config)
	}
	return im, s.relate(ctx, repository, m.Digest, im)
}

// imageConfig is what the facts in the database leave out.
type imageConfig struct {
	RootFS  ocispec.RootFS    `json:"rootfs"`
	History []ocispec.History `json:"history"`
	Config  struct {
		Shell   []string
		OnBuild []string
	} `json:"config"`
}

// config reads the config; nil where it is not here. What in it is strange is
// left out.
func (s *Service) config(ctx context.Context, repository string, desc *ocispec.Descriptor) (*imageConfig, error) {
	r, _, err := s.content.OpenBlob(ctx, repository, desc.Digest)
	if tarport.ErrorCode(err) == tarport.BlobUnknown {
		return nil, nil //nolint:nilnil // an image may be here without its config
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, storage.MaxManifest))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	var c imageConfig
	_ = json.Unmarshal(b, &c)
	return &c, nil
}

// maxSteps bounds the history that is shown.
const maxSteps = 1000

// tell joins history and layers: the steps that are not empty made the layers,
// in order (image-spec, "history"). Where their numbers differ nobody knows.
func (im *Image) tell(c *imageConfig) {
	if len(c.RootFS.DiffIDs) == len(im.Layers) {
		for i, d := range c.RootFS.DiffIDs {
			im.Layers[i].DiffID = d
		}
	}
	if len(c.History) > maxSteps {
		c.History = c.History[:maxSteps]
	}
	made := 0
	for _, h := range c.History {
		if !h.EmptyLayer {
			made++
		}
	}
	next := 0
	for i, h := range c.History {
		step := Step{Created: h.Created, CreatedBy: h.CreatedBy, Instruction: instruction(h), Author: h.Author, Comment: h.Comment, EmptyLayer: h.EmptyLayer, Layer: -1}
		if !h.EmptyLayer && made == len(im.Layers) {
			step.Layer, im.Layers[next].History = next, i
			next++
		}
		im.History = append(im.History, step)
	}
	im.Dockerfile = dockerfile(c.History)
}

// relate finds what the image stands on, and what stands on it: nothing where
// the caller may read this repository only, by a token of its scope.
func (s *Service) relate(ctx context.Context, repository string, dgst digest.Digest, im *Image) error {
	p := tarport.PrincipalFrom(ctx)
	if !p.InScope(tarport.List, "") {
		return nil
	}
	v := metadata.ViewerOf(p)
	bases, err := s.db.BaseImages(ctx, v, repository, dgst, 1)
	if err != nil {
		return err
	}
	on, err := s.db.ImagesOn(ctx, v, repository, dgst, maxRelated)
	if err != nil {
		return err
	}
	for _, r := range on {
		im.BuiltOn = append(im.BuiltOn, newRelated(r))
	}
	if len(bases) == 0 {
		return nil
	}
	base := newRelated(bases[0])
	im.BaseImage = &base
	for i := range im.Layers {
		im.Layers[i].Inherited = i < base.Layers
	}
	row, err := s.db.Image(ctx, bases[0].Repository, bases[0].Digest)
	if tarport.ErrorCode(err) == tarport.ManifestUnknown || err == nil && row.Config == "" || im.Config == nil {
		return nil // gone meanwhile, or not known
	}
	if err != nil {
		return err
	}
	var facts storage.ImageFacts
	if err := json.Unmarshal([]byte(row.Config), &facts); err != nil {
		return err
	}
	for _, v := range im.Config.Env {
		if slices.Contains(facts.Env, v) {
			name, _, _ := strings.Cut(v, "=")
			im.Config.EnvInherited = append(im.Config.EnvInherited, name)
		}
	}
	return nil
}

func newRelated(r metadata.RelatedImage) Related {
	name := r.Repository + "@" + r.Digest.String()
	if r.Tag != "" {
		name = r.Repository + ":" + r.Tag
	}
	return Related{Name: name, Digest: r.Digest, Layers: r.Depth}
}
