package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/health"
	"github.com/distribution/distribution/v3/health/checks"
	"golang.org/x/sync/singleflight"
)

// Check is something that has to be well for the server to be ready.
type Check struct {
	Name string
	Func func(context.Context) error
}

// Health answers /healthz and /readyz. An answer names what is not well; why,
// stands in the log only.
type Health struct {
	log      *slog.Logger
	checks   []Check
	polled   []polled
	draining atomic.Bool
	flight   singleflight.Group
	last     atomic.Pointer[readiness]
}

// polled is a check of the health: section, which runs at its own interval.
type polled struct {
	Check
	interval time.Duration
	status   health.Updater
}

type readiness struct {
	at     time.Time
	failed []string
}

// How long a check may take, and how long its result is good: anybody may ask.
const (
	checkTimeout = 5 * time.Second
	checkMemory  = time.Second
)

// defaultInterval is distribution's.
const defaultInterval = 10 * time.Second

// NewHealth makes a Health of what must be well in any case and what the
// health: section adds. storage is the check of the storage driver; where the
// section has a rhythm and a threshold for it, it runs by them.
func NewHealth(log *slog.Logger, h configuration.Health, storage Check, others ...Check) *Health {
	s := &Health{log: log, checks: others}
	if d := h.StorageDriver; d.Enabled {
		s.add(storage, d.Interval, d.Threshold)
	} else {
		s.checks = append(s.checks, storage)
	}
	for _, c := range h.FileCheckers {
		s.add(Check{"file " + c.File, checks.FileChecker(c.File).Check}, c.Interval, c.Threshold)
	}
	for _, c := range h.HTTPCheckers {
		status := c.StatusCode
		if status == 0 {
			status = http.StatusOK
		}
		s.add(Check{"http " + c.URI, checks.HTTPChecker(c.URI, status, c.Timeout, c.Headers).Check}, c.Interval, c.Threshold)
	}
	for _, c := range h.TCPCheckers {
		s.add(Check{"tcp " + c.Addr, checks.TCPChecker(c.Addr, c.Timeout).Check}, c.Interval, c.Threshold)
	}
	return s
}

func (s *Health) add(c Check, interval time.Duration, threshold int) {
	if interval == 0 {
		interval = defaultInterval
	}
	status := health.NewStatusUpdater()
	if threshold > 0 {
		status = health.NewThresholdStatusUpdater(threshold)
	}
	s.polled = append(s.polled, polled{c, interval, status})
}

// poll runs the polled checks until ctx ends.
func (s *Health) poll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range s.polled {
		wg.Go(func() { health.Poll(ctx, p.status, health.CheckFunc(p.Func), p.interval) })
	}
	wg.Wait()
}

// Drain makes /readyz answer that the server is about to stop.
func (s *Health) Drain() { s.draining.Store(true) }

func (s *Health) live(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, http.StatusOK, healthBody{Status: "alive"})
}

type healthBody struct {
	Status string   `json:"status"`
	Failed []string `json:"failed,omitempty"`
}

func (s *Health) ready(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		writeHealth(w, http.StatusServiceUnavailable, healthBody{Status: "stopping"})
		return
	}
	if failed := s.failed(r.Context()); len(failed) > 0 {
		writeHealth(w, http.StatusServiceUnavailable, healthBody{Status: "not ready", Failed: failed})
		return
	}
	writeHealth(w, http.StatusOK, healthBody{Status: "ready"})
}

func writeHealth(w http.ResponseWriter, status int, b healthBody) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(b) // the client may be gone
}

// failed names the checks that fail. Many may ask at once: one runs them.
func (s *Health) failed(ctx context.Context) []string {
	if r := s.last.Load(); r != nil && time.Since(r.at) < checkMemory {
		return r.failed
	}
	v, _, _ := s.flight.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
		defer cancel()
		failed := s.run(ctx)
		s.last.Store(&readiness{time.Now(), failed})
		return failed, nil
	})
	failed, _ := v.([]string)
	return failed
}

func (s *Health) run(ctx context.Context) []string {
	errs := make([]error, len(s.checks)+len(s.polled))
	var wg sync.WaitGroup
	for i, c := range s.checks {
		wg.Go(func() { errs[i] = c.Func(ctx) })
	}
	wg.Wait()
	names := make([]string, 0, len(errs))
	for _, c := range s.checks {
		names = append(names, c.Name)
	}
	for i, p := range s.polled {
		errs[len(s.checks)+i] = p.status.Check(ctx)
		names = append(names, p.Name)
	}
	return s.report(names, errs)
}

// report names what fails, and logs what did not fail, or failed, before.
func (s *Health) report(names []string, errs []error) []string {
	var before, failed []string
	if r := s.last.Load(); r != nil {
		before = r.failed
	}
	for i, name := range names {
		was := slices.Contains(before, name)
		if errs[i] != nil {
			failed = append(failed, name)
		}
		switch {
		case errs[i] != nil && !was:
			s.log.Error("not ready", slog.String("check", name), slog.Any("err", errs[i]))
		case errs[i] == nil && was:
			s.log.Info("ready again", slog.String("check", name))
		}
	}
	return failed
}
