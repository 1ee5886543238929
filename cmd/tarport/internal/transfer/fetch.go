package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/internal/client"
)

// Source is what is fetched: a GET below /api/v1.
type Source struct {
	Path  string
	Query url.Values
}

// partial is the ending of a file that is not whole yet.
const partial = ".part"

// Fetch writes what the registry gives into a file, which is there when all of
// it is. What came before a break stays in FILE.part, where the registry can go
// on from there; else nothing stays.
func (m *Mover) Fetch(ctx context.Context, src Source, name string) error {
	if fi, err := os.Stat(name); err == nil && fi.IsDir() {
		return fmt.Errorf("%s is a directory: name a file", name)
	} else if err == nil && !fi.Mode().IsRegular() {
		return m.fetchInto(ctx, src, name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	f := &fetch{m: m, src: src, name: name, key: key("fetch", m.o.Client.Host(), src.Path, src.Query.Encode(), path)}
	if err := f.open(); err != nil {
		return err
	}
	err = f.run(ctx)
	if err == nil {
		err = f.file.Sync()
	}
	err = errors.Join(err, f.file.Close())
	switch {
	case err == nil:
		m.o.States.remove(f.key)
		return os.Rename(name+partial, name)
	case f.etag == "" || m.o.States == nil || f.offset == 0:
		m.o.States.remove(f.key)
		return errors.Join(err, os.Remove(name+partial))
	}
	return &StoppedError{name, f.offset, f.size, err}
}

// StoppedError tells that a file has not come whole, and that the same command
// goes on from where it stopped.
type StoppedError struct {
	Name       string
	Done, Size int64
	Err        error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("%s: %s of %s are in %s, the same command goes on from there: %s",
		e.Name, progress.Bytes(e.Done), progress.Bytes(e.Size), e.Name+partial, e.Err)
}

func (e *StoppedError) Unwrap() error { return e.Err }

// fetchInto is for what is there and no file, such as a pipe.
func (m *Mover) fetchInto(ctx context.Context, src Source, name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(m.Copy(ctx, src, name, f), f.Close())
}

// Copy writes what the registry gives to w. Where the registry can go on after a
// break, w gets what is missing.
func (m *Mover) Copy(ctx context.Context, src Source, name string, w io.Writer) error {
	return (&fetch{m: m, src: src, name: name, out: w}).run(ctx)
}

// fetch is one file on its way.
type fetch struct {
	m    *Mover
	src  Source
	name string
	key  string
	file *os.File  // nil where it goes to out
	out  io.Writer // that cannot be taken back

	etag   string // "" where the registry cannot go on from the middle
	size   int64  // 0 where it is not known
	offset int64
	bar    *progress.Bar
}

// open opens FILE.part, with what an earlier run has left there.
func (f *fetch) open() error {
	st := f.m.o.States.get(f.key)
	flags := os.O_CREATE | os.O_WRONLY
	if st == nil {
		flags |= os.O_TRUNC
	}
	var err error
	if f.file, err = os.OpenFile(f.name+partial, flags, 0o666); err != nil { //nolint:gosec // as any program's output: the umask decides
		return err
	}
	if st == nil {
		return nil
	}
	fi, err := f.file.Stat()
	if err != nil {
		return errors.Join(err, f.file.Close())
	}
	if fi.Size() > 0 && fi.Size() <= st.Size {
		// Of one that is whole the last byte comes again: that it still is the
		// same image the registry has to say.
		f.etag, f.size, f.offset = st.ETag, st.Size, min(fi.Size(), st.Size-1)
	}
	return nil
}

// run fetches to the end.
func (f *fetch) run(ctx context.Context) error {
	defer func() {
		if f.bar != nil {
			f.bar.Drop()
		}
	}()
	t := tries{m: f.m}
	for {
		before := f.offset
		err := f.try(ctx)
		if err == nil {
			return nil
		}
		if f.out != nil && f.offset > 0 && f.etag == "" || !client.Temporary(err) {
			return err
		}
		if f.offset > before {
			t.progressed()
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
	}
}

// try is one request.
func (f *fetch) try(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := http.Header{}
	if f.offset > 0 && f.etag != "" {
		h.Set("Range", "bytes="+strconv.FormatInt(f.offset, 10)+"-")
		h.Set("If-Range", f.etag)
	}
	resp, err := f.m.o.Client.Open(ctx, client.Request{Method: http.MethodGet, Path: f.src.Path, Query: f.src.Query, Header: h})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := f.begin(resp); err != nil {
		return err
	}
	w := f.out
	if f.file != nil {
		if _, err := f.file.Seek(f.offset, io.SeekStart); err != nil {
			return err
		}
		w = f.file
	}
	// Errors of reading come marked by the client, those of writing do not.
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, f.bar.Reader(&heard{resp.Body, silence}), make([]byte, 1<<20))
	f.offset += n
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return client.Broken(errSilent)
	case err != nil:
		return err
	case f.size > 0 && f.offset != f.size:
		return client.Broken(fmt.Errorf("the registry sent %d bytes of %d", f.offset, f.size))
	}
	f.bar.Done(progress.Bytes(f.offset))
	return nil
}

// patience is how long nothing may come in the middle of an archive.
const patience = 2 * time.Minute

var errSilent = fmt.Errorf("nothing has come for %s", patience)

// heard puts the end of patience off with all that comes.
type heard struct {
	io.Reader
	silence *time.Timer
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.silence.Reset(patience)
	}
	return n, err
}

// begin looks at what an answer is: the rest, or all of it.
func (f *fetch) begin(resp *http.Response) error {
	etag := resp.Header.Get("Etag")
	if strings.HasPrefix(etag, "W/") {
		etag = ""
	}
	first := f.bar == nil
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(f.offset, 10)+"-") {
			return errors.New("the registry sends another part than was asked for: is a proxy on the way that does not understand ranges?")
		}
	} else if err := f.restart(); err != nil {
		return err
	}
	f.etag, f.size = etag, 0
	if resp.ContentLength >= 0 {
		f.size = f.offset + resp.ContentLength
	}
	if first {
		for _, w := range resp.Header.Values("Warning") {
			f.m.o.Display.Warn("warning: %s", warningText(w))
		}
		if f.offset > 0 {
			f.m.o.Display.Say("%s: going on where it stopped, %s of %s are here", f.name, progress.Bytes(f.offset), progress.Bytes(f.size))
		}
		f.bar = f.m.o.Display.Bar(filepath.Base(f.name), f.size)
		f.bar.Skip(f.offset)
	}
	if f.file == nil || f.etag == "" || f.size == 0 {
		return nil
	}
	return f.m.o.States.put(f.key, &state{ETag: f.etag, Size: f.size})
}

// restart is for an answer that begins at the beginning: another image has the
// name by now, or there is nothing to go on from.
func (f *fetch) restart() error {
	if f.offset == 0 {
		return nil
	}
	if f.out != nil {
		return errors.New("the image was replaced while it was read: begin anew")
	}
	if f.etag != "" {
		f.m.o.Display.Say("%s: what is here is of another image: fetching it from the beginning", f.name)
	}
	f.offset = 0
	if f.bar != nil {
		f.bar.Set(0)
	}
	return f.file.Truncate(0)
}

// warningText is the text of a Warning header (RFC 7234, 5.5), as far as it is
// one.
func warningText(h string) string {
	_, text, ok := strings.Cut(h, ` "`)
	if !ok {
		return h
	}
	if s, err := strconv.Unquote(`"` + text); err == nil {
		return s
	}
	return text
}
