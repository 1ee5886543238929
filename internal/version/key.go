package version

import (
	"strings"
)

// A key is made of these, so that comparing bytes compares what they stand for:
//
//	name      0 natural
//	version   1 num num num num  0 identifier… 0 | 1  precision  natural ' ' natural
//
// num is a decimal number without leading zeros behind its length ('!' for 0
// digits). natural is text with a 0 and a num for each run of digits. A
// numeric identifier is 1 num, another is 2 text ' '. The two behind the numbers
// are a pre-release, with the 0 that ends it, or a release. ' ' is less than
// whatever text can go on with.
const (
	className    = '0'
	classVersion = '1'

	preRelease    = '0'
	release       = '1'
	afterReleases = '2' // what no key has there: the end of all of a version
)

func (n *number) key(variants []string) string {
	b := numsKey(n.nums)
	if len(n.pre) > 0 {
		b = preKey(append(b, preRelease), n.pre)
	} else {
		b = append(b, release)
	}
	b = append(b, byte('0'+len(n.nums))) //nolint:gosec // fewer than ten numbers
	b = naturalKey(b, strings.Join(n.build, "."))
	b = append(b, ' ')
	return string(naturalKey(b, strings.Join(variants, "-")))
}

// numsKey is less than the key of every version that begins with these numbers
// and four of them.
func numsKey(nums []string) []byte {
	b := []byte{classVersion}
	for i := range 4 {
		num := "0"
		if i < len(nums) {
			num = nums[i]
		}
		b = numKey(b, num)
	}
	return b
}

// maxDigits is how many digits of a number its length can tell of.
const maxDigits = '~' - '!'

func numKey(b []byte, digits string) []byte {
	digits = strings.TrimLeft(digits, "0")
	b = append(b, byte('!'+min(len(digits), maxDigits)))
	return append(b, digits...)
}

func preKey(b []byte, identifiers []string) []byte {
	for _, id := range identifiers {
		if strings.Trim(id, "0123456789") == "" {
			b = numKey(append(b, '1'), id)
		} else {
			b = append(append(append(b, '2'), id...), ' ')
		}
	}
	return append(b, '0')
}

// naturalKey keeps text in byte order, but for runs of digits, which it keeps
// in the order of their numbers.
func naturalKey(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && s[j] >= '0' && s[j] <= '9' && j-i < maxDigits {
			j++
		}
		if j > i {
			b = numKey(append(b, '0'), s[i:j])
			i = j
			continue
		}
		c := s[i]
		if c <= ' ' || c > '~' { // in no name; keys go into a database as text
			c = '~'
		}
		b = append(b, c)
		i++
	}
	return b
}
