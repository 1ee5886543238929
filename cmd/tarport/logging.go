package main

import (
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/sirupsen/logrus"
)

// newLogger makes the logger that the log: section describes.
func newLogger(w io.Writer, c configuration.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: logLevel(c.Level), AddSource: c.ReportCaller}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if c.Formatter == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	log := slog.New(h)
	for _, k := range slices.Sorted(maps.Keys(c.Fields)) {
		log = log.With(slog.Any(k, c.Fields[k]))
	}
	return log
}

func logLevel(l configuration.Loglevel) slog.Level {
	switch l {
	case "error":
		return slog.LevelError
	case "warn":
		return slog.LevelWarn
	case "debug":
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}

// logrusBridge takes what distribution logs, by logrus's global logger. It is
// warnings at most: distribution calls every 404 an error, and what goes wrong
// here is logged here. Until there is a logger it keeps them.
type logrusBridge struct {
	mu   sync.Mutex
	log  *slog.Logger
	kept []string
}

// bridgeLogrus puts a bridge in the place of logrus's output. The last one
// counts: there is one logger of logrus in a process.
func bridgeLogrus() *logrusBridge {
	b := &logrusBridge{}
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.WarnLevel)
	hooks := make(logrus.LevelHooks)
	hooks.Add(b)
	logrus.StandardLogger().ReplaceHooks(hooks)
	return b
}

func (b *logrusBridge) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

func (b *logrusBridge) Fire(e *logrus.Entry) error {
	b.mu.Lock()
	log := b.log
	if log == nil {
		b.kept = append(b.kept, e.Message)
	}
	b.mu.Unlock()
	if log != nil {
		log.Warn("distribution", slog.String("text", e.Message))
	}
	return nil
}

// take returns what was kept.
func (b *logrusBridge) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.kept
	b.kept = nil
	return kept
}

// to sends what comes, and what was kept, to the logger.
func (b *logrusBridge) to(log *slog.Logger) {
	b.mu.Lock()
	b.log = log
	b.mu.Unlock()
	for _, text := range b.take() {
		log.Warn("distribution", slog.String("text", text))
	}
}
