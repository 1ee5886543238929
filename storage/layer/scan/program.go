package scan

import (
	"bytes"
	"encoding/binary"
	"regexp"
)

// programReader reads the beginning of an ELF file, for the dynamic linker that
// it asks for, and looks through all of a small one for the name of BusyBox.
type programReader struct {
	head    []byte
	tail    []byte // of what passed, so that a name across two writes is found
	read    int
	busybox string
}

const (
	headSize   = 4 << 10 // real files have their program headers in the first KiB
	busyboxMax = 4 << 20 // a static BusyBox with all its applets has 2 MiB
)

var busyboxName = regexp.MustCompile(`BusyBox v(\d+\.\d+(?:\.\d+)?)`)

func (r *programReader) Write(p []byte) (int, error) {
	n := len(p)
	if room := headSize - len(r.head); room > 0 {
		r.head = append(r.head, p[:min(n, room)]...)
	}
	if r.busybox == "" && r.read < busyboxMax && bytes.HasPrefix(r.head, elfMagic) {
		r.search(p)
	}
	r.read += n
	return n, nil
}

func (r *programReader) search(p []byte) {
	const keep = 32 // longer than the name
	edge := append(r.tail, p[:min(len(p), keep)]...)
	for _, b := range [][]byte{edge, p} {
		if i := bytes.Index(b, []byte("BusyBox v")); i >= 0 {
			if m := busyboxName.FindSubmatch(b[i:]); m != nil {
				r.busybox = string(m[1])
			}
		}
	}
	r.tail = append(r.tail[:0], p[max(0, len(p)-keep):]...)
}

func (r *programReader) finish(m *Mark) bool {
	interpreter, ok := elfInterpreter(r.head)
	if ok {
		m.Program = &Program{Interpreter: interpreter, BusyBox: r.busybox}
	}
	return ok
}

var elfMagic = []byte("\x7fELF")

// elfInterpreter returns the dynamic linker that an ELF file asks for, "" for
// one that is static, and false for what is none or has it beyond its first
// bytes.
func elfInterpreter(b []byte) (string, bool) {
	if len(b) < 64 || !bytes.HasPrefix(b, elfMagic) {
		return "", false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[5] == 2 {
		order = binary.BigEndian
	}
	// Where the program headers are, and in them the offset and the size.
	at, each, count := uint64(order.Uint32(b[28:])), uint64(order.Uint16(b[42:])), uint64(order.Uint16(b[44:]))
	wide := b[4] == 2
	if wide {
		at, each, count = order.Uint64(b[32:]), uint64(order.Uint16(b[54:])), uint64(order.Uint16(b[56:]))
	}
	size := uint64(len(b))
	if at > size || each < 32 || wide && each < 56 || count*each > size-at {
		return "", false
	}
	for i := range count {
		h := b[at+i*each:]
		if order.Uint32(h) != 3 { // PT_INTERP
			continue
		}
		off, n := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		if wide {
			off, n = order.Uint64(h[8:]), order.Uint64(h[32:])
		}
		if off > size || n > size-off {
			return "", false
		}
		return field(bytes.TrimRight(b[off:off+n], "\x00")), true
	}
	return "", true
}
