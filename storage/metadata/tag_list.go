package metadata

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
	"github.com/tarport/tarport/internal/version"
)

// TagSort is what a list of tags is sorted by, and then by name.
type TagSort string

// Orders of tags. Tags that were never pulled are the last of SortPulled in
// either direction.
const (
	SortName    TagSort = "name"
	SortVersion TagSort = "version" // names without a version before all versions
	SortPushed  TagSort = "pushed"
	SortPulled  TagSort = "pulled"
	SortSize    TagSort = "size"
)

// Bounds of what a list shows of a tag, and of a page.
const (
	MaxAliases   = 50
	MaxPlatforms = 32
	maxPageBytes = 4 << 20 // of what is read from the database
)

// TagQuery says which tags of a repository are listed, and how.
type TagQuery struct {
	Repository string
	Sort       TagSort
	Descending bool
	N          int       // most tags
	After      TagCursor // zero for the first page

	// Filters; the zero value of each lets all through.
	Name     string         // a glob with * and ?, or a part of the name; in any case
	Platform string         // os/architecture[/variant], or one of the first two
	Base     string         // alpine, or alpine:3.19
	Variants []string       // words that the name must all have, without their numbers or with
	Range    *version.Range // of the name's version
}

// TagCursor is a place in a sorted list: behind the tag with this key and name.
type TagCursor struct {
	Key  string // of what is sorted by; numbers in decimal; "" for SortName
	Name string
}

// TagRow is a tag as it is listed.
type TagRow struct {
	Name          string
	Digest        digest.Digest
	MediaType     string
	ArtifactType  string
	Kind          string // KindImage, KindIndex, KindArtifact
	Size          int64
	CreatedAt     time.Time
	PushedAt      time.Time // when it was set last
	PushedBy      string
	PushedVia     string
	Pulls         int64
	RobotPulls    int64     // of them
	PulledAt      time.Time // zero: never
	Version       string    // "" where the name has none
	VersionKey    string
	Variants      []string
	Aliases       []string // other tags of the digest, at most MaxAliases
	MoreAliases   bool
	Immutable     bool
	Platforms     []TagPlatform // at most MaxPlatforms
	MorePlatforms bool
}

// TagPlatform is an image that a tag leads to.
type TagPlatform struct {
	Platform  string // as the index says; "" where it does not, and of an image that has a tag itself
	Digest    digest.Digest
	Missing   bool   // the repository does not have the manifest
	MediaType string // of a manifest that is here and no image
	Image     ImageRow
}

// TagPage is a page of tags.
type TagPage struct {
	Tags []TagRow
	More bool
	Next TagCursor // where More
}

// Types of indexes: image-spec's and Docker's.
const (
	mediaTypeIndex = "application/vnd.oci.image.index.v1+json"
	mediaTypeList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Separators of what is aggregated: control characters, which are in no name,
// and which JSON escapes.
const (
	unitSeparator   = "\x1f"
	recordSeparator = "\x1e"
)

const (
	tagColumns = `t.repository_id, t.name, t.digest, t.size, t.created_at, t.updated_at, t.pushed_by, t.pushed_via,
		t.pulls, t.robot_pulls, t.pulled_at, t.version, t.version_key, t.variants`

	// One row a tag. What follows the tag's own columns is looked up only for
	// the rows of the page, since the indexes of tags give them in order.
	// $2 and $3 are the separators.
	tagRow = `SELECT ` + tagColumns + `, m.media_type, m.artifact_type,
		(SELECT string_agg(a.name, ' ' ORDER BY a.name) FROM (SELECT o.name FROM tags o
			WHERE o.repository_id = t.repository_id AND o.digest = t.digest AND o.name <> t.name ORDER BY o.name LIMIT 51) a),
		` + platformRecords + `,
		(SELECT string_agg(u.syntax || $2 || u.repository || $2 || u.except_repository || $2 || u.tag || $2 || u.except_tag, $3 ORDER BY u.id)
			FROM repositories r JOIN immutable_rules u ON u.namespace_id = r.namespace_id WHERE r.name = $1)
		FROM `
	// The images that the tag leads to, one record each.
	platformRecords = `CASE WHEN m.media_type IN ('` + mediaTypeIndex + `', '` + mediaTypeList + `') THEN
			(SELECT string_agg(p.record, $3 ORDER BY p.position) FROM (SELECT e.position, e.platform || $2 || e.digest || $2 ||
				CASE WHEN i.digest IS NULL THEN COALESCE((SELECT c.media_type FROM manifests c WHERE c.repository_id = e.repository_id AND c.digest = e.digest), '-') || $2
				ELSE ` + imageRecord + ` END AS record
				FROM manifest_references e LEFT JOIN images i ON i.repository_id = e.repository_id AND i.digest = e.digest
				WHERE e.repository_id = t.repository_id AND e.manifest = t.digest AND e.kind = 'manifest' AND e.platform <> '-'
				ORDER BY e.position LIMIT 33) p)
		ELSE (SELECT $2 || i.digest || $2 || ` + imageRecord + ` FROM images i WHERE i.repository_id = t.repository_id AND i.digest = t.digest) END`
	imageRecord = `$2 || i.os || $2 || i.architecture || $2 || i.variant || $2 || i.os_version || $2 || COALESCE(CAST(i.created_at AS TEXT), '') || $2 ||
		i.author || $2 || i.message || $2 || CAST(i.size AS TEXT) || $2 || i.scan || $2 || ` + clean + `i.scan_reason` + cleanEnd + ` || $2 || ` +
		clean + `i.base_id` + cleanEnd + ` || $2 || ` + clean + `i.base_version` + cleanEnd + ` || $2 || ` + clean + `i.base_name` + cleanEnd + ` || $2 ||
		i.libc || $2 || i.package_manager || $2 || CAST(i.packages AS TEXT) || $2 ||
		CASE WHEN i.slim THEN '1' ELSE '' END || $2 || COALESCE(i.config, '')`
	clean, cleanEnd = `replace(replace(`, `, $2, ' '), $3, ' ')`

	tagManifest = ` JOIN manifests m ON m.repository_id = t.repository_id AND m.digest = t.digest`
	ofRepo      = ` WHERE t.repository_id = (SELECT id FROM repositories WHERE name = $1)`

	// The digests of what has such an image are found once. That t.digest is no
	// column here keeps SQLite from beginning with them: it would have to look
	// up and sort all of them for a page.
	imageMatches = ` AND (t.digest || '') IN (SELECT i.digest FROM images i WHERE i.repository_id = (SELECT id FROM repositories WHERE name = $1)%[1]s
		UNION SELECT e.manifest FROM images i JOIN manifest_references e ON e.digest = i.digest AND e.repository_id = i.repository_id
			WHERE i.repository_id = (SELECT id FROM repositories WHERE name = $1) AND e.kind = 'manifest'%[1]s)`
)

// ListTags returns a page of tags by one query. A page can be shorter than N
// where its tags have much to show. NAME_UNKNOWN where there is no such
// repository.
func (db *DB) ListTags(ctx context.Context, q TagQuery) (TagPage, error) {
	var page TagPage
	b := tagQueryBuilder{args: []any{q.Repository, unitSeparator, recordSeparator}}
	query := b.build(&q)
	tx := db.view()
	if b.filtered { // so that what is kept compiled is bounded
		tx.prep = nil
	}
	err := page.read(ctx, tx, &q, query, b.args)
	if err == nil && len(page.Tags) == 0 {
		var found bool
		if _, found, err = tx.repository(ctx, q.Repository); err == nil && !found {
			return page, errNoRepository(q.Repository)
		}
	}
	if err != nil {
		return page, fmt.Errorf("list tags: %w", err)
	}
	return page, nil
}

// ListedTag is one tag as ListTags gives it; MANIFEST_UNKNOWN where the
// repository has none of this name, or there is no such repository.
func (db *DB) ListedTag(ctx context.Context, repository, tag string) (TagRow, error) {
	var page TagPage
	q := TagQuery{Repository: repository, N: 1}
	err := page.read(ctx, db.view(), &q, tagRow+`tags t`+tagManifest+ofRepo+` AND t.name = $4`, []any{repository, unitSeparator, recordSeparator, tag})
	if err != nil {
		return TagRow{}, fmt.Errorf("look up the tag %s: %w", tag, err)
	}
	if len(page.Tags) == 0 {
		return TagRow{}, tarport.Errorf(tarport.ManifestUnknown, "the repository %s has no tag %s", repository, tag)
	}
	return page.Tags[0], nil
}

// errPageFull ends the reading of a page.
var errPageFull = errors.New("the page is full")

func (p *TagPage) read(ctx context.Context, tx *Tx, q *TagQuery, query string, args []any) error {
	p.Tags = []TagRow{}
	size := 0
	var rules ruleSet
	err := tx.query(ctx, func(scan func(...any) error) error {
		if len(p.Tags) == q.N || size > maxPageBytes {
			return errPageFull
		}
		t, n, err := scanTag(scan, &rules, q.Repository)
		if err != nil {
			return err
		}
		size += n
		p.Tags = append(p.Tags, t)
		return nil
	}, query, args...)
	if err == errPageFull { //nolint:errorlint // our own, as it is
		err, p.More = nil, true
		p.Next = p.Tags[len(p.Tags)-1].cursor(q.Sort)
	}
	return err
}

func scanTag(scan func(...any) error, rules *ruleSet, repository string) (t TagRow, size int, err error) {
	var repo int64
	var variants string
	var aliases, platforms, ruleText sql.NullString
	if err := scan(&repo, &t.Name, &t.Digest, &t.Size, stamp{&t.CreatedAt}, stamp{&t.PushedAt}, &t.PushedBy, &t.PushedVia,
		&t.Pulls, &t.RobotPulls, stamp{&t.PulledAt}, &t.Version, &t.VersionKey, &variants,
		&t.MediaType, &t.ArtifactType, &aliases, &platforms, &ruleText); err != nil {
		return t, 0, err
	}
	t.Variants = strings.Fields(variants)
	t.Aliases = strings.Fields(aliases.String)
	if t.MoreAliases = len(t.Aliases) > MaxAliases; t.MoreAliases {
		t.Aliases = t.Aliases[:MaxAliases]
	}
	t.setPlatforms(platforms)
	rules.parse(ruleText.String)
	t.Immutable = rules.cover(repository, t.Name)
	return t, 512 + len(aliases.String) + len(platforms.String) + len(ruleText.String), nil
}

func (t *TagRow) setPlatforms(records sql.NullString) {
	switch {
	case t.MediaType == mediaTypeIndex, t.MediaType == mediaTypeList:
		t.Kind = KindIndex
	case records.Valid:
		t.Kind = KindImage
	default:
		t.Kind = KindArtifact
	}
	t.Platforms = []TagPlatform{}
	if records.String == "" {
		return
	}
	for record := range strings.SplitSeq(records.String, recordSeparator) {
		if len(t.Platforms) == MaxPlatforms {
			t.MorePlatforms = true
			break
		}
		if p, ok := parsePlatform(strings.Split(record, unitSeparator)); ok {
			t.Platforms = append(t.Platforms, p)
		}
	}
}

// parsePlatform reads a record; ok is false of an entry that is nobody's
// platform after all.
func parsePlatform(f []string) (p TagPlatform, ok bool) {
	p.Platform, p.Digest = f[0], digest.Digest(f[1])
	if len(f) < 21 {
		p.Missing = f[2] == "-"
		if !p.Missing {
			p.MediaType = f[2]
		}
		return p, p.Missing || p.Platform != ""
	}
	i := &p.Image
	i.OS, i.Architecture, i.Variant, i.OSVersion = f[3], f[4], f[5], f[6]
	if us, err := strconv.ParseInt(f[7], 10, 64); err == nil {
		i.Created = time.UnixMicro(us).UTC()
	}
	i.Author, i.Message = f[8], f[9]
	i.Size, _ = strconv.ParseInt(f[10], 10, 64) // a number of the database's
	i.Scan, i.ScanReason = f[11], f[12]
	i.Base = Base{ID: f[13], Version: f[14], Name: f[15], Libc: f[16], PackageManager: f[17]}
	i.Base.Packages, _ = strconv.ParseInt(f[18], 10, 64)
	i.Base.Slim, i.Config = f[19] != "", f[20]
	return p, true
}

// ruleSet is the rules that the query gives with every row, parsed once.
type ruleSet struct {
	text  string
	rules []ImmutableRule
}

func (s *ruleSet) parse(text string) {
	if text == s.text {
		return
	}
	s.text, s.rules = text, nil
	for record := range strings.SplitSeq(text, recordSeparator) {
		f := strings.Split(record, unitSeparator)
		if len(f) == 5 {
			s.rules = append(s.rules, ImmutableRule{Syntax: f[0], Repository: f[1], ExceptRepository: f[2], Tag: f[3], ExceptTag: f[4]})
		}
	}
}

func (s *ruleSet) cover(repository, tag string) bool {
	for i := range s.rules {
		if s.rules[i].Covers(repository, tag) {
			return true
		}
	}
	return false
}

func (t *TagRow) cursor(sort TagSort) TagCursor {
	c := TagCursor{Name: t.Name}
	switch sort {
	case SortVersion:
		c.Key = t.VersionKey
	case SortPushed:
		c.Key = strconv.FormatInt(t.PushedAt.UnixMicro(), 10)
	case SortPulled:
		c.Key = "0"
		if !t.PulledAt.IsZero() {
			c.Key = strconv.FormatInt(t.PulledAt.UnixMicro(), 10)
		}
	case SortSize:
		c.Key = strconv.FormatInt(t.Size, 10)
	}
	return c
}

// Check returns PAGINATION_INVALID where the cursor is of no such list.
func (c TagCursor) Check(sort TagSort) error {
	if c == (TagCursor{}) {
		return nil
	}
	err := tarport.CheckTag(c.Name)
	switch sort {
	case SortName:
		if c.Key != "" {
			err = errPageFull
		}
	case SortVersion:
		if len(c.Key) > 1024 || strings.ContainsFunc(c.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
			err = errPageFull
		}
	default:
		if _, nerr := strconv.ParseInt(c.Key, 10, 64); nerr != nil {
			err = nerr
		}
	}
	if err != nil {
		return tarport.Errorf(tarport.PaginationInvalid, "last is not where a list of this order goes on: use the link of the page before")
	}
	return nil
}

// tagQueryBuilder makes the text of a query, and its arguments.
type tagQueryBuilder struct {
	args     []any
	filtered bool
}

func (b *tagQueryBuilder) arg(v any) string {
	b.args = append(b.args, v)
	return "$" + strconv.Itoa(len(b.args))
}

func (b *tagQueryBuilder) build(q *TagQuery) string {
	filters := b.filters(q)
	limit := ` LIMIT ` + b.arg(q.N+1)
	if q.Sort == SortPulled && !q.Descending {
		return b.neverPulledLast(q, filters, limit)
	}
	column, direction, than := "", "", " > "
	if q.Descending {
		direction, than = " DESC", " < "
	}
	switch q.Sort {
	case SortVersion:
		column = "version_key"
	case SortPushed:
		column = "updated_at"
	case SortPulled:
		column = "pulled_at"
	case SortSize:
		column = "size"
	default:
		name := q.After.Name
		if name == "" && q.Descending {
			name = "~"
		}
		return tagRow + `tags t` + tagManifest + ofRepo + ` AND t.name` + than + b.arg(name) + filters + ` ORDER BY t.name` + direction + limit
	}
	key, name := q.start()
	return tagRow + `tags t` + tagManifest + ofRepo + ` AND (t.` + column + `, t.name)` + than + `(` + b.arg(key) + `, ` + b.arg(name) + `)` +
		filters + ` ORDER BY t.` + column + direction + `, t.name` + direction + limit
}

// start is where the list begins or goes on.
func (q *TagQuery) start() (key any, name string) {
	first := q.After == TagCursor{}
	if q.Sort == SortVersion {
		from, before := "", "~"
		if q.Range != nil {
			from, before = bounds(q.Range)
		}
		switch {
		case first && q.Descending:
			return before, ""
		case first:
			return from, ""
		}
		return q.After.Key, q.After.Name
	}
	if first && q.Descending {
		return int64(math.MaxInt64), ""
	}
	if first {
		return int64(-1), ""
	}
	n, _ := strconv.ParseInt(q.After.Key, 10, 64) // checked
	return n, q.After.Name
}

// neverPulledLast is SortPulled upwards: those that were pulled, in order, and
// then the others by name. Each part comes from the index.
func (b *tagQueryBuilder) neverPulledLast(q *TagQuery, filters, limit string) string {
	key, name := q.start()
	part := `SELECT ` + tagColumns + ` FROM tags t` + ofRepo
	var source string
	if key != int64(0) {
		source = `SELECT * FROM (` + part + ` AND t.pulled_at > 0 AND (t.pulled_at, t.name) > (` + b.arg(key) + `, ` + b.arg(name) + `)` +
			filters + ` ORDER BY t.pulled_at, t.name` + limit + `) pulled UNION ALL `
		name = ""
	}
	source += `SELECT * FROM (` + part + ` AND t.pulled_at = 0 AND t.name > ` + b.arg(name) + filters + ` ORDER BY t.name` + limit + `) never`
	return tagRow + `(` + source + `) t` + tagManifest + ` ORDER BY CASE WHEN t.pulled_at = 0 THEN 1 ELSE 0 END, t.pulled_at, t.name` + limit
}

// filters are conditions on t.
func (b *tagQueryBuilder) filters(q *TagQuery) string {
	var s strings.Builder
	if q.Name != "" {
		s.WriteString(` AND lower(t.name) LIKE ` + b.arg(globPattern(q.Name)) + ` ESCAPE '!'`)
	}
	for _, v := range q.Variants {
		s.WriteString(` AND t.variant_words LIKE ` + b.arg("% "+escapeLike.Replace(strings.ToLower(v))+" %") + ` ESCAPE '!'`)
	}
	if q.Range != nil {
		s.WriteString(b.inRange(q.Range))
	}
	if cond := b.platform(q.Platform) + b.base(q.Base); cond != "" {
		fmt.Fprintf(&s, imageMatches, cond)
	}
	b.filtered = s.Len() > 0
	return s.String()
}

var escapeLike = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// globPattern is a glob as LIKE has it; what is no glob may stand anywhere.
func globPattern(glob string) string {
	p := strings.NewReplacer("**", "%", "*", "%", "?", "_").Replace(escapeLike.Replace(strings.ToLower(glob)))
	if strings.ContainsAny(glob, "*?") {
		return p
	}
	return "%" + p + "%"
}

// bounds are those of all that is in the range.
func bounds(r *version.Range) (from, before string) {
	from = "~"
	for _, i := range r.Intervals {
		from, before = min(from, i.From), max(before, i.Before)
	}
	return from, before
}

// NameMatcher returns what tells whether a name passes the filters that go by
// the name alone, as the query does.
func (q *TagQuery) NameMatcher() func(name string) bool {
	glob, substring := strings.ToLower(q.Name), !strings.ContainsAny(q.Name, "*?")
	var pattern *regexp.Regexp
	if !substring {
		pattern = regexp.MustCompile("^" + strings.NewReplacer(`\*\*`, `.*`, `\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(glob)) + "$")
	}
	return func(name string) bool {
		low := strings.ToLower(name)
		if substring && !strings.Contains(low, glob) || !substring && !pattern.MatchString(low) {
			return false
		}
		t := version.Parse(name)
		words := t.Words()
		for _, v := range q.Variants {
			if !slices.Contains(words, strings.ToLower(v)) {
				return false
			}
		}
		return q.Range == nil || q.Range.Contains(t)
	}
}

// inRange bounds the key by the whole of the range, too, for the index.
func (b *tagQueryBuilder) inRange(r *version.Range) string {
	from, before := bounds(r)
	var or []string
	for _, i := range r.Intervals {
		or = append(or, `t.version_key >= `+b.arg(i.From)+` AND t.version_key < `+b.arg(i.Before))
	}
	s := ` AND t.version_key >= ` + b.arg(from) + ` AND t.version_key < ` + b.arg(before) + ` AND (` + strings.Join(or, ` OR `) + `)`
	if !r.Prereleases {
		s += ` AND t.version NOT LIKE '%-%'`
	}
	return s
}

func (b *tagQueryBuilder) platform(p string) string {
	if p == "" {
		return ""
	}
	parts := strings.Split(strings.ToLower(p), "/")
	if len(parts) == 1 {
		return ` AND ` + b.arg(parts[0]) + ` IN (i.os, i.architecture)`
	}
	s := ` AND i.os = ` + b.arg(parts[0]) + ` AND i.architecture = ` + b.arg(parts[1])
	if len(parts) > 2 {
		s += ` AND i.variant = ` + b.arg(parts[2])
	}
	return s
}

func (b *tagQueryBuilder) base(base string) string {
	if base == "" {
		return ""
	}
	id, v, _ := strings.Cut(strings.ToLower(base), ":")
	s := ` AND i.base_id = ` + b.arg(id)
	if v != "" {
		s += ` AND (i.base_version = ` + b.arg(v) + ` OR i.base_version LIKE ` + b.arg(escapeLike.Replace(v)+".%") + ` ESCAPE '!' OR lower(i.base_name) = ` + b.arg(v) + `)`
	}
	return s
}
