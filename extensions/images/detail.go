package images

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// Detail is a manifest in full. What follows Platforms is of one image: the
// manifest itself, or the entry of an index that Platform names.
type Detail struct {
	Name         string            `json:"name"` // of the repository
	Digest       digest.Digest     `json:"digest"`
	MediaType    string            `json:"media_type"`
	Kind         string            `json:"kind"` // image, index or artifact
	ArtifactType string            `json:"artifact_type,omitempty"`
	Subject      digest.Digest     `json:"subject,omitempty"`
	Annotations  map[string]string `json:"annotations"`
	Tags         []string          `json:"tags"` // that point to it
	Size         int64             `json:"size"` // of the layers of all images that are here, compressed
	// UniqueSize are the bytes that only this one needs in its namespace: what
	// is free when it is gone.
	UniqueSize int64      `json:"unique_size"`
	PushedAt   time.Time  `json:"pushed_at"`
	PushedBy   string     `json:"pushed_by"`
	PushedVia  string     `json:"pushed_via"`
	Pulls      int64      `json:"pulls"`
	RobotPulls int64      `json:"robot_pulls"` // among them
	PulledAt   *time.Time `json:"pulled_at"`

	Platforms     []Platform `json:"platforms"`
	MorePlatforms bool       `json:"more_platforms,omitempty"` // the index has more than maxEntries entries
	Platform      string     `json:"platform"`                 // the one that is shown; "" where none is
	*Image
	Referrers []Referrer `json:"referrers"`
}

// Platform is an image of an index, or the one that there is.
type Platform struct {
	Platform     string        `json:"platform"` // os/architecture[/variant]
	OS           string        `json:"os"`
	Architecture string        `json:"architecture"`
	Variant      string        `json:"variant"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`              // of its layers, compressed
	Missing      bool          `json:"missing,omitempty"` // the index names it, and it is not here
	Created      *time.Time    `json:"created"`
	Author       string        `json:"author"`
	Message      string        `json:"message"`
	Scan         string        `json:"scan"` // pending, ready, failed or none: what Base waits for
	ScanReason   string        `json:"scan_reason,omitempty"`
	Base         *Base         `json:"base"` // null until the layers were looked into
	storage.ImageFacts
}

// Base is what an image stands on, found in its layers.
type Base struct {
	ID             string `json:"id"`
	Version        string `json:"version"`
	Name           string `json:"name"`
	Libc           string `json:"libc"`
	PackageManager string `json:"package_manager"`
	Packages       int64  `json:"packages"` // -1: unknown
	Slim           bool   `json:"slim"`     // a Debian without its documentation
}

// Referrer is a manifest that is about another one.
type Referrer struct {
	ocispec.Descriptor
	Kind string `json:"kind"` // signature, sbom, attestation or other
}

// Bounds of lists.
const (
	maxReferrers = 100
	maxRelated   = 50
	maxEntries   = 256 // of an index that are looked up; real ones have some 30
)

// Detail reads a manifest and what is known of it. MANIFEST_UNKNOWN where there
// is none; INVALID where it has not the platform that is asked for.
func (s *Service) Detail(ctx context.Context, q Query) (*Detail, error) {
	m, err := s.manifest(ctx, q)
	if err != nil {
		return nil, err
	}
	row, err := s.db.ManifestDetail(ctx, q.Repository, m.Digest)
	if err != nil {
		return nil, err
	}
	d := &Detail{
		Name: q.Repository, Digest: m.Digest, MediaType: m.MediaType, Kind: row.Kind, ArtifactType: row.ArtifactType, Subject: row.Subject,
		Size: row.Size, UniqueSize: row.UniqueSize, PushedAt: row.PushedAt, PushedBy: row.PushedBy, PushedVia: row.Via,
		Pulls: row.Pulls, RobotPulls: row.RobotPulls, Annotations: map[string]string{},
	}
	if !row.PulledAt.IsZero() {
		d.PulledAt = &row.PulledAt
	}
	if d.Tags, err = s.content.TagsOf(ctx, q.Repository, m.Digest); err != nil {
		return nil, err
	}
	doc, err := read(m.Payload)
	if err != nil {
		return nil, err
	}
	if doc.Annotations != nil {
		d.Annotations = doc.Annotations
	}
	shown, err := s.platforms(ctx, q, m, doc, d)
	if err != nil {
		return nil, err
	}
	if shown != nil {
		if d.Image, err = s.image(ctx, q.Repository, shown); err != nil {
			return nil, err
		}
	}
	d.Referrers, err = s.referrers(ctx, q.Repository, d, shown, doc)
	return d, err
}

// document is the part of a manifest that is shown. It was checked when it came.
type document struct {
	Config      *ocispec.Descriptor  `json:"config"`
	Layers      []ocispec.Descriptor `json:"layers"`
	Manifests   []ocispec.Descriptor `json:"manifests"`
	Annotations map[string]string    `json:"annotations"`
}

func read(payload []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// platforms fills in the platforms, and returns the image that is shown; nil
// where there is none.
func (s *Service) platforms(ctx context.Context, q Query, m *metadata.Manifest, doc *document, d *Detail) (*metadata.Manifest, error) {
	d.Platforms = []Platform{}
	if doc.Manifests == nil {
		if d.Kind != metadata.KindImage {
			return nil, nil
		}
		p, err := s.platform(ctx, q.Repository, m.Digest)
		if err != nil {
			return nil, err
		}
		d.Platforms = append(d.Platforms, p)
	}
	for i, desc := range doc.Manifests {
		if i == maxEntries {
			d.MorePlatforms = true
			break
		}
		p, ok, err := s.entry(ctx, q.Repository, desc)
		if err != nil {
			return nil, err
		}
		if ok {
			d.Platforms = append(d.Platforms, p)
		}
	}
	p, err := choose(d.Platforms, q.Platform)
	if p == nil || err != nil {
		return nil, err
	}
	d.Platform = p.Platform
	if p.Digest == m.Digest {
		return m, nil
	}
	return s.child(ctx, q.Repository, p.Digest)
}

// entry is an entry of an index; ok is false where it is no image.
func (s *Service) entry(ctx context.Context, repository string, desc ocispec.Descriptor) (p Platform, ok bool, err error) {
	p, err = s.platform(ctx, repository, desc.Digest)
	if tarport.ErrorCode(err) != tarport.ManifestUnknown {
		return p, err == nil && p.OS != "unknown", err
	}
	if desc.Platform == nil || desc.Platform.OS == "unknown" {
		return p, false, nil
	}
	return Platform{
		Platform: platformName(desc.Platform.OS, desc.Platform.Architecture, desc.Platform.Variant),
		OS:       desc.Platform.OS, Architecture: desc.Platform.Architecture, Variant: desc.Platform.Variant, Digest: desc.Digest,
		Missing: true, Scan: metadata.ScanNone,
	}, true, nil
}

func platformName(parts ...string) string {
	return strings.TrimRight(strings.Join(parts, "/"), "/")
}

// platform is what is recorded of an image that is here.
func (s *Service) platform(ctx context.Context, repository string, dgst digest.Digest) (Platform, error) {
	row, err := s.db.Image(ctx, repository, dgst)
	if err != nil {
		return Platform{}, err
	}
	p := Platform{
		Platform: platformName(row.OS, row.Architecture, row.Variant), OS: row.OS, Architecture: row.Architecture, Variant: row.Variant,
		Digest: dgst, Size: row.Size, Author: row.Author, Message: row.Message, Scan: row.Scan, ScanReason: row.ScanReason,
	}
	if row.Scan == metadata.ScanReady {
		b := Base(row.Base)
		p.Base = &b
	}
	if !row.Created.IsZero() {
		p.Created = &row.Created
	}
	if row.Config != "" {
		err = json.Unmarshal([]byte(row.Config), &p.ImageFacts)
	}
	return p, err
}

// choose is the platform to show: nil where none is here and none was asked for.
func choose(list []Platform, want string) (*Platform, error) {
	here := slices.DeleteFunc(slices.Clone(list), func(p Platform) bool { return p.Missing })
	at := slices.IndexFunc(here, func(p Platform) bool {
		if want == "" {
			return p.Platform == "linux/amd64"
		}
		// linux/arm64 is linux/arm64/v8 too.
		return p.Platform == want || strings.HasPrefix(p.Platform, want+"/")
	})
	switch {
	case at >= 0:
		return &here[at], nil
	case want == "" && len(here) > 0:
		return &here[0], nil
	case want == "":
		return nil, nil
	}
	names := make([]string, len(here))
	for i, p := range here {
		names[i] = p.Platform
	}
	return nil, tarport.Errorf(tarport.Invalid, "there is no image for %s here; there is: %s", want, strings.Join(names, ", "))
}

// referrers are the manifests about the one that was asked for, and about the
// image that is shown.
func (s *Service) referrers(ctx context.Context, repository string, d *Detail, shown *metadata.Manifest, doc *document) ([]Referrer, error) {
	list := []Referrer{}
	subjects := []digest.Digest{d.Digest}
	if shown != nil && shown.Digest != d.Digest {
		subjects = append(subjects, shown.Digest)
	}
	for _, subject := range subjects {
		descs, _, err := s.content.Referrers(ctx, repository, subject, "", maxReferrers, "")
		if err != nil {
			return nil, err
		}
		for _, text := range descs {
			var r Referrer
			if err := json.Unmarshal([]byte(text), &r.Descriptor); err != nil {
				return nil, err
			}
			list = add(list, r)
		}
	}
	// BuildKit's attestations stand in the index beside what they are about.
	for _, desc := range doc.Manifests {
		about := digest.Digest(desc.Annotations["vnd.docker.reference.digest"])
		if about != "" && shown != nil && about == shown.Digest {
			list = add(list, Referrer{Descriptor: desc})
		}
	}
	return s.cosign(ctx, repository, subjects, list)
}

func add(list []Referrer, r Referrer) []Referrer {
	if slices.ContainsFunc(list, func(o Referrer) bool { return o.Digest == r.Digest }) {
		return list
	}
	if r.Kind == "" {
		r.Kind = referrerKind(r.Descriptor)
	}
	return append(list, r)
}

// cosign adds what cosign before 2.4 names by a tag: sha256-<hex>.sig.
func (s *Service) cosign(ctx context.Context, repository string, subjects []digest.Digest, list []Referrer) ([]Referrer, error) {
	for _, subject := range subjects {
		for _, suffix := range []struct{ suffix, kind string }{{"sig", "signature"}, {"att", "attestation"}, {"sbom", "sbom"}} {
			tag := subject.Algorithm().String() + "-" + subject.Encoded() + "." + suffix.suffix
			if tarport.CheckTag(tag) != nil {
				continue // of a sha512 it would be too long
			}
			m, err := s.content.Manifest(ctx, repository, tarport.Reference{Tag: tag})
			if tarport.ErrorCode(err) == tarport.ManifestUnknown {
				continue
			}
			if err != nil {
				return nil, err
			}
			list = add(list, Referrer{Kind: suffix.kind, Descriptor: ocispec.Descriptor{
				MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Payload)), ArtifactType: "application/vnd.dev.cosign." + suffix.suffix,
			}})
		}
	}
	return list, nil
}

// referrerKind sorts by the artifact types that are in use.
func referrerKind(d ocispec.Descriptor) string {
	t := strings.ToLower(d.ArtifactType)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(t, w) })
	}
	switch {
	case has("spdx", "cyclonedx", "syft", "sbom"):
		return "sbom"
	case has("in-toto", "attestation", "slsa", "dsse"), d.Annotations["vnd.docker.reference.type"] == "attestation-manifest":
		return "attestation"
	case has("signature", "cosign", "sigstore", "notary"):
		return "signature"
	}
	return "other"
}
