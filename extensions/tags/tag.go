package tags

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// Tag is a tag as the API shows it.
type Tag struct {
	Name          string        `json:"name"`
	Digest        digest.Digest `json:"digest"`
	MediaType     string        `json:"media_type"`
	ArtifactType  string        `json:"artifact_type,omitempty"` // of what is no image
	Kind          string        `json:"kind"`                    // image, index or artifact
	Size          int64         `json:"size"`                    // of the layers, compressed; of an index those of all its images that are here
	CreatedAt     time.Time     `json:"created_at"`              // when the tag was there first
	PushedAt      time.Time     `json:"pushed_at"`               // when it was set last
	PushedBy      string        `json:"pushed_by"`
	PushedVia     string        `json:"pushed_via"` // push, load, import, commit or tag
	PulledAt      *time.Time    `json:"pulled_at"`  // null: never
	Pulls         int64         `json:"pulls"`
	RobotPulls    int64         `json:"robot_pulls"` // of pulls
	Aliases       []string      `json:"aliases"`     // other tags of the digest
	MoreAliases   bool          `json:"more_aliases,omitempty"`
	Immutable     bool          `json:"immutable"`
	Version       *string       `json:"version"` // null where the name has none
	Variant       []string      `json:"variant"`
	MorePlatforms bool          `json:"more_platforms,omitempty"`
	Platforms     []Platform    `json:"platforms"` // the last: see appendTag
}

// Platform is an image that a tag leads to.
type Platform struct {
	PlatformHead
	storage.ImageFacts
}

// PlatformHead is what of a Platform is not from the config alone. Of one that
// is missing, only its name and digest are known.
type PlatformHead struct {
	OS           string        `json:"os"`
	Architecture string        `json:"architecture"`
	Variant      string        `json:"variant"`
	OSVersion    string        `json:"os_version,omitempty"`
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"media_type,omitempty"` // of an entry that is here and no image
	Missing      bool          `json:"missing,omitempty"`    // the index names it, and the repository does not have it
	Size         int64         `json:"size"`
	Created      *time.Time    `json:"created"` // as the config says
	Author       string        `json:"author"`
	Message      string        `json:"message"` // of the commit
	Scan         string        `json:"scan"`    // pending, ready, failed or none: what Base waits for
	ScanReason   string        `json:"scan_reason,omitempty"`
	Base         *Base         `json:"base"` // null until the layers were looked into
}

// Base is what an image stands on, found in its layers.
type Base struct {
	ID             string `json:"id"` // as in os-release
	Version        string `json:"version"`
	Name           string `json:"name"` // a code name, or what people call it
	Libc           string `json:"libc"` // musl, glibc or none
	PackageManager string `json:"package_manager"`
	Packages       int64  `json:"packages"` // -1: unknown
	Slim           bool   `json:"slim"`     // a Debian without its documentation
}

// appendTag adds a Tag's JSON to b. What the configs say is in the database as
// the JSON that it is here, and goes from one to the other as it is: decoding
// and encoding it would be half of what a list costs.
func appendTag(b []byte, t *metadata.TagRow) ([]byte, error) {
	b, err := appendJSON(b, newTagHead(t))
	if err != nil {
		return nil, err
	}
	b = append(b[:len(b)-len("null}")], '[')
	for i := range t.Platforms {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendJSON(b, newPlatformHead(&t.Platforms[i])); err != nil {
			return nil, err
		}
		facts := t.Platforms[i].Image.Config
		if facts == "" {
			facts = noFacts
		}
		b = append(b[:len(b)-1], ',')
		b = append(b, facts[1:]...)
	}
	return append(b, "]}"...), nil
}

// noFacts is of a config that was not read.
const noFacts = `{"env":[],"entrypoint":[],"cmd":[],"exposed_ports":[],"volumes":[],"user":"","working_dir":"","labels":{}}`

func appendJSON(b []byte, v any) ([]byte, error) {
	encoded, err := json.Marshal(v)
	return append(b, encoded...), err
}

// newTag is what appendTag encodes.
func newTag(t *metadata.TagRow) Tag {
	out := newTagHead(t)
	out.Platforms = make([]Platform, len(t.Platforms))
	for i := range t.Platforms {
		out.Platforms[i] = Platform{*newPlatformHead(&t.Platforms[i]), storage.ParseImageFacts(t.Platforms[i].Image.Config)}
	}
	return *out
}

// newTagHead is a Tag without its platforms.
func newTagHead(t *metadata.TagRow) *Tag {
	out := &Tag{
		Name: t.Name, Digest: t.Digest, MediaType: t.MediaType, Kind: t.Kind, Size: t.Size, CreatedAt: t.CreatedAt,
		PushedAt: t.PushedAt, PushedBy: t.PushedBy, PushedVia: t.PushedVia, PulledAt: stamp(t.PulledAt), Pulls: t.Pulls, RobotPulls: t.RobotPulls,
		Aliases: t.Aliases, MoreAliases: t.MoreAliases, Immutable: t.Immutable, Variant: t.Variants, MorePlatforms: t.MorePlatforms,
	}
	if t.Kind == metadata.KindArtifact {
		out.ArtifactType = t.ArtifactType
	}
	if t.Version != "" {
		out.Version = &t.Version
	}
	return out
}

func newPlatformHead(p *metadata.TagPlatform) *PlatformHead {
	i := &p.Image
	out := &PlatformHead{
		OS: i.OS, Architecture: i.Architecture, Variant: i.Variant, OSVersion: i.OSVersion, Digest: p.Digest, MediaType: p.MediaType, Missing: p.Missing,
		Size: i.Size, Created: stamp(i.Created), Author: i.Author, Message: i.Message, Scan: i.Scan, ScanReason: i.ScanReason,
	}
	if out.Scan == "" {
		out.Scan = metadata.ScanNone
	}
	if out.OS == "" && out.Architecture == "" { // the index names what its config does not, or what is not here
		f := strings.SplitN(p.Platform+"//", "/", 4)
		out.OS, out.Architecture, out.Variant = f[0], f[1], f[2]
	}
	if i.Scan == metadata.ScanReady {
		b := Base(i.Base)
		out.Base = &b
	}
	return out
}

// stamp is a time as the API shows it; nil for the zero time.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
