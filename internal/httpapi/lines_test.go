package httpapi

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarport/tarport"
)

// TestLinesComeWhileTheBodyIsSent sends the second half of a body only after the
// line about the first one is there.
func TestLinesComeWhileTheBodyIsSent(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(Handle(func(w http.ResponseWriter, r *http.Request) error {
		out := NewLines(w, http.StatusCreated, "application/x-ndjson")
		half := make([]byte, 4)
		for {
			n, err := io.ReadFull(r.Body, half)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			out.Write(map[string]string{"got": string(half[:n])})
		}
	}))
	t.Cleanup(s.Close)
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = send.Write([]byte("one ")) }()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusCreated || got != "application/x-ndjson" {
		t.Errorf("answered %d %s", resp.StatusCode, got)
	}
	lines := bufio.NewScanner(resp.Body)
	for i, want := range []string{`{"got":"one "}`, `{"got":"two "}`} {
		if i > 0 {
			_, _ = send.Write([]byte("two "))
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("line %d = %q (%v), want %q", i, lines.Text(), lines.Err(), want)
		}
	}
	_ = send.Close()
	if lines.Scan() {
		t.Errorf("there is another line: %q", lines.Text())
	}
}

func TestAnErrorInAnotherShape(t *testing.T) {
	t.Parallel()
	for _, detail := range []any{nil, func() {}} { // the second does not encode
		w, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) error {
			SetErrorShape(r.Context(), func(e *tarport.Error) (int, any) {
				return http.StatusTeapot, map[string]any{"message": string(e.Code) + " " + e.Message, "detail": e.Detail}
			})
			return tarport.Errorf(tarport.Denied, "not yours").WithDetail(detail)
		}, get("/x"))
		if got := w.Body.String(); w.Code != http.StatusTeapot || got != `{"detail":null,"message":"DENIED not yours"}`+"\n" {
			t.Errorf("answered %d %s", w.Code, got)
		}
	}
}

// TestWhatEndsAStreamIsToldAsInAnAnswer: nothing internal, and the log has it.
func TestWhatEndsAStreamIsToldAsInAnAnswer(t *testing.T) {
	t.Parallel()
	_, log := serve(t, func(w http.ResponseWriter, r *http.Request) error {
		out := NewLines(w, http.StatusOK, "application/json")
		out.Write("begun")
		if e := Failed(w, r, errors.New("open /var/lib/secret")); e.Code != tarport.Internal || strings.Contains(e.Message, "secret") {
			t.Errorf("Failed = %v", e)
		}
		if e := Failed(w, r, tarport.Errorf(tarport.TooLarge, "too much")); e.Message != "too much" {
			t.Errorf("Failed = %v", e)
		}
		return nil
	}, get("/x"))
	if !strings.Contains(log, "/var/lib/secret") || strings.Contains(log, "too much") || !strings.Contains(log, "code=TOO_LARGE") {
		t.Errorf("logged %s", log)
	}
}
