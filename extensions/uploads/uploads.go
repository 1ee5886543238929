// Package uploads takes archives in parts: tus 1.0 (https://tus.io/protocols/resumable-upload)
// with creation, creation-with-upload, creation-defer-length, checksum,
// expiration and termination. What was sent is loaded by
// /api/v1/archives/load?upload=ID afterwards, and by import and commit.
//
//	POST  /uploads        Upload-Length: 5000000000      ─> 201, Location: /api/v1/uploads/ID
//	PATCH /uploads/ID     Upload-Offset: 0, some bytes   ─> 204, Upload-Offset: 95000000
//	       … the line breaks, the server restarts …
//	HEAD  /uploads/ID                                    ─> Upload-Offset: 142000000
//	PATCH /uploads/ID     Upload-Offset: 142000000, …
//	POST  /archives/load?namespace=team&upload=ID        ─> the images
//
// An upload is its sender's until it is loaded; a token that is for one namespace
// has those only that were begun with such a one. It belongs to no namespace, so
// no quota counts it: each user has a limit of his own.
package uploads

import (
	"cmp"
	"crypto/md5"  //nolint:gosec // tus names it; a checksum guards against accidents
	"crypto/sha1" //nolint:gosec // the one that tus demands
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

// What the protocol calls things.
const (
	version      = "1.0.0"
	extensions   = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
	octetStream  = "application/offset+octet-stream"
	hResumable   = "Tus-Resumable"
	hOffset      = "Upload-Offset"
	hLength      = "Upload-Length"
	hDeferLength = "Upload-Defer-Length"
	hMetadata    = "Upload-Metadata"
	hChecksum    = "Upload-Checksum"
	hExpires     = "Upload-Expires"
	hOverride    = "X-HTTP-Method-Override"
)

// maxMetadata is how many bytes of Upload-Metadata are kept.
const maxMetadata = 4 << 10

// checksums are the algorithms of Upload-Checksum.
var checksums = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New}

func invalid(format string, args ...any) error {
	return tarport.Errorf(tarport.Invalid, format, args...)
}

// number reads a header that is a number of bytes; found is false where it is
// not there.
func number(h http.Header, name string) (n int64, found bool, err error) {
	values := h.Values(name)
	if len(values) == 0 {
		return 0, false, nil
	}
	u, err := strconv.ParseUint(values[0], 10, 63) // takes no sign
	if err != nil || len(values) > 1 {
		return 0, true, invalid("%s must be a number of bytes", name)
	}
	return int64(u), true, nil
}

// newLength is the length that a new upload will have; -1 where it is told
// later.
func newLength(h http.Header) (int64, error) {
	n, known, err := number(h, hLength)
	later := h.Get(hDeferLength)
	switch {
	case err != nil:
		return 0, err
	case known == (later != ""), later != "" && later != "1":
		return 0, invalid("say how long the upload is with %s, or that you do not know yet with %s: 1", hLength, hDeferLength)
	case !known:
		return -1, nil
	}
	return n, nil
}

// parseMetadata reads Upload-Metadata: pairs of a key and a value in base64.
func parseMetadata(text string) (map[string]string, error) {
	pairs := map[string]string{}
	if len(text) > maxMetadata {
		return nil, invalid("%s has %d bytes, at most %d are kept", hMetadata, len(text), maxMetadata)
	}
	if text == "" {
		return pairs, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		_, twice := pairs[key]
		odd := strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' })
		if err != nil || key == "" || twice || odd {
			return nil, invalid("%s must be pairs of a key and a value in base64, separated by commas, each key once", hMetadata)
		}
		pairs[key] = string(b)
	}
	return pairs, nil
}

// parseChecksum reads Upload-Checksum; nil where there is none.
func parseChecksum(h http.Header) (*storage.Checksum, error) {
	text := h.Get(hChecksum)
	if text == "" {
		return nil, nil //nolint:nilnil // no checksum is no error
	}
	name, value, _ := strings.Cut(text, " ")
	algorithm := checksums[name]
	if algorithm == nil {
		return nil, invalid("the checksum algorithm of %s must be one of %s", hChecksum, algorithms())
	}
	sum := &storage.Checksum{Hash: algorithm()}
	var err error
	if sum.Want, err = base64.StdEncoding.DecodeString(value); err != nil || len(sum.Want) != sum.Hash.Size() {
		return nil, invalid("%s must be %s and its checksum in base64", hChecksum, name)
	}
	return sum, nil
}

func algorithms() string { return strings.Join(slices.Sorted(maps.Keys(checksums)), ",") }

// Upload is an upload as the API shows it.
type Upload struct {
	ID        string            `json:"id"`
	Filename  string            `json:"filename"` // of its metadata; "" where the client gave none
	Metadata  map[string]string `json:"metadata"`
	Offset    int64             `json:"offset"` // how many bytes are here
	Length    *int64            `json:"length"` // null while it is not known
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt time.Time         `json:"expires_at"` // unless something more comes
}

func show(u metadata.ArchiveUpload) Upload {
	pairs, _ := parseMetadata(u.Metadata) // it was read when it came
	out := Upload{
		ID: u.ID, Filename: cmp.Or(pairs["filename"], pairs["name"]), Metadata: pairs, Offset: u.Size,
		CreatedAt: u.StartedAt, ExpiresAt: u.ExpiresAt,
	}
	if u.Length >= 0 {
		out.Length = &u.Length
	}
	return out
}
