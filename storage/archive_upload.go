package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// ArchiveUpload is an upload session of an archive that is sent in parts, held
// by one request until Close or Delete. It belongs to who began it, and to no
// repository: what is in it is nobody's image yet. It is not for several
// goroutines.
//
// Unlike those of an Upload its bytes are durable before anybody is told of
// them, so that a session goes on after whatever happened, and on every
// replica:
//
//	bytes ─> file of a part ─> sync ─> one transaction: part, offset ─> answer
//
// A part is a file of its own. Where files can be gone on with, and nobody else
// can hold the session, many small requests share one of partSize bytes.
type ArchiveUpload struct {
	session
	info metadata.ArchiveUpload
}

const (
	// partSize bytes, or checkpointEvery, are what is lost at most of a request
	// that is cut.
	partSize        = 64 << 20
	checkpointEvery = 15 * time.Second
	// maxParts bounds the files of one session, where each request makes one.
	maxParts = 100_000
)

// NewArchiveUpload begins a session that the caller holds. length is what it
// will have, -1 where that comes later; meta is the client's own. TOO_LARGE,
// TOOMANYREQUESTS, DENIED or INSUFFICIENT_STORAGE where it is known now that it
// cannot be taken.
func (s *Store) NewArchiveUpload(ctx context.Context, length int64, meta string) (*ArchiveUpload, error) {
	if err := s.fitsArchive(length); err != nil {
		return nil, err
	}
	p := tarport.PrincipalFrom(ctx)
	row := metadata.Upload{ID: rand.Text(), Principal: p.UserID, StartedAt: s.o.Now()}
	info := metadata.ArchiveUpload{Upload: row, Namespace: p.Namespace, Length: length, Metadata: meta, ExpiresAt: s.expiry()}
	if err := s.db.CreateArchiveUpload(ctx, info, s.uploadLimits()); err != nil {
		return nil, err
	}
	u := &ArchiveUpload{session: session{s: s, row: row}, info: info}
	return u, u.acquire(ctx)
}

func (s *Store) uploadLimits() metadata.UploadLimits {
	return metadata.UploadLimits{Count: s.o.MaxUploads, Bytes: s.o.MaxUploadBytes}
}

// fitsArchive refuses an archive that is too long, or has no room on the disk.
func (s *Store) fitsArchive(length int64) error {
	if s.o.MaxArchive > 0 && length > s.o.MaxArchive {
		return tarport.Errorf(tarport.TooLarge, "the archive has %d bytes, at most %d are allowed", length, s.o.MaxArchive)
	}
	return s.disk.fits(max(length, 0))
}

// ArchiveUpload tells of a session, without taking it. NOT_FOUND where there is
// none that the caller began, or, for an administrator, none at all. To a token
// that is for one namespace there are those only that such a token began: what its
// owner, or a token for somewhere else, has sent is not its to load.
func (s *Store) ArchiveUpload(ctx context.Context, id string) (metadata.ArchiveUpload, error) {
	if !IsUploadID(id) {
		return metadata.ArchiveUpload{}, metadata.ErrNoArchiveUpload
	}
	info, err := s.db.ArchiveUpload(ctx, id)
	if err != nil {
		return info, err
	}
	p := tarport.PrincipalFrom(ctx)
	own := info.Principal == p.UserID && (p.Namespace == "" || p.Namespace == info.Namespace)
	if !own && (!p.Admin || p.Namespace != "") {
		return metadata.ArchiveUpload{}, metadata.ErrNoArchiveUpload
	}
	return info, nil
}

var uploadID = regexp.MustCompile(`^[A-Z2-7]{26}$`) // rand.Text's

// IsUploadID tells whether id can be one of a session.
func IsUploadID(id string) bool { return uploadID.MatchString(id) }

// ArchiveUploads lists at most n sessions that the caller began, by id, after
// last; of a token those that ArchiveUpload tells of.
func (s *Store) ArchiveUploads(ctx context.Context, n int, last string) ([]metadata.ArchiveUpload, error) {
	p := tarport.PrincipalFrom(ctx)
	return s.db.ArchiveUploads(ctx, p.UserID, p.Namespace, n, last)
}

// ResumeArchiveUpload takes a session. NOT_FOUND as ArchiveUpload; CONFLICT
// where another request is at it.
func (s *Store) ResumeArchiveUpload(ctx context.Context, id string) (*ArchiveUpload, error) {
	if _, err := s.ArchiveUpload(ctx, id); err != nil {
		return nil, err
	}
	u := &ArchiveUpload{session: session{s: s, row: metadata.Upload{ID: id}}}
	if err := u.acquire(ctx); err != nil {
		if tarport.ErrorCode(err) == tarport.BlobUploadUnknown {
			err = metadata.ErrNoArchiveUpload
		}
		return nil, err
	}
	info, err := s.db.ArchiveUpload(ctx, id) // as it is now that nobody else writes
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	u.info = info
	return u, nil
}

// Info is what is known of the session.
func (u *ArchiveUpload) Info() metadata.ArchiveUpload { return u.info }

// SetLength says how long the archive is. CONFLICT where that was said
// otherwise, or more is there already.
func (u *ArchiveUpload) SetLength(ctx context.Context, length int64) error {
	switch {
	case length == u.info.Length:
		return nil
	case u.info.Length >= 0, length < u.info.Size:
		return tarport.Errorf(tarport.Conflict, "the length of this upload cannot be %d: it has %d bytes of %d", length, u.info.Size, u.info.Length)
	}
	if err := u.s.fitsArchive(length); err != nil {
		return err
	}
	if err := u.s.db.SetUploadLength(ctx, u.info, u.holder, u.s.uploadLimits(), length); err != nil {
		return err
	}
	u.info.Length = length
	return nil
}

// Checksum is what the bytes of one Append must have.
type Checksum struct {
	Hash hash.Hash
	Want []byte
}

// Append adds all of r, and returns how many bytes were kept. What came before
// an error of r counts: but with a checksum all bytes count, or none, and the
// error of one that differs is CHECKSUM_MISMATCH. TOO_LARGE where r has more than
// there may be: then what may be there counts.
func (u *ArchiveUpload) Append(ctx context.Context, r io.Reader, sum *Checksum) (n int64, err error) {
	ctx = context.WithoutCancel(ctx) // what came is kept whether the client waits or not
	src := &sourceErr{r: r}
	for done := false; !done; {
		room, err := u.room(ctx)
		if err != nil {
			return n, err
		}
		if room == 0 {
			return n, u.nothingMore(src)
		}
		part := &partWriter{u: u, most: min(room, partSize), until: u.s.o.Now().Add(checkpointEvery), sum: sum}
		if sum != nil {
			part.most = room
		}
		var m int64
		m, done, err = part.take(ctx, src)
		n += m
		if err != nil {
			return n, err
		}
		if sum != nil && !done {
			return n, u.nothingMore(src)
		}
	}
	return n, nil
}

// room is how many bytes more there may be.
func (u *ArchiveUpload) room(ctx context.Context) (int64, error) {
	if u.info.Length >= 0 {
		return u.info.Length - u.info.Size, nil
	}
	room := int64(partSize)
	if u.s.o.MaxArchive > 0 {
		room = u.s.o.MaxArchive - u.info.Size
	}
	if room == 0 {
		return 0, nil
	}
	left, err := u.s.db.UploadRoom(ctx, u.info.Principal, u.s.uploadLimits())
	return min(room, left), err
}

// nothingMore makes sure that r is at its end.
func (u *ArchiveUpload) nothingMore(r io.Reader) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return tarport.Errorf(tarport.TooLarge, "the upload has all %d bytes that it may have, and more came", u.info.Size)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// partWriter brings bytes into one file of a session.
type partWriter struct {
	u     *ArchiveUpload
	most  int64
	until time.Time
	sum   *Checksum

	part metadata.UploadPart
	file stagedFile
}

// take reads until r ends or this is enough, makes it durable and records it.
// It returns how much that is, and whether r is at its end; n counts also with
// an error of r.
func (p *partWriter) take(ctx context.Context, r *sourceErr) (n int64, atEnd bool, err error) {
	if err := p.open(ctx); err != nil {
		return 0, false, err
	}
	n, atEnd, err = p.fill(r)
	if err != nil && (r.err == nil || !errors.Is(err, r.err)) || p.sum != nil && r.err != nil { // the file's; or nothing counts
		return 0, false, errors.Join(err, p.drop(ctx))
	}
	if p.sum != nil && !bytes.Equal(p.sum.Hash.Sum(nil), p.sum.Want) {
		return 0, false, errors.Join(tarport.Errorf(tarport.ChecksumMismatch, "the %d bytes that came do not have the checksum: send them again", n), p.drop(ctx))
	}
	if n == 0 {
		return 0, atEnd, errors.Join(err, p.drop(ctx))
	}
	if serr := p.keep(ctx, n); serr != nil {
		return 0, false, errors.Join(serr, err)
	}
	return n, atEnd, err
}

// open opens the file that the session ends in, or a new one.
func (p *partWriter) open(ctx context.Context) error {
	u := p.u
	last, parts, err := u.s.db.LastUploadPart(ctx, u.row.ID)
	if err != nil {
		return err
	}
	if p.part = last; parts == 0 || last.Size >= partSize || !u.s.files.inPlace() || !u.s.db.Exclusive() {
		if parts >= maxParts {
			return tarport.Errorf(tarport.Invalid, "the upload has come in %d parts, which is too many: begin anew and send larger ones", parts)
		}
		p.part = metadata.UploadPart{ID: rand.Text(), Begins: u.info.Size}
	}
	if p.file, err = u.s.files.stage(ctx, p.part.ID, p.part.Size); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a part of the upload %s is lost: %w", u.row.ID, err)
	}
	if err != nil {
		return storageFull(fmt.Errorf("open the file of an upload: %w", err))
	}
	return nil
}

// fill copies into the file.
func (p *partWriter) fill(r io.Reader) (n int64, atEnd bool, err error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for n < p.most && (p.sum != nil || p.u.s.o.Now().Before(p.until)) {
		if err := p.u.s.disk.fits(pieceSize); err != nil {
			return n, false, err
		}
		m, rerr := r.Read((*buf)[:min(p.most-n, pieceSize)]) // what is there: a slow client's bytes wait for no others
		if p.sum != nil {
			p.sum.Hash.Write((*buf)[:m])
		}
		w, err := p.file.Write((*buf)[:m])
		n += int64(w)
		if err != nil {
			return n, false, storageFull(fmt.Errorf("write an upload: %w", err))
		}
		if rerr != nil {
			return n, errors.Is(rerr, io.EOF), ended(rerr)
		}
	}
	return n, false, nil
}

// keep makes what was written durable, and then records it.
func (p *partWriter) keep(ctx context.Context, n int64) error {
	u := p.u
	if err := p.file.sync(ctx); err != nil {
		return errors.Join(storageFull(fmt.Errorf("make an upload durable: %w", err)), p.drop(ctx))
	}
	if err := p.file.Close(); err != nil {
		return fmt.Errorf("close the file of an upload: %w", err)
	}
	if p.part.Size == 0 {
		if err := u.s.files.keepStaged(ctx); err != nil {
			return fmt.Errorf("make an upload durable: %w", err)
		}
	}
	p.part.Size += n
	expires := u.s.expiry()
	if err := u.s.db.AddUploadPart(ctx, u.info, u.holder, u.s.uploadLimits(), p.part, expires); err != nil {
		return err // the file may be recorded all the same: the sweep knows
	}
	u.info.Size, u.info.ExpiresAt = u.info.Size+n, expires
	return nil
}

// drop leaves nothing of what was written.
func (p *partWriter) drop(ctx context.Context) error {
	p.file.cancel(ctx)
	if p.part.Size == 0 {
		return p.u.s.files.dropStaged(ctx, p.part.ID)
	}
	return nil // what lies behind the part's size is cut off by who goes on
}

// Close lets go of the session; it can be resumed. Nothing after Delete.
func (u *ArchiveUpload) Close() error {
	if u.over {
		return nil
	}
	u.end()
	return u.s.db.ReleaseUpload(context.Background(), u.row.ID, u.holder)
}

// Delete ends the session and drops its bytes.
func (u *ArchiveUpload) Delete(ctx context.Context) error {
	if u.over {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	parts, err := u.s.db.UploadParts(ctx, u.row.ID)
	if err != nil {
		return err
	}
	u.end()
	if err := u.s.db.DeleteUpload(ctx, u.row.ID, u.holder); err != nil {
		return err
	}
	var errs []error
	for _, p := range parts {
		errs = append(errs, u.s.files.dropStaged(ctx, p.ID)) // what stays is swept later
	}
	return errors.Join(errs...)
}

// dropParts removes the files of a session that is about to go.
func (s *Store) dropParts(ctx context.Context, id string) error {
	parts, err := s.db.UploadParts(ctx, id)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := s.files.dropStaged(ctx, p.ID); err != nil {
			return fmt.Errorf("remove expired upload: %w", err)
		}
	}
	return nil
}

// Open reads the archive from its beginning. CONFLICT, with offset and length,
// where it is not complete. The reader is good while the session is held.
func (u *ArchiveUpload) Open(ctx context.Context) (io.ReadCloser, error) {
	if u.info.Size != u.info.Length {
		return nil, incomplete(u.info)
	}
	parts, err := u.s.db.UploadParts(ctx, u.row.ID)
	if err != nil {
		return nil, err
	}
	return &partsReader{ctx: ctx, files: u.s.files, parts: parts}, nil
}

func incomplete(i metadata.ArchiveUpload) error {
	detail := map[string]any{"offset": i.Size, "length": nil}
	of := "a length that was not told"
	if i.Length >= 0 {
		detail["length"], of = i.Length, strconv.FormatInt(i.Length, 10)
	}
	return tarport.Errorf(tarport.Conflict, "the upload is not complete: it has %d bytes of %s", i.Size, of).WithDetail(detail)
}

// partsReader reads the files of a session, one behind the other.
type partsReader struct {
	ctx   context.Context //nolint:containedctx // the request's: the reader lives no longer
	files files
	parts []metadata.UploadPart
	file  io.ReadCloser // of the first part; nil where it was not opened
	left  int64         // of it
}

func (r *partsReader) Read(b []byte) (int, error) {
	for r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if n == 0 {
			err = errors.New("a part of an upload is shorter than it was")
		}
	}
	return n, err
}

func (r *partsReader) next() error {
	if r.file != nil {
		r.parts = r.parts[1:]
	}
	if err := r.Close(); err != nil {
		return err
	}
	if len(r.parts) == 0 {
		return io.EOF
	}
	var err error
	if r.file, err = r.files.openStaged(r.ctx, r.parts[0].ID); err != nil {
		return fmt.Errorf("read a part of an upload: %w", err)
	}
	r.left = r.parts[0].Size
	return nil
}

func (r *partsReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.left = nil, 0
	return err
}
