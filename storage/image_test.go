package storage

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testImage is an image whose blobs are there or on their way.
type testImage struct {
	mediaType string
	config    ocispec.Descriptor
	layers    []ocispec.Descriptor
	subject   *ocispec.Descriptor
	artifact  string
	notes     map[string]string
}

func describeBytes(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func configOf(layers ...string) []byte {
	b, _ := json.Marshal(map[string]any{"architecture": "amd64", "layers": layers}) //nolint:errchkjson // strings encode
	return b
}

// imageOf is an image with layers of these contents.
func imageOf(layers ...string) *testImage {
	img := &testImage{
		mediaType: ocispec.MediaTypeImageManifest, config: describeBytes(ocispec.MediaTypeImageConfig, configOf(layers...)),
		layers: []ocispec.Descriptor{},
	}
	for _, l := range layers {
		img.layers = append(img.layers, describeBytes(ocispec.MediaTypeImageLayerGzip, []byte(l)))
	}
	return img
}

// pushImage pushes the blobs of an image, not its manifest.
func (s *testStore) pushImage(tb testing.TB, repository string, layers ...string) *testImage {
	tb.Helper()
	s.push(tb, repository, configOf(layers...))
	for _, l := range layers {
		s.push(tb, repository, []byte(l))
	}
	return imageOf(layers...)
}

func (img *testImage) payload() []byte {
	b, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaType, ArtifactType: img.artifact,
		Config: img.config, Layers: img.layers, Subject: img.subject, Annotations: img.notes,
	})
	if err != nil {
		panic(err)
	}
	return b
}

func (img *testImage) digest() digest.Digest { return digest.FromBytes(img.payload()) }

func (img *testImage) descriptor() ocispec.Descriptor {
	return describeBytes(img.mediaType, img.payload())
}

func (img *testImage) put(repository string, tags ...string) ManifestPut {
	return ManifestPut{Repository: repository, MediaType: img.mediaType, Payload: img.payload(), Tags: tags, By: "alice", Via: ViaPush}
}

// indexOf is an index of manifests.
func indexOf(manifests ...ocispec.Descriptor) []byte {
	if manifests == nil {
		manifests = []ocispec.Descriptor{}
	}
	b, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		panic(err)
	}
	return b
}
