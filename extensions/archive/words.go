package archive

import (
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// words expands variables in the words of changes: $A, ${A}, ${A:-b} and the
// rest that a Dockerfile has. The variables are the config's Env.
//
// What it costs is bounded by an estimate that is made before each word is
// expanded, since a few bytes can stand for any number: `ENV A=$A$A` doubles,
// and ${A//?/$B} multiplies.
type words struct {
	lex     *shell.Lex
	values  map[string]string
	at      map[string]int // where in Env a name stands first
	longest int            // of the values
	left    int            // that may still be spent
}

// maxExpansion is how many bytes, and steps of matching patterns, the words of
// one request may take.
const maxExpansion = 16 << 20

func newWords(escape rune, env []string) *words {
	w := &words{lex: shell.NewLex(escape), values: map[string]string{}, at: map[string]int{}, left: maxExpansion}
	for i, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := w.at[name]; !ok {
			w.at[name] = i
		}
		w.values[name] = value
		w.longest = max(w.longest, len(value))
	}
	return w
}

// Get and Keys make it the shell.EnvGetter of its lexer.
func (w *words) Get(name string) (string, bool) {
	v, ok := w.values[name]
	return v, ok
}

// Keys is not called by what is used of the lexer.
func (w *words) Keys() []string { return nil }

// set sets a variable in env, where it stands or at the end.
func (w *words) set(env []string, name, value string) []string {
	w.values[name] = value
	w.longest = max(w.longest, len(value))
	if i, ok := w.at[name]; ok {
		env[i] = name + "=" + value
		return env
	}
	w.at[name] = len(env)
	return append(env, name+"="+value)
}

// expand returns a word with its variables replaced and its quotes removed.
func (w *words) expand(word string) (string, error) {
	if err := w.spend(word); err != nil {
		return "", err
	}
	out, _, err := w.lex.ProcessWord(word, w)
	return out, err
}

// split does the same and splits what comes of it where there is space.
func (w *words) split(word string) ([]string, error) {
	if err := w.spend(word); err != nil {
		return nil, err
	}
	return w.lex.ProcessWords(word, w)
}

// patternUse finds the substitutions that match a pattern: ${A#p}, ${A%p}, ${A/p/r}.
// It may find too many, but misses none.
var patternUse = regexp.MustCompile(`\$\{(?:[\pL\p{Nd}_]*|[@*#?$!-])[#%/]`)

// spend takes what a word can cost at most: each variable in it is as long as
// the longest; and each pattern is matched against one, and may put what is in
// it in the place of every byte.
func (w *words) spend(word string) error {
	cost := len(word) + strings.Count(word, "$")*w.longest
	for range patternUse.FindAllStringIndex(word, -1) {
		if cost > w.left {
			break
		}
		cost *= w.longest + 2
	}
	if w.left -= cost; w.left < 0 {
		return tooLarge("the variables in the changes expand to too much")
	}
	return nil
}
