package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// The cost of a password hash, as OWASP's password storage cheat sheet has it
// for argon2id. A hash says its parameters, so that others can come after them.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	saltLength   = 16
	hashLength   = 32
)

// argonPrefix is how a hash begins that has these parameters.
const argonPrefix = "$argon2id$v=19$m=19456,t=2,p=1$"

const (
	maxPassword = 1 << 10 // bytes
	maxHashing  = 2       // hashes at once, each of argonMemory
	maxQueue    = 64      // logins that wait for their turn
)

// passwords hashes passwords and compares them, a few at once.
type passwords struct {
	queue  chan struct{} // holds one of each who hashes or waits
	slots  chan struct{} // holds one of each who hashes
	derive func(password, salt []byte) []byte
	dummy  string // a hash that no password is known for

	free    func()     // gives back to the system what is not in use
	tidying sync.Mutex // tried only
	next    time.Time  // when free may be called again
}

func newPasswords() *passwords {
	p := &passwords{
		queue: make(chan struct{}, maxHashing+maxQueue),
		slots: make(chan struct{}, maxHashing),
		derive: func(password, salt []byte) []byte {
			return argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, hashLength)
		},
		free: debug.FreeOSMemory,
	}
	p.dummy = encodeHash(randomBytes(saltLength), randomBytes(hashLength))
	return p
}

// turn waits for the right to hash once; done gives it back. Where too many
// wait already the error is TOOMANYREQUESTS.
func (p *passwords) turn(ctx context.Context) (done func(), err error) {
	select {
	case p.queue <- struct{}{}:
	default:
		return nil, tooMany("too many logins at once", time.Second)
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		<-p.queue
		return nil, ctx.Err()
	}
	return func() { <-p.slots; <-p.queue; p.tidy() }, nil
}

// tidyEvery is how often memory is given back at most, and tidyRest how many
// times as long as that took nothing is then. A collection takes milliseconds in
// a process at rest, as a tenth of a hash does; but as long as there is much in
// memory, and logins that fail must not be what the processor is busy with.
const (
	tidyEvery = 200 * time.Millisecond
	tidyRest  = 50
)

// tidy gives back what hashes took, when nobody waits for one. Each leaves
// argonMemory behind, in a process that needs half of that: the next collection
// would see it as in use, and let the heap grow to twice that.
func (p *passwords) tidy() {
	if len(p.queue) > 0 || !p.tidying.TryLock() {
		return
	}
	defer p.tidying.Unlock()
	begun := time.Now()
	if begun.Before(p.next) {
		return
	}
	p.free()
	took := time.Since(begun)
	p.next = begun.Add(took + max(tidyEvery, tidyRest*took))
}

// hash is what is stored of a password.
func (p *passwords) hash(password tarport.Secret) string {
	salt := randomBytes(saltLength)
	return encodeHash(salt, p.derive([]byte(password), salt))
}

func encodeHash(salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return argonPrefix + b64.EncodeToString(salt) + "$" + b64.EncodeToString(hash)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// matches tells whether the stored hash is of the password. It takes the same
// time for a right and for a wrong one.
func (p *passwords) matches(stored string, password tarport.Secret) (bool, error) {
	rest, ok := strings.CutPrefix(stored, argonPrefix)
	saltText, hashText, two := strings.Cut(rest, "$")
	salt, serr := base64.RawStdEncoding.DecodeString(saltText)
	want, herr := base64.RawStdEncoding.DecodeString(hashText)
	if !ok || !two || serr != nil || herr != nil || len(want) != hashLength {
		return false, errors.New("a stored password hash is not of a form that is known")
	}
	return subtle.ConstantTimeCompare(p.derive([]byte(password), salt), want) == 1, nil
}

const (
	maxLogins = 1024
	loginLife = 5 * time.Minute
)

// loginCache remembers passwords that were right, so that the many requests of
// one docker push cost one hash. It knows them only as an HMAC under a key that
// ends with the process, over the stored hash too: a changed password is
// another entry.
type loginCache struct {
	key   []byte
	until *lru[loginKey, time.Time]
}

type loginKey [sha256.Size]byte

func newLoginCache() *loginCache {
	return &loginCache{key: randomBytes(sha256.Size), until: newLRU[loginKey, time.Time](maxLogins)}
}

// of is the key of a login; more makes it narrower.
func (c *loginCache) of(u metadata.User, password tarport.Secret, more ...string) loginKey {
	mac := hmac.New(sha256.New, c.key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(u.ID)) //nolint:gosec // any 64 bits will do
	mac.Write(n[:])
	for _, part := range append([]string{u.PasswordHash, password.Reveal()}, more...) {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write([]byte(part))
	}
	return loginKey(mac.Sum(nil))
}

func (c *loginCache) has(key loginKey, now time.Time) bool {
	until, ok := c.until.get(key)
	return ok && now.Before(until)
}

func (c *loginCache) add(key loginKey, now time.Time) { c.until.put(key, now.Add(loginLife)) }
