package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// noise is n bytes that no compression makes smaller; letters, so that a name
// can have them.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz012345"[r.IntN(32)]
	}
	return string(b)
}

// item is an entry of a test's tar.
type item struct {
	tar.Header
	body string
}

func file(name, body string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1_700_000_000, 0)}, body}
}

func dir(name string) item {
	return item{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1_700_000_000, 0)}}
}

func link(kind byte, name, target string) item {
	return item{Header: tar.Header{Name: name, Typeflag: kind, Linkname: target, Mode: 0o777, ModTime: time.Unix(1_700_000_000, 0)}}
}

// with changes an item's header.
func (i item) with(change func(h *tar.Header)) item {
	change(&i.Header)
	return i
}

// pack writes a tar with its two blocks of zeros at the end.
func pack(items ...item) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.body))
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, i.body); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// feedIn writes b in chunks of n bytes and ends the Indexer.
func feedIn(ix *Indexer, b []byte, n int) error {
	defer ix.Abandon()
	for len(b) > 0 {
		k := min(n, len(b))
		_, _ = ix.Write(b[:k])
		b = b[k:]
	}
	return ix.Close()
}

// indexOf is the index of a good layer.
func indexOf(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	ix := NewIndexer(&out, nil)
	if err := errors.Join(feedIn(ix, plain, 64<<10), ix.Err()); err != nil {
		tb.Fatalf("index: %v", err)
	}
	return out.Bytes()
}

// readIndex reads an index to its end.
func readIndex(b []byte) ([]Entry, error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var list []Entry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
}

// entriesOf is what the index of a tar has to say, by another way: everything
// is read with archive/tar.
func entriesOf(tb testing.TB, plain []byte) []Entry {
	tb.Helper()
	r := bytes.NewReader(plain)
	tr := tar.NewReader(struct{ io.Reader }{r}) // no Seeker: it reads block by block
	var list []Entry
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			tb.Fatalf("archive/tar: %v", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e := entryOf(h)
		e.Offset = int64(len(plain) - r.Len())
		if h.Typeflag == tar.TypeReg && !e.Sparse {
			b, err := io.ReadAll(tr)
			if err != nil {
				tb.Fatalf("archive/tar: %v", err)
			}
			e.SHA256 = sha256.Sum256(b)
		}
		list = append(list, e)
	}
}
