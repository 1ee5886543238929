package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage"
	"github.com/tarport/tarport/storage/layer"
	"github.com/tarport/tarport/storage/metadata"
	"github.com/tarport/tarport/storage/metadata/metadatatest"
)

// access is a tarport.Access of a test.
type access func(p tarport.Principal, a tarport.Action, repository string) error

func (f access) Authorize(_ context.Context, p tarport.Principal, a tarport.Action, repository string) error {
	return f(p, a, repository)
}

func allowAll(tarport.Principal, tarport.Action, string) error { return nil }

// registry is a Service over a real store: SQLite and files.
type registry struct {
	*Service
	store *storage.Store
	db    *metadata.DB
	root  string
	sql   *sql.DB // to look at the tables behind the store's back
}

func newRegistry(tb testing.TB, change ...func(*Options)) *registry {
	tb.Helper()
	return newRegistryOn(tb, func(*storage.Options) {}, change...)
}

// newRegistryOn is newRegistry on another storage.
func newRegistryOn(tb testing.TB, storing func(*storage.Options), change ...func(*Options)) *registry {
	tb.Helper()
	dir := tb.TempDir()
	dsn := filepath.Join(dir, "tarport.db")
	db := metadatatest.Open(tb, metadata.Options{DSN: dsn})
	root := filepath.Join(dir, "data")
	quiet := slog.New(slog.DiscardHandler)
	so := storage.Options{DB: db, Root: root, Log: quiet}
	storing(&so)
	st, err := storage.New(so)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := sql.Open("sqlite", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := raw.Close(); err != nil {
			tb.Error(err)
		}
	})
	o := Options{Store: Storage(st), Access: access(allowAll), Log: quiet, Grace: so.Grace}
	for _, fn := range change {
		fn(&o)
	}
	s, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return &registry{Service: s, store: st, db: db, root: root, sql: raw}
}

// load loads an archive into the namespace team.
func (r *registry) load(tb testing.TB, archive []byte, change ...func(*LoadRequest)) (*Result, error) {
	tb.Helper()
	return r.Load(tb.Context(), bytes.NewReader(archive), request(change...))
}

func request(change ...func(*LoadRequest)) LoadRequest {
	q := LoadRequest{Namespace: "team"}
	for _, fn := range change {
		fn(&q)
	}
	return q
}

func (r *registry) mustLoad(tb testing.TB, archive []byte, change ...func(*LoadRequest)) *Result {
	tb.Helper()
	res, err := r.load(tb, archive, change...)
	if err != nil {
		tb.Fatalf("Load: %v", err)
	}
	return res
}

// state is all files and the number of rows of all tables: what must be the
// same after an archive that was refused.
func (r *registry) state(tb testing.TB) map[string]int64 {
	tb.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			out["file "+path] = fi.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	for _, n := range r.tables(tb) {
		var c int64
		if err := r.sql.QueryRowContext(tb.Context(), `SELECT count(*) FROM "`+n+`"`).Scan(&c); err != nil {
			tb.Fatal(err)
		}
		out["rows of "+n] = c
	}
	return out
}

func (r *registry) tables(tb testing.TB) []string {
	tb.Helper()
	rows, err := r.sql.QueryContext(tb.Context(), `SELECT name FROM sqlite_master WHERE type = 'table'`)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			tb.Fatal(err)
		}
		out = append(out, n)
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return out
}

// pull reads a manifest and checks what a client that pulls it would: every
// blob that it names is there, with its digest and size, and every layer
// decompresses, by its media type, to its diffID.
func (r *registry) pull(tb testing.TB, repository string, ref tarport.Reference, want Manifest) {
	tb.Helper()
	m, err := r.store.Manifest(tb.Context(), repository, ref)
	if err != nil {
		tb.Fatalf("Manifest(%s, %s): %v", repository, ref, err)
	}
	if got := digest.FromBytes(m.Payload); got != want.Digest || m.Digest != want.Digest || m.MediaType != want.MediaType {
		tb.Errorf("manifest %s of %s = %s (%s), its payload %s, want %s (%s)", ref, repository, m.Digest, m.MediaType, got, want.Digest, want.MediaType)
	}
	doc, err := parseDocument(m.Payload, DefaultLimits())
	if err != nil {
		tb.Fatalf("manifest %s of %s: %v", ref, repository, err)
	}
	if doc.config == nil {
		return
	}
	if got := r.blobSum(tb, repository, doc.config.Digest, doc.config.Size, false); got != doc.config.Digest {
		tb.Errorf("config of %s = %s, want %s", repository, got, doc.config.Digest)
	}
	if want.ImageID != "" && want.ImageID != doc.config.Digest.String() {
		tb.Errorf("image ID of %s = %s, want %s", repository, doc.config.Digest, want.ImageID)
	}
	for i, l := range doc.layers {
		if got := r.blobSum(tb, repository, l.Digest, l.Size, false); got != l.Digest {
			tb.Errorf("layer %d of %s = %s, want %s", i, repository, got, l.Digest)
		}
		if i < len(want.Layers) && layerTypes[l.MediaType] != "" {
			if got := r.blobSum(tb, repository, l.Digest, l.Size, true); got != want.Layers[i].DiffID {
				tb.Errorf("diffID of layer %d of %s = %s, want %s", i, repository, got, want.Layers[i].DiffID)
			}
		}
	}
}

// blobSum is the sha256 of a blob, or of the layer in it.
func (r *registry) blobSum(tb testing.TB, repository string, d digest.Digest, size int64, asLayer bool) digest.Digest {
	tb.Helper()
	f, b, err := r.store.OpenBlob(tb.Context(), repository, d)
	if err != nil {
		tb.Fatalf("OpenBlob(%s, %s): %v", repository, d, err)
	}
	defer f.Close()
	if b.Size != size {
		tb.Errorf("blob %s has %d bytes, its descriptor says %d", d, b.Size, size)
	}
	in := bufio.NewReader(f)
	if asLayer {
		in = bufio.NewReader(plain(tb, in))
	}
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		tb.Fatalf("read blob %s: %v", d, err)
	}
	return digest.NewDigest(digest.SHA256, h)
}

// plain decompresses a layer as clients do it: by magic, with other libraries
// than those that wrote it.
func plain(tb testing.TB, r *bufio.Reader) io.Reader {
	tb.Helper()
	head, _ := r.Peek(layer.MagicLen)
	switch layer.CompressionOf(head) {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			tb.Fatal(err)
		}
		return z
	case zstded:
		z, err := zstd.NewReader(r)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(z.Close)
		return z
	}
	return r
}

// tagRef makes a Reference of a tag.
func tagRef(tag string) tarport.Reference { return tarport.Reference{Tag: tag} }

func digestRef(d digest.Digest) tarport.Reference { return tarport.Reference{Digest: d} }

// imageNamed finds an image of a result.
func imageNamed(tb testing.TB, res *Result, name string) Image {
	tb.Helper()
	var names []string
	for _, im := range res.Images {
		if im.Name == name {
			return im
		}
		names = append(names, im.Name)
	}
	tb.Fatalf("no image %s, only %v", name, names)
	return Image{}
}
