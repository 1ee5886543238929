package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tarport/tarport"
)

// MaxJSON is the largest JSON body that the API reads.
const MaxJSON = 64 << 10

// Bounds of a page.
const (
	DefaultPage = 50
	MaxPage     = 1000
)

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	WriteEncoded(w, status, b)
	return nil
}

// WriteEncoded answers with JSON as it is.
func WriteEncoded(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that went away is no error
}

// ReadJSON decodes the body, one JSON value of at most MaxJSON bytes, into v.
// An unknown field is an error that names it.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any) error {
	return ReadLargeJSON(w, r, v, MaxJSON)
}

// ReadLargeJSON is ReadJSON with another limit.
func ReadLargeJSON(w http.ResponseWriter, r *http.Request, v any, most int64) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one JSON value")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return tarport.Errorf(tarport.Invalid, "the body is not the JSON that this route takes: %s", err)
}

// Page reads n (1 to MaxPage, DefaultPage without it) and last of a list
// request.
func Page(r *http.Request) (n int, last string, err error) {
	q := r.URL.Query()
	last = q.Get("last")
	if !q.Has("n") {
		return DefaultPage, last, nil
	}
	n, err = strconv.Atoi(q.Get("n"))
	if err != nil || n < 1 || n > MaxPage {
		return 0, "", tarport.Errorf(tarport.PaginationInvalid, "n must be a number from 1 to %d", MaxPage)
	}
	return n, last, nil
}

// SetNext links to the page of the same list that begins after last.
func SetNext(w http.ResponseWriter, r *http.Request, n int, last string) {
	q := r.URL.Query()
	q.Set("n", strconv.Itoa(n))
	q.Set("last", last)
	w.Header().Set("Link", "<"+(&url.URL{Path: r.URL.Path, RawQuery: q.Encode()}).String()+`>; rel="next"`)
}

// Flag reads a parameter that is true or false; false where it is not there.
func Flag(r *http.Request, name string) (bool, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return false, nil
	}
	v, err := strconv.ParseBool(q.Get(name))
	if err != nil {
		return false, tarport.Errorf(tarport.Invalid, "%s must be true or false", name)
	}
	return v, nil
}
