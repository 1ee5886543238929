// Package tarport is the vocabulary that the packages of the registry share:
// repository names and references, errors with a code, who asks (Principal),
// what they want to do (Action), and the one question that decides it (Access).
//
// It holds no behaviour of the registry itself and imports nothing of it:
//
//	tarport  <-  storage/metadata, internal/httpapi  <-  storage, auth  <-  registry, extensions/*  <-  cmd/tarport
//
// Names are the field's own: manifest, descriptor, digest, reference,
// repository, namespace, tag, referrer, layer, diffID, config, platform.
package tarport

// Version is what `tarport version` and the User-Agent tell. The release build
// sets it by -ldflags "-X github.com/tarport/tarport.Version=…".
var Version = "dev"
