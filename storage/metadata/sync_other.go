//go:build !linux

package metadata

import "os"

func syncData(f *os.File) error { return f.Sync() }
