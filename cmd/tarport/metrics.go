package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	distribution "github.com/distribution/distribution/v3/metrics"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tarport/tarport/auth"
	"github.com/tarport/tarport/cmd/tarport/internal/config"
	"github.com/tarport/tarport/cmd/tarport/internal/server"
	"github.com/tarport/tarport/extensions/archive"
	"github.com/tarport/tarport/storage/metadata"
)

// The metrics of what the pieces do; docs/metrics.md has them all. No label has
// a value that a client chooses.

// archiveMetrics are those of archives. It is an archive.Observer.
type archiveMetrics struct {
	ended, layers          *prometheus.CounterVec
	received, sent, stored *prometheus.CounterVec
	durations              *prometheus.HistogramVec
	underWay               *prometheus.GaugeVec
}

func newArchiveMetrics(m *server.Metrics) *archiveMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.Register(c)
		return c
	}
	a := &archiveMetrics{
		ended:    counter("tarport_archives_total", "Archives that were taken in or given out, or that it was tried with.", "kind", "outcome"),
		layers:   counter("tarport_archive_layers_total", "Layers in archives that were read, by what was done with them.", "action"),
		received: counter("tarport_archive_received_bytes_total", "Bytes of archives that were read.", "kind"),
		stored:   counter("tarport_archive_stored_bytes_total", "Bytes of blobs that archives brought and that were new.", "kind"),
		sent:     counter("tarport_archive_sent_bytes_total", "Bytes of archives that were sent.", "kind"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tarport_archive_duration_seconds", Help: "Time that archives took whose outcome was ok.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		}, []string{"kind"}),
		underWay: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tarport_archives_under_way", Help: "Archives that are being read or sent, or that wait for their place.",
		}, []string{"kind"}),
	}
	m.Register(a.durations, a.underWay)
	a.begin()
	return a
}

// begin makes all series there are, so that a rate has a zero to begin at.
func (a *archiveMetrics) begin() {
	for _, k := range []archive.Kind{archive.KindLoad, archive.KindImport, archive.KindCommit, archive.KindSave, archive.KindExport} {
		for _, o := range []archive.Outcome{archive.OutcomeOK, archive.OutcomeRefused, archive.OutcomeFailed, archive.OutcomeGone} {
			a.ended.WithLabelValues(string(k), string(o))
		}
		a.durations.WithLabelValues(string(k))
		a.underWay.WithLabelValues(string(k))
		if k == archive.KindSave || k == archive.KindExport {
			a.sent.WithLabelValues(string(k))
			continue
		}
		a.received.WithLabelValues(string(k))
		a.stored.WithLabelValues(string(k))
	}
	a.count(archive.LayerCounts{})
}

func (a *archiveMetrics) count(n archive.LayerCounts) {
	a.layers.WithLabelValues("kept").Add(float64(n.Kept))
	a.layers.WithLabelValues("compressed").Add(float64(n.Compressed))
	a.layers.WithLabelValues("recompressed").Add(float64(n.Recompressed))
	a.layers.WithLabelValues("known").Add(float64(n.Known))
}

// Begin implements archive.Observer.
func (a *archiveMetrics) Begin(k archive.Kind) func(archive.Done) {
	kind, begun := string(k), time.Now()
	a.underWay.WithLabelValues(kind).Inc()
	return func(d archive.Done) {
		a.underWay.WithLabelValues(kind).Dec()
		a.ended.WithLabelValues(kind, string(d.Outcome)).Inc()
		if d.Outcome == archive.OutcomeOK {
			a.durations.WithLabelValues(kind).Observe(time.Since(begun).Seconds())
		}
		if k == archive.KindSave || k == archive.KindExport {
			a.sent.WithLabelValues(kind).Add(float64(d.Sent))
			return
		}
		a.received.WithLabelValues(kind).Add(float64(d.Received))
		a.stored.WithLabelValues(kind).Add(float64(d.Stored))
		a.count(d.Layers)
	}
}

// gauges adds the metrics that are read when they are asked for.
func gauges(m *server.Metrics, r *routes, s *stores) {
	gauge := func(name, help string, n func() int) {
		m.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(n()) }))
	}
	gauge("tarport_archive_places", "Archives that can be read at once.", func() int { all, _, _ := r.archives.Places(); return all })
	gauge("tarport_archive_places_taken", "Archives that are being read.", func() int { _, taken, _ := r.archives.Places(); return taken })
	gauge("tarport_archives_waiting", "Archives that wait to be read.", func() int { _, _, waiting := r.archives.Places(); return waiting })
	refused := func(reason string, n func(*auth.Service) int64) {
		m.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tarport_logins_refused_total", Help: "Logins that were refused.", ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(n(r.auth)) }))
	}
	refused("wrong", func(who *auth.Service) int64 { wrong, _ := who.LoginsRefused(); return wrong })
	refused("limited", func(who *auth.Service) int64 { _, limited := who.LoginsRefused(); return limited })
	if _, bounded := s.content.Room(); bounded {
		gauge("tarport_storage_room_bytes", "Bytes that can still be taken before the disk has no more free than it must.", func() int {
			room, _ := s.content.Room()
			return int(room)
		})
	}
}

// totals are the metrics that the database is asked for, now and then and not
// by who reads them.
type totals struct {
	db      *metadata.DB
	log     *slog.Logger
	backlog atomic.Pointer[metadata.Backlog]
	blobs   atomic.Pointer[[2]int64] // how many, and their bytes; nil until they were counted

	counted time.Time // when the blobs were
	rest    time.Duration
}

const (
	totalsEvery = 15 * time.Second
	// blobsEvery is how often the blobs are added up, at least, and blobsShare
	// which part of the time that may take.
	blobsEvery = time.Minute
	blobsShare = 100
)

// newTotals adds the metrics of what there is, and of what the storage driver
// does where it is one of distribution's.
func (s *stores) newTotals(c *config.Config, m *server.Metrics, r *routes) *totals {
	gauges(m, r, s)
	if driver, _ := c.Driver(); driver != "filesystem" {
		m.Register(distribution.StorageNamespace)
	}
	t := &totals{db: s.db, log: s.log}
	t.backlog.Store(&metadata.Backlog{})
	m.Register(t)
	return t
}

var (
	uploadsOpen   = prometheus.NewDesc("tarport_uploads_open", "Upload sessions that are open.", []string{"kind"}, nil)
	uploadsBytes  = prometheus.NewDesc("tarport_uploads_bytes", "Bytes that have come in upload sessions that are open.", []string{"kind"}, nil)
	layersPending = prometheus.NewDesc("tarport_layers_pending", "Layers of images that wait to be looked into.", nil, nil)
	layersFailed  = prometheus.NewDesc("tarport_layers_failed", "Layers of images that could not be looked into.", nil, nil)
	layersOldest  = prometheus.NewDesc("tarport_layers_oldest_pending_seconds", "How long the layer waits that waits longest, since it came or was tried last.", nil, nil)
	storageBlobs  = prometheus.NewDesc("tarport_storage_blobs", "Blobs in the storage.", nil, nil)
	storageBytes  = prometheus.NewDesc("tarport_storage_bytes", "Bytes of all blobs, each once.", nil, nil)
)

// Describe implements prometheus.Collector.
func (t *totals) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{uploadsOpen, uploadsBytes, layersPending, layersFailed, layersOldest, storageBlobs, storageBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector, by what was read last.
func (t *totals) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	b := t.backlog.Load()
	gauge(uploadsOpen, float64(b.Blobs), "blob")
	gauge(uploadsOpen, float64(b.Archives), "archive")
	gauge(uploadsBytes, float64(b.BlobBytes), "blob")
	gauge(uploadsBytes, float64(b.ArchiveBytes), "archive")
	gauge(layersPending, float64(b.Pending))
	gauge(layersFailed, float64(b.Failed))
	oldest := 0.0
	if !b.Since.IsZero() {
		oldest = max(time.Since(b.Since).Seconds(), 0)
	}
	gauge(layersOldest, oldest)
	if blobs := t.blobs.Load(); blobs != nil {
		gauge(storageBlobs, float64(blobs[0]))
		gauge(storageBytes, float64(blobs[1]))
	}
}

// run reads until ctx ends.
func (t *totals) run(ctx context.Context) error {
	tick := time.NewTicker(totalsEvery)
	defer tick.Stop()
	for {
		if err := t.read(ctx); err != nil && ctx.Err() == nil {
			t.log.LogAttrs(ctx, slog.LevelWarn, "metrics were not read", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (t *totals) read(ctx context.Context) error {
	b, err := t.db.Backlog(ctx)
	if err != nil {
		return err
	}
	t.backlog.Store(&b)
	begun := time.Now()
	if begun.Sub(t.counted) < t.rest {
		return nil
	}
	n, bytes, err := t.db.BlobTotals(ctx)
	if err != nil {
		return err
	}
	t.blobs.Store(&[2]int64{n, bytes})
	t.counted, t.rest = time.Now(), max(blobsEvery, blobsShare*time.Since(begun))
	return nil
}
