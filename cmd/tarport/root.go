package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tarport/tarport/cmd/tarport/internal/config"
)

// app is what the commands have of the process: data goes to out, words to
// err. In may be nil, and is standard input then.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	// exitInterrupted is the shell's for an end by SIGINT.
	exitInterrupted = 130
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run runs the command line, and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	root := newRootCmd(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(a.err, "tarport: %s\n", explain(err))
	if _, ok := errors.AsType[usageError](err); ok {
		_, _ = fmt.Fprintf(a.err, "Usage: %s\n\"%s --help\" tells more.\n", usageLine(cmd), cmd.CommandPath())
		return exitUsage
	}
	if _, ok := errors.AsType[interruptedError](err); ok {
		return exitInterrupted
	}
	return exitFailure
}

// usageLine is how the command is written, in a line: who has mistyped a flag is
// not to look for the error above a page of them.
func usageLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

func newRootCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "tarport",
		Short:         "A private container registry that takes tarballs",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	if a.in != nil {
		cmd.SetIn(a.in)
	}
	cmd.SetOut(a.out)
	cmd.SetErr(a.err)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(
		newServeCmd(a), newConfigCmd(a), newHealthcheckCmd(a), newQuotaCmd(a), newVersionCmd(a),
		newLoginCmd(a), newLogoutCmd(a), newNamespaceCmd(a), newRepositoryCmd(a), newUserCmd(a), newTokenCmd(a), newRobotCmd(a), newAuditCmd(a),
		newLoadCmd(a), newImportCmd(a), newCommitCmd(a), newSaveCmd(a), newExportCmd(a),
		newListCmd(a), newSearchCmd(a), newTagsCmd(a), newVariantsCmd(a), newInspectCmd(a), newHistoryCmd(a), newDiffCmd(a), newFilesCmd(a), newCatCmd(a),
		newTagCmd(a), newRemoveCmd(a),
	)
	return cmd
}

// usage makes the errors of a check of arguments errors of usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// loadConfig reads the configuration file that the argument names, or else the
// environment, or else none: the defaults.
func (a *app) loadConfig(args []string) (*config.Config, error) {
	return config.Load(configFile(args, a.environ), a.environ)
}

func configFile(args, environ []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return config.Getenv(environ, config.EnvFile)
}

// configUsage is the end of the help of every command that reads it.
const configUsage = `

The configuration is the file that is named, or else the one that the variable
TARPORT_CONFIG names, or else the defaults. REGISTRY_* and TARPORT_* override
its keys.`
