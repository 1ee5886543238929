-- Who may come in: accounts, what they can show instead of a password, and the
-- keys that sign access tokens. No secret lies here in clear: passwords are
-- argon2id hashes, refresh tokens SHA-256 hashes of 256 random bits, private
-- keys are sealed with a key that is not in the database.

-- +goose Up
CREATE TABLE users (
	id            {{id}}, -- never used again, so that what names a deleted user names nobody
	name          {{text}} NOT NULL UNIQUE,
	password_hash {{text}} NOT NULL,
	admin         BOOLEAN NOT NULL,
	disabled_at   BIGINT, -- null: the account is in use
	token_epoch   BIGINT NOT NULL DEFAULT 1, -- raised when the password changes; tokens of another epoch are void
	created_at    BIGINT NOT NULL
);

CREATE TABLE refresh_tokens (
	hash       {{bytes}} NOT NULL PRIMARY KEY,
	user_id    BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	epoch      BIGINT NOT NULL, -- the user's token_epoch when it was made; void in another
	service    {{text}} NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- The newest key that is not retired signs; a retired one verifies until the
-- last token that it signed is dead.
CREATE TABLE signing_keys (
	kid          {{text}} NOT NULL PRIMARY KEY, -- RFC 7638 thumbprint of the public key
	sealed       {{bytes}} NOT NULL,            -- the private key
	created_at   BIGINT NOT NULL,
	verify_until BIGINT                         -- null: not retired
);

-- One row a failed login (and one while a password is being checked), for as
-- long as it counts. account is a hash: people type passwords into the field
-- of the name.
CREATE TABLE login_failures (
	id        {{id}},
	account   {{text}} NOT NULL,
	address   {{text}} NOT NULL,
	failed_at BIGINT NOT NULL
);
CREATE INDEX login_failures_address ON login_failures (address, failed_at);
CREATE INDEX login_failures_failed_at ON login_failures (failed_at);

-- +goose Down
DROP TABLE login_failures;
DROP TABLE signing_keys;
DROP TABLE refresh_tokens;
DROP TABLE users;
