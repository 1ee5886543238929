package version

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Range selects versions. Its intervals are of keys.
type Range struct {
	Intervals []Interval // in the order of the alternatives; at most MaxAlternatives
	// Prereleases: they count too. Without a pre-release in the range they do
	// not, as everywhere.
	Prereleases bool
}

// Interval is of the keys from From on, and less than Before.
type Interval struct{ From, Before string }

// endOfVersions is behind the keys of all of them.
const endOfVersions = string(rune(classVersion + 1))

// MaxAlternatives bounds a range.
const MaxAlternatives = 4

// Contains tells whether a tag's version is in the range.
func (r Range) Contains(t Tag) bool {
	if t.Prerelease() && !r.Prereleases {
		return false
	}
	for _, i := range r.Intervals {
		if t.Key >= i.From && t.Key < i.Before {
			return true
		}
	}
	return false
}

// Any is the range of all versions.
func Any() Range {
	return Range{Intervals: []Interval{{string(rune(classVersion)), endOfVersions}}, Prereleases: true}
}

// Unversioned is the range of the names without a version.
func Unversioned() Range {
	return Range{Intervals: []Interval{{string(rune(className)), string(rune(classVersion))}}, Prereleases: true}
}

// Undated is the range of releases that cannot be taken for dates.
func Undated() Range {
	return Range{Intervals: []Interval{{string(rune(classVersion)), string(numsKey([]string{"1900"}))}}}
}

// Same is the range of what has the version of a tag with this key, its build
// included.
func Same(key string) Range {
	i := strings.LastIndexByte(key, ' ') + 1
	return Range{Intervals: []Interval{{key[:i], key[:i] + "~~"}}, Prereleases: true}
}

var (
	alternatives = regexp.MustCompile(`\s*\|\|\s*`)
	hyphenRange  = regexp.MustCompile(`^(\S+)\s+-\s+(\S+)$`)
	spaces       = regexp.MustCompile(`(\^|~>?|[<>=]+)\s+`)
	comparator   = regexp.MustCompile(`^(\^|~>?|>=|<=|>|<|==?)?[vV]?(\d{1,18}(?:\.\d{1,18}){0,3})?((?:\.?[xX*])*)(?:-([0-9A-Za-z.]+))?$`)
)

// ParseRange reads what npm, Cargo and Masterminds/semver have in common:
// ^1.2, ~1.2.3, >=17.0.9 <18 (all of them), 17.x, 17 (the same), 1.2 - 1.4, and
// alternatives with ||. Versions have up to four numbers, those that are
// missing are 0, and two dates compare in whichever way they are written.
func ParseRange(s string) (Range, error) {
	var r Range
	list := alternatives.Split(strings.TrimSpace(s), -1)
	if len(list) > MaxAlternatives {
		return r, fmt.Errorf("it has %d alternatives, at most %d are possible", len(list), MaxAlternatives)
	}
	for _, alternative := range list {
		all := Interval{string(numsKey(nil)), endOfVersions}
		if m := hyphenRange.FindStringSubmatch(alternative); m != nil {
			alternative = ">=" + m[1] + " <=" + m[2]
		}
		alternative = spaces.ReplaceAllString(strings.ReplaceAll(alternative, ",", " "), "$1")
		parts := strings.Fields(alternative)
		if len(parts) == 0 {
			return r, errors.New("it is empty")
		}
		for _, part := range parts {
			i, pre, err := parseComparator(part)
			if err != nil {
				return r, err
			}
			r.Prereleases = r.Prereleases || pre
			all = Interval{max(all.From, i.From), min(all.Before, i.Before)}
		}
		r.Intervals = append(r.Intervals, all)
	}
	return r, nil
}

// bound is a version in a range.
type bound struct {
	nums []string
	pre  []string
}

func parseComparator(s string) (i Interval, prereleases bool, err error) {
	m := comparator.FindStringSubmatch(s)
	if m == nil || m[2] == "" && (m[1] != "" || m[3] == "" || m[4] != "") {
		return i, false, fmt.Errorf("%q in it is none of ^1.2, ~1.2, >=1.2, 1.2.x and the like", s)
	}
	b := bound{}
	if m[2] != "" {
		b.nums = strings.Split(m[2], ".")
	}
	if d, rest, ok := parseDate(m[2]); ok && len(rest) == 0 && len(d.build) == 0 {
		b.nums = d.nums
	}
	if m[4] != "" {
		b.pre = identifiers(m[4])
	}
	return b.interval(m[1]), m[4] != "", nil
}

func (b bound) interval(operator string) Interval {
	all := Interval{string(numsKey(nil)), endOfVersions}
	switch operator {
	case ">=":
		all.From = b.from()
	case ">":
		all.From = b.after()
	case "<":
		all.Before = b.from()
	case "<=":
		all.Before = b.after()
	case "^":
		return Interval{b.from(), b.next(b.caret())}
	case "~", "~>":
		return Interval{b.from(), b.next(min(len(b.nums), 2))}
	default:
		return Interval{b.from(), b.after()}
	}
	return all
}

// from is where the version begins: at its pre-releases only where one is named.
func (b bound) from() string {
	key := numsKey(b.nums)
	if len(b.pre) > 0 {
		return string(preKey(append(key, preRelease), b.pre))
	}
	return string(append(key, release))
}

// after is behind all that is the version; 17 is all of 17.x.
func (b bound) after() string {
	switch {
	case len(b.pre) > 0:
		return b.from() + "~"
	case len(b.nums) >= 3:
		return string(append(numsKey(b.nums), afterReleases))
	}
	return b.next(len(b.nums))
}

// next is the first of the version whose n-th number is one more, with its
// pre-releases.
func (b bound) next(n int) string {
	if n == 0 {
		return endOfVersions
	}
	nums := append([]string{}, b.nums[:n]...)
	v, err := strconv.ParseUint(nums[n-1], 10, 64) // 18 digits
	if err != nil {
		return endOfVersions
	}
	nums[n-1] = strconv.FormatUint(v+1, 10)
	return string(numsKey(nums))
}

// caret is which number must not change: the first that is not 0.
func (b bound) caret() int {
	for i, num := range b.nums[:min(len(b.nums), 3)] {
		if strings.Trim(num, "0") != "" {
			return i + 1
		}
	}
	return min(len(b.nums), 3)
}
