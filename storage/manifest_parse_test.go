package storage

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

const (
	digestA = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" // of "a"
	digestB = "sha512:5267768822ee624d48fce15ec5ca79cbd602cb7f4c2157a516556991f22ef8c7b5ef7b18d1ff41c59370efb0858651d44a936c11b7b144c48fe04df3c6a3e8da"

	ociImage    = ocispec.MediaTypeImageManifest
	ociIndex    = ocispec.MediaTypeImageIndex
	dockerImage = MediaTypeDockerManifest
	dockerIndex = MediaTypeDockerManifestList
)

func desc(more string) string {
	return `{"mediaType":"application/x","digest":"` + digestA + `","size":1` + more + `}`
}

// image is a document of an image; top is put before its other keys.
func image(top string) string {
	return `{"schemaVersion":2,` + top + `"config":` + desc("") + `,"layers":[` + desc("") + `]}`
}

func index(top string) string {
	return `{"schemaVersion":2,` + top + `"manifests":[` + desc("") + `]}`
}

func TestManifestsThatAreTaken(t *testing.T) {
	t.Parallel()
	ref := func(kind string) metadata.ManifestReference {
		return metadata.ManifestReference{Kind: kind, Digest: digestA, Size: 1}
	}
	config, layer := ref(metadata.KindConfig), ref(metadata.KindLayer)
	for name, c := range map[string]struct {
		mediaType, payload string
		want               metadata.Manifest // without what all have
	}{
		"an image": {
			ociImage, image(`"mediaType":"` + ociImage + `",`),
			metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}},
		},
		"an image without mediaType":  {ociImage, image(``), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"a null mediaType is absent":  {ociImage, image(`"mediaType":null,`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"a null subject is absent":    {ociImage, image(`"subject":null,`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"Docker's image":              {dockerImage, image(`"mediaType":"` + dockerImage + `",`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"an image without layers":     {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[]}`, metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config}}},
		"an index":                    {ociIndex, index(``), metadata.Manifest{References: []metadata.ManifestReference{ref(metadata.KindManifest)}}},
		"an empty index":              {ociIndex, `{"schemaVersion":2,"manifests":[]}`, metadata.Manifest{References: []metadata.ManifestReference{}}},
		"Docker's list":               {dockerIndex, index(`"mediaType":"` + dockerIndex + `",`), metadata.Manifest{References: []metadata.ManifestReference{ref(metadata.KindManifest)}}},
		"an artifact":                 {ociImage, image(`"artifactType":"application/sbom","subject":{"mediaType":"m","digest":"` + digestB + `","size":0},`), metadata.Manifest{ArtifactType: "application/sbom", Subject: digestB, References: []metadata.ManifestReference{config, layer}}},
		"an index with a subject":     {ociIndex, index(`"artifactType":"x/y","subject":` + desc("") + `,`), metadata.Manifest{ArtifactType: "x/y", Subject: digestA, References: []metadata.ManifestReference{ref(metadata.KindManifest)}}},
		"keys that nobody knows":      {ociImage, image(`"x":{"digest":"no","Size":-1,"size":[null]},"Kind":1,"\u212aind":2,`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"annotations in any case":     {ociImage, image(`"annotations":{"Digest":"a","digest":"b","size":"c"},`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"white space round it":        {ociImage, "\n\t " + image(``) + " \r\n", metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"data that is right":          {ociImage, `{"schemaVersion":2,"config":` + desc(`,"data":"YQ=="`) + `,"layers":[]}`, metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config}}},
		"a platform, urls and sha512": {ociIndex, `{"schemaVersion":2,"manifests":[{"digest":"` + digestB + `","size":3,"urls":["https://x"],"platform":{"os":"linux","architecture":"arm64","os.version":"1","variant":"v8"}}]}`, metadata.Manifest{References: []metadata.ManifestReference{{Kind: metadata.KindManifest, Digest: digestB, Size: 3}}}},
		"layers that are elsewhere": {
			ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[
			{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"` + digestA + `","size":1},
			{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + digestA + `","size":1},` + desc("") + `]}`,
			metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, ref(metadata.KindForeign), ref(metadata.KindForeign), layer}},
		},
		"2000 layers": {
			ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + strings.Repeat(desc("")+",", 1999) + desc("") + `]}`,
			metadata.Manifest{ArtifactType: "application/x", References: append([]metadata.ManifestReference{config}, slices.Repeat([]metadata.ManifestReference{layer}, 2000)...)},
		},
		"nested 32 deep": {ociImage, image(`"x":` + strings.Repeat(`[`, 31) + strings.Repeat(`]`, 31) + `,`), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
		"4 MiB":          {ociImage, padded(MaxManifest), metadata.Manifest{ArtifactType: "application/x", References: []metadata.ManifestReference{config, layer}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseManifest(c.mediaType, []byte(c.payload))
			check(t, "ParseManifest", err)
			var own ocispec.Descriptor
			check(t, "decode the descriptor", json.Unmarshal([]byte(got.Descriptor), &own))
			if own.Digest != digest.FromString(c.payload) || own.Size != int64(len(c.payload)) || own.MediaType != c.mediaType || own.ArtifactType != c.want.ArtifactType {
				t.Errorf("descriptor = %s", got.Descriptor)
			}
			if string(got.Payload) != c.payload {
				t.Error("the payload is not what came")
			}
			c.want.Kind, c.want.Size = got.Kind, got.Size // TestWhatAManifestIs
			for i := range got.References {
				got.References[i].Platform = ""
			}
			c.want.Digest, c.want.MediaType, c.want.Payload, c.want.Descriptor = own.Digest, c.mediaType, got.Payload, got.Descriptor
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("ParseManifest (-want +got):\n%s", cmp.Diff(c.want, got))
			}
		})
	}
}

// padded is an image of so many bytes.
func padded(n int) string {
	empty := image(`"annotations":{"x":""},`)
	return image(`"annotations":{"x":"` + strings.Repeat("x", n-len(empty)) + `"},`)
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	withConfig := func(config string) string { return `{"schemaVersion":2,"config":` + config + `,"layers":[]}` }
	withEntry := func(entry string) string { return `{"schemaVersion":2,"manifests":[` + entry + `]}` }
	for name, c := range map[string]struct {
		mediaType, payload string
		says               string // a part of the message
	}{
		// two kinds, or not the one that was said
		"image and index":              {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[],"manifests":[]}`, "image or an index"},
		"index and layers":             {ociIndex, `{"schemaVersion":2,"layers":[],"manifests":[]}`, "image or an index"},
		"index and config":             {ociIndex, `{"schemaVersion":2,"config":` + desc("") + `,"manifests":[]}`, "image or an index"},
		"image and a null index":       {ociImage, image(`"manifests":null,`), "null"},
		"index and null layers":        {ociIndex, index(`"layers":null,`), "null"},
		"index sent as image":          {ociImage, index(``), "not both config and layers"},
		"image sent as index":          {ociIndex, image(``), "no manifests"},
		"no layers":                    {ociImage, `{"schemaVersion":2,"config":` + desc("") + `}`, "not both"},
		"null layers":                  {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":null}`, "null"},
		"no config":                    {ociImage, `{"schemaVersion":2,"layers":[]}`, "not both"},
		"null config":                  {ociImage, `{"schemaVersion":2,"config":null,"layers":[]}`, "null"},
		"null manifests":               {ociIndex, `{"schemaVersion":2,"manifests":null}`, "null"},
		"another mediaType inside":     {ociImage, image(`"mediaType":"` + dockerImage + `",`), "sent as"},
		"an index's mediaType inside":  {ociImage, image(`"mediaType":"` + ociIndex + `",`), "sent as"},
		"Docker's without mediaType":   {dockerImage, image(``), "no mediaType"},
		"Docker's list without it":     {dockerIndex, index(``), "no mediaType"},
		"a type that is not known":     {"application/json", image(``), "application/json"},
		"no type":                      {"", image(``), "its type"},
		"Docker's schema 1":            {"application/vnd.docker.distribution.manifest.v1+prettyjws", image(``), "its type"},
		"schemaVersion 1":              {ociImage, `{"schemaVersion":1,"config":` + desc("") + `,"layers":[]}`, "schemaVersion"},
		"no schemaVersion":             {ociImage, `{"config":` + desc("") + `,"layers":[]}`, "schemaVersion"},
		"schemaVersion as text":        {ociImage, `{"schemaVersion":"2","config":` + desc("") + `,"layers":[]}`, "schemaVersion"},
		"schemaVersion with fractions": {ociImage, `{"schemaVersion":2.0,"config":` + desc("") + `,"layers":[]}`, "schemaVersion"},

		// keys
		"a key twice":               {ociImage, image(`"layers":[],`), `"layers" stands twice`},
		"mediaType twice":           {ociImage, image(`"mediaType":"` + ociImage + `","mediaType":"` + ociImage + `",`), "twice"},
		"a key twice by an escape":  {ociImage, image(`"l\u0061yers":[],`), "twice"},
		"a key twice in config":     {ociImage, withConfig(`{"digest":"` + digestA + `","size":1,"size":1}`), "twice"},
		"a key twice in a layer":    {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc(`,"digest":"`+digestB+`"`) + `]}`, "twice"},
		"an unknown key twice":      {ociImage, image(`"x":1,"x":1,`), "twice"},
		"an annotation twice":       {ociImage, image(`"annotations":{"a":"1","a":"2"},`), "twice"},
		"a platform key twice":      {ociIndex, withEntry(desc(`,"platform":{"os":"a","os":"b","architecture":"c"}`)), "twice"},
		"MediaType":                 {ociImage, image(`"MediaType":"` + ociImage + `",`), "wrong case"},
		"mediatype":                 {ociImage, image(`"mediatype":"x",`), "wrong case"},
		"LAYERS":                    {ociImage, image(`"LAYERS":[],`), "wrong case"},
		"Manifests in an image":     {ociImage, image(`"Manifests":[],`), "wrong case"},
		"Config in an index":        {ociIndex, index(`"Config":{},`), "wrong case"},
		"Digest in config":          {ociImage, withConfig(desc(`,"Digest":"` + digestB + `"`)), "wrong case"},
		"SIZE in a layer":           {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc(`,"SIZE":2`) + `]}`, "wrong case"},
		"Data in a subject":         {ociImage, image(`"subject":` + desc(`,"Data":"YQ=="`) + `,`), "wrong case"},
		"Architecture":              {ociIndex, withEntry(desc(`,"platform":{"os":"a","architecture":"b","Architecture":"c"}`)), "wrong case"},
		"OS.Version":                {ociIndex, withEntry(desc(`,"platform":{"OS.Version":"c"}`)), "wrong case"},
		"a long s in schemaVersion": {ociImage, image("\"\u017fchemaVersion\":2,"), "wrong case"},
		"a long s in manifests":     {ociImage, image("\"manife\u017fts\":[],"), "wrong case"},
		"a long s in layers":        {ociIndex, index(`"layer\u017f":[],`), "wrong case"},
		"a long s in size":          {ociImage, withConfig(desc(",\"\u017fize\":2")), "wrong case"},
		"a long s in digest":        {ociImage, withConfig(desc(`,"dige\u017ft":"x"`)), "wrong case"},

		// descriptors
		"a negative size":          {ociImage, withConfig(`{"digest":"` + digestA + `","size":-1}`), "negative"},
		"a negative subject":       {ociImage, image(`"subject":{"digest":"` + digestA + `","size":-1},`), "negative"},
		"a negative entry":         {ociIndex, withEntry(`{"digest":"` + digestA + `","size":-9223372036854775808}`), "negative"},
		"a size over 63 bits":      {ociImage, withConfig(`{"digest":"` + digestA + `","size":9223372036854775808}`), "config.size"},
		"a size with fractions":    {ociImage, withConfig(`{"digest":"` + digestA + `","size":1.5}`), "config.size"},
		"a size as text":           {ociImage, withConfig(`{"digest":"` + digestA + `","size":"1"}`), "config.size"},
		"no digest":                {ociImage, withConfig(`{"size":1}`), "config"},
		"md5":                      {ociImage, withConfig(`{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}`), "config"},
		"sha384":                   {ociImage, withConfig(`{"digest":"sha384:` + strings.Repeat("a", 96) + `","size":1}`), "config"},
		"a short digest":           {ociImage, withConfig(`{"digest":"sha256:abc","size":1}`), "config"},
		"an upper-case digest":     {ociImage, withConfig(`{"digest":"` + strings.ToUpper(digestA) + `","size":1}`), "config"},
		"a digest with a path":     {ociImage, withConfig(`{"digest":"sha256:../../../../etc/passwd","size":1}`), "config"},
		"a null layer":             {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[null]}`, "layers[0]"},
		"the second layer":         {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + desc("") + `,{}]}`, "layers[1]"},
		"a bad entry":              {ociIndex, withEntry(`{}`), "manifests[0]"},
		"a bad subject":            {ociImage, image(`"subject":{"digest":"x"},`), "subject"},
		"data of another digest":   {ociImage, withConfig(desc(`,"data":"Yg=="`)), "data"},
		"data of another size":     {ociImage, withConfig(desc(`,"data":"YWE="`)), "data"},
		"empty data":               {ociImage, withConfig(desc(`,"data":""`)), "data"},
		"data that is no base64":   {ociImage, withConfig(desc(`,"data":"?"`)), "not valid"},
		"a long media type":        {ociImage, withConfig(`{"mediaType":"` + strings.Repeat("x", 256) + `","digest":"` + digestA + `","size":1}`), "255"},
		"a long artifactType":      {ociImage, image(`"artifactType":"` + strings.Repeat("x", 256) + `",`), "255"},
		"NUL in a media type":      {ociImage, withConfig(`{"mediaType":"a\u0000b","digest":"` + digestA + `","size":1}`), "control"},
		"NUL in artifactType":      {ociIndex, index(`"artifactType":"a\u0000b",`), "control"},
		"a line in a media type":   {ociImage, withConfig(`{"mediaType":"a\nb","digest":"` + digestA + `","size":1}`), "control"},
		"2001 layers":              {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[` + strings.Repeat(desc("")+",", 2000) + desc("") + `]}`, "2001"},
		"2001 entries":             {ociIndex, withEntry(strings.Repeat(desc("")+",", 2000) + desc("")), "2001"},
		"layers that are no array": {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":{}}`, "layers"},
		"a config that is a list":  {ociImage, withConfig(`[` + desc("") + `]`), "config"},
		"annotations of numbers":   {ociImage, image(`"annotations":{"a":1},`), "annotations"},

		// what is no JSON object
		"nothing":                 {ociImage, ``, "not valid"},
		"null":                    {ociImage, `null`, "not a JSON object"},
		"a list":                  {ociImage, `[` + image(``) + `]`, "not a JSON object"},
		"a number":                {ociImage, `2`, "not a JSON object"},
		"text":                    {ociImage, `"x"`, "not a JSON object"},
		"a cut object":            {ociImage, image(``)[:100], "not valid"},
		"garbage behind it":       {ociImage, image(``) + `x`, "follows"},
		"an object behind it":     {ociImage, image(``) + image(``), "follows"},
		"a comma behind it":       {ociImage, image(``) + `,`, "follows"},
		"a byte order mark":       {ociImage, "\ufeff" + image(``), "not valid"},
		"a trailing comma":        {ociImage, `{"schemaVersion":2,"config":` + desc("") + `,"layers":[],}`, "not valid"},
		"a comment":               {ociImage, `/* */` + image(``), "not valid"},
		"lists nested too deep":   {ociImage, image(`"x":` + strings.Repeat(`[`, 32) + strings.Repeat(`]`, 32) + `,`), "deeper"},
		"objects nested too deep": {ociImage, image(`"x":` + strings.Repeat(`{"x":`, 32) + `1` + strings.Repeat(`}`, 32) + `,`), "deeper"},
		"a million brackets":      {ociImage, strings.Repeat(`[`, 1<<20), "not a JSON object"},
		"a million nested":        {ociImage, strings.Repeat(`{"x":`, 1<<19), "deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseManifest(c.mediaType, []byte(c.payload))
			wantCode(t, "ParseManifest", err, tarport.ManifestInvalid)
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error = %q, want %q in it", err, c.says)
			}
			for _, internal := range []string{"Go ", "struct", "v1.", "storage.", "document", "0x"} {
				if strings.Contains(err.Error(), internal) {
					t.Errorf("error = %q, which has internal text (%q) in it", err, internal)
				}
			}
		})
	}
	_, err := ParseManifest(ociImage, []byte(padded(MaxManifest+1)))
	wantCode(t, "ParseManifest of 4 MiB and a byte", err, tarport.TooLarge)
}

// FuzzParseManifest finds no document that panics, that is taken as two kinds,
// or that Go's own decoder reads in another way.
func FuzzParseManifest(f *testing.F) {
	types := []string{ociImage, ociIndex, dockerImage, dockerIndex}
	for i, seed := range []string{
		image(``), index(``), image(`"mediaType":"` + dockerImage + `",`), index(`"mediaType":"` + dockerIndex + `",`),
		image(`"subject":` + desc(`,"data":"YQ=="`) + `,`), index(`"annotations":{"a":"b"},`), "{}", "null",
		"{\"manife\u017fts\":[]}", `{"a":[[[{"b":null}]]],"a":1}`,
	} {
		f.Add(uint8(i), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		mediaType := types[int(kind)%len(types)]
		m, err := ParseManifest(mediaType, payload)
		if err != nil {
			if code := tarport.ErrorCode(err); code != tarport.ManifestInvalid && code != tarport.TooLarge {
				t.Fatalf("error = %v", err)
			}
			return
		}
		again, err := ParseManifest(mediaType, payload)
		check(t, "ParseManifest again", err)
		if !reflect.DeepEqual(m, again) {
			t.Errorf("the second time (-first +second):\n%s", cmp.Diff(m, again))
		}
		for _, other := range types {
			if _, err := ParseManifest(other, payload); other != mediaType && err == nil {
				t.Errorf("taken as %s and as %s", mediaType, other)
			}
		}
		compareWithPlainReading(t, mediaType, payload, m)
	})
}

// compareWithPlainReading reads a document that was taken by its exact keys.
func compareWithPlainReading(t *testing.T, mediaType string, payload []byte, m metadata.Manifest) {
	t.Helper()
	var exact map[string]json.RawMessage
	check(t, "decode", json.Unmarshal(payload, &exact))
	_, hasManifests := exact["manifests"]
	_, hasConfig := exact["config"]
	_, hasLayers := exact["layers"]
	if isIndex := mediaType == ociIndex || mediaType == dockerIndex; hasManifests != isIndex || hasConfig == isIndex || hasLayers == isIndex {
		t.Errorf("taken as %s: %s", mediaType, payload)
	}
	if own := string(exact["mediaType"]); own != "" && own != "null" && !strings.EqualFold(own, fmt.Sprintf("%q", mediaType)) {
		var s string
		if err := json.Unmarshal(exact["mediaType"], &s); err != nil || s != mediaType {
			t.Errorf("taken as %s, its mediaType is %s", mediaType, own)
		}
	}
	var descs []map[string]json.RawMessage
	for _, key := range []string{"layers", "manifests"} {
		if exact[key] != nil {
			var list []map[string]json.RawMessage
			check(t, "decode "+key, json.Unmarshal(exact[key], &list))
			descs = append(descs, list...)
		}
	}
	if hasConfig {
		var one map[string]json.RawMessage
		check(t, "decode config", json.Unmarshal(exact["config"], &one))
		descs = append([]map[string]json.RawMessage{one}, descs...)
	}
	if len(descs) != len(m.References) {
		t.Fatalf("%d references, the document has %d", len(m.References), len(descs))
	}
	for i, d := range descs {
		var dgst string
		check(t, "decode digest", json.Unmarshal(d["digest"], &dgst))
		if dgst != string(m.References[i].Digest) || m.References[i].Size < 0 {
			t.Errorf("reference %d is %+v, the document says %s", i, m.References[i], dgst)
		}
	}
}
