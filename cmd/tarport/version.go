package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
)

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return runVersion(a) },
	}
}

func runVersion(a *app) error {
	text := "tarport " + tarport.Version
	if r := server.Revision(); r != "" {
		text += " (" + r[:min(len(r), 12)] + ")"
	}
	_, err := fmt.Fprintf(a.out, "%s %s %s/%s\n", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
