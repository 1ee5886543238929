package archive

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// runConfig is what an image says of the containers that are made of it: the
// "config" of its config, as Docker and the OCI write it. Keys that are not
// known to either are kept. The zero value is the config of an image that says
// nothing.
type runConfig struct {
	dockerspec.DockerOCIImageConfig
	others map[string]json.RawMessage
}

// runConfigKeys are the keys that runConfig has as fields.
var runConfigKeys = []string{
	"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped",
	"Healthcheck", "OnBuild", "Shell",
}

// parseRunConfig reads one; "" and null are an empty one. The error says what
// is wrong with it.
func parseRunConfig(raw json.RawMessage) (runConfig, error) {
	var c runConfig
	if len(raw) == 0 || string(raw) == "null" {
		return c, nil
	}
	// Also where encoding/json would take a key for another.
	if _, err := parseObject(raw, runConfigKeys...); err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c.DockerOCIImageConfig); err != nil {
		return c, fmt.Errorf("it is not of the right form: %w", err)
	}
	if err := json.Unmarshal(raw, &c.others); err != nil {
		return c, jsonWords(err)
	}
	for _, k := range runConfigKeys {
		delete(c.others, k)
	}
	return c, nil
}

// MarshalJSON writes what is set, in Docker's order, and then the other keys.
func (c runConfig) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(c.DockerOCIImageConfig)
	if err != nil || len(c.others) == 0 {
		return known, err
	}
	others, err := json.Marshal(c.others)
	if err != nil || len(known) == len("{}") {
		return others, err
	}
	return append(append(known[:len(known)-1], ','), others[1:]...), nil
}

// clone returns a copy that can be changed without changing c.
func (c runConfig) clone() runConfig {
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	c.Env, c.Entrypoint, c.Cmd = slices.Clone(c.Env), slices.Clone(c.Entrypoint), slices.Clone(c.Cmd)
	c.OnBuild, c.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	c.others = maps.Clone(c.others)
	if c.Healthcheck != nil {
		h := *c.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	return c
}

// container is the config of a container that was made of an image with the
// config c, and with no options: that has no triggers, and no shell of its own.
func (c runConfig) container() runConfig {
	c = c.clone()
	c.OnBuild, c.Shell = nil, nil
	return c
}

// commitChanges is what `docker commit --change` makes of the config of a
// container. What the changes leave empty is then filled again from the
// container's (moby: daemon/commit.go), so that `CMD []` gives the old command
// back where there is no entrypoint, and HEALTHCHECK keeps the intervals that
// it does not name. system is the image's os. Errors are INVALID, TOO_LARGE.
func commitChanges(container runConfig, changes []string, system string) (runConfig, error) {
	c, err := applyChanges(container, changes, system)
	if err != nil {
		return c, err
	}
	c.inherit(container.clone())
	return c, nil
}

// inherit fills what c leaves empty; maps are united.
func (c *runConfig) inherit(from runConfig) {
	for _, s := range []struct{ to, from *string }{
		{&c.User, &from.User}, {&c.WorkingDir, &from.WorkingDir}, {&c.StopSignal, &from.StopSignal},
	} {
		if *s.to == "" {
			*s.to = *s.from
		}
	}
	c.ExposedPorts = united(c.ExposedPorts, from.ExposedPorts)
	c.Volumes = united(c.Volumes, from.Volumes)
	c.Labels = united(c.Labels, from.Labels)
	has := map[string]bool{}
	for _, e := range c.Env {
		name, _, _ := strings.Cut(e, "=")
		has[name] = true
	}
	for _, e := range from.Env {
		if name, _, _ := strings.Cut(e, "="); !has[name] {
			c.Env = append(c.Env, e)
		}
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	if from.Healthcheck != nil {
		c.inheritHealthcheck(*from.Healthcheck)
	}
}

func (c *runConfig) inheritHealthcheck(from dockerspec.HealthcheckConfig) {
	h := c.Healthcheck
	if h == nil {
		c.Healthcheck = &from
		return
	}
	if len(h.Test) == 0 {
		h.Test = from.Test
	}
	if h.Interval == 0 {
		h.Interval = from.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = from.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = from.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = from.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = from.Retries
	}
}

// united is first and what only second has.
func united[V any](first, second map[string]V) map[string]V {
	if len(first) == 0 {
		return second
	}
	for k, v := range second {
		if _, ok := first[k]; !ok {
			first[k] = v
		}
	}
	return first
}
