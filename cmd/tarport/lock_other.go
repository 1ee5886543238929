//go:build !unix

package main

import (
	"errors"
	"os"
)

// lockFile refuses: without flock nothing keeps two servers off one database.
func lockFile(*os.File) error {
	return errors.New("a server with SQLite needs a Unix system")
}
