package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForwardedHeadersCountFromTrustedProxiesOnly(t *testing.T) {
	t.Parallel()
	trusted := Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	type seen struct{ Client, Host, Scheme string }
	tests := []struct {
		name, remote string
		header       http.Header
		want         seen
	}{
		{"no proxy", "192.0.2.1:9", nil, seen{"192.0.2.1", "example.com", "http"}},
		{
			"a stranger who says it", "192.0.2.1:9",
			http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {"host=evil"}},
			seen{"192.0.2.1", "example.com", "http"},
		},
		{
			"a proxy", "10.1.2.3:9",
			http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Forwarded-Host": {"registry.example.com"}, "X-Forwarded-Proto": {"https"}},
			seen{"198.51.100.7", "registry.example.com", "https"},
		},
		{
			"a proxy behind a proxy, and a client that lies", "10.1.2.3:9",
			http.Header{"X-Forwarded-For": {"127.0.0.1, 198.51.100.7", "10.9.9.9"}, "X-Forwarded-Proto": {"gopher, https"}},
			seen{"198.51.100.7", "example.com", "https"},
		},
		{"nonsense", "10.1.2.3:9", http.Header{"X-Forwarded-For": {"unknown"}, "X-Forwarded-Proto": {"gopher"}}, seen{"10.1.2.3", "example.com", "http"}},
		{"nonsense behind an address", "10.1.2.3:9", http.Header{"X-Forwarded-For": {"unknown, 198.51.100.7"}}, seen{"198.51.100.7", "example.com", "http"}},
		{"IPv6", "[fd00::1]:9", http.Header{"X-Forwarded-For": {"2001:db8::5"}}, seen{"2001:db8::5", "example.com", "http"}},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:9", http.Header{"X-Forwarded-For": {"::ffff:198.51.100.7"}}, seen{"198.51.100.7", "example.com", "http"}},
		{"no host", "10.1.2.3:9", http.Header{"X-Forwarded-Host": {`evil" x="`}}, seen{"10.1.2.3", "example.com", "http"}},
		{"a socket", "@", http.Header{"X-Forwarded-For": {"198.51.100.7"}}, seen{"198.51.100.7", "example.com", "http"}},
		{"a socket without a word", "@", nil, seen{"invalid IP", "example.com", "http"}},
	}
	for _, tt := range tests {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = tt.remote
		r.Header = http.Header{}
		for k, v := range tt.header {
			r.Header[k] = v
		}
		var got seen
		trusted.Believe(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = seen{Client(r).String(), r.Host, Scheme(r)}
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host"} {
				if v := r.Header.Get(name); v != "" {
					t.Errorf("%s: %s: %s comes through", tt.name, name, v)
				}
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: differs (-want +got):\n%s", tt.name, diff)
		}
	}
}
