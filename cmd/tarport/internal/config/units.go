package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Duration is a time.Duration that is written with its unit, as 15m or 24h.
type Duration time.Duration

// UnmarshalYAML takes a text with a unit, never a bare number.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	v, err := time.ParseDuration(scalar(n))
	if err != nil {
		return wrongValue(n, "%q is no duration: write it with its unit, as 15m or 24h", scalar(n))
	}
	*d = Duration(v)
	return nil
}

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return d.Std().String() }

// Size is a number of bytes that is written with its unit, as 10GiB.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	// The longer suffix stands before the one it ends in.
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseSize parses a number with a unit, as 10GiB (binary) or 500MB (decimal);
// 0 needs none.
func ParseSize(s string) (Size, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || f < 0 || math.IsNaN(f) || f*u.bytes >= math.MaxInt64 {
			break
		}
		return Size(f * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is no size: write it with its unit, as 512MiB or 10GiB", s)
}

// UnmarshalYAML takes what ParseSize takes.
func (s *Size) UnmarshalYAML(n ast.Node) error {
	v, err := ParseSize(scalar(n))
	if err != nil {
		return wrongValue(n, "%s", err)
	}
	*s = v
	return nil
}

// String is the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		suffix string
		bytes  Size
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// scalar is the text of a scalar node, without its quotes.
func scalar(n ast.Node) string {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value
	}
	return n.String()
}

func wrongValue(n ast.Node, format string, args ...any) error {
	return &yaml.SyntaxError{Message: fmt.Sprintf(format, args...), Token: n.GetToken()}
}
