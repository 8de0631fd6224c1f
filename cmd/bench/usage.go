package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what the operating system says a server took: all of its processes together.
type usage struct {
	cpu  time.Duration // user and system, since it began
	peak int64         // most resident memory, in bytes, since it began
}

// userHZ is the unit of times in /proc on every Linux: 1/100 s (proc_pid_stat(5), sysconf(3)).
const userHZ = 100

// usage reads what the process and those that it started took so far.
func (p *process) usage() (usage, error) {
	var sum usage
	for _, pid := range p.pids() {
		one, err := usageOf(pid)
		if err != nil {
			return usage{}, fmt.Errorf("what %s takes: %w", p.name, err)
		}
		sum.cpu += one.cpu
		sum.peak += one.peak
	}
	return sum, nil
}

// pids returns the process and those it started, but not what those started: no server here goes so far.
func (p *process) pids() []int {
	root := p.cmd.Process.Pid
	pids := []int{root}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", root)) // the pattern is a good one
	for _, thread := range threads {
		children, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// usageOf reads /proc/PID/stat and /proc/PID/status, as proc(5) has them. The time of children that have ended is in it.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The second field is a name in brackets, which may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, cstime = 11, 14 // counted from the third field
	if len(fields) <= cstime {
		return usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return usage{}, err
		}
		ticks += n
	}
	peak, err := peakOf(pid)
	return usage{time.Duration(ticks) * (time.Second / userHZ), peak}, err
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
