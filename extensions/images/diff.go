package images

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/layer/scan"
	"github.com/tarport/tarport/storage/metadata"
)

// Diff is what is different in another image.
type Diff struct {
	From Side `json:"from"`
	To   Side `json:"to"` // the one that with= named

	Config []Change `json:"config"` // in the order of their names
	Layers struct {
		Common  int     `json:"common"` // the lower layers that both have
		Removed []Layer `json:"removed"`
		Added   []Layer `json:"added"`
	} `json:"layers"`
	Packages struct {
		// Known tells whether the layers of both were looked into.
		Known   bool            `json:"known"`
		Reason  string          `json:"reason,omitempty"` // why not
		Removed []scan.Package  `json:"removed"`
		Added   []scan.Package  `json:"added"`
		Changed []PackageChange `json:"changed"`
	} `json:"packages"`
}

// Side is one of the two images.
type Side struct {
	Name     string        `json:"name"` // repository:tag or repository@digest
	Digest   digest.Digest `json:"digest"`
	Platform string        `json:"platform"`
	Size     int64         `json:"size"`
}

// Change is a value of the config: env.PATH, labels.version, cmd. One that is
// not there is null.
type Change struct {
	Name string  `json:"name"`
	From *string `json:"from"`
	To   *string `json:"to"`
}

// PackageChange is a package with another version.
type PackageChange struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Diff compares two images, each of which the caller may read. UNAVAILABLE where
// too many are being compared: what is known of all layers of both is laid over
// each other, and anybody's image can have many.
func (s *Service) Diff(ctx context.Context, from, to Query) (*Diff, error) {
	leave, err := s.comparing.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	d := &Diff{Config: []Change{}}
	a, err := s.side(ctx, from, &d.From)
	if err != nil {
		return nil, err
	}
	if to.Platform == "" { // the same platform of both, where it can be
		to.Platform = d.From.Platform
	}
	b, err := s.side(ctx, to, &d.To)
	if err != nil {
		return nil, err
	}
	d.compareConfigs(a.Config, b.Config)
	d.compareLayers(a.Layers, b.Layers)
	return d, s.comparePackages(ctx, d, from.Repository, to.Repository)
}

// side reads one of the images.
func (s *Service) side(ctx context.Context, q Query, side *Side) (*Image, error) {
	d, err := s.Detail(ctx, q)
	if err != nil {
		return nil, err
	}
	side.Name = q.Repository + ":" + q.Reference.Tag
	if q.Reference.Tag == "" {
		side.Name = q.Repository + "@" + q.Reference.Digest.String()
	}
	at := slices.IndexFunc(d.Platforms, func(p Platform) bool { return p.Platform == d.Platform && !p.Missing })
	if d.Image == nil || at < 0 {
		return nil, tarport.Errorf(tarport.Invalid, "%s is no image that could be compared", side.Name)
	}
	side.Digest, side.Platform, side.Size = d.Platforms[at].Digest, d.Platform, d.Platforms[at].Size
	return d.Image, nil
}

func (d *Diff) compareConfigs(a, b *Config) {
	from, to := flatten(a), flatten(b)
	names := map[string]bool{}
	for _, m := range []map[string]string{from, to} {
		for name := range m {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, inFrom := from[name]
		y, inTo := to[name]
		if inFrom == inTo && x == y {
			continue
		}
		c := Change{Name: name}
		if inFrom {
			c.From = &x
		}
		if inTo {
			c.To = &y
		}
		d.Config = append(d.Config, c)
	}
}

// flatten makes names and values of a config.
func flatten(c *Config) map[string]string {
	m := map[string]string{}
	if c == nil {
		return m
	}
	set := func(name, value string) {
		if value != "" {
			m[name] = value
		}
	}
	list := func(name string, values []string) {
		if len(values) > 0 {
			m[name] = jsonList(values)
		}
	}
	for _, v := range c.Env {
		name, value, _ := strings.Cut(v, "=")
		m["env."+name] = value
	}
	for name, value := range c.Labels {
		m["labels."+name] = value
	}
	list("entrypoint", c.Entrypoint)
	list("cmd", c.Cmd)
	list("shell", c.Shell)
	list("on_build", c.OnBuild)
	for _, p := range c.ExposedPorts {
		m["exposed_ports."+p] = ""
	}
	for _, v := range c.Volumes {
		m["volumes."+v] = ""
	}
	set("user", c.User)
	set("working_dir", c.WorkingDir)
	set("stop_signal", c.StopSignal)
	if c.Healthcheck != nil {
		if b, err := json.Marshal(c.Healthcheck); err == nil {
			m["healthcheck"] = string(b)
		}
	}
	return m
}

// compareLayers goes by diffIDs, where they are known: the same layer can be
// stored in two forms.
func (d *Diff) compareLayers(a, b []Layer) {
	n := 0
	for n < len(a) && n < len(b) && (a[n].Digest == b[n].Digest || a[n].DiffID != "" && a[n].DiffID == b[n].DiffID) {
		n++
	}
	d.Layers.Common = n
	d.Layers.Removed, d.Layers.Added = a[n:], b[n:]
}

func (s *Service) comparePackages(ctx context.Context, d *Diff, from, to string) error {
	p := &d.Packages
	p.Removed, p.Added, p.Changed = []scan.Package{}, []scan.Package{}, []PackageChange{}
	var lists [2]map[string]string
	for i, side := range []struct {
		repository string
		*Side
	}{{from, &d.From}, {to, &d.To}} {
		list, reason, err := s.packages(ctx, side.repository, side.Digest)
		if err != nil {
			return err
		}
		if reason != "" {
			p.Reason = side.Name + ": " + reason
			return nil
		}
		lists[i] = list
	}
	p.Known = true
	a, b := lists[0], lists[1]
	for _, name := range slices.Sorted(maps.Keys(a)) {
		switch v, ok := b[name]; {
		case !ok:
			p.Removed = append(p.Removed, scan.Package{Name: name, Version: a[name]})
		case v != a[name]:
			p.Changed = append(p.Changed, PackageChange{name, a[name], v})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			p.Added = append(p.Added, scan.Package{Name: name, Version: b[name]})
		}
	}
	return nil
}

// packages are versions by name, of what is installed; reason is why they are
// not known.
func (s *Service) packages(ctx context.Context, repository string, dgst digest.Digest) (list map[string]string, reason string, err error) {
	row, err := s.db.Image(ctx, repository, dgst)
	if err != nil {
		return nil, "", err
	}
	if row.Scan != metadata.ScanReady {
		return nil, cmp.Or(row.ScanReason, "its layers were not looked into yet"), nil
	}
	im, err := s.scanned(ctx, repository, dgst)
	if err != nil {
		return nil, "", err
	}
	list = map[string]string{}
	for _, p := range im.Packages {
		// A package can be there in several versions (kernels, gpg-pubkey).
		if have, ok := list[p.Name]; ok && have != p.Version {
			p.Version = have + ", " + p.Version
		}
		list[p.Name] = p.Version
	}
	if im.Count > 0 && len(im.Packages) == 0 {
		return nil, "the names of its packages cannot be read", nil
	}
	return list, "", nil
}

// scanned is what the layers of an image make together.
func (s *Service) scanned(ctx context.Context, repository string, dgst digest.Digest) (*scan.Image, error) {
	key, found, err := s.db.ImageKeyOf(ctx, repository, dgst)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, tarport.Errorf(tarport.ManifestUnknown, "the repository has no image %s", dgst)
	}
	var m scan.Merger
	err = s.db.EachImageLayer(ctx, key, func(f metadata.LayerFacts) error {
		var l scan.Layer
		if err := json.Unmarshal([]byte(f.Facts), &l); err != nil {
			return err
		}
		m.Add(&l)
		return nil
	})
	im := m.Image()
	return &im, err
}
