package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"

	"github.com/tarport/tarport"
)

// The protocol of resumable uploads: https://tus.io/protocols/resumable-upload
const (
	tusVersion   = "1.0.0"
	headTus      = "Tus-Resumable"
	headOffset   = "Upload-Offset"
	headLength   = "Upload-Length"
	headMetadata = "Upload-Metadata"
	tusMedia     = "application/offset+octet-stream"
)

// CreateUpload begins an upload of size bytes and returns its ID, which
// archives/load and the like take as upload=. Name is for people who look.
func (c *Client) CreateUpload(ctx context.Context, size int64, name string) (id string, err error) {
	h := tusHeader()
	h.Set(headLength, strconv.FormatInt(size, 10))
	h.Set(headMetadata, "filename "+base64.StdEncoding.EncodeToString([]byte(name)))
	resp, err := c.Open(ctx, Request{Method: http.MethodPost, Path: "/uploads", Header: h})
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	id = path.Base(resp.Header.Get("Location"))
	if id == "" || id == "." || id == "/" {
		return "", fmt.Errorf("%s makes an upload and does not say which: is it another registry?", c.base.Host)
	}
	return id, nil
}

// UploadOffset is how much of an upload the server has. The error is
// tarport.NotFound where it has no such upload.
func (c *Client) UploadOffset(ctx context.Context, id string) (int64, error) {
	resp, err := c.Open(ctx, Request{Method: http.MethodHead, Path: "/uploads/" + id, Header: tusHeader()})
	if err != nil {
		return 0, uploadGone(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return offsetOf(resp)
}

// AppendUpload sends n bytes of an upload from offset on, and returns the
// offset behind them. After an error ask UploadOffset how much has come.
func (c *Client) AppendUpload(ctx context.Context, id string, offset int64, r io.Reader, n int64) (int64, error) {
	h := tusHeader()
	h.Set(headOffset, strconv.FormatInt(offset, 10))
	h.Set("Content-Type", tusMedia)
	resp, err := c.Open(ctx, Request{Method: http.MethodPatch, Path: "/uploads/" + id, Header: h, Body: r, Size: n})
	if err != nil {
		return 0, uploadGone(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return offsetOf(resp)
}

// DeleteUpload forgets an upload.
func (c *Client) DeleteUpload(ctx context.Context, id string) error {
	resp, err := c.Open(ctx, Request{Method: http.MethodDelete, Path: "/uploads/" + id, Header: tusHeader()})
	if err != nil {
		return uploadGone(err)
	}
	return resp.Body.Close()
}

func tusHeader() http.Header {
	return http.Header{headTus: {tusVersion}}
}

func offsetOf(resp *http.Response) (int64, error) {
	n, err := strconv.ParseInt(resp.Header.Get(headOffset), 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("the server does not say how much of the upload it has: is it another registry?")
	}
	return n, nil
}

// uploadGone gives a code to the errors of uploads that are no more: the answer
// to HEAD has no body.
func uploadGone(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != http.StatusNotFound && e.Status != http.StatusGone {
		return err
	}
	gone := *e
	gone.Code = tarport.NotFound
	if e.Code == "" {
		gone.Message = "the server has no such upload"
	}
	return &gone
}
