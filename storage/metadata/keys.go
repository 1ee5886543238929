package metadata

import (
	"context"
	"fmt"
	"time"
)

// SigningKey is a key that signs access tokens.
type SigningKey struct {
	KID       string // RFC 7638 thumbprint of the public key
	Sealed    []byte // the private key, sealed by a key that is not in the database
	Retired   bool   // it verifies and no longer signs
	CreatedAt time.Time
}

// SigningKeys lists the keys that still verify, the newest first.
func (db *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	const query = `
		SELECT kid, sealed, verify_until IS NOT NULL, created_at FROM signing_keys
		WHERE verify_until IS NULL OR verify_until > $1
		ORDER BY created_at DESC, kid`
	tx := db.view()
	keys, err := all(ctx, tx, func(k *SigningKey, scan func(...any) error) error {
		return scan(&k.KID, &k.Sealed, &k.Retired, stamp{&k.CreatedAt})
	}, query, tx.now)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return keys, nil
}

// AddSigningKey stores a key; the newest signs.
func (db *DB) AddSigningKey(ctx context.Context, kid string, sealed []byte) error {
	const query = `INSERT INTO signing_keys (kid, sealed, created_at) VALUES ($1, $2, $3)`
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, query, kid, sealed, tx.now)
		return err
	})
	if err != nil {
		return fmt.Errorf("store signing key: %w", err)
	}
	return nil
}

// RetireSigningKeys retires all keys but the newest of those made before the
// time and what is newer still: they verify until verifyUntil. Keys whose time is
// over are deleted.
func (db *DB) RetireSigningKeys(ctx context.Context, activeBefore, verifyUntil time.Time) error {
	const (
		retire = `UPDATE signing_keys SET verify_until = $2 WHERE verify_until IS NULL AND created_at <
			(SELECT MAX(k.created_at) FROM signing_keys k WHERE k.verify_until IS NULL AND k.created_at <= $1)`
		prune = `DELETE FROM signing_keys WHERE verify_until <= $1`
	)
	err := db.update(ctx, durable, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.exec(ctx, retire, activeBefore.UnixMicro(), verifyUntil.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.exec(ctx, prune, tx.now)
		return err
	})
	if err != nil {
		return fmt.Errorf("retire signing keys: %w", err)
	}
	return nil
}
