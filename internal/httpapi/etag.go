package httpapi

import (
	"net/http"
	"strings"
)

// NoneMatch tells whether the client has what the strong ETag stands for, by its
// If-None-Match, so that 304 is the answer (RFC 9110, 13.1.2).
func NoneMatch(r *http.Request, etag string) bool {
	for _, list := range r.Header.Values("If-None-Match") {
		for one := range strings.SplitSeq(list, ",") { // ours have no comma in them
			if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == etag {
				return true
			}
		}
	}
	return false
}
