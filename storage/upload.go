package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// Upload is an upload session, held by one request: until Close, Commit or
// Cancel nobody else can write to it. It is not for several goroutines.
type Upload struct {
	session
	file   stagedFile // nil until something is written
	hash   hash.Hash
	size   int64
	body   Body
	begun  bool // expect was called
	broken bool // file and hash may differ: the session cannot go on

	allowed  int64 // bytes that may come before room is asked for again
	reserved int64 // by this request, beyond row.Size
}

var _ distribution.BlobWriter = (*Upload)(nil)

// idleUpload is after what time without a request a session does not count
// among those that its user has open. Clients that are killed leave theirs,
// and must not lock their user out until those expire.
const idleUpload = time.Hour

// NewUpload begins an upload session in a repository. TOOMANYREQUESTS where
// the user has too many open.
func (s *Store) NewUpload(ctx context.Context, repository string) (*Upload, error) {
	if err := s.disk.fits(0); err != nil {
		return nil, err
	}
	p := tarport.PrincipalFrom(ctx)
	n, err := s.db.CountUploads(ctx, p.UserID, s.expiry().Add(-idleUpload))
	if err != nil {
		return nil, err
	}
	if n >= s.o.MaxUploads {
		return nil, tarport.Errorf(tarport.TooManyRequests, "you have %d uploads open, at most %d are allowed: finish or cancel some", n, s.o.MaxUploads)
	}
	now := s.o.Now()
	row := metadata.Upload{ID: rand.Text(), Repository: repository, Principal: p.UserID, StartedAt: now}
	u := &Upload{session: session{s: s, row: row}, body: bodyFrom(ctx)}
	return u, s.db.CreateUpload(ctx, u.row, s.expiry())
}

// ResumeUpload goes on with a session of the repository. BLOB_UPLOAD_UNKNOWN
// where there is none that the caller began, CONFLICT where another request is
// at it.
func (s *Store) ResumeUpload(ctx context.Context, repository, id string) (*Upload, error) {
	if _, err := s.uploadRow(ctx, repository, id); err != nil { // before anything is changed
		return nil, err
	}
	u := &Upload{session: session{s: s, row: metadata.Upload{ID: id, Repository: repository}}, body: bodyFrom(ctx)}
	return u, u.hold(ctx)
}

// UploadStatus returns how far a session is, without taking it: what a request
// that runs has sent is not in it. The Upload can only be asked.
func (s *Store) UploadStatus(ctx context.Context, repository, id string) (*Upload, error) {
	row, err := s.uploadRow(ctx, repository, id)
	return &Upload{session: session{s: s, row: row, over: true}, size: row.Size}, err
}

func (s *Store) uploadRow(ctx context.Context, repository, id string) (metadata.Upload, error) {
	row, err := s.db.Upload(ctx, repository, id)
	if err == nil && row.Principal != tarport.PrincipalFrom(ctx).UserID {
		return row, tarport.Errorf(tarport.BlobUploadUnknown, "the upload session is not known: it was finished, cancelled, or has expired")
	}
	return row, err
}

// hold takes the session for this request.
func (u *Upload) hold(ctx context.Context) error {
	if err := u.acquire(ctx); err != nil {
		return err
	}
	u.size = u.row.Size
	var err error
	u.hash, err = newHash(u.row.Hash)
	return err
}

// ID is the session's id.
func (u *Upload) ID() string { return u.row.ID }

// Size is how many bytes the session has.
func (u *Upload) Size() int64 { return u.size }

// StartedAt is when the session began.
func (u *Upload) StartedAt() time.Time { return u.row.StartedAt }

func (u *Upload) open(ctx context.Context) error {
	if u.over || u.broken {
		return errUploadUsed
	}
	if u.file != nil {
		return nil
	}
	if u.holder == "" {
		if err := u.hold(ctx); err != nil {
			return err
		}
	}
	if !u.begun {
		if err := u.expect(ctx); err != nil {
			return err
		}
		u.begun = true
	}
	err := u.recheck(ctx)
	if err == nil {
		u.file, err = u.s.files.stage(ctx, u.row.ID, u.size)
	}
	if errors.Is(err, fs.ErrNotExist) { // the power failed, or somebody removed it
		return tarport.Errorf(tarport.BlobUploadUnknown, "the upload session is lost: begin anew").Because(err)
	}
	if err != nil {
		return storageFull(fmt.Errorf("open the file of an upload: %w", err))
	}
	return nil
}

var errUploadUsed = errors.New("the upload is closed")

// recheck reads what a session has from before this process, once: its bytes
// were not synced when they were recorded, so a power failure can have taken
// them and left their number. fs.ErrNotExist where it has.
func (u *Upload) recheck(ctx context.Context) error {
	if u.size == 0 || !u.s.files.inPlace() || !u.row.StartedAt.Before(u.s.began) {
		return nil
	}
	if _, done := u.s.rechecked.Load(u.row.ID); done {
		return nil
	}
	r, err := u.s.files.openStaged(ctx, u.row.ID)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	d, err := digest.SHA256.FromReader(io.LimitReader(r, u.size))
	if err != nil {
		return fmt.Errorf("read an upload again: %w", err)
	}
	if d != digest.NewDigest(digest.SHA256, u.hash) {
		return fmt.Errorf("%w: the first %d bytes of upload %s", fs.ErrNotExist, u.size, u.row.ID)
	}
	u.s.rechecked.Store(u.row.ID, struct{}{})
	return nil
}

// Write adds to the session. DENIED where the namespace has no room for it:
// then the session ends. INSUFFICIENT_STORAGE where the disk is nearly full.
func (u *Upload) Write(p []byte) (int, error) {
	ctx := context.Background()
	if err := u.open(ctx); err != nil {
		return 0, err
	}
	if err := u.take(ctx, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := u.file.Write(p)
	_, _ = u.hash.Write(p[:n])
	u.size += int64(n)
	return n, storageFull(err)
}

// ReadFrom adds all of r. What came before an error of r counts, and the
// session can be resumed behind it. For room it is as with Write.
func (u *Upload) ReadFrom(r io.Reader) (int64, error) {
	ctx := context.Background()
	if err := u.open(ctx); err != nil {
		return 0, err
	}
	src := &sourceErr{r: &metered{ctx, u, r}}
	n, err := copyTo(u.file, u.hash, src)
	if err != nil && !errors.Is(err, src.err) { // the file's: it and the hash may differ now
		u.broken = true
		return 0, storageFull(fmt.Errorf("write an upload: %w", err))
	}
	u.size += n
	if err == nil {
		err = u.checkpoint(ctx)
	}
	return n, err
}

// sourceErr keeps the error of a reader apart from those of the writers.
type sourceErr struct {
	r   io.Reader
	err error
}

func (s *sourceErr) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Close lets go of the session; it can be resumed. Nothing after Commit or
// Cancel.
func (u *Upload) Close() error {
	if u.over {
		return nil
	}
	if u.broken {
		return u.Cancel(context.Background())
	}
	if u.holder == "" {
		u.over = true
		return nil
	}
	u.end()
	var err error
	if u.file != nil {
		err = u.file.Close()
		u.file = nil
	}
	ctx := context.Background()
	if u.size == u.row.Size && u.reserved == 0 {
		return errors.Join(err, u.s.db.ReleaseUpload(ctx, u.row.ID, u.holder))
	}
	state, herr := hashState(u.hash)
	return errors.Join(err, herr, u.s.db.SaveUpload(ctx, u.row.ID, u.holder, u.progress(state)))
}

func (u *Upload) progress(state []byte) metadata.UploadProgress {
	return metadata.UploadProgress{Size: u.size, Hash: state, Expires: u.s.expiry()}
}

// Cancel ends the session and drops its bytes, which may be another's where the
// session was lost: so the row goes first. Nothing after Commit.
func (u *Upload) Cancel(ctx context.Context) error {
	if u.over {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	var err error
	if u.holder == "" {
		err = u.hold(ctx)
	}
	u.end()
	if err != nil {
		return err
	}
	if u.file != nil {
		err = u.file.Close()
		u.file = nil
	}
	if derr := u.s.db.DeleteUpload(ctx, u.row.ID, u.holder); derr != nil {
		return errors.Join(err, derr)
	}
	return errors.Join(err, u.s.files.dropStaged(ctx, u.row.ID))
}

// Commit finishes the session: its bytes become a blob of the repository,
// durably, if they have the digest; else the error is DIGEST_INVALID and the
// session is still there, to be cancelled.
func (u *Upload) Commit(ctx context.Context, want ocispec.Descriptor) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	if err := u.open(ctx); err != nil { // an empty blob has a file too
		return none, err
	}
	if err := u.file.sync(ctx); err != nil {
		u.broken = true
		return none, storageFull(fmt.Errorf("make an upload durable: %w", err))
	}
	if err := u.file.Close(); err != nil {
		return none, fmt.Errorf("close the file of an upload: %w", err)
	}
	u.file = nil
	got, err := u.digest(ctx, want.Digest.Algorithm())
	if err != nil {
		return none, err
	}
	if got != want.Digest {
		return none, tarport.Errorf(tarport.DigestInvalid, "the bytes sent have the digest %s, not %s", got, want.Digest)
	}
	if err := u.still(ctx); err != nil {
		return none, err
	}
	_, err = u.s.placeBlob(ctx, u.row.ID, metadata.BlobPut{
		Digest: got, Size: u.size, Repository: u.row.Repository,
		Upload: u.row.ID, Holder: u.holder, Lease: u.s.lease(),
	})
	if err != nil {
		return none, err
	}
	u.end()
	u.s.cache.changed(u.row.Repository)
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: got, Size: u.size}, nil
}

// digest is the digest of the session's bytes. sha256 was computed while they
// came; for another algorithm they are read once more.
func (u *Upload) digest(ctx context.Context, a digest.Algorithm) (digest.Digest, error) {
	if a == digest.SHA256 {
		return digest.NewDigest(a, u.hash), nil
	}
	r, err := u.s.files.openStaged(ctx, u.row.ID)
	if err != nil {
		return "", fmt.Errorf("read an upload again: %w", err)
	}
	defer func() { _ = r.Close() }()
	d, err := a.FromReader(r)
	if err != nil {
		return "", fmt.Errorf("read an upload again: %w", err)
	}
	return d, nil
}
