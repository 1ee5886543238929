package tags

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// everything is an Auth that allows everything.
type everything struct{}

func (everything) Authorize(context.Context, tarport.Principal, tarport.Action, string) error {
	return nil
}

func (everything) SetHeaders(http.ResponseWriter, *http.Request, error, ...tarport.Grant) {}

// TestSearchesOfStrangersLeaveAPlace: with one under way others of strangers wait,
// as long as a search may take and no longer.
func TestSearchesOfStrangersLeaveAPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Service{auth: everything{}, searches: newSearches()}
		stranger, err := s.searches.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer stranger()
		began := time.Now()
		_, err = s.Search(t.Context(), metadata.SearchQuery{})
		if tarport.ErrorCode(err) != tarport.Unavailable || time.Since(began) != searchTime {
			t.Errorf("a stranger's search = %v after %s, want UNAVAILABLE after %s", err, time.Since(began), searchTime)
		}
		user, err := s.searches.Take(tarport.WithPrincipal(t.Context(), tarport.Principal{UserID: 1}))
		if err != nil {
			t.Fatalf("a user's search: %v", err)
		}
		user()
	})
}
