// Package table prints tables for people: columns are as wide as what is in
// them, or else as the terminal has room for, and what came from elsewhere
// cannot steer the terminal.
//
//	cells ── Clean: one line, nothing that moves a cursor ── fit the width: cut, then leave out ──> lines
package table

import (
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// Column is a column of a Table.
type Column struct {
	Head string
	// Min is how narrow the column may become where there is no room; 0: it
	// stays as it is.
	Min int
	// Rank is for where that is not enough: the column with the highest one is
	// left out first, and one with 0 never.
	Rank int
}

// Columns are columns that stay as they are, from their heads with spaces
// between them.
func Columns(heads string) []Column {
	var list []Column
	for head := range strings.FieldsSeq(heads) {
		list = append(list, Column{Head: head})
	}
	return list
}

// Table is a table under its heads.
type Table struct {
	// Indent is how far all of it stands from the left.
	Indent int

	columns []Column
	rows    [][]string
}

// New returns an empty table, without a line of heads where no column has one.
func New(columns ...Column) *Table {
	t := &Table{columns: columns}
	heads, any := make([]string, len(columns)), false
	for i, c := range columns {
		heads[i] = c.Head
		any = any || c.Head != ""
	}
	if any {
		t.rows = append(t.rows, heads)
	}
	return t
}

// Row adds a row, of as many cells as there are columns; "" is shown as a dash.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.columns))
	for i := range row {
		if row[i] = "-"; i < len(cells) {
			if text := Clean(cells[i]); text != "" {
				row[i] = text
			}
		}
	}
	t.rows = append(t.rows, row)
}

// gap is what is between two columns.
const gap = 2

// Write prints the table to fit into lines of so many columns; 0 for lines of
// any length.
func (t *Table) Write(out io.Writer, width int) error {
	widths := t.fit(width)
	margin := strings.Repeat(" ", t.Indent)
	last := 0
	for i, w := range widths {
		if w > 0 {
			last = i
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(margin)
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			cell = Cut(cell, widths[i])
			b.WriteString(cell)
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-Width(cell)+gap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// fit says how wide each column is; 0 for one that is left out.
func (t *Table) fit(width int) []int {
	natural := make([]int, len(t.columns))
	for _, row := range t.rows {
		for i, cell := range row {
			natural[i] = max(natural[i], Width(cell))
		}
	}
	if width <= 0 {
		return natural
	}
	byRank := make([]int, len(t.columns))
	for i := range byRank {
		byRank[i] = i
	}
	slices.SortStableFunc(byRank, func(a, b int) int { return t.columns[b].Rank - t.columns[a].Rank })
	for {
		widths, over := slices.Clone(natural), t.Indent+total(natural)-width
		for _, i := range byRank {
			if c := t.columns[i]; over > 0 && c.Min > 0 && widths[i] > max(c.Min, Width(c.Head)) {
				take := min(over, widths[i]-max(c.Min, Width(c.Head)))
				widths[i] -= take
				over -= take
			}
		}
		if over <= 0 || len(byRank) == 0 || t.columns[byRank[0]].Rank == 0 {
			return widths
		}
		natural[byRank[0]] = 0
		byRank = byRank[1:]
	}
}

func total(widths []int) int {
	sum := -gap
	for _, w := range widths {
		if w > 0 {
			sum += w + gap
		}
	}
	return sum
}

// cells measures as terminals outside of East Asia do, whatever the
// environment says: ambiguous characters are narrow.
var cells = &runewidth.Condition{}

// Width is how many columns of a terminal a text takes.
func Width(s string) int { return cells.StringWidth(s) }

// Cut cuts a text to so many columns, with an ellipsis in the last one.
func Cut(s string, width int) string { return cells.Truncate(s, width, "…") }

// Clean makes one line of a text that came from elsewhere: white space becomes
// single spaces, and control characters, also those that change the direction
// of text, become U+FFFD.
func Clean(s string) string {
	return strings.Join(strings.Fields(CleanLines(s)), " ")
}

// CleanLines is Clean for text in lines: those and its tabs stay.
func CleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r), directs(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// directs tells of the characters that change the direction of text, by which
// a name can be made to look like another one (Unicode, UAX #9).
func directs(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c
}
