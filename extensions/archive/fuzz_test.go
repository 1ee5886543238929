package archive

import (
	"bytes"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// FuzzLoad sends anything. Whatever it is, the answer is an error that the
// sender can read and nothing stays, or images of which every part is there.
func FuzzLoad(f *testing.F) {
	dir, list := fixtures(f)
	for _, fx := range list {
		if b := fx.read(f, dir); len(b) < 64<<10 {
			f.Add(b)
		}
	}
	for _, cases := range [][]bad{badLinks(), badDuplicates(), badHeaders(), badOCI(), badIndexes(), badPairs()} {
		for _, c := range cases {
			f.Add(c.body)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		st := &fakeStore{}
		s := newFakeService(t, st, small)
		res, err := s.Load(t.Context(), bytes.NewReader(body), request(func(q *LoadRequest) { q.Repository = "fuzz" }))
		st.checkClean(t)
		if err != nil {
			if e, ok := errors.AsType[*tarport.Error](err); !ok || e.Code.Status() >= 500 {
				t.Errorf("Load = %v, want an error for the sender", err)
			}
			if len(st.puts) != 0 {
				t.Error("manifests were put, and then there was an error")
			}
			return
		}
		if len(res.Images) == 0 || len(st.puts) == 0 {
			t.Error("no image and no error")
		}
		for _, p := range st.puts {
			if _, err := parseDocument(p.Payload, DefaultLimits()); err != nil {
				t.Errorf("manifest %q: %v", p.Payload, err)
			}
			for _, l := range p.Blobs {
				b, ok := st.blobs[l.Descriptor.Digest]
				if !ok || int64(len(b)) != l.Descriptor.Size || digest.FromBytes(b) != l.Descriptor.Digest {
					t.Errorf("blob %+v was not stored as it is named", l.Descriptor)
				}
			}
		}
	})
}

// FuzzParseName compares the placing of names with the registry's grammar.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"a/b:1", "docker.io/library/x:1", "localhost/a:1", "[::1]:5000/a/b:x@sha256:" + noise(64), "A/b", "a//b", "team/x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseName(s)
		if err != nil {
			if tarport.ErrorCode(err) != tarport.NameInvalid {
				t.Errorf("parseName(%q) = %v, want NAME_INVALID", s, err)
			}
			return
		}
		if p := tarport.Place("team", n.path); len(p) <= tarport.MaxNameLength && tarport.CheckRepository(p) != nil {
			t.Errorf("parseName(%q) gives the repository %q, which is none", s, p)
		}
	})
}
