package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// account is a user, a robot or the administrator: a docker and an API client
// with a login of its own.
type account struct {
	*docker
	server         *server
	client         *client
	name, password string
}

func (s *server) admin(t *testing.T) *account {
	t.Helper()
	return s.account(t, "admin", adminPassword)
}

// account has a docker that is not logged in.
func (s *server) account(t *testing.T, name, password string) *account {
	t.Helper()
	return &account{docker: newDocker(t), server: s, client: s.client(t), name: name, password: password}
}

// newUser is an account that the administrator makes, logged in.
func (s *server) newUser(t *testing.T, name string) *account {
	t.Helper()
	a := s.account(t, name, "pass word/of+"+name)
	s.admin(t).api(t, http.StatusCreated, http.MethodPost, "/users", map[string]any{"name": name, "password": a.password})
	a.mustLogin(t)
	return a
}

// api makes a call that has to be answered with the status, and returns the
// answer.
func (a *account) api(t *testing.T, status int, method, path string, body any) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.client.raw(t.Context(), method, "/api/v1"+path, b, "Authorization", basicAuth(a.name, a.password))
	if err != nil || r.status != status {
		t.Fatalf("%s %s by %s = %d (%v), want %d\n%s", method, path, a.name, r.status, err, status, r.body)
	}
	answer := map[string]any{}
	if len(r.body) > 0 {
		if err := json.Unmarshal(r.body, &answer); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, path, err, r.body)
		}
	}
	return answer
}

// tryLogin is docker login with the password on standard input.
func (a *account) tryLogin(t *testing.T, password string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), a.cli, "login", "-u", a.name, "--password-stdin", a.server.addr)
	cmd.Env = append(os.Environ(), a.env()...)
	cmd.Stdin = strings.NewReader(password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (a *account) mustLogin(t *testing.T) {
	t.Helper()
	if out, err := a.tryLogin(t, a.password); err != nil {
		t.Fatalf("docker login of %s: %v\n%s", a.name, err, out)
	}
}

func (a *account) mustNotLogin(t *testing.T, password string) {
	t.Helper()
	out, err := a.tryLogin(t, password)
	if err == nil || !strings.Contains(out, "unauthorized: the user name or the password is wrong") || strings.Contains(out, password) {
		t.Errorf("docker login of %s with what is not good any more: %v\n%s", a.name, err, out)
	}
}

// image makes a small image of its own under the name and returns the whole
// reference.
func (a *account) image(t *testing.T, name string) string {
	t.Helper()
	ref := a.server.addr + "/" + name
	a.importImage(t, ref, map[string]string{"file": unique()})
	return ref
}

// internalWords are what no message to a person has.
var internalWords = regexp.MustCompile(`(?i)sql|panic|goroutine|internal error|unknown error|nil pointer|\.go:`)

// mustFailWell expects docker to fail with the words, and with nothing that a
// person would not understand.
func (a *account) mustFailWell(t *testing.T, words string, args ...string) {
	t.Helper()
	out, err := a.run(t, args...)
	if err == nil {
		t.Fatalf("docker %s by %s succeeded, want it to fail with %q\n%s", strings.Join(args, " "), a.name, words, out)
	}
	if !strings.Contains(out, words) || internalWords.MatchString(out) {
		t.Errorf("docker %s by %s says %q, want it to say %q", strings.Join(args, " "), a.name, out, words)
	}
}

// pulls takes the image from the registry anew.
func (a *account) pulls(t *testing.T, ref string) {
	t.Helper()
	a.forget(ref)
	a.must(t, "pull", ref)
}

// TestDockerOfATeam is two users, a stranger, and a private and a public
// namespace.
func TestDockerOfATeam(t *testing.T) {
	t.Parallel()
	newDocker(t) // or skip
	s := serve(t)
	alice, bob, stranger := s.newUser(t, "alice"), s.newUser(t, "bob"), s.account(t, "stranger", "")
	stranger.mustNotLogin(t, "whatever it is")
	bob.mustNotLogin(t, "not of bob")
	alice.api(t, http.StatusCreated, http.MethodPost, "/namespaces", map[string]any{"name": "tools", "visibility": "public"})
	app, tool := alice.image(t, "team/app:1"), alice.image(t, "tools/tool:1")
	alice.push(t, app) // makes the namespace, private and hers
	alice.push(t, tool)

	// Who is no member sees what is public, and of the rest not that it is there.
	bob.pulls(t, tool)
	bob.mustFailWell(t, "you may not push into the namespace tools", "push", tool)
	bob.mustFailWell(t, "not found", "pull", app)
	bob.mustFailWell(t, "not found", "pull", s.addr+"/absent/app:1")
	bob.mustFailWell(t, "you may not push into the namespace team", "push", bob.image(t, "team/app:bob"))
	stranger.pulls(t, tool)
	// What docker (20.10) says to a 401 for a token that grants nothing is its own.
	stranger.mustFailWell(t, "repository does not exist or may require 'docker login'", "pull", app)
	stranger.mustFailWell(t, "repository does not exist or may require 'docker login'", "pull", s.addr+"/absent/app:1")
	stranger.mustFailWell(t, "authentication required: log in first", "push", tool)
	stranger.mustFailWell(t, "denied: requested access to the resource is denied", "push", stranger.image(t, "new/app:1"))

	const member = "/namespaces/team/members/bob"
	alice.api(t, http.StatusCreated, http.MethodPut, member, map[string]any{"role": "reader"})
	bob.pulls(t, app)
	mine := bob.image(t, "team/app:bob")
	bob.mustFailWell(t, "this needs the role writer in the namespace team, and you are a reader: ask one of its owners", "push", mine)
	alice.api(t, http.StatusOK, http.MethodPut, member, map[string]any{"role": "writer"})
	bob.push(t, mine)
	alice.pulls(t, mine)

	alice.api(t, http.StatusNoContent, http.MethodDelete, member, nil)
	bob.mustFailWell(t, "not found", "pull", app)
	bob.mustFailWell(t, "you may not push into the namespace team", "push", bob.image(t, "team/app:late"))
	s.admin(t).api(t, http.StatusOK, http.MethodPatch, "/users/bob", map[string]any{"disabled": true})
	bob.mustFailWell(t, "unauthorized", "pull", tool)
	bob.mustNotLogin(t, bob.password)
}

// TestDockerOfARobot lets a robot do what its role is for, in its namespace.
func TestDockerOfARobot(t *testing.T) {
	t.Parallel()
	newDocker(t)
	s := serve(t)
	alice := s.newUser(t, "alice")
	alice.api(t, http.StatusCreated, http.MethodPost, "/namespaces", map[string]any{"name": "team"})
	const robots = "/namespaces/team/robots"
	robot := func(name, role string) *account {
		made := alice.api(t, http.StatusCreated, http.MethodPost, robots, map[string]any{"name": name, "role": role})
		r := s.account(t, made["login"].(string), made["secret"].(string))
		r.mustLogin(t)
		return r
	}
	ci, prod := robot("ci", "writer"), robot("prod", "reader")
	app := ci.image(t, "team/app:1")
	ci.push(t, app)
	prod.pulls(t, app)
	prod.mustFailWell(t, "this needs the role writer in the namespace team, and you are a reader", "push", prod.image(t, "team/app:2"))
	ci.mustFailWell(t, "you may not push into the namespace other", "push", ci.image(t, "other/app:1"))

	rotated := alice.api(t, http.StatusOK, http.MethodPatch, robots+"/ci", map[string]any{"rotate": true})
	ci.mustFailWell(t, "unauthorized", "push", app)
	ci.mustNotLogin(t, ci.password)
	ci.password = rotated["secret"].(string)
	ci.mustLogin(t)
	ci.push(t, app)
	alice.api(t, http.StatusOK, http.MethodPatch, robots+"/prod", map[string]any{"disabled": true})
	prod.mustFailWell(t, "unauthorized", "pull", app)
	prod.mustNotLogin(t, prod.password)
}

// TestDockerWithAnAccessToken uses personal access tokens as passwords.
func TestDockerWithAnAccessToken(t *testing.T) {
	t.Parallel()
	newDocker(t)
	s := serve(t)
	alice := s.newUser(t, "alice")
	token := func(body map[string]any) (*account, string) {
		made := alice.api(t, http.StatusCreated, http.MethodPost, "/user/tokens", body)
		a := s.account(t, "alice", made["secret"].(string))
		a.mustLogin(t)
		id, err := json.Marshal(made["id"])
		if err != nil {
			t.Fatal(err)
		}
		return a, "/user/tokens/" + string(id)
	}
	all, allPath := token(map[string]any{"name": "laptop", "expires_in": "720h"})
	app, other := all.image(t, "team/app:1"), all.image(t, "other/app:1")
	all.push(t, app)
	all.push(t, other)

	reading, _ := token(map[string]any{"name": "cluster", "read_only": true})
	reading.pulls(t, app)
	reading.mustFailWell(t, `the token "cluster" is for reading only`, "push", reading.image(t, "team/app:2"))
	narrow, _ := token(map[string]any{"name": "build", "namespace": "team"})
	narrow.push(t, narrow.image(t, "team/app:3"))
	narrow.mustFailWell(t, "not found", "pull", other)
	narrow.mustFailWell(t, "you may not push into the namespace other", "push", narrow.image(t, "other/app:2"))

	// A token makes no heirs, and ends itself.
	all.api(t, http.StatusForbidden, http.MethodPost, "/user/tokens", map[string]any{"name": "heir"})
	all.api(t, http.StatusNoContent, http.MethodDelete, allPath, nil)
	all.mustFailWell(t, "unauthorized", "pull", app)
	all.mustNotLogin(t, all.password)
	alice.pulls(t, app)
}

func TestDockerPushOverTheQuota(t *testing.T) {
	t.Parallel()
	newDocker(t)
	s := serve(t)
	admin := s.admin(t)
	admin.mustLogin(t)
	admin.api(t, http.StatusCreated, http.MethodPost, "/namespaces", map[string]any{"name": "team", "quota_bytes": 256 << 10})
	small := admin.image(t, "team/small:1")
	admin.push(t, small)
	big := s.addr + "/team/big:1"
	admin.importImage(t, big, map[string]string{"big": incompressible(512 << 10)})
	admin.mustFailWell(t, "the namespace team is full: it uses ", "push", big)
	admin.pulls(t, small)
	admin.api(t, http.StatusOK, http.MethodPatch, "/namespaces/team", map[string]any{"quota_bytes": 1 << 20})
	admin.push(t, big)
	ns := admin.api(t, http.StatusOK, http.MethodGet, "/namespaces/team", nil)
	if used := ns["used_bytes"].(float64); used < 512<<10 || used > 1<<20 || ns["reserved_bytes"].(float64) != 0 {
		t.Errorf("after the pushes the namespace is %v, want 512 KiB to 1 MiB used, and nothing reserved", ns)
	}
}

// incompressible is text of random letters.
func incompressible(size int) string {
	var b strings.Builder
	for b.Len() < size*8/5 { // a letter has five bits
		b.WriteString(unique())
	}
	return b.String()
}

func TestDockerPushOfAnImmutableTag(t *testing.T) {
	t.Parallel()
	newDocker(t)
	s := serve(t)
	alice := s.newUser(t, "alice")
	v1 := alice.image(t, "team/app:v1.0")
	digest, _ := alice.push(t, v1)
	alice.api(t, http.StatusCreated, http.MethodPost, "/namespaces/team/immutable-rules", map[string]any{"tag": "v*", "except_tag": "*-rc"})
	if again, _ := alice.push(t, v1); again != digest {
		t.Errorf("the same again has the digest %s, want %s", again, digest)
	}
	alice.importImage(t, v1, map[string]string{"file": unique()})
	alice.mustFailWell(t, "the tag v1.0 of team/app is immutable", "push", v1)
	for _, free := range []string{"team/app:v1.1", "team/app:v1.0-rc", "team/app:latest"} {
		alice.push(t, alice.image(t, free))
	}
	alice.push(t, alice.image(t, "team/app:v1.0-rc"))
	alice.forget(v1)
	if out := alice.must(t, "pull", v1); !strings.Contains(out, digest) {
		t.Errorf("docker pull after the refusal does not tell the digest %s:\n%s", digest, out)
	}
}
