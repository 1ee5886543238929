package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"sync"
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
	s      *Store
	row    metadata.Upload
	holder string     // "" where nobody holds it yet
	file   stagedFile // nil until something is written
	hash   hash.Hash
	size   int64
	body   Body
	begun  bool   // expect was called
	over   bool   // let go of, finished or cancelled
	broken bool   // file and hash may differ: the session cannot go on
	stop   func() // ends the renewing of the hold; nil where there is none

	allowed  int64 // bytes that may come before room is asked for again
	reserved int64 // by this request, beyond row.Size
}

var _ distribution.BlobWriter = (*Upload)(nil)

const (
	holdFor   = 60 * time.Second
	holdEvery = 15 * time.Second
)

// heldUntil is how long a hold counts if it is not renewed: a replica may die
// and leave its holds behind.
func (s *Store) heldUntil() time.Time { return s.o.Now().Add(holdFor) }

func (s *Store) expiry() time.Time { return s.o.Now().Add(s.o.UploadExpiry) }

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
	u := &Upload{s: s, body: bodyFrom(ctx), row: metadata.Upload{ID: rand.Text(), Repository: repository, Principal: p.UserID, StartedAt: now}}
	return u, s.db.CreateUpload(ctx, u.row, s.expiry())
}

// ResumeUpload goes on with a session of the repository. BLOB_UPLOAD_UNKNOWN
// where there is none that the caller began, CONFLICT where another request is
// at it.
func (s *Store) ResumeUpload(ctx context.Context, repository, id string) (*Upload, error) {
	if _, err := s.uploadRow(ctx, repository, id); err != nil { // before anything is changed
		return nil, err
	}
	u := &Upload{s: s, body: bodyFrom(ctx), row: metadata.Upload{ID: id, Repository: repository}}
	return u, u.hold(ctx)
}

// UploadStatus returns how far a session is, without taking it: what a request
// that runs has sent is not in it. The Upload can only be asked.
func (s *Store) UploadStatus(ctx context.Context, repository, id string) (*Upload, error) {
	row, err := s.uploadRow(ctx, repository, id)
	return &Upload{s: s, row: row, size: row.Size, over: true}, err
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
	holder := rand.Text()
	row, err := u.s.db.AcquireUpload(ctx, u.row.Repository, u.row.ID, holder, u.s.heldUntil(), u.s.expiry())
	if err != nil {
		return err
	}
	u.row, u.holder, u.size = row, holder, row.Size
	if !u.s.db.Exclusive() {
		u.keep(ctx)
	}
	u.hash, err = newHash(u.row.Hash)
	return err
}

// keep renews the hold while the request lives.
func (u *Upload) keep(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(holdEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if err := u.s.db.HoldUpload(ctx, u.row.ID, u.holder, u.s.heldUntil()); err != nil && ctx.Err() == nil {
					u.s.o.Log.LogAttrs(ctx, slog.LevelWarn, "hold of an upload was not renewed", slog.Any("err", err))
				}
			}
		}
	})
	u.stop = func() { cancel(); wg.Wait() }
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
	var err error
	u.file, err = u.s.files.stage(ctx, u.row.ID, u.size)
	if errors.Is(err, fs.ErrNotExist) { // the power failed, or somebody removed it
		return tarport.Errorf(tarport.BlobUploadUnknown, "the upload session is lost: begin anew").Because(err)
	}
	if err != nil {
		return storageFull(fmt.Errorf("open the file of an upload: %w", err))
	}
	return nil
}

var errUploadUsed = errors.New("the upload is closed")

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

func (u *Upload) end() {
	u.over = true
	if u.stop != nil {
		u.stop()
	}
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
	_, err = u.s.placeBlob(ctx, u.row.ID, metadata.BlobPut{Digest: got, Size: u.size, Repository: u.row.Repository,
		Upload: u.row.ID, Holder: u.holder, Lease: u.s.lease()})
	if err != nil {
		return none, err
	}
	u.end()
	u.s.cache.changed(u.row.Repository)
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: got, Size: u.size}, nil
}

// still makes sure that the session is held, for long enough to end it: a
// request that lost it must not make a blob of a file that another one writes.
func (u *Upload) still(ctx context.Context) error {
	if u.s.db.Exclusive() { // a hold ends with its request
		return nil
	}
	return u.s.db.HoldUpload(context.WithoutCancel(ctx), u.row.ID, u.holder, u.s.heldUntil())
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
