package tarport

import "log/slog"

// Secret is a text that must not be printed or logged.
type Secret string

const redacted = "REDACTED"

func (Secret) String() string { return redacted }

// GoString keeps the secret out of %#v.
func (Secret) GoString() string { return redacted }

// LogValue keeps the secret out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }
