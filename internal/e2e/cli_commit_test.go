package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTarportCommitIsDockerCommit commits a container that runs, with options of
// its own, by tarport and by docker: the images are the same.
func TestTarportCommitIsDockerCommit(t *testing.T) {
	t.Parallel()
	d, s := newDocker(t), serve(t)
	d.mustLogin(t, s)
	c := newCLI(t, s.addr, d.config, "DOCKER_HOST="+d.host)
	word := unique()
	base := word + ":1"
	files := map[string]string{"bin/busybox": busybox(t), "srv/greeting": word, "srv/gone": "gone"}
	for i := range 20 { // or it would look like another image
		files[fmt.Sprintf("lib/%d", i)] = fmt.Sprint("unchanged ", i)
	}
	d.importImage(t, base, files, "ENV A=1 PATH=/bin", "LABEL team=platform", "WORKDIR /srv", `CMD ["/bin/busybox","cat","/srv/greeting"]`)
	container := d.must(t, "run", "--detach", "--network=none", "--env", "A=two words", "--env", `B="$A" \ 'x'`, "--label", "a.b=c d", "--workdir=/tmp",
		"--user=0:0", "--expose=80", "--stop-signal=SIGUSR1", "--health-cmd=test -e /srv/greeting", "--health-interval=1h", "--volume=/data", base,
		"/bin/busybox", "sh", "-c", "echo new > /srv/new; busybox rm /srv/gone; exec busybox sleep 1000")
	t.Cleanup(func() { d.remove(container) })
	for d.must(t, "exec", container, "/bin/busybox", "sh", "-c", "if [ -e /srv/gone ]; then echo yes; fi") != "" {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	pause := "--pause"
	if out, err := d.run(t, "pause", container); err != nil {
		t.Logf("this machine cannot pause: %s", out)
		pause = "--pause=false"
	} else {
		d.must(t, "unpause", container)
	}
	name := s.addr + "/team/" + word + ":2"
	args := []string{"commit", pause, "-m", "every <change>", "--author", "Ann <ann@example.com>", "-c", "ENV C=$A/x", container, name}

	// The registry does not have the base: it says what to do, and does it.
	cmd, stdout, stderr := c.command(t.Context(), args...)
	if err := cmd.Run(); err == nil || stdout.Len() > 0 || !strings.Contains(stderr.String(), "docker save "+base+" | tarport load -n team -") || !strings.Contains(stderr.String(), "--push-base") {
		t.Errorf("tarport commit without a base: %v, %q, %s", err, stdout, stderr)
	}
	pushed := c.send(t, append([]string{"commit", "--push-base"}, args[1:]...)...)
	if len(pushed.Images) != 1 || pushed.Images[0].Name != "team/"+word+":2" {
		t.Fatalf("tarport commit --push-base = %+v", pushed)
	}
	// Loaded under its own name it is found, and so by that.
	c.must(t, "load", "-n", "team", d.save(t, base))
	for _, more := range [][]string{nil, {"--base", "team/" + base}} {
		if again := c.send(t, append(args, more...)...); again.Images[0].ImageID == "" {
			t.Errorf("tarport commit %v = %+v", more, again)
		}
	}
	if state := d.must(t, "inspect", "--format", "{{.State.Status}}", container); state != "running" {
		t.Errorf("the container is %s afterwards, want it running", state)
	}

	local := "local/" + word + ":2"
	d.must(t, append([]string{"commit", pause, "--message", "every <change>", "--author", "Ann <ann@example.com>", "--change", "ENV C=$A/x"}, container, local)...)
	t.Cleanup(func() { d.forget(local) })
	d.must(t, "pull", name)
	t.Cleanup(func() { d.forget(name) })
	if diff := cmp.Diff(d.files(t, local), d.files(t, name)); diff != "" {
		t.Errorf("the file system (-docker commit +tarport commit):\n%s", diff)
	}
	want, got := d.inspected(t, local), d.inspected(t, name)
	for _, m := range []map[string]any{want, got} {
		delete(m, "RootFS")
		config := m["Config"].(map[string]any)
		for _, k := range []string{"Hostname", "Image"} { // of the container
			delete(config, k)
		}
		slices.SortFunc(config["Env"].([]any), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docker inspect (-docker commit +tarport commit):\n%s", diff)
	}
	created := func(image string) string {
		top, _, _ := strings.Cut(d.must(t, "history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", image), "\n")
		return top
	}
	if want, got := created(local), created(name); want != got {
		t.Errorf("docker history = %q, docker commit wrote %q", got, want)
	}
}
