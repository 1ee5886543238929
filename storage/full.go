package storage

import (
	"errors"
	"syscall"

	"github.com/tarport/tarport"
)

// storageFull makes an error that says so of one that means that the disk, or
// the quota of the file system, is full.
func storageFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return tarport.Errorf(tarport.InsufficientStorage, "the registry's disk is full").Because(err)
	}
	return err
}
