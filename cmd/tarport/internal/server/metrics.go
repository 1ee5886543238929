package server

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tarport/tarport"
)

// Metrics are the metrics of one server, in a registry of their own: in
// prometheus' default one distribution has some of what is not done here.
type Metrics struct {
	registry  *prometheus.Registry
	durations *prometheus.HistogramVec
	requests  [len(methods)][len(classes)]atomic.Pointer[prometheus.Observer] // of durations, once there was one
	handler   http.Handler
}

// The values of the labels. Anything else is counted as the last method, so
// that a client cannot make series.
var (
	methods = [...]string{"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "other"}
	classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}
)

// NewMetrics makes a Metrics.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "tarport_http_request_duration_seconds",
		Help:    "Time from the head of a request to the end of its answer.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"method", "code"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tarport_build_info",
		Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{
			"version": tarport.Version, "revision": Revision(), "goversion": runtime.Version(),
		},
	})
	build.Set(1)
	m.Register(m.durations, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// Register adds metrics. Each name may come once.
func (m *Metrics) Register(c ...prometheus.Collector) { m.registry.MustRegister(c...) }

// Observe counts a request that was answered with status after d.
func (m *Metrics) Observe(method string, status int, d time.Duration) {
	class := status/100 - 1
	if class < 0 || class >= len(classes) {
		class = len(classes) - 1
	}
	i := methodIndex(method)
	o := m.requests[i][class].Load()
	if o == nil { // looking it up by its labels costs more than all the rest
		found := m.durations.WithLabelValues(methods[i], classes[class])
		o = &found
		m.requests[i][class].Store(o)
	}
	(*o).Observe(d.Seconds())
}

func methodIndex(method string) int {
	for i, m := range methods {
		if m == method {
			return i
		}
	}
	return len(methods) - 1
}

func (m *Metrics) underWay(n func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tarport_http_requests_under_way",
		Help: "Requests that are being answered.",
	}, n))
}

// Revision is the commit that the binary was built from, "" where the build
// did not know.
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
