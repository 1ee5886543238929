package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/cmd/tarport/internal/docker"
	"github.com/tarport/tarport/internal/client"
)

// TestChangesSayWhatAContainerHas gives the changes that are made of a
// container's configuration to the registry, whose parser of Dockerfiles is
// Docker's: what comes of them is that configuration.
func TestChangesSayWhatAContainerHas(t *testing.T) {
	t.Parallel()
	d := newTransferDesk(t)
	nothing := struct{}{}
	for name, want := range map[string]docker.Config{
		"simple": {
			User: "app:staff", Env: []string{"A=1", "B=two words"}, Cmd: []string{"serve", "--port", "80"}, Entrypoint: []string{"/entry"}, WorkingDir: "/srv",
			ExposedPorts: map[string]struct{}{"80/tcp": nothing, "53/udp": nothing}, Volumes: map[string]struct{}{"/data": nothing},
			Labels: map[string]string{"a.b/c": "d"}, StopSignal: "SIGQUIT",
		},
		"what has to be quoted": {
			User: "a b", Env: []string{`Q="'`, `D=$HOME ${X:-y}`, `B=a\b\\`, `E=`, `H=# no comment`, `T=` + "tab\there", `U=ü✓`, `S=a  b `, `P=x=y=z`},
			Cmd: []string{`a "b"`, `$X`, `\`, `<&>`, ""}, Entrypoint: []string{`/a b`}, WorkingDir: `/a b/$c"d`,
			Volumes: map[string]struct{}{`/v $x "y" 'z' \w`: nothing}, Labels: map[string]string{`k "q" $x \`: `v "q" $x \`, "e": ""},
		},
		"a command only":    {Cmd: []string{"/bin/sh", "-c", "echo $HOME && true"}},
		"a health check":    {Healthcheck: &docker.Healthcheck{Test: []string{"CMD", "/h", "-x y"}, Interval: 5 * time.Second, Timeout: 1500 * time.Millisecond, StartPeriod: time.Minute, Retries: 3}},
		"one in a shell":    {Healthcheck: &docker.Healthcheck{Test: []string{"CMD-SHELL", `curl -f "http://localhost/$X" || exit 1`}}},
		"one switched off":  {Healthcheck: &docker.Healthcheck{Test: []string{"NONE"}}},
		"one that is early": {Healthcheck: &docker.Healthcheck{Test: []string{"CMD", "/h"}, StartInterval: time.Second}},
	} {
		changes, lost := docker.Changes(docker.Config{}, want)
		if len(lost) > 0 {
			t.Errorf("%s: lost: %q", name, lost)
		}
		args := []string{"import", fixtureFile("outer/export.tar.gz"), "team/web:1"}
		for _, c := range changes {
			args = append(args, "-c", c)
		}
		var got struct{ Config docker.Config }
		if err := json.Unmarshal([]byte(d.imageConfig(d.runOutcome(nil, args...))), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Config); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", name, changes, diff)
		}
	}
}

// The names under which the registry may have a container's image: its own
// first, then where a load would have put the others.
func TestWhereABaseIsLookedFor(t *testing.T) {
	t.Parallel()
	u, err := client.ParseRegistry("127.0.0.1:5000", false)
	if err != nil {
		t.Fatal(err)
	}
	aa, bb := strings.Repeat("a", 64), strings.Repeat("b", 64)
	c := &commit{repository: "team/web", m: &mover{c: client.New(client.Options{Registry: u})}}
	c.container.Config.Image = "web"
	image := docker.Image{
		RepoTags:    []string{"web:1", "127.0.0.1:5000/shop/web:1", "registry.example.com/team/web:1", "<none>:<none>", "docker.io/library/debian:12"},
		RepoDigests: []string{"127.0.0.1:5000/shop/web@sha256:" + aa, "debian@sha256:" + bb, "Not A Name"},
	}
	want := []string{
		"shop/web@sha256:" + aa, "shop/web:1", "team/debian@sha256:" + bb, "team/web:1", "team/debian:12", "team/web:latest",
	}
	got := []string{}
	for _, ref := range c.candidates(image) {
		got = append(got, ref.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
}

func TestCommitsThatCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"commit", "commit web", "commit web web:2", "commit web team/web@sha256:aa", "commit --base a/b --push-base web team/web:2", "commit web registry.example.com/team/web:2 --registry=127.0.0.1:1",
	} {
		code, stdout, stderr := runCommand(t, []string{"HOME=" + t.TempDir(), "TARPORT_PASSWORD=x"}, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, "tarport commit CONTAINER NAME[:TAG]") {
			t.Errorf("tarport %s = %d, stdout %q, stderr %q, want the usage", line, code, stdout, stderr)
		}
	}
	environ := []string{"HOME=" + t.TempDir(), "TARPORT_PASSWORD=x", "DOCKER_HOST=unix:///none/docker.sock"}
	code, _, stderr := runCommand(t, environ, "commit", "web", "team/web:2")
	if code != exitFailure || !strings.Contains(stderr, "the Docker Engine at unix:///none/docker.sock cannot be reached") {
		t.Errorf("commit without an engine = %d, %q", code, stderr)
	}
}
