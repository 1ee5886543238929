package metadata

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarport/tarport"
)

// What a namespace uses is the sum of the sizes of the distinct blobs that its
// repositories have a counted link to, and of what its open uploads and batches
// have reserved. Manifests are small and free. Whatever changes links or
// reservations notes it in its transaction (linked, unlinked, reserved); the
// transaction ends by settling what was noted:
//
//	insert, delete links ──> note ──┐
//	                                ├─> settle: lock the namespace's row, see which blobs are new to it or
//	reserve, release ──────> note ──┘           gone from it, add the bytes, refuse what is over the quota
//
// On PostgreSQL the row is locked before the links are looked at, so that of
// two transactions that link one blob in two repositories the second sees the
// first; and it is locked last, so that nobody waits for other rows with it.

// Usage is what a namespace may use and what it does.
type Usage struct {
	Quota    int64 // -1: no limit
	Used     int64 // by blobs
	Reserved int64 // by uploads and archives that are under way
}

const (
	selectUsage = `SELECT quota_bytes, used_bytes, reserved_bytes FROM namespaces WHERE name = $1`
	updateQuota = `UPDATE namespaces SET quota_bytes = $2 WHERE name = $1`
	lockUsage   = `UPDATE namespaces SET used_bytes = used_bytes WHERE id = $1`
	addUsage    = `UPDATE namespaces SET used_bytes = used_bytes + $2, reserved_bytes = reserved_bytes + $3 WHERE id = $1
		RETURNING name, quota_bytes, used_bytes, reserved_bytes`
	reserveBytes = `UPDATE namespaces SET reserved_bytes = reserved_bytes + $2
		WHERE name = $1 AND (quota_bytes < 0 OR used_bytes + reserved_bytes + $2 <= quota_bytes) RETURNING id`
	countLinks = `SELECT COUNT(*) FROM (SELECT 1 FROM blob_links WHERE digest = $1 AND namespace_id = $2 AND counted LIMIT $3) found`
	hasLink    = `SELECT 1 FROM namespaces n JOIN blob_links l ON l.namespace_id = n.id AND l.digest = $2 AND l.counted
		WHERE n.name = $1 LIMIT 1`
	hasLargeLink = `SELECT 1 FROM namespaces n JOIN repositories r ON r.namespace_id = n.id JOIN blob_links l ON l.repository_id = r.id AND l.counted
		JOIN blobs b ON b.digest = l.digest WHERE n.name = $1 AND b.size >= $2 LIMIT 1`

	upsertBatch = `INSERT INTO batches (id, namespace_id, reserved, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id, namespace_id) DO UPDATE SET reserved = batches.reserved + excluded.reserved, expires_at = excluded.expires_at`
	deleteBatch    = `DELETE FROM batches WHERE id = $1 RETURNING namespace_id, reserved`
	expiredBatches = `DELETE FROM batches WHERE expires_at <= $1 RETURNING namespace_id, reserved`

	// The bytes are added up from the blobs, links and repositories themselves,
	// and not by the column that settle looks at.
	recountUsage = `SELECT n.id, n.name, n.quota_bytes, n.used_bytes, n.reserved_bytes,
		COALESCE((SELECT CAST(SUM(b.size) AS BIGINT) FROM blobs b WHERE b.digest IN (SELECT l.digest FROM repositories r
			JOIN blob_links l ON l.repository_id = r.id WHERE r.namespace_id = n.id AND l.counted)), 0),
		COALESCE((SELECT CAST(SUM(u.reserved) AS BIGINT) FROM uploads u WHERE u.namespace_id = n.id), 0)
			+ COALESCE((SELECT CAST(SUM(t.reserved) AS BIGINT) FROM batches t WHERE t.namespace_id = n.id), 0)
		FROM namespaces n`
	recountAll = recountUsage + ` ORDER BY n.name`
	recountOne = recountUsage + ` WHERE n.id = $1`
	setUsage   = `UPDATE namespaces SET used_bytes = $2, reserved_bytes = $3 WHERE id = $1`
)

// notes are what a transaction has to settle.
type notes struct {
	links    map[linkKey]linkNote
	reserved map[int64]int64 // by namespace
}

type linkKey struct {
	namespace int64
	digest    string
}

type linkNote struct {
	made int // links less those taken away
	size int64
}

// noteLink notes that a counted link was made (1) or is none any more (-1).
func (tx *Tx) noteLink(namespace int64, dgst string, size int64, made int) {
	if tx.notes.links == nil {
		tx.notes.links = map[linkKey]linkNote{}
	}
	k := linkKey{namespace, dgst}
	tx.notes.links[k] = linkNote{tx.notes.links[k].made + made, size}
}

// noteReserved notes a change of what is reserved in a namespace; 0 is none.
func (tx *Tx) noteReserved(namespace, bytes int64) {
	if namespace == 0 || bytes == 0 {
		return
	}
	if tx.notes.reserved == nil {
		tx.notes.reserved = map[int64]int64{}
	}
	tx.notes.reserved[namespace] += bytes
}

// settle is called once, as the last of a transaction that writes.
func (tx *Tx) settle(ctx context.Context) error {
	namespaces := map[int64]bool{} // whether it has links to look at
	for ns := range tx.notes.reserved {
		namespaces[ns] = false
	}
	for k, l := range tx.notes.links {
		namespaces[k.namespace] = namespaces[k.namespace] || l.made != 0
	}
	for _, ns := range slices.Sorted(maps.Keys(namespaces)) { // in one order, against deadlocks
		var used int64
		if namespaces[ns] {
			var err error
			if used, err = tx.settleLinks(ctx, ns); err != nil {
				return fmt.Errorf("settle the usage of namespace %d: %w", ns, err)
			}
		}
		if err := tx.addUsage(ctx, ns, used, tx.notes.reserved[ns]); err != nil {
			return fmt.Errorf("settle the usage of namespace %d: %w", ns, err)
		}
	}
	tx.notes = notes{}
	return nil
}

// settleLinks returns how many bytes the namespace has more by the links that
// were made and taken away.
func (tx *Tx) settleLinks(ctx context.Context, ns int64) (bytes int64, err error) {
	if !tx.db.Exclusive() {
		if _, err := tx.exec(ctx, lockUsage, ns); err != nil {
			return 0, err
		}
	}
	for k, l := range tx.notes.links {
		if k.namespace != ns || l.made == 0 {
			continue
		}
		var now int
		if _, err := tx.row(ctx, countLinks, []any{k.digest, ns, max(l.made, 0) + 1}, &now); err != nil {
			return 0, err
		}
		had, has := now-l.made > 0, now > 0
		switch {
		case has && !had:
			bytes += l.size
		case had && !has:
			bytes -= l.size
		}
	}
	return bytes, nil
}

// addUsage changes the sums of a namespace. What makes them smaller is never
// refused, and in a namespace that is gone there is nothing to change.
func (tx *Tx) addUsage(ctx context.Context, ns, used, reserved int64) error {
	if used == 0 && reserved == 0 {
		return nil
	}
	var name string
	var u Usage
	found, err := tx.row(ctx, addUsage, []any{ns, used, reserved}, &name, &u.Quota, &u.Used, &u.Reserved)
	more := used + reserved
	if err == nil && found && more > 0 && u.Quota >= 0 && u.Used+u.Reserved > u.Quota {
		u.Used, u.Reserved = u.Used-used, u.Reserved-reserved
		return overQuota(name, u, more)
	}
	return err
}

// overQuota is the answer to what would exceed a quota.
func overQuota(namespace string, u Usage, needed int64) *tarport.Error {
	under := ""
	if u.Reserved > 0 {
		under = ", " + bytesText(u.Reserved) + " of it by uploads that are under way"
	}
	return tarport.Errorf(tarport.Denied, "the namespace %s is full: it uses %s of %s%s, and this needs %s more. Delete images there, or ask an administrator for a larger quota",
		namespace, bytesText(u.Used+u.Reserved), bytesText(u.Quota), under, bytesText(needed)).
		WithDetail(map[string]any{"namespace": namespace, "used": u.Used + u.Reserved, "reserved": u.Reserved, "limit": u.Quota, "needed": needed})
}

// bytesText is a size for a person.
func bytesText(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	f, i := float64(n)/(1<<10), 0
	for f >= 1<<10 && i < len(units)-1 {
		f, i = f/(1<<10), i+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[i]
}

// Usage returns what a namespace uses; NOT_FOUND where there is none.
func (db *DB) Usage(ctx context.Context, namespace string) (Usage, error) {
	u, found, err := db.view().usage(ctx, namespace)
	if err == nil && !found {
		err = ErrNoNamespace(namespace)
	}
	return u, err
}

func (tx *Tx) usage(ctx context.Context, namespace string) (u Usage, found bool, err error) {
	found, err = tx.row(ctx, selectUsage, []any{namespace}, &u.Quota, &u.Used, &u.Reserved)
	if err != nil {
		err = fmt.Errorf("look up the usage of namespace %s: %w", namespace, err)
	}
	return u, found, err
}

// SetQuota limits a namespace; -1 lifts the limit. A quota below what is used
// takes nothing away. NOT_FOUND where there is no such namespace.
func (db *DB) SetQuota(ctx context.Context, namespace string, quota int64) error {
	return db.update(ctx, durable, func(ctx context.Context, tx *Tx) error { return tx.setQuota(ctx, namespace, quota) })
}

func (tx *Tx) setQuota(ctx context.Context, namespace string, quota int64) error {
	if quota < -1 {
		return tarport.Errorf(tarport.Invalid, "the quota %d is none: use a number of bytes, or -1 for no limit", quota)
	}
	n, err := tx.exec(ctx, updateQuota, namespace, quota)
	if err == nil && n == 0 {
		return ErrNoNamespace(namespace)
	}
	if err != nil {
		return fmt.Errorf("set the quota of namespace %s: %w", namespace, err)
	}
	return tx.event(ctx, Event{Action: EventQuotaSet, Namespace: namespace, Target: namespace, Detail: map[string]any{"quota_bytes": quota}})
}

// CheckQuota returns DENIED where a namespace has not so many bytes left. It
// reserves nothing. A namespace that is not there yet has no limit.
func (db *DB) CheckQuota(ctx context.Context, namespace string, needed int64) error {
	u, found, err := db.view().usage(ctx, namespace)
	if err == nil && found && u.Quota >= 0 && u.Used+u.Reserved+needed > u.Quota {
		return overQuota(namespace, u, needed)
	}
	return err
}

// NamespaceHas tells whether a blob is the namespace's already, so that it
// costs nothing there.
func (db *DB) NamespaceHas(ctx context.Context, namespace string, dgst digest.Digest) (bool, error) {
	var one int
	return db.view().row(ctx, hasLink, []any{namespace, dgst.String()}, &one)
}

// NamespaceHasLarge tells whether the namespace has a blob of so many bytes or
// more: bytes whose digest is not known yet may be that blob's.
func (db *DB) NamespaceHasLarge(ctx context.Context, namespace string, size int64) (bool, error) {
	var one int
	return db.view().row(ctx, hasLargeLink, []any{namespace, size}, &one)
}

// reserve takes want bytes of a namespace, or less, but no less than need;
// DENIED where there are not so many. The id is 0 where the namespace is not
// there yet: then there is no limit and nothing to count it in.
func (tx *Tx) reserve(ctx context.Context, namespace string, need, want int64) (id, got int64, err error) {
	for got = max(want, need); ; got = max(got/8, need) {
		found, err := tx.row(ctx, reserveBytes, []any{namespace, got}, &id)
		if err != nil || found {
			return id, got, err
		}
		if got == need {
			break
		}
	}
	u, found, err := tx.usage(ctx, namespace)
	if err != nil || !found {
		return 0, max(want, need), err
	}
	return 0, 0, overQuota(namespace, u, need)
}

// ReserveBatch reserves between need and want bytes for an archive that is
// being read, under an id of the caller's, until it is released or expires, and
// returns how many. DENIED where the namespace has not so many left.
func (db *DB) ReserveBatch(ctx context.Context, id, namespace string, need, want int64, expires time.Time) (got int64, err error) {
	err = db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		var ns int64
		var err error
		if ns, got, err = tx.reserve(ctx, namespace, need, want); err != nil || ns == 0 {
			return err
		}
		_, err = tx.exec(ctx, upsertBatch, id, ns, got, expires.UnixMicro())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reserve space: %w", err)
	}
	return got, nil
}

// ReleaseBatch gives back all that ReserveBatch reserved under the id.
func (db *DB) ReleaseBatch(ctx context.Context, id string) error {
	return db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error { return tx.release(ctx, deleteBatch, id) })
}

// ReleaseBatches gives back what archives reserved that are not read any more,
// by the time they had.
func (db *DB) ReleaseBatches(ctx context.Context, expired time.Time) error {
	return db.update(ctx, relaxed, func(ctx context.Context, tx *Tx) error {
		return tx.release(ctx, expiredBatches, expired.UnixMicro())
	})
}

// release runs a query that takes rows away and returns what they had reserved.
func (tx *Tx) release(ctx context.Context, query string, args ...any) error {
	return tx.query(ctx, func(scan func(...any) error) error {
		var ns, bytes int64
		if err := scan(&ns, &bytes); err != nil {
			return err
		}
		tx.noteReserved(ns, -bytes)
		return nil
	}, query, args...)
}

// Recounted is a namespace whose usage was added up anew.
type Recounted struct {
	Namespace string
	Stored    Usage // as it was
	Counted   Usage // as it is
}

// Equal tells whether what is stored is right.
func (r Recounted) Equal() bool { return r.Stored == r.Counted }

// Recount adds up anew what each namespace uses. With repair, what is stored is
// set right where it differs.
func (db *DB) Recount(ctx context.Context, repair bool) ([]Recounted, error) {
	var ids []int64
	list, err := all(ctx, db.view(), func(r *Recounted, scan func(...any) error) error {
		id, err := r.scan(scan)
		if err == nil && !r.Equal() {
			ids = append(ids, id)
		}
		return err
	}, recountAll)
	if err != nil {
		return nil, fmt.Errorf("recount the usage: %w", err)
	}
	if !repair {
		return list, nil
	}
	for _, id := range ids {
		if err := db.repairUsage(ctx, id); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b Recounted) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return list, nil
}

// repairUsage counts once more with the namespace's row locked: transactions
// that have made links and not settled them yet do so after this.
func (db *DB) repairUsage(ctx context.Context, id int64) error {
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.exec(ctx, lockUsage, id); err != nil {
			return err
		}
		var r Recounted
		err := tx.query(ctx, func(scan func(...any) error) error {
			_, err := r.scan(scan)
			return err
		}, recountOne, id)
		if err == nil {
			_, err = tx.exec(ctx, setUsage, id, r.Counted.Used, r.Counted.Reserved)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("repair the usage of namespace %d: %w", id, err)
	}
	return nil
}

func (r *Recounted) scan(scan func(...any) error) (id int64, err error) {
	err = scan(&id, &r.Namespace, &r.Stored.Quota, &r.Stored.Used, &r.Stored.Reserved, &r.Counted.Used, &r.Counted.Reserved)
	r.Counted.Quota = r.Stored.Quota
	return id, err
}
