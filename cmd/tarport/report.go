package main

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/tarport/tarport/cmd/tarport/internal/table"
)

// report prints sections, each with a head; what follows a head stands below it.
type report struct {
	out   io.Writer
	b     strings.Builder
	width int // of tables; texts in full are longer where they are
}

func newReport(out io.Writer) *report { return &report{out: out, width: width(out)} }

const reportIndent = 2

// values is a section of names and values in turn. Those without a value are
// left out, and so is a section without any.
func (r *report) values(head string, cells ...string) {
	t := table.New(table.Column{}, table.Column{})
	t.Indent = reportIndent
	n := 0
	for i := 0; i+1 < len(cells); i += 2 {
		if cells[i+1] != "" {
			t.Row(cells[i], cells[i+1])
			n++
		}
	}
	if n > 0 {
		r.head(head)
		_ = t.Write(&r.b, 0)
	}
}

// table is a section of rows; none where there is no row.
func (r *report) table(head string, columns []table.Column, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	r.head(head)
	t := table.New(columns...)
	t.Indent = reportIndent
	for _, row := range rows {
		t.Row(row...)
	}
	_ = t.Write(&r.b, r.width)
}

// tableOr is table, with a line for no row.
func (r *report) tableOr(head string, columns []table.Column, rows [][]string, otherwise string) {
	if len(rows) == 0 {
		r.text(head, otherwise)
		return
	}
	r.table(head, columns, rows)
}

// text is a section of a line.
func (r *report) text(head, line string) {
	r.head(head)
	r.b.WriteString(strings.Repeat(" ", reportIndent) + table.Clean(line) + "\n")
}

func (r *report) head(head string) {
	if r.b.Len() > 0 {
		r.b.WriteByte('\n')
	}
	r.b.WriteString(head + "\n")
}

func (r *report) print() error {
	_, err := io.WriteString(r.out, r.b.String())
	return err
}

// wordsText is a command line as a Dockerfile has it; "" for none.
func wordsText(words []string) string {
	if len(words) == 0 {
		return ""
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(words); err != nil {
		return strings.Join(words, " ")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
