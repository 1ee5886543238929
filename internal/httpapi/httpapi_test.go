package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// serve answers one request with h behind the middleware, and returns what was
// logged.
func serve(t *testing.T, h HandlerFunc, r *http.Request) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	w := httptest.NewRecorder()
	o := Options{Log: slog.New(slog.NewTextHandler(&log, nil)), AccessLog: true}
	Middleware(o)(Handle(h)).ServeHTTP(w, r.WithContext(t.Context()))
	return w, log.String()
}

func get(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

func decode(t *testing.T, w *httptest.ResponseRecorder) errorItem {
	t.Helper()
	var b errorBody
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || len(b.Errors) != 1 {
		t.Fatalf("the body %q is not one OCI error: %v", w.Body, err)
	}
	return b.Errors[0]
}

func TestErrorsAreAnsweredByTheirCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		status int
		code   tarport.Code
	}{
		{tarport.Errorf(tarport.ManifestUnknown, "no manifest %s", "x"), 404, tarport.ManifestUnknown},
		{fmt.Errorf("put: %w", tarport.Errorf(tarport.Denied, "not yours")), 403, tarport.Denied},
		{fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 5}), 413, tarport.TooLarge},
		{io.ErrUnexpectedEOF, 400, tarport.Invalid},
		{errors.New("open /var/lib/secret: permission denied"), 500, tarport.Internal},
		{tarport.Errorf(tarport.Internal, "a path: /var/lib/secret"), 500, tarport.Internal},
	} {
		w, log := serve(t, func(http.ResponseWriter, *http.Request) error { return tc.err }, get("/x"))
		if w.Code != tc.status {
			t.Errorf("%v: status %d, want %d", tc.err, w.Code, tc.status)
		}
		if e := decode(t, w); e.Code != tc.code || strings.Contains(e.Message, "/var/lib") {
			t.Errorf("%v: answered %+v, want code %s and no path", tc.err, e, tc.code)
		}
		if logged := strings.Contains(log, "/var/lib/secret"); logged != (tc.status == 500) {
			t.Errorf("%v: internal text logged = %v", tc.err, logged)
		}
		if id := w.Header().Get("X-Request-Id"); id == "" || !strings.Contains(log, id) {
			t.Errorf("%v: the request id %q is not in the log", tc.err, id)
		}
	}
}

func TestDetailStandsInTheAnswerAndACauseDoesNot(t *testing.T) {
	t.Parallel()
	w, _ := serve(t, func(http.ResponseWriter, *http.Request) error {
		return tarport.Errorf(tarport.ManifestBlobUnknown, "missing").WithDetail([]string{"a"}).Because(errors.New("sql text"))
	}, get("/x"))
	if got, want := w.Body.String(), `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"missing","detail":["a"]}]}`+"\n"; got != want || w.Header().Get("Content-Length") != strconv.Itoa(len(want)) {
		t.Errorf("answered %q of length %s, want %q", got, w.Header().Get("Content-Length"), want)
	}
	w, _ = serve(t, func(http.ResponseWriter, *http.Request) error {
		return tarport.Errorf(tarport.Invalid, "odd").WithDetail(func() {})
	}, get("/x"))
	if e := decode(t, w); e.Message != "odd" {
		t.Errorf("a detail that does not encode: %+v", e)
	}
}

func TestAnErrorTakesBackTheHeadersOfTheAnswerItReplaces(t *testing.T) {
	t.Parallel()
	w, _ := serve(t, func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Docker-Content-Digest", "sha256:x")
		w.Header().Set("Content-Length", "5")
		SetErrorHeaders(r.Context(), func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("WWW-Authenticate", string(tarport.ErrorCode(err)))
		})
		return tarport.Errorf(tarport.Unauthorized, "who are you")
	}, get("/x"))
	if d := w.Header().Get("Docker-Content-Digest"); d != "" {
		t.Errorf("the digest %q stands in the answer to an error", d)
	}
	if got := w.Header().Get("WWW-Authenticate"); got != "UNAUTHORIZED" {
		t.Errorf("WWW-Authenticate = %q", got)
	}
}

func TestBusyAnswersSayWhenToComeAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []tarport.Code{tarport.Unavailable, tarport.TooManyRequests} {
		w, _ := serve(t, func(http.ResponseWriter, *http.Request) error { return tarport.Errorf(c, "busy") }, get("/x"))
		if w.Header().Get("Retry-After") == "" {
			t.Errorf("%s has no Retry-After", c)
		}
	}
}

func TestHeadAnswersHaveNoBody(t *testing.T) {
	t.Parallel()
	w, _ := serve(t, func(http.ResponseWriter, *http.Request) error {
		return tarport.Errorf(tarport.BlobUnknown, "no")
	}, httptest.NewRequest(http.MethodHead, "/x", nil))
	if w.Code != 404 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d with %q", w.Code, w.Body)
	}
}

func TestAnErrorAfterTheFirstByteEndsTheConnection(t *testing.T) {
	t.Parallel()
	defer func() {
		if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // a panic value
			t.Errorf("recovered %v, want ErrAbortHandler", p)
		}
	}()
	serve(t, func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = w.Write([]byte("half an"))
		return errors.New("the disk broke")
	}, get("/x"))
	t.Error("the handler's error was lost")
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	w, log := serve(t, func(http.ResponseWriter, *http.Request) error { panic("no such luck") }, get("/x"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "luck") {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log, "no such luck") || !strings.Contains(log, "httpapi_test.go") {
		t.Errorf("the log lacks the panic or its stack: %s", log)
	}
}

func TestAClientThatWentAwayIsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var log bytes.Buffer
	h := Middleware(Options{Log: slog.New(slog.NewTextHandler(&log, nil)), AccessLog: true})(Handle(
		func(_ http.ResponseWriter, r *http.Request) error { return r.Context().Err() }))
	h.ServeHTTP(httptest.NewRecorder(), get("/x").WithContext(ctx))
	if got := log.String(); !strings.Contains(got, "status=499") || strings.Contains(got, "level=ERROR") {
		t.Errorf("logged %s", got)
	}
}

func TestTheLogHasNoQuery(t *testing.T) {
	t.Parallel()
	_, log := serve(t, func(_ http.ResponseWriter, r *http.Request) error {
		SetUser(r.Context(), "ada")
		return nil
	}, get("/v2/?_state=verysecret"))
	if strings.Contains(log, "verysecret") || !strings.Contains(log, "user=ada") || !strings.Contains(log, "status=200") {
		t.Errorf("logged %s", log)
	}
}

func TestObserveSeesEachRequest(t *testing.T) {
	t.Parallel()
	var got []string
	o := Options{Log: slog.New(slog.DiscardHandler), Observe: func(m string, status int, d time.Duration) {
		got = append(got, fmt.Sprint(m, " ", status, " ", d >= 0))
	}}
	h := Middleware(o)(Handle(func(w http.ResponseWriter, _ *http.Request) error { return WriteJSON(w, 201, struct{}{}) }))
	h.ServeHTTP(httptest.NewRecorder(), get("/x"))
	if diff := cmp.Diff([]string{"GET 201 true"}, got); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

func TestReadJSONIsStrict(t *testing.T) {
	t.Parallel()
	type body struct {
		Name string `json:"name"`
	}
	for _, tc := range []struct {
		in, want string
		code     tarport.Code
	}{
		{`{"name":"a"}`, "a", ""},
		{` {"name":"a"} ` + "\n", "a", ""},
		{`{"name":"a","admin":true}`, "", tarport.Invalid},
		{`{"name":"a"}{}`, "", tarport.Invalid},
		{`{"name":`, "", tarport.Invalid},
		{`[]`, "", tarport.Invalid},
		{``, "", tarport.Invalid},
		{`{"name":"` + strings.Repeat("a", MaxJSON) + `"}`, "", tarport.TooLarge},
	} {
		var v body
		w, _ := serve(t, func(w http.ResponseWriter, r *http.Request) error { return ReadJSON(w, r, &v) },
			httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(tc.in)))
		if tc.code == "" {
			if w.Code != 200 || v.Name != tc.want {
				t.Errorf("ReadJSON(%.40q) = %d, %+v", tc.in, w.Code, v)
			}
		} else if e := decode(t, w); e.Code != tc.code {
			t.Errorf("ReadJSON(%.40q): %+v, want %s", tc.in, e, tc.code)
		}
	}
}

func TestPageBounds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		query string
		n     int
		last  string
		code  tarport.Code
	}{
		{"", DefaultPage, "", ""},
		{"?n=1&last=x", 1, "x", ""},
		{"?n=1000", 1000, "", ""},
		{"?n=1001", 0, "", tarport.PaginationInvalid},
		{"?n=0", 0, "", tarport.PaginationInvalid},
		{"?n=-1", 0, "", tarport.PaginationInvalid},
		{"?n=x", 0, "", tarport.PaginationInvalid},
		{"?n=", 0, "", tarport.PaginationInvalid},
	} {
		n, last, err := Page(get("/x" + tc.query))
		if n != tc.n || last != tc.last || tarport.ErrorCode(err) != tc.code {
			t.Errorf("Page(%q) = %d, %q, %v, want %d, %q, %s", tc.query, n, last, err, tc.n, tc.last, tc.code)
		}
	}
}

// The recorder must not stand in the way of sendfile.
func TestTheRecorderPassesReadFromOn(t *testing.T) {
	t.Parallel()
	inner := &readerFrom{ResponseRecorder: httptest.NewRecorder()}
	rec := &recorder{ResponseWriter: inner, request: &request{}}
	n, err := io.Copy(struct{ io.Writer }{rec}, strings.NewReader("abc"))
	if n != 3 || err != nil || inner.called {
		t.Fatalf("the control went wrong: %d %v %v", n, err, inner.called)
	}
	if n, err := rec.ReadFrom(io.LimitReader(strings.NewReader("abcdef"), 4)); n != 4 || err != nil || !inner.called {
		t.Errorf("ReadFrom = %d, %v, passed on = %v", n, err, inner.called)
	}
	if rec.bytes != 7 || rec.status != 200 {
		t.Errorf("recorded %d bytes, status %d", rec.bytes, rec.status)
	}
}

type readerFrom struct {
	*httptest.ResponseRecorder
	called bool
}

func (r *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	r.called = true
	return io.Copy(struct{ io.Writer }{r.ResponseRecorder}, src)
}
