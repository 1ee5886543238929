package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/tarport/tarport"
)

// asker asks for what is not to be an argument, which others on the machine
// can see: on the terminal, or line by line from standard input.
type asker struct {
	a     *app
	in    io.Reader
	lines *bufio.Reader // with --password-stdin
}

func newAsker(a *app, in io.Reader, fromStdin bool) *asker {
	k := &asker{a: a, in: in}
	if fromStdin {
		k.lines = bufio.NewReader(io.LimitReader(in, 8<<10))
	}
	return k
}

// text asks for something that may be seen.
func (k *asker) text(prompt string) (string, error) {
	if _, ok := k.terminal(); !ok {
		return "", usageError{fmt.Errorf("there is no terminal to ask for the %s", prompt)}
	}
	_, _ = fmt.Fprintf(k.a.err, "%s: ", prompt)
	line, err := bufio.NewReader(k.in).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", prompt, err)
	}
	return strings.TrimSpace(line), nil
}

// password asks for a password.
func (k *asker) password(ctx context.Context, prompt string) (tarport.Secret, error) {
	if k.lines != nil {
		line, err := k.lines.ReadString('\n')
		if err != nil && (!errors.Is(err, io.EOF) || line == "") {
			return "", fmt.Errorf("read the %s from standard input: %w", prompt, err)
		}
		return nonEmpty(prompt, strings.TrimRight(line, "\r\n"))
	}
	fd, ok := k.terminal()
	if !ok {
		return "", usageError{fmt.Errorf("there is no terminal to ask for the %s: use --password-stdin", prompt)}
	}
	_, _ = fmt.Fprintf(k.a.err, "%s: ", prompt)
	text, err := readHidden(ctx, fd)
	_, _ = fmt.Fprintln(k.a.err)
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", prompt, err)
	}
	return nonEmpty(prompt, text)
}

// newPassword asks for one that is to be, on a terminal twice.
func (k *asker) newPassword(ctx context.Context, prompt string) (tarport.Secret, error) {
	first, err := k.password(ctx, prompt)
	if err != nil || k.lines != nil {
		return first, err
	}
	second, err := k.password(ctx, prompt+" again")
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

func nonEmpty(prompt, text string) (tarport.Secret, error) {
	if text == "" {
		return "", fmt.Errorf("the %s is empty", prompt)
	}
	return tarport.Secret(text), nil
}

func (k *asker) terminal() (fd int, ok bool) {
	f, ok := k.in.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// readHidden reads a line that the terminal does not show. The terminal is put
// back as it was when somebody gives up, too.
func readHidden(ctx context.Context, fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1)
	// A read of a terminal cannot be ended: after an interrupt it is left
	// behind, and the process ends.
	go func() {
		text, err := term.ReadPassword(fd)
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		return string(r.text), r.err
	case <-ctx.Done():
		return "", errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
