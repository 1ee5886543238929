package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tarport/tarport/extensions/images"
	"github.com/tarport/tarport/extensions/tags"
)

func TestImagesAreInspected(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	d.do("", "load -q -n team --repo=multi --tag=1 "+fixtureFile("buildx/oci-multiarch-attested.tar"))
	d.script.Reset()
	for _, line := range []string{
		"inspect team/openjdk:17", "inspect team/openjdk:17 --dockerfile", "inspect team/multi:1", "inspect team/multi:1 --platform=linux/arm64",
		"history team/openjdk:17", "diff team/openjdk:17.0.2 team/openjdk:17.0.10", "diff team/openjdk:17 team/openjdk",
		"files team/openjdk:17", "files team/openjdk:17 /opt/java/release", "cat team/openjdk:17 docker-entrypoint.sh", "files team/multi:1 /",
	} {
		d.do("", line)
	}
	golden(t, "inspect.golden", d.script.String())
	if text := d.script.String(); strings.ContainsFunc(text, escaped) {
		t.Errorf("control characters are printed:\n%q", text)
	}
	var detail images.Detail
	if err := json.Unmarshal([]byte(d.do("", "inspect team/openjdk --format=json")), &detail); err != nil || len(detail.Layers) != 2 || len(detail.Config.EnvInherited) != 1 {
		t.Errorf("inspect as JSON: %+v, %v", detail.Image, err)
	}
	var steps []step
	if err := json.Unmarshal([]byte(d.do("", "history team/openjdk@"+detail.Digest.String()+" --format=json")), &steps); err != nil || len(steps) != 3 || steps[0].Digest != detail.Layers[1].Digest {
		t.Errorf("history as JSON: %+v, %v", steps, err)
	}
	var diff images.Diff
	if err := json.Unmarshal([]byte(d.do("", "diff --format=json team/openjdk:17-alpine team/openjdk:17")), &diff); err != nil || len(diff.Packages.Added) != 1 {
		t.Errorf("diff as JSON: %+v, %v", diff, err)
	}
	var listing images.Listing
	if err := json.Unmarshal([]byte(d.do("", "files --format=json team/openjdk:17 /opt/java")), &listing); err != nil || len(listing.Items) != 1 || listing.Items[0].Name != "release" {
		t.Errorf("files as JSON: %+v, %v", listing, err)
	}
	d.fail(exitFailure, "", "inspect team/openjdk:none", "none")
	d.fail(exitFailure, "", "inspect team/openjdk:17 --platform=linux/s390x", "there is no image for linux/s390x here; there is: linux/amd64")
	d.fail(exitFailure, "", "cat team/openjdk:17 /etc/none", "there is no \"/etc/none\" in the image")
	d.fail(exitFailure, "", "cat team/openjdk:17 /etc", "is a directory and no file")
	d.fail(exitFailure, "", "diff team/openjdk:17 team/none:1", "no manifest 1")
	for _, line := range []string{"inspect", "history a b", "diff team/openjdk:17", "cat team/openjdk:17", "files UPPER", "inspect team/openjdk@sha256:12", "history --tag --platform=linux/amd64 team/openjdk"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

func TestTagsAreSetAndDeleted(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	tag := func(name string) tags.Tag {
		t.Helper()
		repository, name := splitTag(name)
		var list []tags.Tag
		if err := json.Unmarshal([]byte(d.do("", "tags --format=json -q "+name+" "+repository)), &list); err != nil {
			t.Fatal(err)
		}
		for _, found := range list {
			if found.Name == name {
				return found
			}
		}
		return tags.Tag{}
	}
	old, young := tag("team/openjdk:17.0.2").Digest, tag("team/openjdk:17").Digest

	d.fail(exitUsage, "", "tag team/openjdk:17.0.2 stable", "write team/openjdk:stable, or stable:latest where a repository is meant")
	d.script.Reset()
	d.do("", "tag team/openjdk:17.0.2 team/openjdk:latest")
	d.do("", "tag team/openjdk@"+young.String()+" prod/java:stable")
	d.do("", "history --tag team/openjdk:latest")
	d.do("", "history --tag -n 1 team/openjdk:latest")
	d.do("", "rm --dry-run team/openjdk:17.0.2 team/openjdk@"+young.String())
	d.do("", "rm team/openjdk:17.0.2 team/openjdk:nightly")
	d.do("", "rm --yes team/openjdk@"+young.String())
	d.do("", "history --tag team/openjdk:17.0.2")
	golden(t, "tag.golden", d.script.String())

	if got := tag("team/openjdk:latest").Digest; got != old {
		t.Errorf("latest is %s, want %s", got, old)
	}
	if got := tag("prod/java:stable").Digest; got != young {
		t.Errorf("prod/java:stable is %s, want %s", got, young)
	}
	for _, gone := range []string{"team/openjdk:17", "team/openjdk:17.0.10", "team/openjdk:17.0.2", "team/openjdk:nightly"} {
		if got := tag(gone).Digest; got != "" {
			t.Errorf("%s is %s, want none", gone, got)
		}
	}
	var made tags.Tag
	if err := json.Unmarshal([]byte(d.do("", "tag --format=json team/openjdk@"+old.String()+" "+d.server.addr+"/team/openjdk:17.0.2")), &made); err != nil || made.Digest != old {
		t.Errorf("tag back = %+v, %v, want %s", made, err, old)
	}

	code, _, stderr := d.run("", "rm team/openjdk:none team/openjdk:17.0.2")
	if code != exitFailure || !strings.Contains(stderr, "team/openjdk:17.0.2 is deleted.") || !strings.Contains(stderr, "1 of 2 were not deleted") {
		t.Errorf("rm of two, one of which is not there = %d, %s", code, stderr)
	}
	robot := d.secret("robot create prod ci --role=reader")
	ci := newDesk(t, d.server, "TARPORT_USER=prod+ci", "TARPORT_PASSWORD="+robot)
	ci.fail(exitFailure, "", "rm prod/java:stable", "")
	ci.fail(exitFailure, "", "rm prod/java@"+young.String(), "")
	ci.fail(exitFailure, "", "tag prod/java:stable prod/java:x", "")
	ci.fail(exitFailure, "", "tag team/openjdk:latest prod/java:x", "needs the role writer")
	d.fail(exitFailure, "", "rm team/openjdk:none", "none")
	d.fail(exitFailure, "", "rm --dry-run team/openjdk:none", "none")
	for _, line := range []string{"rm", "rm team/openjdk", "tag team/openjdk:17", "tag team/openjdk:17 team/x@" + old.String(), "rm " + d.server.addr + "/team/openjdk"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

func TestARepositoryIsDeletedByWhoMeansIt(t *testing.T) {
	t.Parallel()
	d := newImageDesk(t)
	robot := d.secret("robot create team ci --role=writer")
	ci := newDesk(t, d.server, "TARPORT_USER=team+ci", "TARPORT_PASSWORD="+robot)
	ci.fail(exitFailure, "", "repo rm --yes team/openjdk", "needs the role maintainer")
	d.fail(exitUsage, "team/openjdk\n", "repo rm team/openjdk", "use --yes if you mean it")
	if code, stdout, stderr := d.run("", "repo rm --dry-run team/openjdk"); code != exitOK || stdout != "" || !strings.Contains(stderr, "would be deleted, with 5 images and 8 tags") {
		t.Errorf("repo rm --dry-run = %d, %s, %s", code, stdout, stderr)
	}
	d.do("", "inspect team/openjdk:17")
	d.do("", "repo rm --yes "+d.server.addr+"/team/openjdk")
	d.fail(exitFailure, "", "inspect team/openjdk:17", "team/openjdk")
	d.fail(exitFailure, "", "repo rm --yes team/openjdk", "team/openjdk")
	for _, line := range []string{"repo rm", "repo rm team", "repo rm team/openjdk:17", "repo rm a/b c/d", "repo brew"} {
		d.fail(exitUsage, "", line, "Usage:")
	}
}

// TestALoginDeletesByDigest is for docker's kind of login, which has a token
// for each repository.
func TestALoginDeletesByDigest(t *testing.T) {
	t.Parallel()
	admin := newImageDesk(t)
	d := newDesk(t, admin.server)
	d.do(password, "login -u admin --password-stdin")
	var detail images.Detail
	if err := json.Unmarshal([]byte(d.do("", "inspect team/openjdk:nightly --format=json")), &detail); err != nil {
		t.Fatal(err)
	}
	d.do("", "rm team/openjdk@"+detail.Digest.String())
	d.fail(exitFailure, "", "inspect team/openjdk:nightly", "nightly")
}

func TestModesAreShownAsByLs(t *testing.T) {
	t.Parallel()
	for _, tt := range [][3]string{
		{"file", "0644", "-rw-r--r--"},
		{"directory", "1777", "drwxrwxrwt"},
		{"file", "4755", "-rwsr-xr-x"},
		{"file", "2644", "-rw-r-Sr--"},
		{"symlink", "0777", "lrwxrwxrwx"},
		{"fifo", "1600", "prw------T"},
		{"file", "?", "?"},
	} {
		if got := modeText(tt[0], tt[1]); got != tt[2] {
			t.Errorf("modeText(%q, %q) = %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}
