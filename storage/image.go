package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// mediaTypeDockerConfig is the config of Docker's own images.
const mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"

// kind tells what the manifest is of. Signatures and attestations can have the
// config of an image: their layers tell.
func (d *document) kind() string {
	if d.Manifests != nil {
		return metadata.KindIndex
	}
	switch d.Config.MediaType {
	case ocispec.MediaTypeImageConfig, mediaTypeDockerConfig:
	default:
		return metadata.KindArtifact
	}
	isLayer := func(l ocispec.Descriptor) bool { return isImageLayer(l.MediaType) }
	if len(d.Layers) > 0 && !slices.ContainsFunc(d.Layers, isLayer) {
		return metadata.KindArtifact
	}
	return metadata.KindImage
}

func isImageLayer(mediaType string) bool {
	return isForeign(mediaType) || strings.HasPrefix(mediaType, ocispec.MediaTypeImageLayer) ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.diff.tar")
}

func (d *document) size() int64 {
	var sum int64
	for _, l := range d.Layers {
		sum = min(sum+min(l.Size, metadata.MaxSize), metadata.MaxSize)
	}
	return sum
}

// platformOf is the platform of an entry of an index, in metadata's words.
func platformOf(desc *ocispec.Descriptor) string {
	if _, err := isIndexType(desc.MediaType); err != nil && desc.MediaType != "" { // BuildKit's caches list layers
		return metadata.NoPlatform
	}
	p := desc.Platform
	switch {
	case desc.Annotations["vnd.docker.reference.type"] != "", p != nil && p.OS == "unknown" && p.Architecture == "unknown":
		return metadata.NoPlatform // BuildKit's attestations
	case p == nil || p.OS == "" && p.Architecture == "":
		return ""
	}
	name := plainWord(p.OS) + "/" + plainWord(p.Architecture)
	if p.Variant != "" {
		name += "/" + plainWord(p.Variant)
	}
	return name
}

// plainWord is a word of a platform that can stand in a path.
func plainWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '/' {
			return r
		}
		return '_'
	}, s[:min(len(s), 64)])
}

// readImage adds to a row what the config of its image says. open opens a blob
// that the caller may read. A config that is strange, too large or not here
// keeps no manifest out.
func readImage(row *metadata.ManifestPut, open func(metadata.ManifestReference) (io.ReadCloser, error)) error {
	if row.Manifest.Kind != metadata.KindImage {
		return nil
	}
	i := slices.IndexFunc(row.Manifest.References, func(r metadata.ManifestReference) bool { return r.Kind == metadata.KindConfig })
	ref := row.Manifest.References[i]
	if ref.Size > MaxManifest {
		facts := ParseImageFacts("")
		facts.Problem = "the config is larger than 4 MiB and was not read"
		row.Image = &metadata.Image{Config: encodeFacts(&facts)}
		return nil
	}
	r, err := open(ref)
	if tarport.ErrorCode(err) == tarport.BlobUnknown {
		return nil
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(r, MaxManifest))
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		return fmt.Errorf("read the config of image %s: %w", row.Manifest.Digest, err)
	}
	row.Image = parseImage(b)
	return nil
}

// openLinked opens a blob that a repository links.
func (s *Store) openLinked(ctx context.Context, repository string) func(metadata.ManifestReference) (io.ReadCloser, error) {
	return func(r metadata.ManifestReference) (io.ReadCloser, error) {
		f, _, err := s.OpenBlob(ctx, repository, r.Digest)
		return f, err
	}
}

// openLinks opens a blob that comes with a manifest, or that its repository
// links.
func (s *Store) openLinks(ctx context.Context, p *ManifestPut) func(metadata.ManifestReference) (io.ReadCloser, error) {
	return func(r metadata.ManifestReference) (io.ReadCloser, error) {
		if !slices.ContainsFunc(p.Blobs, func(l BlobLink) bool { return l.Descriptor.Digest == r.Digest }) {
			return s.openLinked(ctx, p.Repository)(r)
		}
		f, _, err := s.files.open(ctx, r.Digest)
		return f, err
	}
}

// readImages is readImage for all images of a batch, whose blobs are in place.
func (s *Store) readImages(ctx context.Context, puts []ManifestPut, rows []metadata.ManifestPut) error {
	for i := range rows {
		if err := readImage(&rows[i], s.openLinks(ctx, &puts[i])); err != nil {
			return err
		}
	}
	return nil
}

// describeOld records the facts of manifests that were put without them, until
// all are done or ctx ends.
func (s *Store) describeOld(ctx context.Context) error {
	const batch = 10 // payloads are in memory
	for _, configless := range []bool{false, true} {
		for last := (metadata.UnreadManifest{}); ; {
			list, err := s.db.UnreadManifests(ctx, batch, last, configless)
			if err != nil {
				return err
			}
			for i := range list {
				if err := s.describe(ctx, &list[i]); err != nil {
					return err
				}
			}
			if len(list) < batch {
				break
			}
			last = list[len(list)-1]
		}
	}
	return nil
}

func (s *Store) describe(ctx context.Context, m *metadata.UnreadManifest) error {
	row := metadata.ManifestPut{Repository: m.Repository}
	var err error
	if row.Manifest, err = ParseManifest(m.MediaType, m.Payload); err != nil { // it was taken once
		s.o.Log.LogAttrs(ctx, slog.LevelWarn, "an old manifest cannot be read",
			slog.String("repo", m.Repository), slog.String("digest", m.Digest.String()), slog.Any("err", err))
		row.Manifest.Kind = metadata.KindArtifact
	}
	row.Manifest.Digest = m.Digest
	if err := readImage(&row, s.openLinked(ctx, m.Repository)); err != nil {
		s.o.Log.LogAttrs(ctx, slog.LevelError, "the config of an old image cannot be read", slog.String("repo", m.Repository), slog.Any("err", err))
		return ctx.Err()
	}
	defer s.signalPushed()
	if err := s.db.DescribeManifest(ctx, m.Repository, &row.Manifest, row.Image); err != nil {
		return err
	}
	// Chains that are new have it settled again, also where no scanner runs.
	s.settle(context.WithoutCancel(ctx), []metadata.ManifestPut{row})
	return nil
}

// ImageFacts is what a list of tags shows of an image's config, and how it is
// stored (metadata.Image.Config).
type ImageFacts struct {
	Env          []string          `json:"env"`
	Entrypoint   []string          `json:"entrypoint"`
	Cmd          []string          `json:"cmd"`
	ExposedPorts []string          `json:"exposed_ports"`
	Volumes      []string          `json:"volumes"`
	User         string            `json:"user"`
	WorkingDir   string            `json:"working_dir"`
	Labels       map[string]string `json:"labels"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Healthcheck  *Healthcheck      `json:"healthcheck,omitempty"`
	Truncated    bool              `json:"truncated,omitempty"` // more than is kept here
	Problem      string            `json:"problem,omitempty"`   // why there is nothing, or not all
}

// Healthcheck is an image's, with durations like 30s.
type Healthcheck struct {
	Test          []string `json:"test"`
	Interval      string   `json:"interval,omitempty"`
	Timeout       string   `json:"timeout,omitempty"`
	StartPeriod   string   `json:"start_period,omitempty"`
	StartInterval string   `json:"start_interval,omitempty"`
	Retries       int      `json:"retries,omitempty"`
}

// Bounds of what is kept of a config. Lists of tags carry it for every platform
// of every tag; the whole is in the blob.
const (
	maxFacts    = 16 << 10 // bytes of all texts
	maxFactText = 2 << 10  // bytes of one
	maxFactList = 256      // entries of one list
)

// imageConfig is the part of a config that is read: image-spec, "OCI Image
// Configuration", and Docker's. Each field is decoded by itself, so that one
// that is wrong costs no other.
type imageConfig struct {
	OS           json.RawMessage `json:"os"`
	Architecture json.RawMessage `json:"architecture"`
	Variant      json.RawMessage `json:"variant"`
	OSVersion    json.RawMessage `json:"os.version"`
	Created      json.RawMessage `json:"created"`
	Author       json.RawMessage `json:"author"`
	Comment      json.RawMessage `json:"comment"` // Docker's: the message of the commit
	Config       json.RawMessage `json:"config"`
	History      json.RawMessage `json:"history"`
	RootFS       json.RawMessage `json:"rootfs"`
}

// buildkitComment is what BuildKit leaves in each item of the history.
const buildkitComment = "buildkit.dockerfile.v0"

// parseImage reads a config leniently: whatever it is, there is an answer.
func parseImage(b []byte) *metadata.Image {
	var c imageConfig
	k := &keeper{left: maxFacts}
	facts := &ImageFacts{}
	if err := json.Unmarshal(b, &c); err != nil {
		facts.Problem = "the config is not a JSON object"
	}
	img := &metadata.Image{
		OS: k.word(c.OS), Architecture: k.word(c.Architecture), Variant: k.word(c.Variant), OSVersion: k.word(c.OSVersion),
		Author: k.text(decode[string](c.Author)), Message: k.text(decode[string](c.Comment)),
	}
	if t, err := time.Parse(time.RFC3339, decode[string](c.Created)); err == nil {
		img.Created = t
	}
	// Others than Docker leave the last layer's author and comment in the history.
	if history := decode[[]ocispec.History](c.History); len(history) > 0 {
		last := history[len(history)-1]
		if img.Author == "" {
			img.Author = k.text(last.Author)
		}
		if img.Message == "" && last.Comment != buildkitComment {
			img.Message = k.text(last.Comment)
		}
	}
	k.config(facts, c.Config)
	facts.Truncated = k.cut
	img.Config = encodeFacts(facts)
	img.Chains = chainIDs(decode[ocispec.RootFS](c.RootFS).DiffIDs)
	return img
}

// maxChains is how many layers an image may have that is compared with others.
const maxChains = 512

// chainIDs are those of image-spec, "Layer ChainID"; none where a diffID is no
// digest.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	if len(diffIDs) == 0 || len(diffIDs) > maxChains {
		return nil
	}
	chains := make([]digest.Digest, len(diffIDs))
	for i, d := range diffIDs {
		if d.Validate() != nil {
			return nil
		}
		if chains[i] = d; i > 0 {
			chains[i] = digest.FromString(chains[i-1].String() + " " + d.String())
		}
	}
	return chains
}

// ParseImageFacts reads metadata.Image.Config; "" is of a config that was not
// read. Lists and maps are never nil.
func ParseImageFacts(config string) ImageFacts {
	var f ImageFacts
	(&keeper{}).config(&f, nil)
	if config != "" {
		_ = json.Unmarshal([]byte(config), &f) // encodeFacts wrote it
	}
	return f
}

func encodeFacts(f *ImageFacts) string {
	b, err := json.Marshal(f)
	if err != nil { // strings, lists and maps of them
		panic(err)
	}
	return string(b)
}

// decode is the value of a field, or as much of it as fits the type.
func decode[T any](raw json.RawMessage) T {
	var v T
	if len(raw) > 0 {
		_ = json.Unmarshal(raw, &v) // what does not fit is left out
	}
	return v
}

// keeper bounds what is kept of a config.
type keeper struct {
	left int
	cut  bool
}

func (k *keeper) config(f *ImageFacts, raw json.RawMessage) {
	c := decode[struct {
		User, WorkingDir, StopSignal, Env, Entrypoint, Cmd json.RawMessage
		ExposedPorts, Volumes, Labels, Healthcheck         json.RawMessage
	}](raw)
	f.User, f.WorkingDir = k.text(decode[string](c.User)), k.text(decode[string](c.WorkingDir))
	f.StopSignal = k.text(decode[string](c.StopSignal))
	f.Entrypoint, f.Cmd = k.command(c.Entrypoint), k.command(c.Cmd)
	f.ExposedPorts, f.Volumes = k.keys(c.ExposedPorts), k.keys(c.Volumes)
	f.Healthcheck = k.healthcheck(c.Healthcheck)
	f.Env = k.list(decode[[]string](c.Env))
	f.Labels = map[string]string{}
	labels := decode[map[string]string](c.Labels)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if len(f.Labels) == maxFactList || k.left <= 0 {
			k.cut = true
			break
		}
		f.Labels[k.text(name)] = k.text(labels[name])
	}
}

func (k *keeper) healthcheck(raw json.RawMessage) *Healthcheck {
	c := decode[*struct {
		Test                                          []string
		Interval, Timeout, StartPeriod, StartInterval time.Duration
		Retries                                       int
	}](raw)
	if c == nil || len(c.Test) == 0 {
		return nil
	}
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return &Healthcheck{
		Test: k.list(c.Test), Interval: text(c.Interval), Timeout: text(c.Timeout),
		StartPeriod: text(c.StartPeriod), StartInterval: text(c.StartInterval), Retries: c.Retries,
	}
}

// command is a list; some builders write one string.
func (k *keeper) command(raw json.RawMessage) []string {
	list := decode[[]string](raw)
	if one := decode[string](raw); one != "" {
		list = []string{one}
	}
	return k.list(list)
}

// keys are those of an object, in order.
func (k *keeper) keys(raw json.RawMessage) []string {
	return k.list(slices.Sorted(maps.Keys(decode[map[string]json.RawMessage](raw))))
}

func (k *keeper) list(in []string) []string {
	out := []string{}
	for _, s := range in {
		if len(out) == maxFactList || k.left <= 0 {
			k.cut = true
			break
		}
		out = append(out, k.text(s))
	}
	return out
}

// word is a short text.
func (k *keeper) word(raw json.RawMessage) string {
	s := decode[string](raw)
	return k.text(s[:min(len(s), 128)])
}

// text keeps a text as far as there is room: valid UTF-8, with no control
// characters but ends of lines and tabs.
func (k *keeper) text(s string) string {
	if limit := max(min(maxFactText, k.left), 0); len(s) > limit {
		s, k.cut = s[:limit], true
	}
	k.left -= len(s)
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}
