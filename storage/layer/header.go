package layer

import "strconv"

// BlockSize is the size of a tar's blocks.
const BlockSize = 512

// IsTar tells whether b begins with a tar header: one with the right checksum,
// or the zeros of an archive without entries.
func IsTar(b []byte) bool {
	if len(b) < BlockSize {
		return false
	}
	b = b[:BlockSize]
	if IsZero(b) {
		return true
	}
	want, ok := octal(b[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64 // old tars summed signed bytes
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func octal(b []byte) (int64, bool) {
	start, end := 0, len(b)
	for start < end && b[start] == ' ' {
		start++
	}
	for end > start && (b[end-1] == ' ' || b[end-1] == 0) {
		end--
	}
	n, err := strconv.ParseUint(string(b[start:end]), 8, 62)
	return int64(n), err == nil
}

var zeros [32 << 10]byte

// IsZero tells whether b is nothing but zeros.
func IsZero(b []byte) bool {
	for len(b) > len(zeros) {
		if string(b[:len(zeros)]) != string(zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}
