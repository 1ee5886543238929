package metadata

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData makes the bytes of a file durable, and its size; times may wait.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
