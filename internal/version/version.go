// Package version reads what people put into the names of tags: a version, and
// words for the variant. It knows nothing of registries; what it answers
// depends on the name alone.
//
//	17.0.2-slim-bookworm   version 17.0.2, variants slim bookworm
//	v1.4.0-rc.1-alpine3.19 version 1.4.0-rc.1, variant alpine3.19
//	8u392-jdk, 17.0.2_8    versions 8.0.392 and 17.0.2+8
//	20240115, 2024-01-15   versions 20240115 and 2024.01.15, which are the same
//	latest, bookworm-slim  no version; variants none, and bookworm slim
//	3f2a9c1                no version: a commit
//
// A Key sorts as bytes the way the names should stand in a list, so that a
// database can sort, page and select ranges by an index.
package version

import (
	"regexp"
	"slices"
	"strings"
)

// Tag is what the name of a tag says.
type Tag struct {
	// Version is the version as numbers with dots, as many as the name has,
	// with -pre.release and +build as in Semantic Versioning; "" where the
	// name has none. It has a hyphen only if it is a pre-release.
	Version string
	// Variants are the other words, in lower case and in their order. Of a
	// name without a version only words that are known to be variants count.
	Variants []string
	// Key orders names: those without a version come first, in natural order;
	// versions in the order of Semantic Versioning, and those that are equal
	// there by how many numbers they have, their build and their variants.
	// It is printable ASCII, to be compared byte by byte; two names may share
	// one.
	Key string

	number number
}

// Prerelease tells of a version that comes before a release.
func (t *Tag) Prerelease() bool { return len(t.number.pre) > 0 }

// Precision is how many numbers the version has; 0 without one. A date counts
// as three.
func (t *Tag) Precision() int { return len(t.number.nums) }

// Words are the words to search by: each variant, and for one with a number at
// its end (alpine3.19) the word without it (alpine).
func (t *Tag) Words() []string {
	words := slices.Clone(t.Variants)
	for _, v := range t.Variants {
		if stem := stemOf(v); stem != "" && !slices.Contains(words, stem) {
			words = append(words, stem)
		}
	}
	return words
}

// number is a version that was read.
type number struct {
	nums  []string // 1 to 4, decimal, as they are written
	date  bool     // nums are a date that was written in one
	pre   []string // identifiers
	build []string
}

// Parse reads the name of a tag. It takes any text.
func Parse(name string) Tag {
	words := fields(name)
	before, n, after, ok := split(name, words)
	if !ok {
		t := Tag{Variants: knownTail(words)}
		t.Key = string(naturalKey([]byte{className}, name))
		return t
	}
	t := Tag{number: n, Variants: slices.Concat(before, after)}
	t.Version = n.String()
	t.Key = n.key(t.Variants)
	return t
}

// String is the version in the words of Semantic Versioning.
func (n *number) String() string {
	s := strings.Join(n.nums, ".")
	if n.date {
		s = strings.Join(n.nums, "")
	}
	if len(n.pre) > 0 {
		s += "-" + strings.Join(n.pre, ".")
	}
	if len(n.build) > 0 {
		s += "+" + strings.Join(n.build, ".")
	}
	return s
}

var (
	// A version at the beginning of a word: up to four numbers.
	numbers = regexp.MustCompile(`^[vV]?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?`)
	// Java's updates: 8u392.
	update = regexp.MustCompile(`^(\d{1,3})u(\d{1,6})`)
	// A date at the beginning of a name, with what MinIO and others put around it.
	date = regexp.MustCompile(`^(?:[vV]|RELEASE\.)?((?:19|20)\d\d)([-._]?)(0[1-9]|1[0-2])([-._]?)(0[1-9]|[12]\d|3[01])(?:[T_-]?((?:[01]\d|2[0-3])[-:]?[0-5]\d(?:[-:]?[0-5]\d)?Z?))?`)

	// Words that make a pre-release, right behind the numbers or a hyphen.
	prerelease = regexp.MustCompile(`(?i)^(alpha|beta|rc|pre|prerelease|preview|dev|snapshot|ea|nightly|canary|next|milestone|insiders|experimental)((?:[.]?\d+)?)((?:\.[0-9a-z]+)*)$`)
	// Of these some only right behind them: 3.13.0b2 is one, 17-b08 is a build.
	gluedPre  = regexp.MustCompile(`(?i)^(a|b|c|m|cr)(\d+)((?:\.[0-9a-z]+)*)$`)
	milestone = regexp.MustCompile(`(?i)^(m|cr)(\d+)((?:\.[0-9a-z]+)*)$`)
	// Those of them that count behind other words too.
	latePre = regexp.MustCompile(`(?i)^(?:rc[.]?\d*|(?:alpha|beta)[.]?\d+|snapshot)$`)

	// Words that tell builds apart, or commits.
	revision = regexp.MustCompile(`^(?:\d{1,18}(?:\.\d{1,18})*|[rb]\d{1,9}|build\.?\d{1,9}|g[0-9a-f]{7,40})$`)
	hash     = regexp.MustCompile(`^(?:sha-?|git-?|commit-?)?[0-9a-f]{7,64}$`)
	signed   = regexp.MustCompile(`^sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.[a-z]+)?$`)
)

// isCommit tells of what is the abbreviated name of a commit and no number: hex
// of at least seven digits with a letter and a digit in it.
func isCommit(s string) bool {
	if signed.MatchString(s) {
		return true
	}
	s = strings.ToLower(s)
	if !hash.MatchString(s) {
		return false
	}
	if strings.HasPrefix(s, "sha") || strings.HasPrefix(s, "git") || strings.HasPrefix(s, "commit") {
		return true
	}
	return strings.ContainsAny(s, "abcdef") && strings.ContainsAny(s, "0123456789")
}

// split finds the version in a name: the words before it, it, and the words
// after it.
func split(name string, words []string) (before []string, n number, after []string, ok bool) {
	if isCommit(name) {
		return nil, n, nil, false
	}
	if n, rest, ok := parseDate(name); ok {
		n, after = n.follow(rest)
		return nil, n, after, true
	}
	for i, w := range words {
		if isCommit(w) {
			return nil, n, nil, false
		}
		low := strings.ToLower(w)
		if lang := stemOf(low); i == 0 && languages[lang] { // jdk17-alpine
			before, w = []string{lang}, w[len(lang):]
		}
		if n, rest, ok := parseNumber(strings.Join(append([]string{w}, words[i+1:]...), "-")); ok {
			n, after = n.follow(rest)
			return before, n, after, true
		}
		switch {
		case distributions[low] && i+1 < len(words) && shortNumber.MatchString(words[i+1]):
			return nil, n, nil, false // alpine-3.19 is a variant
		case neutral[low]:
		case flavour(low):
			before = append(before, low)
		default:
			return nil, n, nil, false
		}
	}
	return nil, n, nil, false
}

// neutral are words before a version that say nothing.
var neutral = map[string]bool{"v": true, "ver": true, "version": true, "release": true, "rel": true, "stable": true}

// parseDate reads a date at the beginning of a name, or of the rest of one.
func parseDate(s string) (n number, rest []string, ok bool) {
	m := date.FindStringSubmatch(s)
	if m == nil || m[2] != m[4] { // 2024-0115 is none
		return n, nil, false
	}
	left := s[len(m[0]):]
	if left != "" && !strings.ContainsAny(left[:1], "-._") { // 202401151 is another number
		return n, nil, false
	}
	n.nums, n.date = []string{m[1], m[3], m[5]}, m[2] == ""
	if m[6] != "" {
		n.build = append(n.build, strings.NewReplacer("-", "", ":", "").Replace(m[6]))
	}
	if left != "" && left[0] != '-' {
		var word string
		word, left, _ = strings.Cut(left[1:], "-")
		if flavour(strings.ToLower(word)) {
			left = word + "-" + left
		} else {
			n.build = append(n.build, identifiers(word)...)
		}
	}
	return n, fields(left), true
}

func fields(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "-"), func(w string) bool { return w == "" })
}

// parseNumber reads a version at the beginning of a word, with the words that
// follow it; ok is false where it is none.
func parseNumber(s string) (n number, rest []string, ok bool) {
	if n, rest, ok := parseDate(s); ok {
		return n, rest, true
	}
	words := strings.Split(s, "-")
	w := words[0]
	m := numbers.FindStringSubmatch(w)
	if m == nil {
		return n, nil, false
	}
	u := update.FindStringSubmatch(w)
	if u != nil {
		m = []string{u[0], u[1], "0", u[2]}
	}
	for _, num := range m[1:] {
		if num != "" {
			n.nums = append(n.nums, num)
		}
	}
	words, ok = n.tail(w[len(m[0]):], words[1:], u == nil)
	return n, words, ok
}

var letter = regexp.MustCompile(`^[a-zA-Z]\d{0,6}$`)

// tail reads what follows the numbers in their word: nothing, a pre-release, a
// build, or the first variant, which it puts before the other words.
func (n *number) tail(s string, words []string, mayPre bool) ([]string, bool) {
	switch {
	case s == "":
		return words, true
	case mayPre && n.addPre(strings.TrimLeft(s, "._"), gluedPre):
		return words, true
	case s[0] == '_' || s[0] == '.':
		if word := strings.ToLower(s[1:]); flavour(word) {
			return append([]string{word}, words...), true
		}
		n.build = append(n.build, identifiers(s[1:])...)
		return words, true
	case letter.MatchString(s): // 1.1.1w, 9.3p2
		n.build = append(n.build, s)
		return words, len(n.nums) > 1
	case flavour(strings.ToLower(s)):
		return append([]string{s}, words...), true
	}
	return nil, false // 2fa, 3scale
}

// addPre adds a word to the pre-release where it makes one. What stands right
// behind the numbers is no identifier of Semantic Versioning yet: 3.13.0rc2 is
// 3.13.0-rc.2, and 3.13.0-rc2 is what it is.
func (n *number) addPre(word string, short *regexp.Regexp) bool {
	m := prerelease.FindStringSubmatch(word)
	if m == nil {
		m = short.FindStringSubmatch(word)
	}
	if m == nil {
		return false
	}
	if short == gluedPre {
		n.pre = append(n.pre, m[1])
		n.pre = append(n.pre, identifiers(m[2])...)
	} else {
		n.pre = append(n.pre, identifiers(m[1]+m[2])...)
	}
	n.pre = append(n.pre, identifiers(m[3])...)
	return true
}

func identifiers(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// follow reads the words behind the numbers: pre-releases and builds belong to
// the version, the others are variants.
func (n number) follow(words []string) (number, []string) {
	var variants []string
	for i, w := range words {
		low := strings.ToLower(w)
		prev := ""
		if i > 0 {
			prev = strings.ToLower(words[i-1])
		}
		switch {
		case (len(variants) == 0 || latePre.MatchString(w)) && n.addPre(w, milestone):
		case takesNumber(prev) && len(variants) > 0 && variants[len(variants)-1] == prev && shortNumber.MatchString(w):
			variants[len(variants)-1] += w
		case len(n.pre) > 0 && len(variants) == 0 && len(n.build) == 0 && shortNumber.MatchString(w):
			n.pre = append(n.pre, identifiers(w)...) // 22-ea-33
		case revision.MatchString(low), isCommit(w):
			n.build = append(n.build, identifiers(w)...)
		default:
			variants = append(variants, low)
		}
	}
	return n, variants
}
