package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	_ "github.com/distribution/distribution/v3/manifest/ocischema" // manifests that distribution's own storage reads
	distributionstorage "github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarport/tarport"
)

// eachNamespace runs a test on ours, and on distribution's own: what it expects
// is then what distribution's callers are used to.
func eachNamespace(t *testing.T, test func(t *testing.T, ns distribution.Namespace)) {
	t.Helper()
	eachStore(t, func(t *testing.T, s *testStore) { test(t, s.Namespace()) })
	t.Run("distribution's own", func(t *testing.T) {
		t.Parallel()
		ns, err := distributionstorage.NewRegistry(t.Context(), inmemory.New(), distributionstorage.EnableDelete)
		check(t, "NewRegistry", err)
		test(t, ns)
	})
}

func repo(tb testing.TB, ns distribution.Namespace, name string) distribution.Repository {
	tb.Helper()
	named, err := reference.WithName(name)
	check(tb, "WithName", err)
	r, err := ns.Repository(as(tb, 7), named)
	check(tb, "Repository", err)
	if r.Named().Name() != name {
		tb.Errorf("Named() = %s, want %s", r.Named(), name)
	}
	return r
}

func manifestsOf(tb testing.TB, r distribution.Repository) distribution.ManifestService {
	tb.Helper()
	m, err := r.Manifests(as(tb, 7))
	check(tb, "Manifests", err)
	return m
}

// putImage puts an image with its blobs and its tags.
func putImage(tb testing.TB, r distribution.Repository, layer string, tags ...string) (digest.Digest, *testImage) {
	tb.Helper()
	ctx := as(tb, 7)
	img := imageOf(layer)
	for _, b := range [][]byte{configOf(layer), []byte(layer)} {
		_, err := r.Blobs(ctx).Put(ctx, "", b)
		check(tb, "Put a blob", err)
	}
	m, _, err := distribution.UnmarshalManifest(img.mediaType, img.payload())
	check(tb, "UnmarshalManifest", err)
	d, err := manifestsOf(tb, r).Put(ctx, m)
	check(tb, "Put", err)
	for _, tag := range tags {
		check(tb, "Tag", r.Tags(ctx).Tag(ctx, tag, ocispec.Descriptor{Digest: d, MediaType: img.mediaType, Size: int64(len(img.payload()))}))
	}
	return d, img
}

func TestDistributionsBlobStore(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		blobs := repo(t, ns, "a/b").Blobs(ctx)
		b := content(1000)
		d := digest.FromBytes(b)
		_, err := blobs.Stat(ctx, d)
		if err != distribution.ErrBlobUnknown { //nolint:errorlint // as distribution's callers compare
			t.Errorf("Stat of no blob: error = %v, want ErrBlobUnknown", err)
		}
		if _, err = blobs.Get(ctx, d); err != distribution.ErrBlobUnknown { //nolint:errorlint // likewise
			t.Errorf("Get of no blob: error = %v, want ErrBlobUnknown", err)
		}
		if r, err := blobs.Open(ctx, d); err != distribution.ErrBlobUnknown || r != nil { //nolint:errorlint // likewise
			t.Errorf("Open of no blob: %v, error = %v, want ErrBlobUnknown", r, err)
		}
		if err := blobs.Delete(ctx, d); err != distribution.ErrBlobUnknown { //nolint:errorlint // likewise
			t.Errorf("Delete of no blob: error = %v, want ErrBlobUnknown", err)
		}
		put, err := blobs.Put(ctx, "application/octet-stream", b)
		check(t, "Put", err)
		stat, err := blobs.Stat(ctx, d)
		check(t, "Stat", err)
		want := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: 1000}
		if diff := cmp.Diff([]ocispec.Descriptor{want, want}, []ocispec.Descriptor{put, stat}); diff != "" {
			t.Errorf("Put, Stat (-want +got):\n%s", diff)
		}
		got, err := blobs.Get(ctx, d)
		check(t, "Get", err)
		if !bytes.Equal(got, b) {
			t.Errorf("Get gave %d bytes, not those that were put", len(got))
		}
		r, err := blobs.Open(ctx, d)
		check(t, "Open", err)
		_, err = r.Seek(-10, io.SeekEnd)
		check(t, "Seek", err)
		end, err := io.ReadAll(r)
		check(t, "read", err)
		_ = r.Close() // distribution's own is an error each time
		if !bytes.Equal(end, b[990:]) {
			t.Errorf("the end is %x, want %x", end, b[990:])
		}
		w := httptest.NewRecorder()
		check(t, "ServeBlob", blobs.ServeBlob(ctx, w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), d))
		if !bytes.Equal(w.Body.Bytes(), b) || w.Header().Get("Docker-Content-Digest") != d.String() {
			t.Errorf("ServeBlob sent %d bytes and the header %v", w.Body.Len(), w.Header())
		}
		check(t, "Delete", blobs.Delete(ctx, d))
		if _, err = blobs.Stat(ctx, d); err != distribution.ErrBlobUnknown { //nolint:errorlint // likewise
			t.Errorf("Stat after Delete: error = %v, want ErrBlobUnknown", err)
		}
	})
}

func TestDistributionsBlobWriter(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		blobs := repo(t, ns, "a/b").Blobs(ctx)
		b := content(1000)
		if _, err := blobs.Resume(ctx, "none"); err != distribution.ErrBlobUploadUnknown { //nolint:errorlint // as distribution's callers compare
			t.Errorf("Resume of none: error = %v, want ErrBlobUploadUnknown", err)
		}
		w, err := blobs.Create(ctx)
		check(t, "Create", err)
		if w.Size() != 0 || w.ID() == "" || w.StartedAt().IsZero() {
			t.Errorf("a new writer: size %d, id %q, started %v", w.Size(), w.ID(), w.StartedAt())
		}
		_, err = w.Write(b[:100])
		check(t, "Write", err)
		check(t, "Close", w.Close())
		w, err = blobs.Resume(ctx, w.ID())
		check(t, "Resume", err)
		n, err := w.ReadFrom(bytes.NewReader(b[100:]))
		check(t, "ReadFrom", err)
		if n != 900 {
			t.Errorf("ReadFrom = %d, want 900", n)
		}
		d, err := w.Commit(ctx, descriptor(digest.FromBytes(b)))
		check(t, "Commit", err)
		if d.Digest != digest.FromBytes(b) || d.Size != 1000 {
			t.Errorf("Commit = %+v", d)
		}
		_, err = blobs.Stat(ctx, d.Digest)
		check(t, "Stat", err)

		w, err = blobs.Create(ctx)
		check(t, "Create", err)
		_, err = w.Write(b[:10])
		check(t, "Write", err)
		check(t, "Cancel", w.Cancel(ctx))
		if _, err := blobs.Resume(ctx, w.ID()); err != distribution.ErrBlobUploadUnknown { //nolint:errorlint // likewise
			t.Errorf("Resume of a cancelled one: error = %v, want ErrBlobUploadUnknown", err)
		}
	})
}

func TestDistributionsMountIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		b := content(1000)
		d, err := repo(t, ns, "a/b").Blobs(ctx).Put(ctx, "", b)
		check(t, "Put", err)
		to := repo(t, ns, "c/d").Blobs(ctx)
		mount := func(name string, d digest.Digest) (distribution.BlobWriter, error) {
			from, err := reference.WithDigest(repo(t, ns, name).Named(), d)
			check(t, "WithDigest", err)
			return to.Create(ctx, distributionstorage.WithMountFrom(from))
		}
		w, err := mount("a/b", d.Digest)
		mounted, ok := err.(distribution.ErrBlobMounted) //nolint:errorlint // as distribution's callers compare
		if !ok || w != nil || mounted.Descriptor.Digest != d.Digest || mounted.Descriptor.Size != 1000 || mounted.From.Name() != "a/b" {
			t.Errorf("Create = %v, %#v, want ErrBlobMounted", w, err)
		}
		_, err = to.Stat(ctx, d.Digest)
		check(t, "Stat", err)
		for _, c := range []struct {
			from string
			d    digest.Digest
		}{{"a/b", digest.FromString("none")}, {"e/f", d.Digest}} {
			w, err := mount(c.from, c.d)
			check(t, "Create with a mount that is not possible", err)
			check(t, "Cancel", w.Cancel(ctx))
		}
	})
}

func TestDistributionsManifestService(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		r := repo(t, ns, "a/b")
		manifests := manifestsOf(t, r)
		none := digest.FromString("none")
		ok, err := manifests.Exists(ctx, none)
		if ok || err != nil {
			t.Errorf("Exists of none = %v, %v", ok, err)
		}
		_, err = manifests.Get(ctx, none)
		if got, ok := err.(distribution.ErrManifestUnknownRevision); !ok || got.Revision != none || got.Name != "a/b" { //nolint:errorlint // as distribution's callers compare
			t.Errorf("Get of none: error = %#v, want ErrManifestUnknownRevision", err)
		}
		d, img := putImage(t, r, "layer")
		ok, err = manifests.Exists(ctx, d)
		if !ok || err != nil {
			t.Errorf("Exists = %v, %v", ok, err)
		}
		m, err := manifests.Get(ctx, d)
		check(t, "Get", err)
		mediaType, payload, err := m.Payload()
		check(t, "Payload", err)
		if mediaType != img.mediaType || !bytes.Equal(payload, img.payload()) {
			t.Errorf("Payload = %s %s", mediaType, payload)
		}
		var refs []digest.Digest
		for _, ref := range m.References() {
			refs = append(refs, ref.Digest)
		}
		if diff := cmp.Diff([]digest.Digest{img.config.Digest, img.layers[0].Digest}, refs); diff != "" {
			t.Errorf("References (-want +got):\n%s", diff)
		}
		check(t, "Delete", manifests.Delete(ctx, d))
		ok, err = manifests.Exists(ctx, d)
		if ok || err != nil {
			t.Errorf("Exists after Delete = %v, %v", ok, err)
		}
	})
}

func TestDistributionsTagService(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		r := repo(t, ns, "a/b")
		tags := r.Tags(ctx)
		if _, err := tags.All(ctx); err != (distribution.ErrRepositoryUnknown{Name: "a/b"}) { //nolint:errorlint // as distribution's callers compare
			t.Errorf("All of no repository: error = %v, want ErrRepositoryUnknown", err)
		}
		one, _ := putImage(t, r, "one", "a", "B", "c")
		two, _ := putImage(t, r, "two", "d")
		_, err := tags.Get(ctx, "none")
		if err != (distribution.ErrTagUnknown{Tag: "none"}) { //nolint:errorlint // likewise
			t.Errorf("Get of none: error = %v, want ErrTagUnknown", err)
		}
		desc, err := tags.Get(ctx, "c")
		check(t, "Get", err)
		if desc.Digest != one {
			t.Errorf("Get = %+v, want %s", desc, one)
		}
		all, err := tags.All(ctx)
		check(t, "All", err)
		if diff := cmp.Diff([]string{"B", "a", "c", "d"}, all); diff != "" {
			t.Errorf("All (-want +got):\n%s", diff)
		}
		of, err := tags.Lookup(ctx, ocispec.Descriptor{Digest: one})
		check(t, "Lookup", err)
		slices.Sort(of)
		if diff := cmp.Diff([]string{"B", "a", "c"}, of); diff != "" {
			t.Errorf("Lookup (-want +got):\n%s", diff)
		}
		for _, c := range []struct {
			limit int
			last  string
			want  []string
			eof   bool
		}{
			{2, "", []string{"B", "a"}, false},
			{2, "a", []string{"c", "d"}, true},
			{1, "c", []string{"d"}, true},
			{10, "", []string{"B", "a", "c", "d"}, true},
			{10, "b", []string{"c", "d"}, true},
			{-1, "a", []string{"c", "d"}, true},
			{5, "d", nil, true},
		} {
			got, err := tags.List(ctx, c.limit, c.last)
			if c.eof != errors.Is(err, io.EOF) && len(got) != c.limit || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("List(%d, %q): error = %v, want io.EOF: %v", c.limit, c.last, err, c.eof)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("List(%d, %q) (-want +got):\n%s", c.limit, c.last, diff)
			}
		}
		check(t, "Tag", tags.Tag(ctx, "a", ocispec.Descriptor{Digest: two}))
		desc, err = tags.Get(ctx, "a")
		check(t, "Get", err)
		if desc.Digest != two {
			t.Errorf("Get = %+v, want %s", desc, two)
		}
		check(t, "Untag", tags.Untag(ctx, "a"))
		if _, err = tags.Get(ctx, "a"); err != (distribution.ErrTagUnknown{Tag: "a"}) { //nolint:errorlint // likewise
			t.Errorf("Get after Untag: error = %v, want ErrTagUnknown", err)
		}
	})
}

func TestDistributionsLists(t *testing.T) {
	t.Parallel()
	eachNamespace(t, func(t *testing.T, ns distribution.Namespace) {
		ctx := as(t, 7)
		var names []string
		for i := range 5 {
			name := fmt.Sprintf("ns/r%d", i)
			putImage(t, repo(t, ns, name), "layer", "latest")
			names = append(names, name)
		}
		var got []string
		for page := make([]string, 2); ; {
			last := ""
			if len(got) > 0 {
				last = got[len(got)-1]
			}
			n, err := ns.Repositories(ctx, page, last)
			got = append(got, page[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
			check(t, "Repositories", err)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("Repositories (-want +got):\n%s", diff)
		}
		got = nil
		check(t, "Enumerate", ns.(distribution.RepositoryEnumerator).Enumerate(ctx, func(name string) error {
			got = append(got, name)
			return nil
		}))
		slices.Sort(got)
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("Enumerate (-want +got):\n%s", diff)
		}
		if !ns.Scope().Contains("any/name") {
			t.Error("the scope does not have every name")
		}
		seen := map[digest.Digest]bool{}
		check(t, "Enumerate blobs", ns.Blobs().Enumerate(ctx, func(d digest.Digest) error { seen[d] = true; return nil }))
		for _, b := range []string{"layer", string(configOf("layer"))} {
			if !seen[digest.FromString(b)] {
				t.Errorf("the blob %q was not enumerated", b)
			}
			d, err := ns.BlobStatter().Stat(ctx, digest.FromString(b))
			if err != nil || d.Size != int64(len(b)) {
				t.Errorf("Stat = %+v, %v", d, err)
			}
		}
		if _, err := ns.BlobStatter().Stat(ctx, digest.FromString("none")); err != distribution.ErrBlobUnknown { //nolint:errorlint // as distribution's callers compare
			t.Errorf("Stat of no blob: error = %v, want ErrBlobUnknown", err)
		}
		mine := errors.New("mine")
		if err := ns.Blobs().Enumerate(ctx, func(digest.Digest) error { return mine }); err == nil || !strings.Contains(err.Error(), "mine") {
			t.Errorf("Enumerate: error = %v, want mine in it", err)
		}
		remover, ok := ns.(distribution.RepositoryRemover)
		if !ok {
			return
		}
		named, err := reference.WithName(names[0])
		check(t, "WithName", err)
		check(t, "Remove", remover.Remove(ctx, named))
		if ok, err := manifestsOf(t, repo(t, ns, names[0])).Exists(ctx, imageOf("layer").digest()); ok || err != nil {
			t.Errorf("a manifest of a removed repository: %v, %v", ok, err)
		}
	})
}

// TestOurNamespaceDoesMore has what distribution's own does not do, or does in
// another way.
func TestOurNamespaceDoesMore(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *testStore) {
		ctx := as(t, 7)
		ns := s.Namespace()
		r := repo(t, ns, "a/b")
		for what, err := range map[string]error{
			"Untag": r.Tags(ctx).Untag(ctx, "none"), "Untag in no repository": repo(t, ns, "c/d").Tags(ctx).Untag(ctx, "none"),
		} {
			if err != (distribution.ErrTagUnknown{Tag: "none"}) { //nolint:errorlint // as distribution's callers compare
				t.Errorf("%s: error = %v, want ErrTagUnknown", what, err)
			}
		}
		d, img := putImage(t, r, "layer")
		for _, name := range []string{"a/b", "c/d"} {
			err := manifestsOf(t, repo(t, ns, name)).Delete(ctx, digest.FromString("none"))
			if _, ok := err.(distribution.ErrManifestUnknownRevision); !ok { //nolint:errorlint // likewise
				t.Errorf("Delete of none in %s: error = %v, want ErrManifestUnknownRevision", name, err)
			}
		}
		wantCode(t, "Delete of a blob in use", r.Blobs(ctx).Delete(ctx, img.config.Digest), tarport.Conflict)
		// Manifest and tags in one transaction.
		m, _, err := distribution.UnmarshalManifest(img.mediaType, img.payload())
		check(t, "UnmarshalManifest", err)
		_, err = manifestsOf(t, r).Put(ctx, m, distribution.WithTag("one"), distribution.WithTag("two"))
		check(t, "Put", err)
		of, err := r.Tags(ctx).Lookup(ctx, ocispec.Descriptor{Digest: d})
		check(t, "Lookup", err)
		if diff := cmp.Diff([]string{"one", "two"}, of); diff != "" {
			t.Errorf("Lookup (-want +got):\n%s", diff)
		}
		// A session can be looked at while it is written to.
		w, err := r.Blobs(ctx).Create(ctx)
		check(t, "Create", err)
		_, err = w.Write([]byte("x"))
		check(t, "Write", err)
		_, err = r.Blobs(ctx).Resume(ctx, w.ID())
		wantCode(t, "Resume meanwhile", err, tarport.Conflict)
		status, err := r.Blobs(AskOnly(ctx)).Resume(AskOnly(ctx), w.ID())
		check(t, "Resume that only asks", err)
		if status.Size() != 0 {
			t.Errorf("size = %d, want 0: what runs is not in it", status.Size())
		}
		check(t, "Cancel", w.Cancel(ctx))
		// What is too large is not read into memory.
		large, err := r.Blobs(ctx).Put(ctx, "", content(MaxManifest+1))
		check(t, "Put", err)
		if _, err := r.Blobs(ctx).Get(ctx, large.Digest); err == nil {
			t.Error("Get of a blob of 4 MiB and a byte succeeded")
		}
		long, err := reference.WithName("a/" + string(bytes.Repeat([]byte("b"), 250)))
		check(t, "WithName", err)
		check(t, "a long name", func() error { _, err := ns.Repository(ctx, long); return err }())
		tooLong := tooLongName{long}
		if _, err := ns.Repository(ctx, tooLong); err == nil {
			t.Error("Repository of a name of 256 bytes succeeded")
		} else if _, ok := err.(distribution.ErrRepositoryNameInvalid); !ok { //nolint:errorlint // likewise
			t.Errorf("Repository of a name of 256 bytes: error = %#v, want ErrRepositoryNameInvalid", err)
		}
	})
}

// tooLongName is one that reference itself would refuse.
type tooLongName struct{ reference.Named }

func (n tooLongName) Name() string { return n.Named.Name() + "bbbb" }
