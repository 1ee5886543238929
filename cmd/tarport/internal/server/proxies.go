package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the networks whose word counts about where a request came from.
// On a Unix socket everybody's does: who may open it is a matter of its
// permissions.
type Proxies []netip.Prefix

// forwarded are the headers in which proxies tell it. Nothing behind
// Believe sees one of them from somebody else.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-Ip"}

// Believe takes what a trusted proxy says for the truth: behind it r.RemoteAddr
// is the client's and r.Host the host that it asked. From anybody else such
// headers are dropped.
func (p Proxies) Believe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto, host := "", ""
		if p.trusts(peer(r)) || onSocket(r) {
			proto, host = last(r.Header, "X-Forwarded-Proto"), last(r.Header, "X-Forwarded-Host")
			if client := p.client(r); client.IsValid() {
				r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
			}
		}
		for _, name := range forwarded {
			delete(r.Header, name)
		}
		if proto == "http" || proto == "https" {
			r.Header["X-Forwarded-Proto"] = []string{proto}
		}
		if host != "" && !strings.ContainsFunc(host, notInHost) {
			r.Host = host
		}
		next.ServeHTTP(w, r)
	})
}

// Scheme is http or https, as the client sees it. It is to be asked behind
// Believe.
func Scheme(r *http.Request) string {
	if proto := r.Header.Get("X-Forwarded-Proto"); proto != "" {
		return proto
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// Client is the address of the client. It is to be asked behind Believe.
func Client(r *http.Request) netip.Addr { return peer(r) }

func onSocket(r *http.Request) bool { return !strings.Contains(r.RemoteAddr, ":") }

// notInHost tells what no name or address with a port is made of.
func notInHost(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:[]", c)
}

func peer(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

func (p Proxies) trusts(a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a.WithZone("")) })
}

// client is the last address in X-Forwarded-For that is no trusted proxy: what
// stands before it anybody can have written.
func (p Proxies) client(r *http.Request) netip.Addr {
	var client netip.Addr
	for _, hop := range slices.Backward(strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")) {
		a, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		if client = a.Unmap(); !p.trusts(client) {
			break
		}
	}
	return client
}

// last is what the nearest proxy wrote: those further away, or the client
// itself, stand before it.
func last(h http.Header, name string) string {
	v := h[name]
	if len(v) == 0 {
		return ""
	}
	s := v[len(v)-1]
	return strings.TrimSpace(s[strings.LastIndexByte(s, ',')+1:])
}
