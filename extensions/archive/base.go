package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer"
)

// base is the image that a commit builds on.
type base struct {
	words  string // its name, for messages
	oci    bool   // what its manifest is
	layers []blob // with diffIDs; the compression is known after tree
	doc    committedDoc
	config runConfig
}

// committedDoc is the config of an image that a commit makes. The history is kept
// as it is, whatever keys it has.
type committedDoc struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	ocispec.Platform
	Config  runConfig         `json:"config"`
	RootFS  ocispec.RootFS    `json:"rootfs"`
	History []json.RawMessage `json:"history"`
}

// openBase reads the manifest and the config of a base; of several platforms
// that of platform, or linux/amd64. The principal of ctx must be allowed to pull
// it.
func (s *Service) openBase(ctx context.Context, name, platform string) (*base, error) {
	v, err := s.newSaving(ctx, SaveRequest{Format: formatOCI, Platform: platform})
	if err != nil {
		return nil, err
	}
	defer v.memory.Leave()
	repository, ref, err := tarport.ParseImage(name)
	if err != nil {
		return nil, within(err, "base=%.200s", name)
	}
	if err := s.o.Access.Authorize(ctx, tarport.PrincipalFrom(ctx), tarport.Pull, repository); err != nil {
		return nil, err
	}
	r := &top{words: imageWords(repository, ref), repository: repository, ref: ref}
	b, err := s.readBase(ctx, v, r)
	if err != nil {
		return nil, within(err, "the base %s", r.words)
	}
	return b, nil
}

func (s *Service) readBase(ctx context.Context, v *saving, r *top) (*base, error) {
	if err := v.root(ctx, r); err != nil {
		return nil, err
	}
	m, err := r.only("a commit", "")
	if err != nil {
		return nil, err
	}
	b := &base{words: r.words, oci: m.desc.MediaType == ocispec.MediaTypeImageManifest}
	for i, d := range m.layers {
		b.layers = append(b.layers, blob{desc: d, diffID: m.diffIDs[i]})
	}
	data, err := s.readBlob(ctx, m.repository, *m.config)
	if err != nil {
		return nil, err
	}
	if err := b.parse(data, s.o.Limits.LayersPerImage); err != nil {
		return nil, tarport.Errorf(tarport.ManifestInvalid, "its config: %s", err)
	}
	if b.doc.OS == "windows" {
		return nil, tarport.Errorf(tarport.Invalid, "it is an image of Windows, whose containers cannot be exported")
	}
	return b, nil
}

// parse reads the config.
func (b *base) parse(data []byte, layers int) error {
	o, err := parseObject(data, "architecture", "os", "os.version", "os.features", "variant", "config", "history", "rootfs")
	if err != nil {
		return err
	}
	p := &b.doc.Platform
	err = errors.Join(o.strings(map[string]*string{
		"architecture": &p.Architecture, "os": &p.OS, "os.version": &p.OSVersion, "variant": &p.Variant,
	}), o.get("os.features", &p.OSFeatures))
	if err != nil {
		return err
	}
	// An item of a layer each, and those of no layer.
	if b.doc.History, err = o.list("history", 10*layers); err != nil {
		return err
	}
	if b.doc.History == nil {
		b.doc.History = []json.RawMessage{}
	}
	if b.config, err = parseRunConfig(o["config"]); err != nil {
		return fmt.Errorf(`its "config": %w`, err)
	}
	return nil
}

// tree is the file system of the base, from layers that the registry has looked
// into: their forms are known then, whatever the manifest calls them.
func (b *base) tree(ctx context.Context, s *Service) (*layer.Tree, error) {
	var descs []ocispec.Descriptor
	var diffIDs []digest.Digest
	for _, l := range b.layers {
		descs, diffIDs = append(descs, l.desc), append(diffIDs, l.diffID)
	}
	t, err := s.tree(ctx, descs, diffIDs)
	if err != nil {
		return nil, within(err, "the base %s", b.words)
	}
	for i := range b.layers {
		l := &b.layers[i]
		known, ok, err := s.o.Store.KnownDiffID(ctx, l.desc.Digest)
		if err != nil {
			return nil, err
		}
		if !ok { // nothing is remembered of xz and bzip2
			return nil, tarport.Errorf(tarport.Conflict, "the base %s: its layer %d, %s, is in a form that clients cannot unpack: push it again",
				b.words, i+1, l.desc.Digest)
		}
		l.compression = known.Compression
	}
	return t, nil
}

// known returns the form in which a layer of a batch is stored already; the
// batch's own where there is none such.
func (s *Service) known(ctx context.Context, diffID digest.Digest, f form) (*blob, error) {
	known, err := knownForm(ctx, s.o.Store, diffID, f.compression)
	if err != nil {
		return nil, err
	}
	if known != nil {
		f = *known // the batch's goes with it
	}
	return &blob{desc: ocispec.Descriptor{Digest: f.digest, Size: f.size}, diffID: diffID, compression: f.compression}, nil
}
