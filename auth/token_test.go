package auth

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

type object = map[string]any

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// forger has the registry's own key, for tokens that are wrong in one point
// only, and one of its own.
type forger struct {
	t      *testing.T
	w      *world
	key    *signingKey
	own    ed25519.PrivateKey
	header object
	claims object
}

func newForger(t *testing.T) *forger {
	t.Helper()
	w := newWorld(t)
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := w.clock.now().Unix()
	f := &forger{t: t, w: w, key: w.keys.set.Load().signing, own: own}
	f.header = object{"alg": "EdDSA", "typ": accessTyp, "kid": f.key.kid}
	f.claims = object{
		"iss": "tarport", "aud": "tarport", "sub": fmt.Sprint(w.admin(t).ID), "epoch": 1,
		"iat": now, "nbf": now, "exp": now + 300, "jti": "x",
		"access": []object{{"type": "repository", "name": "team/app", "actions": []string{"pull"}}},
	}
	return f
}

// with is the object with more in it; nil takes a key away.
func with(o, more object) object {
	o = maps.Clone(o)
	for k, v := range more {
		if v == nil {
			delete(o, k)
		} else {
			o[k] = v
		}
	}
	return o
}

func (f *forger) sign(key ed25519.PrivateKey, header, claims string) string {
	text := b64(header) + "." + b64(claims)
	return text + "." + b64(string(ed25519.Sign(key, []byte(text))))
}

// of signs with the registry's own key.
func (f *forger) of(header, claims object) string {
	return f.sign(f.key.private, encode(f.t, header), encode(f.t, claims))
}

func (f *forger) hmac(header string, key []byte) string {
	text := b64(header) + "." + b64(encode(f.t, f.claims))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + b64(string(mac.Sum(nil)))
}

func (f *forger) headers(more object) string { return f.of(with(f.header, more), f.claims) }
func (f *forger) claimed(more object) string { return f.of(f.header, with(f.claims, more)) }

// stolen claims the registry's kid, signed by the forger.
func (f *forger) stolen(more object) string {
	return f.sign(f.own, encode(f.t, with(f.header, more)), encode(f.t, f.claims))
}

// forgeries are by name; each differs from a good token in what its name says.
func (f *forger) forgeries() map[string]string {
	all := map[string]string{}
	for _, some := range []map[string]string{f.otherKeys(), f.otherHeaders(), f.otherClaims(), f.otherForms()} {
		maps.Copy(all, some)
	}
	return all
}

func (f *forger) otherKeys() map[string]string {
	good := f.of(f.header, f.claims)
	unsigned := good[:strings.LastIndex(good, ".")+1]
	pkix, err := x509.MarshalPKIXPublicKey(f.key.public)
	if err != nil {
		f.t.Fatal(err)
	}
	hs := encode(f.t, with(f.header, object{"alg": "HS256"}))
	ownJWK := (&signingKey{public: f.own.Public().(ed25519.PublicKey), kid: f.key.kid}).jwk()
	none := func(alg string) string {
		return b64(encode(f.t, with(f.header, object{"alg": alg}))) + "." + b64(encode(f.t, f.claims)) + "."
	}
	return map[string]string{
		"alg none":                        none("none"),
		"alg None":                        none("None"),
		"alg nOnE":                        none("nOnE"),
		"alg empty":                       none(""),
		"alg none with a signature":       f.headers(object{"alg": "none"}),
		"alg missing":                     f.headers(object{"alg": nil}),
		"alg ES256":                       f.headers(object{"alg": "ES256"}),
		"alg eddsa":                       f.headers(object{"alg": "eddsa"}),
		"alg Ed25519":                     f.headers(object{"alg": "Ed25519"}),
		"alg a list":                      f.headers(object{"alg": []string{"EdDSA"}}),
		"HS256 with the public key":       f.hmac(hs, f.key.public),
		"HS256 with the key as PEM":       f.hmac(hs, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})),
		"HS256 with the key as in JWKS":   f.hmac(hs, []byte(encodeKey(f.key.public))),
		"HS256 with the key set":          f.hmac(hs, f.w.keys.set.Load().jwks),
		"HS256 with an empty key":         f.hmac(hs, nil),
		"EdDSA with an HMAC":              f.hmac(encode(f.t, f.header), f.key.public),
		"another key, trusted kid":        f.stolen(nil),
		"another key, its kid":            f.stolen(object{"kid": thumbprint(f.own.Public().(ed25519.PublicKey))}),
		"another key, no kid":             f.stolen(object{"kid": nil}),
		"another key in jwk":              f.stolen(object{"jwk": ownJWK}),
		"another key in x5c":              f.stolen(object{"x5c": []string{base64.StdEncoding.EncodeToString(pkix)}}),
		"another key at jku":              f.stolen(object{"jku": "http://127.0.0.1:1/jwks.json"}),
		"another key at x5u":              f.stolen(object{"x5u": "http://127.0.0.1:1/cert.pem"}),
		"no signature":                    unsigned,
		"short signature":                 good[:len(good)-4],
		"signature of another token":      unsigned + strings.Split(f.claimed(object{"jti": "y"}), ".")[2],
		"signature of zeros":              unsigned + b64(string(make([]byte, ed25519.SignatureSize))),
		"claims swapped below the header": strings.Join([]string{strings.Split(good, ".")[0], b64(encode(f.t, with(f.claims, object{"sub": "2"}))), strings.Split(good, ".")[2]}, "."),
	}
}

func (f *forger) otherHeaders() map[string]string {
	claims := encode(f.t, f.claims)
	text := encode(f.t, f.header)
	return map[string]string{
		"jwk":                          f.headers(object{"jwk": f.key.jwk()}),
		"x5c":                          f.headers(object{"x5c": []string{"AAAA"}}),
		"x5u":                          f.headers(object{"x5u": "https://example.com"}),
		"jku":                          f.headers(object{"jku": "https://example.com"}),
		"crit":                         f.headers(object{"crit": []string{"exp"}}),
		"crit of nothing":              f.headers(object{"crit": []string{}}),
		"crit with an extension":       f.headers(object{"crit": []string{"b64"}, "b64": true}),
		"b64 false":                    f.headers(object{"b64": false}),
		"zip":                          f.headers(object{"zip": "DEF"}),
		"cty":                          f.headers(object{"cty": "JWT"}),
		"any other header":             f.headers(object{"x": 1}),
		"kid missing":                  f.headers(object{"kid": nil}),
		"kid empty":                    f.headers(object{"kid": ""}),
		"kid unknown":                  f.headers(object{"kid": "unknown"}),
		"kid a path":                   f.headers(object{"kid": "../../../../dev/null"}),
		"kid a statement":              f.headers(object{"kid": "' OR 1=1 --"}),
		"kid a list":                   f.headers(object{"kid": []string{f.key.kid}}),
		"kid in other letters":         f.headers(object{"kid": strings.ToUpper(f.key.kid)}),
		"typ missing":                  f.headers(object{"typ": nil}),
		"typ JWT":                      f.headers(object{"typ": "JWT"}),
		"typ refresh":                  f.headers(object{"typ": "rt+jwt"}),
		"typ in other letters":         f.headers(object{"typ": "AT+JWT"}),
		"header key twice":             f.sign(f.key.private, `{"alg":"none",`+text[1:], claims),
		"header key twice, at the end": f.sign(f.key.private, text[:len(text)-1]+`,"kid":"`+f.key.kid+`"}`, claims),
		"header key in two cases":      f.sign(f.key.private, text[:len(text)-1]+`,"ALG":"none"}`, claims),
		"header with spaces":           f.sign(f.key.private, " "+text, claims),
		"header and more":              f.sign(f.key.private, text+"{}", claims),
		"header a list":                f.sign(f.key.private, "["+text+"]", claims),
		"header null":                  f.sign(f.key.private, "null", claims),
		"header empty":                 f.sign(f.key.private, "", claims),
	}
}

func (f *forger) otherClaims() map[string]string {
	now := f.w.clock.now().Unix()
	text := encode(f.t, f.claims)
	raw := func(claims string) string { return f.sign(f.key.private, encode(f.t, f.header), claims) }
	exp := func(literal string) string {
		return raw(strings.Replace(text, fmt.Sprintf(`"exp":%d`, now+300), `"exp":`+literal, 1))
	}
	return map[string]string{
		"iss missing":              f.claimed(object{"iss": nil}),
		"iss another":              f.claimed(object{"iss": "evil"}),
		"iss a list":               f.claimed(object{"iss": []string{"tarport"}}),
		"aud missing":              f.claimed(object{"aud": nil}),
		"aud empty":                f.claimed(object{"aud": ""}),
		"aud another":              f.claimed(object{"aud": "registry.example.com"}),
		"aud with a tail":          f.claimed(object{"aud": "tarport "}),
		"aud a list of ours":       f.claimed(object{"aud": []string{"tarport"}}),
		"aud a list with ours":     f.claimed(object{"aud": []string{"evil", "tarport"}}),
		"aud an empty list":        f.claimed(object{"aud": []string{}}),
		"aud an object":            f.claimed(object{"aud": object{"tarport": true}}),
		"exp missing":              f.claimed(object{"exp": nil}),
		"exp null":                 exp("null"),
		"exp zero":                 exp("0"),
		"exp negative":             exp("-1"),
		"exp now":                  f.claimed(object{"exp": now}),
		"exp past, within leeway":  f.claimed(object{"exp": now - 1}),
		"exp a float":              exp(fmt.Sprintf("%d.5", now+300)),
		"exp a whole float":        exp(fmt.Sprintf("%d.0", now+300)),
		"exp with an exponent":     exp("9e9"),
		"exp a text":               exp(fmt.Sprintf(`"%d"`, now+300)),
		"exp too large":            exp("99999999999999999999"),
		"exp a list":               exp(fmt.Sprintf("[%d]", now+300)),
		"nbf beyond leeway":        f.claimed(object{"nbf": now + 61}),
		"nbf a float":              f.claimed(object{"nbf": 1.5}),
		"iat beyond leeway":        f.claimed(object{"iat": now + 61}),
		"sub a number":             f.claimed(object{"sub": 1}),
		"sub a name":               f.claimed(object{"sub": "admin"}),
		"sub zero":                 f.claimed(object{"sub": "0"}),
		"sub negative":             f.claimed(object{"sub": "-1"}),
		"sub with a sign":          f.claimed(object{"sub": "+1"}),
		"sub with a zero":          f.claimed(object{"sub": "01"}),
		"sub nobody":               f.claimed(object{"sub": "4711"}),
		"epoch missing":            f.claimed(object{"epoch": nil}),
		"epoch of the future":      f.claimed(object{"epoch": 2}),
		"access a text":            f.claimed(object{"access": "repository:a:pull"}),
		"claims null":              raw("null"),
		"claims a list":            raw("[" + text + "]"),
		"claims a text":            raw(encode(f.t, text)),
		"claims empty":             raw(""),
		"claims and more":          raw(text + text),
		"claims cut off":           raw(text[:len(text)-1]),
		"claim twice":              raw(text[:len(text)-1] + `,"iss":"tarport"}`),
		"claim in two cases":       raw(text[:len(text)-1] + `,"EXP":9999999999}`),
		"claim twice, escaped":     raw(text[:len(text)-1] + `,"\u0065xp":9999999999}`),
		"an upload state as token": f.claimed(object{"aud": "upload"}),
	}
}

func (f *forger) otherForms() map[string]string {
	good := f.of(f.header, f.claims)
	parts := strings.Split(good, ".")
	refresh, err := f.w.issueRefresh(f.t.Context(), identity{user: f.w.admin(f.t)}, dockerClient)
	if err != nil {
		f.t.Fatal(err)
	}
	jws := func() string {
		return encode(f.t, object{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	}
	return map[string]string{
		"empty":                        "",
		"a refresh token":              refresh,
		"a password":                   testPassword.Reveal(),
		"oversized":                    f.claimed(object{"jti": strings.Repeat("x", maxTokenLength)}),
		"many dots":                    strings.Repeat(".", 8000),
		"only two dots":                "..",
		"a trailing dot":               good + ".",
		"a leading dot":                "." + good,
		"five parts":                   good + ".AAAA.AAAA",
		"two parts":                    parts[0] + "." + parts[1],
		"twice":                        good + good,
		"two tokens":                   good + "," + good,
		"a trailing space":             good + " ",
		"a leading space":              " " + good,
		"a trailing line":              good + "\n",
		"a line within":                good[:len(good)-3] + "\r\n" + good[len(good)-3:],
		"a tail after the signature":   good + "A",
		"base64 with padding":          parts[0] + "." + parts[1] + "." + parts[2] + "==",
		"base64 with loose last bits":  good[:len(good)-1] + string(good[len(good)-1]+1),
		"header with loose last bits":  f.looseHeader(),
		"base64 of the other alphabet": f.standardAlphabet(),
		"percent-encoded":              strings.ReplaceAll(good, ".", "%2E"),
		"JWS as JSON":                  jws(),
		"letters that look alike":      strings.Replace(good, "e", "е", 1), // Cyrillic
		"zero byte":                    good + "\x00",
	}
}

// looseHeader has a header whose last base64 character holds bits that decode
// to nothing, signed as it stands.
func (f *forger) looseHeader() string {
	header := encode(f.t, f.header)
	if len(header)%3 == 0 {
		f.t.Fatal("the header has no loose bits")
	}
	h := []byte(b64(header))
	h[len(h)-1]++
	text := string(h) + "." + b64(encode(f.t, f.claims))
	return text + "." + b64(string(ed25519.Sign(f.key.private, []byte(text))))
}

func (f *forger) standardAlphabet() string {
	for i := 0; ; i++ {
		text := f.claimed(object{"jti": fmt.Sprint(i)})
		if other := strings.NewReplacer("-", "+", "_", "/").Replace(text); other != text {
			return other
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	f := newForger(t)
	// What the forger makes without a fault is good, so each fails for its own.
	for name, token := range map[string]string{
		"no fault": f.of(f.header, f.claims), "another jti": f.claimed(object{"jti": "y"}),
		"nbf within leeway": f.claimed(object{"nbf": f.w.clock.now().Unix() + 60}),
		"one second left":   f.claimed(object{"exp": f.w.clock.now().Unix() + 1}),
		"an unknown claim":  f.claimed(object{"of a newer version": true}),
	} {
		if _, err := f.w.Authenticate(from(t.Context(), "Bearer "+token)); err != nil {
			t.Fatalf("Authenticate(%s): %v", name, err)
		}
	}
	forgeries := f.forgeries()
	if len(forgeries) < 100 {
		t.Errorf("%d forgeries, want the names to differ", len(forgeries))
	}
	for name, token := range forgeries {
		for range 2 { // also when it was seen before
			p, err := f.w.Authenticate(from(t.Context(), "Bearer "+token))
			wantCode(t, name, err, tarport.Unauthorized)
			if !p.Anonymous() || p.Scope != nil {
				t.Errorf("%s: principal = %+v, want none", name, p)
			}
		}
		if name == "empty" {
			continue
		}
		if got := f.w.Challenge(from(t.Context(), "Bearer "+token)); !strings.HasSuffix(got, `,error="invalid_token"`) {
			t.Errorf("%s: Challenge = %s, want invalid_token", name, got)
		}
	}
}

func TestTokenSaysWhoAndForWhat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, err := w.Authenticate(from(t.Context(), "Bearer "+w.token(t, "repository:team/app:push,pull registry:catalog:*")))
	if err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	want := tarport.Principal{UserID: w.admin(t).ID, Name: "admin", Admin: true, Scope: []tarport.Grant{
		{Repository: "team/app", Actions: []tarport.Action{tarport.Pull, tarport.Push}},
		{Actions: []tarport.Action{Catalog}},
	}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("principal: -got +want\n%s", diff)
	}
	if got, err = w.Authenticate(from(t.Context(), "bearer "+w.token(t))); err != nil || got.Scope == nil || len(got.Scope) != 0 {
		t.Errorf("principal of a token without a scope = %+v, %v, want an empty scope", got, err)
	}
}

func TestTokenOfTheStrangerIsTheStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, _, err := w.issue(t.Context(), identity{user: w.admin(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	anonymous, _, err := w.issue(t.Context(), identity{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := w.Authenticate(from(t.Context(), "Bearer "+anonymous)); err != nil || !p.Anonymous() || p.Scope == nil {
		t.Errorf("Authenticate = %+v, %v, want the stranger with a scope", p, err)
	}
	if text == anonymous {
		t.Error("two tokens are equal")
	}
}

func TestTokenEndsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := from(t.Context(), "Bearer "+w.token(t))
	for _, d := range []time.Duration{0, accessLife - time.Second} {
		w.clock.advance(d)
		if _, err := w.Authenticate(r); err != nil {
			t.Errorf("Authenticate after %s: %v", d, err)
		}
	}
	w.clock.advance(time.Second)
	_, err := w.Authenticate(r)
	wantCode(t, "Authenticate after its life", err, tarport.Unauthorized)
}

// Rights are read when they are used: on every replica, at most stateAge old.
func TestRightsAreReadAtUse(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]string{
		"disabled":         `UPDATE users SET disabled_at = 1`,
		"deleted":          `DELETE FROM users`,
		"of another epoch": `UPDATE users SET token_epoch = token_epoch + 1`,
	} {
		w := newWorld(t)
		r := from(t.Context(), "Bearer "+w.token(t))
		if _, err := w.Authenticate(r); err != nil {
			t.Fatalf("Authenticate: %v", err)
		}
		w.exec(t, query)
		w.clock.advance(stateAge)
		_, err := w.Authenticate(r)
		wantCode(t, "Authenticate of a user who is "+name, err, tarport.Unauthorized)
	}
	w := newWorld(t)
	r := from(t.Context(), "Bearer "+w.token(t, "repository:a:pull"))
	if p, err := w.Authenticate(r); err != nil || !p.Admin {
		t.Fatalf("Authenticate = %+v, %v, want an administrator", p, err)
	}
	w.exec(t, `UPDATE users SET admin = FALSE`)
	w.clock.advance(stateAge)
	if p, err := w.Authenticate(r); err != nil || p.Admin {
		t.Errorf("Authenticate = %+v, %v, want no administrator any more", p, err)
	}
}

// Without the database nobody is let in: what is remembered is stateAge old.
func TestWithoutTheDatabaseTokensAreNoUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := from(t.Context(), "Bearer "+w.token(t))
	if _, err := w.Authenticate(r); err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	w.exec(t, `ALTER TABLE users RENAME TO lost`)
	w.clock.advance(stateAge)
	if p, err := w.Authenticate(r); err == nil || tarport.ErrorCode(err) == tarport.Unauthorized || !p.Anonymous() {
		t.Errorf("Authenticate = %+v, %v, want an internal error", p, err)
	}
	if p, err := w.Authenticate(from(t.Context(), basicAuth("admin", testPassword))); err == nil || !p.Anonymous() {
		t.Errorf("Authenticate by password = %+v, %v, want an internal error", p, err)
	}
}

func TestTokenThatWeWouldRefuseIsNotIssued(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var grants []tarport.Grant
	for i := range maxScopes {
		grants = append(grants, tarport.Grant{Repository: fmt.Sprintf("%s%d", strings.Repeat("a", 200), i), Actions: actions[:]})
	}
	_, _, err := w.issue(t.Context(), identity{user: w.admin(t)}, grants)
	wantCode(t, "issue of a token over the limit", err, tarport.Invalid)
}

// Whatever is done to a token, only the token itself is believed.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	good := w.token(f, "repository:team/app:pull,push")
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := w.verify(t.Context(), text)
		if (err == nil) != (text == good) {
			t.Errorf("verify(%q) = %+v, %v", text, tok, err)
		}
		if err != nil && tarport.ErrorCode(err) != tarport.Unauthorized {
			t.Errorf("verify(%q) = %v, want %s", text, err, tarport.Unauthorized)
		}
	})
}
