package metadata

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// Syntaxes of the patterns of a rule.
const (
	SyntaxGlob = "glob" // * and ? within one component of a name, ** over all
	SyntaxRE2  = "re2"  // a regular expression that has to match the whole
)

// ImmutableRule makes tags of a namespace immutable: one that is there is
// neither moved nor deleted, whoever asks and by whichever way. It is checked
// where a tag's row is written (tag, untag) and where what a tag needs is
// deleted.
type ImmutableRule struct {
	ID               int64
	Syntax           string
	Repository       string // without the namespace in front
	ExceptRepository string // "" excepts none
	Tag              string
	ExceptTag        string // "" excepts none
	CreatedAt        time.Time
	CreatedBy        string
}

const (
	ruleColumns  = `i.id, i.syntax, i.repository, i.except_repository, i.tag, i.except_tag, i.created_at, i.created_by`
	selectRules  = `SELECT ` + ruleColumns + ` FROM namespaces n JOIN immutable_rules i ON i.namespace_id = n.id WHERE n.name = $1 ORDER BY i.id`
	rulesOver    = `SELECT ` + ruleColumns + `, r.name FROM repositories r JOIN immutable_rules i ON i.namespace_id = r.namespace_id WHERE r.id = $1 ORDER BY i.id`
	selectRuleNS = `SELECT n.id, (SELECT COUNT(*) FROM immutable_rules i WHERE i.namespace_id = n.id) FROM namespaces n WHERE n.name = $1`
	insertRule   = `INSERT INTO immutable_rules (namespace_id, syntax, repository, except_repository, tag, except_tag, created_at, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`
	deleteRule    = `DELETE FROM immutable_rules WHERE id = $2 AND namespace_id = (SELECT id FROM namespaces WHERE name = $1)`
	selectAllTags = `SELECT name FROM tags WHERE repository_id = $1 ORDER BY name`
	// The tags of the indexes, of whatever depth, that need a manifest.
	selectTagsAbove = `WITH RECURSIVE above (digest) AS (
			SELECT manifest FROM manifest_references WHERE repository_id = $1 AND digest = $2
			UNION SELECT r.manifest FROM above a JOIN manifest_references r ON r.repository_id = $1 AND r.digest = a.digest)
		SELECT DISTINCT t.name FROM above a JOIN tags t ON t.repository_id = $1 AND t.digest = a.digest ORDER BY t.name`
)

// Bounds of rules: they are read with every tag that moves.
const (
	maxRules   = 100
	maxPattern = 256
)

// Check completes a rule, and returns INVALID where a pattern is none.
func (r *ImmutableRule) Check() error {
	if r.Syntax == "" {
		r.Syntax = SyntaxGlob
	}
	if r.Syntax != SyntaxGlob && r.Syntax != SyntaxRE2 {
		return tarport.Errorf(tarport.Invalid, "the syntax %q is none: use glob or re2", r.Syntax)
	}
	everything := map[string]string{SyntaxGlob: "**", SyntaxRE2: ".*"}[r.Syntax]
	for _, p := range []*string{&r.Repository, &r.Tag} {
		if *p == "" {
			*p = everything
		}
	}
	for _, p := range []string{r.Repository, r.ExceptRepository, r.Tag, r.ExceptTag} {
		if len(p) > maxPattern {
			return tarport.Errorf(tarport.Invalid, "the pattern %q is longer than %d bytes", p, maxPattern)
		}
		if _, err := compile(r.Syntax, p); err != nil {
			return tarport.Errorf(tarport.Invalid, "the pattern %q cannot be read: %s", p, err)
		}
	}
	return nil
}

// Covers tells whether the rule makes a tag of a repository immutable.
func (r *ImmutableRule) Covers(repository, tag string) bool {
	_, path, _ := strings.Cut(repository, "/")
	return r.matches(r.Repository, path) && r.matches(r.Tag, tag) &&
		(r.ExceptRepository == "" || !r.matches(r.ExceptRepository, path)) &&
		(r.ExceptTag == "" || !r.matches(r.ExceptTag, tag))
}

// matches takes a pattern that cannot be read, which Check lets nobody store,
// for one that matches: what is protected stays so.
func (r *ImmutableRule) matches(pattern, s string) bool {
	re, err := compile(r.Syntax, pattern)
	return err != nil || re.MatchString(s)
}

func compile(syntax, pattern string) (*regexp.Regexp, error) {
	if syntax == SyntaxRE2 {
		if _, err := regexp.Compile(pattern); err != nil { // alone, or a ) in it would end ours
			return nil, err
		}
		return regexp.Compile(`^(?:` + pattern + `)$`)
	}
	b := []byte("^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			b = append(b, ".*"...)
			i++
		case c == '*':
			b = append(b, "[^/]*"...)
		case c == '?':
			b = append(b, "[^/]"...)
		default:
			b = append(b, regexp.QuoteMeta(pattern[i:i+1])...)
		}
	}
	return regexp.Compile(string(b) + "$")
}

// dest are the columns of ruleColumns.
func (r *ImmutableRule) dest() []any {
	return []any{&r.ID, &r.Syntax, &r.Repository, &r.ExceptRepository, &r.Tag, &r.ExceptTag, stamp{&r.CreatedAt}, &r.CreatedBy}
}

// ImmutableRules lists the rules of a namespace, the oldest first.
func (db *DB) ImmutableRules(ctx context.Context, namespace string) ([]ImmutableRule, error) {
	list, err := all(ctx, db.view(), func(r *ImmutableRule, scan func(...any) error) error {
		return scan(r.dest()...)
	}, selectRules, namespace)
	if err != nil {
		return nil, fmt.Errorf("list the immutable rules of namespace %s: %w", namespace, err)
	}
	return list, nil
}

// CreateImmutableRule adds a rule, which counts from now on, also for the tags
// that are there, and returns it as it is stored. NOT_FOUND where there is no
// such namespace.
func (db *DB) CreateImmutableRule(ctx context.Context, namespace string, r ImmutableRule) (ImmutableRule, error) {
	if err := r.Check(); err != nil {
		return r, err
	}
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		var ns int64
		var have int
		found, err := tx.row(ctx, selectRuleNS, []any{namespace}, &ns, &have)
		switch {
		case err != nil:
			return err
		case !found:
			return ErrNoNamespace(namespace)
		case have >= maxRules:
			return tarport.Errorf(tarport.Denied, "the namespace %s has %d immutable rules, more are not possible: let one pattern cover several", namespace, have)
		}
		r.CreatedBy, r.CreatedAt = tarport.PrincipalFrom(ctx).Name, time.UnixMicro(tx.now).UTC()
		if _, err := tx.row(ctx, insertRule, []any{ns, r.Syntax, r.Repository, r.ExceptRepository, r.Tag, r.ExceptTag, tx.now, r.CreatedBy}, &r.ID); err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventRuleCreate, Namespace: namespace, Target: strconv.FormatInt(r.ID, 10), Detail: map[string]any{
			"syntax": r.Syntax, "repository": r.Repository, "except_repository": r.ExceptRepository, "tag": r.Tag, "except_tag": r.ExceptTag,
		}})
	})
	if err != nil {
		return r, fmt.Errorf("create an immutable rule: %w", err)
	}
	return r, nil
}

// DeleteImmutableRule takes a rule away; NOT_FOUND where the namespace has none
// of this id.
func (db *DB) DeleteImmutableRule(ctx context.Context, namespace string, id int64) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		n, err := tx.exec(ctx, deleteRule, namespace, id)
		if err == nil && n == 0 {
			return tarport.Errorf(tarport.NotFound, "the namespace %s has no immutable rule %d", namespace, id)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, Event{Action: EventRuleDelete, Namespace: namespace, Target: strconv.FormatInt(id, 10)})
	})
	if err != nil {
		return fmt.Errorf("delete an immutable rule: %w", err)
	}
	return nil
}

// rules are those that can cover tags of a repository.
func (tx *Tx) rules(ctx context.Context, repo int64) (rules []ImmutableRule, repository string, err error) {
	rules, err = all(ctx, tx, func(r *ImmutableRule, scan func(...any) error) error {
		return scan(append(r.dest(), &repository)...)
	}, rulesOver, repo)
	if err != nil {
		err = fmt.Errorf("look up the immutable rules: %w", err)
	}
	return rules, repository, err
}

// checkMutable returns DENIED where a rule makes a tag that is there immutable.
func (tx *Tx) checkMutable(ctx context.Context, repo int64, tag string) error {
	rules, repository, err := tx.rules(ctx, repo)
	if err != nil {
		return err
	}
	return immutable(rules, repository, []string{tag}, "")
}

// checkParents returns DENIED where an index that has an immutable tag needs a
// manifest. Tags of the manifest itself are untag's.
func (tx *Tx) checkParents(ctx context.Context, repo int64, dgst digest.Digest) error {
	rules, repository, err := tx.rules(ctx, repo)
	if err != nil || len(rules) == 0 {
		return err
	}
	tags, err := all(ctx, tx, scanOne[string], selectTagsAbove, repo, dgst.String())
	if err != nil {
		return err
	}
	return immutable(rules, repository, tags, " needs this manifest and")
}

// checkRemovable returns DENIED where a repository has an immutable tag.
func (tx *Tx) checkRemovable(ctx context.Context, repo int64) error {
	rules, repository, err := tx.rules(ctx, repo)
	if err != nil || len(rules) == 0 {
		return err
	}
	tags, err := all(ctx, tx, scanOne[string], selectAllTags, repo)
	if err != nil {
		return err
	}
	return immutable(rules, repository, tags, "")
}

func immutable(rules []ImmutableRule, repository string, tags []string, why string) error {
	for i := range rules {
		for _, tag := range tags {
			if r := &rules[i]; r.Covers(repository, tag) {
				return tarport.Errorf(tarport.Denied, "the tag %s of %s%s is immutable, by rule %d of the namespace %s (%s): it can be neither moved nor deleted. Use another tag, or delete the rule",
					tag, repository, why, r.ID, tarport.Namespace(repository), r).
					WithDetail(map[string]any{"rule": r.ID, "repository": repository, "tag": tag})
			}
		}
	}
	return nil
}

// String is the rule in short.
func (r *ImmutableRule) String() string {
	s := fmt.Sprintf("%s: tags %q of repositories %q", r.Syntax, r.Tag, r.Repository)
	if r.ExceptTag != "" {
		s += fmt.Sprintf(", but not tags %q", r.ExceptTag)
	}
	if r.ExceptRepository != "" {
		s += fmt.Sprintf(", but not of repositories %q", r.ExceptRepository)
	}
	return s
}
