package images

import (
	"regexp"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerfile is an image's history in the words of a Dockerfile. Nobody can
// build from it: what was copied is named by a checksum, and what the base image
// did stands in it as well.
func dockerfile(history []ocispec.History) string {
	var b strings.Builder
	for _, h := range history {
		b.WriteString(instruction(h))
		b.WriteByte('\n')
	}
	return b.String()
}

// What builders put around an instruction: the classic one of docker
// (/bin/sh -c #(nop)  CMD …), BuildKit ("buildkit.dockerfile.v0"), and the
// values of build arguments in front of a command (|1 A=b /bin/sh -c …).
var (
	nopPrefix  = regexp.MustCompile(`^(?:\S+ )+#\(nop\) +`)
	argsPrefix = regexp.MustCompile(`^\|\d+ `)
	keyword    = regexp.MustCompile(`^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR) `)
	content    = regexp.MustCompile(`(file|dir|multi):([0-9a-f]{12})[0-9a-f]{52} in (\S.*|$)`)
)

const buildkitComment = "buildkit.dockerfile.v0"

// instruction is one item of a history, in one instruction or comment.
func instruction(h ocispec.History) string {
	by := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(h.CreatedBy), "# buildkit"))
	switch bare := nopPrefix.ReplaceAllString(by, ""); {
	case by == "":
		return comment(h.Comment, "nothing is known of this layer")
	case bare != by:
		return normal(strings.TrimSpace(bare))
	case strings.HasPrefix(by, "RUN "):
		return run(strings.TrimPrefix(by, "RUN "))
	case keyword.MatchString(by):
		return normal(by)
	case h.Comment != "" && h.Comment != buildkitComment:
		return comment(h.Comment, "") + "\n" + comment("committed from a container that ran: "+by, "")
	case argsPrefix.MatchString(by), isShell(by):
		return run(by)
	}
	return comment(by, "")
}

func comment(text, otherwise string) string {
	if text == "" {
		text = otherwise
	}
	return "# " + strings.ReplaceAll(text, "\n", "\n# ")
}

func isShell(s string) bool {
	return strings.HasPrefix(s, "/bin/sh -c ") || strings.HasPrefix(s, "/bin/bash -c ") || strings.HasPrefix(s, "/bin/ash -c ")
}

// run takes the shell and the values of build arguments from a command.
func run(s string) string {
	if argsPrefix.MatchString(s) {
		if i := strings.Index(s, " /bin/"); i > 0 && isShell(s[i+1:]) {
			s = s[i+1:]
		}
	}
	if isShell(s) {
		_, s, _ = strings.Cut(s, " -c ")
	}
	return "RUN " + broken(strings.TrimSpace(s))
}

// maxLine is how long a command may be that stays in one line.
const maxLine = 80

// broken breaks a long command before each && that stands in no quotes.
func broken(s string) string {
	if len(s) <= maxLine || strings.Contains(s, "\n") {
		return s
	}
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case strings.HasPrefix(s[i:], " && "):
			b.WriteString(" \\\n   ")
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// normal writes an instruction as people write it, where the builder printed
// its own data.
func normal(s string) string {
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "ADD", "COPY":
		if at := content.FindStringIndex(rest); at != nil && at[0] > 0 && rest[at[0]-1] != ' ' {
			rest = rest[:at[0]] + " " + rest[at[0]:] // --chown=1:1file:… of docker 20.10
		}
		rest = content.ReplaceAllString(rest, "$1:$2 $3")
	case "CMD", "ENTRYPOINT", "SHELL":
		if list, end, ok := quotedList(rest); ok && end == "" {
			rest = jsonList(list)
		}
	case "EXPOSE":
		if m, ok := strings.CutPrefix(rest, "map"); ok { // BuildKit before 0.8
			rest = strings.ReplaceAll(m, ":{}", "")
		}
		rest = strings.Trim(rest, "[]")
	case "VOLUME":
		rest = strings.Trim(rest, "[]")
	case "HEALTHCHECK":
		rest = healthcheck(rest)
	}
	return strings.TrimSpace(word + " " + rest)
}

// quotedList reads a list as Go prints it, ["a" "b"], or as JSON does.
func quotedList(s string) (list []string, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, "[")
	for ok {
		s = strings.TrimLeft(s, " ,")
		if rest, ended := strings.CutPrefix(s, "]"); ended {
			return list, rest, true
		}
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			break
		}
		v, err := strconv.Unquote(q)
		if err != nil {
			break
		}
		list, s = append(list, v), s[len(q):]
	}
	return nil, "", false
}

func jsonList(list []string) string {
	quoted := make([]string, len(list))
	for i, v := range list {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// healthcheck reads &{["CMD" "x"] "5s" "3s" "1m0s" "0s" '\x03'}: the test, the
// interval, the timeout, the start period, from docker 25 on the start
// interval, and the retries.
func healthcheck(s string) string {
	in, ok := strings.CutPrefix(s, "&{")
	test, rest, isList := quotedList(in)
	if !ok || !isList || len(test) == 0 {
		return s
	}
	if test[0] == "NONE" {
		return "NONE"
	}
	fields := strings.Fields(strings.TrimSuffix(rest, "}"))
	if len(fields) < 4 {
		return s
	}
	var options []string
	for i, name := range []string{"interval", "timeout", "start-period", "start-interval"} {
		if i < len(fields)-1 {
			if v := strings.Trim(fields[i], `"`); v != "0s" {
				options = append(options, "--"+name+"="+v)
			}
		}
	}
	if v, err := strconv.Unquote(fields[len(fields)-1]); err == nil && v != "" && v != "\x00" {
		options = append(options, "--retries="+strconv.Itoa(int([]rune(v)[0])))
	}
	command := "CMD " + jsonList(test[1:])
	if test[0] == "CMD-SHELL" && len(test) == 2 {
		command = "CMD " + test[1]
	}
	return strings.Join(append(options, command), " ")
}
