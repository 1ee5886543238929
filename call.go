package tarport

import (
	"context"
	"net/netip"
)

// Call is what the audit keeps of a request beside who asked and what for. The
// zero value is work of the registry's own.
type Call struct {
	RequestID string
	Address   netip.Addr // of the client, as the front believes it
}

type callKey struct{}

// WithCall returns a context that carries the call.
func WithCall(ctx context.Context, c Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallFrom returns the call; the zero value where nothing was said.
func CallFrom(ctx context.Context) Call {
	c, _ := ctx.Value(callKey{}).(Call)
	return c
}
