package engine

import (
	"context"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/httpapi"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// tag is docker tag, within the namespace.
func (h *Handler) tag(w http.ResponseWriter, r *http.Request) error {
	ns, q := namespace(r), r.URL.Query()
	from, err := parseName(ns, mux.Vars(r)["name"])
	if err != nil {
		return err
	}
	to, err := parseTarget(ns, q.Get("repo"), q.Get("tag"))
	if err != nil {
		return err
	}
	p := tarport.PrincipalFrom(r.Context())
	if err := h.o.Access.Authorize(r.Context(), p, tarport.Push, to.repository); err != nil {
		return err
	}
	list, err := h.find(r.Context(), ns, from)
	if err != nil {
		return err
	}
	t := list[0]
	target := t.target
	if from.isID(t) { // it may stand for one platform of an index
		target = t.images[0].Digest
	}
	if t.repository == to.repository {
		err = h.o.Content.Tag(r.Context(), to.repository, to.tag, target, p.Name, storage.ViaTag)
	} else {
		err = h.o.Content.CopyImage(r.Context(), t.repository, target, to.repository, to.tag, p.Name, storage.ViaTag)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// parseTarget reads the name that an image is to get: repo, which may have the
// tag in it, and tag.
func parseTarget(ns, repo, tag string) (name, error) {
	if tag != "" {
		repo += ":" + tag
	}
	n, err := parseName(ns, repo)
	switch {
	case err != nil:
		return n, err
	case n.repository == "" || n.digest != "":
		return n, errNotAName
	}
	n.tag = n.tagOrDefault()
	return n, tarport.CheckTag(n.tag)
}

// deleted is what became of one reference.
type deleted struct {
	Untagged string `json:",omitempty"`
}

// remove is docker rmi: it takes tags away. An ID means all tags of the image,
// as with the daemon only with force where there are several. The manifests stay
// as they do after every deletion of a tag.
func (h *Handler) remove(w http.ResponseWriter, r *http.Request) error {
	ns := namespace(r)
	n, err := parseName(ns, mux.Vars(r)["name"])
	if err != nil {
		return err
	}
	if r.URL.Query().Has("platforms") {
		return errUnsupported("removing one platform of an image is")
	}
	gone, err := h.removeName(r.Context(), ns, n)
	if err == nil && gone == nil {
		gone, err = h.removeID(r.Context(), ns, n, boolValue(r, "force"))
	}
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(w, http.StatusOK, gone)
}

// removeName removes a tag, or with a digest the tags of the repository that
// point to it; nil where there is none and the name can be an ID.
func (h *Handler) removeName(ctx context.Context, ns string, n name) ([]deleted, error) {
	if n.repository == "" {
		return nil, nil
	}
	p := tarport.PrincipalFrom(ctx)
	if err := h.o.Access.Authorize(ctx, p, tarport.Delete, n.repository); err != nil {
		return nil, err
	}
	tags := []string{n.tagOrDefault()}
	if n.digest != "" {
		var err error
		if tags, err = h.o.Content.TagsOf(ctx, n.repository, n.digest); err != nil {
			return nil, err
		}
	}
	var gone []deleted
	for _, tag := range tags {
		err := h.o.Content.DeleteTag(ctx, n.repository, tag, p.Name)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		gone = append(gone, untagged(ns, n.repository, tag))
	}
	if gone == nil && n.id == "" {
		return nil, n.unknown()
	}
	return gone, nil
}

// removeID removes all tags that list under the ID.
func (h *Handler) removeID(ctx context.Context, ns string, n name, force bool) ([]deleted, error) {
	n.repository = ""
	list, err := h.find(ctx, ns, n)
	if err != nil {
		return nil, err
	}
	p := tarport.PrincipalFrom(ctx)
	var tags []tagged
	for _, t := range list {
		if err := h.o.Access.Authorize(ctx, p, tarport.Delete, t.repository); err != nil {
			return nil, err
		}
		// An index lists under the ID of one platform, and is not lost with another.
		whole, err := h.images(ctx, metadata.ImageQuery{Namespace: ns, Repository: t.repository, Tag: t.tag}, nil)
		if err != nil {
			return nil, err
		}
		if len(whole) > 0 && whole[0].chosen().ID == t.images[0].ID {
			tags = append(tags, t)
		}
	}
	id := list[0].images[0].ID
	switch {
	case len(tags) == 0:
		return nil, tarport.Errorf(tarport.Conflict, "conflict: unable to delete %s - it is one platform of an image: remove that by its name", id.Encoded()[:12])
	case len(tags) > 1 && !force:
		return nil, tarport.Errorf(tarport.Conflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", id.Encoded()[:12])
	}
	var gone []deleted
	for _, t := range tags {
		if err := h.o.Content.DeleteTag(ctx, t.repository, t.tag, p.Name); err != nil && !absent(err) {
			return nil, err
		}
		gone = append(gone, untagged(ns, t.repository, t.tag))
	}
	return gone, nil
}

func untagged(ns, repository, tag string) deleted {
	return deleted{Untagged: repositoryName(ns, repository) + ":" + tag}
}
