package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/storage/metadata"
)

// How old the keys in memory may be: when all goes well, and when a token
// comes that none of them signed (another replica may have a new one).
const (
	keysAge        = time.Minute
	keysAgeUnknown = 5 * time.Second
)

// keyDelay is how long a new key is only published before it signs: every
// replica has read it by then.
const keyDelay = 2 * keysAge

// keyring has the keys that sign and verify access tokens. They come from the
// database and from nowhere else: no token can name a place to get one from.
type keyring struct {
	db    *metadata.DB
	now   func() time.Time
	seal  cipher.AEAD
	set   atomic.Pointer[keySet]
	reads singleflight.Group
}

// keySet is what the database had at one time.
type keySet struct {
	signing *signingKey
	// byHeader has the keys by the encoded header of the tokens that they
	// sign. A token is looked up by its header as it came, so that nothing of
	// the header is understood, and nothing but alg, kid and typ can be in it.
	byHeader map[string]*signingKey
	jwks     []byte
	readAt   time.Time
}

type signingKey struct {
	kid     string
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

// newKeyring reads the keys and makes the first one where there is none.
func newKeyring(ctx context.Context, db *metadata.DB, secret tarport.Secret, now func() time.Time) (*keyring, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "tarport signing keys", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the sealing cipher: %w", err)
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make the sealing cipher: %w", err)
	}
	k := &keyring{db: db, now: now, seal: seal}
	set, err := k.read(ctx)
	if err != nil || set.signing != nil {
		return k, err
	}
	// Replicas that start at once may make one each; all verify, one signs.
	if err := k.generate(ctx); err != nil {
		return nil, err
	}
	_, err = k.read(ctx)
	return k, err
}

// generate stores a new key.
func (k *keyring) generate(ctx context.Context) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	kid := thumbprint(public)
	return k.db.AddSigningKey(ctx, kid, k.seal.Seal(nil, nil, private.Seed(), []byte(kid)))
}

// rotate makes a new key where the newest is as old as life, and retires those
// that no longer sign: they verify until the last token that they signed cannot
// even finish an upload.
func (k *keyring) rotate(ctx context.Context, life time.Duration) error {
	stored, err := k.db.SigningKeys(ctx)
	if err != nil {
		return err
	}
	now := k.now()
	if len(stored) == 0 || now.Sub(stored[0].CreatedAt) >= life {
		if err := k.generate(ctx); err != nil {
			return err
		}
	}
	// A replica may go on with the old key until it reads the keys again.
	verifyUntil := now.Add(keysAge + accessLife + uploadGrace + clockLeeway)
	if err := k.db.RetireSigningKeys(ctx, now.Add(-keyDelay), verifyUntil); err != nil {
		return err
	}
	_, err = k.read(ctx)
	return err
}

// open unseals a stored key. Its public half is derived and not stored: who can
// write to the database still cannot add a key of his own.
func (k *keyring) open(stored metadata.SigningKey) (*signingKey, error) {
	seed, err := k.seal.Open(nil, nil, stored.Sealed, []byte(stored.KID))
	if err != nil {
		return nil, fmt.Errorf("signing key %s was sealed with another server secret: start with that one, "+
			"the same on every replica, or delete the key's row from signing_keys, which ends the access tokens of the last minutes and nothing else: %w",
			stored.KID, err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key %s has %d bytes, want %d", stored.KID, len(seed), ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	return &signingKey{kid: stored.KID, private: private, public: private.Public().(ed25519.PublicKey)}, nil
}

// read takes the keys from the database.
func (k *keyring) read(ctx context.Context) (*keySet, error) {
	set := &keySet{byHeader: map[string]*signingKey{}, readAt: k.now()}
	stored, err := k.db.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	active, young := set.readAt.Add(-keyDelay), false
	public := struct {
		Keys []jwk `json:"keys"`
	}{[]jwk{}}
	for _, s := range stored {
		key, err := k.open(s)
		if err != nil {
			return nil, err
		}
		header, err := key.header()
		if err != nil {
			return nil, err
		}
		set.byHeader[header] = key
		public.Keys = append(public.Keys, key.jwk())
		// The newest signs, once every replica knows it; until then the one before.
		if !s.Retired && (set.signing == nil || young) {
			set.signing, young = key, s.CreatedAt.After(active)
		}
	}
	if set.jwks, err = json.Marshal(public); err != nil {
		return nil, fmt.Errorf("encode the key set: %w", err)
	}
	k.set.Store(set)
	return set, nil
}

// current returns the keys, at most age old.
func (k *keyring) current(ctx context.Context, age time.Duration) (*keySet, error) {
	if set := k.set.Load(); k.now().Sub(set.readAt) < age {
		return set, nil
	}
	set, err, _ := k.reads.Do("", func() (any, error) { return k.read(context.WithoutCancel(ctx)) })
	if err != nil {
		return nil, err
	}
	return set.(*keySet), nil
}

// verifying returns the key whose tokens have the encoded header; nil where
// there is none.
func (k *keyring) verifying(ctx context.Context, header string) (*signingKey, error) {
	set, err := k.current(ctx, keysAge)
	if err == nil && set.byHeader[header] == nil {
		set, err = k.current(ctx, keysAgeUnknown)
	}
	if err != nil {
		return nil, err
	}
	return set.byHeader[header], nil
}

// sign makes an access token of the claims.
func (k *keyring) sign(ctx context.Context, c *claims) (string, error) {
	set, err := k.current(ctx, keysAge)
	if err != nil {
		return "", err
	}
	if set.signing == nil {
		return "", errors.New("sign token: every signing key is retired")
	}
	text, err := set.signing.token(c).SignedString(set.signing.private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}

func (s *signingKey) token(c jwt.Claims) *jwt.Token {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["kid"] = s.kid
	t.Header["typ"] = accessTyp
	return t
}

// header is the encoded header of the tokens that the key signs.
func (s *signingKey) header() (string, error) {
	text, err := s.token(&claims{}).SigningString()
	if err != nil {
		return "", fmt.Errorf("encode token header: %w", err)
	}
	header, _, _ := strings.Cut(text, ".")
	return header, nil
}

// jwk is a public key as RFC 8037 writes it.
type jwk struct {
	Curve     string `json:"crv"`
	Type      string `json:"kty"`
	X         string `json:"x"`
	Algorithm string `json:"alg"`
	KID       string `json:"kid"`
	Use       string `json:"use"`
}

func (s *signingKey) jwk() jwk {
	return jwk{Curve: "Ed25519", Type: "OKP", X: encodeKey(s.public), Algorithm: jwt.SigningMethodEdDSA.Alg(), KID: s.kid, Use: "sig"}
}

func encodeKey(key ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(key) }

// thumbprint is the key's name by RFC 7638: the hash of its required members,
// by name, without spaces (RFC 8037, appendix A.3).
func thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + encodeKey(key) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
