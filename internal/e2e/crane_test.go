package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crane returns a function that runs the crane command with logins of its own.
func crane(t testing.TB, s *server) func(args ...string) (string, error) {
	t.Helper()
	config := t.TempDir()
	return func(args ...string) (string, error) {
		t.Helper()
		for i, arg := range args {
			args[i] = strings.ReplaceAll(arg, "REG", s.addr)
		}
		out, err := run(t, []string{"DOCKER_CONFIG=" + config}, program(t, "crane"), args...)
		return strings.TrimSpace(out), err
	}
}

func TestCrane(t *testing.T) {
	t.Parallel()
	s := serve(t)
	command := crane(t, s)
	do := func(args ...string) string {
		t.Helper()
		out, err := command(args...)
		if err != nil {
			t.Fatalf("crane %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	if out, err := command("ls", "REG/team/app"); err == nil {
		t.Fatalf("crane ls without login succeeded: %s", out)
	}
	do("auth", "login", "REG", "-u", "admin", "-p", adminPassword)
	archive := archiveOf(t, map[string]string{"app:1": unique()})
	do("push", archive, "REG/team/app:1.0")
	digest := do("digest", "REG/team/app:1.0")
	if !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("crane digest = %q, want a digest", digest)
	}

	do("tag", "REG/team/app:1.0", "latest")
	do("copy", "REG/team/app:1.0", "REG/other/deep/path/app:1.0")
	do("index", "append", "-m", "REG/team/app:1.0", "-t", "REG/team/app:index", "--flatten=false")
	for _, ref := range []string{"REG/team/app:latest", "REG/other/deep/path/app:1.0", "REG/team/app@" + digest} {
		if got := do("digest", ref); got != digest {
			t.Errorf("crane digest %s = %s, want %s", ref, got, digest)
		}
	}
	do("validate", "--remote", "REG/team/app:1.0")
	do("validate", "--remote", "REG/other/deep/path/app:1.0")
	do("pull", "--format=oci", "REG/team/app:index", filepath.Join(t.TempDir(), "layout"))
	if got, want := do("ls", "REG/team/app"), "1.0\nindex\nlatest"; got != want {
		t.Errorf("crane ls = %q, want %q", got, want)
	}
	if diff := cmp.Diff("other/deep/path/app\nteam/app", do("catalog", "REG")); diff != "" {
		t.Errorf("crane catalog (-want +got):\n%s", diff)
	}

	do("delete", "REG/team/app:latest")
	if got, want := do("ls", "REG/team/app"), "1.0\nindex"; got != want {
		t.Errorf("crane ls after the deletion of a tag = %q, want %q", got, want)
	}
	do("delete", "REG/other/deep/path/app@"+digest)
	if out, err := command("digest", "REG/other/deep/path/app:1.0"); err == nil {
		t.Errorf("crane digest of a deleted image = %s, want an error", out)
	}
	if got := do("digest", "REG/team/app:1.0"); got != digest {
		t.Errorf("digest after the deletion in another repository = %s, want %s", got, digest)
	}
	do("auth", "logout", "REG")
	if out, err := command("digest", "REG/team/app:1.0"); err == nil {
		t.Errorf("crane digest after logout = %s, want an error", out)
	}
}
