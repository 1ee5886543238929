// Command tarport is the registry and its tools.
//
// It is where everything is joined: flags and files become options (internal/
// config), options become a running server (serve.go, by hand, top to bottom),
// and every command has a file of its own. Nothing else imports it.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), &app{out: os.Stdout, err: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}
