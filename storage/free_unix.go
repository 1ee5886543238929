//go:build linux || darwin

package storage

import "golang.org/x/sys/unix"

// freeBytes is how many bytes the file system of a path has for us; ok is false
// where that is not known.
func freeBytes(path string) (n int64, ok bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, false, err
	}
	return int64(st.Bavail) * int64(st.Bsize), true, nil //nolint:gosec // no disk has 2^63 bytes
}
