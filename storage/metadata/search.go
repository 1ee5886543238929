package metadata

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// SearchField is what of a tag a word of a search is compared with.
type SearchField string

// The fields; SearchAny is any of the others.
const (
	SearchAny     SearchField = ""
	SearchName    SearchField = "name" // of the repository
	SearchTag     SearchField = "tag"
	SearchBase    SearchField = "base"    // as in TagQuery
	SearchEnv     SearchField = "env"     // the name of a variable
	SearchLabel   SearchField = "label"   // its key
	SearchPackage SearchField = "package" // its name
)

// cost orders words: the names of tags say no more cheaply than images do.
func (f SearchField) cost() int {
	return slices.Index([]SearchField{SearchName, SearchTag, SearchBase, SearchPackage, SearchLabel, SearchEnv, SearchAny}, f)
}

// SearchWord is a condition of a search. Text is in lower case and may have *
// and ? in it.
type SearchWord struct {
	Field SearchField
	Text  string
	Value *string // of SearchLabel: what the label must be
}

// SearchQuery says which tags are looked for: those that all words fit, of what
// the viewer may read.
type SearchQuery struct {
	Viewer     Viewer
	Words      []SearchWord
	N          int    // most tags
	Repository string // behind which, and behind Tag of it, the page begins; "" for the first
	Tag        string
}

// SearchRow is a tag that may fit.
type SearchRow struct {
	Repository string
	TagRow            // without aliases, pulls, version and rules
	Packages   string // names of the packages of its images, with spaces around; only where a word asks for packages
}

// SearchPage is a page of what was found, in the order of repositories and tags.
type SearchPage struct {
	Rows []SearchRow
	More bool
}

const (
	// As mayRead, of which the numbers of the parameters are others.
	searchRead = ` AND ($6 OR r.namespace_id IN (SELECT id FROM namespaces WHERE visibility = 'public'
			UNION SELECT namespace_id FROM members WHERE user_id = $5))
		AND ($7 = '' OR r.namespace_id = (SELECT id FROM namespaces WHERE name = $7))`

	selectFound = `SELECT r.name, t.name, t.digest, t.size, t.updated_at, m.media_type, ` + platformRecords + `, `
	foundIn     = ` FROM repositories r JOIN tags t ON t.repository_id = r.id` + tagManifest + `
		WHERE r.name >= $1 AND (r.name > $1 OR t.name > $4)` + searchRead
	foundOrder = ` ORDER BY r.name, t.name LIMIT $8`

	// The packages of the image, or of the entries of the index.
	foundPackages = `(SELECT string_agg(k.names, '') FROM image_packages k WHERE k.repository_id = t.repository_id AND (k.digest = t.digest OR
		k.digest IN (SELECT e.digest FROM manifest_references e WHERE e.repository_id = t.repository_id AND e.manifest = t.digest AND e.kind = 'manifest')))`

	hasPackage = `EXISTS (SELECT 1 FROM image_packages k WHERE k.repository_id = i.repository_id AND k.digest = i.digest AND k.names LIKE %s ESCAPE '!')`
)

// Search returns a page of tags that may fit all words, by one query. The caller
// looks at each again: globs over configs, which are JSON here, let more through
// than they should, and never less. A page can be shorter than N where its tags
// have much to show.
//
// A word that nothing fits costs a look at all that the viewer may read, so the
// caller bounds how many searches run, and for how long.
func (db *DB) Search(ctx context.Context, q SearchQuery) (SearchPage, error) {
	b := tagQueryBuilder{args: []any{q.Repository, unitSeparator, recordSeparator, q.Tag, q.Viewer.UserID, q.Viewer.All, q.Viewer.Namespace, q.N + 1}}
	words := slices.Clone(q.Words)
	slices.SortStableFunc(words, func(x, y SearchWord) int { return x.Field.cost() - y.Field.cost() })
	packages := `NULL`
	var where strings.Builder
	for i := range words {
		where.WriteString(b.word(&words[i]))
		if f := words[i].Field; f == SearchAny || f == SearchPackage {
			packages = foundPackages
		}
	}
	tx := db.view()
	tx.prep = nil // the texts are without end
	page := SearchPage{Rows: []SearchRow{}}
	size := 0
	err := tx.query(ctx, func(scan func(...any) error) error {
		if len(page.Rows) == q.N || size > maxPageBytes {
			return errPageFull
		}
		var row SearchRow
		var platforms, names sql.NullString
		if err := scan(&row.Repository, &row.Name, &row.Digest, &row.Size, stamp{&row.PushedAt}, &row.MediaType, &platforms, &names); err != nil {
			return err
		}
		row.setPlatforms(platforms)
		row.Packages = names.String
		size += 512 + len(platforms.String) + len(names.String)
		page.Rows = append(page.Rows, row)
		return nil
	}, selectFound+packages+foundIn+where.String()+foundOrder, b.args...)
	if err == errPageFull { //nolint:errorlint // our own, as it is
		err, page.More = nil, true
	}
	if err != nil {
		return page, fmt.Errorf("search: %w", err)
	}
	return page, nil
}

// word is the condition that a word is.
func (b *tagQueryBuilder) word(w *SearchWord) string {
	switch w.Field {
	case SearchName:
		return ` AND r.name LIKE ` + b.arg(globPattern(w.Text)) + ` ESCAPE '!'`
	case SearchTag:
		return ` AND lower(t.name) LIKE ` + b.arg(globPattern(w.Text)) + ` ESCAPE '!'`
	case SearchBase: // first of all the repository, by an index
		id, _, _ := strings.Cut(w.Text, ":")
		return ` AND EXISTS (SELECT 1 FROM images o WHERE o.repository_id = r.id AND o.base_id = ` + b.arg(id) + `) AND ` + anyImage(strings.TrimPrefix(b.base(w.Text), ` AND `))
	case SearchEnv:
		return ` AND ` + anyImage(b.configHas(`"`+jsonPattern(w.Text)))
	case SearchLabel:
		p := `"` + jsonPattern(w.Text) + `":"`
		if w.Value != nil {
			p += jsonPattern(*w.Value) + `"`
		}
		return ` AND ` + anyImage(b.configHas(p))
	case SearchPackage:
		return ` AND ` + anyImage(b.hasPackage(w.Text))
	}
	name, base := b.arg(globPattern(w.Text)), b.arg(w.Text)
	return ` AND (r.name LIKE ` + name + ` ESCAPE '!' OR lower(t.name) LIKE ` + name + ` ESCAPE '!' OR ` +
		anyImage(`(i.base_id = `+base+` OR lower(i.base_name) = `+base+` OR `+b.configHas(jsonPattern(w.Text))+` OR `+b.hasPackage(w.Text)+`)`) + `)`
}

// anyImage asks for an image, or one of an index, with the condition on i.
func anyImage(cond string) string {
	return `(EXISTS (SELECT 1 FROM images i WHERE i.repository_id = t.repository_id AND i.digest = t.digest AND ` + cond + `)
		OR m.media_type IN ('` + mediaTypeIndex + `', '` + mediaTypeList + `') AND EXISTS (SELECT 1 FROM manifest_references e
			JOIN images i ON i.repository_id = e.repository_id AND i.digest = e.digest
			WHERE e.repository_id = t.repository_id AND e.manifest = t.digest AND e.kind = 'manifest' AND ` + cond + `))`
}

func (b *tagQueryBuilder) configHas(pattern string) string {
	return `lower(i.config) LIKE ` + b.arg("%"+pattern+"%") + ` ESCAPE '!'`
}

func (b *tagQueryBuilder) hasPackage(name string) string {
	return fmt.Sprintf(hasPackage, b.arg("% "+likeText(name)+" %"))
}

// jsonPattern is a glob as LIKE has it for what stands in a JSON string.
func jsonPattern(glob string) string {
	encoded, _ := json.Marshal(glob) // of a string
	return likeText(string(encoded[1 : len(encoded)-1]))
}

// likeText is a glob as LIKE has it. What is not ASCII stands for anything:
// whether lower() knows its other case depends on the database.
func likeText(glob string) string {
	var s strings.Builder
	wild := false
	for _, r := range glob {
		if r == '*' || r == '?' || r > '~' {
			if !wild {
				s.WriteByte('%')
			}
			wild = true
			continue
		}
		wild = false
		s.WriteString(escapeLike.Replace(string(r)))
	}
	return s.String()
}
