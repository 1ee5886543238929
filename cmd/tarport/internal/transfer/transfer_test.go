package transfer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport/cmd/tarport/internal/progress"
	"github.com/tarport/tarport/internal/client"
	"github.com/tarport/tarport/internal/tarball"
)

func TestTriesAreFewerAndFewerAndEnd(t *testing.T) {
	t.Parallel()
	var waits []time.Duration
	var words bytes.Buffer
	m := New(Options{Display: progress.New(progress.Options{Out: &words}), Wait: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}})
	broken := client.Broken(errors.New("the line broke"))
	try := tries{m: m}
	for range maxTries {
		if err := try.again(t.Context(), broken); err != nil {
			t.Fatal(err)
		}
	}
	if err := try.again(t.Context(), broken); !errors.Is(err, broken) {
		t.Errorf("after %d tries: %v, want the error itself", maxTries, err)
	}
	for i, d := range waits {
		least := min(500*time.Millisecond<<i, 30*time.Second)
		if d < least || d > least*5/4 {
			t.Errorf("wait %d is %s, want between %s and a quarter more", i+1, d, least)
		}
	}
	if n := strings.Count(words.String(), "the line broke; trying again in "); n != maxTries {
		t.Errorf("it is said %d times that it tries again, want %d:\n%s", n, maxTries, words.String())
	}

	// What makes progress begins anew, and who says when to come is heard.
	waits = nil
	try.progressed()
	if err := try.again(t.Context(), &client.Error{Status: 503, Message: "full", Wait: 7 * time.Second}); err != nil || waits[0] != 7*time.Second {
		t.Errorf("after progress: %v, waits %v, want 7 s", err, waits)
	}
	if err := try.again(t.Context(), &client.Error{Status: 503, Message: "full", Wait: time.Hour}); err != nil || waits[1] != time.Minute {
		t.Errorf("an hour is said: %v, waits %v, want a minute", err, waits)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := try.again(ended, broken); !errors.Is(err, context.Canceled) || len(waits) != 2 {
		t.Errorf("after the end: %v, %d waits", err, len(waits))
	}
}

func TestStatesAreKeptForAWhile(t *testing.T) {
	t.Parallel()
	s := NewStates(t.TempDir() + "/made")
	want := &state{Upload: "ID", Ranges: tarball.Ranges{{Offset: 1, Length: 2}}, File: fileID{3, time.Unix(4, 5).UTC()}, Size: 6}
	k, other := key("a", "b"), key("a b")
	if k == other || k == key("ab") {
		t.Error("two transfers have one name")
	}
	if got := s.get(k); got != nil {
		t.Errorf("a state that was never kept: %+v", got)
	}
	if err := s.put(k, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.get(k)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	// One that nobody came back for goes when another is kept.
	old := time.Now().Add(-keepFor - time.Hour)
	if err := os.Chtimes(s.file(k), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.put(other, want); err != nil {
		t.Fatal(err)
	}
	if got := s.get(k); got != nil {
		t.Errorf("a state of long ago: %+v", got)
	}
	if err := os.WriteFile(s.file(other), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.get(other); got != nil {
		t.Errorf("a state that is broken: %+v", got)
	}
	s.remove(other)
	if list, err := os.ReadDir(s.dir); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	var none *States // nothing is kept then
	if err := none.put(k, want); err != nil || none.get(k) != nil {
		t.Errorf("no states: %v", err)
	}
	none.remove(k)
}
