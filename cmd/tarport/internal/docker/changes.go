package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Changes are the Dockerfile instructions that make of an image's configuration
// the one of a container of it, as docker commit takes it over. Lost are the
// parts that no instruction can say.
func Changes(image, container Config) (changes, lost []string) {
	c := &differ{}
	c.env(image.Env, container.Env)
	c.labels(image.Labels, container.Labels)
	c.set("USER", image.User, container.User)
	c.workdir(image.WorkingDir, container.WorkingDir)
	c.keys("EXPOSE", image.ExposedPorts, container.ExposedPorts)
	c.keys("VOLUME", image.Volumes, container.Volumes)
	// An ENTRYPOINT takes the CMD of the image away, so it goes first, and the
	// CMD is said again.
	entry := !slices.Equal(image.Entrypoint, container.Entrypoint)
	if entry {
		c.list("ENTRYPOINT", container.Entrypoint)
	}
	if entry || !slices.Equal(image.Cmd, container.Cmd) {
		c.list("CMD", container.Cmd)
	}
	c.set("STOPSIGNAL", image.StopSignal, container.StopSignal)
	c.health(image.Healthcheck, container.Healthcheck)
	return c.changes, c.lost
}

type differ struct{ changes, lost []string }

func (d *differ) add(format string, args ...any) {
	d.changes = append(d.changes, fmt.Sprintf(format, args...))
}

func (d *differ) lose(format string, args ...any) {
	d.lost = append(d.lost, fmt.Sprintf(format, args...))
}

func (d *differ) env(image, container []string) {
	has := map[string]bool{}
	for _, kv := range container {
		name, value, ok := strings.Cut(kv, "=")
		has[name] = true
		switch {
		case slices.Contains(image, kv):
		case !ok, strings.ContainsAny(name, " \t\"'\\$"), strings.ContainsAny(value, "\n\r"):
			d.lose("the variable %q, which has characters that no ENV can say", name)
		default:
			d.add("ENV %s=%s", name, quote(value))
		}
	}
	for _, kv := range image {
		if name, _, _ := strings.Cut(kv, "="); !has[name] {
			d.lose("that the container lacks the image's variable %s", name)
		}
	}
}

func (d *differ) labels(image, container map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(container)) {
		value := container[key]
		was, ok := image[key]
		switch {
		case ok && was == value:
		case strings.ContainsAny(key+value, "\n\r"):
			d.lose("the label %q, which has line breaks", key)
		default:
			d.add("LABEL %s=%s", quote(key), quote(value))
		}
	}
}

// set is an instruction with one word.
func (d *differ) set(instruction, image, container string) {
	switch {
	case image == container:
	case container == "":
		d.lose("that the container has no %s, which the image has", instruction)
	default:
		d.add("%s %s", instruction, quote(container))
	}
}

// workdir: docker resolves a relative one, so what is said is absolute.
func (d *differ) workdir(image, container string) {
	if container != "" && !path.IsAbs(container) {
		container = "/" + container
	}
	if image == "/" || image == "" && container == "/" {
		image, container = strings.TrimSuffix(image, "/"), strings.TrimSuffix(container, "/")
	}
	d.set("WORKDIR", image, container)
}

func (d *differ) keys(instruction string, image, container map[string]struct{}) {
	var more []string
	for _, key := range slices.Sorted(maps.Keys(container)) {
		if _, ok := image[key]; !ok {
			more = append(more, key)
		}
	}
	for _, key := range more {
		if instruction == "EXPOSE" {
			d.add("EXPOSE %s", key)
			continue
		}
		d.list(instruction, []string{bare.Replace(key)}) // its words are expanded also in JSON
	}
}

// bare escapes a word that stands in no quotes.
var bare = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`, `$`, `\$`)

// list is an instruction with a JSON array.
func (d *differ) list(instruction string, words []string) {
	if words == nil {
		words = []string{}
	}
	b, err := json.Marshal(words)
	if err != nil {
		d.lose("%s: %s", instruction, err) // strings encode
		return
	}
	d.add("%s %s", instruction, b)
}

func (d *differ) health(image, container *Healthcheck) {
	switch {
	case container == nil || len(container.Test) == 0 || image != nil && sameHealth(*image, *container):
		return
	case container.Test[0] == "NONE":
		d.add("HEALTHCHECK NONE")
		return
	}
	var flags []string
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"interval", container.Interval}, {"timeout", container.Timeout}, {"start-period", container.StartPeriod}, {"start-interval", container.StartInterval},
	} {
		if f.value > 0 {
			flags = append(flags, "--"+f.name+"="+f.value.String())
		}
	}
	if container.Retries > 0 {
		flags = append(flags, fmt.Sprintf("--retries=%d", container.Retries))
	}
	test := container.Test[1:]
	prefix := strings.Join(append(append([]string{"HEALTHCHECK"}, flags...), "CMD"), " ")
	switch {
	case container.Test[0] == "CMD":
		d.list(prefix, test)
	case len(test) == 1 && !strings.ContainsAny(test[0], "\n\r"): // CMD-SHELL
		d.add("%s %s", prefix, test[0])
	default:
		d.lose("the health check, which has line breaks")
	}
}

func sameHealth(a, b Healthcheck) bool {
	return slices.Equal(a.Test, b.Test) && a.Interval == b.Interval && a.Timeout == b.Timeout &&
		a.StartPeriod == b.StartPeriod && a.StartInterval == b.StartInterval && a.Retries == b.Retries
}

// quote is a word in double quotes, in which only these three mean something to
// the parser of Dockerfiles.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}
