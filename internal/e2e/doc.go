// Package e2e tests the built binary from outside, as its users meet it: a real
// dockerd, skopeo, crane and curl, the OCI conformance suite, a strict client in
// process, stories in testdata, and a server that is killed in the middle of
// its work.
//
// It holds tests only. What a test needs and the machine lacks (dockerd, skopeo,
// PostgreSQL …) skips that test, except where the environment says CI=true:
// there it fails. `go test -short` leaves the whole package out.
//
//	TARPORT_E2E_BINARY=/path   test this binary instead of building cmd/tarport
//	GOCOVERDIR=/path           build it with -cover; the counters go there
package e2e
