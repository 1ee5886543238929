package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/tarport/tarport"
)

// Lines is an answer of one JSON object a line, each sent at once, also while
// the request's body is still coming. The status goes out with the first line:
// what fails before it can have one of its own.
type Lines struct {
	w           http.ResponseWriter
	conn        *http.ResponseController
	status      int
	contentType string
	begun       bool
}

// NewLines returns an answer that has not begun.
func NewLines(w http.ResponseWriter, status int, contentType string) *Lines {
	return &Lines{w: w, conn: http.NewResponseController(w), status: status, contentType: contentType}
}

// Begun tells whether a line was written.
func (l *Lines) Begun() bool { return l.begun }

// Write sends v, which must encode. A client that went away is noticed at the
// request's body, not here.
func (l *Lines) Write(v any) {
	if !l.begun {
		l.begun = true
		// Without it the server reads the rest of the body before it answers.
		_ = l.conn.EnableFullDuplex() // HTTP/2 needs no such thing
		l.w.Header().Set("Content-Type", l.contentType)
		l.w.WriteHeader(l.status)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	_, _ = l.w.Write(append(b, '\n'))
	_ = l.conn.Flush()
}

// Failed is what the client may be told of an error that ends an answer which
// has begun; an internal error goes to the log, as WriteError does it.
func Failed(w http.ResponseWriter, r *http.Request, err error) *tarport.Error {
	e := public(r, err)
	if status := e.Code.Status(); status >= http.StatusInternalServerError {
		logError(r, status, err)
	}
	if rec := recorderOf(w); rec != nil {
		rec.code = e.Code
		if clientGone(r, err) {
			rec.logStatus = statusClientClosed
		}
	}
	return e
}
