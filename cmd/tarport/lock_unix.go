//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// lockFile locks the file for this process until it is closed, by whatever way
// the process ends.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
