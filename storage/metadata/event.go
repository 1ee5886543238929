package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tarport/tarport"
)

// Event is a change, or a login that failed, as the audit keeps it. Its words
// for what happened are noun.verb: manifest.push, tag.delete, user.create.
type Event struct {
	Action     string
	Namespace  string // whose owners see it; "" for what belongs to none, which administrators see
	Repository string // with its namespace; "" where there is none
	Target     string // what was changed: a tag, digest, user, rule …
	Detail     map[string]any

	// Filled in from the context where ActorID is 0 and Actor is "": who asks,
	// and with which personal access token, 0 for none.
	ActorID int64
	Actor   string
	TokenID int64

	// Filled in when it is recorded.
	ID        int64
	At        time.Time
	Address   string
	RequestID string
}

// The actions of content. Those of users, members and the like stand beside
// what they record.
const (
	EventManifestPush   = "manifest.push" // also by way of load, import and commit: the detail's via says so
	EventManifestDelete = "manifest.delete"
	EventTagSet         = "tag.set"
	EventTagDelete      = "tag.delete"
	EventBlobMount      = "blob.mount"
	EventBlobDelete     = "blob.delete"
	EventQuotaSet       = "quota.set"
	EventRuleCreate     = "immutable-rule.create"
	EventRuleDelete     = "immutable-rule.delete"
	EventLoginFailed    = "login.fail"
)

// event records a change in the transaction that makes it. The namespace must
// be there: where it is deleted, the event comes first.
func (tx *Tx) event(ctx context.Context, e Event) error {
	const query = `INSERT INTO events (at, namespace_id, namespace, repository, actor_id, actor, action, target, detail, address, token_id, request_id)
		VALUES ($1, COALESCE((SELECT id FROM namespaces WHERE name = $2), 0), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	if e.ActorID == 0 && e.Actor == "" {
		p := tarport.PrincipalFrom(ctx)
		e.ActorID, e.Actor, e.TokenID = p.UserID, p.Name, p.TokenID
	}
	detail := ""
	if len(e.Detail) > 0 {
		b, err := json.Marshal(e.Detail)
		if err != nil {
			return fmt.Errorf("record event %s: %w", e.Action, err)
		}
		detail = string(b)
	}
	call := tarport.CallFrom(ctx)
	address := ""
	if call.Address.IsValid() {
		address = call.Address.Unmap().String()
	}
	if _, err := tx.exec(ctx, query, tx.now, e.Namespace, e.Repository, e.ActorID, e.Actor, e.Action, e.Target,
		detail, address, e.TokenID, call.RequestID); err != nil {
		return fmt.Errorf("record event %s: %w", e.Action, err)
	}
	return nil
}

// Record records what changes no other row, such as a login that failed. A
// power loss may forget it.
func (db *DB) Record(ctx context.Context, e Event) error {
	return db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error { return tx.event(ctx, e) })
}

// EventQuery selects events. Zero values select all.
type EventQuery struct {
	Namespace    string // of the namespace that has this name now
	Actor        string
	Action       string    // an action, or the noun of several: tag for tag.set and tag.delete
	Since, Until time.Time // Until itself is not in it
	Before       int64     // only those of a lower id: what follows a page
}

// Events lists at most n events, the newest first.
func (db *DB) Events(ctx context.Context, q EventQuery, n int) ([]Event, error) {
	const columns = `SELECT id, at, namespace, repository, actor_id, actor, action, target, detail, address, token_id, request_id FROM events WHERE `
	const filter = `($2 = '' OR actor = $2) AND ($3 = '' OR action = $3 OR substr(action, 1, length($3) + 1) = $3 || '.')
		AND (at >= $4 OR $4 = 0) AND (at < $5 OR $5 = 0) AND (id < $6 OR $6 = 0)
		ORDER BY id DESC LIMIT $7`
	const ofNamespace = columns + `namespace_id = (SELECT id FROM namespaces WHERE name = $1) AND ` + filter
	const ofAll = columns + `$1 = '' AND ` + filter
	query := ofAll
	if q.Namespace != "" {
		query = ofNamespace
	}
	list, err := all(ctx, db.view(), scanEvent, query, q.Namespace, q.Actor, q.Action, unixMicros(q.Since), unixMicros(q.Until), q.Before, n)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return list, nil
}

func unixMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func scanEvent(e *Event, scan func(...any) error) error {
	var at int64
	var detail string
	if err := scan(&e.ID, &at, &e.Namespace, &e.Repository, &e.ActorID, &e.Actor, &e.Action, &e.Target,
		&detail, &e.Address, &e.TokenID, &e.RequestID); err != nil {
		return err
	}
	e.At = time.UnixMicro(at).UTC()
	if detail == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(detail), &e.Detail); err != nil {
		return fmt.Errorf("read the detail of event %d: %w", e.ID, err)
	}
	return nil
}

// PruneEvents forgets at most n events from before the time, and returns how
// many.
func (db *DB) PruneEvents(ctx context.Context, before time.Time, n int) (pruned int64, err error) {
	const query = `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < $1 ORDER BY at LIMIT $2)`
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) (err error) {
		pruned, err = tx.exec(ctx, query, before.UnixMicro(), n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("forget old events: %w", err)
	}
	return pruned, nil
}
