package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
)

// width is how many columns the terminal has that out is; 0 where it is none.
func width(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// showTable prints a list, as a table that fits the terminal or as a JSON
// array.
func showTable[T any](out io.Writer, format string, items []T, columns []table.Column, row func(T) []string) error {
	if format == "json" {
		return writeJSON(out, items)
	}
	t := table.New(columns...)
	for _, item := range items {
		t.Row(row(item)...)
	}
	return t.Write(out, width(out))
}

// when is a time in a table: how long ago on a terminal, else the time itself.
func when(out io.Writer, t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	if width(out) == 0 {
		return stamp(t)
	}
	return ago(time.Since(*t))
}

// ago is a time span in the largest unit of which there are two, as docker says
// it.
func ago(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"years", 365 * day}, {"months", 30 * day}, {"weeks", 7 * day}, {"days", day}, {"hours", time.Hour}, {"minutes", time.Minute}} {
		if n := int64(d / u.d); n >= 2 {
			return strconv.FormatInt(n, 10) + " " + u.name + " ago"
		}
	}
	if d < -time.Minute {
		return "in the future"
	}
	return "just now"
}

// shortDigest is enough of a digest to tell it from others.
func shortDigest(digest string) string {
	return longDigest.ReplaceAllString(digest, "$1")
}

// platformText is a platform in one word.
func platformText(parts ...string) string {
	return strings.TrimRight(strings.Join(parts, "/"), "/")
}

// baseText is what an image stands on: debian 12 bookworm slim (glibc).
func baseText(id, version, name, libc string, slim bool) string {
	words := []string{id}
	if version != "" {
		words = append(words, version)
	}
	if name != "" && name != version {
		words = append(words, name)
	}
	if slim {
		words = append(words, "slim")
	}
	if libc != "" && libc != "none" {
		words = append(words, "("+libc+")")
	}
	return strings.Join(words, " ")
}
