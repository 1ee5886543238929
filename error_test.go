package tarport

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	for c, status := range codeStatus {
		if status < 400 || status > 599 || http.StatusText(status) == "" && c != ChecksumMismatch {
			t.Errorf("%s has the status %d", c, status)
		}
	}
	if got := Code("SOMETHING_ELSE").Status(); got != http.StatusInternalServerError {
		t.Errorf("an unknown code has the status %d", got)
	}
}

func TestErrorCodeLooksThroughWrapping(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	err := fmt.Errorf("put blob: %w", Errorf(Unavailable, "try again").Because(cause))
	if got := ErrorCode(err); got != Unavailable {
		t.Errorf("ErrorCode = %s, want %s", got, Unavailable)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if got := ErrorCode(cause); got != Internal {
		t.Errorf("ErrorCode of a foreign error = %s, want %s", got, Internal)
	}
	if got := ErrorCode(nil); got != "" {
		t.Errorf("ErrorCode(nil) = %q", got)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	s := Secret("hunter2")
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%s %v %q %#v", s, s, s, s), fmt.Sprintf("%+v", struct{ S Secret }{s}), s.LogValue().String()} {
		if strings.Contains(out, "hunter2") {
			t.Errorf("printed as %q", out)
		}
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal does not")
	}
}
