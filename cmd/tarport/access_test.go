package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport/extensions/namespaces"
)

var update = flag.Bool("update", false, "write the golden files anew")

// desk is where somebody works with the command line: with docker's directory
// and a home of its own, against one server.
type desk struct {
	t       *testing.T
	server  *process
	environ []string
	script  *strings.Builder // what was typed and answered
}

func newDesk(t *testing.T, server *process, environ ...string) *desk {
	t.Helper()
	environ = append([]string{"HOME=" + t.TempDir(), "TARPORT_REGISTRY=" + server.addr}, environ...)
	return &desk{t: t, server: server, environ: environ, script: &strings.Builder{}}
}

// at is another desk of the same story.
func (d *desk) at() *desk {
	other := newDesk(d.t, d.server)
	other.script = d.script
	return other
}

var (
	timeText   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	secretText = regexp.MustCompile(`tp([tbr])_[A-Za-z0-9_-]{43}`)
)

// run runs a command line of words without spaces in them, with stdin, and
// writes down what came.
func (d *desk) run(stdin, line string) (code int, stdout, stderr string) {
	d.t.Helper()
	var out, words bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &words, environ: d.environ}
	code = run(d.t.Context(), a, strings.Fields(line))
	text := fmt.Sprintf("$ tarport %s\n%s%s", line, out.String(), words.String())
	if code != exitOK {
		text += fmt.Sprintf("[exit %d]\n", code)
	}
	text = timeText.ReplaceAllString(text, "2026-01-31T12:00:00Z")
	text = secretText.ReplaceAllString(text, "tp${1}_SECRET")
	text = strings.ReplaceAll(text, d.server.addr, "127.0.0.1:5000")
	text = strings.ReplaceAll(text, strings.TrimPrefix(d.environ[0], "HOME="), "~")
	d.script.WriteString(text + "\n")
	return code, out.String(), words.String()
}

// do runs a command that has to succeed.
func (d *desk) do(stdin, line string) (stdout string) {
	d.t.Helper()
	code, stdout, stderr := d.run(stdin, line)
	if code != exitOK {
		d.t.Fatalf("tarport %s = %d\n%s%s", line, code, stdout, stderr)
	}
	return stdout
}

// fail runs a command that has to fail, and say why.
func (d *desk) fail(want int, stdin, line, why string) {
	d.t.Helper()
	code, stdout, stderr := d.run(stdin, line)
	if code != want || stdout != "" || !strings.Contains(stderr, why) {
		d.t.Errorf("tarport %s = %d, stdout %q, stderr %q; want %d, nothing, %q", line, code, stdout, stderr, want, why)
	}
}

// secret makes something and returns its secret.
func (d *desk) secret(line string) string {
	d.t.Helper()
	var made struct{ Secret string }
	if err := json.Unmarshal([]byte(d.do("", line+" --format=json")), &made); err != nil || made.Secret == "" {
		d.t.Fatalf("tarport %s shows no secret: %v", line, err)
	}
	return made.Secret
}

// TestATeamOfThree is the story of docs/access.md; what its commands print is
// in testdata/access.golden.
func TestATeamOfThree(t *testing.T) {
	t.Parallel()
	server := start(t, t.TempDir(), "", "TARPORT_ADMIN_PASSWORD="+password)
	admin := newDesk(t, server)
	alice, bob, carol, ci := admin.at(), admin.at(), admin.at(), admin.at()

	admin.fail(exitFailure, "", "user ls", "there is no login for "+server.addr)
	admin.fail(exitFailure, "wrong\n", "login -u admin --password-stdin", "the user name or the password is wrong")
	admin.do(password, "login -u admin --password-stdin")
	for _, who := range []string{"alice", "bob", "carol"} {
		admin.do("the secret of "+who+"\n", "user create "+who+" --password-stdin")
	}
	admin.fail(exitFailure, "another secret\n", "user create bob --password-stdin", "there is a user of this name already")
	admin.do("", "user ls")

	alice.do("the secret of alice", "login -u alice --password-stdin")
	alice.do("", "ns create team --description=The-team")
	alice.do("", "ns add team bob --role=writer")
	alice.do("", "ns add team carol")
	alice.do("", "ns members team")
	alice.fail(exitFailure, "", "ns add team dave", "there is no user dave")
	alice.fail(exitFailure, "", "ns set team --quota=1GiB", "you are not allowed to do this")
	admin.do("", "ns set team --quota=1GiB")
	alice.do("", "ns show team")

	robot := alice.secret("robot create team ci --role=writer --expires-in=720h")
	alice.do("", "robot ls team")
	ci.do(robot, "login -u team+ci --password-stdin")
	ci.do("", "ns show team")
	ci.fail(exitFailure, "", "robot ls team", "this needs the role owner in the namespace team, and you are a writer")
	alice.do("", "robot set team ci --role=reader --disabled")
	ci.fail(exitFailure, "", "ns show team", "log in again")
	alice.do("", "robot rotate team ci")

	bob.do("the secret of bob", "login -u bob --password-stdin")
	bob.secret("token create laptop --read-only --namespace=team --expires-in=24h")
	bob.do("", "token create desk")
	bob.do("", "token rm desk --dry-run")
	bob.do("", "token rm desk")
	bob.fail(exitFailure, "", "token rm desk", "you have no token desk")
	bob.do("", "token ls")
	bob.fail(exitFailure, "", "ns rm team", "this needs the role owner")

	carol.do("the secret of carol", "login -u carol --password-stdin")
	carol.fail(exitFailure, "", "user ls", "only an administrator may do this")
	carol.do("the secret of carol\nanother of carol\n", "user passwd --password-stdin")
	carol.fail(exitFailure, "", "ns ls", "log in again")
	carol.do("another of carol", "login -u carol --password-stdin")
	carol.do("", "ns ls")

	alice.do("", "ns protect team --tag=v* --except-tag=*-rc*")
	alice.do("", "ns rules team")
	alice.do("", "ns set team --visibility=public")
	alice.do("", "audit --namespace=team --since=1h")
	alice.fail(exitFailure, "", "audit", "only an administrator may do this")
	admin.do("", "audit --action=login.fail")
	alice.do("", "ns unprotect team 1")
	alice.do("", "ns remove team carol")
	alice.fail(exitFailure, "", "ns remove team carol", "carol is no member")
	alice.do("", "robot rm team ci --dry-run")
	alice.do("", "robot rm team ci")
	alice.do("", "ns rm team --dry-run")
	alice.do("", "ns rm team")
	admin.do("", "user set carol --disabled")
	admin.do("yet another\n", "user passwd bob --password-stdin")
	admin.do("", "user rm bob --dry-run")
	admin.do("", "user rm bob")
	admin.do("", "logout")
	admin.do("", "logout")

	golden(t, "access.golden", admin.script.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", name, diff)
	}
}

// TestNamespaceThatIsNotEmpty is about what force deletes.
func TestNamespaceThatIsNotEmpty(t *testing.T) {
	t.Parallel()
	p := newPolicyTest(t)
	d := newDesk(t, p.process, "TARPORT_PASSWORD="+password)
	config := []byte(`{}`)
	p.blob(http.StatusCreated, "team/app", config)
	p.manifest(http.StatusCreated, "team/app", "v1", config)
	code, stdout, stderr := d.run("", "ns rm team --dry-run")
	if code != exitOK || stdout != "" || !strings.Contains(stderr, "with 1 images in 1 repositories") || !strings.Contains(stderr, "--force") {
		t.Errorf("ns rm --dry-run = %d, %q, %q", code, stdout, stderr)
	}
	d.fail(exitFailure, "", "ns rm team", "is not empty")
	if table := d.do("", "audit --action=manifest.push --limit=1"); !regexp.MustCompile(`admin +manifest\.push +team/app sha256:[0-9a-f]{12} +tags=\["v1"\] via=push +127\.0\.0\.1\n$`).MatchString(table) {
		t.Errorf("audit =\n%s", table)
	}
	if n := listOf[namespaces.Namespace](d, "ns ls"); len(n) != 1 || n[0].Name != "team" || n[0].NamespaceUsage == nil {
		t.Errorf("ns ls = %+v, want team with its usage", n)
	}
	d.do("", "ns rm team --force")
	if a := p.do(t, http.MethodGet, "/v2/team/app/blobs/"+digest.FromBytes(config).String(), nil); a.status != http.StatusNotFound {
		t.Errorf("a blob of it: %d, want 404", a.status)
	}
	if n := listOf[namespaces.Namespace](d, "ns ls"); n == nil || len(n) != 0 {
		t.Errorf("ns ls = %#v, want an empty array", n)
	}
}

// listOf runs a command that lists, as JSON.
func listOf[T any](d *desk, line string) (items []T) {
	d.t.Helper()
	text := d.do("", line+" --format=json")
	if err := json.Unmarshal([]byte(text), &items); err != nil {
		d.t.Fatalf("tarport %s: %v\n%s", line, err, text)
	}
	return items
}

func TestCommandLinesThatCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"ns ls --format=xml", "ns ls --registry=http://registry.example.com", "ns ls --registry=nowhere/x", "ns create", "ns create a --quota=many",
		"ns set a", "ns add a", "ns brew", "user set a", "user create a", "user passwd", "robot set a b", "robot create a", "robot rotate a",
		"token create", "token rm", "audit --since=yesterday", "audit --limit=-1", "audit x", "login", "login -u a", "login a b", "logout --registry=:", "quota recount x",
	} {
		var out, words bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &words, environ: []string{"HOME=" + t.TempDir(), "TARPORT_PASSWORD=x"}}
		if code := run(t.Context(), a, strings.Fields(line)); code != exitUsage || out.String() != "" || !strings.Contains(words.String(), "Usage:") {
			t.Errorf("tarport %s = %d, stdout %q, stderr %q; want %d and the usage", line, code, out.String(), words.String(), exitUsage)
		}
	}
}

func TestAuditTakesTimesInThreeWays(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"": {}, "2026-01-31T10:00:00+01:00": now.Add(-3 * time.Hour), "2026-01-31": now.Add(-12 * time.Hour), "90m": now.Add(-90 * time.Minute),
	} {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "-1h", "12:00"} {
		if got, err := parseTime(bad, now); err == nil {
			t.Errorf("parseTime(%q) = %s, want an error", bad, got)
		}
	}
}

func TestBytesAsPeopleReadThem(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 10 << 30: "10.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s, want %s", n, got, want)
		}
	}
}
