package metadata

import (
	"context"
	"fmt"
)

// SigningKey is a key that signs access tokens.
type SigningKey struct {
	KID     string // RFC 7638 thumbprint of the public key
	Sealed  []byte // the private key, sealed by a key that is not in the database
	Retired bool   // it verifies and no longer signs
}

// SigningKeys lists the keys that still verify, the newest first.
func (db *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	const query = `
		SELECT kid, sealed, verify_until IS NOT NULL FROM signing_keys
		WHERE verify_until IS NULL OR verify_until > $1
		ORDER BY created_at DESC, kid`
	tx := db.view()
	keys, err := all(ctx, tx, func(k *SigningKey, scan func(...any) error) error {
		return scan(&k.KID, &k.Sealed, &k.Retired)
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
