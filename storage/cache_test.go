package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// readOnce is a reading that counts how often it is done.
func readOnce(c *cache, k cacheKey, reads *int, size int) string {
	v, _ := cached(c, k, func() (string, error) {
		*reads++
		return fmt.Sprint("reading ", *reads), nil
	}, func(string) int { return size })
	return v
}

func TestTheCacheForgetsARepositoryThatChangedAndNoOther(t *testing.T) {
	t.Parallel()
	c := newCache()
	one, two := cacheKey{cacheTags, "one", "x"}, cacheKey{cacheTags, "two", "x"}
	for c.epoch("one") == c.epoch("two") { // they share it with one chance in 4096
		c = newCache()
	}
	var reads int
	for range 3 {
		readOnce(c, one, &reads, 1)
		readOnce(c, two, &reads, 1)
	}
	if reads != 2 {
		t.Errorf("%d readings, want 2", reads)
	}
	c.changed("one")
	if got := readOnce(c, one, &reads, 1); got != "reading 3" {
		t.Errorf("after the change: %q", got)
	}
	if got := readOnce(c, two, &reads, 1); got != "reading 2" {
		t.Errorf("of the other: %q", got)
	}
	c.forget(two)
	if got := readOnce(c, two, &reads, 1); got != "reading 4" {
		t.Errorf("after it was forgotten: %q", got)
	}
}

func TestAReadingThatAChangeOvertakesIsNotKept(t *testing.T) {
	t.Parallel()
	c := newCache()
	k := cacheKey{cacheTags, "one", "x"}
	var reads int
	v, err := cached(c, k, func() (string, error) {
		c.changed("one") // after the row was read
		return "old", nil
	}, func(string) int { return 1 })
	if v != "old" || err != nil {
		t.Errorf("cached = %q, %v", v, err)
	}
	if got := readOnce(c, k, &reads, 1); got != "reading 1" {
		t.Errorf("afterwards: %q, want a new reading", got)
	}
}

func TestErrorsAndWhatIsTooLargeAreNotKept(t *testing.T) {
	t.Parallel()
	c := newCache()
	k := cacheKey{cacheTags, "one", "x"}
	mine := errors.New("mine")
	if _, err := cached(c, k, func() (string, error) { return "", mine }, func(string) int { return 1 }); !errors.Is(err, mine) {
		t.Errorf("error = %v, want mine", err)
	}
	var reads int
	readOnce(c, k, &reads, cacheMaxItem+1)
	if got := readOnce(c, k, &reads, cacheMaxItem); got != "reading 2" {
		t.Errorf("after a value that is too large: %q", got)
	}
	if got := readOnce(c, k, &reads, 1); got != "reading 2" {
		t.Errorf("after a value that is large: %q", got)
	}
	if got := readOnce(nil, k, &reads, 1); got != "reading 3" {
		t.Errorf("without a cache: %q", got)
	}
}

func TestTheCacheStaysWithinItsBoundsAndKeepsWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	c := newCache()
	var reads int
	hot := cacheKey{cacheManifest, "one", "hot"}
	readOnce(c, hot, &reads, 1000)
	for i := range 100 {
		readOnce(c, cacheKey{cacheManifest, "one", strconv.Itoa(i)}, &reads, cacheMaxItem)
		readOnce(c, hot, &reads, 1000)
	}
	if reads != 101 {
		t.Errorf("%d readings, want 101: what is asked for all the time goes last", reads)
	}
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		if s.bytes < 0 || len(s.items) != s.order.Len() {
			t.Errorf("shard %d: %d bytes, %d items, %d in order", i, s.bytes, len(s.items), s.order.Len())
		}
		total += s.bytes
	}
	if total > cacheBytes {
		t.Errorf("the cache has %d bytes, at most %d are allowed", total, cacheBytes)
	}
}

// TestAReaderThatStartsAfterAWriteReturnedSeesIt has writers move a tag on and
// on, push and delete blobs and add referrers, while readers ask for all of it.
func TestAReaderThatStartsAfterAWriteReturnedSeesIt(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*testStore{"sqlite": onSQLite(t), "postgres": onPostgres(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const versions = 40
			images := make([]*testImage, versions)
			number := map[digest.Digest]int64{}
			for i := range images {
				img := s.pushImage(t, "a/b")
				img.notes = map[string]string{"version": strconv.Itoa(i)}
				images[i], number[img.digest()] = img, int64(i)
			}
			loose := s.push(t, "a/b", []byte("loose"))
			d := s.push(t, "c/d", []byte("comes and goes"))

			var version, referrers atomic.Int64 // what was acknowledged
			var linked atomic.Int64             // 1 of 4: there, 3 of 4: gone, else on its way
			version.Store(-1)
			verified := make(chan struct{}) // a reader has seen the state as it is
			ctx, cancel := context.WithCancel(t.Context())
			var writers, readers sync.WaitGroup
			writers.Go(func() {
				for i, img := range images {
					if _, err := s.PutManifest(t.Context(), img.put("a/b", "latest", "v"+strconv.Itoa(i)), ""); err != nil {
						t.Error(err)
					}
					version.Store(int64(i))
				}
			})
			writers.Go(func() {
				subject := describeBytes("x/y", []byte("subject"))
				for i := range versions {
					img := imageOf()
					img.subject, img.notes = &subject, map[string]string{"referrer": strconv.Itoa(i)}
					if _, err := s.PutManifest(t.Context(), img.put("a/b"), ""); err != nil {
						t.Error(err)
					}
					referrers.Store(int64(i + 1))
				}
			})
			writers.Go(func() {
				for range versions / 2 {
					if _, err := s.MountBlob(t.Context(), "c/d", "a/b", d); err != nil {
						t.Error(err)
					}
					linked.Add(1) // there
					<-verified
					linked.Add(1)
					if err := s.DeleteBlob(t.Context(), "a/b", d); err != nil {
						t.Error(err)
					}
					linked.Add(1) // gone
					<-verified
					linked.Add(1)
				}
			})
			for range 4 {
				readers.Go(func() {
					for ctx.Err() == nil {
						s.readAll(t, &version, &referrers, number)
						if _, err := s.Blob(t.Context(), "a/b", loose); err != nil {
							t.Error(err)
						}
						before := linked.Load()
						_, err := s.Blob(t.Context(), "a/b", d)
						if linked.Load() != before {
							continue // it changed meanwhile
						}
						switch before % 4 {
						case 1:
							if err != nil {
								t.Errorf("a blob that is linked: %v", err)
							}
						case 3:
							if tarport.ErrorCode(err) != tarport.BlobUnknown {
								t.Errorf("a blob that was deleted: error = %v", err)
							}
						default:
							continue
						}
						select {
						case verified <- struct{}{}:
						default:
						}
					}
				})
			}
			writers.Wait()
			cancel()
			readers.Wait()
		})
	}
}

// readAll reads what writers have changed, and compares it with what they had
// been told before the reading began.
func (s *testStore) readAll(t *testing.T, version, referrers *atomic.Int64, number map[digest.Digest]int64) {
	t.Helper()
	told := version.Load()
	m, err := s.Manifest(t.Context(), "a/b", byTag("latest"))
	if told >= 0 && (err != nil || number[m.Digest] < told) {
		t.Errorf("latest is version %v (%v), %d was acknowledged", m, err, told)
	}
	told = version.Load()
	p, err := s.Tags(t.Context(), "a/b", 1000, "")
	if err != nil || int64(p.Count) < told+2 && told >= 0 {
		t.Errorf("%d tags (%v), version %d was acknowledged", p.Count, err, told)
	}
	repos, err := s.Repositories(t.Context(), 10, "")
	if told >= 0 && (err != nil || repos.Count != 1) {
		t.Errorf("%d repositories (%v), want 1", repos.Count, err)
	}
	told = referrers.Load()
	list, _, err := s.Referrers(t.Context(), "a/b", digest.FromString("subject"), "", 1000, "")
	if err != nil || int64(len(list)) < told {
		t.Errorf("%d referrers (%v), %d were acknowledged", len(list), err, told)
	}
}
