package e2e

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// unique is a word that no other image holds, so that its layers are its own in
// the shared engine.
func unique() string { return strings.ToLower(rand.Text()) }

// digestIn finds the digest that docker push and docker pull print.
var digestIn = regexp.MustCompile(`digest: (sha256:[0-9a-f]{64})`)

// push pushes and returns the digest and what was printed.
func (d *docker) push(t testing.TB, image string) (digest, out string) {
	t.Helper()
	out = d.must(t, "push", image)
	m := digestIn.FindStringSubmatch(strings.ToLower(out))
	if m == nil {
		t.Fatalf("docker push %s printed no digest:\n%s", image, out)
	}
	return m[1], out
}

// appImage builds an image of two layers: busybox, which all have in common,
// and one file of its own.
func (d *docker) appImage(t testing.TB, name string) string {
	t.Helper()
	return d.build(t, name, `FROM scratch
ADD busybox /bin/busybox
ADD greeting /greeting
LABEL team=platform
ENV GREETING=hello
CMD ["/bin/busybox", "cat", "/greeting"]
`, map[string]string{"busybox": busybox(t) + unique(), "greeting": unique()})
}

func TestDockerLogin(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	for _, wrong := range []string{"battery", adminPassword + "x", strings.ToUpper(adminPassword)} {
		out, err := d.login(t, s.addr, wrong)
		if err == nil {
			t.Fatalf("docker login with password %q succeeded", wrong)
		}
		if !strings.Contains(strings.ToLower(out), "unauthorized") {
			t.Errorf("docker login with a wrong password says %q, want it to say unauthorized", out)
		}
		if strings.Contains(out, wrong) {
			t.Errorf("docker login repeats the wrong password: %q", out)
		}
	}
	out, err := d.login(t, s.addr, adminPassword)
	if err != nil || !strings.Contains(out, "Login Succeeded") {
		t.Fatalf("docker login: %v\n%s", err, out)
	}
}

func TestDockerPushAndPull(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	image := s.addr + "/team/app:1.0"
	id := d.appImage(t, image)
	digest, _ := d.push(t, image)

	byDigest := s.addr + "/team/app@" + digest
	for _, ref := range []string{image, byDigest} {
		d.forgetAll(t, image)
		out := d.must(t, "pull", ref)
		if !strings.Contains(out, digest) {
			t.Errorf("docker pull %s does not tell the pushed digest %s:\n%s", ref, digest, out)
		}
		if got := d.imageID(t, ref); got != id {
			t.Errorf("image ID after docker pull %s = %s, want the pushed %s", ref, got, id)
		}
		d.must(t, "tag", ref, image)
		d.forget(byDigest)
	}
	d.mustFail(t, "not found", "pull", s.addr+"/team/app:absent")
	d.mustFail(t, "not found", "pull", s.addr+"/team/absent:1.0")
	d.mustFail(t, "not found", "pull", s.addr+"/team/app@sha256:"+strings.Repeat("0", 64))
}

func TestDockerPushesAgain(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	one, two := s.addr+"/team/app:1.0", s.addr+"/team/app:latest"
	d.appImage(t, one)
	digest, out := d.push(t, one)
	if got := strings.Count(out, ": Pushed"); got != 2 {
		t.Errorf("layers pushed at first = %d, want 2\n%s", got, out)
	}
	d.must(t, "tag", one, two)
	t.Cleanup(func() { d.forget(two) })
	for _, image := range []string{one, two} {
		again, out := d.push(t, image)
		if again != digest {
			t.Errorf("digest of %s = %s, want %s as at first", image, again, digest)
		}
		if got := strings.Count(out, ": Layer already exists"); got != 2 {
			t.Errorf("layers of %s that exist already = %d, want 2\n%s", image, got, out)
		}
	}
}

func TestDockerMountsAcrossRepositories(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	from, to := s.addr+"/team/app:1.0", s.addr+"/other/copy:1.0"
	id := d.appImage(t, from)
	digest, _ := d.push(t, from)
	d.must(t, "tag", from, to)
	t.Cleanup(func() { d.forget(to) })
	mounted, out := d.push(t, to)
	if got := strings.Count(out, ": Mounted from team/app"); got != 2 {
		t.Errorf("layers mounted = %d, want 2\n%s", got, out)
	}
	if mounted != digest {
		t.Errorf("digest in the other repository = %s, want %s", mounted, digest)
	}
	d.forgetAll(t, from, to)
	d.must(t, "pull", to)
	if got := d.imageID(t, to); got != id {
		t.Errorf("image ID of the copy = %s, want %s", got, id)
	}
}

func TestDockerPushesAnIndexOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	index := s.addr + "/team/multi:1.0"
	ids := map[string]string{}
	create := []string{"manifest", "create", "--insecure", index}
	for _, arch := range []string{"amd64", "arm64"} {
		image := index + "-" + arch
		ids[arch] = d.importImage(t, image, map[string]string{"arch": arch + unique()}, "CMD [\"/arch\"]")
		d.push(t, image)
		create = append(create, image)
	}
	d.must(t, create...)
	d.must(t, "manifest", "annotate", "--os", "linux", "--arch", "arm64", "--variant", "v8", index, index+"-arm64")
	d.must(t, "manifest", "push", "--insecure", index)

	var list struct {
		MediaType string
		Manifests []struct {
			Platform struct{ Architecture, OS string }
		}
	}
	resp := s.client(t).do(t, http.MethodGet, "/v2/team/multi/manifests/1.0", "repository:team/multi:pull", nil,
		"Accept", "application/vnd.docker.distribution.manifest.list.v2+json")
	if err := json.Unmarshal(resp.body, &list); err != nil || len(list.Manifests) != 2 {
		t.Fatalf("manifest list = %s (%v), want two manifests", resp.body, err)
	}
	d.forgetAll(t, index+"-amd64", index+"-arm64")
	d.must(t, "pull", index)
	t.Cleanup(func() { d.forget(index) })
	if got := d.imageID(t, index); got != ids["amd64"] {
		t.Errorf("image ID of the pulled index = %s, want amd64's %s", got, ids["amd64"])
	}
}

func TestDockerLogoutEndsAccess(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	image := s.addr + "/team/app:1.0"
	d.appImage(t, image)
	d.push(t, image)
	d.must(t, "logout", s.addr)
	d.mustFail(t, "", "push", image)
	d.forgetAll(t, image)
	out, err := d.run(t, "pull", image)
	if err == nil {
		t.Fatalf("docker pull succeeded after docker logout:\n%s", out)
	}
	if !regexp.MustCompile(`(?i)denied|unauthorized|no basic auth credentials`).MatchString(out) {
		t.Errorf("docker pull after docker logout says %q, want it to tell that access is denied", out)
	}
	d.mustLogin(t, s)
	d.must(t, "pull", image)
}
