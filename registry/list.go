package registry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

const (
	// maxPage is the largest page; a client that asks for more gets this and
	// a link to the rest.
	maxPage = 1000
	// wholeList is how long a list may be that is sent without being asked to
	// page.
	wholeList = 10000
	// referrersPage keeps a page of referrers below the size of a manifest.
	referrersPage = 1000
)

// page reads n and last.
func page(q url.Values) (n int, last string, err error) {
	last = q.Get("last")
	if len(last) > tarport.MaxNameLength || !isText(last) {
		return 0, "", tarport.Errorf(tarport.PaginationInvalid, "last is not a name")
	}
	if !q.Has("n") {
		return wholeList, last, nil
	}
	n, err = strconv.Atoi(q.Get("n"))
	if err != nil || n < 0 {
		return 0, "", tarport.Errorf(tarport.PaginationInvalid, "n must be a number, 0 or more")
	}
	return min(n, maxPage), last, nil
}

func (g *Registry) tags(w http.ResponseWriter, rq *request) error {
	n, last, err := page(rq.URL.Query())
	if err != nil {
		return err
	}
	p, err := g.store.Tags(rq.Context(), rq.repository, n, last)
	if err != nil {
		return err
	}
	return writePage(w, rq, `{"name":"`+rq.repository+`","tags":`, p, n)
}

// isText tells of ASCII that can be printed, as all names and types are.
// PostgreSQL takes no other bytes for text.
func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// catalog lists the repositories that the client may pull from.
func (g *Registry) catalog(w http.ResponseWriter, rq *request) error {
	n, last, err := page(rq.URL.Query())
	if err != nil {
		return err
	}
	// A token for the catalog names no repository: what its owner may read is
	// what counts here.
	p, err := g.store.ReadableRepositories(rq.Context(), metadata.ViewerOf(rq.principal), n, last)
	if err != nil {
		return err
	}
	return writePage(w, rq, `{"repositories":`, p, n)
}

// writePage answers with a page; names need no escaping in JSON.
func writePage(w http.ResponseWriter, rq *request, head string, p metadata.Page, n int) error {
	b := make([]byte, 0, len(head)+len(p.Joined)+8)
	b = append(b, head...)
	b = append(b, '[')
	if p.Count > 0 {
		b = append(b, '"')
		b = append(b, p.Joined...)
		b = append(b, '"')
	}
	b = append(b, "]}\n"...)
	if p.More && n > 0 {
		setNext(w, rq, url.Values{"n": {strconv.Itoa(n)}, "last": {p.Last}})
	}
	w.Header()["Content-Type"] = jsonType
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
	return nil
}

func setNext(w http.ResponseWriter, rq *request, q url.Values) {
	w.Header().Set("Link", "<"+rq.URL.Path+"?"+q.Encode()+`>; rel="next"`)
}

var jsonType = []string{"application/json"}

// referrers serves the descriptors of the manifests whose subject is the
// digest: distribution spec 1.1, "Listing Referrers". Nobody has to know the
// subject itself.
func (g *Registry) referrers(w http.ResponseWriter, rq *request) error {
	subject, err := tarport.ParseDigest(rq.last)
	if err != nil {
		return err
	}
	q := rq.URL.Query()
	artifactType, last := q.Get("artifactType"), q.Get("last")
	if len(artifactType) > 255 || len(last) > 200 || !isText(artifactType) || !isText(last) {
		return tarport.Errorf(tarport.Invalid, "artifactType is not a media type, or last is not a digest")
	}
	list, more, err := g.store.Referrers(rq.Context(), rq.repository, subject, artifactType, referrersPage, last)
	if err != nil {
		return err
	}
	if more {
		setNext(w, rq, referrersNext(artifactType, list[len(list)-1]))
	}
	size := 128
	for _, d := range list {
		size += len(d) + 1
	}
	b := make([]byte, 0, size)
	b = append(b, `{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":[`...)
	for i, d := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, d...)
	}
	b = append(b, "]}"...)
	h := w.Header()
	if artifactType != "" {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	h["Content-Type"] = indexType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
	return nil
}

// referrersNext is the query of the page after a descriptor.
func referrersNext(artifactType, descriptor string) url.Values {
	var d ocispec.Descriptor
	_ = json.Unmarshal([]byte(descriptor), &d) // we encoded it
	q := url.Values{"last": {d.Digest.String()}}
	if artifactType != "" {
		q.Set("artifactType", artifactType)
	}
	return q
}

var indexType = []string{ocispec.MediaTypeImageIndex}
