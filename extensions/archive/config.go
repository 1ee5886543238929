package archive

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// imageConfig is what is read of an image's config. The bytes themselves are
// stored as they came: their sha256 is the image ID.
type imageConfig struct {
	os, architecture, variant string
	diffIDs                   []digest.Digest
}

func (c imageConfig) platform() string {
	if c.os == "" && c.architecture == "" {
		return ""
	}
	p := c.os + "/" + c.architecture
	if c.variant != "" {
		p += "/" + c.variant
	}
	return p
}

// config reads the image config in a file, once: any number of images can
// name one.
func (r *resolver) config(f *file, what string) (imageConfig, error) {
	c, ok := r.configs[f]
	if !ok {
		if f.data == nil {
			return c, invalid("%s is not JSON or too large", what)
		}
		var err error
		if c, err = parseConfig(f.data, r.limits.LayersPerImage); err != nil {
			return c, invalid("%s: %s", what, err)
		}
		r.configs[f] = c
	}
	return c, nil
}

// parseConfig reads an image config, Docker's or OCI's.
func parseConfig(data []byte, most int) (imageConfig, error) {
	var c imageConfig
	o, err := parseObject(data, "rootfs", "os", "architecture", "variant", "config", "history", "created", "author")
	if err != nil {
		return c, err
	}
	if err := o.strings(map[string]*string{"os": &c.os, "architecture": &c.architecture, "variant": &c.variant}); err != nil {
		return c, err
	}
	if !o.has("rootfs") {
		return c, errors.New(`it has no "rootfs": this is not the config of an image`)
	}
	fs, err := parseObject(o["rootfs"], "type", "diff_ids")
	if err != nil {
		return c, fmt.Errorf("its rootfs: %w", err)
	}
	var kind string
	if err := fs.strings(map[string]*string{"type": &kind}); err != nil {
		return c, fmt.Errorf("its rootfs: %w", err)
	}
	if kind != "layers" {
		return c, fmt.Errorf("its rootfs is of the type %s, not layers", quoted(kind))
	}
	ids, err := fs.texts("diff_ids", most)
	if err != nil {
		return c, fmt.Errorf("its rootfs: %w", err)
	}
	for i, s := range ids {
		d := digest.Digest(s)
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return c, fmt.Errorf("its diffID %d is %s, not sha256: and 64 lower-case hexadecimal digits", i, quoted(s))
		}
		c.diffIDs = append(c.diffIDs, d)
	}
	return c, nil
}
