package storage

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback lets the kernel start writing a part of a file. It is a hint:
// the sync that comes later tells what went wrong.
func beginWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
