package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/cmd/tarport/internal/docker"
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
