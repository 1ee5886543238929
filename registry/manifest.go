package registry

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

// getManifest serves GET and HEAD. The manifest is sent as it was pushed
// whatever the client accepts: to convert it would be to change its digest.
func (g *Registry) getManifest(w http.ResponseWriter, rq *request) error {
	ref, err := tarport.ParseReference(rq.last)
	if err != nil {
		return err
	}
	m, err := g.store.Manifest(rq.Context(), rq.repository, ref)
	if err != nil {
		return err
	}
	dgst := string(m.Digest)
	etag := `"` + dgst + `"`
	h := w.Header()
	h["Content-Type"] = []string{m.MediaType}
	h["Docker-Content-Digest"] = []string{dgst}
	h["Etag"] = []string{etag}
	h["X-Content-Type-Options"] = noSniff
	if none := rq.Header["If-None-Match"]; len(none) == 1 && (none[0] == etag || none[0] == dgst) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Length"] = []string{strconv.Itoa(len(m.Payload))}
	switch {
	case rq.Method == http.MethodGet:
		g.store.Pulled(rq.puller(), rq.repository, ref, m.Digest)
	case ref.Tag != "":
		g.store.Resolved(rq.puller(), rq.repository, ref.Tag, m.Digest)
	}
	w.WriteHeader(http.StatusOK)
	if rq.Method == http.MethodGet {
		_, _ = w.Write(m.Payload) // a client that went away is no error
	}
	return nil
}

func (rq *request) puller() storage.Puller {
	return storage.Puller{UserID: rq.principal.UserID, Robot: rq.principal.Robot, Address: tarport.CallFrom(rq.Context()).Address}
}

var noSniff = []string{"nosniff"}

// maxTagParams is how many tags a push by digest can name. The spec asks for
// at least ten.
const maxTagParams = 100

// putManifest serves PUT by tag, and by digest with the tags that ?tag= names:
// all in one transaction.
func (g *Registry) putManifest(w http.ResponseWriter, rq *request) error {
	ref, err := tarport.ParseReference(rq.last)
	if err != nil {
		return err
	}
	params := rq.URL.Query()["tag"]
	if len(params) > maxTagParams {
		return tarport.Errorf(tarport.TagInvalid, "%d tags are named, at most %d are allowed", len(params), maxTagParams)
	}
	mediaType, _, err := mime.ParseMediaType(rq.Header.Get("Content-Type"))
	if err != nil {
		return tarport.Errorf(tarport.ManifestInvalid, "the Content-Type must name the manifest's media type")
	}
	payload, err := readManifest(w, rq.Request)
	if err != nil {
		return err
	}
	put := storage.ManifestPut{
		Repository: rq.repository, MediaType: mediaType, Payload: payload,
		Tags: slices.Clone(params), By: rq.principal.Name, Via: storage.ViaPush,
	}
	if ref.Tag != "" {
		put.Tags = append(put.Tags, ref.Tag)
	}
	m, err := g.store.PutManifest(rq.Context(), put, ref.Digest)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", "/v2/"+rq.repository+"/manifests/"+m.Digest.String())
	h.Set("Docker-Content-Digest", m.Digest.String())
	if m.Subject != "" {
		h.Set("OCI-Subject", m.Subject.String())
	}
	for _, t := range params {
		h.Add("OCI-Tag", t)
	}
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func readManifest(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > storage.MaxManifest {
		return nil, tarport.Errorf(tarport.TooLarge, "the manifest has %d bytes, at most %d are allowed", r.ContentLength, storage.MaxManifest)
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, storage.MaxManifest))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tarport.Errorf(tarport.TooLarge, "the manifest is larger than %d bytes", storage.MaxManifest)
	}
	return payload, err
}

// deleteManifest serves DELETE: by tag only the tag goes, by digest the
// manifest with all its tags.
func (g *Registry) deleteManifest(w http.ResponseWriter, rq *request) error {
	ref, err := tarport.ParseReference(rq.last)
	if err != nil {
		return err
	}
	if ref.Tag != "" {
		err = g.store.DeleteTag(rq.Context(), rq.repository, ref.Tag, rq.principal.Name)
	} else {
		err = g.store.DeleteManifest(rq.Context(), rq.repository, ref.Digest, rq.principal.Name)
	}
	return accepted(w, err)
}

func accepted(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}
