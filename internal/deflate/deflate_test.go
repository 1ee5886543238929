package deflate

import (
	"bytes"
	stdflate "compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/klauspost/compress/flate"
)

// compress makes one stream of src, in pieces.
func compress(e *Encoder, src []byte) []byte {
	var out []byte
	p := new(Piece)
	for {
		p.Reset()
		n := p.Fill(src)
		src = src[n:]
		out = e.Append(out, p, len(src) == 0)
		if len(src) == 0 {
			return out
		}
	}
}

// check reads out with the two decoders of Go.
func check(t *testing.T, out, want []byte) {
	t.Helper()
	for name, z := range map[string]io.Reader{
		"compress/flate": stdflate.NewReader(bytes.NewReader(out)),
		"klauspost":      flate.NewReader(bytes.NewReader(out)),
	} {
		got, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got, want) {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Fatalf("%s: %d bytes became %d, and differ at %d", name, len(want), len(got), i)
		}
	}
}

func random(seed uint64, n, symbols int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(symbols))
	}
	return b
}

// skewed has symbols of counts like Fibonacci's numbers: codes as long as there
// can be, if nothing limits them.
func skewed(n int) []byte {
	var b []byte
	for sym, x, y := 0, 1, 1; len(b) < n; sym, x, y = sym+1, y, x+y {
		b = append(b, bytes.Repeat([]byte{byte(sym)}, x)...)
	}
	r := rand.New(rand.NewPCG(7, 7))
	r.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
	return b[:n]
}

// mixed is random pieces and repetitions of what was, at all distances and
// lengths.
func mixed(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var b []byte
	for len(b) < n {
		if len(b) > 0 && r.IntN(3) > 0 {
			d := 1 + r.IntN(min(len(b), 1<<(1+r.IntN(17))))
			for range 3 + r.IntN(1<<(1+r.IntN(10))) {
				b = append(b, b[len(b)-d])
			}
			continue
		}
		for range r.IntN(1 << (1 + r.IntN(7))) {
			b = append(b, byte(r.IntN(256)))
		}
	}
	return b[:n]
}

func TestWhatIsCompressedComesBack(t *testing.T) {
	t.Parallel()
	far := func(d int) []byte { // the same 300 bytes, d apart
		b := random(3, d+300, 256)
		copy(b[d:], b[:300])
		return b
	}
	cases := map[string][]byte{
		"nothing":           nil,
		"zeros":             make([]byte, 3*MaxPiece+5),
		"random":            random(1, 2*MaxPiece+77, 256),
		"two symbols":       random(2, 300<<10, 2),
		"one hundred":       random(2, 300<<10, 100),
		"skewed":            skewed(MaxPiece),
		"random, then zero": append(random(4, 100<<10, 256), make([]byte, 400<<10)...),
		"at the window":     far(window),
		"beyond the window": far(window + 1),
		"2^16 apart":        far(1 << 16),
	}
	for n := range 80 {
		cases[fmt.Sprintf("%d bytes", n)] = []byte("abcabcabcabcdefdefdefabcabcabcabcabcabcabcaaaaaaaaaaaaaaaaaaaaaaaaaabcdefghijklmno")[:n]
	}
	for _, n := range []int{blockSize, MaxPiece, 2 * MaxPiece, maxStored} {
		for d := -1; d <= 1; d++ {
			cases[fmt.Sprintf("%d of text", n+d)] = mixed(5, n+d)
			cases[fmt.Sprintf("%d that do not compress", n+d)] = random(6, n+d, 256)
		}
	}
	for _, n := range []int{257, 258, 259, 260, 261, 262, 515, 516, 517, 518, 519, 520, 776, 777} {
		cases[fmt.Sprintf("a repetition of %d", n)] = slices.Concat(random(8, 40, 256), make([]byte, n+1), random(9, 60, 256))
	}
	for period := range 20 {
		cases[fmt.Sprintf("period of %d", period+1)] = bytes.Repeat(random(10, period+1, 256), 5000)
	}
	var e Encoder
	for name, src := range cases {
		t.Run(name, func(t *testing.T) { // one after the other, with the tables of the last
			out := compress(&e, src)
			check(t, out, src)
			pieces := 1 + len(src)/MaxPiece
			if most := len(src) + pieces*(5*(2+MaxPiece/maxStored)+5); len(out) > most {
				t.Errorf("%d bytes became %d, at most %d are allowed", len(src), len(out), most)
			}
		})
	}
}

func TestRandomMixturesComeBack(t *testing.T) {
	t.Parallel()
	n := uint64(200)
	if testing.Short() {
		n = 20
	}
	var e Encoder
	for seed := range n {
		src := mixed(seed, 1+int(seed*seed*13%(2*MaxPiece)))
		check(t, compress(&e, src), src)
	}
}

func TestAPieceHasTheSameBytesWhateverWasBefore(t *testing.T) {
	t.Parallel()
	src := mixed(11, MaxPiece)
	var fresh, used Encoder
	want := compress(&fresh, src)
	for seed := range uint64(5) {
		compress(&used, mixed(100+seed, MaxPiece))
		if !bytes.Equal(compress(&used, src), want) {
			t.Fatalf("after piece %d the same bytes are compressed to others", seed)
		}
	}
}

func TestWhatIsBehindAPieceDoesNotMatter(t *testing.T) {
	t.Parallel()
	src := mixed(12, 1000)
	var e Encoder
	p := new(Piece)
	p.Fill(src)
	want := e.Append(nil, p, true)
	p.Reset()
	p.Fill(random(13, MaxPiece, 256))
	p.Reset()
	p.Fill(src)
	if got := e.Append(nil, p, true); !bytes.Equal(got, want) {
		t.Fatal("what an earlier piece has left changes the result")
	}
}

func TestRepetitionsAreFound(t *testing.T) {
	t.Parallel()
	var e Encoder
	for name, c := range map[string]struct {
		src  []byte
		most int
	}{
		"zeros":                        {make([]byte, MaxPiece), 400},
		"random bytes, twice":          {bytes.Repeat(random(14, 16<<10, 256), 2), 17 << 10},
		"the widest distance":          {slices.Concat(random(15, window, 256), random(15, window, 256)), 36 << 10},
		"letters":                      {random(16, MaxPiece, 16), MaxPiece/2 + MaxPiece/50},
		"the first bytes are repeated": {bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 200), 300},
	} {
		if n := len(compress(&e, c.src)); n > c.most {
			t.Errorf("%s: %d bytes became %d, expected %d at most", name, len(c.src), n, c.most)
		}
	}
}

func TestCodesAreAsShortAsHuffmansAndNotTooLong(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(17, 1))
	for range 2000 {
		freq := make([]uint32, 2+r.IntN(litSyms-1))
		for i := range freq {
			if r.IntN(3) > 0 {
				freq[i] = uint32(r.IntN(1 << r.IntN(17)))
			}
		}
		for _, limit := range []int{litBits, 9, 15} {
			lens := make([]uint8, len(freq))
			new(huffman).lengths(lens, freq, limit)
			room, used := 1<<limit, 0
			for i, n := range lens {
				if n == 0 {
					if freq[i] != 0 {
						t.Fatalf("symbol %d is used and has no code: %v", i, freq)
					}
					continue
				}
				used++
				if int(n) > limit {
					t.Fatalf("symbol %d has a code of %d bits, at most %d are allowed", i, n, limit)
				}
				room -= 1 << (limit - int(n))
			}
			if room != 0 || used < 2 {
				t.Fatalf("the codes of %v within %d bits are not complete: %v", freq, limit, lens)
			}
		}
	}
}

func FuzzAppend(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(mixed(seed, 3000), uint8(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte, times uint8) {
		src = bytes.Repeat(src[:min(len(src), 4<<10)], 1+int(times%32))
		var e Encoder
		check(t, compress(&e, src), src)
	})
}

// BenchmarkAppend compares with the general encoder, piece by piece as loads
// compress; DEFLATE_FILE is what to compress, this test's own binary unless
// given.
func BenchmarkAppend(b *testing.B) {
	name := os.Getenv("DEFLATE_FILE")
	if name == "" {
		var err error
		if name, err = os.Executable(); err != nil {
			b.Fatal(err)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, 128<<20))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("own", func(b *testing.B) {
		var e Encoder
		p := new(Piece)
		dst := make([]byte, 0, MaxPiece+1024)
		measure(b, src, func(piece []byte) int {
			p.Reset()
			p.Fill(piece)
			return len(e.Append(dst, p, false))
		})
	})
	b.Run("klauspost", func(b *testing.B) {
		var out bytes.Buffer
		z, err := flate.NewWriter(&out, 1)
		if err != nil {
			b.Fatal(err)
		}
		measure(b, src, func(piece []byte) int {
			out.Reset()
			z.Reset(&out)
			if _, err := z.Write(piece); err != nil {
				b.Fatal(err)
			}
			if err := z.Flush(); err != nil {
				b.Fatal(err)
			}
			return out.Len()
		})
	})
}

func measure(b *testing.B, src []byte, f func([]byte) int) {
	b.Helper()
	b.SetBytes(int64(len(src)))
	size := 0
	for b.Loop() {
		size = 0
		for piece := range slices.Chunk(src, MaxPiece) {
			size += f(piece)
		}
	}
	b.ReportMetric(100*float64(size)/float64(len(src)), "%size")
}
