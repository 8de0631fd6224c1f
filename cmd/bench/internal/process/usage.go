package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what the operating system has counted for a process since it started.
type Usage struct {
	CPU        time.Duration // user and system time
	PeakMemory int64         // highest resident memory, in bytes
}

// userHZ is the unit of times in /proc on every Linux: 1/100 s (proc_pid_stat(5), sysconf(3)).
const userHZ = 100

// usageOf reads /proc/PID/stat and /proc/PID/status (proc(5)). The times of children that have ended are included.
func usageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The second field is a name in brackets, which may contain any character.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, cstime = 11, 14 // counted from the third field
	if len(fields) <= cstime {
		return Usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Usage{}, err
		}
		ticks += n
	}
	peak, err := peakOf(pid)
	return Usage{time.Duration(ticks) * (time.Second / userHZ), peak}, err
}

func peakOf(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}
