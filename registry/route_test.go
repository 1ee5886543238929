package registry

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestRoutesHasEveryRoute holds the list against the source: a route that is
// not in it would be one that no test of the rights asks for.
func TestRoutesHasEveryRoute(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("route.go")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(routes), strings.Count(string(source), "= &route{"); got != want {
		t.Errorf("routes has %d routes, want all %d", got, want)
	}
	fill := strings.NewReplacer("{name}", "team/app", "{reference}", "v1", "{digest}", "sha256:"+strings.Repeat("0", 64), "{id}", "x")
	for _, rt := range Routes() {
		rq, err := parse(httptest.NewRequest(rt.Method, fill.Replace(rt.Path), nil))
		if err != nil {
			t.Errorf("%s %s is parsed with %v", rt.Method, rt.Path, err)
			continue
		}
		if _, ok := rq.route.methods[rt.Method]; !ok || "/v2"+rq.route.path != rt.Path {
			t.Errorf("%s %s is parsed as the route %s", rt.Method, rt.Path, rq.route.path)
		}
	}
}
