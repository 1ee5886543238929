package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// trimBinary takes the pages of the binary out of the process that the start
// has read and hardly anything else does: two thirds of it, more than a load
// needs. They stay in the page cache, and what is needed comes back by itself.
//
// Only code and constants of a binary at a fixed address are meant: nobody has
// written to those, so nothing is lost. Where something is not as expected it
// does nothing.
func trimBinary() {
	if !fixedAddress() {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	binary, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) { // proc(5): address perms offset dev inode pathname
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != binary || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(begin), uintptr(end-begin), syscall.MADV_DONTNEED)
		}
	}
}

// fixedAddress tells whether the binary was built as one: others have constants
// that the loader has written to.
func fixedAddress() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-buildmode" {
			return s.Value == "exe"
		}
	}
	return false
}
