package metadata

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// configured is an image manifest with a config, and what that says.
func (db *testDB) configured(t *testing.T, repository, name, platform string) ManifestPut {
	t.Helper()
	config := "config of " + name
	db.pushBlob(t, repository, config, grace)
	m := manifest(name, "config:"+config)
	m.Kind, m.Size = KindImage, int64(len(name))
	p := db.put(repository, m)
	os, arch, _ := strings.Cut(platform, "/")
	p.Image = &Image{OS: os, Architecture: arch, Created: time.Unix(0, 0), Config: `{"labels":{}}`}
	return p
}

func (db *testDB) taggedImages(t *testing.T, q ImageQuery) (list []string) {
	t.Helper()
	err := db.TaggedImages(t.Context(), q, func(im TaggedImage) error {
		what := "index"
		if im.Target == im.Digest {
			what = "image"
		}
		list = append(list, fmt.Sprintf("%s:%s %s %s/%s %d", im.Repository, im.Tag, what, im.OS, im.Architecture, im.Size))
		if im.ID == "" || im.TaggedAt.IsZero() || !im.Created.Equal(time.Unix(0, 0)) || im.Config != `{"labels":{}}` {
			t.Errorf("%s:%s is %+v", im.Repository, im.Tag, im)
		}
		return nil
	})
	check(t, "TaggedImages", err)
	return list
}

func TestTaggedImages(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		one, two := db.configured(t, "team/app", "one", "linux/amd64"), db.configured(t, "team/app", "twoo", "linux/arm64")
		attestation := db.configured(t, "team/app", "attestation", "unknown/unknown")
		one.Tags = []string{"1"}
		both := index("both", "twoo", "one", "absent", "attestation")
		both.References[3].Platform = NoPlatform
		other, foreign := db.configured(t, "team/other", "one", "linux/amd64"), db.configured(t, "away/app", "one", "linux/amd64")
		other.Tags, foreign.Tags = []string{"latest"}, []string{"latest"}
		untagged := db.configured(t, "team/app", "untagged", "linux/amd64")
		db.mustPut(t, one, two, attestation, untagged, db.put("team/app", both, "both"), other, foreign)
		chart := manifest("chart", "config:config of one")
		chart.Kind = KindArtifact
		db.mustPut(t, db.put("team/app", chart, "chart"))

		const app1, otherLatest = "team/app:1 image linux/amd64 3", "team/other:latest image linux/amd64 3"
		both1, both2 := "team/app:both index linux/arm64 4", "team/app:both index linux/amd64 3"
		oneID := digestOf("config of one").String()
		for _, c := range []struct {
			q    ImageQuery
			want []string
		}{
			{ImageQuery{Namespace: "team"}, []string{app1, both1, both2, otherLatest}},
			{ImageQuery{Namespace: "team", Repository: "team/app"}, []string{app1, both1, both2}},
			{ImageQuery{Namespace: "team", Repository: "team/app", Tag: "both"}, []string{both1, both2}},
			{ImageQuery{Namespace: "team", Repository: "team/app", Tag: "chart"}, nil},
			{ImageQuery{Namespace: "team", Repository: "team/absent"}, nil},
			{ImageQuery{Namespace: "team", ID: oneID}, []string{app1, both2, otherLatest}},
			{ImageQuery{Namespace: "team", ID: oneID[:19]}, []string{app1, both2, otherLatest}},
			{ImageQuery{Namespace: "team", ID: digestOf("config of twoo").String()}, []string{both1}},
			{ImageQuery{Namespace: "team", ID: digestOf("config of attestation").String()}, nil},
			{ImageQuery{Namespace: "team", ID: digestOf("config of untagged").String()}, nil},
			{ImageQuery{Namespace: "team", ID: digestOf("one").String()}, nil}, // a manifest's
		} {
			if diff := cmp.Diff(c.want, db.taggedImages(t, c.q)); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", c.q, diff)
			}
		}
		enough := errors.New("enough")
		calls := 0
		err := db.TaggedImages(t.Context(), ImageQuery{Namespace: "team"}, func(TaggedImage) error { calls++; return enough })
		if !errors.Is(err, enough) || calls != 1 {
			t.Errorf("an error of the first call: %v after %d calls", err, calls)
		}
		for _, q := range []ImageQuery{{Namespace: "absent"}, {Namespace: "absent", ID: oneID}, {Namespace: "absent", Repository: "absent/app"}} {
			err := db.TaggedImages(t.Context(), q, func(TaggedImage) error { return nil })
			wantCode(t, fmt.Sprintf("%+v", q), err, tarport.NotFound)
		}
	})
}
