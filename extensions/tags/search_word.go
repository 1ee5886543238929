package tags

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/metadata"
)

var searchFields = []metadata.SearchField{metadata.SearchName, metadata.SearchTag, metadata.SearchLabel, metadata.SearchEnv, metadata.SearchBase, metadata.SearchPackage}

// parseSearch reads what is looked for: words with spaces between, each of which
// may have a field before it. Quotes keep spaces together: label:"title=My app".
func parseSearch(q string) ([]metadata.SearchWord, error) {
	if len(q) > maxSearch || !utf8.ValidString(q) || strings.ContainsFunc(q, unicode.IsControl) {
		return nil, tarport.Errorf(tarport.Invalid, "q must be text of at most %d bytes", maxSearch)
	}
	texts, err := splitWords(q)
	if err != nil {
		return nil, err
	}
	switch {
	case len(texts) == 0:
		return nil, tarport.Errorf(tarport.Invalid, "q must say what to look for: words, or name:, tag:, label:, env:, base: or package: with one")
	case len(texts) > maxWords:
		return nil, tarport.Errorf(tarport.Invalid, "q has %d words, at most %d are allowed", len(texts), maxWords)
	}
	words := make([]metadata.SearchWord, len(texts))
	for i, text := range texts {
		if words[i], err = parseWord(text); err != nil {
			return nil, err
		}
	}
	return words, nil
}

func splitWords(q string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted := false
	for _, r := range q + " " {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ' ' && !quoted:
			if word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	if quoted {
		return nil, tarport.Errorf(tarport.Invalid, `q has a " without another one`)
	}
	return words, nil
}

func parseWord(text string) (w metadata.SearchWord, err error) {
	field, rest, qualified := strings.Cut(strings.ToLower(text), ":")
	if !qualified {
		return metadata.SearchWord{Text: field}, checkWord(text, field)
	}
	w = metadata.SearchWord{Field: metadata.SearchField(field), Text: rest}
	if !slices.Contains(searchFields, w.Field) {
		return w, tarport.Errorf(tarport.Invalid, "%q does not begin with a field: use name:, tag:, label:, env:, base: or package:, as in name:app tag:1.0", text)
	}
	if w.Field == metadata.SearchLabel {
		if key, value, ok := strings.Cut(rest, "="); ok {
			w.Text, w.Value = key, &value
		}
	}
	if w.Field == metadata.SearchBase && !filterWord.MatchString(rest) {
		return w, tarport.Errorf(tarport.Invalid, "base %q is none: use alpine or debian:12", rest)
	}
	return w, checkWord(text, w.Text)
}

func checkWord(text, what string) error {
	wild := strings.Count(text, "*") + strings.Count(text, "?")
	if what == "" || wild > maxWild {
		return tarport.Errorf(tarport.Invalid, "%q is no word to look for: it is empty, or has more than %d of * and ?", text, maxWild)
	}
	return nil
}

// matchAll tells what of a row each word fits; ok is false where one fits
// nothing.
func matchAll(words []metadata.SearchWord, row *metadata.SearchRow) (matches []Match, ok bool) {
	s := subject{row: row}
	for i := range row.Platforms {
		s.configs = append(s.configs, storage.ParseImageFacts(row.Platforms[i].Image.Config))
	}
	matches = []Match{}
	for i := range words {
		found := s.match(&words[i])
		if len(found) == 0 {
			return nil, false
		}
		for _, m := range found {
			m.Value = cut(m.Value)
			if len(matches) < maxMatches && !slices.Contains(matches, m) {
				matches = append(matches, m)
			}
		}
	}
	return matches, true
}

// cut bounds a value, between two letters.
func cut(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return strings.ToValidUTF8(s[:maxValue], "") + "…"
}

// subject is what words are compared with.
type subject struct {
	row     *metadata.SearchRow
	configs []storage.ImageFacts
}

// match tells what a word fits, by each field that it is meant for.
func (s *subject) match(w *metadata.SearchWord) (found []Match) {
	for _, f := range searchFields {
		if w.Field != f && w.Field != metadata.SearchAny {
			continue
		}
		for v := range s.values(f, w) {
			found = append(found, Match{Field: string(f), Value: v})
		}
	}
	slices.SortFunc(found, func(a, b Match) int {
		return strings.Compare(a.Value, b.Value)
	})
	slices.SortStableFunc(found, func(a, b Match) int {
		return slices.Index(searchFields, metadata.SearchField(a.Field)) - slices.Index(searchFields, metadata.SearchField(b.Field))
	})
	return found
}

// values are those of a field that a word fits. A word without a field may be
// a part of a name or a label.
func (s *subject) values(f metadata.SearchField, w *metadata.SearchWord) map[string]bool {
	found := map[string]bool{}
	add := func(whole bool, text, v string) {
		if like(w.Text, text, whole) {
			found[v] = true
		}
	}
	switch f {
	case metadata.SearchName:
		add(false, s.row.Repository, s.row.Repository)
	case metadata.SearchTag:
		add(false, s.row.Name, s.row.Name)
	case metadata.SearchPackage:
		for name := range strings.FieldsSeq(s.row.Packages) {
			add(true, name, name)
		}
	case metadata.SearchBase:
		for i := range s.row.Platforms {
			if b := &s.row.Platforms[i].Image.Base; onBase(w, b) {
				found[strings.TrimRight(b.ID+":"+b.Version, ":")] = true
			}
		}
	case metadata.SearchEnv:
		for i := range s.configs {
			for _, e := range s.configs[i].Env {
				name, _, _ := strings.Cut(e, "=")
				add(w.Field != metadata.SearchAny, name, name)
			}
		}
	case metadata.SearchLabel:
		for i := range s.configs {
			for key, v := range s.configs[i].Labels {
				if onLabel(w, key, v) {
					found[key+"="+v] = true
				}
			}
		}
	}
	return found
}

// onLabel tells whether a label fits: a word without a field may be a part of
// its key or value.
func onLabel(w *metadata.SearchWord, key, value string) bool {
	if w.Field == metadata.SearchAny {
		return like(w.Text, key, false) || like(w.Text, value, false)
	}
	return like(w.Text, key, true) && (w.Value == nil || like(*w.Value, value, true))
}

// onBase tells whether an image stands on what the word says; where the word
// has a field, the database has compared it exactly.
func onBase(w *metadata.SearchWord, b *metadata.Base) bool {
	if b.ID == "" {
		return false
	}
	if w.Field == metadata.SearchAny {
		return w.Text == b.ID || w.Text == strings.ToLower(b.Name)
	}
	id, v, _ := strings.Cut(w.Text, ":")
	return id == b.ID && (v == "" || v == b.Version || strings.HasPrefix(b.Version, v+".") || v == strings.ToLower(b.Name))
}

// like compares as LIKE does after the query: glob is in lower case. What is no
// glob may be a part of the text, unless whole.
func like(glob, text string, whole bool) bool {
	text = strings.ToLower(text)
	if !strings.ContainsAny(glob, "*?") {
		return glob == text || !whole && strings.Contains(text, glob)
	}
	return globMatches([]rune(glob), []rune(text))
}

// globMatches goes back to the last * only, so it takes no longer than the
// product of both lengths.
func globMatches(glob, text []rune) bool {
	g, star, mark := 0, -1, 0
	for i := 0; i < len(text); {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, mark = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == text[i]):
			g++
			i++
		case star >= 0:
			mark++
			g, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(string(glob[g:]), "*") == ""
}
