package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/docker"
	"github.com/tarport/tarport/cmd/tarport/internal/transfer"
)

type commitOptions struct {
	sendOptions
	makeOptions
	base     string
	pushBase bool
	force    bool
	pause    bool
}

func newCommitCmd(a *app) *cobra.Command {
	var o commitOptions
	cmd := &cobra.Command{
		Use:   "commit CONTAINER NAME[:TAG]",
		Short: "Make an image of a container of this machine",
		Long: `Commit makes an image of what has changed in a container, as docker commit does, but at the registry: the container's
file system is sent there, and the registry stores what differs from the base as one layer over the base's own. NAME is
NAMESPACE/REPOSITORY.

The base is the container's image, which the registry has to have, by whatever name: docker's own digests and tags are
looked up, and found by their layers. --base names another one, and --push-base sends the image first where the registry
does not have it. The container is paused while it is read.

The engine is the one of DOCKER_HOST, or of docker's context, or of this machine.` + apiUsage,
		Example: `  tarport commit -m "patched openssl" web team/web:1.4.1
  tarport commit -c 'CMD ["/srv/run"]' -a "Ann <ann@example.com>" --base team/web:1.4 web team/web:1.5`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: o.complete(a, noCompletion, completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.imageNames(a, cmd, &args[1], &o.base); err != nil {
				return err
			}
			return interruptible(cmd.Context(), func(ctx context.Context) error { return runCommit(ctx, a, &o, args[0], args[1]) })
		},
	}
	o.sendOptions.flags(a, cmd)
	o.makeOptions.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "the image at the registry that the container was made from")
	f.BoolVar(&o.pushBase, "push-base", false, "send the container's image first, where the registry does not have it")
	f.BoolVar(&o.force, "force", false, "also where the container looks as if it was made from another base")
	f.BoolVarP(&o.pause, "pause", "p", true, "pause the container while it is read")
	return cmd
}

func runCommit(ctx context.Context, a *app, o *commitOptions, container, name string) error {
	if err := o.checkSend(); err != nil {
		return err
	}
	if o.base != "" && o.pushBase {
		return usageError{errors.New("--base and --push-base name two bases")}
	}
	q, err := target(name)
	if err != nil {
		return err
	}
	engine, err := a.docker()
	if err != nil {
		return err
	}
	m, err := o.sender(ctx, a)
	if err != nil {
		return err
	}
	defer m.d.Close()
	c := &commit{o: o, m: m, engine: engine, repository: q.Get("repo")}
	if c.container, err = engine.Container(ctx, container); err != nil {
		return err
	}
	if err := c.findBase(ctx); err != nil {
		return err
	}
	if err := c.describe(q); err != nil {
		return err
	}
	out, err := c.send(ctx, transfer.Job{Route: "commit", Query: q})
	if err != nil {
		return err
	}
	warnings(m.d, out)
	m.d.Close()
	return showOutcome(a, &o.sendOptions, *out)
}

// docker is the engine that the docker command would ask.
func (a *app) docker() (*docker.Engine, error) {
	dir, err := a.dockerDir()
	if err != nil {
		return nil, err
	}
	return docker.New(docker.Options{Getenv: func(name string) string { return config.Getenv(a.environ, name) }, Config: dir})
}

// commit is one call of the command.
type commit struct {
	o          *commitOptions
	m          *mover
	engine     *docker.Engine
	repository string // that gets the image
	container  docker.Container
	base       base
}

// describe adds to the query what the image is to be: what the container's
// configuration has more than the base's comes before what the flags say.
func (c *commit) describe(q url.Values) error {
	var of docker.Config
	if len(c.base.config) > 0 {
		if err := json.Unmarshal(c.base.config, &of); err != nil {
			return fmt.Errorf("read the configuration of %s: %w", c.base, err)
		}
	}
	changes, lost := docker.Changes(of, c.container.Config)
	for _, what := range lost {
		c.m.d.Warn("warning: the image does not get %s", what)
	}
	c.o.query(q)
	if changes = append(changes, c.o.changes...); len(changes) > 0 {
		q["changes"] = changes
	}
	q.Set("base", c.base.String())
	if cmd := strings.Join(c.container.Config.Cmd, " "); cmd != "" {
		q.Set("created_by", cmd)
	}
	if c.o.force {
		q.Set("force", "true")
	}
	if c.o.compression != "" {
		q.Set("compression", c.o.compression)
	}
	return nil
}

// send sends the container's file system. It is paused for that, and goes on
// when it was read, whatever comes of it.
func (c *commit) send(ctx context.Context, job transfer.Job) (out *transfer.Outcome, err error) {
	name := strings.TrimPrefix(c.container.Name, "/")
	unpause := func() error { return nil }
	if c.o.pause && c.container.State.Running && !c.container.State.Paused {
		if err := c.engine.Pause(ctx, c.container.ID); err != nil {
			return nil, fmt.Errorf("pause %s: %w; with --pause=false it is read while it runs", name, err)
		}
		paused := true
		unpause = func() error {
			if !paused {
				return nil
			}
			paused = false
			if err := c.engine.Unpause(context.WithoutCancel(ctx), c.container.ID); err != nil {
				return fmt.Errorf("%s is still paused, docker unpause lets it go on: %w", name, err)
			}
			return nil
		}
	}
	defer func() { err = errors.Join(err, unpause()) }()
	export, err := c.engine.Export(ctx, c.container.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = export.Close() }()
	return c.m.Stream(ctx, job, &ending{r: export, end: unpause})
}

// ending calls end when the reader has come to its end.
type ending struct {
	r   io.Reader
	end func() error
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) {
		if endErr := e.end(); endErr != nil {
			return n, endErr
		}
	}
	return n, err
}
