package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// journal is the client's own record of what it asked for and what it was told.
// Each entry is on disk before the next request of the same worker: the oracle
// of the crash test is this file, never the server's word.
type journal struct {
	mu   sync.Mutex
	file *os.File
	all  []entry
}

// entry is a line of the journal.
type entry struct {
	Acked   bool   // the client has read a 2xx; else it is about to ask
	Repo    string // always
	Digest  string // of a blob or manifest
	Blob    bool   // Digest is a blob's
	Tag     string // of a manifest; "" if it was put by digest
	ImageID string // of an image in an archive, whose digest the server makes
}

func newJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file: file}, nil
}

func (j *journal) write(entries ...entry) error {
	var lines []byte
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(lines); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.all = append(j.all, entries...)
	return nil
}

// journalling is a transport that writes the journal and ends the server at a
// chosen point of the traffic.
type journalling struct {
	journal *journal
	next    http.RoundTripper
	ids     map[string]string // image IDs by name in the registry, of archives that are loaded

	mu    sync.Mutex
	units int // of traffic seen
	endAt int
	end   func()
	ended bool
}

var errEnded = errors.New("the server has been told to end")

// spend counts one unit of traffic: a request, a piece of a body, an answer.
func (t *journalling) spend() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return errEnded
	}
	if t.units++; t.units < t.endAt {
		return nil
	}
	t.ended = true
	t.end()
	return nil
}

func (t *journalling) wasEnded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// RoundTrip implements http.RoundTripper.
func (t *journalling) RoundTrip(req *http.Request) (*http.Response, error) {
	entries, err := t.entries(req)
	if err != nil {
		return nil, err
	}
	if err := t.journal.write(entries...); err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	if err := t.spend(); err != nil {
		return nil, err
	}
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &metered{ReadCloser: req.Body, spend: t.spend}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusCreated {
		if err := t.acknowledge(resp, entries); err != nil {
			return nil, err
		}
	}
	_ = t.spend() // what has been answered stays answered
	return resp, nil
}

// entries are what the request is going to make.
func (t *journalling) entries(req *http.Request) ([]entry, error) {
	path, query := req.URL.Path, req.URL.Query()
	if strings.HasPrefix(path, "/api/v1/archives/load") {
		var es []entry
		for name, id := range t.loading(req) {
			repo, tag, _ := strings.Cut(name, ":")
			es = append(es, entry{Repo: repo, Tag: tag, ImageID: id})
		}
		return es, nil
	}
	path, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return nil, nil
	}
	if repo, reference, ok := strings.Cut(path, "/manifests/"); ok && req.Method == http.MethodPut {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		e := entry{Repo: repo, Digest: digestOf(body), Tag: reference}
		if reference == e.Digest {
			e.Tag = ""
		}
		return []entry{e}, nil
	}
	if repo, _, ok := strings.Cut(path, "/blobs/uploads/"); ok {
		for _, param := range []string{"digest", "mount"} { // of PUT, and of POST
			if d := query.Get(param); d != "" {
				return []entry{{Repo: repo, Digest: d, Blob: true}}, nil
			}
		}
	}
	return nil, nil
}

// loading is what the archive of the request holds; the worker tells it in a
// header that the server does not know.
func (t *journalling) loading(req *http.Request) map[string]string {
	ids := map[string]string{}
	for _, name := range req.Header.Values("X-Names") {
		t.mu.Lock()
		ids[name] = t.ids[name]
		t.mu.Unlock()
	}
	return ids
}

// acknowledge journals what a 201 says.
func (t *journalling) acknowledge(resp *http.Response, entries []entry) error {
	acked := make([]entry, len(entries))
	for i, e := range entries {
		e.Acked = true
		acked[i] = e
	}
	if len(acked) > 0 && acked[0].ImageID != "" {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var l loaded
		if err := json.Unmarshal(body, &l); err != nil {
			return fmt.Errorf("answer of load: %w", err)
		}
		if len(l.Images) != len(acked) {
			return fmt.Errorf("answer of load has %d images, want %d", len(l.Images), len(acked))
		}
		acked = acked[:0]
		for _, image := range l.Images {
			repo, tag, _ := strings.Cut(image.Name, ":")
			acked = append(acked, entry{Acked: true, Repo: repo, Tag: tag, ImageID: image.ImageID, Digest: image.Digest})
		}
	}
	return t.journal.write(acked...)
}

// metered is a request's body that counts as it is sent.
type metered struct {
	io.ReadCloser
	spend func() error
}

// Read implements io.Reader in small pieces, so that the end may fall between two.
func (m *metered) Read(p []byte) (int, error) {
	if err := m.spend(); err != nil {
		return 0, err
	}
	return m.ReadCloser.Read(p[:min(len(p), 32<<10)])
}
