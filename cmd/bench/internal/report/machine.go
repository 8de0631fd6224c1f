package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Machine is the machine of a run.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Memory     uint64 `json:"memory"` // bytes
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
}

// ThisMachine returns the machine that this process runs on. What cannot be read stays empty.
func ThisMachine() Machine {
	m := Machine{Processor: runtime.GOARCH, Processors: runtime.NumCPU(), Go: runtime.Version()}
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	m.Memory = memory()
	return m
}

// String describes the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%d processors (%s), %s of memory, %s %s, %s",
		m.Processors, m.Processor, humanize.IBytes(m.Memory), system, m.Kernel, m.Go)
}
