package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// RFC 8037, appendices A.2 and A.3.
func TestThumbprintIsTheOneOfTheRFC(t *testing.T) {
	t.Parallel()
	key, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := thumbprint(ed25519.PublicKey(key)), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; got != want {
		t.Errorf("thumbprint = %s, want %s", got, want)
	}
}

func TestKeysAreMadeOnceAndSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stored, err := w.db.SigningKeys(t.Context())
	if err != nil || len(stored) != 1 {
		t.Fatalf("SigningKeys = %v, %v, want one", stored, err)
	}
	key := w.keys.set.Load().signing
	if stored[0].KID != key.kid || key.kid != thumbprint(key.public) {
		t.Errorf("kid = %s, stored %s, want %s", key.kid, stored[0].KID, thumbprint(key.public))
	}
	if bytes.Contains(stored[0].Sealed, key.private.Seed()) {
		t.Error("the private key lies in the database in clear")
	}
	again, _ := newService(t, w.db, w.clock)
	if got := again.keys.set.Load().signing.kid; got != key.kid {
		t.Errorf("after a restart %s signs, want %s", got, key.kid)
	}

	_, err = New(t.Context(), Options{DB: w.db, Secret: testSecret + "x", Now: w.clock.now})
	if err == nil || !strings.Contains(err.Error(), key.kid) {
		t.Errorf("New with another secret = %v, want an error that names the key", err)
	}
	w.exec(t, `UPDATE signing_keys SET kid = 'another'`)
	if _, err := New(t.Context(), Options{DB: w.db, Secret: testSecret, Now: w.clock.now}); err == nil {
		t.Error("New with a key under another kid = nil, want an error")
	}
}

func TestKeysRotateWithoutARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := newService(t, w.db, w.clock) // another replica
	old := w.token(t)
	oldKey := w.keys.set.Load().signing.kid

	w.clock.advance(keysAgeUnknown)
	if err := w.keys.generate(t.Context()); err != nil {
		t.Fatalf("generate: %v", err)
	}
	w.exec(t, `UPDATE signing_keys SET verify_until = $1 WHERE kid = $2`,
		w.clock.now().Add(accessLife).UnixMicro(), oldKey)
	if _, err := w.keys.read(t.Context()); err != nil {
		t.Fatalf("read: %v", err)
	}
	fresh := w.token(t)
	if kid := w.keys.set.Load().signing.kid; kid == oldKey {
		t.Fatalf("the retired key %s still signs", kid)
	}
	for name, token := range map[string]string{"old": old, "new": fresh} {
		if _, err := other.Authenticate(from(t.Context(), "Bearer "+token)); err != nil {
			t.Errorf("Authenticate with the %s key on another replica: %v", name, err)
		}
	}
	if n := len(other.keys.set.Load().byHeader); n != 2 {
		t.Errorf("the other replica has %d keys, want 2", n)
	}

	w.clock.advance(accessLife) // no token of the old key is alive
	if _, err := other.Authenticate(from(t.Context(), "Bearer "+w.token(t))); err != nil {
		t.Errorf("Authenticate: %v", err)
	}
	if n := len(other.keys.set.Load().byHeader); n != 1 {
		t.Errorf("the other replica has %d keys, want 1", n)
	}
}

// A stranger's tokens must not make us ask the database again and again.
func TestUnknownKeysAreLookedUpEveryFewSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	unknown := func() {
		_, err := w.Authenticate(from(t.Context(), "Bearer e30.e30.AAAA"))
		wantCode(t, "token of an unknown key", err, tarport.Unauthorized)
	}
	before := w.keys.set.Load()
	for range 10 {
		unknown()
	}
	if w.keys.set.Load() != before {
		t.Error("the keys were read again at once")
	}
	w.clock.advance(keysAgeUnknown)
	unknown()
	if after := w.keys.set.Load(); after == before {
		t.Errorf("the keys were not read again after %s", keysAgeUnknown)
	}
}

func TestKeySetHoldsThePublicKeysOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.keys.set.Load().signing
	var got map[string][]map[string]string
	if err := json.Unmarshal(w.keys.set.Load().jwks, &got); err != nil {
		t.Fatalf("the key set is no JSON: %v", err)
	}
	want := map[string][]map[string]string{"keys": {{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid,
		"x": base64.RawURLEncoding.EncodeToString(key.public),
	}}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("key set: -got +want\n%s", diff)
	}
}
