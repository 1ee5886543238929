package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/internal/tarball"
)

// File is an archive on this machine.
type File struct {
	Name string // as the user wrote it
	// Archive is what is in it; nil before Look, and where that is not known.
	Archive *tarball.Archive

	path        string // absolute
	f           *os.File
	id          fileID
	compression string
}

// ErrNotRegular tells of a pipe or a device: it can be read once, as a stream.
var ErrNotRegular = errors.New("it is not a regular file")

// OpenFile opens an archive. The caller closes it.
func OpenFile(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case fi.IsDir():
		err = fmt.Errorf("%s is a directory: pack it with tar, or name the archive", name)
	case !fi.Mode().IsRegular():
		err = ErrNotRegular
	case fi.Size() == 0:
		err = fmt.Errorf("%s is empty", name)
	}
	out := &File{Name: name, f: f}
	if err == nil {
		out.id = idOf(fi)
		out.path, err = filepath.Abs(name)
	}
	head := make([]byte, 16)
	if err == nil {
		if _, err = f.ReadAt(head, 0); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	out.compression = tarball.Compression(head)
	return out, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Size is the file's.
func (f *File) Size() int64 { return f.id.Size }

// Look finds out what is in the file, as far as that can be told here. A plain
// tar takes no time; one that is compressed is read to its end, or until ctx is
// over.
func (f *File) Look(ctx context.Context, d *progress.Display) {
	if f.compression == "" {
		// A reader of its own: the tar reader moves the file's position.
		r := io.NewSectionReader(f.f, 0, f.id.Size)
		f.Archive, _ = tarball.Scan(r, f.f) // what is wrong with it the registry says
		return
	}
	bar := d.Bar("looking into "+filepath.Base(f.Name), f.id.Size)
	defer bar.Drop()
	r, err := tarball.Unpack(&endingReader{ctx, bar.Reader(io.NewSectionReader(f.f, 0, f.id.Size))}, f.compression)
	if err != nil || r == nil {
		return
	}
	defer func() { _ = r.Close() }()
	f.Archive, _ = tarball.Scan(r, nil)
}

// endingReader ends with a context.
type endingReader struct {
	ctx context.Context //nolint:containedctx // an io.Reader gets none
	r   io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// changed tells whether the file is not the one that was opened.
func (f *File) changed() bool {
	fi, err := os.Stat(f.path)
	return err != nil || idOf(fi) != f.id
}

// plan is what of a file is sent.
type plan struct {
	size    int64
	ranges  tarball.Ranges // nil: all of it
	left    int            // layers that are not sent
	at      io.ReaderAt    // nil where it can only be read as a stream
	open    func() (io.ReadCloser, error)
	partial bool
}

// whole is the plan for all of the file.
func (f *File) whole() *plan {
	return &plan{size: f.id.Size, at: f.f, open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f.f, 0, f.id.Size)), nil
	}}
}

// part is the plan for some of it.
func (f *File) part(ranges tarball.Ranges, left int) *plan {
	p := &plan{size: ranges.Size(), ranges: ranges, left: left, partial: true}
	if f.compression == "" {
		body := ranges.Of(f.f)
		p.at = body
		p.open = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(body, 0, body.Size)), nil }
		return p
	}
	p.open = func() (io.ReadCloser, error) {
		r, err := tarball.Unpack(io.NewSectionReader(f.f, 0, f.id.Size), f.compression)
		if err != nil {
			return nil, err
		}
		return &unpacked{ranges.From(r), r}, nil
	}
	return p
}

type unpacked struct {
	io.Reader
	io.Closer
}
