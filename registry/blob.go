package registry

import (
	"net/http"
	"strconv"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
)

func (g *Registry) headBlob(w http.ResponseWriter, rq *request) error {
	dgst, err := tarport.ParseDigest(rq.last)
	if err != nil {
		return err
	}
	b, err := g.store.Blob(rq.Context(), rq.repository, dgst)
	if err != nil {
		return err
	}
	storage.SetBlobHeaders(w.Header(), dgst)
	w.Header()["Content-Length"] = []string{strconv.FormatInt(b.Size, 10)}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (g *Registry) getBlob(w http.ResponseWriter, rq *request) error {
	dgst, err := tarport.ParseDigest(rq.last)
	if err != nil {
		return err
	}
	return g.store.ServeBlob(rq.Context(), w, rq.Request, rq.repository, dgst)
}

func (g *Registry) deleteBlob(w http.ResponseWriter, rq *request) error {
	dgst, err := tarport.ParseDigest(rq.last)
	if err != nil {
		return err
	}
	return accepted(w, g.store.DeleteBlob(rq.Context(), rq.repository, dgst))
}
