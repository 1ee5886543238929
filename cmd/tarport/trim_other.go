//go:build !linux

package main

// trimBinary is for Linux only.
func trimBinary() {}
