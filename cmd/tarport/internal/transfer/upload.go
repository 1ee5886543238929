package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/internal/client"
)

// upload is a file on its way in parts.
type upload struct {
	m   *Mover
	job Job
	f   *File
	p   *plan
	key string

	id     string
	offset int64
	sent   int64
}

// find looks for an upload of an earlier run that can be gone on with.
func (u *upload) find(ctx context.Context) (bool, error) {
	st := u.m.o.States.get(u.key)
	if st == nil || u.m.o.Resume == ResumeNever {
		return false, nil
	}
	u.id = st.Upload
	if st.File != u.f.id {
		u.m.o.Display.Say("%s has changed since it was sent in part: sending it from the beginning", u.f.Name)
		u.forget(ctx)
		return false, nil
	}
	t := tries{m: u.m}
	offset, err := u.m.o.Client.UploadOffset(ctx, u.id)
	for err != nil && client.Temporary(err) {
		if err := t.again(ctx, err); err != nil {
			return false, err
		}
		offset, err = u.m.o.Client.UploadOffset(ctx, u.id)
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == tarport.NotFound {
		u.m.o.States.remove(u.key)
		u.id = ""
		return false, nil
	}
	if err != nil {
		return false, err
	}
	u.p, u.offset = u.f.whole(), offset
	if st.Ranges != nil {
		u.p = u.f.part(st.Ranges, 0)
	}
	if u.p.size != st.Size || offset > st.Size || u.p.at == nil || u.p.partial && (u.job.Route != "load" || u.job.Whole) {
		u.forget(ctx)
		return false, nil
	}
	u.m.o.Display.Say("%s: going on where it stopped, %s of %s are at the registry", u.f.Name, progress.Bytes(offset), progress.Bytes(st.Size))
	return true, nil
}

// forget ends the upload, here and there.
func (u *upload) forget(ctx context.Context) {
	if u.id != "" {
		_ = u.m.o.Client.DeleteUpload(ctx, u.id) // the registry forgets it after a while, too
	}
	u.m.o.States.remove(u.key)
	u.id = ""
}

// run sends what is left of the file, and has the registry load it.
func (u *upload) run(ctx context.Context, query url.Values) (*Outcome, error) {
	if err := u.begin(ctx); err != nil {
		return nil, err
	}
	err := u.parts(ctx)
	var res *archive.Result
	if err == nil {
		res, err = u.finish(ctx, query)
	}
	switch {
	case err == nil:
		u.m.o.States.remove(u.key)
		return outcome(res, u.sent), nil
	case u.id == "" || errors.Is(err, errAnswerLost):
		return nil, err
	case u.m.o.States == nil || broken(err):
		u.forget(context.WithoutCancel(ctx))
		return nil, err
	case ctx.Err() != nil || client.Temporary(err):
		return nil, &InterruptedError{u.f.Name, u.offset, u.p.size, err}
	}
	if u.offset == u.p.size {
		u.m.o.Display.Say("%s: all of it is at the registry and is kept for now: when that is mended, it need not be sent again", u.f.Name)
	}
	return nil, err
}

// broken tells of an archive that will not become images, whatever is said to
// it, and of a file that is another one by now.
func broken(err error) bool {
	code := tarport.ErrorCode(err)
	return code == tarport.ArchiveInvalid || code == tarport.TooLarge || errors.Is(err, errChanged)
}

var errChanged = errors.New("the file was changed while it was sent")

// begin makes the upload, unless there is one to go on with.
func (u *upload) begin(ctx context.Context) error {
	if u.id != "" {
		return nil
	}
	t := tries{m: u.m}
	for {
		id, err := u.m.o.Client.CreateUpload(ctx, u.p.size, filepath.Base(u.f.Name))
		if err == nil {
			u.id = id
			return u.m.o.States.put(u.key, &state{Upload: id, Ranges: u.p.ranges, File: u.f.id, Size: u.p.size})
		}
		if !client.Temporary(err) {
			return err
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
	}
}

// parts sends one part after the other.
func (u *upload) parts(ctx context.Context) error {
	bar := u.m.o.Display.Bar("sending "+filepath.Base(u.f.Name), u.p.size)
	defer bar.Drop()
	bar.Skip(u.offset)
	t, size := tries{m: u.m}, u.m.o.Part
	for u.offset < u.p.size {
		if u.f.changed() {
			return fmt.Errorf("%s: %w", u.f.Name, errChanged)
		}
		n := min(size, u.p.size-u.offset)
		c := &counter{r: bar.Reader(io.NewSectionReader(u.p.at, u.offset, n))}
		next, err := u.m.o.Client.AppendUpload(ctx, u.id, u.offset, c, n)
		u.sent += c.n
		if err == nil {
			u.offset = next
			t.progressed()
			continue
		}
		if tooLargeForProxy(err) && size > minPart {
			size = max(size/2, minPart)
			bar.Set(u.offset)
			continue
		}
		before := u.offset
		if err := u.ask(ctx, &t, err); err != nil {
			return err
		}
		if u.offset > before {
			t.progressed()
		}
		bar.Set(u.offset)
	}
	bar.Done(progress.Bytes(u.p.size))
	return nil
}

// tooLargeForProxy tells of a 413 that is not ours: a proxy on the way takes
// only smaller bodies.
func tooLargeForProxy(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == http.StatusRequestEntityTooLarge && e.Code == ""
}

// ask waits and asks how much the registry has, after an error.
func (u *upload) ask(ctx context.Context, t *tries, err error) error {
	for {
		if !isHeld(err) && !client.Temporary(err) {
			return err
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
		var offset int64
		if offset, err = u.m.o.Client.UploadOffset(ctx, u.id); err == nil {
			u.offset = offset
			return nil
		}
	}
}

// finish has the registry load what it has been sent.
func (u *upload) finish(ctx context.Context, query url.Values) (*archive.Result, error) {
	query = maps.Clone(query)
	query.Set("upload", u.id)
	t := tries{m: u.m}
	for {
		res, err := u.m.post(ctx, u.job, query, nil, 0)
		if e, ok := errors.AsType[*client.Error](err); ok && t.n > 0 && e.Status == http.StatusNotFound {
			return nil, errAnswerLost
		}
		if err == nil || !client.Temporary(err) && !(t.n > 0 && isHeld(err)) {
			return res, err
		}
		if err := t.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// isHeld tells of an upload that another request is at: the one before, which
// the registry has not yet given up.
func isHeld(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && (e.Status == http.StatusConflict || e.Status == http.StatusLocked)
}
