package main

import (
	"context"
	"io"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/extensions/engine"
)

// engineArchives is extensions/archive in the words of extensions/engine.
type engineArchives struct{ s *archive.Service }

func (a engineArchives) Load(ctx context.Context, body io.Reader, q engine.LoadRequest) ([]engine.Loaded, error) {
	res, err := a.s.Load(ctx, body, archive.LoadRequest{Namespace: q.Namespace, Size: q.Size, Progress: engineProgress(q.Progress)})
	if err != nil {
		return nil, err
	}
	return engineLoaded(res)
}

func (a engineArchives) Import(ctx context.Context, body io.Reader, q engine.ImportRequest) (engine.Loaded, error) {
	res, err := a.s.Import(ctx, body, archive.ImportRequest{
		// What is dropped as a registry's host, and library/, is in front: the
		// namespace may be called so.
		Repository: "docker.io/library/" + q.Repository, Tag: q.Tag, Message: q.Message, Changes: q.Changes, Platform: q.Platform, Size: q.Size,
		Progress: engineProgress(q.Progress),
	})
	if err != nil {
		return engine.Loaded{}, err
	}
	list, err := engineLoaded(res)
	if err != nil {
		return engine.Loaded{}, err
	}
	return list[0], nil
}

func (a engineArchives) Save(ctx context.Context, q engine.SaveRequest) (engine.Download, error) {
	d, err := a.s.Save(ctx, archive.SaveRequest{Images: q.Images, Platform: q.Platform, Name: q.Name})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// engineProgress leaves the messages to the engine that are not about a layer:
// it has words of its own for what was loaded.
func engineProgress(report func(engine.Progress)) func(archive.Message) {
	if report == nil {
		return nil
	}
	return func(m archive.Message) {
		p := engine.Progress{ID: m.ID, Status: m.Status}
		if m.Progress != nil {
			p.Current, p.Total = m.Progress.Current, m.Progress.Total
		}
		if p.Status != "" {
			report(p)
		}
	}
}

func engineLoaded(res *archive.Result) ([]engine.Loaded, error) {
	var list []engine.Loaded
	for _, im := range res.Images {
		repository, ref, err := tarport.ParseImage(im.Name)
		if err != nil {
			return nil, err
		}
		l := engine.Loaded{Repository: repository, Tag: ref.Tag, ID: im.ImageID, Warnings: im.Warnings}
		if l.ID == "" {
			l.ID = im.Digest.String()
		}
		list = append(list, l)
	}
	return list, nil
}
