package tarport

import (
	"errors"
	"fmt"
	"net/http"
)

// Code is the machine-readable kind of an error, as in the OCI distribution
// spec 1.1, section "Error Codes", extended by what the spec has no code for.
type Code string

// The codes of the distribution spec.
const (
	BlobUnknown         Code = "BLOB_UNKNOWN"
	BlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	BlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	DigestInvalid       Code = "DIGEST_INVALID"
	ManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	ManifestInvalid     Code = "MANIFEST_INVALID"
	ManifestUnknown     Code = "MANIFEST_UNKNOWN"
	NameInvalid         Code = "NAME_INVALID"
	NameUnknown         Code = "NAME_UNKNOWN"
	SizeInvalid         Code = "SIZE_INVALID"
	Unauthorized        Code = "UNAUTHORIZED"
	Denied              Code = "DENIED"
	Unsupported         Code = "UNSUPPORTED"
	TooManyRequests     Code = "TOOMANYREQUESTS"
)

// Codes that distribution uses beside the spec's, and our own.
const (
	TagInvalid          Code = "TAG_INVALID"
	RangeInvalid        Code = "RANGE_INVALID"
	PaginationInvalid   Code = "PAGINATION_NUMBER_INVALID"
	Invalid             Code = "INVALID"              // a parameter, header or body is not of its form
	NotFound            Code = "NOT_FOUND"            // no such route or object
	Conflict            Code = "CONFLICT"             // somebody else is at it, or it is in use
	TooLarge            Code = "TOO_LARGE"            // a body over its limit
	ArchiveInvalid      Code = "ARCHIVE_INVALID"      // a tarball that is broken or not of a known form
	InsufficientStorage Code = "INSUFFICIENT_STORAGE" // the disk is (nearly) full
	Unavailable         Code = "UNAVAILABLE"          // try again later
	Timeout             Code = "TIMEOUT"              // the client was too slow
	ChecksumMismatch    Code = "CHECKSUM_MISMATCH"    // bytes are not what their sender says
	PreconditionFailed  Code = "PRECONDITION_FAILED"  // a version or state that the request needs is not the one here
	UnsupportedMedia    Code = "UNSUPPORTED_MEDIA"    // a Content-Type that the route does not take
	Internal            Code = "UNKNOWN"              // everything that is our own fault
)

var codeStatus = map[Code]int{
	BlobUnknown:         http.StatusNotFound,
	BlobUploadInvalid:   http.StatusBadRequest,
	BlobUploadUnknown:   http.StatusNotFound,
	DigestInvalid:       http.StatusBadRequest,
	ManifestBlobUnknown: http.StatusBadRequest,
	ManifestInvalid:     http.StatusBadRequest,
	ManifestUnknown:     http.StatusNotFound,
	NameInvalid:         http.StatusBadRequest,
	NameUnknown:         http.StatusNotFound,
	SizeInvalid:         http.StatusBadRequest,
	Unauthorized:        http.StatusUnauthorized,
	Denied:              http.StatusForbidden,
	Unsupported:         http.StatusMethodNotAllowed,
	TooManyRequests:     http.StatusTooManyRequests,
	TagInvalid:          http.StatusBadRequest,
	RangeInvalid:        http.StatusRequestedRangeNotSatisfiable,
	PaginationInvalid:   http.StatusBadRequest,
	Invalid:             http.StatusBadRequest,
	NotFound:            http.StatusNotFound,
	Conflict:            http.StatusConflict,
	TooLarge:            http.StatusRequestEntityTooLarge,
	ArchiveInvalid:      http.StatusUnprocessableEntity,
	InsufficientStorage: http.StatusInsufficientStorage,
	Unavailable:         http.StatusServiceUnavailable,
	Timeout:             http.StatusRequestTimeout,
	ChecksumMismatch:    460, // tus 1.0, "Checksum"
	PreconditionFailed:  http.StatusPreconditionFailed,
	UnsupportedMedia:    http.StatusUnsupportedMediaType,
	Internal:            http.StatusInternalServerError,
}

// Status is the HTTP status that answers an error of this code; 500 for one
// that is not known.
func (c Code) Status() int {
	if s, ok := codeStatus[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is an error that a caller may act on and a user may read. Any other
// error is internal: it is logged, and the client sees only that there was one.
type Error struct {
	Code    Code
	Message string // for the user: what is wrong, and where it can be, what to do
	Detail  any    // for programs; nil or something that encodes to JSON
	Err     error  // the cause, for the log only; never sent
}

// Errorf makes an Error. The message is for the user, so it holds no path of
// the server and no text of an internal error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because returns a copy of e with err as its cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// WithDetail returns a copy of e with the detail.
func (e *Error) WithDetail(detail any) *Error {
	c := *e
	c.Detail = detail
	return &c
}

func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode is the code of the first *Error in err's chain, "" for nil and
// Internal for an error that has none.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
