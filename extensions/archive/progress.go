package archive

import (
	"time"

	"github.com/tarport/tarport"
)

// Message is one line of progress, of the shape of Docker's image load
// (moby: api/types/jsonstream).
type Message struct {
	Stream      string         `json:"stream,omitempty"`
	Status      string         `json:"status,omitempty"`
	Progress    *Progress      `json:"progressDetail,omitempty"`
	ID          string         `json:"id,omitempty"`
	Error       string         `json:"error,omitempty"`
	ErrorDetail *MessageError  `json:"errorDetail,omitempty"`
	Errors      []CodedMessage `json:"errors,omitempty"` // the same in the shape of the API
}

// Progress is how far a layer has come, in bytes of the archive.
type Progress struct {
	Current int64 `json:"current"`
	Total   int64 `json:"total"`
}

// MessageError is the error that ends a load, as Docker's clients read it.
type MessageError struct {
	Code    int    `json:"code,omitempty"` // the HTTP status that it would have been
	Message string `json:"message"`
}

// CodedMessage is an error of the API.
type CodedMessage struct {
	Code    tarport.Code `json:"code"`
	Message string       `json:"message"`
}

// reporter tells the client how it goes, not too often.
type reporter struct {
	send   func(Message) // nil where nobody listens
	last   time.Time
	layers *LayerCounts
}

const reportEvery = 100 * time.Millisecond

// passed tells that n bytes of a layer have passed.
func (r *reporter) passed(f *file, n int64) {
	if r.send == nil || !f.shown {
		return
	}
	now := time.Now()
	if n < f.size && now.Sub(r.last) < reportEvery {
		return
	}
	r.last = now
	f.shown = n < f.size // the end is told once
	r.send(Message{Status: "Loading layer", ID: f.shortID(), Progress: &Progress{n, f.size}})
}

// importing tells that n bytes of a body of total have passed, 0 or less where
// that is not known, as docker import tells of what it downloads.
func (r *reporter) importing(n, total int64) { r.reading("Importing", n, total) }

// comparing is importing for a commit.
func (r *reporter) comparing(n, total int64) { r.reading("Comparing", n, total) }

func (r *reporter) reading(what string, n, total int64) {
	if r.send == nil {
		return
	}
	if now := time.Now(); now.Sub(r.last) >= reportEvery {
		r.last = now
		r.send(Message{Status: what, Progress: &Progress{n, max(total, 0)}})
	}
}

// made tells of an image that was made, by its ID, as docker import and commit
// do.
func (r *reporter) made(im Image) {
	if r.send != nil {
		r.send(Message{Status: im.ImageID})
	}
}

func (r *reporter) known(f *file) {
	if r.send != nil {
		r.send(Message{Status: "Layer already exists", ID: f.shortID()})
	}
}

func (r *reporter) loaded(im Image) {
	if r.send == nil {
		return
	}
	r.send(Message{Stream: "Loaded image: " + im.Name + "\n"})
	for _, w := range im.Warnings {
		r.send(Message{Stream: "Warning: " + im.Name + ": " + w + "\n"})
	}
}
