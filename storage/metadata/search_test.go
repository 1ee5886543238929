package metadata

import (
	"fmt"
	"strings"
	"testing"
)

// seedSearch makes 10 tags, images and configs in each of so many repositories,
// in namespaces of 100 repositories each, of which the first is public.
func (db *testDB) seedSearch(tb testing.TB, repositories int) {
	tb.Helper()
	const numbers = `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 - 1) `
	const repository = `JOIN repositories r ON r.name = 'team' || (n.i / 1000) || '/service-' || (n.i / 10)`
	const dgst = `'sha256:' || substr('00000000000000000000000000000000000000000000000000000000000000000' || n.i, length(CAST(n.i AS TEXT)) + 2)`
	images := 10 * repositories
	var config, packages strings.Builder
	config.WriteString(`{"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","LANG=C.UTF-8","JAVA_HOME=/opt/java","APP_CONFIG=/etc/app"],"entrypoint":["/entrypoint.sh"],"cmd":["run"],"exposed_ports":["8080/tcp"],"volumes":[],"user":"app","working_dir":"/app","labels":{`)
	for i := range 10 {
		fmt.Fprintf(&config, `"org.opencontainers.image.key%d":"https://git.example.com/team/some-service-%d",`, i, i)
	}
	packages.WriteByte(' ')
	for i := range 130 {
		fmt.Fprintf(&packages, "libpackage%d-dev ", i)
	}
	db.sql(tb, numbers+`INSERT INTO namespaces (name, created_at, visibility) SELECT 'team' || n.i, 1, CASE WHEN n.i = 0 THEN 'public' ELSE 'private' END FROM n`, (images+999)/1000)
	db.sql(tb, numbers+`INSERT INTO repositories (namespace_id, name, created_at, changed_at)
		SELECT s.id, s.name || '/service-' || n.i, 1, 1 FROM n JOIN namespaces s ON s.name = 'team' || (n.i / 100)`, repositories)
	db.sql(tb, numbers+`INSERT INTO manifests (repository_id, digest, media_type, artifact_type, descriptor, payload, created_at, pushed_by, pushed_via, kind)
		SELECT r.id, `+dgst+`, 'application/vnd.oci.image.manifest.v1+json', '', '{}', $2, 1, 'ann', 'push', 'image' FROM n `+repository, images, []byte(strings.Repeat("p", 1200)))
	db.sql(tb, numbers+`INSERT INTO images (repository_id, digest, os, architecture, variant, os_version, author, message, size, config, scan, base_id, base_version, base_name)
		SELECT r.id, `+dgst+`, 'linux', 'amd64', '', '', '', '', 1, $2 || '"revision":"r' || n.i || '"}}', 'ready', 'debian', '12', 'bookworm' FROM n `+repository, images, config.String())
	db.sql(tb, numbers+`INSERT INTO image_packages (repository_id, digest, names) SELECT r.id, `+dgst+`, $2 || 'app' || n.i || ' ' FROM n `+repository, images, packages.String())
	db.sql(tb, numbers+`INSERT INTO tags (repository_id, name, digest, created_at, updated_at, pushed_by, pushed_via, version_key)
		SELECT r.id, '1.' || n.i, `+dgst+`, 1, 1, 'ann', 'push', 'x' FROM n `+repository, images)
}

func TestASearchIsOneKeysetOverAllRepositories(t *testing.T) {
	t.Parallel()
	eachDB(t, func(t *testing.T, db *testDB) {
		db.seedSearch(t, 120)
		for _, c := range []struct {
			v     Viewer
			words []SearchWord
			want  int
		}{
			{Viewer{All: true}, []SearchWord{{Text: "service"}}, 1200},
			{Viewer{}, []SearchWord{{Text: "service"}}, 1000},
			{Viewer{All: true}, []SearchWord{{Field: SearchName, Text: "team1/*"}, {Field: SearchBase, Text: "debian:12"}}, 200},
			{Viewer{}, []SearchWord{{Field: SearchName, Text: "team1/*"}}, 0},
			{Viewer{}, []SearchWord{{Field: SearchPackage, Text: "app999"}}, 1},
			{Viewer{}, []SearchWord{{Field: SearchPackage, Text: "app1000"}}, 0},
			{Viewer{All: true}, []SearchWord{{Text: "r1111"}}, 1},
		} {
			var names []string
			q := SearchQuery{Viewer: c.v, Words: c.words, N: 77}
			for more := true; more; {
				page, err := db.Search(t.Context(), q)
				check(t, "Search", err)
				for _, row := range page.Rows {
					names = append(names, row.Repository+"\x00"+row.Name)
				}
				if more = page.More; more {
					q.Repository, q.Tag = page.Rows[len(page.Rows)-1].Repository, page.Rows[len(page.Rows)-1].Name
				}
			}
			for i := 1; i < len(names); i++ {
				if names[i-1] >= names[i] {
					t.Errorf("%q does not come before %q", names[i-1], names[i])
				}
			}
			if len(names) != c.want {
				t.Errorf("%v finds %d, want %d", c.words, len(names), c.want)
			}
		}
	})
}

// BenchmarkSearch is of pages of 50 out of 100,000 tags in 10,000 repositories.
func BenchmarkSearch(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *testDB{"sqlite": onSQLite, "postgres": onPostgres} {
		b.Run(name, func(b *testing.B) {
			db := open(b)
			db.seedSearch(b, 10_000)
			if name == "postgres" {
				db.sql(b, `ANALYZE`)
			}
			for _, q := range []SearchQuery{
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Text: "service"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Field: SearchName, Text: "service-9999"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Field: SearchTag, Text: "1.99999"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Field: SearchBase, Text: "alpine"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Field: SearchEnv, Text: "nothing"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Field: SearchPackage, Text: "nothing"}}},
				{Viewer: Viewer{All: true}, Words: []SearchWord{{Text: "nothing"}}},
				{Viewer: Viewer{}, Words: []SearchWord{{Text: "nothing"}}},
			} {
				q.N = 50
				b.Run(fmt.Sprintf("%s=%s/all=%v", q.Words[0].Field, q.Words[0].Text, q.Viewer.All), func(b *testing.B) {
					for b.Loop() {
						_, err := db.Search(b.Context(), q)
						check(b, "Search", err)
					}
				})
			}
		})
	}
}
