package storage

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
)

func TestWhatAManifestIs(t *testing.T) {
	t.Parallel()
	const config, layer = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+zstd"
	for name, c := range map[string]struct {
		config, layer string
		kind          string
	}{
		"an image":                         {config, layer, metadata.KindImage},
		"Docker's":                         {"application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip", metadata.KindImage},
		"Windows', with a layer elsewhere": {"application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", metadata.KindImage},
		"a signature of cosign's":          {config, "application/vnd.dev.cosign.simplesigning.v1+json", metadata.KindArtifact},
		"an attestation of BuildKit's":     {config, "application/vnd.in-toto+json", metadata.KindArtifact},
		"a chart of Helm's":                {"application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", metadata.KindArtifact},
		"an artifact":                      {"application/vnd.oci.empty.v1+json", layer, metadata.KindArtifact},
	} {
		img := imageOf("one", "three")
		img.config.MediaType = c.config
		for i := range img.layers {
			img.layers[i].MediaType = c.layer
		}
		m, err := ParseManifest(img.mediaType, img.payload())
		check(t, name, err)
		if m.Kind != c.kind || m.Size != 8 {
			t.Errorf("%s: kind %q of %d bytes, want %q of 8", name, m.Kind, m.Size, c.kind)
		}
	}
	huge := imageOf("a", "b")
	for i := range huge.layers {
		huge.layers[i].MediaType, huge.layers[i].Size = "application/vnd.oci.image.layer.nondistributable.v1.tar", 1<<62
	}
	m, err := ParseManifest(huge.mediaType, huge.payload())
	check(t, "ParseManifest", err)
	if m.Size != metadata.MaxSize {
		t.Errorf("layers that nobody has seen: %d bytes, want %d", m.Size, int64(metadata.MaxSize))
	}
}

func TestThePlatformsOfAnIndex(t *testing.T) {
	t.Parallel()
	entry := func(mediaType string, p *ocispec.Platform, notes map[string]string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString("x"), Size: 1, Platform: p, Annotations: notes}
	}
	const image = ocispec.MediaTypeImageManifest
	m, err := ParseManifest(ocispec.MediaTypeImageIndex, indexOf(
		entry(image, &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, nil),
		entry(MediaTypeDockerManifest, &ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.20348.1"}, nil),
		entry(image, nil, nil),
		entry(image, &ocispec.Platform{OS: "a/b\nc\u00e9", Architecture: strings.Repeat("x", 100)}, nil),
		entry(image, &ocispec.Platform{OS: "unknown", Architecture: "unknown"}, nil),
		entry(image, &ocispec.Platform{OS: "linux", Architecture: "amd64"}, map[string]string{"vnd.docker.reference.type": "attestation-manifest"}),
		entry(ocispec.MediaTypeImageLayerGzip, nil, nil),
	))
	check(t, "ParseManifest", err)
	var got []string
	for _, r := range m.References {
		got = append(got, r.Platform)
	}
	want := []string{"linux/arm/v7", "windows/amd64", "", "a_b_c_/" + strings.Repeat("x", 64), "-", "-", "-"}
	if diff := cmp.Diff(want, got); diff != "" || m.Kind != metadata.KindIndex {
		t.Errorf("platforms of %s (-want +got):\n%s", m.Kind, diff)
	}
}

// dockerConfig is what docker 28.5.2 writes, shortened.
const dockerConfig = `{"architecture":"arm64","variant":"v8","os":"linux","os.version":"1.2","created":"2024-01-15T10:11:12.123456789+01:00",
	"author":"Ann <ann@example.org>","comment":"fix the\n\u001b[31mport",
	"config":{"User":"app","ExposedPorts":{"8443/tcp":{},"80/tcp":{}},"Env":["PATH=/bin","A=b=c"],"Entrypoint":["/bin/sh","-c"],"Cmd":["run"],
		"Volumes":{"/data":{}},"WorkingDir":"/srv","Labels":{"b":"2","a":"1"},"StopSignal":"SIGQUIT",
		"Healthcheck":{"Test":["CMD","true"],"Interval":30000000000,"Retries":3}},
	"history":[{"author":"somebody","comment":"old"}],"rootfs":{"type":"layers","diff_ids":[]}}`

func TestAConfigIsRead(t *testing.T) {
	t.Parallel()
	img := parseImage([]byte(dockerConfig))
	want := &metadata.Image{
		OS: "linux", Architecture: "arm64", Variant: "v8", OSVersion: "1.2",
		Author: "Ann <ann@example.org>", Message: "fix the\n [31mport", Created: time.Date(2024, 1, 15, 9, 11, 12, 123456789, time.UTC),
	}
	want.Config = `{"env":["PATH=/bin","A=b=c"],"entrypoint":["/bin/sh","-c"],"cmd":["run"],"exposed_ports":["80/tcp","8443/tcp"],"volumes":["/data"],` +
		`"user":"app","working_dir":"/srv","labels":{"a":"1","b":"2"},"stop_signal":"SIGQUIT","healthcheck":{"test":["CMD","true"],"interval":"30s","retries":3}}`
	if diff := cmp.Diff(want, img); diff != "" {
		t.Errorf("parseImage (-want +got):\n%s", diff)
	}
	buildah := parseImage([]byte(`{"os":"linux","history":[{"comment":"first"},{"author":"Bob","comment":"second"}]}`))
	if buildah.Author != "Bob" || buildah.Message != "second" || !buildah.Created.IsZero() {
		t.Errorf("what the history says: %+v", buildah)
	}
}

func TestAStrangeConfigLosesOnlyWhatIsStrange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		want   ImageFacts
		os     string
	}{
		"nothing":          {``, ImageFacts{Problem: "the config is not a JSON object"}, ""},
		"a list":           {`[]`, ImageFacts{Problem: "the config is not a JSON object"}, ""},
		"null":             {`null`, ImageFacts{}, ""},
		"wrong types":      {`{"os":7,"architecture":[],"created":"yesterday","author":{},"config":{"Env":{"a":1},"User":["x"],"Cmd":true,"Labels":[]},"history":{}}`, ImageFacts{}, ""},
		"config is a text": {`{"os":"linux","config":"x"}`, ImageFacts{}, "linux"},
		"one wrong label":  {`{"os":"linux","config":{"User":"u","Labels":{"a":1,"b":"2"}}}`, ImageFacts{User: "u", Labels: map[string]string{"a": "", "b": "2"}}, "linux"},
		"a command in one": {`{"config":{"Cmd":"run it"}}`, ImageFacts{Cmd: []string{"run it"}}, ""},
		"NUL and no UTF-8": {"{\"os\":\"l\xffi\\u0000nux\",\"config\":{\"User\":\"\\ud800\\u0000\"}}", ImageFacts{User: "\ufffd "}, "l\ufffdi nux"},
	} {
		img := parseImage([]byte(c.config))
		var got ImageFacts
		check(t, name, json.Unmarshal([]byte(img.Config), &got))
		for _, list := range []*[]string{&c.want.Env, &c.want.Entrypoint, &c.want.Cmd, &c.want.ExposedPorts, &c.want.Volumes} {
			if *list == nil {
				*list = []string{}
			}
		}
		if c.want.Labels == nil {
			c.want.Labels = map[string]string{}
		}
		if diff := cmp.Diff(c.want, got); diff != "" || img.OS != c.os {
			t.Errorf("%s: os %q, want %q; facts (-want +got):\n%s", name, img.OS, c.os, diff)
		}
	}
}

func TestWhatIsKeptOfAConfigIsBounded(t *testing.T) {
	t.Parallel()
	env := make([]string, 5000)
	for i := range env {
		env[i] = fmt.Sprintf("V%d=%s", i, strings.Repeat("é", 40))
	}
	long := strings.Repeat("é", 1<<16)
	b, err := json.Marshal(map[string]any{"os": long, "author": long, "comment": long, "config": map[string]any{
		"Env": env, "Labels": map[string]string{"a": long, long: "x"}, "Cmd": []string{long, long}, "User": long,
	}})
	check(t, "encode", err)
	img := parseImage(b)
	var got ImageFacts
	check(t, "decode", json.Unmarshal([]byte(img.Config), &got))
	if n := len(img.OS) + len(img.Author) + len(img.Message) + len(img.Config); n > maxFacts+4<<10 || !got.Truncated {
		t.Errorf("%d bytes are kept, truncated is %v", n, got.Truncated)
	}
	if !utf8.ValidString(img.Author+img.OS+img.Config) || len(img.OS) > 128 {
		t.Errorf("os = %q", img.OS)
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add([]byte(dockerConfig))
	f.Add([]byte(`{"config":{"Env":["\u0000",null,1],"Labels":{"":null},"Healthcheck":{"Test":[""],"Interval":-1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		img := parseImage(b)
		var facts ImageFacts
		if err := json.Unmarshal([]byte(img.Config), &facts); err != nil {
			t.Fatalf("facts are not JSON: %v", err)
		}
		for _, s := range append([]string{img.OS, img.Author, img.Message, img.Config, facts.User}, facts.Env...) {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\x1e\x1f\x1b") {
				t.Errorf("%q has control characters", s)
			}
		}
	})
}

// row reads what is recorded of an image.
func (s *testStore) image(t *testing.T, repository string, d digest.Digest) metadata.ImageRow {
	t.Helper()
	row, err := s.db.Image(t.Context(), repository, d)
	check(t, "Image", err)
	return row
}

func TestAnImageIsDescribedWhereverItComesFrom(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		img := s.pushImage(t, "team/app", "one", "two")
		_, err := s.PutManifest(t.Context(), img.put("team/app", "1"), "")
		check(t, "PutManifest", err)

		b := s.batch(t)
		loaded := stageImage(t, b, "team/web", "1", "two", "three")
		_, err = b.Commit(t.Context(), []ManifestPut{loaded})
		check(t, "Commit", err)
		for repository, d := range map[string]digest.Digest{"team/app": img.digest(), "team/web": digest.FromBytes(loaded.Payload)} {
			row := s.image(t, repository, d)
			if row.Architecture != "amd64" || row.Scan != metadata.ScanPending || !strings.Contains(row.Config, `"env":[]`) {
				t.Errorf("the image in %s: %+v", repository, row)
			}
		}
		if got := s.number(t, `SELECT COUNT(*) FROM layers WHERE state = 'pending' AND diff_id IS NULL`); got != 3 {
			t.Errorf("%d layers are to be looked into, want 3", got)
		}

		sig := imageOf("sig")
		sig.config = img.config
		sig.layers[0].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
		s.push(t, "team/app", []byte("sig"))
		_, err = s.PutManifest(t.Context(), sig.put("team/app", "sha256-1.sig"), "")
		check(t, "PutManifest", err)
		_, err = s.db.Image(t.Context(), "team/app", sig.digest())
		wantCode(t, "Image of a signature", err, tarport.ManifestUnknown)

		check(t, "DeleteManifest", s.DeleteManifest(t.Context(), "team/app", img.digest(), "ann"))
		_, err = s.db.Image(t.Context(), "team/app", img.digest())
		wantCode(t, "Image that was deleted", err, tarport.ManifestUnknown)
	})
}

func TestASparseImageIsDescribedWhenTheRestComes(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		s.push(t, "other/repo", configOf("one")) // nobody's business in team/app
		img := imageOf("one")
		put := img.put("team/app", "1")
		put.AllowMissing = true
		_, err := s.PutManifest(t.Context(), put, "")
		check(t, "PutManifest", err)
		if row := s.image(t, "team/app", img.digest()); row.Architecture != "" || row.Config != "" || row.Scan != metadata.ScanNone {
			t.Errorf("an image without its config: %+v", row)
		}
		check(t, "describeOld", s.describeOld(t.Context()))
		if row := s.image(t, "team/app", img.digest()); row.Config != "" {
			t.Errorf("after describeOld without the config: %+v", row)
		}
		s.push(t, "team/app", configOf("one"))
		check(t, "describeOld", s.describeOld(t.Context()))
		if row := s.image(t, "team/app", img.digest()); row.Architecture != "amd64" || row.Scan != metadata.ScanNone {
			t.Errorf("with its config, without its layer: %+v", row)
		}
		s.push(t, "team/app", []byte("one"))
		_, err = s.PutManifest(t.Context(), img.put("team/app", "1"), "")
		check(t, "PutManifest again", err)
		if row := s.image(t, "team/app", img.digest()); row.Scan != metadata.ScanPending {
			t.Errorf("the whole image: %+v", row)
		}
	})
}

func TestManifestsOfAnOlderVersionAreDescribedAtTheStart(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		const n = 25
		children := make([]ocispec.Descriptor, n)
		for i := range children {
			img := s.pushImage(t, "team/app", fmt.Sprint("layer ", i))
			img.notes = map[string]string{"n": fmt.Sprint(i)}
			_, err := s.PutManifest(t.Context(), img.put("team/app", fmt.Sprint(i)), "")
			check(t, "PutManifest", err)
			children[i] = img.descriptor()
			children[i].Platform = &ocispec.Platform{OS: "linux", Architecture: fmt.Sprint("a", i)}
		}
		index := ManifestPut{Repository: "team/app", MediaType: ocispec.MediaTypeImageIndex, Payload: indexOf(children...), Tags: []string{"all"}, Via: ViaPush}
		_, err := s.PutManifest(t.Context(), index, "")
		check(t, "PutManifest", err)
		const facts = `SELECT (SELECT SUM(size) FROM tags) * 1000 + (SELECT COUNT(*) FROM manifests WHERE kind = 'image' AND size > 0) * 100
			+ (SELECT COUNT(*) FROM manifest_references WHERE platform LIKE 'linux/a%') * 10 + (SELECT COUNT(*) FROM images WHERE architecture = 'amd64')
			+ (SELECT COUNT(*) FROM layers)`
		want := s.number(t, facts)
		for _, query := range []string{
			`UPDATE manifests SET kind = NULL, size = 0`, `UPDATE manifest_references SET platform = ''`, `UPDATE tags SET size = 0`,
			`DELETE FROM images`, `DELETE FROM layers`,
		} {
			s.sql(t, query)
		}
		if got := s.number(t, facts); got == want {
			t.Fatal("nothing was forgotten")
		}
		check(t, "describeOld", s.describeOld(t.Context()))
		if got := s.number(t, facts); got != want {
			t.Errorf("facts after describeOld: %d, before: %d", got, want)
		}
		list, err := s.db.UnreadManifests(t.Context(), 10, metadata.UnreadManifest{}, false)
		if err != nil || len(list) != 0 {
			t.Errorf("left to read: %d, %v", len(list), err)
		}
		// Images whose layers are known are settled with it.
		const pending = `SELECT COUNT(*) FROM images WHERE scan = 'pending'`
		if got := s.number(t, pending); got != n {
			t.Errorf("%d images are pending whose layers are, want %d", got, n)
		}
		for _, query := range []string{
			`UPDATE layers SET state = 'ready', facts = '` + scan.Prefix + `}'`, `UPDATE images SET config = NULL`,
		} {
			s.sql(t, query)
		}
		check(t, "describeOld", s.describeOld(t.Context()))
		if got := s.number(t, pending); got != 0 {
			t.Errorf("%d images are pending whose layers are known", got)
		}
	})
}

// sql runs a statement behind the store's back.
func (s *testStore) sql(t *testing.T, query string) {
	t.Helper()
	db := s.raw(t)
	_, err := db.ExecContext(t.Context(), query)
	check(t, query, errors.Join(err, db.Close()))
}

// number is what a query counts.
func (s *testStore) number(t *testing.T, query string) (n int64) {
	t.Helper()
	db := s.raw(t)
	err := db.QueryRowContext(t.Context(), query).Scan(&n)
	check(t, query, errors.Join(err, db.Close()))
	return n
}

func (s *testStore) raw(t *testing.T) *sql.DB {
	t.Helper()
	driver, dsn := "sqlite", s.dsn+"?_pragma=busy_timeout(10000)"
	if strings.HasPrefix(s.dsn, "postgres") {
		driver, dsn = "pgx", s.dsn
	}
	db, err := sql.Open(driver, dsn)
	check(t, "open the database", err)
	return db
}
