package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/client"
)

// A body that is refused is not read: who may not push does not send 10 GB
// first.
func TestABodyIsNotReadBeforeItIsWanted(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("want") == "" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"not you"}]}`)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != r.ContentLength {
			t.Errorf("%d bytes came, %v, want %d", n, err, r.ContentLength)
		}
		_, _ = io.WriteString(w, "{}\n")
	}, client.Credential{User: "a", Password: "b"}, nil)
	body := bytes.NewReader(make([]byte, 1<<20))
	send := func(query url.Values) error {
		resp, err := c.Open(t.Context(), client.Request{Method: http.MethodPost, Path: "/archives/load", Query: query, Body: body, Size: 1 << 20})
		if err == nil {
			err = errors.Join(client.Lines(resp.Body, func([]byte) error { return nil }), resp.Body.Close())
		}
		return err
	}
	if err := send(nil); tarport.ErrorCode(err) != tarport.Denied || body.Len() != 1<<20 {
		t.Errorf("a body that is refused: %v, %d bytes of it were read", err, 1<<20-body.Len())
	}
	if err := send(url.Values{"want": {"it"}}); err != nil || body.Len() != 0 {
		t.Errorf("a body that is wanted: %v, %d bytes of it were not read", err, body.Len())
	}
}

func TestLinesEndWithAnError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in, want string // what is wrong
		lines    int
		code     tarport.Code
	}{
		{`{"status":"a"}` + "\n\n" + `{"images":[]}`, "", 2, ""},
		{`{"status":"a"}` + "\n" + `{"error":"x","errorDetail":{"code":403},"errors":[{"code":"DENIED","message":"the \u001b[1mreason"}]}` + "\n{}", "the [1mreason", 1, tarport.Denied},
		{`{"error":"as docker says it"}`, "as docker says it", 0, ""},
		{"<html>", "is it another registry?", 0, tarport.Internal},
	} {
		n := 0
		err := client.Lines(strings.NewReader(tt.in), func([]byte) error { n++; return nil })
		got := ""
		if err != nil {
			got = err.Error()
		}
		if n != tt.lines || !strings.Contains(got, tt.want) || (tt.want == "") != (err == nil) || tarport.ErrorCode(err) != tt.code {
			t.Errorf("Lines(%q) = %d lines, %v (%s), want %d, %q (%s)", tt.in, n, err, tarport.ErrorCode(err), tt.lines, tt.want, tt.code)
		}
	}
	stop := errors.New("enough")
	if err := client.Lines(strings.NewReader("{}\n{}"), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Lines that are enough = %v", err)
	}
}

func TestWhichErrorsGoAway(t *testing.T) {
	t.Parallel()
	nobody := client.New(client.Options{Registry: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	_, unreachable := nobody.Open(t.Context(), client.Request{Method: http.MethodGet, Path: "/x"})
	ended, end := context.WithCancel(t.Context())
	end()
	_, canceled := nobody.Open(ended, client.Request{Method: http.MethodGet, Path: "/x"})
	got := map[string]bool{}
	for name, err := range map[string]error{
		"unreachable": unreachable, "canceled": canceled, "broken": client.Broken(io.ErrUnexpectedEOF), "none": nil, "other": io.EOF,
		"503": &client.Error{Status: 503}, "429": &client.Error{Status: 429}, "403": &client.Error{Status: 403}, "500": &client.Error{Status: 500},
	} {
		got[name] = client.Temporary(err)
	}
	want := map[string]bool{
		"unreachable": true, "canceled": false, "broken": true, "none": false, "other": false, "503": true, "429": true, "403": false, "500": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Temporary (-want +got):\n%s", diff)
	}
}

func TestUploadsSpeakTus(t *testing.T) {
	t.Parallel()
	var had []byte
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Tus-Resumable") != "1.0.0" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		switch r.Method + " " + r.URL.Path {
		case "POST /api/v1/uploads":
			if r.Header.Get("Upload-Length") != "5" || r.Header.Get("Upload-Metadata") != "filename YS50YXI=" {
				t.Errorf("POST with %v", r.Header)
			}
			w.Header().Set("Location", "https://elsewhere.example.com/api/v1/uploads/ID")
			w.WriteHeader(http.StatusCreated)
		case "PATCH /api/v1/uploads/ID":
			b, err := io.ReadAll(r.Body)
			if err != nil || r.Header.Get("Content-Type") != "application/offset+octet-stream" || r.Header.Get("Upload-Offset") != "0" {
				t.Errorf("PATCH with %v: %v", r.Header, err)
			}
			had = b
			w.Header().Set("Upload-Offset", "3")
			w.WriteHeader(http.StatusNoContent)
		case "HEAD /api/v1/uploads/ID":
			w.Header().Set("Upload-Offset", "3")
		case "DELETE /api/v1/uploads/ID":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}, client.Credential{}, nil)
	id, err := c.CreateUpload(t.Context(), 5, "a.tar")
	if err != nil || id != "ID" {
		t.Fatalf("CreateUpload = %q, %v", id, err)
	}
	if n, err := c.AppendUpload(t.Context(), id, 0, strings.NewReader("abc"), 3); n != 3 || err != nil || string(had) != "abc" {
		t.Errorf("AppendUpload = %d, %v, and %q came", n, err, had)
	}
	if n, err := c.UploadOffset(t.Context(), id); n != 3 || err != nil {
		t.Errorf("UploadOffset = %d, %v", n, err)
	}
	if err := c.DeleteUpload(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := c.UploadOffset(t.Context(), "none"); tarport.ErrorCode(err) != tarport.NotFound || err.Error() != "the server has no such upload" {
		t.Errorf("an upload that is not there: %v", err)
	}
}
