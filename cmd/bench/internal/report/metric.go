package report

// Metric is something that is measured. The order of the constants is that of the table.
type Metric int

// The metrics and their units.
const (
	Wall             Metric = iota // seconds
	Rate                           // requests per second
	FirstByte                      // milliseconds
	Median                         // milliseconds
	P99                            // milliseconds
	Worst                          // milliseconds
	P99Alone                       // milliseconds; P99 without the load beside it
	CPUPerGB                       // CPU seconds of the server for each GB that it served
	CPUPerRequest                  // CPU microseconds of the server
	Allocations                    // per request
	SystemCalls                    // per request
	UpstreamBytes                  // as a multiple of the bytes that were needed
	UpstreamRequests               // number
	Handshakes                     // of TLS with the upstream
	FullHandshakes                 // those that resumed no session
	PeakMemory                     // MB, since the server started
	metricCount      = iota
)

// metrics has the name of each metric and the number of decimals that are printed.
var metrics = [metricCount]struct {
	name     string
	decimals int
}{
	Wall:             {"wall, s", 2},
	Rate:             {"requests/s", 0},
	FirstByte:        {"first byte, ms", 1},
	Median:           {"median, ms", 1},
	P99:              {"p99, ms", 1},
	Worst:            {"worst, ms", 0},
	P99Alone:         {"p99 without it, ms", 1},
	CPUPerGB:         {"server CPU, s/GB", 2},
	CPUPerRequest:    {"server CPU, µs a request", 0},
	Allocations:      {"allocations a request", 1},
	SystemCalls:      {"system calls a request", 1},
	UpstreamBytes:    {"bytes upstream, ×", 2},
	UpstreamRequests: {"requests upstream", 0},
	Handshakes:       {"TLS handshakes upstream", 0},
	FullHandshakes:   {"full TLS handshakes", 0},
	PeakMemory:       {"peak memory, MB", 0},
}

func allMetrics() []Metric {
	all := make([]Metric, metricCount)
	for i := range all {
		all[i] = Metric(i)
	}
	return all
}

// String is the metric's name and unit in the table.
func (m Metric) String() string { return metrics[m].name }

func (m Metric) decimals() int { return metrics[m].decimals }
